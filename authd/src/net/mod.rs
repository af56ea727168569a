//! The network child: everything that reads bytes of callers.
//!
//! ```text
//!   listeners ──accept──▶ limits ──▶ connection (one task each) ──▶ hand-over ──▶ relay (TLS only)
//!                                        │  questions    ▲ answers
//!                                        ▼               │
//!                                     channel to the monitor (descriptor 0)
//! ```
//!
//! The process starts with one descriptor, the channel. The monitor's first message brings the
//! listeners, the certificate and the limits; then the sandbox is closed, and only then is the first
//! connection accepted. When the monitor goes away, no new callers are taken, and relays have half a
//! minute to end.

pub mod connection;
pub mod limits;
pub mod relay;
pub mod unix;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use link::channel::{Channel, Outbox};
use link::figures::Front;
use link::logfile::Sink;
use link::page::Page;
use link::ration::Ration;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot, watch};
use tokio_rustls::TlsAcceptor;

use crate::dialogue::{Reservation, Rules};
use crate::messages::{FromMonitor, Kind, ToMonitor};
use crate::net::connection::Caller;
use crate::net::limits::Limits;
use crate::net::unix::UnixStream;
use crate::reply;
use crate::source::End;

/// How long TLS relays may go on after the end of the monitor or its order to stop.
const RELAY_PATIENCE: Duration = Duration::from_secs(30);
/// When the gateway stops, a caller who has said something less than this ago is not cut short: who is in the
/// middle of a login is still handed over, and never learns that there was a stop.
const DRAIN: Duration = Duration::from_secs(1);
/// How long callers get beyond that, to read `421 Shutting down.`
const FAREWELL: Duration = Duration::from_secs(2);
/// Most messages waiting for the monitor.
const OUTBOX: usize = 8192;

/// An answer of the monitor to one connection.
#[derive(Debug)]
pub enum Answer {
    /// To `Password` and `Local`: the user, or a refusal.
    Login(Option<String>),
    /// To `Confirm`.
    Confirmed(bool),
    /// To `Reserve` and `Connect`.
    Reserved(Reservation),
}

/// What all connections share.
pub struct Shared {
    config: RefCell<Config>,
    limits: Limits,
    outbox: Outbox<ToMonitor>,
    waiting: RefCell<HashMap<u32, oneshot::Sender<Answer>>>,
    number: Cell<u32>,
    ration: RefCell<Ration>,
    stopping: watch::Sender<bool>,
    conversations: Counter,
    relays: Counter,
    figures: RefCell<(Front, Page)>,
}

/// The part that a reload replaces.
struct Config {
    tls: Rc<Rules>,
    plain: Rc<Rules>,
    acceptor: TlsAcceptor,
    log: Sink,
    /// Ends the accept loops of the listeners it came with.
    listeners: watch::Sender<bool>,
}

/// So many tasks at once were a crowd: when it is gone, what it took is given back.
const CROWD: usize = 512;

/// Counts tasks and tells when none is left.
#[derive(Default)]
struct Counter {
    count: Cell<usize>,
    /// Whether there was a crowd that is not gone yet.
    crowd: Cell<bool>,
    empty: Notify,
}

impl Counter {
    fn spawn(self_of: &Rc<Shared>, pick: fn(&Shared) -> &Counter, task: impl Future<Output = ()> + 'static) {
        let shared = Rc::clone(self_of);
        let count = pick(&shared).count.get() + 1;
        pick(&shared).count.set(count);
        if count > CROWD {
            pick(&shared).crowd.set(true);
        }
        tokio::task::spawn_local(async move {
            task.await;
            let counter = pick(&shared);
            counter.count.set(counter.count.get() - 1);
            shared.publish(|_| {});
            if counter.count.get() < CROWD / 16 && counter.crowd.replace(false) {
                crate::sys::give_memory_back();
            }
            if counter.count.get() == 0 {
                counter.empty.notify_waiters();
            }
        });
    }

    async fn wait(&self) {
        loop {
            let emptied = self.empty.notified();
            if self.count.get() == 0 {
                return;
            }
            emptied.await;
        }
    }
}

