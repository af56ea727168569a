//! The commands of this repository.
//!
//! ```text
//!   make run  ──▶ xtask run ──▶ up on ./instance, first exec, how to talk to it
//!   make test ──▶ xtask test ─▶ build, cargo test, check, fuzz
//!                 xtask up ───▶ one whole instance below a directory, in the foreground
//!                 xtask gen, check, fuzz
//! ```
//!
//! One file per command. What several of them need stands beside: [`workspace`] knows the
//! repository and cargo, [`instance`] a directory an instance lives in, [`supervise`] the daemons
//! that run there.

#![forbid(unsafe_code)]

mod bench;
mod check;
mod deb;
mod faults;
mod fuzz;
mod r#gen;
mod instance;
mod run;
mod skip;
mod supervise;
mod test;
mod up;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A result whose error is the sentence the user reads.
type Result<T, E = String> = std::result::Result<T, E>;

/// The commands of the vmserverd repository.
#[derive(Parser)]
#[command(name = "xtask", max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a whole instance below a directory, in the foreground, until SIGTERM or Ctrl-C
    Up(up::Arguments),
    /// Run an instance in ./instance and show the first exec (make run)
    Run(run::Arguments),
    /// Everything that must hold before a change lands (make test)
    Test(test::Arguments),
    /// Run fuzz targets for a bounded time
    Fuzz(fuzz::Arguments),
    /// Measure the figures of docs/performance/ beside a peer and a bound
    Bench(bench::Arguments),
    /// Run the fault tests at full length and write docs/reliability.md
    Faults(faults::Arguments),
    /// Write docs/operations and the fuzz dictionary from the operation table
    Gen(r#gen::Arguments),
    /// Build the Debian packages
    Deb(deb::Arguments),
    /// Format, lints, licences, generated files
    Check,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Up(arguments) => up::main(&arguments),
        Command::Run(arguments) => run::main(&arguments),
        Command::Test(arguments) => test::main(&arguments),
        Command::Fuzz(arguments) => fuzz::main(&arguments),
        Command::Bench(arguments) => bench::main(&arguments),
        Command::Faults(arguments) => faults::main(&arguments),
        Command::Gen(arguments) => r#gen::main(&arguments),
        Command::Deb(arguments) => deb::main(&arguments),
        Command::Check => check::main(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("xtask: {why}");
            ExitCode::FAILURE
        }
    }
}
