//! The one task that owns a machine's state, and speaks with the server core.
//!
//! ```text
//!   core ──▶ message ─┐                      ┌─▶ queue: may it be done now?
//!   vCPUs ──▶ event ──┼──▶ Driver::on_… ─────┤
//!   workers ─▶ result ┘                      └─▶ a worker thread does what takes time, and reports
//! ```
//!
//! While a worker is at it ([`Driver::busy`]), other power requests are refused and events of the
//! processors wait; everything else is answered at once.
//!
//! | file | has |
//! |---|---|
//! | `mod.rs` | the loop, the state, which message goes where |
//! | `speaker.rs` | what is said to the core |
//! | `power.rs` | power requests; how a machine begins and ends |
//! | `events.rs` | what processors and workers report |
//! | `questions.rs` | questions and what their answers decide |
//! | `disks.rs` | requests about snapshots |
//! | `devices.rs`, `serial.rs` | media, keyboard, screen, guest variables; serial ports |

mod devices;
mod disks;
mod events;
mod power;
mod questions;
mod serial;
mod speaker;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor::control::{Begin, FromVmx, HostClass, Question, State, Status, ToVmx, VERSION};
use link::Channel;
use link::logfile::Sink;
use tokio::sync::{Notify, mpsc};
use tokio_seqpacket::UnixSeqpacketListener;

use crate::failure::{Failure, told, told_of};
use crate::machine::{Listeners, Machine};
use crate::plan::Plan;
use crate::queue::{self, Power, code};
use crate::redo::Choice;
use crate::start::{self, MachineLock, Session, enter};
use crate::typist::Typist;
use crate::vcpu::Event;
use crate::{firmware, snapshots};
use events::Report;
use power::Asked;
use questions::Decides;
use speaker::Speaker;

/// How often serial output is passed on and disks are flushed for guests that never ask.
const TICK: Duration = Duration::from_secs(2);
/// Lines of the firmware's log for one run: a guest must not fill the disk with them.
const LOG_LINES: u32 = 20_000;

struct Driver {
    speaker: Speaker,
    log: Arc<Sink>,
    session: Arc<Session>,
    state: State,
    paused: bool,
    /// The request that a worker carries out (0 for one of the guest), if one does.
    busy: Option<u32>,
    machine: Option<Arc<Machine>>,
    plan: Option<Plan>,
    on_since: Option<(Instant, u64)>,
    question: Option<(Question, Decides)>,
    questions: u32,
    asked: Option<Asked>,
    /// The host is going down.
    leaving: bool,
    /// Why the machine is being powered off, while a question about its redo logs waits.
    stopping: String,
    typist: Option<Typist>,
    variables: BTreeMap<String, String>,
    connected: BTreeMap<String, bool>,
    class: HostClass,
    /// The same, where the core has said so.
    host: Option<HostClass>,
    wake: Arc<Notify>,
    events: mpsc::UnboundedSender<Event>,
    reports: mpsc::UnboundedSender<Report>,
    ended: bool,
}

type Control = Channel<FromVmx, ToVmx>;