impl Shared {
    fn rules(&self, kind: Kind) -> Rc<Rules> {
        let config = self.config.borrow();
        Rc::clone(if kind == Kind::Tls { &config.tls } else { &config.plain })
    }

    /// The TLS end for a new connection: a reload is seen by the next caller.
    fn acceptor(&self) -> io::Result<TlsAcceptor> {
        Ok(self.config.borrow().acceptor.clone())
    }

    fn next_number(&self) -> u32 {
        self.number.set(self.number.get().wrapping_add(1));
        self.number.get()
    }

    fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    fn tell(&self, message: ToMonitor, fds: Vec<OwnedFd>) {
        // A monitor that takes no messages is gone, which the channel's reader finds out.
        let _ = self.outbox.push(message, fds);
    }

    async fn ask(&self, connection: u32, message: ToMonitor, fds: Vec<OwnedFd>) -> Option<Answer> {
        let (sender, receiver) = oneshot::channel();
        self.waiting.borrow_mut().insert(connection, sender);
        self.outbox.push(message, fds).ok()?;
        receiver.await.ok()
    }

    fn answer(&self, connection: u32, answer: Answer) {
        // Nobody waits when the caller has gone meanwhile.
        if let Some(sender) = self.waiting.borrow_mut().remove(&connection) {
            let _ = sender.send(answer);
        }
    }

    /// Writes a line. A flood of callers must not become a flood of lines: those beyond the ration are counted.
    fn log(&self, text: &str) {
        let Some(dropped) = self.ration.borrow_mut().allow(Instant::now()) else { return };
        let write = |text: &str| self.config.borrow().log.line(crate::IDENT, std::process::id(), text);
        if dropped > 0 {
            write(&format!("{dropped} lines about connections are left out"));
        }
        write(text);
    }

    /// Counts something, and publishes all figures.
    fn publish(&self, count: impl FnOnce(&mut Front)) {
        let (front, page) = &mut *self.figures.borrow_mut();
        count(front);
        front.waiting = self.conversations.count.get() as u64;
        front.relays = self.relays.count.get() as u64;
        page.publish(front);
    }

    fn spawn_relay(self: &Rc<Self>, relay: impl Future<Output = io::Result<()>> + 'static) {
        // How a session ended is the server's business.
        Counter::spawn(self, |shared| &shared.relays, async move {
            let _ = relay.await;
        });
        self.publish(|_| {});
    }
}

/// Runs the network child until the monitor stops it or goes away.
///
/// # Errors
/// When the channel or the sandbox cannot be set up.
pub fn run() -> io::Result<()> {
    let channel: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    // Descriptor 0 must not stay a second end of the channel.
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    // Read now what the sandbox will hide.
    link::logfile::zone();
    raise_descriptor_limit();
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_all().build_local(tokio::runtime::LocalOptions::default())?;
    link::reactor::run(&runtime, serve(channel))
}

/// As many descriptors as the system allows: each caller costs one, each relay two.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

