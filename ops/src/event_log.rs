//! `VM_GetLastNEvents`: what happened to a machine.

use ops_derive::{Fragment, Op, Reply};

use crate::value::{ConfigPath, Time};

crate::words! {
    /// What an event is.
    pub enum EventType {
        /// Something happened.
        Info = "info",
        /// Something should be looked at.
        Warning = "warning",
        /// Something failed.
        Error = "error",
        /// For developers.
        Debug = "debug",
        /// The machine asked somebody.
        Question = "question",
        /// Somebody answered.
        Answer = "answer",
    }
}

/// One event, in the shape of the product's event log.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Event {
    /// `info`, `warning`, `error`, `debug`, `question` or `answer`.
    #[field(name = "type", attribute)]
    pub kind: EventType,
    /// When it happened.
    pub time: Time,
    /// One line about it.
    pub subject: String,
    /// More about it, in paragraphs.
    #[field(list = "body/p")]
    pub body: Vec<String>,
    /// An answer that a question offered.
    #[field(list = "/choice")]
    pub choices: Vec<String>,
    /// Who answered or acted.
    #[field(list = "/user")]
    pub users: Vec<String>,
}

/// Lists the latest events of a machine, the newest first.
///
/// Right on the machine: r. A machine without a log has no events, and lines of a log that are no
/// events, or damaged ones, are passed over.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetLastNEvents", handler = "EventLog::VM_GetLastNEvents_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetLastNEventsReply)]
pub struct GetLastNEvents {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Most events to list.
    #[field(default = "25", min = 1, max = 1000, alias = "count", alias = "lines")]
    pub n: i64,
}

/// Events of a machine.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetLastNEventsReply {
    /// Path of the machine's .vmx.
    pub config: ConfigPath,
    /// The events, the newest first.
    #[field(list = "events/event")]
    pub events: Vec<Event>,
}
