//! Other processes, by way of /proc: children, status fields, sockets, signals by process id.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// A process id as the kernel's interface wants it.
#[must_use]
pub fn pid(raw: u32) -> Pid {
    Pid::from_raw(raw.cast_signed()).expect("no process has id 0")
}

/// Sends a signal; a process that is gone already is no error.
pub fn signal(process: u32, signal: Signal) {
    let _ = kill_process(pid(process), signal);
}

/// Kills a process and waits until it is dead.
pub fn kill(process: u32) {
    signal(process, Signal::KILL);
    assert!(ends_within(process, Duration::from_secs(10)), "process {process} survived SIGKILL");
}

/// Whether a process ends before the limit; waits for that event and not for time to pass.
#[must_use]
pub fn ends_within(process: u32, limit: Duration) -> bool {
    let Ok(fd) = pidfd_open(pid(process), PidfdFlags::empty()) else { return true };
    let limit = Timespec::try_from(limit).expect("a short time");
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).expect("poll") > 0
}

/// Whether a process runs: it exists and is no zombie.
#[must_use]
pub fn runs(process: u32) -> bool {
    status(process, "State").is_some_and(|state| !state.starts_with(['Z', 'X']))
}

/// The living children of a process.
#[must_use]
pub fn children(process: u32) -> Vec<u32> {
    let mut all = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    all.retain(|child| runs(*child));
    all
}

/// The living children, their children, and so on.
#[must_use]
pub fn descendants(process: u32) -> Vec<u32> {
    let mut all = children(process);
    let mut next = 0;
    while let Some(&child) = all.get(next) {
        all.extend(children(child));
        next += 1;
    }
    all
}

/// The command line of a process, its words.
#[must_use]
pub fn words(process: u32) -> Vec<String> {
    let bytes = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// A field of `/proc/PID/status`, such as `Seccomp`, trimmed.
#[must_use]
pub fn status(process: u32, field: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The real, effective, saved and file-system user ids.
#[must_use]
pub fn uids(process: u32) -> Vec<u32> {
    let text = status(process, "Uid").unwrap_or_default();
    text.split_whitespace().map(|word| word.parse().expect("a number")).collect()
}

/// What the descriptors of a process point to, as the kernel names it (`socket:[4711]`, paths).
///
/// # Panics
/// When they may not be looked at: only root sees those of a process that is not dumpable.
#[must_use]
pub fn descriptors(process: u32) -> Vec<PathBuf> {
    let directory = std::fs::read_dir(format!("/proc/{process}/fd"));
    let forbidden = |error: &std::io::Error| error.kind() == std::io::ErrorKind::PermissionDenied;
    assert!(!directory.as_ref().is_err_and(forbidden), "the descriptors of {process} cannot be seen");
    directory
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| std::fs::read_link(entry.path()).ok())
        .collect()
}

/// The inodes of the sockets a process holds.
#[must_use]
pub fn socket_inodes(process: u32) -> BTreeSet<u64> {
    let names = descriptors(process).into_iter().filter_map(|path| path.to_str().map(str::to_owned));
    names.filter_map(|name| name.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()).collect()
}

/// One line of a socket table of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InetSocket {
    /// `tcp`, `tcp6`, `udp`, `udp6`, `raw`, `raw6`
    pub table: &'static str,
    /// State in hex; `0A` is LISTEN for TCP.
    pub state: String,
    /// Inode.
    pub inode: u64,
}

/// The network sockets (not unix, not netlink) that a process holds.
#[must_use]
pub fn network_sockets(process: u32) -> Vec<InetSocket> {
    let inodes = socket_inodes(process);
    let mut found = Vec::new();
    for table in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        let text = std::fs::read_to_string(format!("/proc/{process}/net/{table}")).unwrap_or_default();
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(state), Some(inode)) = (fields.get(3), fields.get(9)) else { continue };
            let inode: u64 = inode.parse().expect("a number");
            if inodes.contains(&inode) {
                found.push(InetSocket { table, state: (*state).to_owned(), inode });
            }
        }
    }
    found
}

/// Resident memory in bytes.
#[must_use]
pub fn resident(process: u32) -> u64 {
    let text = status(process, "VmRSS").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Time a process has spent on processors so far, all its threads.
#[must_use]
pub fn processor_time(process: u32) -> Duration {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanoseconds += text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_nanos(nanoseconds)
}
