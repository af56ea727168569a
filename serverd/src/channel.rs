//! What the core and a session process say to each other.
//!
//! The core trusts nothing that comes up this channel: every message is bounded, a message that makes
//! no sense ends the process that sent it, and no message says who the sender is. The session process
//! trusts the core, which made it.
//!
//! ```text
//!   core                                     session process
//!     │  Start + counter page + news page      │  becomes the user
//!     ├───────────────────────────────────────▶│
//!     │  Session { 1 } + socket                │
//!     ├───────────────────────────────────────▶│
//!     │                          Accepted { 1 }│  from now on the session is its own
//!     │◀───────────────────────────────────────┤
//!     │            Ask { question, Ask } + fds │  what a handler wants of the core
//!     │◀───────────────────────────────────────┤
//!     │  Answer { question, Answer, more }     │  in as many pieces as it takes
//!     ├───────────────────────────────────────▶│
//!     │                             Progress … │  of tasks that it runs
//!     │◀───────────────────────────────────────┤
//!     │                              Closed {1}│
//!     │◀───────────────────────────────────────┤
//!     │                      Idle { received } │  nothing to do for a while
//!     │◀───────────────────────────────────────┤
//!     │  Finish                                │  agreed, unless a session is on its way
//!     ├───────────────────────────────────────▶│  exit
//! ```
//!
//! `Accepted` exists for the moment in which a session process dies while a session is on its way to
//! it: the core keeps a socket until it was accepted, and hands it to the next process otherwise. It
//! is sent before the first byte is read, so no request is ever carried out twice.

use handlers::running::{Metrics, Running, ServerEvent};
use hypervisor::control::{FromVmx, HostClass, State, ToVmx};
use link::gateway::Declined;
use link::wire::{Inner, Item, Wire, WireError};

/// The number under which a host's class stands in the news page; 0 is not known yet.
#[must_use]
pub fn host_number(class: HostClass) -> u64 {
    HostClass::ALL.iter().zip(1..).find(|(known, _)| **known == class).map_or(0, |(_, number)| number)
}

/// The class of that number.
#[must_use]
pub fn published_host(number: u64) -> Option<HostClass> {
    HostClass::ALL.into_iter().find(|class| host_number(*class) == number)
}

link::messages! {
    /// From the core to a session process.
    pub enum ToSession {
        /// First message: whom to become, and the settings that matter. The descriptors are the page
        /// in which the process counts its requests, and the page in which the core publishes the
        /// version of the inventory.
        1 = Start {
            /// User id.
            uid: u32,
            /// Primary group id.
            gid: u32,
            /// Every group, the primary one included.
            groups: Vec<u32>,
            /// Whether the user is an administrator.
            admin: bool,
            /// `serverd.product.title`
            title: String,
            /// `serverd.product.version`
            version: String,
            /// `serverd.product.build`
            build: String,
            /// `serverd.product.number`
            product_number: u32,
            /// Seconds without sessions after which the process offers to leave.
            idle: u32,
            /// `serverd.compat.historicBugs`
            historic_bugs: bool,
            /// Most talkative level to log, see [`crate::log::level_number`].
            level: u8,
            /// Root of the instance's files.
            root: String,
            /// `serverd.eventlog.dir`, below the root.
            event_logs: String,
            /// Number of `audit.level`: which operations to tell by [`ToCore::Did`].
            audit: u8,
        } with 2..=2,
        /// A session; the descriptor is the caller's socket.
        2 = Session {
            /// The core's number for it.
            number: u64,
            /// Login name, which may differ between sessions of one uid.
            name: String,
            /// Home directory.
            home: String,
            /// Bytes that the caller sent before the hand-over.
            early: Vec<u8>,
            /// The machine that it came to by `CONNECT`: attach it before anything else.
            machine: Option<String>,
        } with 1..=1,
        /// Finish the requests in flight, stop the tasks, close the sessions, exit.
        3 = Finish {},
        /// Answer to [`ToCore::Ask`], or a piece of it.
        4 = Answer {
            /// The number of the question.
            question: u64,
            /// What is known.
            answer: Inner<Answer>,
            /// Whether another piece follows.
            more: bool,
        },
        /// Somebody wants this task to stop.
        5 = StopTask {
            /// Number of the task.
            task: u64,
        },
        /// A process of this user died with work half done: remove what it left, then say
        /// [`ToCore::Cleaned`].
        6 = Clean {
            /// Number of the task.
            task: u64,
            /// Directory in which it lies.
            directory: String,
            /// What the names begin with.
            prefix: String,
        },
        /// May somebody of yours be connected to this machine? Answered by [`ToCore::Connectable`].
        7 = Connect {
            /// Number of the question.
            number: u64,
            /// Login name.
            name: String,
            /// Home directory.
            home: String,
            /// Path of the .vmx, as the caller gave it.
            config: String,
            /// He wants the screen.
            console: bool,
        },
        /// Which of these files do these machines of yours use? Answered by [`ToCore::Used`].
        40 = Uses {
            /// Number of the inquiry.
            inquiry: u64,
            /// Paths of .vmx files.
            configs: Vec<String>,
            /// Device and inode of each file, one after the other.
            files: Vec<u64>,
        },
    }
}

