//! The server daemon: no network socket, one supervising core, one session process per user.
//!
//! ```text
//!   vmware-authd (monitor)                          uid 0
//!        │  link: Reserve, Session + socket
//!        ▼
//!   core            supervises and adds up          uid 0, few capabilities
//!        │  ToSession: Start, Session + socket, answers
//!        │  ToCore: Accepted, Closed, questions, log lines
//!        ▼
//!   session         reads <exec>, runs handlers     uid of the caller, no way back
//!        │
//!        ▼
//!   the caller's socket, handed over: nobody copies bytes in between
//! ```
//!
//! A third one, [`metrics`], tells figures about both to whoever asks. All are this one program. [`core`] is what `vmserverd` starts as; it executes itself again with
//! the argument `session` for every identity that has sessions. What the two say to each other is in
//! [`channel`]. The core parses nothing that a caller wrote, and believes nothing that a session
//! process says about who it is: it knows that from having started it.
//!
//! Started by an ordinary user, everything runs as that user and nothing is switched.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod channel;
pub mod core;
pub mod figures;
pub mod log;
pub mod metrics;
pub mod session;
mod sys;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The server daemon of a vmserverd instance.
///
/// Connects to vmware-authd of the same instance and serves the sessions that it hands over. SIGTERM
/// finishes the requests in flight and ends with status 0.
#[derive(Debug, Parser)]
#[command(name = "vmserverd", version)]
struct Arguments {
    /// Directory that holds the instance; the default is / for root, and a directory of their own
    /// for other users.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Stop when the process that started this one ends.
    #[arg(long)]
    die_with_parent: bool,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Serves the sessions of one user; started by the core only.
    #[command(hide = true)]
    Session,
    /// Becomes the process of a machine; started by the core only.
    #[command(hide = true)]
    Machine,
    /// Tells figures to whoever asks; started by the core only.
    #[command(hide = true)]
    Metrics,
    /// Looks how this host runs guests; started by the core only.
    #[command(hide = true)]
    Probe,
}

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match arguments.role {
        Some(Role::Session) => session::main(),
        Some(Role::Machine) => core::machines::launch::main(),
        Some(Role::Metrics) => metrics::main(),
        Some(Role::Probe) => core::probe::main(),
        None => core::main(arguments.root.as_deref(), arguments.die_with_parent),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmserverd: {error}");
            ExitCode::FAILURE
        }
    }
}
