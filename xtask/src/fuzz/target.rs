//! One run of one target.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use super::figures::Row;
use super::{build, corpus};
use crate::Result;
use crate::workspace::root;

/// Largest single piece of memory that a target may ask for, in MiB. Inputs have some KiB.
const LARGEST: u32 = 64;

/// Clock ticks per second in `/proc`: the kernel promises this number to programs.
const TICKS: f64 = 100.0;

/// When a run ends without a finding.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// Seconds of search.
    pub seconds: u64,
    /// Executions.
    pub executions: Option<u64>,
}

/// A target at work.
pub struct Running {
    name: String,
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Running {
    /// Starts a target: first the saved corpus, the seeds and what was found before, then the search.
    ///
    /// # Errors
    /// When a directory cannot be made, or the target cannot be started.
    pub fn start(name: &str, limit: &Limit) -> Result<Self> {
        let fuzz = root().join("fuzz");
        let work = corpus::work(name);
        let artifacts = fuzz.join("artifacts").join(name);
        let files = work.join("files");
        for directory in [&artifacts, &files] {
            std::fs::create_dir_all(directory)
                .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        }
        let log = work.join("log");
        let said = |error: std::io::Error| format!("cannot write {}: {error}", log.display());
        let output = std::fs::File::create(&log).map_err(said)?;
        let stderr = output.try_clone().map_err(said)?;
        let mut command = Command::new(build::binary(name));
        command.current_dir(&fuzz).args(corpus::directories(name)?);
        command.arg(format!("-max_total_time={}", limit.seconds));
        if let Some(executions) = limit.executions {
            command.arg(format!("-runs={executions}"));
        }
        command.arg(format!("-artifact_prefix={}/", artifacts.display()));
        command.env("TMPDIR", &files).arg(format!("-malloc_limit_mb={LARGEST}"));
        command.args(["-print_final_stats=1", "-timeout=10", "-rss_limit_mb=2048", "-verbosity=1"]);
        if let Some(dictionary) = corpus::dictionary(name) {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        command.stdin(Stdio::null()).stdout(output).stderr(stderr);
        let child = command.spawn().map_err(|error| format!("cannot start fuzz target {name}: {error}"))?;
        Ok(Running { name: name.to_owned(), child, log, started: Instant::now() })
    }

    /// Waits for the end, reports, and writes the figures down.
    ///
    /// # Errors
    /// When the target failed: what it said, and which input it was.
    pub fn finish(mut self) -> Result<Row> {
        let name = &self.name;
        let processor = ended(&self.child);
        let wall = self.started.elapsed();
        let status = self.child.wait().map_err(|error| format!("cannot wait for {name}: {error}"))?;
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (edges, features) = reached(&log);
        let row = Row {
            target: name.clone(),
            unix: now.saturating_sub(wall).as_secs(),
            processor: processor.unwrap_or(wall).as_secs_f64(),
            executions: executions(&log),
            edges,
            features,
            corpus: corpus::count(&corpus::found(name)),
            failed: !status.success(),
        };
        eprintln!(
            "xtask: fuzz {name}: {} executions in {:.0} s of processor time, {edges} edges, {status}",
            row.executions, row.processor
        );
        row.record()?;
        if status.success() {
            return Ok(row);
        }
        Err(format!("fuzz target {name} failed ({}):\n{}", self.log.display(), essence(&log)))
    }
}

/// Waits until a child has ended and says how much processor time it had. The kernel knows that as long as
/// nobody has fetched the child's status.
fn ended(child: &Child) -> Option<Duration> {
    let pid = Pid::from_child(child);
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    // Behind the name, which may hold anything: state is the first field, user and system time 12th and 13th.
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map_while(|field| field.parse::<u32>().ok());
    let ticks = times.next()? + times.next()?;
    Some(Duration::from_secs_f64(f64::from(ticks) / TICKS))
}

/// How many inputs were run.
fn executions(log: &str) -> u64 {
    let last = log.lines().rev().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    // A target that crashed prints no statistics: the number stands before its last line of progress.
    let progress = || log.lines().rev().find_map(|line| line.strip_prefix('#')?.split_whitespace().next());
    last.map(str::trim).or_else(progress).and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Edges and features that were reached, by the last line of progress.
fn reached(log: &str) -> (u64, u64) {
    let number =
        |line: &str, name: &str| line.split_once(name)?.1.split_whitespace().next()?.parse::<u64>().ok();
    log.lines()
        .rev()
        .filter(|line| line.starts_with('#'))
        .find_map(|line| Some((number(line, " cov: ")?, number(line, " ft: ")?)))
        .unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "INFO: Seed: 1\n#2\tINITED cov: 11 ft: 12 corp: 1/1b exec/s: 0 rss: 40Mb\n\
        #4096\tpulse  cov: 14 ft: 19 corp: 4/9b lim: 4 exec/s: 2048 rss: 41Mb\n";

    #[test]
    fn a_log_tells_how_far_a_target_came() {
        assert_eq!((executions(LOG), reached(LOG)), (4096, (14, 19)));
        let ended = format!("{LOG}Done 9000 runs in 2 second(s)\nstat::number_of_executed_units: 9000\n");
        assert_eq!((executions(&ended), reached(&ended)), (9000, (14, 19)));
        assert_eq!((executions(""), reached("")), (0, (0, 0)));
    }

    #[test]
    fn a_log_tells_what_the_crash_was() {
        let log =
            format!("{LOG}thread panicked at x.rs:1:\nno\nTest unit written to artifact_prefix='a/'; b\n");
        assert_eq!(essence(&log).lines().next(), Some("thread panicked at x.rs:1:"));
        assert!(essence(&log).contains("; b"));
    }

    #[test]
    fn the_time_of_a_child_is_known_when_it_has_ended() {
        let work = "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done";
        let mut child = Command::new("sh").args(["-c", work]).spawn().unwrap();
        let time = ended(&child).unwrap();
        child.wait().unwrap();
        assert!(time > Duration::ZERO && time < Duration::from_secs(60), "{time:?}");
    }
}
