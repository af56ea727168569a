//! The root half of the gateway: proves identities, binds them to sockets, hands sessions over.
//!
//! One task owns all state and takes one event at a time; everything that can take long (PAM, name
//! service, delays, the link) happens in tasks and processes of its own and comes back as an event.
//!
//! ```text
//!   net child ─┐                                   ┌─▶ verdicts to the net child
//!   helpers ───┤   events   ┌──────────────────┐   │
//!   delays ────┼───────────▶│     Monitor      │───┼─▶ jobs for helpers
//!   link ──────┤            │ connections,     │   │
//!   signals ───┘            │ delays, link     │   └─▶ sessions to the server core
//!                           └──────────────────┘
//! ```
//!
//! An identity is bound to the very socket that was proven. A plain session is handed over as that
//! socket, whatever the network child says later; a TLS session brings the end of a relay.

pub mod delays;
pub mod helpers;
pub mod listeners;
pub mod local;
pub mod security;
pub mod settings;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use link::audit::{Audit, Kind, Origin, Outcome as Ending, Record};
use link::channel::{Channel, Outbox, pair};
use link::figures::{Logins, Tries};
use link::gateway::{Declined, ToAuthd, ToServerd};
use link::identity::{Account, Identity, Proof, for_log};
use link::logfile::Sink;
use link::page::Page;
use link::wire::Message;
use link::{Layout, Settings};
use rustix::process::Signal;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_seqpacket::UnixSeqpacketListener;

use crate::messages::{FromInetd, FromMonitor, ToHelper, ToInetd, ToMonitor};
use crate::monitor::delays::Delays;
use crate::monitor::helpers::{Helpers, Outcome};
use crate::monitor::listeners::{Listener, Place};
use crate::monitor::local::{Broken, Peer};
use crate::source::{End, Source};

/// How long the server may take to say whether it takes a session.
const RESERVE_PATIENCE: Duration = Duration::from_secs(5);
/// Accounts found by uid are remembered so long: a new group membership counts soon after.
const ACCOUNT_MEMORY: Duration = Duration::from_secs(5);
/// How long the network child may take to be done with its callers.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// Pause before a network child that died is started again.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// How long a super-server's gateway may take to hand its caller on, once it has connected.
const HAND_PATIENCE: Duration = Duration::from_secs(5);
/// Events, and messages to a peer, that may wait.
const QUEUE: usize = 8192;

/// What the monitor reacts to.
enum Event {
    /// A message of the network child of this generation.
    Net(u64, ToMonitor, Vec<OwnedFd>),
    /// That child's channel has ended.
    NetGone(u64),
    /// Time to start another.
    NetStart,
    /// A password was checked, or a uid looked up.
    Outcome(Attempt, Proven, Outcome),
    /// PAM was asked, and so long it took from the password's arrival.
    Checked(Duration),
    /// The delay of a failed login is over.
    Refuse(Attempt),
    /// A server connected to the link.
    LinkUp(Channel<ToServerd, ToAuthd>),
    /// A message of the server on the link of this generation.
    Link(u64, ToAuthd),
    /// That link has ended.
    LinkGone(u64),
    /// The server has not answered about this session in time.
    ReserveOver(u64),
    /// A super-server's gateway hands its caller on.
    Handed(Channel<ToInetd, FromInetd>, OwnedFd),
    /// What an administrator wants with certificates or settings is done, or cannot be.
    Secured(security::Asker, Result<security::Done, link::security::Answer>),
    /// SIGHUP.
    Reload,
    /// SIGTERM or SIGINT.
    Stop,
}

/// One try of one connection to log in. The serial tells it from a later try on the same connection.
#[derive(Debug, Clone)]
struct Attempt {
    connection: u32,
    serial: u64,
    arrived: Instant,
}

/// How the login of an attempt is proven.
#[derive(Debug, Clone)]
enum Proven {
    Password { name: Vec<u8> },
    Local(Peer),
}

/// A way to log in.
#[derive(Debug, Clone, Copy)]
enum Way {
    Pass,
    Unix,
    Tcp,
}

impl Way {
    fn of(proven: &Proven) -> Self {
        match proven {
            Proven::Password { .. } => Way::Pass,
            Proven::Local(Peer::Unix { .. }) => Way::Unix,
            Proven::Local(Peer::Tcp { .. }) => Way::Tcp,
        }
    }

    fn word(self) -> &'static str {
        if matches!(self, Way::Pass) { "PASS" } else { "LOCAL" }
    }

    fn tries(self, logins: &mut Logins) -> &mut Tries {
        match self {
            Way::Pass => &mut logins.pass,
            Way::Unix => &mut logins.unix,
            Way::Tcp => &mut logins.tcp,
        }
    }
}

/// A connection that has tried to log in.
struct Connection {
    /// The caller's socket, to which everything below belongs.
    socket: OwnedFd,
    source: Source,
    /// Address for logs.
    shown: String,
    /// The caller's port or process.
    origin: u32,
    tls: bool,
    /// The latest try.
    serial: u64,
    login: Option<Login>,
    /// Reserved at the server.
    session: Option<Reserved>,
    /// The machine of a `CONNECT` that is under way.
    machine: Option<String>,
}

