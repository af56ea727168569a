//! `vmware-authd`: the gateway. See the library's head for the story.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// Finds out who is calling on port 902, and hands the connection to vmserverd.
#[derive(Parser)]
#[command(name = "vmware-authd", version)]
struct Arguments {
    /// Keep every file of this instance below DIR instead of /.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// End when the process that started this one ends.
    #[arg(long)]
    die_with_parent: bool,
}

fn main() -> ExitCode {
    // The gateway starts copies of itself for its other two jobs; they take no options.
    let result = match std::env::args().nth(1).as_deref() {
        Some("net") => authd::net::run(),
        Some("pam-helper") => authd::pam::run(),
        _ => {
            let arguments = Arguments::parse();
            match authd::inetd::caller() {
                Some(caller) => authd::inetd::run(arguments.root.as_deref(), &caller),
                None => authd::monitor::run(arguments.root.as_deref(), arguments.die_with_parent),
            }
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vmware-authd: {error}");
            ExitCode::FAILURE
        }
    }
}
