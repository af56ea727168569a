//! Becoming the user, for good.
//!
//! A session process is started as a copy of the core. Before it touches any byte of a caller it
//! takes on the caller's groups and ids, gives up the ways back, and then tries whether they are
//! really closed. Only a process that fails to become root again goes on.

use std::io;

use rustix::fs::Mode;
use rustix::process::{DumpableBehavior, Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The umask of session processes.
const UMASK: u32 = 0o022;

/// Why the process did not become the user. It must then end.
#[derive(Debug, thiserror::Error)]
pub enum BecomeError {
    /// A system call failed.
    #[error("{0}: {1}")]
    System(&'static str, io::Error),
    /// The ids cannot be those of a user.
    #[error("{0} is no id of a user or group")]
    NoId(u32),
    /// The process is an ordinary user's and cannot become anybody else.
    #[error("running as uid {0}, cannot serve uid {1}")]
    NotRoot(u32, u32),
    /// Ids are a property of threads, so there must be only one.
    #[error("{0} threads run already")]
    Threads(usize),
    /// Something of root is left.
    #[error("the switch is not complete: {0}")]
    Incomplete(&'static str),
}

fn attempt<T, E: Into<io::Error>>(what: &'static str, result: Result<T, E>) -> Result<T, BecomeError> {
    result.map_err(|error| BecomeError::System(what, error.into()))
}

/// Makes this process one of the user; as an ordinary user only checks that it already is.
///
/// # Errors
/// [`BecomeError`]; the process may then be anything in between and must end.
pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Result<(), BecomeError> {
    let threads = attempt("counting threads", std::fs::read_dir("/proc/self/task"))?.count();
    if threads != 1 {
        return Err(BecomeError::Threads(threads));
    }
    let own = rustix::process::geteuid();
    if own.is_root() {
        switch(uid, gid, groups)?;
    } else if own.as_raw() != uid {
        return Err(BecomeError::NotRoot(own.as_raw(), uid));
    }
    attempt("setting no_new_privs", rustix::thread::set_no_new_privs(true))?;
    // The switch has reset this, so it comes after it: no process of the user may trace this one,
    // which holds sockets of other sessions and the way to the core.
    attempt(
        "making the process not dumpable",
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable),
    )?;
    rustix::process::umask(Mode::from_raw_mode(UMASK));
    attempt("going to /", rustix::process::chdir("/"))?;
    Ok(())
}

fn switch(uid: u32, gid: u32, groups: &[u32]) -> Result<(), BecomeError> {
    // The system calls take the largest number for "leave as it is": the process would stay root.
    if let Some(bad) = [uid, gid].iter().chain(groups).find(|id| **id == u32::MAX) {
        return Err(BecomeError::NoId(*bad));
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
    let all: Vec<Gid> = groups.iter().copied().map(Gid::from_raw).collect();
    attempt("setgroups", set_thread_groups(&all))?;
    attempt("setresgid", set_thread_res_gid(group, group, group))?;
    attempt("setresuid", set_thread_res_uid(user, user, user))?;
    verify(uid, gid, groups)
}

/// Looks at what the kernel says now, and tries to get back.
fn verify(uid: u32, gid: u32, groups: &[u32]) -> Result<(), BecomeError> {
    let sorted = |mut ids: Vec<u32>| {
        ids.sort_unstable();
        ids
    };
    let now = attempt("getgroups", rustix::process::getgroups())?;
    if sorted(now.into_iter().map(Gid::as_raw).collect()) != sorted(groups.to_vec()) {
        return Err(BecomeError::Incomplete("other groups"));
    }
    let status = attempt("reading /proc/self/status", std::fs::read_to_string("/proc/self/status"))?;
    for (label, id) in [("Uid:", uid), ("Gid:", gid)] {
        // Real, effective, saved and file system id.
        let line = status.lines().find_map(|line| line.strip_prefix(label)).unwrap_or_default();
        let ids: Vec<_> = line.split_whitespace().map(str::parse).collect();
        if ids != [Ok(id), Ok(id), Ok(id), Ok(id)] {
            return Err(BecomeError::Incomplete("an id is another one"));
        }
    }
    if uid == 0 {
        return Ok(());
    }
    let root = Uid::from_raw(0);
    if set_thread_res_uid(root, root, root).is_ok() || set_thread_res_uid(None, root, None).is_ok() {
        return Err(BecomeError::Incomplete("root can be had back"));
    }
    for set in [caps::CapSet::Permitted, caps::CapSet::Effective, caps::CapSet::Ambient] {
        if !caps::read(None, set).is_ok_and(|capabilities| capabilities.is_empty()) {
            return Err(BecomeError::Incomplete("a capability is left"));
        }
    }
    Ok(())
}
