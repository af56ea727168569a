//! Processes that a measurement starts: they say when they are ready, and end with us.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::Result;
use crate::workspace::installed;

/// How long a process may take to end after SIGTERM.
const STOP_LIMIT: Duration = Duration::from_secs(25);

/// A running process. It gets SIGTERM when this is dropped, or when this process dies.
#[derive(Debug)]
pub struct Child {
    name: String,
    process: std::process::Child,
    output: BufReader<ChildStdout>,
    log: PathBuf,
    stop_limit: Duration,
}

impl Child {
    /// Starts a program; what it says on standard error goes into a file of its own in `scratch`.
    ///
    /// Must be called by a thread that lives as long as the child shall.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(program: &Path, stdin: Stdio, arguments: &[&str], scratch: &Path) -> Result<Self> {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let said = |error: std::io::Error| format!("cannot start {name}: {error}");
        // setpriv becomes the program, which then gets the signal if we are killed.
        let mut command = if installed("setpriv") {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "TERM", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        let log = scratch.join(format!("{name}.log"));
        let errors = File::options().create(true).append(true).open(&log).map_err(said)?;
        command.args(arguments).process_group(0).stdin(stdin).stdout(Stdio::piped()).stderr(errors);
        let mut process = command.spawn().map_err(said)?;
        let output = process.stdout.take().ok_or("no standard output")?;
        Ok(Child { name, process, output: BufReader::new(output), log, stop_limit: STOP_LIMIT })
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Has nothing to lose: it is killed when it does not end soon after SIGTERM.
    pub fn expendable(mut self) -> Self {
        self.stop_limit = Duration::from_secs(3);
        self
    }

    /// Does something with the child that may not take longer than this; else the child is killed, which ends
    /// the waiting.
    ///
    /// # Errors
    /// As the work, or that it took too long.
    pub fn within<T>(&mut self, limit: Duration, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (done, wait) = std::sync::mpsc::channel::<()>();
        // Not waited for before the work is over, so the id is still its own.
        let pid = Pid::from_raw(self.process.id().cast_signed());
        std::thread::scope(|scope| {
            let watch = scope.spawn(move || {
                let late =
                    matches!(wait.recv_timeout(limit), Err(std::sync::mpsc::RecvTimeoutError::Timeout));
                if late && let Some(pid) = pid {
                    let _ = kill_process(pid, Signal::KILL);
                }
                late
            });
            let result = work(self);
            drop(done);
            match watch.join() {
                Ok(true) => Err(format!("{} took longer than {} s", self.name, limit.as_secs())),
                _ => result,
            }
        })
    }

    /// The next line of its standard output.
    ///
    /// # Errors
    /// When it ended instead; the text ends with the last lines of its log.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(length) if length > 0 => Ok(line.trim_end().to_owned()),
            Ok(_) | Err(_) => Err(self.ended()),
        }
    }

    /// Everything it writes until it ends, with success, within this time.
    ///
    /// # Errors
    /// When it fails.
    pub fn all_within(&mut self, limit: Duration) -> Result<Vec<u8>> {
        let bytes = self.within(limit, |child| {
            let mut bytes = Vec::new();
            let read = std::io::Read::read_to_end(&mut child.output, &mut bytes);
            read.map(|_| bytes).map_err(|error| error.to_string())
        })?;
        let success = self.process.wait().is_ok_and(|status| status.success());
        if success { Ok(bytes) } else { Err(self.ended()) }
    }

    /// Waits until something can be had from it.
    ///
    /// # Errors
    /// When it ends meanwhile, or nothing can be had for a minute.
    pub fn until<T>(&mut self, mut attempt: impl FnMut() -> std::io::Result<T>) -> Result<T> {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(error) if Instant::now() > limit => return Err(format!("{}: {error}", self.name)),
                Err(_) if matches!(self.process.try_wait(), Ok(Some(_))) => return Err(self.ended()),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// Closes its standard input and waits for its end.
    pub fn finish(mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }

    fn ended(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines.get(lines.len().saturating_sub(8)..).unwrap_or_default();
        format!("{} ended unexpectedly\n       {}", self.name, last.join("\n       "))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return;
        }
        // Not yet waited for, so the id is still its own.
        if let Some(pid) = Pid::from_raw(self.process.id().cast_signed()) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let limit = Instant::now() + self.stop_limit;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() > limit {
                if self.stop_limit == STOP_LIMIT {
                    eprintln!("xtask: {} did not end after SIGTERM and was killed", self.name);
                }
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