struct Login {
    identity: Identity,
    /// For a local login: what was proven.
    peer: Option<Peer>,
    /// The proof need not be repeated, or was.
    confirmed: bool,
}

#[derive(Clone, Copy)]
struct Reserved {
    session: u64,
    granted: bool,
}

/// The link to the server core.
struct Link {
    generation: u64,
    outbox: Outbox<ToServerd>,
    /// Ends when the outbox is closed and empty.
    writer: JoinHandle<io::Result<()>>,
}

/// The network child.
struct Net {
    generation: u64,
    outbox: Outbox<FromMonitor>,
    process: Child,
    started: Instant,
}

struct Monitor {
    layout: Layout,
    settings: Settings,
    /// The current configuration message and listeners, for a network child that must be restarted.
    config: FromMonitor,
    listeners: Vec<Listener>,
    log: Sink,
    /// The user of the network child; nobody to switch to when we are not root.
    net_user: Option<(u32, u32)>,
    helpers: Helpers,
    delays: Delays,
    connections: HashMap<u32, Connection>,
    /// Which connection a reserved session belongs to.
    sessions: HashMap<u64, u32>,
    /// When a reserved session is given up. All wait equally long, so the queue is in order.
    overdue: VecDeque<(Instant, u64)>,
    /// What the server was asked about those sessions, for the one that comes after it.
    unanswered: BTreeMap<u64, ToServerd>,
    /// When there was a server last, or we were started.
    link_lost: Instant,
    accounts: HashMap<u32, (Account, Instant)>,
    net: Option<Net>,
    link: Option<Link>,
    /// What is encrypted, and with which certificate.
    state: security::State,
    questions: security::Questions,
    serial: u64,
    ready: bool,
    /// The network child goes on alone when we have ended, for callers who talk through TLS.
    relays_left: bool,
    figures: Figures,
    audit: Audit,
    events: mpsc::Sender<Event>,
}

/// What is published for monitoring.
struct Figures {
    logins: Logins,
    /// Something was counted since it was published.
    changed: bool,
    page: Page,
    /// The network child's.
    front: Page,
}

impl Figures {
    fn new() -> io::Result<Self> {
        let mut page = Page::new("vmware-authd-logins")?;
        page.publish(&Logins::default());
        let front = Page::new("vmware-authd-front")?;
        Ok(Figures { logins: Logins::default(), changed: false, page, front })
    }

    fn count(&mut self, count: impl FnOnce(&mut Logins)) {
        count(&mut self.logins);
        self.changed = true;
    }
}

