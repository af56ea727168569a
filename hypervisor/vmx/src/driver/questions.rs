//! Questions that a machine waits for, and what their answers decide.

use hypervisor::control::{FromVmx, Question, State};

use super::Driver;
use crate::queue::code;
use crate::redo::Choice;
use crate::start;
use crate::vcpu::Event;

/// What an answer to the question decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decides {
    /// Try to start again, or not.
    Start,
    /// Forget the suspended state and start, or not.
    Discard,
    /// Try a disk again, tell the guest of the error, or power off.
    Disk { channel: usize },
    /// What becomes of the redo logs, at power off.
    Redo,
    /// Try to commit once more, or keep them.
    RedoAgain,
}

impl Driver {
    pub(super) fn ask(&mut self, text: &str, choices: &[&str], decides: Decides) {
        self.questions += 1;
        let question = Question {
            id: self.questions,
            text: text.to_owned(),
            choices: choices.iter().map(|&choice| choice.to_owned()).collect(),
            // Nothing is lost by keeping.
            default: if decides == Decides::Redo { 2 } else { 0 },
        };
        self.question = Some((question.clone(), decides));
        // First: whoever hears that the machine is stuck finds the question.
        self.speaker.say(FromVmx::Asked { question });
        self.change(State::Stuck, text);
    }

    pub(super) fn settle_question(&mut self) -> Option<Decides> {
        let (question, decides) = self.question.take()?;
        self.speaker.say(FromVmx::Settled { id: question.id });
        Some(decides)
    }

    pub(super) fn on_answer(&mut self, id: u32, choice: u32) -> Result<(), (i32, String)> {
        let Some((question, decides)) = &self.question else {
            return Err((code::BAD_STATE, "no question is pending".into()));
        };
        let known = question.id == id && (choice as usize) < question.choices.len();
        if !known || self.busy.is_some() {
            let text = if known { "" } else { "no such question or choice" };
            return Err((if known { code::BUSY } else { code::INVALID_ARGUMENT }, text.into()));
        }
        let decides = *decides;
        self.settle_question();
        match (decides, choice) {
            (Decides::Start, 0) => self.start(0, start::From::Suspended),
            (Decides::Discard, 1) => self.start(0, start::From::Nothing),
            (Decides::Start, _) => {
                self.end(0, State::Off, "The start of the virtual machine was cancelled.", Vec::new());
            }
            (Decides::Discard, _) => {
                self.end(0, State::Suspended, "The start of the virtual machine was cancelled.", Vec::new());
            }
            (Decides::Redo | Decides::RedoAgain, _) => {
                let choice = match (decides, choice) {
                    (Decides::Redo | Decides::RedoAgain, 0) => Choice::Commit,
                    (Decides::Redo, 1) => Choice::Discard,
                    _ => Choice::Keep,
                };
                let why = std::mem::take(&mut self.stopping);
                self.stop_now(0, &why, choice);
            }
            (Decides::Disk { .. }, 2..) => self.stop(0, "Virtual machine was powered off."),
            (Decides::Disk { channel }, _) => {
                let Some(machine) = self.machine.clone() else { return Ok(()) };
                self.change(State::On, "Virtual machine goes on.");
                let mut board = machine.board();
                let stop = if choice == 0 { board.retry(channel) } else { board.give_up(channel) };
                drop(board);
                match stop {
                    None if self.paused => {}
                    None => machine.run(),
                    Some(stop) => self.on_event(Event::Stop(stop)),
                }
            }
        }
        Ok(())
    }
}
