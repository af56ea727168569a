//! Faults in the system calls of a running process, by strace.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::{process, skip};

/// Whether faults can be injected; if not, says that the test is left out.
#[must_use]
pub fn need_strace(what: &str) -> bool {
    skip::need_root(what) && skip::need_program(what, "strace")
}

/// An strace attached to a process and all its threads; lets go with the value.
#[derive(Debug)]
pub struct Injected {
    target: u32,
    child: Child,
    calls: tempfile::NamedTempFile,
}

impl Injected {
    /// Attaches, and has what `inject` says (`fsync,fdatasync:error=EIO`) happen from now on.
    ///
    /// # Panics
    /// When strace does not attach; the message holds what it said.
    #[must_use]
    pub fn new(target: u32, inject: &str) -> Self {
        let calls = tempfile::NamedTempFile::new_in("/tmp").expect("room in /tmp");
        let mut command = Command::new("strace");
        let traced = inject.split(':').next().unwrap_or_default();
        command.args(["-f", "-e", &format!("trace={traced}"), "-e", &format!("inject={inject}")]);
        command.arg("-o").arg(calls.path()).args(["-p", &target.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("strace starts");
        let mut said = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        said.read_line(&mut line).expect("utf-8");
        assert!(line.contains("attached"), "strace: {line}");
        // More of it must not block strace.
        std::thread::spawn(move || std::io::copy(&mut said, &mut std::io::sink()));
        Injected { target, child, calls }
    }

    /// How many calls something was injected into so far.
    #[must_use]
    pub fn count(&self) -> usize {
        let text = std::fs::read(self.calls.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        text.matches("(INJECTED)").count() + text.matches("--- SIGSTOP {").count()
    }

    /// The names of the calls that were traced, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        let text = std::fs::read(self.calls.path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text).into_owned();
        // `4711 fsync(9) = 0`
        let name = |line: &str| Some(line.split_whitespace().nth(1)?.split_once('(')?.0.to_owned());
        text.lines().filter_map(name).collect()
    }

    /// Whether all threads of the process stand still.
    #[must_use]
    pub fn stopped(&self) -> bool {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.target)).into_iter().flatten().flatten();
        let state = |text: String| text.rsplit(')').next().and_then(|rest| rest.trim().chars().next());
        let states = tasks.map(|task| std::fs::read_to_string(task.path().join("stat")).ok().and_then(state));
        let states: Vec<_> = states.collect();
        !states.is_empty() && states.iter().all(|state| matches!(state, Some('T' | 't')))
    }

    /// Lets a process that stands still go on.
    pub fn go_on(&self) {
        process::signal(self.target, Signal::CONT);
    }
}

impl Drop for Injected {
    fn drop(&mut self) {
        // strace takes SIGINT as "let go".
        process::signal(self.child.id(), Signal::INT);
        let _ = self.child.wait();
        self.go_on();
    }
}
