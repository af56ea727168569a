//! `xtask fuzz`: the targets of `fuzz/`, with AddressSanitizer, for a bounded time.
//!
//! ```text
//!   operation table ─▶ seeds ─┐
//!   fuzz/corpus/TARGET ───────┼─▶ target ─▶ fuzz/target/work/TARGET/corpus ─▶ --minimise ─▶ fuzz/corpus/TARGET
//!   fuzz/dictionaries ────────┘     │
//!                                   ├─▶ fuzz/artifacts/TARGET         an input that failed
//!                                   └─▶ fuzz/target/runs.jsonl        figures ─▶ --report ─▶ docs/fuzzing.md
//! ```
//!
//! Works on the stable toolchain: sanitizer and coverage are compiler flags that only want the
//! bootstrap variable.

mod build;
mod corpus;
mod coverage;
mod figures;
mod target;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

pub use build::build;
use figures::{Figures, Row};
use target::{Limit, Running};

use crate::Result;
use crate::workspace::{Runner, root};

/// Targets whose input is text of the protocol, of a configuration or of a message: small and fast, and held to
/// [`FLOOR`]. The others drive chips, disks and files.
const TEXT: &[&str] = &[
    "authd_line",
    "authd_session",
    "control_channel",
    "event_log",
    "exec_envelope",
    "exec_typed",
    "guard_vs_roxmltree",
    "handoff_message",
    "product_config",
    "vmx_file",
];

/// Executions that a text target makes in `xtask test`, if it has the time.
const FLOOR: u64 = 2_000_000;

/// Seconds that a target has, unless somebody says otherwise, and in `xtask test` at most.
const SHARE: u64 = 45;

/// Seconds that `xtask test` fuzzes at least, however late it is: all targets share them, so that one more of
/// them makes no test longer.
const LEAST: u64 = 190;

/// Seconds of one turn of a target in a long run.
const TURN: u64 = 120;

/// Arguments of `xtask fuzz`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Targets to run [default: all]
    targets: Vec<String>,
    /// Seconds per target [default: 45]
    #[arg(long, value_name = "N", conflicts_with = "hours")]
    seconds: Option<u64>,
    /// Hours of processor time of all targets together; the result is a table
    #[arg(long, value_name = "N")]
    hours: Option<f64>,
    /// Do not fuzz: put the fewest inputs that reach everything found so far into fuzz/corpus
    #[arg(long, conflicts_with_all = ["seconds", "hours"])]
    minimise: bool,
    /// Do not fuzz: tell which lines of the sources the saved corpora reach, and write it into docs/fuzzing.md
    #[arg(long, conflicts_with_all = ["seconds", "hours", "minimise"])]
    coverage: bool,
    /// Do not fuzz: write the sums of these figures into docs/fuzzing.md [default: fuzz/target/runs.jsonl]
    #[arg(long, value_name = "FILE", num_args = 0.., conflicts_with_all = ["seconds", "hours", "minimise", "coverage"])]
    report: Option<Vec<PathBuf>>,
}

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    if let Some(files) = &arguments.report {
        return figures::report(files);
    }
    let chosen = choose(&arguments.targets)?;
    if arguments.coverage {
        return coverage::report(&chosen);
    }
    build(&Runner::in_front())?;
    if arguments.minimise {
        return chosen.iter().try_for_each(|name| corpus::minimise(name));
    }
    match arguments.hours {
        Some(hours) => for_hours(&chosen, hours),
        None => {
            let seconds = arguments.seconds.unwrap_or(SHARE);
            all_once(&chosen, |_| Limit { seconds, executions: None })
        }
    }
}

/// What `xtask test` fuzzes, once everything is built: each target for so many seconds. Without a number
/// all of them share the time that is left, at least [`LEAST`] seconds, and a text target ends as
/// soon as it has made [`FLOOR`] executions.
///
/// # Errors
/// Names every target that failed.
pub fn in_test(seconds: Option<u64>, left: Duration) -> Result<()> {
    let targets = targets()?;
    let share = share(left, targets.len().div_ceil(width()));
    let executions = |name: &str| (seconds.is_none() && TEXT.contains(&name)).then_some(FLOOR);
    all_once(&targets, |name| Limit { seconds: seconds.unwrap_or(share), executions: executions(name) })
}

/// Seconds of each target when so many run one after the other, at most [`SHARE`].
fn share(left: Duration, rounds: usize) -> u64 {
    (left.as_secs().max(LEAST) / rounds.max(1) as u64).clamp(1, SHARE)
}

