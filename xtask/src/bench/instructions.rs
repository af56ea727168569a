//! P21: processor instructions that one `inc` costs the session process; and the same for reading a request.
//!
//! ```text
//!   this program, as the core      vmserverd session, under callgrind
//!     Start, Session + socket ───▶
//!     inc ───────────────────────▶  N times, then 2 N times in a second process
//!     ◀─────────────────────────── the difference by N: no start-up, no end
//! ```
//!
//! The program is the one that is installed, and its request path the whole one: the wake-up, the read, guard,
//! envelope, rights, handler, figures, reply, write. Only instructions in user space count, so the figure does
//! not depend on what else the machine does. It depends on the compiler, on the C library, and on which of
//! their routines the processor can run: the record names them, and the C library is held to its plain ones.
//!
//! The next question is sent when the process sleeps again. Otherwise it would now and then find one waiting,
//! and save a turn.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use link::Channel;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use serde_json::{Value, json};
use serverd::channel::{ToCore, ToSession};
use serverd::core::counter::Counter;

use crate::Result;
use crate::bench::client::Exchange;
use crate::bench::facts;
use crate::bench::load::Caller;
use crate::bench::report::{Against, Line, Outcome, Target};
use crate::bench::{Bench, parse};
use crate::skip::skipped;
use crate::workspace::{installed, root};

/// Instructions of a whole request.
pub static P21: Target = Target {
    id: "P21",
    what: "instructions of the session process for one inc, beside the recorded figure",
    unit: "instructions",
    digits: 0,
    more: false,
    lines: &[Line { against: Against::Bound, pass: Some(MOST), stretch: None }],
};

/// What a figure may be, as a multiple of the recorded one.
const MOST: f64 = 1.03;
/// Requests of the first process; the second gets twice as many.
const REQUESTS: usize = 400;
/// The same for reading requests, of which each costs less.
const READS: usize = 1000;
/// P20's pass line, in instructions: 500 ns, drawn where the bare event loop took 303.
const READ_MOST: f64 = 500.0 / 303.0;
/// No run under callgrind takes this long.
const PATIENCE: Duration = Duration::from_secs(120);
/// Larger than the page in which the core publishes its news.
const PAGE: u64 = 4096;
/// Routines of the C library that not every processor has; without them it takes the same ones everywhere.
const PLAIN: &str =
    "GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-AVX512BW,-ERMS,-FSRM,-EVEX";

/// Where the recorded figures are.
fn record_path() -> PathBuf {
    root().join("docs/performance/instructions.json")
}

/// What was counted.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// One `inc` in the session process.
    inc: f64,
    /// Guard, framing, envelope and typed request of P20.
    read: f64,
    /// The bare event loop over the same bytes.
    bare: f64,
}

/// Why instructions cannot be counted here, or `None`.
pub fn missing() -> Option<String> {
    let flags = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !installed("valgrind") {
        Some("valgrind is not installed (apt-get install valgrind)".to_owned())
    } else if !cfg!(target_arch = "x86_64") || !flags.contains(" avx2") {
        // Searching for bytes takes other routines there, which nobody has recorded.
        Some("the recorded figures are those of an x86-64 processor with AVX2".to_owned())
    } else {
        None
    }
}

/// P21.
///
/// # Errors
/// When a run fails.
pub fn requests(bench: &mut Bench) -> Result<Vec<Outcome>> {
    if let Some(why) = missing() {
        skipped("P21", &why);
        return Ok(Vec::new());
    }
    let counts = count(bench.bin_dir(), bench.scratch())?;
    let notes = vec![
        "user space only; the difference of two processes, of which one got twice as many requests"
            .to_owned(),
        counts.read_note(),
    ];
    let recorded = recorded("inc").map(|figure| vec![figure]);
    Ok(vec![Outcome { target: &P21, ours: vec![counts.inc], peer: None, bound: Some(recorded), notes }])
}

/// Counts everything.
///
/// # Errors
/// When a run fails.
pub fn count(bin_dir: &Path, scratch: &Path) -> Result<Counts> {
    let program = bin_dir.join("vmserverd");
    let inc = per_one(REQUESTS, |count| serve(&program, scratch, count))?;
    let read = per_one(READS, |count| read_requests("ours", scratch, count))?;
    let bare = per_one(READS, |count| read_requests("bare", scratch, count))?;
    Ok(Counts { inc, read, bare })
}