/// Runs a machine for the core at the other end of `socket`, until it is off. `terminate` is the signal that comes
/// when the system goes down.
///
/// # Errors
/// When the core breaks the protocol before there is a machine.
pub async fn run(socket: OwnedFd, mut terminate: tokio::signal::unix::Signal) -> io::Result<()> {
    let mut channel = Some(Arc::new(Control::from_fd(socket)?));
    let first = channel.as_ref().map(|channel| channel.peer_uid()).transpose()?;
    let speaker = Speaker::new();
    let mut writer = channel.clone().map(|channel| tokio::spawn(speaker.outbox().run(channel)));
    let hello = |config: &str| FromVmx::Hello {
        version: VERSION,
        pid: std::process::id(),
        config: config.to_owned(),
    };
    speaker.say(hello(""));
    let received = match &channel {
        Some(channel) => channel.recv().await?,
        None => None,
    };
    let Some((message, fds)) = received else { return Ok(()) };
    let ToVmx::Start { request, config, begin, firmware, host } = message else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the first message is not Start"));
    };
    let mut fds = fds.into_iter();
    let (Some(kvm), Some(file), Some(log)) = (fds.next(), fds.next(), fds.next()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "Start without its descriptors"));
    };
    let mut listener = fds.next().map(UnixSeqpacketListener::try_from).transpose()?;
    let log = Arc::new(Sink::from_fd(log));
    let config_text = config.clone();
    let result = Driver::new(&speaker, log, config, &firmware, kvm, file.into());
    let (mut driver, mut events, mut reports) = match result {
        Ok(parts) => parts,
        Err((code, detail)) => {
            speaker.fail(request, code, detail);
            speaker.close();
            if let Some(writer) = writer {
                let _ = writer.await;
            }
            return Ok(());
        }
    };
    driver.host = host;
    driver.begin(request, begin);
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !driver.ended {
        let soft = driver.asked.as_ref().map(|asked| asked.deadline);
        tokio::select! {
            received = receive(channel.as_deref()) => match received {
                Ok(Some((message, fds))) => driver.on_message(message, fds),
                gone => {
                    if let Err(error) = gone {
                        driver.log(&format!("the control channel: {error}"));
                    }
                    channel = None;
                    // A machine goes on; work on snapshots is over.
                    if listener.is_none() || driver.is_idle() {
                        driver.on_orphaned();
                    }
                }
            },
            Ok(socket) = accept(listener.as_mut()) => {
                // One that cannot be served comes again.
                if let Ok(new) = Control::from_socket(socket)
                    && new.peer_uid().ok() == first
                {
                    let new = Arc::new(new);
                    let outbox = speaker.renew();
                    speaker.say(hello(&config_text));
                    writer = Some(tokio::spawn(outbox.run(Arc::clone(&new))));
                    channel = Some(new);
                    driver.log("a new server core has taken over");
                }
            }
            Some(event) = events.recv(), if driver.busy.is_none() => driver.on_event(event),
            Some(report) = reports.recv() => driver.on_report(report),
            () = until(soft) => driver.on_soft_timeout(),
            Some(()) = terminate.recv() => driver.on_terminate(),
            _ = tick.tick() => driver.on_tick(),
        }
    }
    drop(driver);
    speaker.close();
    if let Some(writer) = writer {
        // A core that does not read does not keep us.
        let _ = tokio::time::timeout(Duration::from_secs(5), writer).await;
    }
    Ok(())
}

async fn receive(channel: Option<&Control>) -> io::Result<Option<link::channel::Received<ToVmx>>> {
    match channel {
        Some(channel) => channel.recv().await,
        None => std::future::pending().await,
    }
}

async fn accept(listener: Option<&mut UnixSeqpacketListener>) -> io::Result<tokio_seqpacket::UnixSeqpacket> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

type Parts = (Driver, mpsc::UnboundedReceiver<Event>, mpsc::UnboundedReceiver<Report>);

impl Driver {
    fn new(
        speaker: &Speaker,
        log: Arc<Sink>,
        config: String,
        firmware: &str,
        kvm: OwnedFd,
        file: std::fs::File,
    ) -> Result<Parts, Failure> {
        let config = PathBuf::from(config);
        let directory = config.parent().filter(|_| config.is_absolute()).map(PathBuf::from);
        let directory =
            directory.ok_or((code::INVALID_VM, "the path of the .vmx is not absolute".to_owned()))?;
        let lock = MachineLock::take(&config).map_err(|error| {
            if error.kind() == io::ErrorKind::WouldBlock {
                return (code::INIT_FAILED, "another process runs this virtual machine".to_owned());
            }
            told_of(&start::lock_path(&config), &error, code::INIT_FAILED)
        })?;
        let firmware = if firmware.is_empty() { firmware::DIRECTORY } else { firmware };
        let session = Session { config, directory, firmware: firmware.into(), kvm, file, lock };
        let (events, from_processors) = mpsc::unbounded_channel();
        let (reports, from_workers) = mpsc::unbounded_channel();
        let driver = Driver {
            speaker: speaker.clone(),
            log,
            session: Arc::new(session),
            state: State::Off,
            paused: false,
            busy: None,
            machine: None,
            plan: None,
            on_since: None,
            question: None,
            questions: 0,
            asked: None,
            leaving: false,
            stopping: String::new(),
            typist: None,
            variables: BTreeMap::new(),
            connected: BTreeMap::new(),
            // Until it is known: what makes us patient.
            class: HostClass::Emulated,
            host: None,
            wake: Arc::new(Notify::new()),
            events,
            reports,
            ended: false,
        };
        Ok((driver, from_processors, from_workers))
    }