async fn serve(channel: OwnedFd) -> io::Result<()> {
    let channel: Arc<Channel<ToMonitor, FromMonitor>> = Arc::new(Channel::from_fd(channel)?);
    let Some((first @ FromMonitor::Config { .. }, fds)) = channel.recv().await? else {
        return Err(io::Error::other("the monitor sent no configuration"));
    };
    let outbox = Outbox::new(OUTBOX);
    let writer = tokio::task::spawn_local(outbox.clone().run(Arc::clone(&channel)));
    let shared = start(first, fds, outbox)?;
    let closed = crate::sandbox::close()?;
    if !closed.landlock {
        shared.log("this kernel has no Landlock: the network process is confined by seccomp alone");
    }
    shared.tell(ToMonitor::Ready {}, Vec::new());

    // Until the monitor says stop, or is gone.
    while let Some((message, fds)) = channel.recv().await? {
        if message == (FromMonitor::Stop {}) {
            break;
        }
        obey(&shared, message, fds);
    }
    shared.config.borrow().listeners.send_replace(true);
    shared.stopping.send_replace(true);
    let answers = async {
        // A monitor that is gone answers nobody any more.
        while let Ok(Some((message, fds))) = channel.recv().await {
            obey(&shared, message, fds);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        _ = tokio::time::timeout(DRAIN + FAREWELL, shared.conversations.wait()) => {}
        () = answers => {}
    }
    let relays = u32::try_from(shared.relays.count.get()).unwrap_or(u32::MAX);
    shared.tell(ToMonitor::Drained { relays }, Vec::new());
    shared.outbox.close();
    let _ = writer.await;
    // The monitor waits for no relay.
    drop(channel);
    let _ = tokio::time::timeout(RELAY_PATIENCE, shared.relays.wait()).await;
    Ok(())
}

/// Does what the monitor says; all but stopping.
fn obey(shared: &Rc<Shared>, message: FromMonitor, fds: Vec<OwnedFd>) {
    match message {
        config @ FromMonitor::Config { .. } => {
            let error = reload(shared, config, fds).err().map(|error| error.to_string());
            match &error {
                None => shared.log("settings and certificate were read again"),
                Some(error) => shared.log(&format!("the new settings are not used: {error}")),
            }
            shared.tell(ToMonitor::Configured { error }, Vec::new());
        }
        FromMonitor::Verdict { connection, user } => shared.answer(connection, Answer::Login(user)),
        FromMonitor::Confirmed { connection, same } => {
            shared.answer(connection, Answer::Confirmed(same));
        }
        FromMonitor::Reserved { connection, outcome } => {
            let reservation = match outcome {
                0 => Reservation::Granted,
                1 => Reservation::Unreachable,
                3 => Reservation::NotRunning,
                4 => Reservation::Denied,
                5 => Reservation::NotRegistered,
                6 => Reservation::Busy,
                _ => Reservation::Refused,
            };
            shared.answer(connection, Answer::Reserved(reservation));
        }
        FromMonitor::Caller { kind } => {
            // One who has gone meanwhile needs no answer.
            let caller = fds.into_iter().next().and_then(|fd| accepted_elsewhere(fd).ok());
            if let (Some(kind), Some(caller)) = (Kind::from_number(kind), caller) {
                admit(shared, caller, kind);
            }
        }
        FromMonitor::Stop {} => {}
    }
}

/// A TCP connection that a super-server accepted.
fn accepted_elsewhere(fd: OwnedFd) -> io::Result<Caller> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    Caller::tcp(tokio::net::TcpStream::from_std(fd.into())?)
}

fn start(first: FromMonitor, fds: Vec<OwnedFd>, outbox: Outbox<ToMonitor>) -> io::Result<Rc<Shared>> {
    let (config, listeners, limits, page) = read_config(first, fds)?;
    // A child before this one may have counted.
    let front = link::page::read(&page).unwrap_or_default();
    let shared = Rc::new(Shared {
        config: RefCell::new(config),
        limits: Limits::new(limits.0, limits.1),
        outbox,
        waiting: RefCell::default(),
        ration: RefCell::new(Ration::new(Instant::now())),
        number: Cell::new(0),
        stopping: watch::Sender::new(false),
        conversations: Counter::default(),
        relays: Counter::default(),
        figures: RefCell::new((front, Page::from_fd(page))),
    });
    shared.publish(|_| {});
    for (kind, fd) in listeners {
        listen(&shared, kind, fd)?;
    }
    Ok(shared)
}

/// Takes a new configuration; on an error the old one stays in force.
fn reload(shared: &Rc<Shared>, config: FromMonitor, fds: Vec<OwnedFd>) -> io::Result<()> {
    let (config, listeners, limits, _) = read_config(config, fds)?;
    let old = shared.config.replace(config);
    old.listeners.send_replace(true);
    shared.limits.configure(limits.0, limits.1);
    for (kind, fd) in listeners {
        listen(shared, kind, fd)?;
    }
    Ok(())
}

/// A configuration, the listeners, the limits of connections, and the page of figures.
type Read = (Config, Vec<(Kind, OwnedFd)>, (u32, u32), OwnedFd);

