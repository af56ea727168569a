//! The walls around the network child.
//!
//! It reads bytes from strangers, so it keeps only what it needs: sockets it was given, memory, a
//! clock, random numbers. Landlock takes away the file system, TCP connects and binds, abstract unix
//! sockets and signals; seccomp takes away every system call that is not on a short list, the one
//! that opens sockets among them. A call that is not on the list fails with EPERM.

use std::io;

use landlock::{
    ABI, Access, AccessFs, AccessNet, CompatLevel, Compatible, Ruleset, RulesetAttr, RulesetStatus, Scope,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch};

/// The newest Landlock interface whose rights we deny; an older kernel denies what it knows.
const LANDLOCK: ABI = ABI::V7;

/// System calls of the network child after the sandbox is closed.
const ALLOWED: &[libc::c_long] = &[
    // Sockets it was given or accepts, and the pair of a TLS relay.
    libc::SYS_accept4,
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_ioctl,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
    libc::SYS_write,
    libc::SYS_writev,
    // The reactor.
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    libc::SYS_eventfd2,
    libc::SYS_futex,
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
    libc::SYS_getrandom,
    libc::SYS_gettimeofday,
    libc::SYS_nanosleep,
    libc::SYS_sched_yield,
    // The end.
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

/// What could be closed, for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Landlock is at least partly in force; false on a kernel without it.
    pub landlock: bool,
    /// The system call filter is in force.
    pub seccomp: bool,
}

/// Closes the sandbox around the calling process, which must still have one thread. There is no way
/// back.
///
/// # Errors
/// When the kernel refuses what it does support. A kernel without Landlock is not an error.
pub fn close() -> io::Result<Closed> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let landlock = close_landlock().map_err(io::Error::other)?;
    seccompiler::apply_filter(&filter()?).map_err(io::Error::other)?;
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
fn filter() -> io::Result<BpfProgram> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let rules = ALLOWED.iter().map(|&call| (call, Vec::new())).collect();
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, architecture);
    filter.and_then(BpfProgram::try_from).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sandbox is for a whole process, so the test closes it around a child: this test program
    /// again, with one test selected.
    #[test]
    fn nothing_outside_can_be_reached_from_inside() {
        const INSIDE: &str = "VMSERVERD_TEST_INSIDE_SANDBOX";
        if std::env::var_os(INSIDE).is_none() {
            let program = std::env::current_exe().unwrap();
            let name = "sandbox::tests::nothing_outside_can_be_reached_from_inside";
            let output = std::process::Command::new(program)
                .args([name, "--exact", "--test-threads=1", "--nocapture"])
                .env(INSIDE, "1")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.contains("all closed"), "{text}");
            return;
        }
        // The test harness runs this on a second thread; the filter holds for the calling thread.
        let (mine, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let closed = close().unwrap();
        assert!(closed.seccomp);
        if closed.landlock {
            assert!(std::fs::File::open("/etc/passwd").is_err());
        }
        assert!(std::net::TcpStream::connect("127.0.0.1:1").unwrap_err().raw_os_error() == Some(libc::EPERM));
        assert!(std::fs::File::open("/etc/passwd").is_err());
        assert!(std::process::Command::new("/bin/true").status().is_err());
        assert!(
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).is_err()
        );
        // What it was given still works.
        rustix::io::write(&mine, b"x").unwrap();
        println!("all closed");
    }
}