impl Counts {
    /// For the reader: all of it.
    pub fn describe(&self) -> String {
        format!("inc {:.0} instructions; {}", self.inc, self.read_note())
    }

    /// For the reader: P20 in instructions.
    fn read_note(&self) -> String {
        let Counts { read, bare, .. } = self;
        format!("reading a request of 100 bytes: {read:.0}, bare events {bare:.0}, {:.2} x", read / bare)
    }

    /// Compares with the record and with P20's line; the lines to print, and whether all is well.
    ///
    /// # Errors
    /// When there is no record.
    pub fn gate(&self) -> Result<(Vec<String>, bool)> {
        let mut well = true;
        let mut lines = Vec::new();
        for (id, name, now) in [("P21", "inc", self.inc), ("P20", "read", self.read)] {
            let before = recorded(name)?;
            let good = now <= before * MOST;
            well &= good;
            lines.push(format!(
                "{id} {name}: {now:.0} instructions, recorded {before:.0}: {:+.2} %, at most {:+.0} %: {}",
                (now / before - 1.0) * 100.0,
                (MOST - 1.0) * 100.0,
                if good { "PASS" } else { "MISS" }
            ));
            if now < before / MOST {
                lines.push(format!("{id} has become cheaper: record it, or the gate lets it grow back"));
            }
        }
        let ratio = self.read / self.bare;
        let good = ratio <= READ_MOST;
        lines.push(format!(
            "P20 read: {ratio:.2} x the bare events, at most {READ_MOST:.2} x: {}",
            if good { "PASS" } else { "MISS" }
        ));
        if !well {
            let made = load()?.get("rustc").and_then(Value::as_str).unwrap_or("?").to_owned();
            lines.push(format!("recorded with {made}; this is {}", facts::rustc()));
            lines.push(
                "if the cost is meant: cargo xtask bench P21 --record \"why\", and commit docs/performance/instructions.json"
                    .to_owned(),
            );
        }
        Ok((lines, well && good))
    }

