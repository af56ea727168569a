//! Who did what: what the core knows of it, in the audit log.
//!
//! Two kinds of records are made here. What the core itself decides or carries out (sessions, rights,
//! registration, machines, tasks, the gateway's settings) is recorded where it happens, and no session
//! process can prevent, delay or change it. How each operation ended is said by the session process and
//! recorded as claimed: under the identity of that process, which is a property of its entry here and not of
//! any message, within the ration of its user. See [`link::audit`] for the file.

use std::sync::Arc;

use ::link::audit::{Kind, Origin, Outcome, Record};
use ::link::settings::AuditLevel;
use hypervisor::control::{State, ToVmx};
use ops::{Effect, Error, ErrorCode};

use super::processes::ProcessId;
use super::supervisor::Supervisor;
use super::tasks::Ended;
use crate::channel::{Ask, TaskEnd};

/// How a failure is called.
pub(super) fn outcome_of(code: i32) -> Outcome {
    match code {
        0 => Outcome::Ok,
        _ if code == ErrorCode::NoAccess.number() => Outcome::Refused,
        _ => Outcome::Failed,
    }
}

/// The word for a state of a machine.
fn word(state: State) -> &'static str {
    match state {
        State::On => "on",
        State::Off => "off",
        State::Suspended => "suspended",
        State::Stuck => "stuck",
        State::Unknown => "unknown",
    }
}

/// Who asks for something: taken down when he asks, since his session or its process may be gone when it is done.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct By {
    /// His uid.
    pub uid: u32,
    /// The name he logged in with.
    pub name: String,
    /// The session and where it comes from; which of its own it is says the process.
    session: Option<(u64, Origin)>,
}

/// A record of another state of a machine. Why is the machine's own word.
pub(super) fn power_record(machine: &str, (from, to): (State, State), why: &str) -> Record {
    Record {
        machine: Some(machine.to_owned()),
        from: Some(word(from)),
        to: Some(word(to)),
        detail: Some(why.to_owned()),
        ..Record::new(Kind::Power, Outcome::Ok)
    }
}

/// What an operation was, as a session process says.
#[derive(Debug)]
pub(super) struct Did {
    pub(super) session: u64,
    pub(super) request: u64,
    pub(super) op: u32,
    pub(super) code: i32,
    pub(super) machine: Option<String>,
    pub(super) paths: Vec<String>,
}

impl Supervisor {
    /// Whether anything is recorded.
    pub(super) fn audits(&self) -> bool {
        self.audit.wants(AuditLevel::Changes)
    }

    /// Who a process asks for. `None` when it is gone.
    pub(super) fn by(&self, process: ProcessId, session: u64) -> Option<Arc<By>> {
        let (uid, _) = self.who(process)?;
        let (name, origin) = self.origin_of(process, session).unzip();
        let name = name.or_else(|| self.owner(process).map(|owner| owner.name))?;
        Some(Arc::new(By { uid, name, session: origin.map(|origin| (session, origin)) }))
    }

    /// Records something that somebody asked for, within his ration.
    pub(super) fn audit_by(&self, by: &By, record: Record) {
        let (session, origin) = by.session.clone().unzip();
        self.audit_of(by.uid, Record { user: Some(by.name.clone()), session, origin, ..record });
    }

    /// Records something that the user of a process did, within his ration.
    fn audit_as(&self, process: ProcessId, record: Record) {
        // A process is forgotten after everything that it said.
        let Some((uid, _)) = self.who(process) else { return };
        let user = record.user.clone().or_else(|| self.owner(process).map(|owner| owner.name));
        self.audit_of(uid, Record { user, ..record });
    }

    fn audit_of(&self, uid: u32, record: Record) {
        if !self.audits() {
            return;
        }
        let record = Record { uid: Some(uid), ..record };
        if uid == 0 {
            // Root could empty the file as well.
            self.audit.record(record);
        } else {
            self.audit.ration(&uid.to_string(), record);
        }
    }