fn read_config(message: FromMonitor, mut fds: Vec<OwnedFd>) -> io::Result<Read> {
    let FromMonitor::Config {
        kinds,
        certificate,
        key,
        thumbprint,
        serverd_path,
        line_max,
        login_deadline,
        idle,
        per_address,
        connections,
    } = message
    else {
        return Err(io::Error::other("not a configuration"));
    };
    let key = zeroize::Zeroizing::new(key);
    let page = fds.pop().ok_or(io::ErrorKind::InvalidData)?;
    let log = fds.pop().filter(|_| fds.len() == kinds.len()).ok_or(io::ErrorKind::InvalidData)?;
    let kinds: Vec<Kind> = kinds.into_iter().filter_map(Kind::from_number).collect();
    let rules = |banner| {
        Rc::new(Rules {
            banner,
            line_max: line_max as usize,
            login_deadline: Duration::from_secs(u64::from(login_deadline)),
            idle: Duration::from_secs(u64::from(idle)),
            thumbprint: thumbprint.clone(),
            serverd_path: serverd_path.clone(),
        })
    };
    let config = Config {
        tls: rules(reply::BANNER_TLS),
        plain: rules(reply::BANNER_PLAIN),
        acceptor: TlsAcceptor::from(Arc::new(tls_config(&certificate, &key)?)),
        log: Sink::from_fd(log),
        listeners: watch::Sender::new(false),
    };
    Ok((config, kinds.into_iter().zip(fds).collect(), (per_address, connections), page))
}

/// TLS 1.2 and 1.3, no client certificate.
fn tls_config(certificate: &[u8], key: &[u8]) -> io::Result<ServerConfig> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(certificate).collect::<Result<_, _>>().map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(io::Error::other)?;
    // No tickets: they are the only bytes of TLS 1.3 that nobody asked for, and hydra, which looks for
    // bytes right after the handshake, takes them for a line and waits for the rest of it.
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// A listening socket of either kind.
enum Listener {
    Tcp(TcpListener),
    Unix(AsyncFd<OwnedFd>),
}

impl Listener {
    async fn accept(&self) -> io::Result<Caller> {
        match self {
            Listener::Tcp(listener) => {
                let (socket, _) = listener.accept().await?;
                Caller::tcp(socket)
            }
            Listener::Unix(listener) => Ok(Caller::Unix(UnixStream::accept(listener).await?)),
        }
    }
}

/// Accepts callers until the listeners are replaced or the process stops.
fn listen(shared: &Rc<Shared>, kind: Kind, fd: OwnedFd) -> io::Result<()> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    let listener = match kind {
        Kind::Unix => Listener::Unix(link::reactor::register(fd, Interest::READABLE)?),
        Kind::Tls | Kind::Plain => Listener::Tcp(TcpListener::from_std(fd.into())?),
    };
    let mut over = shared.config.borrow().listeners.subscribe();
    let shared = Rc::clone(shared);
    tokio::task::spawn_local(async move {
        loop {
            let accepted = tokio::select! {
                biased;
                // First: a caller who is not accepted any more waits for the next gateway, where a service manager
                // keeps the listener.
                _ = over.wait_for(|over| *over) => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(caller) => admit(&shared, caller, kind),
                // Out of descriptors, or a caller who left in the queue: give others a moment.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    });
    Ok(())
}

fn admit(shared: &Rc<Shared>, caller: Caller, kind: Kind) {
    let Some(end) = End::of_socket(&caller) else {
        return;
    };
    match shared.limits.admit(end.source()) {
        Some(permit) => {
            let task = connection::serve(Rc::clone(shared), caller, kind, permit);
            Counter::spawn(shared, |shared| &shared.conversations, Box::pin(task));
            shared.publish(|front| {
                *match kind {
                    Kind::Tls => &mut front.accepted_tls,
                    Kind::Plain => &mut front.accepted_plain,
                    Kind::Unix => &mut front.accepted_unix,
                } += 1;
            });
        }
        None => {
            shared.log(&format!("connection from {end} closed: too many"));
            Counter::spawn(shared, |shared| &shared.conversations, Box::pin(connection::turn_away(caller)));
            shared.publish(|front| front.turned_away += 1);
        }
    }
}
