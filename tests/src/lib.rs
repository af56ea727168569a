//! Tests across processes, and what they are built from.
//!
//! Everything here drives the built daemons from outside, as a caller would:
//!
//! ```text
//!   tests/*.rs ──▶ Instance: a whole instance below /tmp, through `xtask up`
//!       │ ──────▶ Client, Exec: lines and <exec> over TCP, TLS, the unix socket
//!       │ ──────▶ Account: a real account of this machine, removed afterwards
//!       └───────▶ Caller: another process with another user id (src/bin/caller.rs)
//! ```
//!
//! Tests that need root say so with [`need_root`], and then say loudly when they are left out.

#![forbid(unsafe_code)]

pub mod account;
pub mod caller;
pub mod client;
pub mod exec;
pub mod figures;
pub mod guest;
pub mod instance;
pub mod mount;
pub mod openmetrics;
pub mod process;
pub mod programs;
pub mod screen;
pub mod skip;
pub mod tasks;
pub mod trace;
pub mod wait;

pub use account::Account;
pub use caller::Caller;
pub use client::{Client, Tap};
pub use exec::{Exec, Reply};
pub use guest::Guest;
pub use instance::{Base, Instance, Setup};
pub use mount::Mounted;
pub use skip::need_root;
pub use wait::{eventually, within};
