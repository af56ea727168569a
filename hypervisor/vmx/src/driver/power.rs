//! Power: what is carried out, and how a machine begins and ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor::control::{FromVmx, HostClass, MAX_CHUNK, Severity, State};

use super::Driver;
use super::events::Report;
use super::questions::Decides;
use crate::failure::{Failure, told, told_of};
use crate::machine::Machine;
use crate::medium::Medium;
use crate::queue::{NO_TOOLS, Power, Standing, Verdict, admit, code};
use crate::redo::{self, Choice};
use crate::start::{STATE_KEY, Session, Started};
use crate::{probe, snapshots};

/// How long a guest that was asked to power off may take.
const SOFT_WAIT: Duration = Duration::from_secs(60);

/// A guest that was asked to power off.
pub(super) struct Asked {
    pub(super) request: u32,
    pub(super) deadline: Instant,
    pub(super) hard: bool,
}

impl Driver {
    pub(super) fn power(&mut self, request: u32, power: Power) {
        let standing = Standing { state: self.state, paused: self.paused, busy: self.busy.is_some() };
        match admit(standing, power) {
            Verdict::Refuse(code, detail) => self.speaker.fail(request, code, detail),
            Verdict::Already => self.speaker.done(request),
            Verdict::Ask { hard } => {
                let listens =
                    self.machine.as_ref().is_some_and(|machine| machine.board().press_power_button());
                if listens && self.asked.is_none() {
                    self.asked = Some(Asked { request, deadline: Instant::now() + SOFT_WAIT, hard });
                } else if hard {
                    self.stop(request, "Virtual machine was powered off.");
                } else {
                    self.speaker.fail(request, code::BAD_STATE, NO_TOOLS);
                }
            }
            Verdict::Go => self.carry_out(request, power),
        }
    }

    pub(super) fn carry_out(&mut self, request: u32, power: Power) {
        let Some(machine) = self.machine.clone() else {
            // Stuck in a start: there is nothing to stop but the question.
            self.settle_question();
            return match power {
                Power::Stop(_) => self.end(
                    request,
                    State::Off,
                    "The start of the virtual machine was cancelled.",
                    Vec::new(),
                ),
                _ => self.speaker.fail(request, code::NEED_INPUT, ""),
            };
        };
        match power {
            // Whoever does not answer a question, and powers off: nothing is committed and nothing lost.
            Power::Stop(_) if self.state == State::Stuck => {
                self.stop_now(request, "Virtual machine was powered off.", Choice::Keep);
            }
            Power::Stop(_) => self.stop(request, "Virtual machine was powered off."),
            Power::Reset(_) if matches!(self.question, Some((_, Decides::RedoAgain))) => {
                self.speaker.fail(request, code::NEED_INPUT, "");
            }
            Power::Reset(_) => {
                self.settle_question();
                self.typist = None;
                self.work(request, move || Report::Reset(reset(&machine)));
            }
            Power::Pause => self.work(request, move || {
                machine.pause();
                Report::Paused
            }),
            Power::Resume => {
                machine.run();
                self.set_paused(false);
                self.speaker.done(request);
            }
            Power::Suspend => {
                let session = Arc::clone(&self.session);
                let uptime = self.status().uptime;
                let running = !self.paused;
                self.work(request, move || Report::Suspended(suspend(&session, &machine, uptime, running)));
            }
            // Decided elsewhere: it carries more than a mode.
            Power::Snapshot => {}
        }
    }

