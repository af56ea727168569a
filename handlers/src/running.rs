//! Machines that have a process, and what happens on the server, as handlers see it.

use hypervisor::control::{State, Status};
use link::figures::{Front, Logins};
use link::wire::{Inner, Item, Wire, WireError};

/// A machine that has a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Path of its .vmx.
    pub config: String,
    /// Number of this run; never used twice while the server runs.
    pub id: u64,
    /// Process id.
    pub pid: u32,
    /// When it was powered on or resumed, Unix seconds; when its process was found, after a restart
    /// of the server, less its time since power on.
    pub started: i64,
    /// What it used of one host processor in the last seconds; 200 is two whole ones.
    pub cpu_percent: u32,
    /// Sessions that came through the gateway by `CONNECT`.
    pub remote_connections: u32,
    /// The guest's address, where the guest has told it since it was started (variable `ip`).
    pub ip: Option<String>,
    /// How it is.
    pub status: Status,
}

link::messages! {
    /// What has happened.
    pub enum Happened {
        /// A machine was registered.
        1 = Registered {},
        /// A machine was unregistered. Its .vmx may be gone by now, so this says who may know.
        2 = Unregistered {
            /// Who did it.
            by: u32,
            /// Who owned the .vmx; absent when that was gone already.
            owner: Option<u32>,
            /// Whether it was private.
            private: bool,
        },
        /// A machine has another state.
        3 = State {
            /// Before.
            from: State,
            /// Now.
            to: State,
        },
        /// A machine was paused, or goes on.
        4 = Paused { /// Standing still now.
                     paused: bool },
        /// A machine asks something.
        5 = Question { /// Number of the question.
                       id: u32 },
        /// A guest variable was set.
        7 = GuestInfo { /// Its name without `guestinfo.`
                        key: String },
        /// A device was plugged in or out.
        8 = Device {
            /// Its name in the .vmx.
            device: String,
            /// In or out.
            connected: bool,
        },
        /// Snapshots of a machine were made or removed.
        9 = Snapshot {},
        /// A task has another state. Only its owner and administrators are told.
        10 = Task {
            /// Number of the task.
            task: u64,
            /// `running`, `done`, `failed` or `stopped`.
            state: String,
            /// How much of it is done.
            percent: u32,
        },
        /// The server is stopping.
        11 = Stopping {},
        /// The .vmx of a machine was changed.
        12 = Config {
            /// The key; absent when the file was changed by somebody else than this server, who does
            /// not say.
            key: Option<String>,
        },
    }
}

impl Happened {
    /// The name of this type of event, such as `vm.state`.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self {
            Happened::Registered {} => "vm.registered",
            Happened::Unregistered { .. } => "vm.unregistered",
            Happened::State { .. } => "vm.state",
            Happened::Paused { .. } => "vm.paused",
            Happened::Question { .. } => "vm.question",
            Happened::GuestInfo { .. } => "vm.guestinfo",
            Happened::Device { .. } => "vm.device",
            Happened::Snapshot {} => "vm.snapshot",
            Happened::Task { .. } => "task.state",
            Happened::Stopping {} => "server.stopping",
            Happened::Config { .. } => "vm.config",
        }
    }
}

/// An event of the server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerEvent {
    /// Its number; each event has the one after that of the event before.
    pub sequence: u64,
    /// Unix seconds.
    pub time: i64,
    /// Path of the .vmx; empty for events that are of no machine.
    pub config: String,
    /// What has happened.
    pub what: Happened,
}

/// Events, and where to go on.
#[derive(Debug, Clone, PartialEq)]
pub struct EventBatch {
    /// Changes with every start of the server.
    pub epoch: u64,
    /// The sequence number to ask for next.
    pub next: u64,
    /// Events were missed.
    pub lost: bool,
    /// The events, oldest first. Those of machines are of every machine, whoever may read it.
    pub events: Vec<ServerEvent>,
}

/// Limits of the buckets of request times, in microseconds; each includes its limit, and one more bucket
/// is beyond them.
pub const LIMITS_US: [u64; 13] =
    [10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000];

/// How many buckets there are.
pub const BUCKETS: usize = LIMITS_US.len() + 1;

/// The requests for one operation that had one result.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpFigures {
    /// Index into [`ops::TABLE`]; one beyond it are requests that name none of its operations.
    pub op: u32,
    /// Whether these are those that failed.
    pub failed: bool,
    /// How many took how long: a number for each of [`BUCKETS`].
    pub buckets: Vec<u64>,
    /// What they took together, in microseconds.
    pub micros: u64,
}

