//! `vmware-cmd`: the command line as scripts know it, and a few words more.
//!
//! ```text
//!   words ──▶ grammar ──▶ Command ─┬─▶ Machine   <cfg> <action> ...   ─┐  actions: one table
//!                │                 ├─▶ Server    -s <action> ...      ─┘
//!             Options              ├─▶ List      -l, with --long: list
//!                │                 └─▶ New       exec, ops, watch, task, doctor
//!                ▼
//!             server ──▶ vmcontrol-client       (the only module that talks to anybody)
//!                │
//!                ▼
//!   stdout: value, line or table        stderr: failure, in the words of `failure`
//! ```
//!
//! # Two grammars
//! The old one is that of VMware Server: a path of a `.vmx`, an action, its arguments; every byte it
//! prints is somebody's input. All that is new stands beside it: long options, and words that are
//! neither a file nor a path with a slash. So nothing that meant something then means something else
//! now.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod actions;
mod answer;
mod connected;
mod doctor;
mod exec;
mod failure;
mod grammar;
mod help;
mod list;
mod operations;
mod output;
mod password;
mod server;
mod table;
mod task;
mod text;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use crate::failure::Failure;
use crate::grammar::{Command, Line, New};
use crate::output::Output;

/// Runs the program. The first word is its own name, as it was called.
pub fn main(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let mut words = words.into_iter();
    let name = words.next().unwrap_or_else(|| "vmware-cmd".into()).to_string_lossy().into_owned();
    // A directory is no machine: in the source tree of this program `ops` is one.
    let file = |path: &str| std::fs::metadata(path).is_ok_and(|facts| !facts.is_dir());
    let line = match grammar::parse(words, &file) {
        Ok(line) => line,
        Err(failure) => return failure.report(&name, &mut Output::new(false)),
    };
    let mut output = Output::new(line.options.json);
    match run(&line, &mut output) {
        Ok(true) => output.end(ExitCode::SUCCESS),
        Ok(false) => output.end(ExitCode::FAILURE),
        Err(failure) => failure.report(&name, &mut output),
    }
}

/// Carries a command out. False when it has said itself what failed.
fn run(line: &Line, output: &mut Output) -> Result<bool, Failure> {
    let options = &line.options;
    match &line.command {
        Command::Help => output.text(&help::page()),
        Command::Version => output.text(concat!("vmware-cmd ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::Machine { config, action, arguments } => {
            actions::on_machine(options, config, action, arguments, output)?;
        }
        Command::Server { action, arguments } => actions::on_server(options, action, arguments, output)?,
        Command::List if options.long => list::long(options, output)?,
        Command::List => list::paths(options, output)?,
        Command::New(New::Exec, words) => return exec::run(options, words, output),
        Command::New(New::Ops, words) => operations::run(options, words, output)?,
        Command::New(New::Watch, words) => watch::run(options, words, output)?,
        Command::New(New::Task, words) => return task::run(options, words, output),
        Command::New(New::Doctor, words) => return doctor::run(options, words, output),
    }
    Ok(true)
}
