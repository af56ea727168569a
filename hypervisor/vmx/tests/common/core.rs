//! A server core for one machine: starts the program `vmx` and speaks with it.

#![allow(dead_code)] // every test file uses its own part

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use hypervisor::control::{Begin, FromVmx, PowerMode, State, Status, ToVmx};
use link::Channel;

use super::common::PATIENCE;

/// The program and its channel.
pub struct Core {
    pub child: Child,
    pub channel: Channel<ToVmx, FromVmx>,
    pub config: PathBuf,
    /// Everything that was no answer.
    pub events: Vec<FromVmx>,
    next: u32,
}

/// Writes a .vmx with these lines into `directory`.
pub fn write_vmx(directory: &Path, lines: &str) -> PathBuf {
    let path = directory.join("acc.vmx");
    let text = format!("config.version = \"8\"\nvirtualHW.version = \"4\"\nmemsize = \"64\"\n{lines}");
    std::fs::write(&path, text).unwrap();
    path
}

impl Core {
    /// Starts the program for the machine at `config`, and asks it to begin.
    pub async fn start(config: &Path, begin: Begin) -> (Self, FromVmx) {
        Self::start_with(config, begin, None).await
    }

    /// As [`Core::start`], with a listening socket for adoption.
    pub async fn start_with(config: &Path, begin: Begin, listener: Option<OwnedFd>) -> (Self, FromVmx) {
        let (ours, theirs) = link::channel::pair().unwrap();
        let child =
            Command::new(env!("CARGO_BIN_EXE_vmx")).stdin(Stdio::from(theirs)).env_clear().spawn().unwrap();
        let channel = Channel::from_fd(ours).unwrap();
        let mut core = Core { child, channel, config: config.to_owned(), events: Vec::new(), next: 0 };
        assert!(matches!(core.receive().await, Some(FromVmx::Hello { version: 1, .. })));
        let kvm = File::options().read(true).write(true).open("/dev/kvm").unwrap();
        let log = File::options().create(true).append(true).open(config.with_extension("log")).unwrap();
        let file = File::open(config).unwrap();
        let request = core.number();
        let text = config.to_str().unwrap().to_owned();
        let message = ToVmx::Start { request, config: text, begin, firmware: String::new(), host: None };
        let mut fds = vec![kvm.as_fd(), file.as_fd(), log.as_fd()];
        fds.extend(listener.as_ref().map(AsFd::as_fd));
        core.channel.send(&message, &fds).await.unwrap();
        let answer = core.answer(request).await;
        (core, answer)
    }

    pub fn number(&mut self) -> u32 {
        self.next += 1;
        self.next
    }

    /// The next message; None at the end.
    pub async fn receive(&mut self) -> Option<FromVmx> {
        let received = tokio::time::timeout(PATIENCE, self.channel.recv()).await;
        let received = received.unwrap_or_else(|_| panic!("vmx is silent; so far: {:?}", self.events));
        received.unwrap().map(|(message, _)| message)
    }

    /// Waits for the answer to a request.
    pub async fn answer(&mut self, request: u32) -> FromVmx {
        loop {
            let message = self.receive().await;
            let message = message.unwrap_or_else(|| panic!("vmx has gone; so far: {:?}", self.events));
            let number = match &message {
                FromVmx::Done { request }
                | FromVmx::Failed { request, .. }
                | FromVmx::Output { request, .. }
                | FromVmx::Written { request, .. }
                | FromVmx::Picture { request, .. }
                | FromVmx::Value { request, .. }
                | FromVmx::IsNow { request, .. }
                | FromVmx::SnapshotMade { request, .. }
                | FromVmx::OneSnapshot { request, .. } => *request,
                _ => 0,
            };
            if number == request {
                return message;
            }
            self.events.push(message);
        }
    }

    /// Sends the request that `make` makes of a number, and waits for its answer.
    pub async fn ask(&mut self, make: impl FnOnce(u32) -> ToVmx) -> FromVmx {
        let request = self.number();
        self.channel.send(&make(request), &[]).await.unwrap();
        self.answer(request).await
    }

    /// As [`Core::ask`]; the answer must be Done.
    pub async fn must(&mut self, make: impl FnOnce(u32) -> ToVmx) {
        let answer = self.ask(make).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
    }

    pub async fn status(&mut self) -> Status {
        match self.ask(|request| ToVmx::GetStatus { request }).await {
            FromVmx::IsNow { status, .. } => status,
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the guest has sent `text` on its first serial port, from `*from` on; moves that behind.
    pub async fn expect(&mut self, from: &mut u64, text: &str) {
        let deadline = std::time::Instant::now() + PATIENCE;
        let mut output = Vec::new();
        let start = *from;
        let mut offset = start;
        while std::time::Instant::now() < deadline {
            let read = |request| ToVmx::SerialRead { request, port: 0, offset, max: 65_536, wait: 2000 };
            match self.ask(read).await {
                FromVmx::Output { bytes, offset: at, lost: 0, .. } => {
                    offset = at + bytes.len() as u64;
                    output.extend(bytes);
                }
                other => panic!("{other:?}"),
            }
            let found = output.windows(text.len()).position(|window| window == text.as_bytes());
            if let Some(place) = found {
                *from = start + (place + text.len()) as u64;
                return;
            }
        }
        panic!("no {text:?}, but {:?}", String::from_utf8_lossy(&output));
    }

    /// Types on the first serial port.
    pub async fn send(&mut self, text: &str) {
        let bytes = text.as_bytes().to_vec();
        let length = u32::try_from(bytes.len()).unwrap();
        let answer = self.ask(|request| ToVmx::SerialWrite { request, port: 0, bytes }).await;
        assert!(matches!(answer, FromVmx::Written { count, .. } if count == length), "{answer:?}");
    }

    /// What comes when the host goes down.
    pub fn terminate(&self) {
        let process = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
    }

    /// Waits for the end of the channel and of the process.
    pub async fn ended(mut self) -> (std::process::ExitStatus, Vec<FromVmx>) {
        while let Some(message) = self.receive().await {
            self.events.push(message);
        }
        let child = std::mem::replace(&mut self.child, Command::new("true").spawn().unwrap());
        let status = tokio::task::spawn_blocking(move || {
            let mut child = child;
            child.wait().unwrap()
        });
        (status.await.unwrap(), std::mem::take(&mut self.events))
    }

    pub async fn stop(mut self) -> Vec<FromVmx> {
        self.must(|request| ToVmx::Stop { request, mode: PowerMode::Hard }).await;
        let (status, events) = self.ended().await;
        assert!(status.success());
        events
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The changes of state among events.
pub fn changes(events: &[FromVmx]) -> Vec<(State, State)> {
    let change = |event: &FromVmx| match event {
        FromVmx::Changed { from, to, .. } => Some((*from, *to)),
        _ => None,
    };
    events.iter().filter_map(change).collect()
}

/// Waits until a file exists.
pub async fn exists(path: &Path) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !path.exists() {
        assert!(std::time::Instant::now() < deadline, "{}", path.display());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
