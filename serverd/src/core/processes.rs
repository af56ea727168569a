//! Starting and watching session processes.
//!
//! ```text
//!   spawn ──▶ child ── fd 0 ── SOCK_SEQPACKET pair ── channel
//!     │                                                  │
//!     ├─ watch:  child has exited ──────▶ Event          ├─ listen: message, end ──▶ Event
//!     │          kill, when told                         └─ outbox: what the core says
//!     └─ counter page
//! ```
//!
//! This file only moves things between the process and the core's queue of events; what a message
//! means is decided in [`super::supervisor`].

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use link::Channel;
use link::channel::Outbox;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, mpsc};

use super::Event;
use super::journal::Owner;
use crate::channel::{ToCore, ToSession};

/// Messages that may wait for a process that does not read. Every session on its way is one.
const WAITING_MESSAGES: usize = 16 * 1024;

/// How long a process may take to exit after it has closed its channel.
const EXIT_WITHIN: Duration = Duration::from_secs(2);

/// The core's number for a session process; never used twice.
pub type ProcessId = u64;

/// What a session process tells the core, by deed or by message.
#[derive(Debug)]
pub enum ProcessEvent {
    /// A message, with its descriptors.
    Message(ToCore, Vec<OwnedFd>),
    /// It has closed its end of the channel; the error when it broke it instead.
    ChannelEnded(io::Result<()>),
    /// It has exited; the text says how.
    Exited(String),
}

/// The handles of a running session process.
#[derive(Debug)]
pub struct Handles {
    /// Process id.
    pub pid: u32,
    /// Messages to it.
    pub outbox: Outbox<ToSession>,
    /// Raised to end it; whoever watches the process does the rest.
    pub(super) kill: Arc<Notify>,
}

impl Handles {
    /// Ends the process now, by SIGKILL.
    pub fn kill(&self) {
        self.kill.notify_one();
    }

    /// Ends the process unless it does so itself within two seconds.
    pub fn kill_later(&self) {
        let kill = Arc::clone(&self.kill);
        tokio::spawn(async move {
            tokio::time::sleep(EXIT_WITHIN).await;
            kill.notify_one();
        });
    }
}

/// Starts a session process and the tasks that watch it.
///
/// # Errors
/// As `socketpair(2)`, `fork(2)` and `execve(2)`.
pub fn spawn(id: ProcessId, owner: &Owner, events: &mpsc::Sender<Event>) -> io::Result<Handles> {
    let (ours, theirs) = link::channel::pair()?;
    let channel = Arc::new(Channel::<ToSession, ToCore>::from_fd(ours)?);
    // The program that runs now, even when its file has been replaced since.
    let child = Command::new("/proc/self/exe")
        .arg0("vmserverd")
        .arg("session")
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("LANG", "C.UTF-8")
        .env("USER", &owner.name)
        .env("LOGNAME", &owner.name)
        .env("HOME", &owner.home)
        .current_dir("/")
        // Signals of a terminal are for the core, which then says what to do.
        .process_group(0)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let pid = child.id().unwrap_or_default();
    let kill = Arc::new(Notify::new());
    let outbox = Outbox::new(WAITING_MESSAGES);
    tokio::spawn(watch(id, child, Arc::clone(&kill), events.clone()));
    tokio::spawn(listen(id, Arc::clone(&channel), events.clone()));
    // When the process is gone, listening says so; a failed write adds nothing.
    tokio::spawn(outbox.clone().run(channel));
    Ok(Handles { pid, outbox, kill })
}

/// Waits for the end of the process, and brings it about when told.
async fn watch(id: ProcessId, mut child: Child, kill: Arc<Notify>, events: mpsc::Sender<Event>) {
    let status = loop {
        tokio::select! {
            status = child.wait() => break status,
            () = kill.notified() => {
                // Only fails when the process has just exited, which the next turn will see.
                let _ = child.start_kill();
            }
        }
    };
    let text = match status {
        Ok(status) => status.to_string(),
        Err(error) => format!("unknown end: {error}"),
    };
    let _ = events.send(Event::Process(id, ProcessEvent::Exited(text))).await;
}

/// Passes on messages until the channel ends.
async fn listen(id: ProcessId, channel: Arc<Channel<ToSession, ToCore>>, events: mpsc::Sender<Event>) {
    let mut reset = false;
    let end = loop {
        match channel.recv().await {
            Ok(Some((message, fds))) => {
                if events.send(Event::Process(id, ProcessEvent::Message(message, fds))).await.is_err() {
                    return;
                }
            }
            Ok(None) => break Ok(()),
            // A process that dies with unread messages resets the channel. The kernel reports that
            // once, ahead of what the process had sent before.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !reset => reset = true,
            Err(error) => break Err(error),
        }
    };
    let _ = events.send(Event::Process(id, ProcessEvent::ChannelEnded(end))).await;
}