    /// Makes these the figures that later ones are compared with.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn record(&self, reason: &str) -> Result<()> {
        let text = json!({
            "inc": self.inc.round(),
            "read": self.read.round(),
            "bare": self.bare.round(),
            "reason": reason,
            "date": facts::date(),
            "rustc": facts::rustc(),
            "libc": facts::libc(),
            "processor": "x86-64 with AVX2",
        });
        let path = record_path();
        std::fs::write(&path, format!("{text:#}\n"))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

fn load() -> Result<Value> {
    let path = record_path();
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn recorded(name: &str) -> Result<f64> {
    let figure = load()?.get(name).and_then(Value::as_f64);
    figure.ok_or_else(|| format!("{} has no {name}", record_path().display()))
}

/// What one more costs: the difference of `count` and twice as many.
fn per_one(count: usize, run: impl Fn(usize) -> Result<f64>) -> Result<f64> {
    let once = run(count)?;
    Ok((run(2 * count)? - once) / count as f64)
}

/// A command that runs `program` under callgrind, and where the counts will be.
fn callgrind(program: &Path, scratch: &Path) -> (Command, PathBuf) {
    let counts = scratch.join("callgrind.out");
    let mut command = Command::new("env");
    // The environment lies on the stack; with the same one everywhere it moves nothing.
    command.args(["-i", "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C.UTF-8", PLAIN]);
    command.args(["setpriv", "--pdeathsig", "KILL", "--", "valgrind", "--quiet", "--tool=callgrind"]);
    command.arg(format!("--callgrind-out-file={}", counts.display())).arg(program);
    (command, counts)
}

/// The sum that callgrind wrote.
fn sum(path: &Path) -> Result<f64> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let _ = std::fs::remove_file(path);
    let line = text.lines().find_map(|line| line.strip_prefix("summary:").or(line.strip_prefix("totals:")));
    let sum = line.and_then(|line| line.trim().parse::<f64>().ok());
    sum.ok_or_else(|| format!("{} has no sum", path.display()))
}

/// Instructions of a process of this program that reads so many requests.
fn read_requests(what: &str, scratch: &Path, count: usize) -> Result<f64> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find xtask: {error}"))?;
    let (mut command, counts) = callgrind(&program, scratch);
    let output = command.args(["bench", "--serve", "read", what, &count.to_string()]).output();
    let output = output.map_err(|error| format!("valgrind: {error}"))?;
    if !output.status.success() {
        return Err(format!("valgrind: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    sum(&counts)
}

/// The workload of [`read_requests`].
///
/// # Errors
/// When the words are not understood.
pub fn read(words: &[&str]) -> Result<()> {
    match words {
        [what, count] => parse::repeat(what, count.parse().map_err(|_| "no number")?),
        _ => Err("read WHAT COUNT".to_owned()),
    }
}

/// Instructions of a session process that answers so many `inc`.
fn serve(program: &Path, scratch: &Path, count: usize) -> Result<f64> {
    let said = |what: &'static str| move |error: std::io::Error| format!("P21: {what}: {error}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(said("no runtime"))?;
    let _inside = runtime.enter();
    let (ours, theirs) = link::channel::pair().map_err(said("no channel"))?;
    let channel = Channel::<ToSession, ToCore>::from_fd(ours).map_err(said("no channel"))?;
    let (mut command, counts) = callgrind(program, scratch);
    let log = std::fs::File::create(scratch.join("callgrind.log")).map_err(said("no log"))?;
    command.arg("session").stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(log);
    let mut process = Running(command.spawn().map_err(said("valgrind"))?);
    drop(command);
    let asked = (|| {
        let news = memfd_create("news", MemfdFlags::CLOEXEC)?;
        ftruncate(&news, PAGE)?;
        let counter = Counter::new()?.share()?;
        let (caller, socket) = UnixStream::pair()?;
        caller.set_read_timeout(Some(PATIENCE))?;
        let session = ToSession::Session {
            number: 1,
            name: "bench".into(),
            home: "/".into(),
            early: Vec::new(),
            machine: None,
        };
        runtime.block_on(async {
            channel.send(&start(), &[counter.as_fd(), news.as_fd()]).await?;
            channel.send(&session, &[socket.as_fd()]).await
        })?;
        drop(socket);
        let mut exchange = Exchange::new(caller);
        for _ in 0..count {
            exchange.call()?;
            process.sleeps()?;
        }
        Ok(())
    })();
    asked.map_err(|error: std::io::Error| {
        let log = std::fs::read_to_string(scratch.join("callgrind.log")).unwrap_or_default();
        format!("P21: {error}\n       {}", log.trim())
    })?;
    // Without its core a session process ends by itself.
    drop(channel);
    process.ended()?;
    sum(&counts)
}

/// A session of the user who runs the bench, in a process without any rights to give up.
fn start() -> ToSession {
    let groups = rustix::process::getgroups().unwrap_or_default();
    ToSession::Start {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: groups.into_iter().map(rustix::process::Gid::as_raw).collect(),
        admin: false,
        title: "VMware GSX Server".into(),
        version: "1.0".into(),
        build: "1".into(),
        product_number: 4,
        idle: 600,
        historic_bugs: false,
        level: 3,
        root: "/nonexistent".into(),
        event_logs: "/nonexistent".into(),
        // As every server has it that nobody has told otherwise.
        audit: link::settings::AuditLevel::default() as u8,
    }
}

/// A process that is killed when this is dropped.
struct Running(std::process::Child);

impl Running {
    /// Waits until it sleeps: then it has done everything that the last request gave it to do.
    fn sleeps(&self) -> std::io::Result<()> {
        let path = format!("/proc/{}/stat", self.0.id());
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            let text = std::fs::read_to_string(&path)?;
            if text.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S')) {
                return Ok(());
            }
            std::thread::yield_now();
        }
        Err(std::io::Error::other("the session process does not come to rest"))
    }

    fn ended(&mut self) -> Result<()> {
        let limit = Instant::now() + PATIENCE;
        while Instant::now() < limit {
            match self.0.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(format!("P21: the session process failed: {status}")),
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(format!("P21: {error}")),
            }
        }
        Err("P21: the session process does not end".to_owned())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