link::messages! {
    /// From a session process to the core.
    pub enum ToCore {
        /// The session has arrived; the core may forget its socket.
        1 = Accepted {
            /// The number of the session.
            number: u64,
        },
        /// Sessions have ended.
        2 = Closed {
            /// Their numbers; at least one.
            numbers: Vec<u64>,
        },
        /// There has been nothing to do for the idle time: may I leave?
        3 = Idle {
            /// How many sessions this process has received in its life, so that the core sees
            /// whether one is on its way.
            received: u64,
        },
        /// A line for the log.
        4 = Log {
            /// See [`crate::log::level_number`].
            level: u8,
            /// The text; the core cuts and escapes it.
            text: String,
        },
        /// What a handler wants to know or to have done.
        5 = Ask {
            /// Number of the question, for the answer.
            question: u64,
            /// Number of the session that wants it, for the audit; 0 for none.
            session: u64,
            /// The question.
            ask: Inner<Ask>,
        } with 0..=1,
        /// How far a task is.
        6 = Progress {
            /// Number of the task.
            task: u64,
            /// Bytes done.
            done: u64,
            /// Bytes to do in all.
            total: u64,
        },
        /// A task has ended.
        7 = TaskEnded {
            /// Number of the task.
            task: u64,
            /// How.
            end: TaskEnd,
            /// Bytes done.
            done: u64,
            /// Bytes to do in all.
            total: u64,
        },
        /// What a dead process left behind is gone, or cannot be removed.
        8 = Cleaned {
            /// Number of the task.
            task: u64,
            /// Why something is still there; empty when nothing is.
            left: String,
        },
        /// Answer to [`ToSession::Connect`].
        9 = Connectable {
            /// The number of the question.
            number: u64,
            /// Why not; absent when he may.
            declined: Option<Declined>,
        },
        /// An operation was answered; for the audit.
        10 = Did {
            /// The core's number for the session.
            session: u64,
            /// Number of the request in this process.
            request: u64,
            /// Index of the operation in the table; its length for none of it.
            op: u32,
            /// Number of the error; 0 for none.
            code: i32,
            /// Path of the .vmx that it was about.
            machine: Option<String>,
            /// Other paths.
            paths: Vec<String>,
        },
        /// Answer to [`ToSession::Uses`].
        40 = Used {
            /// Number of the inquiry.
            inquiry: u64,
            /// Device and inode of each file that is used.
            files: Vec<u64>,
        },
    }
}

