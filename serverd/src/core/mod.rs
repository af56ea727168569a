//! The core: supervises session processes and knows what all users share. Parses nothing of theirs.
//!
//! ```text
//!   link ───────── Reserve, Session ─▶┐
//!   processes ──── messages, exits ──▶├─▶ one queue of events ─▶ Core ─▶ admission, supervisor
//!   signals ───────────────────────▶┘        (bounded)                   (no locks, no waiting)
//! ```
//!
//! * [`link`] keeps the connection to vmware-authd; the core listens on no socket of any kind.
//! * [`admission`] decides whether there may be another session.
//! * [`supervisor`] gives each session to the process of its user; [`processes`] starts and watches
//!   those; [`counter`] adds up what they have done; [`Ration`](::link::ration::Ration) bounds what they log.
//! * [`questions`] answers what handlers ask: of the [`inventory`], of [`tasks`] and their [`journal`].
//!   [`proof`] looks whether a user has the right that his process claims; [`store`] writes.
//! * [`security`] passes questions about encryption on to the gateway.
//! * [`sharing`] asks owners whether their machines use a file.
//! * [`machines`] starts, knows and finds again the processes of running machines.
//! * [`observe`] publishes figures and starts the process that tells them; [`auditing`] records who did what.
//! * [`privileges`] gives up the rights that none of this needs.
//!
//! One thread does it all, because all of it is short: a session costs the core four messages in its
//! whole life, a request costs it nothing.

pub mod admission;
pub mod auditing;
pub mod connect;
pub mod counter;
pub mod inventory;
pub mod journal;
pub mod link;
pub mod machines;
pub mod observe;
pub mod privileges;
pub mod probe;
pub mod processes;
pub mod proof;
pub mod questions;
pub mod security;
pub mod sharing;
pub mod store;
pub mod supervisor;
pub mod tasks;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::link::audit::{Audit, Kind, Outcome, Record};
use ::link::gateway::{ToAuthd, ToServerd};
use ::link::identity::for_log;
use ::link::logfile::Kept;
use ::link::{Layout, Settings};
use hypervisor::control::HostClass;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::admission::{Admission, Refusal};
use self::inventory::Inventory;
use self::link::LinkEvent;
use self::machines::Program;
use self::machines::process::{MachineEvent, MachineId};
use self::machines::records::Records;
use self::observe::{MetricsEvent, Observe};
use self::processes::{ProcessEvent, ProcessId};
use self::proof::Proven;
use self::questions::{Asker, Shared};
use self::store::{Places, Store};
use self::supervisor::{Supervisor, Template};
use self::tasks::{Limits, Tasks};
use crate::channel::Ask;

/// Events that may wait; a full queue holds up whoever produces them, hostile or not.
const WAITING_EVENTS: usize = 1024;

/// How long a caller may be on his way from the gateway, who tells him that he is connected and sends him at once.
const PROMISED_WITHIN: Duration = Duration::from_millis(500);

/// How long session processes may take to finish their requests.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// How long the kernel may take to end a process after SIGKILL before we leave without it.
const KILL_WITHIN: Duration = Duration::from_secs(2);

/// How long a thread for work that may wait stays without any: always.
const BLOCKING_STAYS: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Descriptors of a session process that are not sessions: reactor, channel, files of handlers.
const SPARE_DESCRIPTORS: u64 = 256;

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Something in the file system or the settings.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The operation table and the handlers differ.
    #[error(transparent)]
    Handlers(#[from] handlers::Mismatch),
    /// The capabilities could not be reduced.
    #[error("cannot give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
    /// Another server runs below the same root.
    #[error("another vmserverd runs with this root; {} is locked", .0.display())]
    Running(PathBuf),
}

