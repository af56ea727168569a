//! `xtask fuzz`: the targets of `fuzz/`, with AddressSanitizer, for a bounded time.
//!
//! Works on the stable toolchain: sanitizer and coverage are compiler flags that only want the
//! bootstrap variable. A target first runs through its saved corpus (`fuzz/corpus/TARGET`), then
//! searches; what it finds on the way stays below `fuzz/target`, a crash goes to `fuzz/artifacts`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::Result;
use crate::workspace::{cargo, root, run};

/// Flags for coverage feedback and AddressSanitizer, as libFuzzer wants them.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Zsanitizer=address",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];
/// Sanitizers need the target named, or they would be put into build scripts too.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Largest single piece of memory that a target may ask for, in MiB. Inputs have some KiB.
const LARGEST: u32 = 64;

/// Seconds that all targets together take in `xtask test`. More targets get less each: CI must end.
const BUDGET: u64 = 180;

/// Arguments of `xtask fuzz`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Targets to run [default: all]
    targets: Vec<String>,
    /// Seconds per target
    #[arg(long, value_name = "N", conflicts_with = "hours")]
    seconds: Option<u64>,
    /// Hours per target
    #[arg(long, value_name = "N")]
    hours: Option<u64>,
}

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    let seconds = arguments.hours.map_or(arguments.seconds.unwrap_or(45), |hours| hours * 3600);
    for_seconds(&arguments.targets, seconds)
}

/// Seconds for each target, so that all of them take [`BUDGET`] seconds on this machine.
///
/// # Errors
/// When the targets cannot be listed.
pub fn share() -> Result<u64> {
    let count = targets()?.len().max(1).div_ceil(width()) as u64;
    Ok((BUDGET / count).max(1))
}

/// How many targets run at the same time.
fn width() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Fuzzes the named targets, or all, for so many seconds each; as many at once as there are cores.
///
/// # Errors
/// When a target does not exist, does not build, or crashed; every other one has then still run.
pub fn for_seconds(wanted: &[String], seconds: u64) -> Result<()> {
    let all = targets()?;
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        return Err(format!("there is no fuzz target {unknown}; there are: {}", all.join(", ")));
    }
    let chosen = if wanted.is_empty() { all } else { wanted.to_vec() };
    eprintln!("xtask: building the fuzz targets (AddressSanitizer)");
    build()?;
    eprintln!("xtask: fuzzing {} for {seconds} s each", chosen.join(", "));
    let width = width();
    let mut running: VecDeque<Running> = VecDeque::new();
    let mut failed = Vec::new();
    for name in chosen {
        if running.len() == width
            && let Some(first) = running.pop_front()
        {
            failed.extend(first.finish().err());
        }
        match Running::start(&name, seconds) {
            Ok(started) => running.push_back(started),
            Err(why) => failed.push(why),
        }
    }
    failed.extend(running.into_iter().filter_map(|target| target.finish().err()));
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ")) }
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

fn build() -> Result<()> {
    let mut command = cargo(&["build", "--release", "--quiet", "--bins", "--target", TARGET]);
    command.current_dir(root().join("fuzz")).arg("--target-dir").arg(root().join("fuzz/target"));
    // The encoded form keeps apart what a space would split; it replaces any RUSTFLAGS.
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    run(&mut command, "building the fuzz targets")
}

/// A target at work.
struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    fn start(name: &str, seconds: u64) -> Result<Self> {
        let fuzz = root().join("fuzz");
        let work = fuzz.join("target/work").join(name);
        let artifacts = fuzz.join("artifacts").join(name);
        let saved = fuzz.join("corpus").join(name);
        let fresh = work.join("corpus");
        let files = work.join("files");
        for directory in [&work, &artifacts, &fresh, &files] {
            std::fs::create_dir_all(directory)
                .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        }
        let log = work.join("log");
        let output = std::fs::File::create(&log);
        let output = output.map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        let mut command = Command::new(fuzz.join("target").join(TARGET).join("release").join(name));
        command.current_dir(&fuzz).arg(&fresh);
        if saved.is_dir() {
            command.arg(&saved);
        }
        command.arg(format!("-max_total_time={seconds}"));
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.env("TMPDIR", &files).arg(format!("-malloc_limit_mb={LARGEST}"));
        command.args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048", "-verbosity=1"]);
        if let Some(dictionary) = dictionary(&fuzz, name) {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        let stderr =
            output.try_clone().map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        command.stdin(Stdio::null()).stdout(output).stderr(stderr);
        let child = command.spawn().map_err(|error| format!("cannot start fuzz target {name}: {error}"))?;
        Ok(Running { name: name.to_owned(), child, log })
    }

    /// Waits for the end and reports.
    fn finish(mut self) -> Result<()> {
        let name = &self.name;
        let status = self.child.wait().map_err(|error| format!("cannot wait for {name}: {error}"))?;
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let executed = statistic(&log, "stat::number_of_executed_units:").unwrap_or("?");
        eprintln!("xtask: fuzz {name}: {executed} executions, {status}");
        if status.success() {
            return Ok(());
        }
        Err(format!("fuzz target {name} failed ({}):\n{}", self.log.display(), essence(&log)))
    }
}

/// What a log says about a crash: the panic or the sanitizer's verdict with the lines behind it, and
/// the name of the input.
fn essence(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let crash = |line: &&str| line.contains("panicked at") || line.contains("ERROR:");
    let from = lines.iter().position(crash).unwrap_or(lines.len().saturating_sub(20));
    let verdict = lines.iter().skip(from).take(12);
    let input = lines.iter().filter(|line| line.contains("artifact_prefix"));
    verdict.chain(input).flat_map(|line| [line, "\n"]).collect()
}

/// The dictionary of a target: one of its own, else the one of what it attacks.
fn dictionary(fuzz: &Path, name: &str) -> Option<PathBuf> {
    let room = match name.split('_').next().unwrap_or(name) {
        // The guard stands in front of the same documents.
        "guard" => "exec",
        room => room,
    };
    [name, room].iter().map(|stem| fuzz.join(format!("dictionaries/{stem}.dict"))).find(|path| path.is_file())
}

fn statistic<'a>(log: &'a str, name: &str) -> Option<&'a str> {
    log.lines().rev().find_map(|line| line.strip_prefix(name)).map(str::trim)
}