/// What the core alone knows, in numbers. It publishes them for the metrics process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServerState {
    /// When the core was started, Unix seconds.
    pub started: u64,
    /// When this was so, Unix seconds.
    pub published: u64,
    /// Sessions that are open.
    pub sessions: u64,
    /// Session processes.
    pub session_processes: u64,
    /// Sessions taken since start.
    pub sessions_begun: u64,
    /// Sessions refused since start.
    pub sessions_refused: u64,
    /// Tasks that run.
    pub tasks_running: u64,
    /// Tasks done and not forgotten.
    pub tasks_done: u64,
    /// Tasks failed and not forgotten.
    pub tasks_failed: u64,
    /// Tasks stopped and not forgotten.
    pub tasks_stopped: u64,
    /// Registered machines.
    pub registered: u64,
    /// Machines that are on and not paused.
    pub on: u64,
    /// Machines that are on and paused.
    pub paused: u64,
    /// Machines that wait for an answer.
    pub stuck: u64,
    /// Machines that have a process that does not answer.
    pub unknown: u64,
    /// Machines powered on or resumed since start.
    pub machine_starts: u64,
    /// Machines whose process ended by itself, since start.
    pub machine_crashes: u64,
    /// Events that the core has not taken up.
    pub waiting_events: u64,
    /// Rights that are being looked at, or wait for that.
    pub waiting_proofs: u64,
    /// Writes that are not on the disk yet.
    pub waiting_writes: u64,
    /// Whether the gateway is connected.
    pub linked: bool,
    /// Audit records written by the core.
    pub audit_written: u64,
    /// Audit records left out because there were too many.
    pub audit_suppressed: u64,
    /// Audit records that could not be written.
    pub audit_lost: u64,
}

/// All figures.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metrics {
    /// What the core knows.
    pub state: ServerState,
    /// Resident memory of processes, in bytes, by the name of the process.
    pub resident: Vec<(String, u64)>,
    /// Requests by operation and result; without those that nobody has asked for.
    pub ops: Vec<OpFigures>,
    /// What the gateway's root half has published, if it has.
    pub logins: Option<Logins>,
    /// What its network half has published.
    pub front: Option<Front>,
}

impl Wire for Metrics {
    fn put(&self, out: &mut Vec<u8>) {
        self.state.put(out);
        let (names, bytes): (Vec<String>, Vec<u64>) = self.resident.iter().cloned().unzip();
        names.put(out);
        bytes.put(out);
        self.ops.put(out);
        self.logins.put(out);
        self.front.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        let state = Wire::take(input)?;
        let (names, bytes) = (Vec::<String>::take(input)?, Vec::<u64>::take(input)?);
        if names.len() != bytes.len() {
            return Err(WireError::Value("resident memory"));
        }
        let resident = names.into_iter().zip(bytes).collect();
        let (ops, logins, front) = (Wire::take(input)?, Wire::take(input)?, Wire::take(input)?);
        Ok(Metrics { state, resident, ops, logins, front })
    }
}

/// Gives a struct that stands in lists a wire form.
macro_rules! wire {
    ($name:ident { $($field:ident),* $(,)? }) => {
        link::wire_fields!($name { $($field),* });
        impl Item for $name {
            const LEAST: usize = 4;
        }
    };
}
wire!(Running { config, id, pid, started, cpu_percent, remote_connections, ip, status });
wire!(OpFigures { op, failed, buckets, micros });
link::wire_fields!(ServerState {
    started,
    published,
    sessions,
    session_processes,
    sessions_begun,
    sessions_refused,
    tasks_running,
    tasks_done,
    tasks_failed,
    tasks_stopped,
    registered,
    on,
    paused,
    stuck,
    unknown,
    machine_starts,
    machine_crashes,
    waiting_events,
    waiting_proofs,
    waiting_writes,
    linked,
    audit_written,
    audit_suppressed,
    audit_lost
});

impl Wire for ServerEvent {
    fn put(&self, out: &mut Vec<u8>) {
        self.sequence.put(out);
        self.time.put(out);
        self.config.put(out);
        Inner(self.what.clone()).put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        Ok(ServerEvent {
            sequence: Wire::take(input)?,
            time: Wire::take(input)?,
            config: Wire::take(input)?,
            what: Inner::take(input)?.0,
        })
    }
}

impl Item for ServerEvent {
    const LEAST: usize = 4;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_back() {
        let events = vec![
            ServerEvent {
                sequence: 7,
                time: -1,
                config: "/a.vmx".into(),
                what: Happened::State { from: State::Off, to: State::On },
            },
            ServerEvent { sequence: 8, time: 2, config: String::new(), what: Happened::Stopping {} },
        ];
        let mut bytes = Vec::new();
        events.put(&mut bytes);
        assert_eq!(Vec::<ServerEvent>::take(&mut bytes.as_slice()), Ok(events));
        assert_eq!(Happened::Stopping {}.type_name(), "server.stopping");
    }

    #[test]
    fn figures_have_one_form() {
        let figures = Metrics { resident: vec![("core".into(), 4096)], ..Metrics::default() };
        let mut bytes = Vec::new();
        figures.put(&mut bytes);
        assert_eq!(Metrics::take(&mut bytes.as_slice()), Ok(figures.clone()));
        // A name less than there are sizes: found by the fuzz target `handoff_message`.
        let mut odd = Vec::new();
        figures.state.put(&mut odd);
        Vec::<String>::new().put(&mut odd);
        vec![4096_u64].put(&mut odd);
        figures.ops.put(&mut odd);
        figures.logins.put(&mut odd);
        figures.front.put(&mut odd);
        assert_eq!(Metrics::take(&mut odd.as_slice()), Err(WireError::Value("resident memory")));
    }
}