    pub(super) fn on_started(&mut self, request: u32, started: Started) {
        let Started { machine, plan, uptime, resumed } = started;
        self.typist = None;
        self.machine = Some(machine);
        self.on_since = Some((Instant::now(), uptime));
        for notice in &plan.notices {
            self.speaker.notice(Severity::Warning, notice.clone());
        }
        if snapshots::is_unfinished(&self.session) {
            let text = "A removal of snapshots was interrupted: removing all snapshots once more ends it.";
            self.speaker.notice(Severity::Warning, text);
        }
        self.connected = plan
            .drives
            .iter()
            .filter(|drive| drive.cd)
            .map(|drive| (drive.name.clone(), drive.connected))
            .collect();
        self.connected.extend(plan.floppy.iter().map(|floppy| (floppy.name.clone(), floppy.connected)));
        self.connected.extend(plan.serial.iter().map(|port| (format!("serial{}", port.number), true)));
        self.plan = Some(plan);
        // First: whoever hears that it is on can be told what it has.
        let status = self.status();
        self.speaker.say(FromVmx::IsNow { request: 0, status });
        self.change(
            State::On,
            if resumed { "Virtual machine was resumed." } else { "Virtual machine was powered on." },
        );
        self.answer(request, Ok(()));
        if let Some(class) = self.host {
            self.on_report(Report::Class(class));
        } else if let Ok(kvm) = self.session.kvm.try_clone() {
            let reports = self.reports.clone();
            tokio::task::spawn_blocking(move || {
                let _ = reports.send(Report::Class(probe::class(kvm).unwrap_or(HostClass::None)));
            });
        }
    }

    /// Powers off; where disks are undoable, asks first what becomes of their changes.
    pub(super) fn stop(&mut self, request: u32, why: &str) {
        let asked = matches!(self.question, Some((_, Decides::Redo | Decides::RedoAgain)));
        let undoable = self.plan.iter().flat_map(redo::undoable).next().is_some();
        match self.machine.clone() {
            Some(machine) if !asked && undoable && !self.leaving => {
                self.settle_question();
                self.stopping = why.to_owned();
                self.work(request, move || {
                    machine.pause();
                    // What the guest believes to be written must be, however long the answer takes.
                    let trouble = machine.board().flush().err();
                    Report::Halted { trouble: trouble.map(|error| error.to_string()) }
                });
            }
            _ => self.stop_now(request, why, Choice::Keep),
        }
    }

    /// The machine stands still to be powered off: what becomes of its redo logs?
    pub(super) fn ask_about_redo(&mut self, request: u32) {
        let drives = self.plan.iter().flat_map(redo::undoable);
        let names: Vec<&str> = drives.map(|drive| drive.name.as_str()).collect();
        let text = format!(
            "Changes to undoable disks ({}) were kept aside. Commit them to the disks, discard them, or keep \
             them for the next run?",
            names.join(", ")
        );
        self.ask(&text, &["Commit", "Discard", "Keep"], Decides::Redo);
        self.answer(request, Err((code::NEED_INPUT, text)));
        if let Some(asked) = self.asked.take() {
            self.speaker.fail(asked.request, code::NEED_INPUT, "");
        }
    }

    /// Powers off without a question.
    pub(super) fn stop_now(&mut self, request: u32, why: &str, choice: Choice) {
        self.settle_question();
        let why = why.to_owned();
        let drives = self.plan.as_ref().map(|plan| plan.drives.clone()).unwrap_or_default();
        let session = Arc::clone(&self.session);
        match self.machine.clone() {
            None => self.end(request, State::Off, &why, Vec::new()),
            Some(machine) => self.work(request, move || {
                machine.pause();
                let trouble = close(&machine).err();
                // What could not be written is not merged into anything.
                let choice = if trouble.is_some() { Choice::Keep } else { choice };
                match redo::settle(&session, &drives, choice) {
                    Ok(()) => Report::Stopped { why, outputs: last_outputs(&machine), trouble },
                    Err(error) => Report::NotSettled { why, text: error.to_string() },
                }
            }),
        }
    }

    /// Says the last things, and ends the process.
    pub(super) fn end(&mut self, request: u32, to: State, why: &str, outputs: Vec<FromVmx>) {
        for output in outputs {
            self.speaker.say(output);
        }
        if let Some(filled) = self.machine.take().map(|machine| machine.filled()).filter(|&count| count > 0) {
            self.log(&format!("{filled} instructions were carried out for KVM"));
        }
        self.on_since = None;
        self.set_paused(false);
        self.change(to, why);
        self.answer(request, Ok(()));
        if let Some(asked) = self.asked.take() {
            self.answer(asked.request, Ok(()));
        }
        self.ended = true;
    }

