//! The client half of `vmserverd`: everything a program needs to ask for operations.
//!
//! ```text
//!   Params ──▶ Connection::open ──▶ address   which socket or port, from /etc/vmware/config
//!                    │              wire      bytes with a deadline: unix, TCP, TLS
//!                    │              trust     whose certificate that is
//!                    │              dialogue  banner, login, hand-over
//!                    ▼
//!              Connection::exec     one document out, one document back, as text
//!              Connection::call     a Request out, the contents of `out` back
//! ```
//!
//! No runtime, no thread after connecting, no global state: a [`Connection`] is a socket and what is
//! needed to open it again. Whoever shares one between threads puts a lock around it. Nothing here is
//! printed, and no environment variable is changed.
//!
//! # Time
//! Every public call ends within [`Params::timeout`], whatever the other side does.
//!
//! # When a connection is lost
//! * A call that was interrupted (-13, -7, -15) leaves the connection closed: what the server has done
//!   is not known, so nothing is sent twice.
//! * A connection that the server ended *between* two calls (it was restarted) is opened again, once,
//!   before the next request is sent. [`Connection::set_hello`] names a request to be repeated then.
//!
//! # Errors
//! Numbers and base texts are those of [`ops::ErrorCode`], shared with the server.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod address;
mod connection;
mod dialogue;
mod error;
mod message;
mod params;
mod trust;
mod wire;

pub use connection::Connection;
pub use error::Error;
pub use message::{Element, MAX_REPLY, Reply, Request};
pub use ops::ErrorCode;
pub use params::{DEFAULT_TIMEOUT, Params};
