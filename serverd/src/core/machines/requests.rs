//! What is asked of machines, and what their answers and events mean.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ::link::audit::{self, Kind, Outcome};
use ::link::identity::for_log;
use ::link::wire::{Inner, MAX_MESSAGE, Message};
use handlers::running::Happened;
use hypervisor::control::{FromVmx, PowerMode, Severity, State, Status, ToVmx};
use hypervisor::event_log::{Event, EventKind, LogRights};
use ops::{Error, ErrorCode};

use super::events::{MAX_WAIT, Wanted};
use super::launch::{Launch, Orders, START};
use super::process::{self, MachineEvent, MachineId};
use super::records::Record;
use super::usage::stat_field;
use super::{Forward, Machine, Next, Pending, Purpose, bounded, cut, fresh};
use crate::channel::{Answer, TaskEnd};
use crate::core::Event as Happening;
use crate::core::auditing::power_record;
use crate::core::proof::Need;
use crate::core::questions::{Asker, in_pieces};
use crate::core::store::Work;
use crate::core::supervisor::Supervisor;
use crate::core::tasks::unix_now;

/// Requests that one machine may have under way.
const MAX_UNDER_WAY: usize = 1024;

/// Most pieces of one answer.
const MAX_PIECES: usize = 1024;

/// Most events in one answer.
const MAX_EVENTS: u32 = 10_000;

/// How long a core that starts waits for machines that it finds again.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// The guest variable that has the guest's address.
const ADDRESS: &str = "ip";

/// Longest address that is shown, in bytes.
const MAX_ADDRESS: usize = 256;

/// When a machine that has just been started is looked at again: it has found out by then how the host
/// runs it.
const LOOK_AGAIN: Duration = Duration::from_millis(300);

/// How a request leads to another state of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leads {
    /// It does not.
    Nowhere,
    /// When the guest has done it.
    ByGuest,
    /// At once.
    AtOnce,
}

/// How a request leads to another state.
fn leads(ask: &ToVmx) -> Leads {
    match ask {
        ToVmx::Stop { mode, .. } | ToVmx::Reset { mode, .. } | ToVmx::Suspend { mode, .. } => match mode {
            PowerMode::Hard => Leads::AtOnce,
            PowerMode::Soft | PowerMode::TrySoft => Leads::ByGuest,
        },
        ToVmx::Pause { .. }
        | ToVmx::Resume { .. }
        | ToVmx::Answer { .. }
        | ToVmx::RevertToSnapshot { .. } => Leads::AtOnce,
        _ => Leads::Nowhere,
    }
}

/// How long a machine that is to be stopped hard may take to say how it is.
const STOP_ANSWER: Duration = Duration::from_secs(5);

/// What a stop is called.
const STOP: &str = "stop";

/// The right that a request takes.
#[must_use]
pub fn need(ask: &ToVmx) -> Need {
    match ask {
        ToVmx::SerialRead { .. }
        | ToVmx::Screenshot { .. }
        | ToVmx::GetGuestInfo { .. }
        | ToVmx::GetStatus { .. }
        | ToVmx::ListSnapshots { .. } => Need::See,
        _ => Need::Operate,
    }
}

/// Whether a request can be carried out on a machine that is off, by a process that does nothing else.
#[must_use]
pub fn is_maintenance(ask: &ToVmx) -> bool {
    matches!(
        ask,
        ToVmx::CreateSnapshot { .. }
            | ToVmx::RevertToSnapshot { .. }
            | ToVmx::RemoveAllSnapshots { .. }
            | ToVmx::ListSnapshots { .. }
    )
}

/// What scripts read for a request.
pub(in crate::core) fn verb(ask: &ToVmx) -> &'static str {
    match ask {
        ToVmx::Start { .. } => "start",
        ToVmx::Stop { .. } => STOP,
        ToVmx::Reset { .. } => "reset",
        ToVmx::Suspend { .. } => "suspend",
        ToVmx::Pause { .. } => "pause",
        ToVmx::Resume { .. } => "resume",
        ToVmx::CreateSnapshot { .. } => "create snapshot",
        ToVmx::RevertToSnapshot { .. } => "revert to snapshot",
        ToVmx::RemoveAllSnapshots { .. } => "remove snapshots",
        ToVmx::ListSnapshots { .. } => "list snapshots",
        ToVmx::Connect { connected: true, .. } => "connect device",
        ToVmx::Connect { .. } => "disconnect device",
        ToVmx::Answer { .. } => "answer",
        ToVmx::SerialRead { .. } => "read serial port",
        ToVmx::SerialWrite { .. } => "write serial port",
        ToVmx::Keys { .. } => "type keys",
        ToVmx::Screenshot { .. } => "save screenshot",
        ToVmx::GetGuestInfo { .. } => "get guest info",
        ToVmx::SetGuestInfo { .. } => "set guest info",
        ToVmx::GetStatus { .. } => "get status",
    }
}

/// The request with another number; `None` for a start, which only the core asks for.
fn numbered(mut ask: ToVmx, number: u32) -> Option<ToVmx> {
    ask.set_request(number);
    (!matches!(ask, ToVmx::Start { .. })).then_some(ask)
}

