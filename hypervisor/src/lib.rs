//! The machine itself, one room: what a machine is made of on disk, and later what runs it.
//!
//! ```text
//!   name.vmx ──▶ vmx_file   what the machine has: memory, disks, adapters, files
//!   name.vmdk ─▶ vmdk       its disks, sector by sector, with their parents
//!   event-….log ▶ event_log what happened to it
//!   vmx ───────▶ control     what is said to a running machine, and what it says
//! ```
//!
//! Nothing here knows of sockets, users or `<exec>`. Whoever calls decides as which user: the
//! session process of the caller, the core, or a machine's own process. Paths are opened where the
//! caller says so ([`vmdk::Opener`]).
//!
//! The engine is a package of its own, `vmx`; [`control`] is how the server core talks to it.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod control;
pub mod event_log;
pub mod vmdk;
pub mod vmx_file;