link::messages! {
    /// What handlers ask of the core.
    pub enum Ask {
        /// Answered when everything is written that anybody has been told of.
        20 = Settled {},
        /// How many requests were answered since start, over all users?
        1 = RequestCount {},
        /// Which machines have a process?
        2 = ConnectedVms {},
        /// A number for a new task of this process.
        3 = BeginTask {
            /// Name of the operation.
            op: String,
            /// Bytes to do.
            total: u64,
            /// Where unfinished things lie; empty for nowhere.
            directory: String,
            /// What their names begin with.
            prefix: String,
        },
        /// How is this task?
        4 = TaskStatus {
            /// Number of the task.
            task: u64,
        },
        /// Stop this task; answered when it has ended, or after five seconds.
        5 = StopTask {
            /// Number of the task.
            task: u64,
        },
        /// Forget this task, which has ended.
        6 = DeleteTask {
            /// Number of the task.
            task: u64,
        },
        /// Which tasks are there, newest first?
        7 = ListTasks {
            /// Those of every user, which administrators may ask.
            all: bool,
        },
        /// The inventory, or what has changed in it.
        8 = Inventory {
            /// Version that the process has; 0 for none.
            known: u64,
        },
        /// Register a machine; the descriptor is its .vmx, opened for reading and writing, or for
        /// reading by root.
        9 = Register {
            /// Path of the .vmx.
            config: String,
            /// Whether only its owner shall see it.
            private: bool,
        } with 1..=1,
        /// Unregister a machine; the descriptor is its .vmx as for [`Ask::Register`], or, when that
        /// is gone, the nearest directory above that is there.
        10 = Unregister {
            /// Path of the .vmx.
            config: String,
            /// Whether no task may be at work in the machine's directory.
            idle: bool,
        } with 1..=1,
        /// List a session of this process as connected to a machine until it ends. The descriptor
        /// is the .vmx, opened for reading at least.
        11 = Attach {
            /// The core's number for the session.
            session: u64,
            /// Path of the .vmx.
            config: String,
            /// It came by `CONNECT`, which takes rx.
            console: bool,
        } with 1..=1,
        /// Who is connected to a machine? The descriptor is the .vmx, opened for reading at least.
        12 = Who {
            /// Path of the .vmx.
            config: String,
        } with 1..=1,
        /// Which of these files are used by registered machines of other users, besides this one?
        40 = UsedByOthers {
            /// Path of the .vmx whose files they are.
            config: String,
            /// Device and inode of each file, one after the other.
            files: Vec<u64>,
        },
        /// An administrator asks the gateway about encryption.
        13 = Security {
            /// The question.
            ask: Inner<link::security::Ask>,
        },
        /// Which machines have a process, and how are they?
        14 = Running {},
        /// Power a machine on, or resume it. The descriptor is its .vmx, opened for reading at least.
        15 = StartMachine {
            /// Path of the .vmx.
            config: String,
        } with 1..=1,
        /// A request for the process of a machine. The descriptor is its .vmx, opened for reading at
        /// least.
        16 = AskMachine {
            /// Path of the .vmx.
            config: String,
            /// The request; its number does not matter.
            ask: Inner<ToVmx>,
        } with 1..=1,
        /// Events from a number on, as soon as there is one.
        17 = WaitForEvents {
            /// The epoch that the number is of; without, the answer comes at once.
            epoch: Option<u64>,
            /// The number.
            since: u64,
            /// How long to wait, in milliseconds.
            timeout: u32,
            /// At most so many events.
            max: u32,
        },
        /// Numbers.
        18 = Metrics {},
        /// The .vmx of a machine was changed. The descriptor is the file as it is now, opened for reading
        /// at least; with keys by somebody who may write it.
        19 = ConfigChanged {
            /// Path of the .vmx.
            config: String,
            /// What was changed in it; without any, something.
            keys: Vec<String>,
        } with 1..=1,
    }
}