/// Number of the request that a message answers; `None` for an event.
fn answered(message: &FromVmx) -> Option<u32> {
    match message {
        FromVmx::Done { request }
        | FromVmx::Failed { request, .. }
        | FromVmx::SnapshotMade { request, .. }
        | FromVmx::OneSnapshot { request, .. }
        | FromVmx::Output { request, .. }
        | FromVmx::Written { request, .. }
        | FromVmx::Picture { request, .. }
        | FromVmx::Value { request, .. }
        | FromVmx::IsNow { request, .. } => (*request != 0).then_some(*request),
        _ => None,
    }
}

fn failure(code: i32, mut detail: String) -> Error {
    cut(&mut detail, super::MAX_TEXT);
    let code = ErrorCode::from_number(code).unwrap_or(ErrorCode::Unspecified);
    match (code, detail.is_empty()) {
        (code, true) => Error::new(code),
        (ErrorCode::Unspecified, false) => Error::unspecified(detail),
        (code, false) => Error::with(code, detail),
    }
}

fn on(config: &str) -> Error {
    tracing::debug!("{config} is on already");
    Error::state_conflict("start", "on")
}

/// The answer to a start of a machine that is up.
fn started_already(config: &str, state: State) -> Error {
    if state == State::Stuck { Error::new(ErrorCode::NeedInput) } else { on(config) }
}

fn busy() -> Error {
    Error::with(ErrorCode::VmBusy, "another operation on it is under way")
}

impl Supervisor {
    // Questions.

    /// Starts a machine for somebody who may.
    pub(in crate::core) fn start_machine(
        &mut self,
        asker: Asker,
        config: &str,
        launch: Option<Launch>,
        rights: Option<LogRights>,
    ) {
        let (Some(launch), Some(rights)) = (launch, rights) else {
            return self.settle(&asker, Err(Error::no_such_vm()));
        };
        self.begin_machine(config, Next { asker, launch, work: None }, rights);
    }

    fn begin_machine(&mut self, config: &str, next: Next, rights: LogRights) {
        let asker = next.asker.clone();
        if self.stopping {
            let text = "the server is stopping";
            return self.settle(&asker, Err(Error::with(ErrorCode::InsufficientResources, text)));
        }
        if !self.shared.inventory.contains(config) {
            return self.settle(&asker, Err(Error::not_registered(config)));
        }
        if self.under_way.is_changing(config) {
            // Once it is unregistered, nobody could stop it.
            return self.settle(&asker, Err(busy()));
        }
        if let Some(machine) = self.machines.entries.get_mut(config) {
            let starts = next.work.is_none() && !machine.is_maintenance && !machine.ending;
            let refused = match machine.status.state {
                State::Off | State::Suspended if starts && machine.late.len() < MAX_UNDER_WAY => {
                    // Of several only the first one starts it; the others hear what became of that.
                    machine.late.push(asker);
                    return;
                }
                // Its process is about to end: then this one is started.
                State::Off | State::Suspended if machine.ending && machine.next.is_none() => {
                    machine.next = Some(next);
                    return;
                }
                State::Off | State::Suspended => busy(),
                state => started_already(config, state),
            };
            return self.settle(&asker, Err(refused));
        }
        if let Err(why) = self.spawn_machine(config, next, rights) {
            self.settle(&asker, Err(Error::with(ErrorCode::VmInitFailed, why)));
        }
    }

    fn spawn_machine(&mut self, config: &str, next: Next, rights: LogRights) -> Result<(), String> {
        let Next { asker, launch, work } = next;
        let id = self.machines.new_id();
        let directory = Path::new(config).parent().unwrap_or(Path::new("/"));
        let account = &launch.account;
        let orders = Orders {
            uid: account.uid,
            gid: account.gid,
            groups: account.groups.clone(),
            program: self.machines.program.vmx.clone(),
            log: directory.join("vmware.log").to_string_lossy().into_owned(),
            anew: work.is_none(),
        };
        let handles = process::spawn(id, &orders, &self.events)
            .map_err(|error| format!("cannot start a machine process: {error}"))?;
        tracing::info!(
            "machine process {} of {} (uid {}) started for {}",
            handles.pid,
            for_log(account.name.as_bytes()),
            account.uid,
            for_log(config.as_bytes())
        );
        let user = Some(asker.by.name.clone());
        let mut machine = Machine::new(id, handles, rights);
        machine.is_maintenance = work.is_some();
        machine.launch = Some(launch);
        machine.maintenance = work.map(|work| (asker.clone(), work));
        let start = Pending { asker: Some(asker), purpose: Purpose::Start, user };
        machine.asked.insert(START, start);
        self.machines.insert(config, machine);
        Ok(())
    }

    /// Hands on a request of somebody who may make it.
    pub(in crate::core) fn ask_machine(
        &mut self,
        asker: Asker,
        config: &str,
        ask: ToVmx,
        launch: Option<Launch>,
        rights: Option<LogRights>,
    ) {
        let up = self.machines.entries.get(config).is_some_and(|machine| {
            machine.is_up() || (is_maintenance(&ask) && machine.is_maintenance && !machine.ending)
        });
        if up {
            if self.machines.entries.get(config).is_some_and(|machine| !machine.is_up()) {
                return self.settle(&asker, Err(busy()));
            }
            return self.forward(asker, config, ask, false);
        }
        if let ToVmx::SerialRead { port, offset, max, .. } = ask {
            let answer = self.kept_output(config, (port, offset, max));
            return self.settle(&asker, answer);
        }
        if !is_maintenance(&ask) {
            let error =
                if self.machines.is_busy(config) { busy() } else { Error::state_conflict(verb(&ask), "off") };
            return self.settle(&asker, Err(error));
        }
        let (Some(launch), Some(rights)) = (launch, rights) else {
            return self.settle(&asker, Err(Error::no_such_vm()));
        };
        self.begin_machine(config, Next { asker, launch, work: Some(ask) }, rights);
    }

