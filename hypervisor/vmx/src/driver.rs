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

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hypervisor::control::{
    Begin, FromVmx, HostClass, MAX_CHUNK, MAX_GUEST_INFO, Question, Severity, State, Status, ToVmx, VERSION,
};
use link::logfile::Sink;
use link::{Channel, Outbox};
use tokio::sync::{Notify, mpsc};
use tokio_seqpacket::UnixSeqpacketListener;

use crate::board::Stop;
use crate::chips::{Effect, keys};
use crate::machine::{Listeners, Machine};
use crate::medium::Medium;
use crate::plan::Plan;
use crate::queue::{self, NO_TOOLS, Power, Standing, Verdict, admit, code};
use crate::start::{self, MachineLock, NotStarted, STATE_KEY, Session, Started, enter};
use crate::vcpu::{Event, lock};
use crate::{drives, firmware, probe, snapshots};

/// How long a guest that was asked to power off may take.
const SOFT_WAIT: Duration = Duration::from_secs(60);
/// How long serial input waits for room.
const WRITE_WAIT: Duration = Duration::from_secs(5);
/// The longest wait for serial output.
const READ_WAIT: Duration = Duration::from_secs(30);
/// How often serial output is passed on and disks are flushed for guests that never ask.
const TICK: Duration = Duration::from_secs(2);
/// Messages that wait for a core that does not read.
const OUTBOX: usize = 4096;
/// Lines of the firmware's log for one run: a guest must not fill the disk with them.
const LOG_LINES: u32 = 20_000;

/// Says things to whichever core is connected.
#[derive(Clone)]
struct Speaker(Arc<Mutex<Outbox<FromVmx>>>);

impl Speaker {
    fn say(&self, message: FromVmx) {
        // Without a listener it is lost; a new core asks for the status.
        let _ = lock(&self.0).push(message, Vec::new());
    }
    fn done(&self, request: u32) {
        self.say(FromVmx::Done { request });
    }
    fn fail(&self, request: u32, code: i32, detail: impl Into<String>) {
        self.say(FromVmx::Failed { request, code, detail: detail.into() });
    }
    fn notice(&self, severity: Severity, text: impl Into<String>) {
        self.say(FromVmx::Notice { severity, text: text.into() });
    }
}

/// What a worker was doing, and how it ended.
enum Report {
    Started(Result<Box<Started>, NotStarted>),
    Stopped { why: String, outputs: Vec<FromVmx>, trouble: Option<String> },
    Suspended(Result<Vec<FromVmx>, String>),
    Paused,
    Reset(Result<(), String>),
    Class(HostClass),
    SnapshotMade(Result<(u32, Vec<(String, PathBuf)>), String>),
    Reverted(Result<Option<PathBuf>, (i32, String)>),
    SnapshotsRemoved(Result<(), String>),
}

/// What an answer to the question decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decides {
    /// Try to start again, or not.
    Start,
    /// Forget the suspended state and start, or not.
    Discard,
    /// Try a disk again, tell the guest of the error, or power off.
    Disk { channel: usize },
}

/// A guest that was asked to power off.
struct Asked {
    request: u32,
    deadline: Instant,
    hard: bool,
}

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
    variables: BTreeMap<String, String>,
    connected: BTreeMap<String, bool>,
    class: HostClass,
    filled: u64,
    wake: Arc<Notify>,
    events: mpsc::UnboundedSender<Event>,
    reports: mpsc::UnboundedSender<Report>,
    ended: bool,
}

type Control = Channel<FromVmx, ToVmx>;