    /// Records something that was done to a machine for somebody who asked.
    pub(super) fn audit_machine(&self, by: &By, event: Kind, machine: &str, error: Option<&Error>) {
        let code = error.map(|error| error.code.number());
        let record = Record {
            machine: Some(machine.to_owned()),
            code,
            detail: error.map(|error| error.text.clone()),
            ..Record::new(event, outcome_of(code.unwrap_or(0)))
        };
        self.audit_by(by, record);
    }

    /// Records that a right is not there.
    pub(super) fn audit_refusal(&self, by: &By, ask: &Ask, error: &Error) {
        let machine = match ask {
            Ask::Register { config, .. }
            | Ask::Unregister { config, .. }
            | Ask::Attach { config, .. }
            | Ask::Who { config }
            | Ask::StartMachine { config }
            | Ask::AskMachine { config, .. }
            | Ask::ConfigChanged { config, .. } => config,
            _ => return,
        };
        let what = match ask {
            Ask::Register { .. } => "register",
            Ask::Unregister { .. } => "unregister",
            Ask::Attach { .. } => "connect",
            Ask::StartMachine { .. } => "start",
            Ask::AskMachine { ask, .. } => verb_of(&ask.0),
            _ => "see",
        };
        let record = Record {
            machine: Some(machine.clone()),
            code: Some(error.code.number()),
            detail: Some(format!("{what}: {}", error.text)),
            ..Record::new(Kind::Permission, Outcome::Refused)
        };
        self.audit_by(by, record);
    }

    /// Records how an operation ended, as its session process says.
    pub(super) fn audit_operation(&self, process: ProcessId, pid: u32, did: Did) {
        let Did { session, request, op, code, machine, paths } = did;
        let row = usize::try_from(op).ok().and_then(|op| ops::TABLE.get(op));
        let level = match row.map(|row| row.effect) {
            Some(Effect::Reads) if code != ErrorCode::NoAccess.number() => AuditLevel::All,
            _ => AuditLevel::Changes,
        };
        if !self.audit.wants(level) {
            return;
        }
        let (user, origin) = self.origin_of(process, session).unzip();
        let record = Record {
            user,
            session: origin.is_some().then_some(session),
            origin,
            claimed: true,
            request: Some(format!("{pid}-{request}")),
            operation: Some(row.map_or("none", |row| row.name).to_owned()),
            machine,
            paths,
            code: (code != 0).then_some(code),
            ..Record::new(Kind::Operation, outcome_of(code))
        };
        self.audit_as(process, record);
    }

    /// Records the begin or the end of a session; of one that came by `CONNECT`, with its machine.
    pub(super) fn audit_session(
        &self,
        process: ProcessId,
        event: Kind,
        session: u64,
        outcome: Outcome,
        machine: Option<String>,
    ) {
        if !self.audits() {
            return;
        }
        let (user, origin) = self.origin_of(process, session).unzip();
        let record = Record { user, origin, session: Some(session), machine, ..Record::new(event, outcome) };
        self.audit_as(process, record);
    }

    /// Records the end of a task.
    pub(super) fn audit_task_end(&self, ended: &Ended) {
        let Ended { task, owner, end, claimed } = ended;
        let (code, outcome, detail) = match end {
            TaskEnd::Running | TaskEnd::Done => (None, Outcome::Ok, None),
            TaskEnd::Stopped => (None, Outcome::Failed, Some("stopped".to_owned())),
            TaskEnd::Failed { code, text } => (Some(*code), outcome_of(*code), Some(text.clone())),
        };
        let record = Record {
            user: Some(owner.name.clone()),
            task: Some(*task),
            claimed: *claimed,
            code,
            detail,
            ..Record::new(Kind::TaskEnd, outcome)
        };
        self.audit_of(owner.uid, record);
    }

    /// Records a change of the gateway's certificate or settings.
    pub(super) fn audit_settings(&self, by: &By, what: &str, outcome: Outcome, detail: &str) {
        let text = if detail.is_empty() { what.to_owned() } else { format!("{what}: {detail}") };
        self.audit_by(by, Record { detail: Some(text), ..Record::new(Kind::Settings, outcome) });
    }
}

/// What a request to a machine is called.
pub(super) fn verb_of(ask: &ToVmx) -> &'static str {
    super::machines::requests::verb(ask)
}