    /// Output of a machine that is off.
    fn kept_output(&self, config: &str, (port, offset, max): (u32, u64, u32)) -> Result<Answer, Error> {
        let output = self.machines.kept.read(config, port, offset, max);
        let none = || Error::with(ErrorCode::NoProperty, format!("serial{port}"));
        output.ok_or_else(none).map(|message| Answer::Machine { message: Inner(message) })
    }

    /// The answer of a machine that is off to a request that it had when it ended.
    fn answer_of_kept(&self, config: &str, forward: &Forward, now: &str) -> Result<Answer, Error> {
        match forward.reads {
            Some(part) => self.kept_output(config, part),
            None => Err(Error::state_conflict(forward.verb, now)),
        }
    }

    fn forward(&mut self, asker: Asker, config: &str, ask: ToVmx, closes: bool) {
        let user = (need(&ask) == Need::Operate).then(|| asker.by.name.clone());
        if user.is_some() {
            let record = audit::Record {
                machine: Some(config.to_owned()),
                detail: Some(verb(&ask).to_owned()),
                ..audit::Record::new(Kind::Machine, Outcome::Ok)
            };
            self.audit_by(&asker.by, record);
        }
        let Some(machine) = self.machines.entries.get_mut(config) else { return };
        if machine.asked.len() >= MAX_UNDER_WAY {
            let text = "too many requests to it are under way";
            return self.settle(&asker, Err(Error::with(ErrorCode::InsufficientResources, text)));
        }
        let answers = match &ask {
            ToVmx::Answer { choice, .. } => {
                let choices = machine.status.question.as_ref().map(|question| &question.choices);
                let chosen = choices.and_then(|all| all.get(usize::try_from(*choice).unwrap_or(usize::MAX)));
                chosen.cloned()
            }
            _ => None,
        };
        if machine.lost && matches!(ask, ToVmx::Stop { mode: PowerMode::Hard | PowerMode::TrySoft, .. }) {
            // Nothing can be asked of it: the plug is pulled. The asker is answered when it is buried.
            machine.next_request += 1;
            let pending = Pending { asker: Some(asker), purpose: Purpose::Kill, user };
            machine.asked.insert(machine.next_request, pending);
            let id = machine.id;
            return self.give_machine_up(id, "it does not answer and is to be stopped hard");
        }
        let reads = match ask {
            ToVmx::SerialRead { port, offset, max, .. } => Some((port, offset, max)),
            _ => None,
        };
        let hard = matches!(ask, ToVmx::Stop { mode: PowerMode::Hard, .. });
        let (leads, verb) = (leads(&ask), verb(&ask));
        let purpose = Purpose::Forward(Forward { pieces: Vec::new(), closes, answers, leads, verb, reads });
        if let Err(error) = machine.ask(ask, Pending { asker: Some(asker.clone()), purpose, user }) {
            return self.settle(&asker, Err(error));
        }
        if hard {
            // One that takes longer works; one that does not say how it is does not.
            let id = machine.id;
            if let Some(look) = self.look_at(id) {
                process::later(id, MachineEvent::Hangs { look }, STOP_ANSWER, &self.events);
            }
        }
    }

    /// Which machines have a process.
    pub(in crate::core) fn tell_running(&mut self, asker: &Asker) -> Result<(), String> {
        let mut running = self.machines.running();
        for machine in &mut running {
            machine.remote_connections = u32::try_from(self.consoles(&machine.config)).unwrap_or(u32::MAX);
        }
        let pieces = in_pieces(running.into_iter(), |machine| {
            let mut bytes = Vec::new();
            ::link::wire::Wire::put(machine, &mut bytes);
            bytes.len()
        });
        self.answer_in_pieces(asker, pieces, |machines| Answer::Running { machines })
    }

