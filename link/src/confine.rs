//! Walls around a process that reads what strangers send.
//!
//! Landlock takes away the file system, TCP connects and binds, abstract unix sockets and signals to
//! others; seccomp takes away every system call that is not on the process's own short list, and a call
//! that is not on it fails with EPERM. What all of them need is here, and how the
//! walls are made; what each needs beside that is its own business.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// The newest Landlock interface whose rights are denied; an older kernel denies what it knows.
const LANDLOCK: ABI = ABI::V7;

/// What every confined process needs, whatever it does: memory, time and chance, and its end.
pub const EVERYBODY: &[libc::c_long] = &[
    // Memory.
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_mremap,
    libc::SYS_munmap,
    // Time and chance.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_sched_yield,
    // The end.
    libc::SYS_close,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_restart_syscall,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
];

/// What a process needs beside that which serves sockets that it was given or accepts.
pub const SERVES_SOCKETS: &[libc::c_long] = &[
    libc::SYS_accept4,
    libc::SYS_fcntl,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_ioctl,
    libc::SYS_nanosleep,
    libc::SYS_read,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_write,
    libc::SYS_writev,
    // The reactor.
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
];

/// What could be closed, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Landlock is at least partly in force; false on a kernel without it.
    pub landlock: bool,
    /// The system call filter is in force.
    pub seccomp: bool,
}

/// Confines the calling process, which must still have one thread, to [`EVERYBODY`]'s, [`SERVES_SOCKETS`]' and these
/// system calls, on descriptors that it has. There is no way back.
///
/// # Errors
/// When the kernel refuses what it does support. A kernel without Landlock is not an error.
pub fn close(allowed: &[libc::c_long]) -> io::Result<Closed> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let landlock = close_landlock().map_err(io::Error::other)?;
    let allowed = [EVERYBODY, SERVES_SOCKETS, allowed].concat();
    seccompiler::apply_filter(&filter(&allowed)?).map_err(io::Error::other)?;
    Ok(Closed { landlock, seccomp: true })
}

fn close_landlock() -> Result<bool, landlock::RulesetError> {
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(LANDLOCK))?
        .handle_access(AccessNet::from_all(LANDLOCK))?
        .scope(Scope::from_all(LANDLOCK))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

/// The compiled system call filter.
fn filter(allowed: &[libc::c_long]) -> io::Result<BpfProgram> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let rules = allowed.iter().map(|&call| (call, Vec::new())).collect();
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, architecture);
    filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
}