/// Runs the gateway until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start; the text is for the operator.
pub fn run(root: Option<&Path>, die_with_parent: bool) -> io::Result<()> {
    abort_on_panic();
    if die_with_parent {
        rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let layout = Layout::new(root)?;
    layout.create_directories()?;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    link::reactor::run(&runtime, serve(layout))
}

/// A monitor in an unknown state must not go on: one event at a time is its only discipline.
fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

async fn serve(layout: Layout) -> io::Result<()> {
    let loaded = settings::load(&layout)?;
    let log = settings::open_log(&layout)?;
    let inherited = listeners::inherited(loaded.tls, loaded.settings.authd.plain_port);
    let listeners =
        if inherited.is_empty() { listeners::open(loaded.places.clone(), Vec::new())? } else { inherited };
    let audit = Audit::start(&layout.audit_log(), loaded.settings.audit.level, crate::IDENT)?;
    audit.record(Record::new(Kind::Start, Ending::Ok));
    let link_socket = listen_for_ours(&loaded.link)?;
    let inetd_path = layout.inetd_socket();
    let inetd_socket = listen_for_ours(&inetd_path)?;
    let (events, mut incoming) = mpsc::channel(QUEUE);
    let (base, limit) = settings::delays(&loaded.settings);
    let mut monitor = Monitor {
        config: settings::message(&loaded, &listeners),
        listeners,
        log,
        net_user: layout.privileged.then(|| layout.service_user()),
        helpers: Helpers::new(loaded.settings.authd.pam.workers as usize),
        delays: Delays::new(base, limit),
        settings: loaded.settings,
        connections: HashMap::new(),
        sessions: HashMap::new(),
        overdue: VecDeque::new(),
        unanswered: BTreeMap::new(),
        link_lost: Instant::now(),
        accounts: HashMap::new(),
        net: None,
        link: None,
        state: loaded.state,
        questions: security::Questions::default(),
        serial: 0,
        ready: false,
        relays_left: false,
        figures: Figures::new()?,
        audit,
        events: events.clone(),
        layout,
    };
    let linked = events.clone();
    tokio::spawn(accept_ours(link_socket, loaded.link.clone(), async move |channel| {
        linked.send(Event::LinkUp(channel)).await.is_ok()
    }));
    let handed = events.clone();
    tokio::spawn(accept_ours(inetd_socket, inetd_path.clone(), async move |channel| {
        tokio::spawn(receive_caller(channel, handed.clone()));
        !handed.is_closed()
    }));
    tokio::spawn(watch_signals(events));
    monitor.start_net()?;
    loop {
        let event = tokio::select! {
            event = incoming.recv() => event,
            session = monitor.next_overdue() => Some(Event::ReserveOver(session)),
        };
        match event {
            None | Some(Event::Stop) => break,
            Some(event) => monitor.take(event),
        }
        if std::mem::take(&mut monitor.figures.changed) {
            monitor.figures.page.publish(&monitor.figures.logins);
        }
    }
    monitor.begin_stop(&[&loaded.link, &inetd_path]);
    let drained = tokio::time::timeout(STOP_PATIENCE, monitor.drain(&mut incoming)).await;
    if drained.is_err() {
        monitor.log("the network process did not end in time");
    }
    Ok(())
}

/// Opens a socket for processes of ours: the server's link, and callers that a super-server accepted.
fn listen_for_ours(path: &Path) -> io::Result<UnixSeqpacketListener> {
    use std::os::unix::fs::PermissionsExt;
    listeners::remove_stale(path)?;
    let describe = |error: io::Error| link::layout::describe(&error, "cannot listen on", path);
    let listener = UnixSeqpacketListener::bind(path).map_err(describe)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(describe)?;
    Ok(listener)
}

/// Takes those who connect to such a socket, until `take` wants no more. Only root, or the user we run as, is ours.
async fn accept_ours<Tx: Message, Rx: Message>(
    mut listener: UnixSeqpacketListener,
    path: PathBuf,
    take: impl AsyncFn(Channel<Tx, Rx>) -> bool,
) {
    let own = rustix::process::geteuid().as_raw();
    loop {
        match listener.accept().await {
            Ok(socket) => {
                let Ok(channel) = Channel::from_socket(socket) else { continue };
                let trusted = channel.peer_uid().is_ok_and(|uid| uid == 0 || uid == own);
                if trusted && !take(channel).await {
                    return;
                }
            }
            Err(error) => {
                eprintln!("vmware-authd: {}: {error}", path.display());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

/// Takes the caller of a super-server's gateway. One that brings none is not waited for long.
async fn receive_caller(channel: Channel<ToInetd, FromInetd>, events: mpsc::Sender<Event>) {
    if let Ok(Ok(Some((FromInetd::Caller {}, mut fds)))) =
        tokio::time::timeout(HAND_PATIENCE, channel.recv()).await
        && let Some(caller) = fds.pop()
    {
        // A monitor that is gone takes nobody, which the other end sees.
        let _ = events.send(Event::Handed(channel, caller)).await;
    }
}

async fn watch_signals(events: mpsc::Sender<Event>) {
    let (Ok(mut hangup), Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::hangup()), signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    loop {
        let event = tokio::select! {
            _ = hangup.recv() => Event::Reload,
            _ = term.recv() => Event::Stop,
            _ = interrupt.recv() => Event::Stop,
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// Turns a channel into events of one generation.
async fn pump<Tx: Message, Rx: Message>(
    channel: Arc<Channel<Tx, Rx>>,
    events: mpsc::Sender<Event>,
    message: impl Fn(Rx, Vec<OwnedFd>) -> Event,
    gone: Event,
) {
    // A broken message ends the channel like its end does.
    while let Ok(Some((received, fds))) = channel.recv().await {
        if events.send(message(received, fds)).await.is_err() {
            return;
        }
    }
    let _ = events.send(gone).await;
}

impl Monitor {
    fn log(&self, text: &str) {
        self.log.line(crate::IDENT, std::process::id(), text);
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }

    /// Sends an event later, without holding anything up.
    fn later(&self, at: Instant, event: Event) {
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            // Nobody listens when the monitor stops.
            let _ = events.send(event).await;
        });
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Net(generation, message, fds) if self.is_net(generation) => self.net_says(message, fds),
            Event::NetGone(generation) if self.is_net(generation) => self.net_gone(),
            Event::Net(..) | Event::NetGone(_) => {}
            Event::NetStart => {
                if let Err(error) = self.start_net() {
                    self.log(&format!("the network process cannot be started: {error}"));
                    self.later(Instant::now() + 5 * RESTART_PAUSE, Event::NetStart);
                }
            }
            Event::Outcome(attempt, proven, outcome) => self.outcome(&attempt, &proven, outcome),
            Event::Checked(took) => self.figures.count(|logins| {
                logins.checked(took);
                logins.checking = logins.checking.saturating_sub(1);
            }),
            Event::Refuse(attempt) => self.verdict(&attempt, None),
            Event::LinkUp(channel) => self.link_up(channel),
            Event::Link(generation, message) if self.is_link(generation) => {
                self.server_says(generation, message);
            }
            Event::LinkGone(generation) if self.is_link(generation) => self.link_gone(),
            Event::Link(..) | Event::LinkGone(_) => {}
            Event::ReserveOver(session) => self.reserved(session, 1),
            Event::Handed(channel, caller) => self.handed(channel, caller),
            Event::Secured(asker, done) => self.secured(asker, done),
            Event::Reload => self.reload(),
            Event::Stop => {}
        }
    }

    // ---- the network child -------------------------------------------------------------------

    fn is_net(&self, generation: u64) -> bool {
        self.net.as_ref().is_some_and(|net| net.generation == generation)
    }

    fn start_net(&mut self) -> io::Result<()> {
        let (ours, theirs) = pair()?;
        let mut command = helpers::command("net", theirs);
        if let Some((uid, gid)) = self.net_user {
            // The standard library drops all other groups when it switches as root.
            command.uid(uid).gid(gid);
        }
        let process = command.spawn()?;
        let channel: Arc<Channel<FromMonitor, ToMonitor>> = Arc::new(Channel::from_fd(ours)?);
        let outbox = Outbox::new(QUEUE);
        let generation = self.next_serial();
        tokio::spawn(outbox.clone().run(Arc::clone(&channel)));
        tokio::spawn(pump(
            channel,
            self.events.clone(),
            move |message, fds| Event::Net(generation, message, fds),
            Event::NetGone(generation),
        ));
        self.net = Some(Net { generation, outbox, process, started: Instant::now() });
        self.send_config()
    }

    fn send_config(&self) -> io::Result<()> {
        let mut fds = Vec::new();
        for listener in &self.listeners {
            fds.push(listener.socket.try_clone()?);
        }
        fds.push(self.log.as_fd().try_clone_to_owned()?);
        fds.push(self.figures.front.writer()?);
        self.tell_net(self.config.clone(), fds);
        Ok(())
    }

    fn tell_net(&self, message: FromMonitor, fds: Vec<OwnedFd>) {
        if let Some(net) = &self.net {
            // A child that does not read is ended by its channel's reader.
            let _ = net.outbox.push(message, fds);
        }
    }

    /// The network child is gone: so are the callers that were not handed over.
    fn net_gone(&mut self) {
        let died_young = self.net.take().is_some_and(|net| net.started.elapsed() < Duration::from_secs(1));
        let sessions: Vec<u64> = self
            .connections
            .drain()
            .filter_map(|(_, connection)| connection.session)
            .map(|r| r.session)
            .collect();
        self.sessions.clear();
        self.nothing_to_confirm();
        for session in sessions {
            self.tell_server(ToServerd::Cancel { session }, Vec::new());
        }
        self.log("the network process ended and is started again");
        let pause = if died_young { 5 * RESTART_PAUSE } else { RESTART_PAUSE };
        self.later(Instant::now() + pause, Event::NetStart);
    }

    fn net_says(&mut self, message: ToMonitor, mut fds: Vec<OwnedFd>) {
        match message {
            ToMonitor::Ready {} => self.announce(),
            ToMonitor::Password { connection, name, password, usable, tls } => {
                let password = zeroize::Zeroizing::new(password);
                if let Some(attempt) = self.attempt(connection, fds.pop(), tls) {
                    self.password(attempt, name, &password, usable);
                }
            }
            ToMonitor::Local { connection, tls } => {
                if let Some(attempt) = self.attempt(connection, fds.pop(), tls) {
                    self.local(attempt);
                }
            }
            ToMonitor::Configured { error } => self.configured(error),
            ToMonitor::Confirm { connection } => self.confirm(connection),
            ToMonitor::Reserve { connection } => self.reserve(connection, None),
            ToMonitor::Connect { connection, config, console } => {
                self.reserve(connection, Some((config, console)));
            }
            ToMonitor::Drained { relays } => self.relays_left = relays > 0,
            ToMonitor::HandOver { connection, early } => self.hand_over(connection, early, fds.pop()),
            ToMonitor::Forget { connection } => {
                let session = self.connections.remove(&connection).and_then(|gone| gone.session);
                if let Some(Reserved { session, .. }) = session {
                    self.sessions.remove(&session);
                    self.unanswered.remove(&session);
                    self.tell_server(ToServerd::Cancel { session }, Vec::new());
                }
            }
        }
    }

    /// A caller that a super-server has accepted is served by the network child, like its own.
    fn handed(&self, channel: Channel<ToInetd, FromInetd>, caller: OwnedFd) {
        let stream = rustix::net::sockopt::socket_type(&caller)
            .is_ok_and(|kind| kind == rustix::net::SocketType::STREAM);
        let Some(End::Tcp(ends)) = End::of_socket(&caller).filter(|_| stream) else {
            return self.log("a super-server handed on what is no TCP connection, or not any more");
        };
        let plain_port = self.settings.authd.plain_port;
        let kind = listeners::spoken(Some(ends.own.port()), self.state.console, plain_port);
        let message = FromMonitor::Caller { kind: kind as u8 };
        // Not taken while there is no child: the other end tries again.
        if self.net.as_ref().is_some_and(|net| net.outbox.push(message, vec![caller]).is_ok()) {
            tokio::spawn(async move {
                let _ = channel.send(&ToInetd::Taken {}, &[]).await;
            });
        }
    }

    fn announce(&mut self) {
        if std::mem::replace(&mut self.ready, true) {
            return;
        }
        let places: Vec<String> = self
            .listeners
            .iter()
            .map(|listener| format!("{}={}", listener.kind.word(), listener.shown()))
            .collect();
        let status = format!("serving {}", places.join(" "));
        self.log(&status);
        // Without a service manager there is nobody to tell.
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready, sd_notify::NotifyState::Status(&status)]);
    }

    // ---- logging in --------------------------------------------------------------------------

    /// Starts a try to log in: whatever was proven on this connection before is void.
    fn attempt(&mut self, number: u32, socket: Option<OwnedFd>, tls: bool) -> Option<Attempt> {
        let socket = socket?;
        let serial = self.next_serial();
        let attempt = Attempt { connection: number, serial, arrived: Instant::now() };
        let Some(end) = End::of_socket(&socket) else {
            // The caller has gone; the child will find out.
            self.tell_net(FromMonitor::Verdict { connection: number, user: None }, Vec::new());
            return None;
        };
        let (source, shown, origin) = (end.source(), end.to_string(), end.origin());
        let connection = Connection {
            socket,
            source,
            shown,
            origin,
            tls,
            serial,
            login: None,
            session: None,
            machine: None,
        };
        self.connections.insert(number, connection);
        Some(attempt)
    }

    fn connection(&self, attempt: &Attempt) -> Option<&Connection> {
        self.connections.get(&attempt.connection).filter(|connection| connection.serial == attempt.serial)
    }

    fn password(&mut self, attempt: Attempt, name: Vec<u8>, password: &[u8], usable: bool) {
        let Some(connection) = self.connection(&attempt) else {
            return;
        };
        let proven = Proven::Password { name: name.clone() };
        if !usable || !self.layout.privileged {
            // An ordinary user's instance cannot ask PAM: every password is wrong.
            self.outcome(&attempt, &proven, (None, String::new()));
            return;
        }
        let question = ToHelper::Check {
            service: self.settings.authd.pam.service.clone(),
            name,
            password: password.to_vec(),
            remote_host: connection.shown.clone(),
        };
        let (helpers, events, source) = (self.helpers.clone(), self.events.clone(), connection.source);
        self.figures.count(|logins| logins.checking += 1);
        tokio::spawn(async move {
            let outcome = helpers.check(source, question).await;
            let _ = events.send(Event::Checked(attempt.arrived.elapsed())).await;
            let _ = events.send(Event::Outcome(attempt, proven, outcome)).await;
        });
    }

    fn local(&mut self, attempt: Attempt) {
        let Some(connection) = self.connection(&attempt) else {
            return;
        };
        let peer = local::prove(&connection.socket, self.settings.authd.local.tcp);
        let own = rustix::process::geteuid().as_raw();
        let peer = match peer {
            Ok(peer) if !self.layout.privileged && peer.uid() != own => Err(Broken::OtherUser(peer.uid())),
            other => other,
        };
        match peer {
            Err(broken) => self.local_refused(&attempt, broken),
            Ok(peer) => match self.remembered(peer.uid()) {
                Some(account) => self.outcome(&attempt, &Proven::Local(peer), (Some(account), String::new())),
                None => {
                    let (helpers, events) = (self.helpers.clone(), self.events.clone());
                    tokio::spawn(async move {
                        let outcome = helpers.lookup(peer.uid()).await;
                        let _ = events.send(Event::Outcome(attempt, Proven::Local(peer), outcome)).await;
                    });
                }
            },
        }
    }

    fn remembered(&mut self, uid: u32) -> Option<Account> {
        self.accounts.retain(|_, (_, since)| since.elapsed() < ACCOUNT_MEMORY);
        self.accounts.get(&uid).map(|(account, _)| account.clone())
    }

    /// A password was checked, or the account of a local caller was looked up.
    fn outcome(&mut self, attempt: &Attempt, proven: &Proven, (account, note): Outcome) {
        let Some(connection) = self.connection(attempt) else {
            return;
        };
        let (shown, origin, tls) = (connection.shown.clone(), connection.origin, connection.tls);
        let Some(account) = account else {
            match proven {
                Proven::Local(peer) => self.local_refused(attempt, Broken::NoAccount(peer.uid())),
                Proven::Password { name } => {
                    let name = name.clone();
                    self.log(&format!("login failed from {shown} as {}", for_log(&name)));
                    let nobody_said = note.contains("helper") || note.contains("no answer");
                    let (outcome, detail) = if nobody_said {
                        (Ending::Failed, note.clone())
                    } else {
                        (Ending::Refused, "wrong name or password".to_owned())
                    };
                    self.not_logged_in(attempt, Way::Pass, outcome, Some(&name), detail);
                    if nobody_said {
                        self.log(&format!("password check of {} failed: {note}", for_log(&name)));
                    }
                    self.refuse_later(attempt, Some(&name));
                }
            }
            return;
        };
        let name = for_log(account.name.as_bytes());
        let way = Way::of(proven);
        self.figures.count(|logins| way.tries(logins).ok += 1);
        let record = Record {
            user: Some(account.name.clone()),
            uid: Some(account.uid),
            origin: Some(Origin::new(&shown, origin, tls, way.word())),
            ..Record::new(Kind::Login, Ending::Ok)
        };
        if account.uid == 0 {
            self.audit.record(record);
        } else {
            self.audit.ration(&account.uid.to_string(), record);
        }
        let (proof, peer) = match proven {
            Proven::Password { .. } => (Proof::Pam, None),
            Proven::Local(peer @ Peer::Unix { pid, .. }) => {
                self.log(&format!("local login as {name} (unix, pid {pid})"));
                (Proof::Unix, Some(*peer))
            }
            Proven::Local(peer @ Peer::Tcp { port, .. }) => {
                self.log(&format!("local login as {name} (tcp, port {port})"));
                (Proof::Tcp, Some(*peer))
            }
        };
        if proof != Proof::Unix {
            // The trailing space is part of the product's line.
            self.log(&format!("login from {shown} as {name} "));
        }
        if let Proven::Local(peer) = proven {
            self.accounts.entry(peer.uid()).or_insert_with(|| (account.clone(), Instant::now()));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let user = account.name.clone();
        let identity = account.identity(proof, (shown, origin), tls, now);
        if let Some(connection) = self.connections.get_mut(&attempt.connection) {
            connection.login = Some(Login { identity, peer, confirmed: proof != Proof::Tcp });
        }
        self.verdict(attempt, Some(user));
    }

    /// Counts and records a try to log in that did not succeed. The name is what the caller said.
    fn not_logged_in(
        &mut self,
        attempt: &Attempt,
        way: Way,
        outcome: Ending,
        name: Option<&[u8]>,
        detail: String,
    ) {
        self.figures.count(|logins| {
            let tries = way.tries(logins);
            *if outcome == Ending::Failed { &mut tries.failed } else { &mut tries.refused } += 1;
        });
        let Some(connection) = self.connection(attempt) else { return };
        let record = Record {
            user: name.map(|name| String::from_utf8_lossy(name).into_owned()),
            origin: Some(Origin::new(&connection.shown, connection.origin, connection.tls, way.word())),
            detail: Some(detail),
            ..Record::new(Kind::Login, outcome)
        };
        self.audit.ration(&connection.source.to_string(), record);
    }

    fn local_refused(&mut self, attempt: &Attempt, broken: Broken) {
        if let Some(connection) = self.connection(attempt) {
            let shown = connection.shown.clone();
            let way = if shown == "unix" { Way::Unix } else { Way::Tcp };
            self.log(&format!("local login refused from {shown}: {broken}"));
            self.not_logged_in(attempt, way, Ending::Refused, None, broken.to_string());
            self.refuse_later(attempt, None);
        }
    }

    /// Counts a failure, and answers it when its time has come, counted from the password's arrival.
    fn refuse_later(&mut self, attempt: &Attempt, name: Option<&[u8]>) {
        let Some(source) = self.connection(attempt).map(|connection| connection.source) else {
            return;
        };
        let delay = self.delays.failed(source, name, Instant::now());
        self.later(attempt.arrived + delay, Event::Refuse(attempt.clone()));
    }

    fn verdict(&self, attempt: &Attempt, user: Option<String>) {
        if self.connection(attempt).is_some() {
            self.tell_net(FromMonitor::Verdict { connection: attempt.connection, user }, Vec::new());
        }
    }

    /// The first command after a local login over TCP was read: is the owner still the same?
    fn confirm(&mut self, number: u32) {
        let mut same = false;
        let mut refusal = None;
        if let Some(connection) = self.connections.get_mut(&number)
            && let Some(login) = &mut connection.login
        {
            match login.peer.map(|peer| local::confirm(&connection.socket, peer)) {
                None | Some(Ok(())) => (login.confirmed, same) = (true, true),
                Some(Err(broken)) => refusal = Some((connection.shown.clone(), broken)),
            }
        }
        if let Some((shown, broken)) = refusal {
            self.log(&format!("local login refused from {shown}: {broken}"));
            self.figures.count(|logins| logins.tcp.refused += 1);
            if let Some(gone) = self.connections.remove(&number) {
                let record = Record {
                    origin: Some(Origin::new(&gone.shown, gone.origin, gone.tls, Way::Tcp.word())),
                    detail: Some(broken.to_string()),
                    ..Record::new(Kind::Login, Ending::Refused)
                };
                self.audit.ration(&gone.source.to_string(), record);
            }
        }
        self.tell_net(FromMonitor::Confirmed { connection: number, same }, Vec::new());
    }

    // ---- handing over ------------------------------------------------------------------------

    /// Asks the server for a place, for a session or for a connection to one machine.
    fn reserve(&mut self, number: u32, machine: Option<(String, bool)>) {
        let serial = self.next_serial();
        let request = self.connections.get_mut(&number).and_then(|connection| {
            let login = connection.login.as_ref().filter(|login| login.confirmed)?;
            connection.session = Some(Reserved { session: serial, granted: false });
            connection.machine = machine.as_ref().map(|(config, _)| config.clone());
            Some(match machine {
                None => ToServerd::Reserve { session: serial, uid: login.identity.uid },
                Some((config, console)) => {
                    let identity = login.identity.clone();
                    ToServerd::Connect { session: serial, identity, config, console }
                }
            })
        });
        let waits = request.is_some_and(|request| {
            // A server that is about to come, or to come back, is worth a moment.
            let waits = self.tell_server(request.clone(), Vec::new())
                || (self.link.is_none() && self.link_lost.elapsed() < RESERVE_PATIENCE);
            if waits {
                self.unanswered.insert(serial, request);
            }
            waits
        });
        if waits {
            self.sessions.insert(serial, number);
            self.overdue.push_back((Instant::now() + RESERVE_PATIENCE, serial));
        } else {
            if let Some(connection) = self.connections.get_mut(&number) {
                connection.session = None;
            }
            self.tell_net(FromMonitor::Reserved { connection: number, outcome: 1 }, Vec::new());
        }
    }

    /// Waits for the first reservation that the server has not answered in time. Cancel safe.
    async fn next_overdue(&mut self) -> u64 {
        while self.overdue.front().is_some_and(|(_, session)| !self.sessions.contains_key(session)) {
            self.overdue.pop_front();
        }
        match self.overdue.front() {
            Some(&(at, session)) => {
                tokio::time::sleep_until(at.into()).await;
                session
            }
            None => std::future::pending().await,
        }
    }

    /// The server has answered about a session, or has not (`outcome` 1).
    fn reserved(&mut self, session: u64, outcome: u8) {
        self.unanswered.remove(&session);
        let Some(number) = self.sessions.remove(&session) else {
            return;
        };
        let Some(connection) = self.connections.get_mut(&number) else {
            return;
        };
        if connection.session.is_none_or(|reserved| reserved.session != session || reserved.granted) {
            return;
        }
        connection.session = (outcome == 0).then_some(Reserved { session, granted: true });
        self.tell_net(FromMonitor::Reserved { connection: number, outcome }, Vec::new());
    }

    /// Records that somebody may not be connected to a machine.
    fn audit_declined(&self, session: u64, why: Declined) {
        let connection = self.sessions.get(&session).and_then(|number| self.connections.get(number));
        let Some((connection, login)) = connection.and_then(|one| Some((one, one.login.as_ref()?))) else {
            return;
        };
        let Connection { shown, origin, tls, machine, .. } = connection;
        let way = if login.peer.is_some() { "LOCAL" } else { "PASS" };
        let why = if why == Declined::Denied {
            "not executable by the user"
        } else {
            "not registered, or not readable"
        };
        let uid = login.identity.uid;
        let record = Record {
            user: Some(login.identity.name.clone()),
            uid: Some(uid),
            origin: Some(Origin::new(shown, *origin, *tls, way)),
            machine: machine.clone(),
            detail: Some(format!("connect: {why}")),
            ..Record::new(Kind::Permission, Ending::Refused)
        };
        self.audit.ration(&uid.to_string(), record);
    }

    fn hand_over(&mut self, number: u32, early: Vec<u8>, relay_end: Option<OwnedFd>) {
        // The child says when, never what: identity and, for a plain session, the socket are ours.
        let Some(connection) = self.connections.remove(&number) else {
            return;
        };
        let Connection { socket, tls, login, session, machine, .. } = connection;
        let (Some(login), Some(Reserved { session, granted: true })) = (login, session) else {
            return;
        };
        let end = match (tls, relay_end) {
            (true, Some(end)) => end,
            (false, None) => socket,
            _ => {
                self.tell_server(ToServerd::Cancel { session }, Vec::new());
                return;
            }
        };
        let name = for_log(login.identity.name.as_bytes());
        if self.tell_server(ToServerd::Session { session, identity: login.identity, early }, vec![end]) {
            self.figures.count(|logins| logins.handed_over += 1);
            match machine {
                None => self.log(&format!("session of {name} handed to serverd")),
                Some(config) => {
                    let config = for_log(config.as_bytes());
                    self.log(&format!("session of {name} handed to control of {config}"));
                }
            }
        }
    }

    fn is_link(&self, generation: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.generation == generation)
    }

    fn tell_server(&self, message: ToServerd, fds: Vec<OwnedFd>) -> bool {
        self.link.as_ref().is_some_and(|link| link.outbox.push(message, fds).is_ok())
    }

    /// A server connected. The newest one counts: the old one may be a process that is about to end.
    fn link_up(&mut self, channel: Channel<ToServerd, ToAuthd>) {
        self.link_gone();
        let generation = self.next_serial();
        let channel = Arc::new(channel);
        let outbox = Outbox::new(QUEUE);
        let writer = tokio::spawn(outbox.clone().run(Arc::clone(&channel)));
        tokio::spawn(pump(
            channel,
            self.events.clone(),
            move |message, _| Event::Link(generation, message),
            Event::LinkGone(generation),
        ));
        if let (Ok(logins), Ok(front)) = (self.figures.page.reader(), self.figures.front.reader()) {
            let _ = outbox.push(ToServerd::Figures {}, vec![logins, front]);
        }
        self.link = Some(Link { generation, outbox, writer });
        // What nobody, or the server before it, has answered.
        self.unanswered.retain(|session, _| self.sessions.contains_key(session));
        for request in self.unanswered.values() {
            self.tell_server(request.clone(), Vec::new());
        }
    }

    fn link_gone(&mut self) {
        let Some(link) = self.link.take() else {
            return;
        };
        link.outbox.close();
        // Who waits for a place does so a little longer: a server that was restarted is soon back.
        self.link_lost = Instant::now();
    }

    fn server_says(&mut self, generation: u64, message: ToAuthd) {
        match message {
            ToAuthd::Hello { pid } => self.log(&format!("vmserverd is connected (pid {pid})")),
            ToAuthd::Accept { session } => self.reserved(session, 0),
            ToAuthd::Refuse { session, reason } => {
                self.log(&format!("serverd refused a session: {}", for_log(reason.as_bytes())));
                self.reserved(session, 2);
            }
            ToAuthd::Decline { session, why } => {
                if matches!(why, Declined::Denied | Declined::NotRegistered) {
                    self.audit_declined(session, why);
                }
                self.reserved(session, why as u8);
            }
            ToAuthd::Security { question, ask } => self.security(generation, question, ask.0),
        }
    }

    // ---- reload and stop ---------------------------------------------------------------------

    /// Reads settings and certificate again. On an error everything stays as it was.
    fn reload(&mut self) {
        let mut record = Record::new(Kind::Settings, Ending::Ok);
        record.detail = Some("settings and certificate were read again".to_owned());
        if let Err(error) = self.try_reload() {
            self.log(&format!("the new settings are not used: {error}"));
            (record.outcome, record.detail) = (Ending::Failed, Some(error.to_string()));
        }
        self.audit.record(record);
    }

    fn try_reload(&mut self) -> io::Result<()> {
        let loaded = settings::load(&self.layout)?;
        // First what can fail.
        let level = loaded.settings.audit.level;
        let audit = (level != self.audit.level())
            .then(|| Audit::start(&self.layout.audit_log(), level, crate::IDENT))
            .transpose()?;
        let passed = self.listeners.iter().any(|listener| matches!(listener.place, Place::Inherited(_)));
        if passed {
            for listener in &mut self.listeners {
                listener.kind = inherited_kind(listener, &loaded);
            }
        } else {
            self.listeners = reopen(&loaded, &self.listeners)?;
        }
        if let Ok(log) = settings::open_log(&self.layout) {
            self.log = log;
        }
        if let Some(audit) = audit {
            let old = std::mem::replace(&mut self.audit, audit);
            // Its last lines may wait for the disk.
            std::thread::spawn(move || drop(old));
        }
        self.config = settings::message(&loaded, &self.listeners);
        let (base, limit) = settings::delays(&loaded.settings);
        self.delays.configure(base, limit);
        self.settings = loaded.settings;
        self.state = loaded.state;
        if self.net.is_some() {
            self.send_config()?;
            self.questions.sent();
        }
        Ok(())
    }

    /// Takes no new callers.
    fn begin_stop(&mut self, own_sockets: &[&Path]) {
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        self.log("stopping");
        self.audit.record(Record::new(Kind::Stop, Ending::Ok));
        // The sockets' names first: a client that comes now shall see that nobody is there.
        for path in own_sockets {
            let _ = std::fs::remove_file(path);
        }
        for listener in self.listeners.drain(..) {
            if let Place::Unix(path) = listener.place {
                let _ = std::fs::remove_file(path);
            }
        }
        self.tell_net(FromMonitor::Stop {}, Vec::new());
    }

    /// Answers those who are in the middle of a login, until the network child is done with them and the server has
    /// every session that was promised to it. TLS relays are the child's alone: the next gateway starts meanwhile.
    async fn drain(&mut self, incoming: &mut mpsc::Receiver<Event>) {
        while self.net.is_some() {
            let event = tokio::select! {
                event = incoming.recv() => event,
                session = self.next_overdue() => Some(Event::ReserveOver(session)),
            };
            match event {
                None => break,
                Some(Event::NetGone(generation)) if self.is_net(generation) => break,
                // Once is enough, and a child that could not be started is not needed any more.
                Some(Event::Stop | Event::NetStart | Event::Reload) => {}
                // Not taken: the other end tries the next gateway.
                Some(Event::Handed(..)) => {}
                Some(event) => self.take(event),
            }
        }
        if let Some(mut net) = self.net.take() {
            if self.relays_left {
                // It would be killed with the handle.
                std::mem::forget(net.process);
            } else {
                let _ = net.process.wait().await;
            }
        }
        if let Some(link) = self.link.take() {
            link.outbox.close();
            let _ = link.writer.await;
        }
    }
}

/// Opens the listeners of new settings beside the old ones, so that an error costs nothing.
fn reopen(loaded: &settings::Loaded, old: &[Listener]) -> io::Result<Vec<Listener>> {
    let mut copies = Vec::new();
    for listener in old {
        let Listener { kind, place, socket } = listener;
        copies.push(Listener { kind: *kind, place: place.clone(), socket: socket.try_clone()? });
    }
    listeners::open(loaded.places.clone(), copies)
}

/// What a socket of the service manager speaks under new settings.
fn inherited_kind(listener: &Listener, loaded: &settings::Loaded) -> crate::messages::Kind {
    let port = match &listener.place {
        Place::Inherited(shown) => shown.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()),
        _ => None,
    };
    match listener.kind {
        crate::messages::Kind::Unix => crate::messages::Kind::Unix,
        _ => listeners::spoken(port, loaded.tls, loaded.settings.authd.plain_port),
    }
}
