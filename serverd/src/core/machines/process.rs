//! Starting machine processes, finding those of an earlier core, and watching both.
//!
//! This file only moves things between the process and the core's queue of events; what a message
//! means is decided in [`super::requests`].

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ::link::{Channel, Outbox};
use hypervisor::control::{FromVmx, Status, ToVmx, VERSION};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::process::Command;
use tokio::sync::{Notify, mpsc};

use super::launch::{Orders, VARIABLE};
use super::records::Record;
use super::usage::stat_field;
use crate::core::Event;

/// Messages that may wait for a machine that does not read.
const WAITING_MESSAGES: usize = 1024;

/// How long a process may take to be `vmx`, and to say so.
const HELLO_WITHIN: Duration = Duration::from_secs(30);

/// How long a process may take to exit after it has closed its channel: disks are flushed then.
const EXIT_WITHIN: Duration = Duration::from_secs(30);

/// How long a machine that is found again may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Messages of a machine that is found again, before it has answered.
const MAX_EARLY: usize = 256;

/// The core's number for a run of a machine; never used twice.
pub type MachineId = u64;

/// What a machine process tells the core, by deed or by message.
#[derive(Debug)]
pub enum MachineEvent {
    /// A message, with its descriptors.
    Message(FromVmx, Vec<OwnedFd>),
    /// Its end of the channel is closed; the error when it broke it instead.
    ChannelEnded(io::Result<()>),
    /// It has exited; the text says how.
    Exited(String),
    /// It has had time enough to say hello.
    HelloLate,
    /// Time to look how it is.
    Look,
}

/// The handles of a machine process.
#[derive(Debug)]
pub struct Handles {
    /// Process id.
    pub pid: u32,
    /// Messages to it.
    pub outbox: Outbox<ToVmx>,
    kill: Arc<Notify>,
    close: Arc<Notify>,
}

impl Handles {
    /// Ends the process now, by SIGKILL.
    pub fn kill(&self) {
        self.kill.notify_one();
    }

    /// Closes the channel.
    pub fn close(&self) {
        self.outbox.close();
        self.close.notify_one();
    }

    /// Ends the process unless it does so itself.
    pub fn kill_later(&self) {
        let kill = Arc::clone(&self.kill);
        tokio::spawn(async move {
            tokio::time::sleep(EXIT_WITHIN).await;
            kill.notify_one();
        });
    }
}

/// A machine process that is not watched yet.
struct Parts {
    handles: Handles,
    channel: Arc<Channel<ToVmx, FromVmx>>,
}

impl Parts {
    fn new(pid: u32, channel: Channel<ToVmx, FromVmx>) -> Self {
        let outbox = Outbox::new(WAITING_MESSAGES);
        let (kill, close) = (Arc::default(), Arc::default());
        Parts { handles: Handles { pid, outbox, kill, close }, channel: Arc::new(channel) }
    }

    fn listen(self, id: MachineId, events: &mpsc::Sender<Event>) -> Handles {
        let Parts { handles, channel } = self;
        tokio::spawn(listen(id, Arc::clone(&channel), Arc::clone(&handles.close), events.clone()));
        tokio::spawn(handles.outbox.clone().run(channel));
        handles
    }
}

/// Reports something later.
pub fn later(id: MachineId, event: MachineEvent, wait: Duration, events: &mpsc::Sender<Event>) {
    let events = events.clone();
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        let _ = events.send(Event::Machine(id, event)).await;
    });
}

/// Starts a machine process and the tasks that watch it.
///
/// # Errors
/// As `socketpair(2)`, `fork(2)` and `execve(2)`.
pub fn spawn(id: MachineId, orders: &Orders, events: &mpsc::Sender<Event>) -> io::Result<Handles> {
    let (ours, theirs) = ::link::channel::pair()?;
    let channel = Channel::from_fd(ours)?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("vmserverd")
        .arg("machine")
        .env_clear()
        .env(VARIABLE, serde_json::to_string(orders)?)
        .current_dir("/")
        // Signals of a terminal are for the core; machines go on without it.
        .process_group(0)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let parts = Parts::new(child.id().unwrap_or_default(), channel);
    let (kill, sender) = (Arc::clone(&parts.handles.kill), events.clone());
    tokio::spawn(async move {
        let status = loop {
            tokio::select! {
                status = child.wait() => break status,
                () = kill.notified() => {
                    // Only fails when the process has just exited, which the next turn will see.
                    let _ = child.start_kill();
                }
            }
        };
        let text = status.map_or_else(|error| format!("unknown end: {error}"), |status| status.to_string());
        let _ = sender.send(Event::Machine(id, MachineEvent::Exited(text))).await;
    });
    later(id, MachineEvent::HelloLate, HELLO_WITHIN, events);
    Ok(parts.listen(id, events))
}

