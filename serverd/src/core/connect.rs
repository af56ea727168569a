//! Connections to one machine: `CONNECT <config> control`.
//!
//! ```text
//!   gateway ── Connect ──▶ a place, as for any session
//!                            │ Connect                  the process that is the caller looks,
//!                            ▼                          for the core opens nothing that he named
//!                     session process ── Connectable ──▶ Accept, or Decline with the reason
//!   gateway ── Session ──▶ handed over with its machine ──▶ Attach + the .vmx as proof ──▶ listed
//! ```
//!
//! What the process says decides what its own user reads, and nothing else: who is listed as connected
//! has proven his right with the .vmx itself.

use std::collections::BTreeMap;
use std::time::Duration;

use ::link::Identity;
use ::link::gateway::{Declined, ToAuthd};
use tokio::time::Instant;

use super::admission::Admission;
use super::processes::ProcessId;
use super::supervisor::Supervisor;
use crate::channel::ToSession;

/// Most connections to one machine.
pub const MOST: usize = 32;

/// How long a connection that was agreed on is waited for; longer than its place is kept.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Connections that are not there yet, by the gateway's number.
#[derive(Debug, Default)]
pub struct Connecting {
    next: u64,
    open: BTreeMap<u64, Open>,
}

#[derive(Debug)]
struct Open {
    /// Number of the question.
    number: u64,
    process: ProcessId,
    config: String,
    since: Instant,
    agreed: bool,
}

impl Connecting {
    /// Connections to a machine that were agreed on and are not there yet.
    pub(super) fn agreed(&self, config: &str) -> usize {
        self.open.values().filter(|open| open.agreed && open.config == config).count()
    }
}

impl Supervisor {
    /// The gateway asks whether somebody, who has a place, may be connected to a machine.
    pub fn connect(
        &mut self,
        session: u64,
        identity: &Identity,
        config: String,
        console: bool,
        admission: &mut Admission,
    ) {
        self.connecting.open.retain(|_, open| open.since.elapsed() < KEPT_FOR);
        let number = self.connecting.next;
        self.connecting.next += 1;
        let (name, home) = (identity.name.clone(), identity.home.clone());
        let question = ToSession::Connect { number, name, home, config: config.clone(), console };
        let asked = self.process_of_identity(identity).and_then(|process| {
            self.tell(process, question)?;
            Ok(process)
        });
        match asked {
            Ok(process) => {
                let open = Open { number, process, config, since: Instant::now(), agreed: false };
                self.connecting.open.insert(session, open);
            }
            Err(reason) => {
                tracing::warn!("a connection of uid {} is refused: {reason}", identity.uid);
                admission.cancel(session);
                self.tell_gateway(ToAuthd::Refuse { session, reason });
            }
        }
    }

    /// The caller's process has looked.
    pub(super) fn connectable(
        &mut self,
        process: ProcessId,
        number: u64,
        declined: Option<Declined>,
        admission: &mut Admission,
    ) {
        let asked = |open: &Open| open.process == process && open.number == number && !open.agreed;
        // The caller may have gone meanwhile.
        let Some((session, config)) = self
            .connecting
            .open
            .iter()
            .find(|(_, open)| asked(open))
            .map(|(at, open)| (*at, open.config.clone()))
        else {
            return;
        };
        match declined.or((self.consoles(&config) >= MOST).then_some(Declined::Busy)) {
            None => {
                if let Some(open) = self.connecting.open.get_mut(&session) {
                    open.agreed = true;
                }
                self.tell_gateway(ToAuthd::Accept { session });
            }
            Some(why) => {
                self.connecting.open.remove(&session);
                admission.cancel(session);
                self.tell_gateway(ToAuthd::Decline { session, why });
            }
        }
    }

    /// The machine of a session that arrives, if it was agreed on as a connection to one.
    pub fn connected(&mut self, session: u64) -> Option<String> {
        self.connecting.open.remove(&session).map(|open| open.config)
    }

    /// The gateway has gone, and its numbers with it.
    pub fn nobody_connects(&mut self) {
        self.connecting.open.clear();
    }

    /// Whether a process is needed for a connection that is not there yet.
    pub(super) fn is_connecting(&self, process: ProcessId) -> bool {
        self.connecting.open.values().any(|open| open.process == process)
    }

    /// A process has died: it looks at nothing any more.
    pub(super) fn nobody_looks(&mut self, process: ProcessId, admission: &mut Admission) {
        let died =
            |(session, open): (&u64, &Open)| (open.process == process && !open.agreed).then_some(*session);
        let lost: Vec<u64> = self.connecting.open.iter().filter_map(died).collect();
        for session in lost {
            self.connecting.open.remove(&session);
            admission.cancel(session);
            let reason = "its session process ended".to_owned();
            self.tell_gateway(ToAuthd::Refuse { session, reason });
        }
    }
}
