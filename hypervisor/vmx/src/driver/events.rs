//! What the processors and the workers report.

use std::path::PathBuf;

use hypervisor::control::{FromVmx, HostClass, Severity, State};

use super::Driver;
use super::power::reset;
use super::questions::Decides;
use crate::board::Stop;
use crate::chips::Effect;
use crate::failure::{Failure, told};
use crate::queue::code;
use crate::redo::Choice;
use crate::snapshots::Removed;
use crate::start::{self, NotStarted, Started};
use crate::vcpu::Event;

/// What a worker was doing, and how it ended.
pub(super) enum Report {
    Started(Result<Box<Started>, NotStarted>),
    Stopped {
        why: String,
        outputs: Vec<FromVmx>,
        trouble: Option<String>,
    },
    /// The machine stands still, to be powered off when a question is answered.
    Halted {
        trouble: Option<String>,
    },
    /// The machine stands still and its disks are closed, but the redo logs could not be settled.
    NotSettled {
        why: String,
        text: String,
    },
    Suspended(Result<Vec<FromVmx>, Failure>),
    Paused,
    Reset(Result<(), String>),
    Class(HostClass),
    SnapshotMade(Result<(u32, Vec<(String, PathBuf)>), Failure>),
    Reverted(Result<Option<PathBuf>, Failure>),
    SnapshotsRemoved(Removed),
}

impl Driver {
    pub(super) fn on_event(&mut self, event: Event) {
        let Some(machine) = self.machine.clone() else { return };
        if matches!(self.question, Some((_, Decides::Redo | Decides::RedoAgain))) {
            // It is being powered off, and stands still: two processors may both have had a reason.
            return;
        }
        match event {
            Event::Filled(what) => self.log(&format!("KVM lacks an instruction, carried out here: {what}")),
            Event::Stop(Stop::Effect(Effect::PowerOff)) => {
                self.stop(0, "Virtual machine was powered off by the guest.");
            }
            Event::Stop(Stop::Effect(Effect::Reset)) => self.work(0, move || Report::Reset(reset(&machine))),
            Event::TripleFault => {
                self.speaker.notice(Severity::Warning, "The guest has crashed (triple fault); it is reset.");
                self.work(0, move || Report::Reset(reset(&machine)));
            }
            Event::Broken(text) => {
                self.speaker.notice(Severity::Error, text.clone());
                self.stop_now(0, &format!("Virtual machine was powered off: {text}."), Choice::Keep);
            }
            Event::Stop(Stop::Fault { channel, unit, full, text }) => {
                machine.pause();
                let what = if full {
                    "There is no space left for a virtual disk"
                } else {
                    "A virtual disk cannot be read or written"
                };
                let text = format!(
                    "{what} (ide{channel}:{unit}): {text}. Retry, report the error to the guest, or power off?"
                );
                self.ask(&text, &["Retry", "Continue", "Power off"], Decides::Disk { channel });
            }
        }
    }

    pub(super) fn on_report(&mut self, report: Report) {
        if let Report::Class(class) = report {
            self.class = class;
            if let Some(machine) = &self.machine {
                machine.adapt(class);
            }
            self.log(&format!("the host runs guests: {}", class.name()));
            return;
        }
        let request = self.busy.take().unwrap_or(0);
        match report {
            Report::Class(_) => {}
            Report::Started(Ok(started)) => self.on_started(request, *started),
            Report::Started(Err(NotStarted::Failed(code, detail))) => {
                self.log(&format!("not started: {detail}"));
                self.speaker.notice(Severity::Error, detail.clone());
                if self.state == State::Stuck {
                    self.change(State::Off, &detail);
                }
                self.answer(request, Err((code, detail)));
                self.ended = true;
            }
            Report::Started(Err(NotStarted::Retry(text))) => {
                self.ask(&text, &["Retry", "Cancel"], Decides::Start);
                self.answer(request, Err((code::NEED_INPUT, text)));
            }
            Report::Started(Err(NotStarted::Discard(text))) => {
                self.ask(&text, &["Cancel", "Discard the suspended state and power on"], Decides::Discard);
                self.answer(request, Err((code::NEED_INPUT, text)));
            }
            Report::Stopped { why, outputs, trouble } => {
                if let Some(trouble) = trouble {
                    self.speaker.notice(Severity::Error, trouble);
                }
                self.end(request, State::Off, &why, outputs);
            }
            Report::Halted { trouble } => {
                if let Some(trouble) = trouble {
                    self.speaker.notice(Severity::Error, trouble);
                }
                self.ask_about_redo(request);
            }
            Report::NotSettled { why, text } => {
                self.speaker.notice(Severity::Error, text.clone());
                self.stopping = why;
                let text = format!(
                    "Changes to undoable disks could not be committed or discarded: {text}. Try again?"
                );
                self.ask(&text, &["Commit", "Keep"], Decides::RedoAgain);
                self.answer(request, Err((code::NEED_INPUT, text)));
            }
            Report::Suspended(Ok(outputs)) => {
                self.end(request, State::Suspended, "Virtual machine was suspended.", outputs);
            }
            Report::Suspended(Err((code, text))) => {
                let notice = format!("Virtual machine could not be suspended: {text}");
                self.speaker.notice(Severity::Error, notice.clone());
                // Of a shortage a client is told the path and the reason.
                let text = if code == code::NO_RESOURCES { text } else { notice };
                self.answer(request, Err((code, text)));
            }
            Report::SnapshotMade(Ok((id, disks))) => {
                self.use_disks(&disks);
                self.speaker.say(FromVmx::Snapshots { any: true });
                self.speaker.say(FromVmx::SnapshotMade { request, id });
            }
            Report::SnapshotsRemoved(Removed { disks, result }) => {
                self.use_disks(&disks);
                self.speaker.say(FromVmx::Snapshots { any: self.has_snapshot() });
                if let Err(error) = &result {
                    self.speaker.notice(Severity::Error, format!("Snapshots could not be removed: {error}."));
                }
                self.answer(request, result.map_err(|error| told(&error, code::UNSPECIFIED)));
            }
            Report::SnapshotMade(Err((code, text))) => {
                self.speaker.notice(Severity::Error, text.clone());
                self.answer(request, Err((code, text)));
            }
            Report::Reverted(Ok(state)) => {
                self.plan = None;
                self.on_since = None;
                self.set_paused(false);
                let was_on = self.state == State::On;
                if self.state != State::Off {
                    self.change(State::Off, "Virtual machine goes back to a snapshot.");
                }
                match state {
                    Some(state) => self.start(request, start::From::Snapshot(state)),
                    None => {
                        self.answer(request, Ok(()));
                        self.ended = was_on;
                    }
                }
            }
            Report::Reverted(Err((code, text))) => {
                self.speaker.notice(Severity::Error, text.clone());
                self.answer(request, Err((code, text.clone())));
                if self.state == State::On {
                    self.end(0, State::Off, &format!("Virtual machine was powered off: {text}."), Vec::new());
                }
            }
            Report::Paused => {
                self.set_paused(true);
                self.answer(request, Ok(()));
            }
            Report::Reset(Ok(())) => {
                if self.state == State::Stuck {
                    self.change(State::On, "Virtual machine was reset.");
                }
                self.set_paused(false);
                self.speaker.notice(Severity::Info, "Virtual machine was reset.");
                self.answer(request, Ok(()));
            }
            Report::Reset(Err(text)) => {
                self.answer(request, Err((code::UNSPECIFIED, text.clone())));
                self.stop(0, &format!("Virtual machine was powered off: it could not be reset ({text})."));
            }
        }
    }
}