/// What the core reacts to.
#[derive(Debug)]
pub enum Event {
    /// From the gateway.
    Link(LinkEvent),
    /// From a session process.
    Process(ProcessId, ProcessEvent),
    /// From a machine process.
    Machine(MachineId, MachineEvent),
    /// From the metrics process.
    Metrics(MetricsEvent),
    /// Somebody has waited for events.
    EventsWaited(Asker),
    /// The right that a question needs was looked at.
    Proven {
        /// Who asks.
        asker: Asker,
        /// The question.
        ask: Ask,
        /// Whether the caller has it, and what was found out on the way.
        proven: Result<Proven, ops::Error>,
    },
    /// It was looked who owns which machine.
    Owners {
        /// The inquiry that it is for.
        inquiry: u64,
        /// Owners, with the paths of their machines.
        owners: Vec<(journal::Owner, Vec<String>)>,
    },
    /// An inquiry has taken long enough.
    InquiryOver {
        /// Its number.
        inquiry: u64,
    },
    /// The writer has worked.
    Stored(store::Results),
    /// It was found out how the host runs guests.
    Host {
        /// How.
        class: HostClass,
        /// Why it is not known for certain; may be empty.
        why: String,
    },
    /// Somebody has waited for a task to stop.
    StopWaited {
        /// The task.
        task: u64,
        /// Who waits.
        asker: Asker,
    },
}

/// Runs the server until it is told to stop.
///
/// # Errors
/// [`StartError`] when it cannot start; once started it ends well.
pub fn main(root: Option<&Path>, die_with_parent: bool) -> Result<(), Box<dyn std::error::Error>> {
    if die_with_parent {
        die_with_the_parent()?;
    }
    Ok(start(&Layout::new(root)?)?)
}

/// Asks for SIGTERM at the death of the parent, which may have died already.
fn die_with_the_parent() -> io::Result<()> {
    let parent = rustix::process::getppid();
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    if rustix::process::getppid() != parent {
        return Err(io::Error::other("the parent process has ended"));
    }
    Ok(())
}

fn start(layout: &Layout) -> Result<(), StartError> {
    raise_descriptor_limit();
    let settings = Settings::load(&layout.settings())?;
    layout.create_directories()?;
    let _lock = lock(layout)?;
    let level = crate::log::level_from_environment();
    let log = open_log(layout, level)?;
    abort_on_panic();
    // The log has the reason as well: whoever looks there has no terminal.
    serve(layout, &settings, level, log).inspect_err(|error| tracing::error!("not started: {error}"))
}

/// Lets this process and those it starts have as many descriptors as the system allows.
fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    // Not fatal: the number of sessions is clamped to what there is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Makes sure that there is one server for a root. The lock ends with the process.
fn lock(layout: &Layout) -> Result<File, StartError> {
    let path = layout.path("/run/vmware/vmserverd.lock");
    let file = ::link::logfile::open(&path)?;
    match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StartError::Running(path)),
        Err(error) => Err(io::Error::from(error).into()),
    }
}

fn open_log(layout: &Layout, level: tracing::Level) -> io::Result<Arc<Kept>> {
    let path = layout.log_directory().join("vmware-serverd.log");
    ::link::logfile::rotate(&path);
    let log = Arc::new(Kept::open(path)?);
    let sink = Arc::clone(&log);
    crate::log::install(level, move |level, text| sink.with(|file| crate::log::write(file, level, text)));
    Ok(log)
}

/// Opens the log anew on SIGHUP, which is what logrotate sends when it has moved the file.
async fn reopen_log(log: Arc<Kept>) {
    let Ok(mut hangup) = signal(SignalKind::hangup()) else { return };
    while hangup.recv().await.is_some() {
        if let Err(error) = log.reopen() {
            tracing::warn!("the log is written on where it was: {error}");
        }
    }
}

/// A core with a broken invariant must not go on; its supervisor starts a new one.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|info| {
        tracing::error!("{info}");
        eprintln!("vmserverd: {info}");
        std::process::abort();
    }));
}

