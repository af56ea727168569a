//! `xtask test`, behind `make test`: everything that must hold before a change lands.
//!
//! ```text
//!   build once (release) ─▶ cargo test ─▶ check: fmt, clippy, deny, generated files ─▶ fuzz
//! ```
//!
//! Every step runs even if an earlier one failed, so that one run tells everything. What was left
//! out is listed at the end.

use std::path::Path;

use crate::workspace::{Binaries, build_release, cargo, root, run};
use crate::{Result, check, fuzz, skip};

/// Arguments of `xtask test`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seconds per fuzz target; 0 leaves fuzzing out [default: as many as make three minutes for all]
    #[arg(long, value_name = "N")]
    fuzz_seconds: Option<u64>,
}

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    let mut failed = Vec::new();
    let mut note = |result: Result<()>| failed.extend(result.err());
    note(tests());
    note(check::main());
    match arguments.fuzz_seconds {
        Some(0) => skip::skipped("fuzz targets", "--fuzz-seconds 0"),
        seconds => {
            let seconds = seconds.map_or_else(fuzz::share, Ok);
            note(seconds.and_then(|seconds| fuzz::for_seconds(&[], seconds)));
        }
    }
    let skipped = skip::all();
    if !skipped.is_empty() {
        eprintln!("\nleft out in this run:\n  {}", skipped.join("\n  "));
    }
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ")) }
}

/// Builds what the tests start, then runs them.
fn tests() -> Result<()> {
    eprintln!("xtask: building the daemons (release)");
    let binaries = Binaries::build()?;
    build_release(&["xtask", "vmcontrol"])?;
    let bin_dir = binaries.authd.parent().unwrap_or(Path::new("."));
    let list = root().join("target/skipped");
    let _ = std::fs::remove_file(&list);
    eprintln!("xtask: cargo test");
    let mut command = cargo(&["test", "--workspace", "--release", "--no-fail-fast", "--quiet"]);
    // The tests of `tests/` start these binaries, and write into the list what they leave out.
    command.env("VMSERVERD_BIN_DIR", bin_dir).env("VMSERVERD_SKIPPED", &list);
    let result = run(&mut command, "cargo test");
    skip::adopt(&list);
    result
}