    fn log(&self, text: &str) {
        self.log.line("vmx", std::process::id(), text);
    }

    /// Lets a worker thread do something that takes time.
    fn work(&mut self, request: u32, job: impl FnOnce() -> Report + Send + 'static) {
        self.busy = Some(request);
        let reports = self.reports.clone();
        tokio::task::spawn_blocking(move || {
            let _ = reports.send(job());
        });
    }

    fn begin(&mut self, request: u32, begin: Begin) {
        let suspended = self.session.configuration().is_ok_and(|vmx| vmx.suspend_state().is_some());
        self.state = if suspended { State::Suspended } else { State::Off };
        match begin {
            Begin::PowerOn => self.start(request, start::From::Suspended),
            Begin::Maintenance => self.speaker.done(request),
        }
    }

    fn start(&mut self, request: u32, from: start::From) {
        let session = Arc::clone(&self.session);
        let listeners = self.listeners();
        self.work(request, move || Report::Started(session.start(listeners, &from).map(Box::new)));
    }

    fn listeners(&self) -> Listeners {
        let (events, wake, log) = (self.events.clone(), Arc::clone(&self.wake), Arc::clone(&self.log));
        let lines = std::sync::atomic::AtomicU32::new(0);
        Listeners {
            events: Box::new(move |event| {
                let _ = events.send(event);
            }),
            log: Arc::new(move |line| {
                use std::sync::atomic::Ordering::Relaxed;
                match lines.fetch_add(1, Relaxed) {
                    count if count < LOG_LINES => log.line("firmware", std::process::id(), line),
                    LOG_LINES => log.line("firmware", std::process::id(), "no more lines are logged"),
                    _ => lines.store(LOG_LINES + 1, Relaxed),
                }
            }),
            wake: Arc::new(move || wake.notify_waiters()),
            enter,
        }
    }

    fn change(&mut self, to: State, why: &str) {
        let from = std::mem::replace(&mut self.state, to);
        self.log(&format!("{from:?} -> {to:?}: {why}"));
        self.speaker.say(FromVmx::Changed { from, to, why: why.to_owned() });
    }

    fn set_paused(&mut self, paused: bool) {
        if self.paused != paused {
            self.paused = paused;
            self.speaker.say(FromVmx::Paused { paused });
        }
    }

    /// The answer to a request of the core; requests of the guest have number 0 and get none.
    fn answer(&self, request: u32, result: Result<(), Failure>) {
        match result {
            _ if request == 0 => {}
            Ok(()) => self.speaker.done(request),
            Err((code, detail)) => self.speaker.fail(request, code, detail),
        }
    }