fn serve(
    layout: &Layout,
    settings: &Settings,
    level: tracing::Level,
    log: Arc<Kept>,
) -> Result<(), StartError> {
    tracing::info!(
        "vmserverd {} starts, pid {}, root {}",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        layout.root().display()
    );
    // Session processes link for themselves; this is the check before anybody connects.
    handlers::link()?;
    for line in ops::table::listing() {
        tracing::info!("{line}");
    }
    let template = template(layout, settings, level);
    let admission = admission(layout, settings);
    let (sender, events) = mpsc::channel(WAITING_EVENTS);
    let shared = remembered(places(layout, settings), settings, layout.privileged, sender.clone())?;
    if layout.privileged {
        privileges::reduce()?;
    }
    let socket = Settings::path_or(&settings.authd.link, layout.link_socket());
    let mut supervisor = Supervisor::new(template, shared, sender.clone());
    supervisor.machines.program = program(settings)?;
    supervisor.audit = Audit::start(&layout.audit_log(), settings.audit.level, "vmserverd")?;
    supervisor.observe = Observe::new(layout, settings)?;
    supervisor.machines.records = Some(Records::open(&layout.path("/run/vmware/machines"))?);
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let builder = builder.enable_all().thread_keep_alive(BLOCKING_STAYS);
    let runtime = builder.build_local(tokio::runtime::LocalOptions::default())?;
    // One thread at least is there from now on: where no further one can be had, work waits for it.
    drop(runtime.spawn_blocking(|| ()));
    runtime.spawn_local(reopen_log(log));
    let result = ::link::reactor::run(&runtime, run(supervisor, admission, socket, sender, events));
    // A proof may wait for a file system that never answers.
    runtime.shutdown_background();
    Ok(result?)
}

/// Where things are that survive.
fn places(layout: &Layout, settings: &Settings) -> Places {
    Places {
        public: layout.path("/etc/vmware/vm-list"),
        private: layout.path("/etc/vmware/vm-list-private"),
        journal: layout.path("/var/lib/vmserverd/tasks"),
        event_logs: layout.path(&settings.serverd.eventlog.dir),
    }
}

/// What survives from earlier runs.
fn remembered(
    places: Places,
    settings: &Settings,
    privileged: bool,
    events: mpsc::Sender<Event>,
) -> io::Result<Shared> {
    let limits = Limits::from(&settings.serverd.tasks);
    std::fs::create_dir_all(&places.event_logs)
        .map_err(|error| ::link::layout::describe(&error, "cannot make", &places.event_logs))?;
    let inventory = Inventory::load(&places.public, &places.private)?;
    tracing::info!("{} machines are registered", inventory.len());
    let journal = match std::fs::read(&places.journal) {
        Ok(journal) => journal,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(::link::layout::describe(&error, "cannot read", &places.journal)),
    };
    let (tasks, lines) = Tasks::recover(limits, &String::from_utf8_lossy(&journal));
    if lines.as_bytes() != journal {
        store::replace_journal(&places.journal, &lines)?;
    }
    Ok(Shared { inventory, tasks, store: Some(Store::start(places, privileged, events)?) })
}

fn template(layout: &Layout, settings: &Settings, level: tracing::Level) -> Template {
    let serverd = &settings.serverd;
    let group = serverd.admin.group.as_str();
    let admin_group =
        if group.is_empty() { None } else { uzers::get_group_by_name(group).map(|found| found.gid()) };
    if !group.is_empty() && admin_group.is_none() {
        tracing::warn!("serverd.admin.group: there is no group {group}; only root is an administrator");
    }
    Template {
        product: serverd.product.clone(),
        idle: serverd.sessions.idle,
        historic_bugs: serverd.compat.historic_bugs,
        admin_group,
        level: crate::log::level_number(level),
        root: layout.root().to_string_lossy().into_owned(),
        event_logs: layout.path(&serverd.eventlog.dir).to_string_lossy().into_owned(),
        audit: settings.audit.level as u8,
    }
}

/// What runs machines.
fn program(settings: &Settings) -> io::Result<Program> {
    let machines = &settings.serverd.machines;
    let beside = std::env::current_exe()?.with_file_name("vmx");
    let vmx = Settings::path_or(&machines.vmx, beside).to_string_lossy().into_owned();
    Ok(Program { vmx, firmware: machines.firmware.clone() })
}

