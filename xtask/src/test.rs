//! `xtask test`, behind `make test`: everything that must hold before a change lands.
//!
//! ```text
//!   build everything once (release) ─┬─▶ cargo test ──────────────────────────────────┬─▶ fuzz
//!                                    └─▶ in its shadow: fuzz targets are built, check ─┘
//! ```
//!
//! Tests wait much: for machines that boot, for deadlines, for disks. What needs only a processor takes what
//! they leave, at idle priority, so that it never holds one of them up.
//!
//! Every step runs even if an earlier one failed, so that one run tells everything. What was left
//! out is listed at the end.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::workspace::{Binaries, Runner, build_release, cargo, root, run};
use crate::{Result, check, fuzz, skip};

/// How long all of it shall take; fuzzing gets what is left.
const AIM: Duration = Duration::from_secs(25 * 60);

/// Arguments of `xtask test`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Seconds per fuzz target; 0 leaves fuzzing out [default: at most 45, as it takes to end within 25 minutes]
    #[arg(long, value_name = "N")]
    fuzz_seconds: Option<u64>,
}

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    let mut failed = Vec::new();
    let fuzzed = arguments.fuzz_seconds != Some(0);
    let mut clock = Clock::new();
    let built = build();
    clock.lap("built");
    std::thread::scope(|scope| {
        let shadow = scope.spawn(|| {
            let runner = Runner::in_shadow();
            let targets = if fuzzed { fuzz::build(&runner) } else { Ok(()) };
            let checked = check::run(&runner);
            (runner.said(), targets, checked)
        });
        failed.extend(built.and_then(|binaries| tests(&binaries)).err());
        clock.lap("tested");
        let (said, targets, checked) = shadow.join().unwrap_or_else(|_| {
            (String::new(), Err("building the fuzz targets panicked".into()), Err("check panicked".into()))
        });
        clock.lap("checked");
        eprint!("{said}");
        failed.extend(checked.err());
        if fuzzed {
            failed.extend(
                targets
                    .and_then(|()| fuzz::in_test(arguments.fuzz_seconds, AIM.saturating_sub(clock.total())))
                    .err(),
            );
            clock.lap("fuzzed");
        } else {
            skip::skipped("fuzz targets", "--fuzz-seconds 0");
        }
    });
    let skipped = skip::all();
    if !skipped.is_empty() {
        eprintln!("\nleft out in this run:\n  {}", skipped.join("\n  "));
    }
    clock.tell();
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ")) }
}

/// Builds what the tests start, and the tests. All of it has the same features, so nothing is built twice.
fn build() -> Result<Binaries> {
    eprintln!("xtask: building the daemons and the tests (release)");
    let binaries = Binaries::build()?;
    build_release(&["xtask", "vmcontrol"])?;
    run(&mut cargo(&["test", "--workspace", "--release", "--no-run", "--quiet"]), "building the tests")?;
    Ok(binaries)
}

/// Runs the tests.
fn tests(binaries: &Binaries) -> Result<()> {
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

/// Where the time goes.
struct Clock {
    start: Instant,
    last: Instant,
    laps: Vec<String>,
}

impl Clock {
    fn new() -> Self {
        let now = Instant::now();
        Clock { start: now, last: now, laps: Vec::new() }
    }

    fn total(&self) -> Duration {
        self.start.elapsed()
    }

    fn lap(&mut self, what: &str) {
        let now = Instant::now();
        self.laps.push(format!("{what} in {} s", now.duration_since(self.last).as_secs()));
        self.last = now;
    }

    fn tell(&self) {
        eprintln!("xtask: {}", self.laps.join(", "));
    }
}
