//! The conversation between the gateway's root half and the server core.
//!
//! The server opens the *link*, a SOCK_SEQPACKET connection to the gateway's link socket, and keeps
//! it. A session is handed over in two steps, so that the caller reads `200 Connected` before the
//! first byte of the server can reach him:
//!
//! ```text
//!   gateway                      core
//!      │  Reserve { session }      │
//!      ├──────────────────────────▶│
//!      │        Accept / Refuse    │
//!      │◀──────────────────────────┤
//!   (200 to the caller)            │
//!      │  Session { … } + socket   │
//!      ├──────────────────────────▶│ ──▶ the session process of that user
//! ```
//!
//! `CONNECT <config> control` goes the same way with `Connect` in the place of `Reserve`: before the core
//! accepts, the session process of that user has looked, as the user, whether the machine is there, may
//! be operated and runs; if not the answer is `Decline`.

use crate::identity::Identity;
use crate::security;
use crate::wire::{Inner, Wire, WireError};

/// Why a caller is not connected to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Declined {
    /// It has no process, or none of the wanted kind.
    NotRunning = 3,
    /// The caller may read its .vmx, but not execute it.
    Denied = 4,
    /// It is not registered, or the caller may not read its .vmx.
    NotRegistered = 5,
    /// It has as many connections as it can have.
    Busy = 6,
}

impl Wire for Declined {
    fn put(&self, out: &mut Vec<u8>) {
        (*self as u8).put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        let number = u8::take(input)?;
        [Declined::NotRunning, Declined::Denied, Declined::NotRegistered, Declined::Busy]
            .into_iter()
            .find(|why| *why as u8 == number)
            .ok_or(WireError::Value("reason"))
    }
}

crate::messages! {
    /// From the gateway to the server core.
    pub enum ToServerd {
        /// May a session of this user be handed over?
        1 = Reserve {
            /// The gateway's number for the session; unique while the link stands.
            session: u64,
            /// The user it is for.
            uid: u32,
        },
        /// The session itself; the descriptor is the caller's socket, or one end of a socket pair
        /// whose other end the gateway relays through TLS.
        2 = Session {
            /// The number of the reservation.
            session: u64,
            /// Who is at the other end, proven.
            identity: Identity,
            /// Bytes the caller sent early, behind the line that asked for the hand-over.
            early: Vec<u8>,
        } with 1..=1,
        /// The reserved session will not come: the caller has gone.
        3 = Cancel {
            /// The number of the reservation.
            session: u64,
        },
        /// Answer to [`ToAuthd::Security`].
        4 = Security {
            /// The number of the question.
            question: u64,
            /// What was found or done.
            answer: Inner<security::Answer>,
        },
        /// As [`ToServerd::Reserve`], for a session with one machine.
        5 = Connect {
            /// The gateway's number for the session.
            session: u64,
            /// Who wants it, proven.
            identity: Identity,
            /// Path of the .vmx, as the caller gave it.
            config: String,
            /// He wants the screen (`mks`), not the control connection.
            console: bool,
        },
        /// First message on a new link: the pages that the gateway publishes, [`crate::figures::Logins`] and
        /// [`crate::figures::Front`], to be read only.
        6 = Figures {} with 2..=2,
    }
}

crate::messages! {
    /// From the server core to the gateway.
    pub enum ToAuthd {
        /// First message on a new link.
        1 = Hello {
            /// Process id of the core, for logs.
            pid: u32,
        },
        /// The session may come.
        2 = Accept {
            /// The number of the reservation.
            session: u64,
        },
        /// No more sessions now.
        3 = Refuse {
            /// The number of the reservation.
            session: u64,
            /// Why, for the gateway's log.
            reason: String,
        },
        /// An administrator asks about encryption. Making a key takes seconds; answers come in any
        /// order.
        4 = Security {
            /// The core's number for the question; unique while the link stands.
            question: u64,
            /// The question.
            ask: Inner<security::Ask>,
        },
        /// No connection to that machine; the place is given up.
        5 = Decline {
            /// The number of the reservation.
            session: u64,
            /// Why.
            why: Declined,
        },
    }
}