fn admission(layout: &Layout, settings: &Settings) -> Admission {
    let sessions = &settings.serverd.sessions;
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let room = u32::try_from(descriptors.saturating_sub(SPARE_DESCRIPTORS)).unwrap_or(u32::MAX);
    if room < sessions.per_user {
        tracing::warn!(
            "serverd.sessions.perUser is {}, but the descriptor limit of {descriptors} allows {room}",
            sessions.per_user
        );
    }
    let only = (!layout.privileged).then(|| rustix::process::getuid().as_raw());
    Admission::new(sessions.max, sessions.per_user.min(room), only)
}

/// Serves until SIGTERM or SIGINT, then finishes.
async fn run(
    supervisor: Supervisor,
    admission: Admission,
    socket: PathBuf,
    sender: mpsc::Sender<Event>,
    mut events: mpsc::Receiver<Event>,
) -> io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    notify(&[NotifyState::Status("waiting for vmware-authd")]);
    let published = Instant::now();
    let mut core = Core { supervisor, admission, ready: false, published, publish: published };
    core.supervisor.audit.record(Record::new(Kind::Start, Outcome::Ok));
    core.supervisor.start_metrics();
    // Before anybody can ask about them.
    core.supervisor.adopt_machines().await;
    tokio::spawn(probe::find_out(core.supervisor.machines.program.vmx.clone(), sender.clone()));
    tokio::spawn(link::keep(socket, sender));
    // What an earlier run left half done.
    core.supervisor.clean_up();
    loop {
        tokio::select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = tokio::time::sleep_until(core.publish) => core.publish(events.len()),
            Some(event) = events.recv() => core.event(event),
        }
    }
    tracing::info!("stopping");
    core.supervisor.observe.stop();
    core.supervisor.audit.record(Record::new(Kind::Stop, Outcome::Ok));
    notify(&[NotifyState::Stopping, NotifyState::Status("finishing requests")]);
    core.admission.stop();
    core.await_promised(&mut events).await;
    core.supervisor.finish();
    let deadline = Instant::now() + FINISH_WITHIN;
    if !core.drain(&mut events, deadline).await {
        core.supervisor.kill_all();
        core.drain(&mut events, deadline + KILL_WITHIN).await;
    }
    tracing::info!("stopped; {} requests were answered", core.supervisor.request_count());
    Ok(())
}

/// Tells the service manager, if there is one. That it cannot be told is not our business.
fn notify(state: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(state);
}

/// What the core is at any moment.
struct Core {
    supervisor: Supervisor,
    admission: Admission,
    /// The service manager was told that we are ready.
    ready: bool,
    /// When the state was published last.
    published: Instant,
    /// When it is to be published next.
    publish: Instant,
}

impl Core {
    /// Publishes what is so now; so many events wait.
    fn publish(&mut self, waiting: usize) {
        self.supervisor.publish(waiting as u64);
        self.published = Instant::now();
        self.publish = self.published + observe::HEARTBEAT;
    }

    fn event(&mut self, event: Event) {
        self.publish = self.publish.min(self.published + observe::SOON);
        match event {
            Event::Link(LinkEvent::Up(outbox)) => {
                self.supervisor.observe.linked(true);
                tracing::info!("linked to vmware-authd");
                self.supervisor.linked(outbox);
                if !self.ready {
                    notify(&[NotifyState::Ready]);
                    self.ready = true;
                }
                notify(&[NotifyState::Status("serving")]);
            }
            Event::Link(LinkEvent::Down) => {
                self.supervisor.observe.linked(false);
                self.supervisor.unlinked();
                self.supervisor.nobody_connects();
                self.admission.link_lost();
                notify(&[NotifyState::Status("waiting for vmware-authd")]);
            }
            Event::Link(LinkEvent::Message(message, fds)) => self.gateway(message, fds),
            Event::Process(id, event) => self.supervisor.event(id, event, &mut self.admission),
            Event::Machine(id, event) => self.supervisor.machine_event(id, event),
            Event::Metrics(event) => self.supervisor.metrics_event(event),
            Event::EventsWaited(asker) => self.supervisor.events_waited(&asker),
            Event::Proven { asker, ask, proven } => self.supervisor.proven(asker, ask, proven),
            Event::Owners { inquiry, owners } => self.supervisor.owners(inquiry, owners),
            Event::InquiryOver { inquiry } => self.supervisor.inquiry_over(inquiry),
            Event::Stored(results) => self.supervisor.stored(results),
            Event::Host { class, why } => {
                // Where it is not certain, each machine looks for itself.
                self.supervisor.machines.host = why.is_empty().then_some(class);
                let why = if why.is_empty() { why } else { format!(": {why}") };
                tracing::info!("guests run on this host: {}{why}", class.name());
                self.supervisor.shared.inventory.publish_host(class);
            }
            Event::StopWaited { task, asker } => self.supervisor.stop_waited(task, &asker),
        }
        // Before anybody can read an answer that says otherwise.
        self.supervisor.publish_running();
    }