link::messages! {
    /// What the core answers, or a piece of it.
    pub enum Answer {
        /// No, and why: an error that the caller reads.
        1 = Refused {
            /// Number of the error.
            code: i32,
            /// Its whole text.
            text: String,
        },
        /// It is done.
        2 = Done {},
        /// A number: requests, or a task.
        3 = Number {
            /// The number.
            number: u64,
        },
        /// Paths of .vmx files.
        4 = Paths {
            /// The paths.
            paths: Vec<String>,
        },
        /// Tasks.
        5 = Tasks {
            /// The tasks.
            tasks: Vec<TaskFacts>,
        },
        /// Changes of the inventory, in order.
        6 = Inventory {
            /// Version that the process has after all pieces of this answer.
            version: u64,
            /// Whether what it has is to be forgotten first; only in the first piece.
            anew: bool,
            /// What was added and removed.
            changes: Vec<Change>,
        },
        /// Sessions connected to a machine.
        7 = Users {
            /// The sessions.
            users: Vec<SessionFacts>,
        },
        /// Files.
        40 = Files {
            /// Device and inode of each, one after the other.
            files: Vec<u64>,
        },
        /// What the gateway says about encryption.
        8 = Security {
            /// Its answer.
            answer: Inner<link::security::Answer>,
        },
        /// Machines that have a process.
        9 = Running {
            /// The machines.
            machines: Vec<Running>,
        },
        /// The state of a machine that was started.
        10 = State {
            /// The state.
            state: State,
        },
        /// What the process of a machine answered.
        11 = Machine {
            /// One message of it.
            message: Inner<FromVmx>,
        },
        /// Events.
        12 = Events {
            /// Changes with every start of the core.
            epoch: u64,
            /// The number to ask for next.
            next: u64,
            /// Events were missed.
            lost: bool,
            /// The events, oldest first.
            events: Vec<ServerEvent>,
        },
        /// Numbers.
        13 = Metrics {
            /// The numbers.
            metrics: Metrics,
        },
    }
}

/// Gives structs a wire form: their fields, one after the other.
macro_rules! wire_struct {
    ($(#[$meta:meta])* pub struct $name:ident { $( $(#[$fmeta:meta])* pub $field:ident : $ty:ty ),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $name { $( $(#[$fmeta])* pub $field: $ty ),* }

        impl Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $( self.$field.put(out); )*
            }
            fn take(input: &mut &[u8]) -> Result<Self, WireError> {
                Ok($name { $( $field: <$ty>::take(input)? ),* })
            }
        }

        impl Item for $name {
            const LEAST: usize = 4;
        }
    };
}

wire_struct! {
    /// A task as the core knows it.
    pub struct TaskFacts {
        /// Its number.
        pub id: u64,
        /// Name of the operation that made it.
        pub op: String,
        /// Login name of whoever started it.
        pub user: String,
        /// How it is.
        pub state: TaskEnd,
        /// Bytes done.
        pub done: u64,
        /// Bytes to do in all.
        pub total: u64,
        /// Unix seconds.
        pub start: i64,
        /// Unix seconds; 0 while it runs.
        pub end: i64,
        /// Seconds that it has run so far, or ran; set whenever somebody asks. No clock that is set counts.
        pub seconds: i64,
    }
}

wire_struct! {
    /// A change of the inventory.
    pub struct Change {
        /// Path of the .vmx.
        pub config: String,
        /// Whether it is there now.
        pub there: bool,
        /// Whether only its owner and administrators see it.
        pub private: bool,
    }
}

wire_struct! {
    /// A session that is connected to a machine.
    pub struct SessionFacts {
        /// Login name.
        pub name: String,
        /// Time of login, Unix seconds.
        pub time: i64,
        /// Numeric address, or `unix`.
        pub address: String,
        /// It came by `CONNECT`.
        pub console: bool,
    }
}

/// Whether and how a task has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskEnd {
    /// It has not.
    Running,
    /// All is done.
    Done,
    /// It has failed.
    Failed {
        /// Number of the error.
        code: i32,
        /// Its whole text.
        text: String,
    },
    /// It was stopped.
    Stopped,
}

impl Wire for TaskEnd {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            TaskEnd::Running => 0u8.put(out),
            TaskEnd::Done => 1u8.put(out),
            TaskEnd::Failed { code, text } => {
                2u8.put(out);
                code.put(out);
                text.put(out);
            }
            TaskEnd::Stopped => 3u8.put(out),
        }
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        match u8::take(input)? {
            0 => Ok(TaskEnd::Running),
            1 => Ok(TaskEnd::Done),
            2 => Ok(TaskEnd::Failed { code: i32::take(input)?, text: String::take(input)? }),
            3 => Ok(TaskEnd::Stopped),
            _ => Err(WireError::Value("task state")),
        }
    }
}
