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

use super::launch::{Orders, Task, VARIABLE};
use super::records::Record;
use super::usage::stat_field;
use crate::core::Event;

/// Messages that may wait for a machine that does not read.
const WAITING_MESSAGES: usize = 1024;

/// How long a process may take to be `vmx`, and to say so.
const HELLO_WITHIN: Duration = Duration::from_secs(30);

/// How long a process may take to exit after it has closed its channel: disks are flushed then.
const EXIT_WITHIN: Duration = Duration::from_secs(30);

/// When a machine that is not found again is looked for once more.
const CONNECT_AGAIN: Duration = Duration::from_millis(100);

/// How long it may take to remove what a machine process has left behind.
const CLEAN_WITHIN: Duration = Duration::from_secs(5);

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
    /// A machine that is to be stopped hard has had long enough to say how it is.
    Hangs {
        /// Number of the request that asked for it.
        look: u32,
    },
    /// What it has left behind is removed.
    Cleaned,
    /// It is found again, or cannot be spoken with.
    Found(io::Result<Found>),
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

impl Handles {
    /// Handles of a process whose channel is not there yet.
    fn new(pid: u32) -> Self {
        let (kill, close) = (Arc::default(), Arc::default());
        Handles { pid, outbox: Outbox::new(WAITING_MESSAGES), kill, close }
    }

    /// Begins to speak with the process.
    pub fn attach(&self, id: MachineId, channel: Channel<ToVmx, FromVmx>, events: &mpsc::Sender<Event>) {
        let channel = Arc::new(channel);
        tokio::spawn(listen(id, Arc::clone(&channel), Arc::clone(&self.close), events.clone()));
        tokio::spawn(self.outbox.clone().run(channel));
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
    let mut child = command(&Task::Run(orders.clone()))?.stdin(Stdio::from(theirs)).spawn()?;
    let handles = Handles::new(child.id().unwrap_or_default());
    let (kill, sender) = (Arc::clone(&handles.kill), events.clone());
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
    handles.attach(id, channel, events);
    Ok(handles)
}

/// What becomes a process of a machine's owner.
fn command(task: &Task) -> io::Result<Command> {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("vmserverd").arg("machine").env_clear().env(VARIABLE, serde_json::to_string(task)?);
    // Signals of a terminal are for the core; machines go on without it.
    command.current_dir("/").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command)
}

/// Removes what a machine process that was killed has left behind; reports [`MachineEvent::Cleaned`].
pub fn clean(id: MachineId, uid: u32, lock: String, events: &mpsc::Sender<Event>) {
    let events = events.clone();
    tokio::spawn(async move {
        let work = async { command(&Task::Clean { uid, lock })?.kill_on_drop(true).status().await };
        // Whatever comes of it: the file does no harm.
        let _ = tokio::time::timeout(CLEAN_WITHIN, work).await;
        let _ = events.send(Event::Machine(id, MachineEvent::Cleaned)).await;
    });
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

/// A machine that was found again, and speaks.
#[derive(Debug)]
pub struct Found {
    /// Its channel.
    pub channel: Channel<ToVmx, FromVmx>,
    /// How it is.
    pub status: Status,
    /// What it has said besides.
    pub early: Vec<FromVmx>,
}

/// Watches the process of a machine of an earlier core.
///
/// # Errors
/// When it is gone.
pub fn watch(id: MachineId, record: &Record, events: &mpsc::Sender<Event>) -> io::Result<Handles> {
    let gone = |text: &str| io::Error::new(io::ErrorKind::NotFound, text);
    let pid = i32::try_from(record.pid).ok().and_then(Pid::from_raw).ok_or_else(|| gone("no process"))?;
    // The descriptor first: from then on the number cannot become another process's.
    let process = pidfd_open(pid, PidfdFlags::empty()).map_err(|_| gone("its process is gone"))?;
    if stat_field(record.pid, 22) != Some(record.began) {
        return Err(gone("its number is another process's now"));
    }
    let process = ::link::reactor::register(process, Interest::READABLE)?;
    let handles = Handles::new(record.pid);
    let (kill, sender) = (Arc::clone(&handles.kill), events.clone());
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
    Ok(handles)
}

/// Speaks with the process of a machine of an earlier core. It may be slow, on a busy host: this waits for
/// as long as the process lives.
///
/// # Errors
/// When it is gone, or says what does not make sense.
pub async fn find(record: &Record, socket: &Path) -> io::Result<Found> {
    loop {
        let talk = async {
            let channel = Channel::<ToVmx, FromVmx>::connect(socket).await?;
            greet(&channel, record).await?;
            let (status, early) = look(&channel).await?;
            Ok::<_, io::Error>(Found { channel, status, early })
        };
        match talk.await {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                if stat_field(record.pid, 22) != Some(record.began) {
                    return Err(error);
                }
                // Too many connections wait on its socket, or it was just closing one.
                tokio::time::sleep(CONNECT_AGAIN).await;
            }
            result => return result,
        }
    }
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
