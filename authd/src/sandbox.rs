//! The walls around the network child.
//!
//! It reads bytes from strangers, so it keeps only what it needs: sockets it was given, memory, a
//! clock, random numbers. Landlock takes away the file system, TCP connects and binds, abstract unix
//! sockets and signals; seccomp takes away every system call that is not on a short list, the one
//! that opens sockets among them. A call that is not on the list fails with EPERM.

use std::io;

pub use link::confine::Closed;

/// System calls of the network child after the sandbox is closed, beside those of everybody who serves sockets.
const OWN: &[libc::c_long] = &[
    // The pair of a TLS relay, and its figures in a page of memory that it was given.
    libc::SYS_readv,
    libc::SYS_setsockopt,
    libc::SYS_socketpair,
    libc::SYS_pwrite64,
    // Another reactor, and the library of TLS.
    libc::SYS_epoll_create1,
    libc::SYS_eventfd2,
    libc::SYS_gettimeofday,
];

/// Closes the sandbox around the calling process, which must still have one thread. There is no way
/// back.
///
/// # Errors
/// As [`link::confine::close`].
pub fn close() -> io::Result<Closed> {
    link::confine::close(OWN)
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