    fn on_message(&mut self, message: ToVmx, _fds: Vec<OwnedFd>) {
        let request = message.request();
        match message {
            ToVmx::Start { .. } => {
                self.speaker.fail(request, code::BAD_STATE, queue::conflict("start", self.state));
            }
            ToVmx::Stop { mode, .. } => self.power(request, Power::Stop(mode)),
            ToVmx::Reset { mode, .. } => self.power(request, Power::Reset(mode)),
            ToVmx::Suspend { .. } => self.power(request, Power::Suspend),
            ToVmx::Pause { .. } => self.power(request, Power::Pause),
            ToVmx::Resume { .. } => self.power(request, Power::Resume),
            ToVmx::CreateSnapshot { name, description, memory, .. } => {
                if self.may_snapshot(request) {
                    self.create_snapshot(request, (name, description, memory));
                }
            }
            ToVmx::RevertToSnapshot { id, .. } => {
                if self.may_snapshot(request) {
                    self.revert(request, id);
                }
            }
            ToVmx::RemoveAllSnapshots { .. } => {
                if self.may_snapshot(request) {
                    self.remove_snapshots(request);
                }
            }
            ToVmx::ListSnapshots { .. } => {
                let list = snapshots::List::read(&self.session);
                let list = list.map_err(|error| told(&error, code::UNSPECIFIED));
                for entry in list.iter().flat_map(|list| &list.entries) {
                    self.speaker.say(FromVmx::OneSnapshot { request, snapshot: entry.about.clone() });
                }
                self.answer(request, list.map(|_| ()));
            }
            ToVmx::Connect { device, connected, .. } => {
                let result = self.connect(&device, connected);
                self.answer(request, result);
            }
            ToVmx::Answer { id, choice, .. } => {
                let result = self.on_answer(id, choice);
                self.answer(request, result);
            }
            ToVmx::SerialRead { port, offset, max, wait, .. } => {
                self.serial_read(request, port, offset, max, wait);
            }
            ToVmx::SerialWrite { port, bytes, .. } => self.serial_write(request, port, bytes),
            ToVmx::Keys { text, .. } => {
                let result = self.press(&text);
                self.answer(request, result);
            }
            ToVmx::Screenshot { .. } => match self.screenshot() {
                Ok((width, height, png)) => {
                    self.speaker.say(FromVmx::Picture { request, width, height, png });
                }
                Err((code, detail)) => self.speaker.fail(request, code, detail),
            },
            ToVmx::GetGuestInfo { key, .. } => {
                let value = self.guest_info(&key);
                self.speaker.say(FromVmx::Value { request, value });
            }
            ToVmx::SetGuestInfo { key, value, .. } => {
                let result = self.set_guest_info(&key, value);
                self.answer(request, result);
            }
            ToVmx::GetStatus { .. } => {
                let status = self.status();
                self.speaker.say(FromVmx::IsNow { request, status });
            }
        }
    }

    fn status(&self) -> Status {
        let uptime = self.on_since.map_or(0, |(since, before)| before + since.elapsed().as_secs());
        Status {
            state: self.state,
            paused: self.paused,
            uptime,
            heartbeat: 0,
            tools_last_active: 0,
            memory_mb: self
                .plan
                .as_ref()
                .map_or(0, |plan| u32::try_from(plan.memory >> 20).unwrap_or(u32::MAX)),
            cpus: self.plan.as_ref().map_or(0, |plan| u32::from(plan.cpus)),
            has_snapshot: self.has_snapshot(),
            connected: self.connected.iter().filter(|(_, on)| **on).map(|(name, _)| name.clone()).collect(),
            question: self.question.as_ref().map(|(question, _)| question.clone()),
            class: self.class,
        }
    }

    /// Whether there is neither a machine nor work.
    fn is_idle(&self) -> bool {
        self.busy.is_none() && matches!(self.state, State::Off | State::Suspended)
    }

    /// Nobody can reach the machine any more.
    fn on_orphaned(&mut self) {
        if self.machine.is_none() && self.busy.is_none() {
            self.ended = true;
        } else if self.busy.is_none() {
            self.stop_now(0, "Virtual machine was powered off: its server is gone.", Choice::Keep);
        } else {
            // A worker is at it: look again when it has ended.
            let events = self.events.clone();
            let _ = events.send(Event::Broken("its server is gone".into()));
        }
    }

    fn on_tick(&mut self) {
        self.leave();
        let Some(machine) = self.machine.clone().filter(|_| self.busy.is_none()) else { return };
        if self.state == State::On {
            // On a thread of its own: a flush may take a while, and the guest goes on meanwhile.
            tokio::task::spawn_blocking(move || {
                let mut board = machine.board();
                board.tick();
                // An error comes back at the next flush of the guest, or at power off.
                let _ = board.flush();
            });
        }
    }
}