/// Runs a machine for the core at the other end of `socket`, until it is off.
///
/// # Errors
/// When the core breaks the protocol before there is a machine.
pub async fn run(socket: OwnedFd) -> io::Result<()> {
    let mut channel = Some(Arc::new(Control::from_fd(socket)?));
    let first = channel.as_ref().map(|channel| channel.peer_uid()).transpose()?;
    let speaker = Speaker(Arc::new(Mutex::new(Outbox::new(OUTBOX))));
    let mut writer = channel.clone().map(|channel| tokio::spawn(lock(&speaker.0).clone().run(channel)));
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
    let ToVmx::Start { request, config, begin, firmware } = message else {
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
            lock(&speaker.0).close();
            if let Some(writer) = writer {
                let _ = writer.await;
            }
            return Ok(());
        }
    };
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
                let new = Arc::new(Control::from_socket(socket));
                if new.peer_uid().ok() == first {
                    let outbox = Outbox::new(OUTBOX);
                    lock(&speaker.0).close();
                    *lock(&speaker.0) = outbox.clone();
                    speaker.say(hello(&config_text));
                    writer = Some(tokio::spawn(outbox.run(Arc::clone(&new))));
                    channel = Some(new);
                    driver.log("a new server core has taken over");
                }
            }
            Some(event) = events.recv(), if driver.busy.is_none() => driver.on_event(event),
            Some(report) = reports.recv() => driver.on_report(report),
            () = until(soft) => driver.on_soft_timeout(),
            _ = tick.tick() => driver.on_tick(),
        }
    }
    drop(driver);
    lock(&speaker.0).close();
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
    ) -> Result<Parts, (i32, String)> {
        let config = PathBuf::from(config);
        let directory = config.parent().filter(|_| config.is_absolute()).map(PathBuf::from);
        let directory =
            directory.ok_or((code::INVALID_VM, "the path of the .vmx is not absolute".to_owned()))?;
        let lock = MachineLock::take(&config).map_err(|error| {
            let text = match error.kind() {
                io::ErrorKind::WouldBlock => "another process runs this virtual machine".to_owned(),
                _ => format!("cannot lock the virtual machine: {error}"),
            };
            (code::INIT_FAILED, text)
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
            variables: BTreeMap::new(),
            connected: BTreeMap::new(),
            // Until the probe has said so: what makes us patient.
            class: HostClass::Emulated,
            filled: 0,
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

    fn ask(&mut self, text: &str, choices: &[&str], decides: Decides) {
        self.questions += 1;
        let question = Question {
            id: self.questions,
            text: text.to_owned(),
            choices: choices.iter().map(|&choice| choice.to_owned()).collect(),
            default: 0,
        };
        self.question = Some((question.clone(), decides));
        self.change(State::Stuck, text);
        self.speaker.say(FromVmx::Asked { question });
    }

    fn settle_question(&mut self) -> Option<Decides> {
        let (question, decides) = self.question.take()?;
        self.speaker.say(FromVmx::Settled { id: question.id });
        Some(decides)
    }

    /// The answer to a request of the core; requests of the guest have number 0 and get none.
    fn answer(&self, request: u32, result: Result<(), (i32, String)>) {
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
                    let session = Arc::clone(&self.session);
                    let remove = move || snapshots::remove_all(&session).map_err(|error| error.to_string());
                    self.work(request, move || Report::SnapshotsRemoved(remove()));
                }
            }
            ToVmx::ListSnapshots { .. } => {
                let list = snapshots::List::read(&self.session);
                let list =
                    list.map_err(|error| (code::UNSPECIFIED, format!("the list of snapshots: {error}")));
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
            has_snapshot: snapshots::List::read(&self.session).is_ok_and(|list| !list.entries.is_empty()),
            connected: self.connected.iter().filter(|(_, on)| **on).map(|(name, _)| name.clone()).collect(),
            question: self.question.as_ref().map(|(question, _)| question.clone()),
            class: self.class,
        }
    }

    fn power(&mut self, request: u32, power: Power) {
        let standing = Standing { state: self.state, paused: self.paused, busy: self.busy.is_some() };
        match admit(standing, power) {
            Verdict::Refuse(code, detail) => self.speaker.fail(request, code, detail),
            Verdict::Already => self.speaker.done(request),
            Verdict::Ask { hard } => {
                let listens =
                    self.machine.as_ref().is_some_and(|machine| machine.board().press_power_button());
                if listens && self.asked.is_none() {
                    self.asked = Some(Asked { request, deadline: Instant::now() + SOFT_WAIT, hard });
                } else if hard {
                    self.stop(request, "Virtual machine was powered off.");
                } else {
                    self.speaker.fail(request, code::BAD_STATE, NO_TOOLS);
                }
            }
            Verdict::Go => self.carry_out(request, power),
        }
    }

    fn carry_out(&mut self, request: u32, power: Power) {
        let Some(machine) = self.machine.clone() else {
            // Stuck in a start: there is nothing to stop but the question.
            self.settle_question();
            return match power {
                Power::Stop(_) => self.end(
                    request,
                    State::Off,
                    "The start of the virtual machine was cancelled.",
                    Vec::new(),
                ),
                _ => self.speaker.fail(request, code::NEED_INPUT, ""),
            };
        };
        match power {
            Power::Stop(_) => self.stop(request, "Virtual machine was powered off."),
            Power::Reset(_) => {
                self.settle_question();
                self.work(request, move || Report::Reset(reset(&machine)));
            }
            Power::Pause => self.work(request, move || {
                machine.pause();
                Report::Paused
            }),
            Power::Resume => {
                machine.run();
                self.set_paused(false);
                self.speaker.done(request);
            }
            Power::Suspend => {
                let session = Arc::clone(&self.session);
                let uptime = self.status().uptime;
                let running = !self.paused;
                self.work(request, move || Report::Suspended(suspend(&session, &machine, uptime, running)));
            }
            // Decided elsewhere: it carries more than a mode.
            Power::Snapshot => {}
        }
    }

    /// Whether snapshots may be worked on now; says why not.
    fn may_snapshot(&self, request: u32) -> bool {
        let standing = Standing { state: self.state, paused: self.paused, busy: self.busy.is_some() };
        match admit(standing, Power::Snapshot) {
            Verdict::Refuse(code, detail) => {
                self.speaker.fail(request, code, detail);
                false
            }
            _ => true,
        }
    }

    /// The plan of the machine that runs, or of the one that would.
    fn plan_now(&self) -> Result<Plan, (i32, String)> {
        if let Some(plan) = &self.plan {
            return Ok(plan.clone());
        }
        let vmx = self.session.configuration().map_err(|error| (code::INVALID_VM, error.to_string()))?;
        Plan::of(&vmx, &self.session.directory).map_err(|error| (code::INVALID_VM, error.to_string()))
    }

    fn create_snapshot(&mut self, request: u32, about: (String, String, bool)) {
        // The memory of a suspended machine would have to be kept with its disks.
        if self.state == State::Suspended {
            let text = queue::conflict("snapshot", self.state);
            return self.speaker.fail(request, code::BAD_STATE, text);
        }
        let plan = match self.plan_now() {
            Ok(plan) => plan,
            Err((code, detail)) => return self.speaker.fail(request, code, detail),
        };
        let (session, machine) = (Arc::clone(&self.session), self.machine.clone());
        let (uptime, running) = (self.status().uptime, !self.paused);
        self.work(request, move || {
            if let Some(machine) = &machine {
                machine.pause();
            }
            let made = snapshots::create(&session, &plan, machine.as_deref(), about, uptime);
            if let Some(machine) = machine.filter(|_| running) {
                machine.run();
            }
            Report::SnapshotMade(made.map_err(|error| error.to_string()))
        });
    }

    fn revert(&mut self, request: u32, id: Option<u32>) {
        let plan = match self.plan_now() {
            Ok(plan) => plan,
            Err((code, detail)) => return self.speaker.fail(request, code, detail),
        };
        let known = snapshots::List::read(&self.session).unwrap_or_default();
        if !known.entries.iter().any(|entry| id.is_none_or(|id| entry.about.id == id)) {
            return self.speaker.fail(request, code::UNSPECIFIED, "No snapshot");
        }
        let session = Arc::clone(&self.session);
        let machine = self.machine.take();
        self.work(request, move || {
            if let Some(machine) = machine {
                machine.pause();
                // What the guest did since is given up: an error of a disk is of no interest.
                let _ = close(&machine);
            }
            let reverted = snapshots::revert(&session, &plan, id);
            Report::Reverted(reverted.map_err(|error| (code::UNSPECIFIED, error.to_string())))
        });
    }

    fn stop(&mut self, request: u32, why: &str) {
        self.settle_question();
        let why = why.to_owned();
        let redo = self.plan.iter().flat_map(|plan| &plan.drives);
        let redo: Vec<PathBuf> = redo
            .filter(|drive| drive.mode == hypervisor::vmx_file::DiskMode::IndependentNonpersistent)
            .filter_map(|drive| drive.file.as_deref().map(drives::redo_path))
            .collect();
        match self.machine.clone() {
            None => self.end(request, State::Off, &why, Vec::new()),
            Some(machine) => self.work(request, move || {
                machine.pause();
                let trouble = close(&machine).err();
                for path in redo {
                    let _ = std::fs::remove_file(path);
                }
                Report::Stopped { why, outputs: last_outputs(&machine), trouble }
            }),
        }
    }

    /// Says the last things, and ends the process.
    fn end(&mut self, request: u32, to: State, why: &str, outputs: Vec<FromVmx>) {
        for output in outputs {
            self.speaker.say(output);
        }
        self.machine = None;
        self.on_since = None;
        self.set_paused(false);
        self.change(to, why);
        self.answer(request, Ok(()));
        if let Some(asked) = self.asked.take() {
            self.answer(asked.request, Ok(()));
        }
        if self.filled > 0 {
            self.log(&format!("{} instructions were carried out for KVM", self.filled));
        }
        self.ended = true;
    }

    fn on_report(&mut self, report: Report) {
        if let Report::Class(class) = report {
            self.class = class;
            self.log(&format!("the host runs guests: {}", class.name()));
            return;
        }
        let request = self.busy.take().unwrap_or(0);
        match report {
            Report::Class(_) => {}
            Report::Started(Ok(started)) => self.on_started(request, *started),
            Report::Started(Err(NotStarted::Failed(code, detail))) => {
                self.log(&format!("not started: {detail}"));
                self.speaker.notice(Severity::Error, detail.clone());
                if self.state == State::Stuck {
                    self.change(State::Off, &detail);
                }
                self.answer(request, Err((code, detail)));
                self.ended = true;
            }
            Report::Started(Err(NotStarted::Retry(text))) => {
                self.ask(&text, &["Retry", "Cancel"], Decides::Start);
                self.answer(request, Err((code::NEED_INPUT, text)));
            }
            Report::Started(Err(NotStarted::Discard(text))) => {
                self.ask(&text, &["Cancel", "Discard the suspended state and power on"], Decides::Discard);
                self.answer(request, Err((code::NEED_INPUT, text)));
            }
            Report::Stopped { why, outputs, trouble } => {
                if let Some(trouble) = trouble {
                    self.speaker.notice(Severity::Error, trouble);
                }
                self.end(request, State::Off, &why, outputs);
            }
            Report::Suspended(Ok(outputs)) => {
                self.end(request, State::Suspended, "Virtual machine was suspended.", outputs);
            }
            Report::Suspended(Err(text)) => {
                self.speaker.notice(Severity::Error, text.clone());
                self.answer(request, Err((code::UNSPECIFIED, text)));
            }
            Report::SnapshotMade(Ok((id, disks))) => {
                for drive in self.plan.iter_mut().flat_map(|plan| &mut plan.drives) {
                    if let Some((_, path)) = disks.iter().find(|(name, _)| *name == drive.name) {
                        drive.file = Some(path.clone());
                    }
                }
                self.speaker.say(FromVmx::Snapshots { any: true });
                self.speaker.say(FromVmx::SnapshotMade { request, id });
            }
            Report::SnapshotsRemoved(Ok(())) => {
                self.speaker.say(FromVmx::Snapshots { any: false });
                self.answer(request, Ok(()));
            }
            Report::SnapshotMade(Err(text)) | Report::SnapshotsRemoved(Err(text)) => {
                self.speaker.notice(Severity::Error, text.clone());
                self.answer(request, Err((code::UNSPECIFIED, text)));
            }
            Report::Reverted(Ok(state)) => {
                self.plan = None;
                self.on_since = None;
                self.set_paused(false);
                let was_on = self.state == State::On;
                if self.state != State::Off {
                    self.change(State::Off, "Virtual machine goes back to a snapshot.");
                }
                match state {
                    Some(state) => self.start(request, start::From::Snapshot(state)),
                    None => {
                        self.answer(request, Ok(()));
                        self.ended = was_on;
                    }
                }
            }
            Report::Reverted(Err((code, text))) => {
                self.speaker.notice(Severity::Error, text.clone());
                self.answer(request, Err((code, text.clone())));
                if self.state == State::On {
                    self.end(0, State::Off, &format!("Virtual machine was powered off: {text}."), Vec::new());
                }
            }
            Report::Paused => {
                self.set_paused(true);
                self.answer(request, Ok(()));
            }
            Report::Reset(Ok(())) => {
                if self.state == State::Stuck {
                    self.change(State::On, "Virtual machine was reset.");
                }
                self.set_paused(false);
                self.speaker.notice(Severity::Info, "Virtual machine was reset.");
                self.answer(request, Ok(()));
            }
            Report::Reset(Err(text)) => {
                self.answer(request, Err((code::UNSPECIFIED, text.clone())));
                self.stop(0, &format!("Virtual machine was powered off: it could not be reset ({text})."));
            }
        }
    }

    fn on_started(&mut self, request: u32, started: Started) {
        let Started { machine, plan, uptime, resumed } = started;
        self.machine = Some(machine);
        self.on_since = Some((Instant::now(), uptime));
        for notice in &plan.notices {
            self.speaker.notice(Severity::Warning, notice.clone());
        }
        self.connected = plan
            .drives
            .iter()
            .filter(|drive| drive.cd)
            .map(|drive| (drive.name.clone(), drive.connected))
            .collect();
        self.connected.extend(plan.floppy.iter().map(|floppy| (floppy.name.clone(), floppy.connected)));
        self.connected.extend(plan.serial.iter().map(|port| (format!("serial{}", port.number), true)));
        self.plan = Some(plan);
        self.change(
            State::On,
            if resumed { "Virtual machine was resumed." } else { "Virtual machine was powered on." },
        );
        self.answer(request, Ok(()));
        if let Ok(kvm) = self.session.kvm.try_clone() {
            let reports = self.reports.clone();
            tokio::task::spawn_blocking(move || {
                let _ = reports.send(Report::Class(probe::class(kvm).unwrap_or(HostClass::None)));
            });
        }
    }

    fn on_event(&mut self, event: Event) {
        let Some(machine) = self.machine.clone() else { return };
        match event {
            Event::Filled(name) => {
                self.filled += 1;
                if self.filled == 1 {
                    self.log(&format!("KVM lacks an instruction ({name}): it is carried out here"));
                }
            }
            Event::Stop(Stop::Effect(Effect::PowerOff)) => {
                self.stop(0, "Virtual machine was powered off by the guest.");
            }
            Event::Stop(Stop::Effect(Effect::Reset)) => self.work(0, move || Report::Reset(reset(&machine))),
            Event::TripleFault => {
                self.speaker.notice(Severity::Warning, "The guest has crashed (triple fault); it is reset.");
                self.work(0, move || Report::Reset(reset(&machine)));
            }
            Event::Broken(text) => {
                self.speaker.notice(Severity::Error, text.clone());
                self.stop(0, &format!("Virtual machine was powered off: {text}."));
            }
            Event::Stop(Stop::Fault { channel, unit, full, text }) => {
                machine.pause();
                let what = if full {
                    "There is no space left for a virtual disk"
                } else {
                    "A virtual disk cannot be read or written"
                };
                let text = format!(
                    "{what} (ide{channel}:{unit}): {text}. Retry, report the error to the guest, or power off?"
                );
                self.ask(&text, &["Retry", "Continue", "Power off"], Decides::Disk { channel });
            }
        }
    }

    fn on_answer(&mut self, id: u32, choice: u32) -> Result<(), (i32, String)> {
        let Some((question, decides)) = &self.question else {
            return Err((code::BAD_STATE, "no question is pending".into()));
        };
        let known = question.id == id && (choice as usize) < question.choices.len();
        if !known || self.busy.is_some() {
            let text = if known { "" } else { "no such question or choice" };
            return Err((if known { code::BUSY } else { code::INVALID_ARGUMENT }, text.into()));
        }
        let decides = *decides;
        self.settle_question();
        match (decides, choice) {
            (Decides::Start, 0) => self.start(0, start::From::Suspended),
            (Decides::Discard, 1) => self.start(0, start::From::Nothing),
            (Decides::Start, _) => {
                self.end(0, State::Off, "The start of the virtual machine was cancelled.", Vec::new());
            }
            (Decides::Discard, _) => {
                self.end(0, State::Suspended, "The start of the virtual machine was cancelled.", Vec::new());
            }
            (Decides::Disk { .. }, 2..) => self.stop(0, "Virtual machine was powered off."),
            (Decides::Disk { channel }, _) => {
                let Some(machine) = self.machine.clone() else { return Ok(()) };
                self.change(State::On, "Virtual machine goes on.");
                let mut board = machine.board();
                let stop = if choice == 0 { board.retry(channel) } else { board.give_up(channel) };
                drop(board);
                match stop {
                    None if self.paused => {}
                    None => machine.run(),
                    Some(stop) => self.on_event(Event::Stop(stop)),
                }
            }
        }
        Ok(())
    }

    fn on_soft_timeout(&mut self) {
        let Some(asked) = self.asked.take() else { return };
        if asked.hard && self.busy.is_none() {
            self.stop(asked.request, "Virtual machine was powered off.");
        } else {
            self.speaker.fail(asked.request, code::TIMEOUT, "the guest did not power off");
        }
    }

    /// Nobody can reach the machine any more.
    /// Whether there is neither a machine nor work.
    fn is_idle(&self) -> bool {
        self.busy.is_none() && matches!(self.state, State::Off | State::Suspended)
    }

    fn on_orphaned(&mut self) {
        if self.machine.is_none() && self.busy.is_none() {
            self.ended = true;
        } else if self.busy.is_none() {
            self.stop(0, "Virtual machine was powered off: its server is gone.");
        } else {
            // A worker is at it: look again when it has ended.
            let events = self.events.clone();
            let _ = events.send(Event::Broken("its server is gone".into()));
        }
    }

    fn on_tick(&mut self) {
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

    fn need_on(&self) -> Result<Arc<Machine>, (i32, String)> {
        self.machine.clone().ok_or_else(|| (code::BAD_STATE, String::new()))
    }

    fn connect(&mut self, device: &str, connected: bool) -> Result<(), (i32, String)> {
        let machine = self.need_on()?;
        let plan = self.plan.as_ref().ok_or((code::BAD_STATE, String::new()))?;
        let device = device.to_ascii_lowercase();
        let failed = |error: drives::Error| (code::UNSPECIFIED, error.to_string());
        if let Some(drive) = plan.drives.iter().find(|drive| drive.name == device) {
            if !drive.cd {
                return Err((code::NOT_SUPPORTED, format!("{device} is a fixed disk")));
            }
            let medium = match (&drive.file, connected) {
                (Some(file), true) => Some(drives::open_cd(&device, file).map_err(failed)?),
                (None, true) => return Err((code::NOT_SUPPORTED, format!("{device} has no image"))),
                (_, false) => None,
            };
            machine.board().set_medium(drive.channel, drive.unit, medium);
        } else if let Some(floppy) = plan.floppy.as_ref().filter(|floppy| floppy.name == device) {
            let image = if connected {
                Some(drives::read_floppy(&device, &floppy.file).map_err(failed)?)
            } else {
                None
            };
            // The firmware reads the image when it starts: it counts from the next reset on.
            machine.board().set_floppy(image);
        } else if plan.serial.iter().any(|port| format!("serial{}", port.number) == device) {
            return Err((code::NOT_SUPPORTED, "serial ports are always connected".into()));
        } else {
            return Err((code::NO_PROPERTY, device));
        }
        self.connected.insert(device.clone(), connected);
        self.speaker.say(FromVmx::Device { device, connected });
        Ok(())
    }

    fn press(&self, text: &str) -> Result<(), (i32, String)> {
        let machine = self.need_on()?;
        let mut codes = Vec::new();
        for character in text.chars() {
            codes
                .extend(keys::codes(character).map_err(|error| (code::INVALID_ARGUMENT, error.to_string()))?);
        }
        let taken = machine.board().press(&codes);
        if taken { Ok(()) } else { Err((code::NO_RESOURCES, "the keyboard's queue is full".into())) }
    }

    fn screenshot(&self) -> Result<(u32, u32, Vec<u8>), (i32, String)> {
        let machine = self.need_on()?;
        let failed = |error: io::Error| (code::UNSPECIFIED, error.to_string());
        let screen = machine.screen().map_err(failed)?;
        let (text, colours) =
            screen.ok_or((code::NOT_SUPPORTED, "the screen is in a graphics mode".to_owned()))?;
        text.png(machine.font(), &colours).map_err(failed)
    }

    fn guest_info(&self, key: &str) -> Option<String> {
        let key = key.to_ascii_lowercase();
        self.variables.get(&key).cloned().or_else(|| {
            self.session.configuration().ok().and_then(|vmx| vmx.guest_info(&key).map(str::to_owned))
        })
    }

    fn set_guest_info(&mut self, key: &str, value: String) -> Result<(), (i32, String)> {
        self.need_on()?;
        let key = key.to_ascii_lowercase();
        if key.is_empty() || key.len() > 255 {
            return Err((code::INVALID_ARGUMENT, "a name of 1 to 255 bytes".into()));
        }
        let others = self.variables.iter().filter(|(name, _)| **name != key);
        let size: usize = others.map(|(name, value)| name.len() + value.len()).sum();
        if size + key.len() + value.len() > MAX_GUEST_INFO {
            return Err((
                code::NO_RESOURCES,
                format!("guest variables are limited to {MAX_GUEST_INFO} bytes in all"),
            ));
        }
        self.variables.insert(key.clone(), value);
        self.speaker.say(FromVmx::GuestInfo { key });
        Ok(())
    }

    fn serial_read(&self, request: u32, port: u32, offset: u64, max: u32, wait: u32) {
        let Some(machine) = &self.machine else {
            return self.speaker.fail(request, code::BAD_STATE, "");
        };
        let max = (max as usize).min(MAX_CHUNK);
        let deadline = Instant::now() + Duration::from_millis(wait.into()).min(READ_WAIT);
        let (machine, wake, speaker) =
            (Arc::downgrade(machine), Arc::clone(&self.wake), self.speaker.clone());
        tokio::spawn(async move {
            loop {
                let woken = wake.notified();
                // Not kept while waiting: the machine must be able to end.
                let part = {
                    let Some(machine) = machine.upgrade() else {
                        return speaker.fail(request, code::BAD_STATE, "");
                    };
                    let mut board = machine.board();
                    board.serial(port).map(|chip| chip.kept().part(offset, max))
                };
                let Some(part) = part else {
                    return speaker.fail(request, code::NO_PROPERTY, format!("serial{port}"));
                };
                if !part.bytes.is_empty() || max == 0 || Instant::now() >= deadline {
                    let crate::chips::serial::Part { offset, lost, bytes } = part;
                    return speaker.say(FromVmx::Output { request, port, offset, lost, bytes });
                }
                // The guest may send between looking and waiting: look again soon in any case.
                let next = deadline.min(Instant::now() + Duration::from_millis(100));
                let _ = tokio::time::timeout_at(next.into(), woken).await;
            }
        });
    }

    fn serial_write(&self, request: u32, port: u32, bytes: Vec<u8>) {
        let Some(machine) = &self.machine else {
            return self.speaker.fail(request, code::BAD_STATE, "");
        };
        let deadline = Instant::now() + WRITE_WAIT;
        let (machine, speaker) = (Arc::downgrade(machine), self.speaker.clone());
        tokio::spawn(async move {
            let mut sent = 0;
            loop {
                let rest = bytes.get(sent..).unwrap_or_default();
                let Some(machine) = machine.upgrade() else { break };
                let Some(count) = machine.board().send(port, rest) else {
                    return speaker.fail(request, code::NO_PROPERTY, format!("serial{port}"));
                };
                drop(machine);
                sent += count;
                if sent >= bytes.len() || Instant::now() >= deadline {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            speaker.say(FromVmx::Written { request, count: u32::try_from(sent).unwrap_or(u32::MAX) });
        });
    }
}

fn reset(machine: &Machine) -> Result<(), String> {
    machine.reset().map_err(|error| error.to_string())?;
    machine.run();
    Ok(())
}

/// Saves the machine and enters the file in the .vmx; on failure the machine goes on.
fn suspend(session: &Session, machine: &Machine, uptime: u64, running: bool) -> Result<Vec<FromVmx>, String> {
    machine.pause();
    let file = session.state_file();
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let flushed = machine.board().flush().map_err(|error| error.to_string());
    let result = flushed
        .and_then(|()| machine.save(&file, uptime).map_err(|error| error.to_string()))
        .and_then(|()| session.set_keys(&[(STATE_KEY, &name)]).map_err(|error| error.to_string()));
    match result {
        Ok(()) => {
            let outputs = last_outputs(machine);
            close(machine)?;
            Ok(outputs)
        }
        Err(text) => {
            let _ = std::fs::remove_file(&file);
            if running {
                machine.run();
            }
            Err(format!("Virtual machine could not be suspended: {text}"))
        }
    }
}

/// Flushes and closes every disk. All are closed, whatever happens.
fn close(machine: &Machine) -> Result<(), String> {
    let mut board = machine.board();
    let mut result = board.flush().map_err(|error| error.to_string());
    for (channel, unit) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        if let Some(Medium::Disk(disk)) = board.medium(channel, unit).and_then(Option::take) {
            result = result.and(disk.close().map_err(|error| error.to_string()));
        }
    }
    result
}

/// What the guest sent last, for readers who come later.
fn last_outputs(machine: &Machine) -> Vec<FromVmx> {
    let mut outputs = Vec::new();
    let mut board = machine.board();
    for port in board.serial_numbers() {
        let Some(chip) = board.serial(port) else { continue };
        let kept = chip.kept();
        let mut offset = kept.start();
        while offset < kept.end() {
            let part = kept.part(offset, MAX_CHUNK);
            offset += part.bytes.len() as u64;
            outputs.push(FromVmx::Output {
                request: 0,
                port,
                offset: part.offset,
                lost: 0,
                bytes: part.bytes,
            });
        }
    }
    outputs
}
