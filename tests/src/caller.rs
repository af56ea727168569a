//! Callers with another user id: processes of their own, made from `src/bin/caller.rs`.

use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::client::{Client, Tap};
use crate::{Account, Instance};

/// Starts processes of one user that call one instance.
#[derive(Debug, Clone)]
pub struct Caller {
    program: PathBuf,
    uid: u32,
    gid: u32,
    socket: PathBuf,
    plain: u16,
}

impl Caller {
    /// A caller that runs as an account. Needs root. `program` is the path of the helper, which a
    /// test gets by `env!("CARGO_BIN_EXE_caller")`.
    #[must_use]
    pub fn new(program: &str, instance: &Instance, account: &Account) -> Self {
        Caller {
            program: instance.public_copy(program.as_ref()),
            uid: account.uid,
            gid: account.gid,
            socket: instance.socket(),
            plain: instance.plain,
        }
    }

    /// A command of the helper, to run as the account.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.uid(self.uid).gid(self.gid).args(arguments).env_clear().current_dir("/");
        command
    }

    /// A connection to the unix socket, made by a process of the account; its banner is read.
    #[must_use]
    pub fn unix(&self) -> Client {
        let socket = self.socket.to_str().expect("a path in /tmp").to_owned();
        self.relayed(&["relay", "unix", &socket])
    }

    /// A connection to the plain port, made by a process of the account; its banner is read.
    #[must_use]
    pub fn tcp(&self) -> Client {
        self.relayed(&["relay", "tcp", &self.plain.to_string()])
    }

    fn relayed(&self, arguments: &[&str]) -> Client {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the helper");
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().expect("piped"));
        Client::new(Tap::Piped(Piped { child, stdin, stdout })).greeted()
    }

    /// Uses a socket that somebody else made: sends each line and returns the replies.
    #[must_use]
    pub fn ask_over(&self, socket: OwnedFd, lines: &[&str]) -> Vec<String> {
        let mut arguments = vec!["ask"];
        arguments.extend(lines);
        let output = self.command(&arguments).stdin(socket).output().expect("the helper");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    }
}

/// The two pipes to a process that relays, and the process.
#[derive(Debug)]
pub struct Piped {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
}

impl Piped {
    pub(crate) fn reader(&self) -> BorrowedFd<'_> {
        self.stdout.as_fd()
    }

    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.stdout.read(buffer)
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.stdin {
            Some(stdin) => stdin.write_all(bytes),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        }
    }

    pub(crate) fn end_sending(&mut self) {
        self.stdin = None;
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