/// The names of the targets: the files of `fuzz/fuzz_targets`.
fn targets() -> Result<Vec<String>> {
    let directory = root().join("fuzz/fuzz_targets");
    let said = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&directory).map_err(said)? {
        let path = entry.map_err(said)?.path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort();
    Ok(names)
}

/// The wanted targets; all of them if none is named.
fn choose(wanted: &[String]) -> Result<Vec<String>> {
    let all = targets()?;
    match wanted.iter().find(|name| !all.contains(name)) {
        Some(unknown) => Err(format!("there is no fuzz target {unknown}; there are: {}", all.join(", "))),
        None if wanted.is_empty() => Ok(all),
        None => Ok(wanted.to_vec()),
    }
}

/// How many targets run at the same time.
fn width() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Runs each target once, as many at a time as there are cores. One that fails does not hold up the others.
fn all_once(chosen: &[String], limit: impl Fn(&str) -> Limit) -> Result<()> {
    eprintln!("xtask: fuzzing {}", chosen.join(", "));
    let mut failed = Vec::new();
    let mut running: VecDeque<Running> = VecDeque::new();
    for name in chosen {
        if running.len() == width()
            && let Some(first) = running.pop_front()
        {
            failed.extend(first.finish().err());
        }
        match Running::start(name, &limit(name)) {
            Ok(started) => running.push_back(started),
            Err(why) => failed.push(why),
        }
    }
    failed.extend(running.into_iter().filter_map(|target| target.finish().err()));
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ")) }
}

/// Runs all targets in turns until they have used so much processor time. The one that had the least comes
/// next, and text targets count half; one that has failed has no further turn.
fn for_hours(chosen: &[String], hours: f64) -> Result<()> {
    if !(hours > 0.0 && hours.is_finite()) {
        return Err(format!("--hours {hours} is no length of time"));
    }
    let mut used: BTreeMap<&str, f64> = chosen.iter().map(|name| (name.as_str(), 0.0)).collect();
    let mut rows: Vec<Row> = Vec::new();
    let mut failed = Vec::new();
    let mut running: VecDeque<(&str, Running)> = VecDeque::new();
    loop {
        let total: f64 = rows.iter().map(|row| row.processor).sum();
        let missing = hours * 3600.0 - total - (running.len() as f64) * TURN as f64;
        let idle = |name: &&str| !running.iter().any(|(busy, _)| busy == name);
        let next = used
            .iter()
            .filter(|(name, _)| idle(name))
            .map(|(name, time)| (*name, time * if TEXT.contains(name) { 0.5 } else { 1.0 }))
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(name, _)| name);
        if let Some(name) = next.filter(|_| missing > 0.0 && running.len() < width()) {
            let seconds = (missing.ceil() as u64).clamp(1, TURN);
            match Running::start(name, &Limit { seconds, executions: None }) {
                Ok(started) => running.push_back((name, started)),
                // As one that failed: the others go on, and are waited for.
                Err(why) => {
                    used.remove(name);
                    failed.push(why);
                }
            }
            continue;
        }
        let Some((name, first)) = running.pop_front() else {
            break;
        };
        match first.finish() {
            Ok(row) => {
                *used.entry(name).or_default() += row.processor;
                rows.push(row);
            }
            Err(why) => {
                used.remove(name);
                failed.push(why);
            }
        }
    }
    println!("{}", Figures::sum(&rows).table());
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_share_the_time_that_is_left() {
        let seconds = |left, rounds| share(Duration::from_secs(left), rounds);
        assert_eq!(seconds(0, 10), 19);
        assert_eq!(seconds(300, 10), 30);
        assert_eq!(seconds(9000, 10), SHARE);
        assert_eq!((seconds(0, 1), seconds(0, 0), seconds(0, 1000)), (SHARE, SHARE, 1));
    }

    #[test]
    fn a_target_is_a_file_a_program_and_a_row_of_the_page() {
        let fuzz = root().join("fuzz");
        let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
        let page = std::fs::read_to_string(root().join("docs/fuzzing.md")).unwrap();
        let targets = targets().unwrap();
        for name in &targets {
            assert!(
                manifest.contains(&format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"")),
                "{name}"
            );
            assert!(
                page.lines().any(|line| line.starts_with('|') && line.contains(&format!("`{name}`"))),
                "{name}"
            );
            assert!(corpus::count(&corpus::saved(name)) > 0, "{name} has no saved corpus");
        }
        assert!(TEXT.iter().all(|name| targets.iter().any(|target| target == name)));
        assert!(choose(&["nonsense".into()]).unwrap_err().contains("authd_line"));
        assert_eq!(choose(&[]), Ok(targets));
    }
}
