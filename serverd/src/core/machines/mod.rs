//! The machines that have a process.
//!
//! ```text
//!   question ─▶ proof, launch ─▶ requests ─▶ process: vmserverd machine ═exec═▶ vmx
//!                (on a thread)      │  ▲         │
//!                               register ◀──────┘ Hello, answers, events, end
//!                                   │
//!                                   ├─▶ event log, ring of events
//!                                   └─▶ records: where to find it again after a restart
//! ```
//!
//! * [`launch`] is what happens between the core and the program `vmx`, as the owner of the .vmx.
//! * [`process`] starts machine processes, finds those of an earlier core, and watches both.
//! * [`records`] is what the next core needs to find them.
//! * [`requests`] decides: who may ask what, and what an answer or an event means.
//! * [`events`] keeps the last events of the server for whoever waits for them.
//! * [`kept`] keeps the last serial output of machines that are off.
//!
//! A machine process is its owner's, and its guest may have broken out: what it says is bounded, is
//! about its own machine only, and ends it when it makes no sense. It survives the core.
//!
//! The next core finds it again by its record. As long as its process lives it is never said to be off:
//! until it has answered, its state is *unknown*, a start of it is refused, and other requests are *busy*.

pub mod events;
pub mod kept;
pub mod launch;
pub mod process;
pub mod records;
pub mod requests;
mod usage;

use std::collections::BTreeMap;

use handlers::running::Running;
use hypervisor::control::{FromVmx, HostClass, State, Status, ToVmx};
use hypervisor::event_log::LogRights;
use tokio::time::Instant;

use self::events::Ring;
use self::kept::{Kept, Outputs};
use self::launch::Launch;
use self::process::{Handles, MachineId};
use self::records::Records;
use self::requests::Leads;
use self::usage::Usage;
use super::questions::Asker;
use super::tasks::unix_now;

/// Longest text of a machine that is shown to users, in bytes.
const MAX_TEXT: usize = 4096;

/// Most names or choices in a list of a machine.
const MAX_LIST: usize = 64;

/// Where the program is, and what it is told.
#[derive(Debug, Clone, Default)]
pub struct Program {
    /// `serverd.machines.vmx`, or the program beside this one.
    pub vmx: String,
    /// `serverd.machines.firmware`
    pub firmware: String,
}

/// Machines with a process, sorted by the bytes of their .vmx path.
#[derive(Debug, Default)]
pub struct Machines {
    entries: BTreeMap<String, Machine>,
    paths: BTreeMap<MachineId, String>,
    next: MachineId,
    /// What to start.
    pub program: Program,
    /// How the host runs guests, once that is certain.
    pub host: Option<HostClass>,
    /// Where they are found again; `None` in tests, whose machines end with the core.
    pub records: Option<Records>,
    /// What has happened lately.
    pub ring: Ring,
    kept: Kept,
}

/// A machine that has a process.
#[derive(Debug)]
struct Machine {
    id: MachineId,
    handles: Handles,
    rights: LogRights,
    status: Status,
    /// When `status.uptime` was right.
    clock: Instant,
    /// Unix seconds.
    started: i64,
    usage: Usage,
    /// What the guest says its address is.
    ip: Option<String>,
    /// What waits for an answer, by number.
    asked: BTreeMap<u32, Pending>,
    next_request: u32,
    /// What to start with, until the process has said hello.
    launch: Option<Launch>,
    log: Option<std::os::fd::OwnedFd>,
    /// It was started for a request, not to run.
    maintenance: Option<(Asker, ToVmx)>,
    /// It is nothing but a worker on snapshots.
    is_maintenance: bool,
    /// It has said how it ends, or was told to.
    ending: bool,
    /// What to do when it has ended.
    next: Option<Next>,
    /// Who else wanted to start it while it was being started.
    late: Vec<Asker>,
    outputs: Outputs,
    /// A process of an earlier core that has not answered yet.
    lost: bool,
    /// It has said that it is off, or suspended.
    orderly: bool,
    channel_ended: bool,
    exited: Option<String>,
    /// It was killed, and what it has left behind is being removed.
    cleaning: bool,
}

/// A start that waits for the end of the last run.
#[derive(Debug)]
struct Next {
    asker: Asker,
    launch: Launch,
    work: Option<ToVmx>,
}

/// What an answer is for.
#[derive(Debug)]
enum Purpose {
    /// The start; whoever wanted it is told when the machine is on.
    Start,
    /// How a machine is that has just been started.
    Started,
    /// A request of a handler.
    Forward(Forward),
    /// How the machine is, for ourselves.
    Look,
    /// The guest's address, for ourselves.
    Address,
    /// The end of a process that does not answer and is killed.
    Kill,
}

/// A request of a handler that a machine has.
#[derive(Debug)]
struct Forward {
    /// Of the answer, what has come.
    pieces: Vec<FromVmx>,
    /// The process was there for this.
    closes: bool,
    /// The text of the choice, of an answer to a question.
    answers: Option<String>,
    leads: Leads,
    /// What it is called.
    verb: &'static str,
    /// The part of the output that is waited for: port, offset, at most so many bytes.
    reads: Option<(u32, u64, u32)>,
}

/// A request to a machine.
#[derive(Debug)]
struct Pending {
    asker: Option<Asker>,
    purpose: Purpose,
    /// Who is behind it, when it changes the machine.
    user: Option<String>,
}