    pub(super) fn on_soft_timeout(&mut self) {
        let Some(asked) = self.asked.take() else { return };
        if asked.hard && self.busy.is_none() {
            self.stop(asked.request, "Virtual machine was powered off.");
        } else {
            self.answer(asked.request, Err((code::TIMEOUT, "the guest did not power off".to_owned())));
        }
    }

    /// SIGTERM: the host is going down. A guest that listens is asked to power off, and has until the usual time
    /// is over; at a second signal, as any other, it is powered off. Nobody is there to answer questions.
    pub(super) fn on_terminate(&mut self) {
        self.log("asked to end (SIGTERM)");
        let wants = self.state == State::On && !self.paused && !self.leaving;
        let machine = self.machine.as_ref().filter(|_| wants);
        let listens = machine.is_some_and(|machine| machine.board().press_power_button());
        let request = self.asked.take().map_or(0, |asked| asked.request);
        self.leaving = true;
        self.asked = listens.then(|| Asked { request, deadline: Instant::now() + SOFT_WAIT, hard: true });
        self.leave();
    }

    /// Ends a machine whose host is going down, unless its guest is doing so. What is being worked on is finished
    /// first; this is called again then.
    pub(super) fn leave(&mut self) {
        if !self.leaving || self.busy.is_some() || self.asked.is_some() || self.ended {
            return;
        }
        if self.machine.is_none() {
            // Off, or suspended, and it stays so.
            self.ended = true;
            return;
        }
        self.stop_now(0, "The host is going down: virtual machine was powered off.", Choice::Keep);
    }
}

pub(super) fn reset(machine: &Machine) -> Result<(), String> {
    machine.reset().map_err(|error| error.to_string())?;
    machine.run();
    Ok(())
}

/// Saves the machine and enters the file in the .vmx; on failure the machine goes on.
pub(super) fn suspend(
    session: &Session,
    machine: &Machine,
    uptime: u64,
    running: bool,
) -> Result<Vec<FromVmx>, Failure> {
    machine.pause();
    let file = session.state_file();
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let flushed = machine.board().flush().map_err(|error| told(&error, code::UNSPECIFIED));
    let result = flushed
        .and_then(|()| machine.save(&file, uptime).map_err(|error| told(&error, code::UNSPECIFIED)))
        .and_then(|()| {
            let entered = session.set_keys(&[(STATE_KEY, &name)]);
            entered.map_err(|error| told_of(&session.config, &error, code::UNSPECIFIED))
        });
    match result {
        Ok(()) => {
            let outputs = last_outputs(machine);
            close(machine).map_err(|text| (code::UNSPECIFIED, text))?;
            Ok(outputs)
        }
        Err(failure) => {
            let _ = std::fs::remove_file(&file);
            if running {
                machine.run();
            }
            Err(failure)
        }
    }
}

/// Flushes and closes every disk. All are closed, whatever happens.
pub(super) fn close(machine: &Machine) -> Result<(), String> {
    let mut board = machine.board();
    let mut result = board.flush().map_err(|error| error.to_string());
    for (channel, unit) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        if let Some(Medium::Disk(disk)) = board.medium(channel, unit).and_then(Option::take) {
            result = result.and(disk.close().map_err(|error| error.to_string()));
        }
    }
    result
}

/// What the guest sent last, for readers who come later.
pub(super) fn last_outputs(machine: &Machine) -> Vec<FromVmx> {
    let mut outputs = Vec::new();
    let mut board = machine.board();
    for port in board.serial_numbers() {
        let Some(chip) = board.serial(port) else { continue };
        let kept = chip.kept();
        let mut offset = kept.start();
        while offset < kept.end() {
            let part = kept.part(offset, MAX_CHUNK);
            offset += part.bytes.len() as u64;
            outputs.push(FromVmx::Output {
                request: 0,
                port,
                offset: part.offset,
                lost: 0,
                bytes: part.bytes,
            });
        }
    }
    outputs
}
