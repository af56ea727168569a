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

use crate::identity::Identity;
use crate::security;
use crate::wire::Inner;

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
    }
}