impl Pending {
    fn leads(&self) -> Leads {
        match self.purpose {
            Purpose::Start | Purpose::Kill => Leads::AtOnce,
            Purpose::Forward(Forward { leads, .. }) => leads,
            Purpose::Started | Purpose::Look | Purpose::Address => Leads::Nowhere,
        }
    }
}

/// A machine of which nothing is known yet.
fn fresh() -> Status {
    Status {
        state: State::Off,
        paused: false,
        uptime: 0,
        heartbeat: 0,
        tools_last_active: 0,
        memory_mb: 0,
        cpus: 0,
        has_snapshot: false,
        connected: Vec::new(),
        question: None,
        class: HostClass::None,
    }
}

impl Machine {
    fn new(id: MachineId, handles: Handles, rights: LogRights) -> Self {
        let usage = Usage::of(handles.pid);
        Machine {
            id,
            handles,
            rights,
            status: fresh(),
            clock: Instant::now(),
            started: unix_now(),
            usage,
            ip: None,
            asked: BTreeMap::new(),
            // Answers to what an earlier core has asked must not be taken for ours.
            next_request: u32::try_from(unix_now() & 0x7fff_ffff).unwrap_or(1),
            launch: None,
            log: None,
            maintenance: None,
            is_maintenance: false,
            ending: false,
            next: None,
            late: Vec::new(),
            outputs: Outputs::default(),
            lost: false,
            orderly: false,
            channel_ended: false,
            exited: None,
            cleaning: false,
        }
    }

    /// Whether it is on, or waits for an answer.
    fn is_up(&self) -> bool {
        !matches!(self.status.state, State::Off | State::Suspended)
    }

    /// What another state of it is due to, of all that is under way: rather what leads there at once, rather what
    /// was asked first.
    fn cause(&self) -> Option<&Pending> {
        let of = |leads| self.asked.values().find(move |pending| pending.leads() == leads);
        of(Leads::AtOnce).or_else(|| of(Leads::ByGuest))
    }

    /// How it is now.
    fn now(&self) -> Status {
        let mut status = self.status.clone();
        if self.is_up() {
            status.uptime = status.uptime.saturating_add(self.clock.elapsed().as_secs());
        }
        status
    }

    /// Takes over what it says of itself.
    fn set_status(&mut self, status: Status) {
        self.status = bounded(status);
        self.clock = Instant::now();
    }
}

/// A status of which no part is longer than anybody could want.
fn bounded(mut status: Status) -> Status {
    status.connected.truncate(MAX_LIST);
    status.connected.iter_mut().for_each(|name| cut(name, 64));
    if let Some(question) = &mut status.question {
        cut(&mut question.text, MAX_TEXT);
        question.choices.truncate(MAX_LIST);
        question.choices.iter_mut().for_each(|choice| cut(choice, 256));
    }
    status
}

/// Cuts a text at the end of a character.
fn cut(text: &mut String, most: usize) {
    let end = (0..=most.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
}

impl Machines {
    /// The paths of the .vmx files of machines that are on, sorted by bytes.
    pub fn connected(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().filter(|(_, machine)| machine.is_up()).map(|(config, _)| config.as_str())
    }

    /// The states of machines that have a process, and whether each is paused.
    pub fn states(&self) -> impl Iterator<Item = (State, bool)> {
        self.entries.values().map(|machine| (machine.status.state, machine.status.paused))
    }

    /// Whether something is under way with a machine that is not on.
    #[must_use]
    pub fn is_busy(&self, config: &str) -> bool {
        self.entries.get(config).is_some_and(|machine| !machine.is_up() && !machine.ending)
    }

    /// All machines that are on, as they are now.
    fn running(&mut self) -> Vec<Running> {
        let running = |(config, machine): (&String, &mut Machine)| Running {
            config: config.clone(),
            id: machine.id,
            pid: machine.handles.pid,
            started: machine.started,
            cpu_percent: machine.usage.percent(),
            // Filled in by whoever knows the sessions.
            remote_connections: 0,
            ip: machine.ip.clone(),
            status: machine.now(),
        };
        self.entries.iter_mut().filter(|(_, machine)| machine.is_up()).map(running).collect()
    }

    fn new_id(&mut self) -> MachineId {
        self.next += 1;
        self.next
    }

    fn insert(&mut self, config: &str, machine: Machine) {
        self.next = self.next.max(machine.id);
        self.paths.insert(machine.id, config.to_owned());
        self.entries.insert(config.to_owned(), machine);
    }

    fn by_id(&mut self, id: MachineId) -> Option<(&String, &mut Machine)> {
        let config = self.paths.get(&id)?;
        Some((config, self.entries.get_mut(config)?))
    }

    fn remove(&mut self, id: MachineId) -> Option<(String, Machine)> {
        let config = self.paths.remove(&id)?;
        let machine = self.entries.remove(&config)?;
        Some((config, machine))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypervisor::control::Question;

    #[test]
    fn what_a_machine_says_of_itself_is_bounded() {
        let question =
            Question { id: 1, text: "ä".repeat(5000), choices: vec!["x".repeat(999); 999], default: 0 };
        let status = Status { connected: vec!["y".repeat(99); 99], question: Some(question), ..fresh() };
        let status = bounded(status);
        let question = status.question.unwrap();
        assert_eq!((question.text.len(), question.choices.len()), (MAX_TEXT, MAX_LIST));
        assert_eq!((status.connected.len(), status.connected[0].len()), (MAX_LIST, 64));
        let mut odd = "aä".to_owned();
        cut(&mut odd, 2);
        assert_eq!(odd, "a");
    }
}
