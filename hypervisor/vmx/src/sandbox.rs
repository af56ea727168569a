//! The walls around a machine: no new privileges, and short lists of system calls.
//!
//! A guest that breaks out of a chip lands on a processor's thread: that one may not open a file, make
//! a socket or start a program. The other threads may open files (suspending, snapshots, CD images), as
//! the owner of the machine; they cannot make network sockets or start programs either. A call that is
//! not on the list fails with EPERM.

use std::io;

use link::confine::{EVERYBODY, SERVES_SOCKETS};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

/// What a processor's thread needs beside [`EVERYBODY`]'s: KVM, the open disks, the other threads.
const PROCESSOR: &[libc::c_long] = &[
    libc::SYS_ioctl,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fstat,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_lseek,
    libc::SYS_sched_getaffinity,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
];

/// What the other threads need beside that and [`SERVES_SOCKETS`], which is the control channel: files by name,
/// threads.
const OTHERS: &[libc::c_long] = &[
    libc::SYS_open,
    libc::SYS_openat,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_linkat,
    libc::SYS_readlink,
    libc::SYS_readlinkat,
    libc::SYS_mkdirat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fstatfs,
    libc::SYS_statfs,
    libc::SYS_flock,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_fgetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_fremovexattr,
    libc::SYS_copy_file_range,
    libc::SYS_umask,
    libc::SYS_geteuid,
    libc::SYS_getuid,
    libc::SYS_getegid,
    libc::SYS_getgid,
    libc::SYS_readv,
    libc::SYS_dup,
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_prctl,
    libc::SYS_seccomp,
    libc::SYS_prlimit64,
    libc::SYS_sched_setaffinity,
    libc::SYS_sysinfo,
    libc::SYS_gettimeofday,
];

/// Closes the walls around the whole process. To be called while it has one thread: threads made later
/// inherit them.
///
/// # Errors
/// When the kernel refuses.
pub fn close_process() -> io::Result<()> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    apply(&[EVERYBODY, PROCESSOR, SERVES_SOCKETS, OTHERS].concat(), true)
}

/// Closes the narrower walls around the calling thread, a processor's.
///
/// # Errors
/// When the kernel refuses.
pub fn close_processor() -> io::Result<()> {
    apply(&[EVERYBODY, PROCESSOR].concat(), false)
}

fn apply(calls: &[libc::c_long], threads: bool) -> io::Result<()> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH).map_err(io::Error::other)?;
    let mut rules: std::collections::BTreeMap<_, Vec<SeccompRule>> =
        calls.iter().map(|&call| (call, Vec::new())).collect();
    if threads {
        // clone: threads, never processes.
        let thread = libc::CLONE_THREAD as u64;
        let flag = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(thread), thread);
        let rule = flag.and_then(|flag| SeccompRule::new(vec![flag])).map_err(io::Error::other)?;
        rules.insert(libc::SYS_clone, vec![rule]);
        // clone3 keeps its flags in memory, where a filter cannot see them: it does not exist, and the
        // C library falls back to clone.
    }
    let denied = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let filter = SeccompFilter::new(rules, denied, SeccompAction::Allow, architecture);
    let program = filter.and_then(BpfProgram::try_from).map_err(io::Error::other)?;
    if threads {
        // The C library falls back from clone3 only for ENOSYS.
        let rules = std::collections::BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        let missing = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, missing, architecture);
        let first = filter.and_then(BpfProgram::try_from).map_err(io::Error::other)?;
        // Of several filters that return an error number, the newest one's counts.
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
        return seccompiler::apply_filter(&first).map_err(io::Error::other);
    }
    seccompiler::apply_filter(&program).map_err(io::Error::other)
}