    /// Events, now or later.
    pub(in crate::core) fn wait_for_events(
        &mut self,
        asker: Asker,
        wanted: Option<(u64, u64)>,
        timeout: Duration,
        max: u32,
    ) {
        let Some((uid, admin)) = self.who(asker.process) else { return };
        let ring = &mut self.machines.ring;
        let max = usize::try_from(max.clamp(1, MAX_EVENTS)).unwrap_or(1);
        let Some((epoch, since)) = wanted else {
            let batch = ring.now();
            return self.tell_events(&asker, batch);
        };
        let other = epoch != ring.epoch;
        let wanted = Wanted { asker: asker.clone(), uid, admin, since: if other { 0 } else { since }, max };
        let mut batch = ring.since(&wanted);
        batch.lost |= other;
        if batch.lost || !batch.events.is_empty() || timeout.is_zero() || self.stopping || !ring.wait(wanted)
        {
            return self.tell_events(&asker, batch);
        }
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(timeout.min(MAX_WAIT)).await;
            let _ = events.send(Happening::EventsWaited(asker)).await;
        });
    }

    /// Somebody has waited for events long enough.
    pub fn events_waited(&mut self, asker: &Asker) {
        if let Some(wanted) = self.machines.ring.give_up(asker) {
            let batch = self.machines.ring.since(&wanted);
            self.tell_events(asker, batch);
        }
    }

    fn tell_events(&self, asker: &Asker, batch: super::events::Batch) {
        let epoch = self.machines.ring.epoch;
        let super::events::Batch { next, lost, events } = batch;
        let pieces = in_pieces(events.into_iter(), |event| {
            let mut bytes = Vec::new();
            ::link::wire::Wire::put(event, &mut bytes);
            bytes.len()
        });
        // A process that has broken its channel shows elsewhere.
        let _ = self.answer_in_pieces(asker, pieces, |events| Answer::Events { epoch, next, lost, events });
    }

    /// Something has happened: whoever waits for it is told.
    pub(in crate::core) fn announce(&mut self, only: Option<u32>, config: &str, what: Happened) {
        for wanted in self.machines.ring.push(only, config, what) {
            let batch = self.machines.ring.since(&wanted);
            self.tell_events(&wanted.asker, batch);
        }
    }

    /// A task has another state.
    pub(in crate::core) fn announce_task(&mut self, uid: u32, task: u64) {
        let Ok(facts) = self.shared.tasks.status(uid, false, task) else { return };
        let state = match facts.state {
            TaskEnd::Running => "running",
            TaskEnd::Done => "done",
            TaskEnd::Failed { .. } => "failed",
            TaskEnd::Stopped => "stopped",
        };
        let percent = facts.done.saturating_mul(100).checked_div(facts.total).unwrap_or(0).min(100);
        let percent = if facts.state == TaskEnd::Done { 100 } else { percent };
        let percent = u32::try_from(percent).unwrap_or(100);
        self.announce(Some(uid), "", Happened::Task { task, state: state.into(), percent });
    }

    // What machines say.

    /// Takes in what happened to a machine process.
    pub fn machine_event(&mut self, id: MachineId, event: MachineEvent) {
        match event {
            MachineEvent::Message(message, fds) => {
                if let Err(why) = self.machine_says(id, message, fds) {
                    self.give_machine_up(id, &why);
                }
            }
            MachineEvent::ChannelEnded(end) => {
                if let Err(error) = end {
                    self.give_machine_up(id, &format!("it broke its channel: {error}"));
                }
                if let Some((_, machine)) = self.machines.by_id(id) {
                    machine.channel_ended = true;
                    machine.handles.kill_later();
                }
                self.bury_machine(id);
            }
            MachineEvent::Exited(how) => {
                if let Some((_, machine)) = self.machines.by_id(id) {
                    machine.exited = Some(how);
                }
                self.bury_machine(id);
            }
            MachineEvent::HelloLate => {
                if self.machines.by_id(id).is_some_and(|(_, machine)| machine.launch.is_some()) {
                    self.give_machine_up(id, "it does not say hello");
                }
            }
            MachineEvent::Look => drop(self.look_at(id)),
            MachineEvent::Hangs { look } => self.hangs(id, look),
            MachineEvent::Found(found) => self.machine_found(id, found),
            MachineEvent::Cleaned => {
                if let Some((_, machine)) = self.machines.by_id(id) {
                    machine.cleaning = false;
                }
                self.bury_machine(id);
            }
        }
    }

    fn give_machine_up(&mut self, id: MachineId, why: &str) {
        if let Some((config, machine)) = self.machines.by_id(id) {
            tracing::warn!(
                "machine process {} of {} is killed: {why}",
                machine.handles.pid,
                for_log(config.as_bytes())
            );
            machine.handles.kill();
        }
    }

    /// Asks a machine how it is; returns the number of the request.
    fn look_at(&mut self, id: MachineId) -> Option<u32> {
        let (_, machine) = self.machines.by_id(id)?;
        if machine.launch.is_some() || machine.ending {
            return None;
        }
        // One that takes no message ends otherwise.
        let pending = Pending { asker: None, purpose: Purpose::Look, user: None };
        machine.ask(ToVmx::GetStatus { request: 0 }, pending).ok()?;
        Some(machine.next_request)
    }

    /// A machine that was to be stopped hard has not said how it is: the plug is pulled. Whoever wanted that is answered
    /// when it is buried.
    fn hangs(&mut self, id: MachineId, look: u32) {
        let Some((_, machine)) = self.machines.by_id(id) else { return };
        if !machine.is_up() || !machine.asked.contains_key(&look) {
            return;
        }
        for pending in machine.asked.values_mut() {
            if matches!(&pending.purpose, Purpose::Forward(forward) if forward.verb == STOP) {
                pending.purpose = Purpose::Kill;
            }
        }
        self.give_machine_up(id, "it does not answer and is to be stopped hard");
    }

    /// Asks what the guest says its address is.
    fn look_for_address(&mut self, id: MachineId) {
        if let Some((_, machine)) = self.machines.by_id(id) {
            let pending = Pending { asker: None, purpose: Purpose::Address, user: None };
            let _ = machine.ask(ToVmx::GetGuestInfo { request: 0, key: ADDRESS.into() }, pending);
        }
    }

    /// Obeys one message; an error is a breach of the rules.
    fn machine_says(&mut self, id: MachineId, message: FromVmx, fds: Vec<OwnedFd>) -> Result<(), String> {
        if let Some(number) = answered(&message) {
            self.machine_answers(id, number, message);
            return Ok(());
        }
        let firmware = self.machines.program.firmware.clone();
        let Some((config, machine)) = self.machines.by_id(id) else { return Ok(()) };
        let config = config.clone();
        let mut refresh = true;
        match message {
            FromVmx::Log {} => {
                if machine.launch.is_none() || machine.log.is_some() {
                    return Err("it has no log to offer".into());
                }
                machine.log = fds.into_iter().next();
                return Ok(());
            }
            FromVmx::Hello { version, .. } => {
                let (Some(launch), Some(log)) = (machine.launch.take(), machine.log.take()) else {
                    return Err("it says hello at the wrong time".into());
                };
                if version != hypervisor::control::VERSION {
                    return Err(format!("it speaks version {version}"));
                }
                return self.say_start(id, launch, log, firmware);
            }
            FromVmx::Output { port, offset, bytes, .. } => {
                machine.outputs.add(port, offset, &bytes);
                return Ok(());
            }
            // Before it is on, so that whoever hears that knows all of it.
            FromVmx::IsNow { status, .. } => {
                let Status { memory_mb, cpus, connected, has_snapshot, class, .. } = bounded(status);
                let known = &mut machine.status;
                (known.memory_mb, known.cpus, known.connected) = (memory_mb, cpus, connected);
                (known.has_snapshot, known.class) = (has_snapshot, class);
                return Ok(());
            }
            FromVmx::Changed { from, to, why } => {
                machine.status.state = to;
                if to == State::On && !matches!(from, State::On | State::Stuck) {
                    machine.status.uptime = 0;
                    machine.ip = None;
                    machine.clock = tokio::time::Instant::now();
                    machine.started = unix_now();
                    machine.is_maintenance = false;
                    machine.ending = false;
                    process::later(id, MachineEvent::Look, LOOK_AGAIN, &self.events);
                }
                if to != State::Stuck {
                    machine.status.question = None;
                }
                if !machine.is_up() {
                    machine.status.paused = false;
                    machine.ending = !machine.is_maintenance;
                    machine.orderly = machine.ending;
                    refresh = false;
                }
                let (mut late, mut said) = (Vec::new(), None);
                if machine.is_up() {
                    late = std::mem::take(&mut machine.late);
                    late.extend(machine.next.take().map(|next| next.asker));
                } else if !machine.is_maintenance {
                    said = Some(std::mem::take(&mut machine.outputs));
                }
                if to == State::On
                    && let Err(error) = self.record(id)
                {
                    tracing::warn!("the record of {}: {error}", for_log(config.as_bytes()));
                }
                self.audit_change(id, &config, (from, to), &why);
                if to == State::On && matches!(from, State::Off | State::Suspended) {
                    self.observe.machine_starts += 1;
                }
                self.log_machine(id, EventKind::Info, &why, Vec::new());
                tracing::info!("{} is {to:?}: {}", for_log(config.as_bytes()), for_log(why.as_bytes()));
                // Before anybody hears of the change: who reads the output of a machine that is off reads all of it,
                // though its process has yet to end.
                match said {
                    Some(outputs) => self.machines.kept.keep(config.clone(), outputs),
                    None => self.machines.kept.forget(&config),
                }
                self.announce(None, &config, Happened::State { from, to });
                for asker in late {
                    self.settle(&asker, Err(started_already(&config, to)));
                }
            }
            FromVmx::Paused { paused } => {
                machine.status.paused = paused;
                let subject =
                    if paused { "Virtual machine is paused." } else { "Virtual machine continues." };
                self.log_machine(id, EventKind::Info, subject, Vec::new());
                self.announce(None, &config, Happened::Paused { paused });
            }
            FromVmx::Asked { question } => {
                let mut status = machine.status.clone();
                status.question = Some(question);
                machine.status = bounded(status);
                let Some(question) = machine.status.question.clone() else { return Ok(()) };
                self.log_machine(id, EventKind::Question, &question.text, question.choices);
                self.announce(None, &config, Happened::Question { id: question.id });
            }
            FromVmx::Settled { id: settled } => {
                if machine.status.question.as_ref().is_some_and(|question| question.id == settled) {
                    machine.status.question = None;
                }
            }
            FromVmx::Device { mut device, connected } => {
                cut(&mut device, 64);
                machine.status.connected.retain(|one| *one != device);
                if connected && machine.status.connected.len() < super::MAX_LIST {
                    machine.status.connected.push(device.clone());
                }
                let word = if connected { "connected" } else { "disconnected" };
                self.log_machine(id, EventKind::Info, &format!("Device {device} is {word}."), Vec::new());
                self.announce(None, &config, Happened::Device { device, connected });
            }
            FromVmx::Notice { severity, text } => {
                let kind = match severity {
                    Severity::Info => EventKind::Info,
                    Severity::Warning => EventKind::Warning,
                    Severity::Error => EventKind::Error,
                };
                self.log_machine(id, kind, &text, Vec::new());
                refresh = false;
            }
            FromVmx::Snapshots { any } => {
                machine.status.has_snapshot = any;
                self.announce(None, &config, Happened::Snapshot {});
            }
            FromVmx::GuestInfo { mut key } => {
                cut(&mut key, 1024);
                if key.eq_ignore_ascii_case(ADDRESS) {
                    self.look_for_address(id);
                }
                self.announce(None, &config, Happened::GuestInfo { key });
                refresh = false;
            }
            // An answer to nothing.
            _ => return Ok(()),
        }
        if refresh {
            self.look_at(id);
        }
        Ok(())
    }

    /// Its process is the program now: it is told what to do.
    fn say_start(
        &mut self,
        id: MachineId,
        launch: Launch,
        log: OwnedFd,
        firmware: String,
    ) -> Result<(), String> {
        let Some(config) = self.machines.paths.get(&id).cloned() else { return Ok(()) };
        let mut fds = vec![launch.kvm, launch.vmx, log];
        if let Some(records) = &self.machines.records {
            let noted = records.listen(id).and_then(|socket| {
                fds.push(socket);
                self.record(id)
            });
            if let Err(error) = noted {
                let error = Error::file(records.path(), &error);
                self.refuse_start(id, &config, error);
                return Ok(());
            }
        }
        let Some(machine) = self.machines.entries.get(&config) else { return Ok(()) };
        let (begin, host) = (launch.begin, self.machines.host);
        let start = ToVmx::Start { request: START, config, begin, firmware, host };
        machine.handles.outbox.push(start, fds).map_err(|error| error.to_string())
    }

    /// Does not start a machine that could not be found again after a restart. Its process, which knows of
    /// nothing yet, ends with its channel.
    fn refuse_start(&mut self, id: MachineId, config: &str, error: Error) {
        let error = match error.code {
            ErrorCode::Unspecified => Error::with(ErrorCode::VmInitFailed, error.text),
            _ => error,
        };
        let Some((_, machine)) = self.machines.by_id(id) else { return };
        machine.handles.close();
        let Some(pending) = machine.asked.remove(&START) else { return };
        self.machine_failed(id, config, pending, error);
    }

    /// Writes down where a machine is found again.
    fn record(&self, id: MachineId) -> std::io::Result<()> {
        let Some(config) = self.machines.paths.get(&id) else { return Ok(()) };
        let (Some(machine), Some(records)) = (self.machines.entries.get(config), &self.machines.records)
        else {
            return Ok(());
        };
        let (pid, started) = (machine.handles.pid, machine.started);
        let LogRights { uid, gid, mode } = machine.rights;
        let began = stat_field(pid, 22).unwrap_or(0);
        records.put(id, &Record { config: config.clone(), pid, began, started, uid, gid, mode })
    }

    fn machine_answers(&mut self, id: MachineId, number: u32, message: FromVmx) {
        let Some((config, machine)) = self.machines.by_id(id) else { return };
        let config = config.clone();
        // Another one's number: an answer to an earlier core.
        let Some(mut pending) = machine.asked.remove(&number) else { return };
        if let FromVmx::Failed { code, detail, .. } = message {
            return self.machine_failed(id, &config, pending, failure(code, detail));
        }
        match (&mut pending.purpose, message) {
            (Purpose::Start, _) => match machine.maintenance.take() {
                Some((asker, work)) => self.forward(asker, &config, work, true),
                None => {
                    let (asker, purpose) = (pending.asker, Purpose::Started);
                    let started = Pending { asker: asker.clone(), purpose, user: None };
                    if machine.ask(ToVmx::GetStatus { request: 0 }, started).is_err() {
                        self.settle_with(asker, Ok(Answer::State { state: State::On }));
                    }
                }
            },
            (Purpose::Started | Purpose::Look, FromVmx::IsNow { status, .. }) => {
                // What has been said since is in it: messages come in order.
                machine.set_status(status);
                let state = machine.status.state;
                self.settle_with(pending.asker, Ok(Answer::State { state }));
            }
            (Purpose::Address, FromVmx::Value { value, .. }) => {
                machine.ip = value.map(|mut value| {
                    cut(&mut value, MAX_ADDRESS);
                    value
                });
            }
            (Purpose::Forward(Forward { pieces, .. }), message @ FromVmx::OneSnapshot { .. }) => {
                if pieces.len() < MAX_PIECES {
                    pieces.push(message);
                }
                machine.asked.insert(number, pending);
            }
            (Purpose::Forward(Forward { pieces, closes, answers, .. }), message) => {
                if let FromVmx::IsNow { status, .. } = &message {
                    machine.set_status(status.clone());
                }
                let (mut pieces, closes, answers) = (std::mem::take(pieces), *closes, answers.take());
                pieces.push(message);
                self.settle_pieces(pending.asker, pieces);
                if let Some(choice) = answers {
                    let event = Event::new(EventKind::Answer, unix_now(), choice);
                    self.write_event(id, event, pending.user);
                }
                if closes {
                    self.close_maintenance(id);
                }
            }
            (_, _) => {}
        }
    }

    fn machine_failed(&mut self, id: MachineId, config: &str, pending: Pending, error: Error) {
        let start = matches!(pending.purpose, Purpose::Start);
        if start && error.code != ErrorCode::NeedInput {
            if let Some(asker) = &pending.asker {
                self.audit_machine(&asker.by, Kind::Power, config, Some(&error));
            }
            tracing::warn!("{} is not started: {error}", for_log(config.as_bytes()));
            if let Some((_, machine)) = self.machines.by_id(id) {
                machine.ending = true;
            }
            if !self.machines.by_id(id).is_some_and(|(_, machine)| machine.is_maintenance) {
                let event = Event::new(EventKind::Error, unix_now(), "Virtual machine could not be started.");
                let event = Event { body: vec![error.text.clone()], ..event };
                self.write_event(id, event, pending.user);
            }
        }
        let closes = matches!(pending.purpose, Purpose::Forward(Forward { closes: true, .. }));
        if let Some((_, machine)) = self.machines.by_id(id).filter(|_| start) {
            for asker in std::mem::take(&mut machine.late) {
                self.settle(&asker, Err(error.clone()));
            }
        }
        self.settle_with(pending.asker, Err(error));
        if closes {
            self.close_maintenance(id);
        }
    }

    /// A process that was there for one request is let go, unless it runs the machine by now.
    fn close_maintenance(&mut self, id: MachineId) {
        if let Some((_, machine)) = self.machines.by_id(id)
            && machine.is_maintenance
        {
            machine.ending = true;
            machine.handles.close();
        }
    }

    fn settle_with(&mut self, asker: Option<Asker>, result: Result<Answer, Error>) {
        if let Some(asker) = asker {
            self.settle(&asker, result);
        }
    }

    fn settle_pieces(&mut self, asker: Option<Asker>, messages: Vec<FromVmx>) {
        let Some(asker) = asker else { return };
        let fits = |message: &FromVmx| {
            let mut bytes = Vec::new();
            message.encode(&mut bytes);
            bytes.len() + 64 <= MAX_MESSAGE
        };
        if !messages.iter().all(fits) {
            let text = "the answer of the machine is too long";
            return self.settle(&asker, Err(Error::with(ErrorCode::InsufficientResources, text)));
        }
        let last = messages.len().saturating_sub(1);
        let pieces =
            messages.into_iter().enumerate().map(|(at, message)| (vec![message], at < last)).collect();
        // A process that has broken its channel shows elsewhere.
        let _ = self.answer_in_pieces(&asker, pieces, |mut piece| match piece.pop() {
            Some(message) => Answer::Machine { message: Inner(message) },
            None => Answer::Done {},
        });
    }

    // Its event log.

    /// Records another state of a machine, with whoever has asked for it.
    fn audit_change(&mut self, id: MachineId, config: &str, (from, to): (State, State), why: &str) {
        let Some((_, machine)) = self.machines.by_id(id) else { return };
        let by = machine.cause().and_then(|cause| Some(Arc::clone(&cause.asker.as_ref()?.by)));
        let record = power_record(config, (from, to), why);
        match by {
            Some(by) => self.audit_by(&by, record),
            None => self.audit.record(record),
        }
    }

    fn log_machine(&mut self, id: MachineId, kind: EventKind, subject: &str, choices: Vec<String>) {
        let Some((_, machine)) = self.machines.by_id(id) else { return };
        let user = machine.cause().and_then(|cause| cause.user.clone());
        let user = user.filter(|_| kind == EventKind::Info);
        // Texts with an ampersand are shown badly by a known reader, and one event is one line.
        let subject = subject.replace('&', "and").replace(char::is_control, " ");
        let event = Event { choices, ..Event::new(kind, unix_now(), subject) };
        self.write_event(id, event, user);
    }

    fn write_event(&mut self, id: MachineId, mut event: Event, user: Option<String>) {
        let Some((config, machine)) = self.machines.by_id(id) else { return };
        event.users.extend(user);
        let work = Work::Event { config: config.clone(), rights: machine.rights, event };
        if let Some(store) = &mut self.shared.store {
            store.push(work);
        }
    }

    // The end.

    /// Forgets a machine process that has exited, and of which everything was heard.
    fn bury_machine(&mut self, id: MachineId) {
        let over = |machine: &Machine| machine.channel_ended && machine.exited.is_some() && !machine.cleaning;
        if !self.machines.by_id(id).is_some_and(|(_, machine)| over(machine)) {
            return;
        }
        let events = self.events.clone();
        let Some((config, machine)) = self.machines.by_id(id) else { return };
        let (config, from, pid) = (config.clone(), machine.status.state, machine.handles.pid);
        let how = machine.exited.clone().unwrap_or_default();
        if machine.is_up() {
            // From now on it is off; a start waits until it is forgotten.
            machine.status = fresh();
            (machine.ending, machine.cleaning) = (true, true);
            let said = std::mem::take(&mut machine.outputs);
            process::clean(id, machine.rights.uid, format!("{config}.lck"), &events);
            tracing::warn!("machine process {pid} of {} crashed: {how}", for_log(config.as_bytes()));
            let is_kill = |pending: &Pending| matches!(pending.purpose, Purpose::Kill);
            let numbers =
                machine.asked.iter().filter(|(_, pending)| is_kill(pending)).map(|(number, _)| *number);
            let numbers: Vec<u32> = numbers.collect();
            let kills: Vec<_> = numbers.iter().filter_map(|number| machine.asked.remove(number)).collect();
            let (kind, subject) = if !kills.is_empty() {
                let text = "Virtual machine is off: its process did not answer and was ended.";
                (EventKind::Warning, text.to_owned())
            } else if machine.lost {
                let text = "Virtual machine is off: its process ended while the server did not see it.";
                (EventKind::Warning, text.to_owned())
            } else {
                (EventKind::Error, format!("Virtual machine crashed: its process {pid} ended ({how})."))
            };
            self.machines.kept.keep(config.clone(), said);
            let record = power_record(&config, (from, State::Off), &subject);
            match kills.iter().find_map(|pending| pending.asker.as_ref()) {
                Some(asker) => self.audit_by(&asker.by, record),
                None => {
                    self.observe.machine_crashes += 1;
                    self.audit.record(record);
                }
            }
            self.log_machine(id, kind, &subject, Vec::new());
            self.announce(None, &config, Happened::State { from, to: State::Off });
            for pending in kills {
                let done = FromVmx::Done { request: 0 };
                self.settle_with(pending.asker, Ok(Answer::Machine { message: Inner(done) }));
            }
            return;
        }
        tracing::info!("machine process {pid} of {} ended: {how}", for_log(config.as_bytes()));
        if let Some(records) = &self.machines.records {
            records.remove(id);
        }
        let Some((_, mut machine)) = self.machines.remove(id) else { return };
        let now = if machine.status.state == State::Suspended { "suspended" } else { "off" };
        for pending in std::mem::take(&mut machine.asked).into_values() {
            let text = format!("its process ended ({how})");
            let result = match pending.purpose {
                Purpose::Start => Err(Error::with(ErrorCode::VmInitFailed, text)),
                // What came too late is answered as if it had come a moment later.
                Purpose::Forward(forward) if machine.orderly => self.answer_of_kept(&config, &forward, now),
                _ => Err(Error::unspecified(format!("The virtual machine ended: {text}"))),
            };
            self.settle_with(pending.asker, result);
        }
        for asker in std::mem::take(&mut machine.late) {
            let text = format!("its process ended ({how})");
            self.settle(&asker, Err(Error::with(ErrorCode::VmInitFailed, text)));
        }
        if let Some(next) = machine.next {
            self.begin_machine(&config, next, machine.rights);
        }
    }

    /// Finds the machines that an earlier core has started. One that does not answer soon is there all the
    /// same, in state unknown, until it does.
    pub async fn adopt_machines(&mut self) {
        let Some(records) = &self.machines.records else { return };
        let all = records.all().into_iter().map(|(id, record)| (id, record, records.address(id)));
        let (all, mut searches) = (all.collect::<Vec<_>>(), Vec::new());
        for (id, record, address) in all {
            self.machines.next = self.machines.next.max(id);
            match process::watch(id, &record, &self.events) {
                Ok(handles) => {
                    let mut machine = Machine::new(id, handles, record.rights());
                    machine.status.state = State::Unknown;
                    machine.started = record.started;
                    (machine.lost, machine.channel_ended) = (true, true);
                    let config = record.config.clone();
                    searches.push((id, tokio::spawn(async move { process::find(&record, &address).await })));
                    self.machines.insert(&config, machine);
                }
                Err(error) => {
                    let config = for_log(record.config.as_bytes()).to_string();
                    tracing::warn!("machine process {} of {config}: {error}", record.pid);
                    let subject = "Virtual machine is off: its process ended while the server did not run.";
                    let event = Event::new(EventKind::Warning, unix_now(), subject);
                    let rights = record.rights();
                    if let Some(store) = &mut self.shared.store {
                        store.push(Work::Event { config: record.config, rights, event });
                    }
                    if let Some(records) = &self.machines.records {
                        records.remove(id);
                    }
                }
            }
        }
        let deadline = tokio::time::Instant::now() + ANSWER_WITHIN;
        for (id, mut search) in searches {
            let joined = |result: Result<_, tokio::task::JoinError>| {
                result.unwrap_or_else(|error| Err(std::io::Error::other(error)))
            };
            if let Ok(result) = tokio::time::timeout_at(deadline, &mut search).await {
                self.machine_found(id, joined(result));
            } else {
                let events = self.events.clone();
                tokio::spawn(async move {
                    let event = MachineEvent::Found(joined(search.await));
                    let _ = events.send(Happening::Machine(id, event)).await;
                });
            }
        }
    }

    /// A machine of an earlier core has answered, or cannot.
    fn machine_found(&mut self, id: MachineId, found: std::io::Result<process::Found>) {
        let events = self.events.clone();
        let Some((config, machine)) = self.machines.by_id(id) else { return };
        let config = config.clone();
        let name = for_log(config.as_bytes()).to_string();
        match found {
            Ok(process::Found { channel, status, early }) => {
                tracing::info!("machine process {} of {name} is found again", machine.handles.pid);
                (machine.lost, machine.channel_ended) = (false, false);
                machine.set_status(status);
                machine.ending = !machine.is_up();
                let to = machine.status.state;
                machine.handles.attach(id, channel, &events);
                self.look_for_address(id);
                for message in early {
                    self.machine_event(id, MachineEvent::Message(message, Vec::new()));
                }
                self.announce(None, &config, Happened::State { from: State::Unknown, to });
            }
            // Its end, if it has ended, is reported besides.
            Err(error) => {
                let pid = machine.handles.pid;
                tracing::error!("machine process {pid} of {name} cannot be managed: {error}");
            }
        }
    }
}

impl Machine {
    /// Sends a request under a number of its own.
    fn ask(&mut self, ask: ToVmx, pending: Pending) -> Result<(), Error> {
        if self.lost {
            let text = "the server was restarted, and its process has not answered yet";
            return Err(Error::with(ErrorCode::VmBusy, text));
        }
        self.next_request = if self.next_request >= u32::MAX - 1 { START + 1 } else { self.next_request + 1 };
        let number = self.next_request;
        let ask = numbered(ask, number).ok_or_else(|| Error::new(ErrorCode::InvalidArgs))?;
        self.handles
            .outbox
            .push(ask, Vec::new())
            .map_err(|error| Error::with(ErrorCode::InsufficientResources, error))?;
        self.asked.insert(number, pending);
        Ok(())
    }
}
