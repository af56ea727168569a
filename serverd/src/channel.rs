//! What the core and a session process say to each other.
//!
//! The core trusts nothing that comes up this channel: every message is bounded, a message that makes
//! no sense ends the process that sent it, and no message says who the sender is. The session process
//! trusts the core, which made it.
//!
//! ```text
//!   core                                     session process
//!     │  Start + counter page                  │  becomes the user
//!     ├───────────────────────────────────────▶│
//!     │  Session { 1 } + socket                │
//!     ├───────────────────────────────────────▶│
//!     │                          Accepted { 1 }│  from now on the session is its own
//!     │◀───────────────────────────────────────┤
//!     │                RequestCount { question }│
//!     │◀───────────────────────────────────────┤
//!     │  RequestCount { question, count }      │
//!     ├───────────────────────────────────────▶│
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

link::messages! {
    /// From the core to a session process.
    pub enum ToSession {
        /// First message: whom to become, and the settings that matter. The descriptor is the page
        /// in which the process counts its requests.
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
        } with 1..=1,
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
        } with 1..=1,
        /// Finish the requests in flight, close the sessions, exit.
        3 = Finish {},
        /// Answer to [`ToCore::RequestCount`].
        4 = RequestCount {
            /// The number of the question.
            question: u64,
            /// Requests answered since start, over all users.
            count: u64,
        },
        /// Answer to [`ToCore::ConnectedVms`], in as many messages as it takes.
        5 = ConnectedVms {
            /// The number of the question.
            question: u64,
            /// Paths of .vmx files.
            vms: Vec<String>,
            /// Whether another message follows.
            more: bool,
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
            /// How many since the last such message; not 0.
            count: u32,
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
        /// How many requests were answered, over all users?
        5 = RequestCount {
            /// Number of the question, for the answer.
            question: u64,
        },
        /// Which machines have a process?
        6 = ConnectedVms {
            /// Number of the question, for the answer.
            question: u64,
        },
    }
}