/// Passes on messages until the channel ends, or is closed by us.
async fn listen(
    id: MachineId,
    channel: Arc<Channel<ToVmx, FromVmx>>,
    close: Arc<Notify>,
    events: mpsc::Sender<Event>,
) {
    let mut reset = false;
    let end = loop {
        let received = tokio::select! {
            received = channel.recv() => received,
            () = close.notified() => break Ok(()),
        };
        match received {
            Ok(Some((message, fds))) => {
                let event = MachineEvent::Message(message, fds);
                if events.send(Event::Machine(id, event)).await.is_err() {
                    return;
                }
            }
            Ok(None) => break Ok(()),
            // As with session processes: the kernel reports a reset once, ahead of what was sent before.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && !reset => reset = true,
            Err(error) => break Err(error),
        }
    };
    drop(channel);
    let _ = events.send(Event::Machine(id, MachineEvent::ChannelEnded(end))).await;
}

/// A machine that was found again.
#[derive(Debug)]
pub struct Adopted {
    /// Its handles.
    pub handles: Handles,
    /// How it is.
    pub status: Status,
    /// What it has said besides.
    pub early: Vec<FromVmx>,
}

/// Finds a machine of an earlier core again.
///
/// # Errors
/// `NotFound` when its process is gone; otherwise why it cannot be spoken with.
pub async fn adopt(
    id: MachineId,
    record: &Record,
    socket: &Path,
    events: &mpsc::Sender<Event>,
) -> io::Result<Adopted> {
    let gone = |text: &str| io::Error::new(io::ErrorKind::NotFound, text);
    let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw).ok_or_else(|| gone("no process"))?;
    // The descriptor first: from then on the number cannot become another process's.
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone("its process is gone"))?;
    if stat_field(record.pid, 22) != Some(record.began) {
        return Err(gone("its number is another process's now"));
    }
    let talk = async {
        let channel = Channel::<ToVmx, FromVmx>::connect(socket).await?;
        greet(&channel, record).await?;
        let (status, early) = look(&channel).await?;
        Ok::<_, io::Error>((channel, status, early))
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "it does not answer");
    let (channel, status, early) = tokio::time::timeout(ANSWER_WITHIN, talk).await.map_err(late)??;
    let parts = Parts::new(record.pid, channel);
    let process = crate::sys::register(process, Interest::READABLE)?;
    let (kill, sender) = (Arc::clone(&parts.handles.kill), events.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = process.readable() => break,
                () = kill.notified() => {
                    let _ = pidfd_send_signal(process.get_ref(), Signal::KILL);
                }
            }
        }
        // Whoever has inherited it knows its status.
        let event = MachineEvent::Exited("exit status unknown".into());
        let _ = sender.send(Event::Machine(id, event)).await;
    });
    Ok(Adopted { handles: parts.listen(id, events), status, early })
}

/// The first message: who it is.
async fn greet(channel: &Channel<ToVmx, FromVmx>, record: &Record) -> io::Result<()> {
    let wrong = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    match channel.recv().await? {
        Some((FromVmx::Hello { version: VERSION, pid, config }, _)) => {
            if (pid, &config) == (record.pid, &record.config) {
                Ok(())
            } else {
                wrong("it says that it is another one".into())
            }
        }
        Some((FromVmx::Hello { version, .. }, _)) => wrong(format!("it speaks version {version}")),
        Some(_) => wrong("it does not say who it is".into()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed the channel")),
    }
}

/// Asks how it is.
async fn look(channel: &Channel<ToVmx, FromVmx>) -> io::Result<(Status, Vec<FromVmx>)> {
    channel.send(&ToVmx::GetStatus { request: u32::MAX }, &[]).await?;
    let mut early = Vec::new();
    loop {
        match channel.recv().await? {
            Some((FromVmx::IsNow { request: u32::MAX, status }, _)) => return Ok((status, early)),
            Some((message, _)) if early.len() < MAX_EARLY => early.push(message),
            Some(_) => return Err(io::Error::new(io::ErrorKind::InvalidData, "it says too much")),
            None => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has closed the channel")),
        }
    }
}