    /// Whoever was told that he is connected is on his way here: takes him, before anybody is told to finish.
    async fn await_promised(&mut self, events: &mut mpsc::Receiver<Event>) {
        let deadline = Instant::now() + PROMISED_WITHIN;
        while self.admission.awaits(Instant::now()) {
            match tokio::time::timeout_at(deadline, events.recv()).await {
                Ok(Some(event)) => self.event(event),
                Ok(None) | Err(_) => return,
            }
        }
    }

    /// Keeps a place for a session; whoever gets none is told.
    fn reserve(&mut self, session: u64, uid: u32) -> bool {
        let reserved = self.admission.reserve(session, uid, Instant::now());
        // When this server has ended, the gateway asks the next one.
        if let Err(refusal) = &reserved
            && !matches!(refusal, Refusal::Stopping)
        {
            tracing::warn!("a session of uid {uid} is refused: {refusal}");
            self.supervisor.observe.sessions_refused += 1;
            self.supervisor.audit.ration(
                &uid.to_string(),
                Record {
                    uid: Some(uid),
                    detail: Some(refusal.to_string()),
                    ..Record::new(Kind::SessionBegin, Outcome::Refused)
                },
            );
            self.supervisor.tell_gateway(ToAuthd::Refuse { session, reason: refusal.to_string() });
        }
        reserved.is_ok()
    }

    /// Obeys the gateway.
    fn gateway(&mut self, message: ToServerd, fds: Vec<OwnedFd>) {
        match message {
            ToServerd::Reserve { session, uid } => {
                if self.reserve(session, uid) {
                    self.supervisor.tell_gateway(ToAuthd::Accept { session });
                }
            }
            ToServerd::Connect { session, identity, config, console } => {
                if self.reserve(session, identity.uid) {
                    self.supervisor.connect(session, &identity, config, console, &mut self.admission);
                }
            }
            ToServerd::Cancel { session } => {
                self.supervisor.connected(session);
                self.admission.cancel(session);
            }
            ToServerd::Figures {} => self.supervisor.observe.gateway(fds),
            ToServerd::Security { question, answer } => {
                self.supervisor.gateway_answered(question, answer.0);
            }
            ToServerd::Session { session, identity, early } => {
                let Some(socket) = fds.into_iter().next() else { return };
                let machine = self.supervisor.connected(session);
                match self.admission.admit(session, identity.uid) {
                    Ok(()) => {
                        self.supervisor.hand_over(identity, early, socket, machine, &mut self.admission);
                    }
                    // Dropping the socket closes it: the caller sees the end.
                    Err(refusal) => tracing::warn!(
                        "a session of {} (uid {}) is closed: {refusal}",
                        for_log(identity.name.as_bytes()),
                        identity.uid
                    ),
                }
            }
        }
    }

    /// Goes on until no session process is left; false when that takes longer than `deadline`.
    async fn drain(&mut self, events: &mut mpsc::Receiver<Event>, deadline: Instant) -> bool {
        while !self.supervisor.is_empty() {
            match tokio::time::timeout_at(deadline, events.recv()).await {
                Ok(Some(event)) => self.event(event),
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}
