//! The metrics process: tells figures to whoever asks, and can do nothing else.
//!
//! ```text
//!   core ──────────── state ─▶ page ──┐
//!   session processes ─ counts ─▶ pages ├── pread ──▶ metrics process ◀── GET /metrics ── scraper
//!   gateway ───────── logins ─▶ pages ──┘             nobody, sandboxed
//!        (descriptors that can only read, handed over by the core)
//! ```
//!
//! It asks nobody: whatever the core or a session process is doing, or whether it is stopped, a scrape is
//! answered with what was published last. It makes its sockets, becomes a user who owns nothing, and closes
//! the sandbox; only then does it read what the core sends, and the first byte of a stranger. The core
//! starts it again when it ends, with the counts of all processes that have ended by then.

pub mod http;

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::rc::Rc;

use handlers::running::{Metrics, ServerState};
use link::figures::{Front, Logins};
use link::{Channel, page};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::AbortHandle;

use crate::core::counter::{Counter, Tally};

/// Connections at the same time; one more ends the oldest.
const CONNECTIONS: usize = 32;

/// Mode of the socket: figures name nobody, and any user may ask for them by `VMServerd_GetMetrics` too.
const SOCKET_MODE: u32 = 0o666;

link::messages! {
    /// From the core to the metrics process.
    pub enum ToMetrics {
        /// First message. The descriptors are the page of the core's state, and the counts of session
        /// processes that have ended.
        1 = Start {
            /// Path of the unix socket; empty for none.
            socket: String,
            /// Address of the TCP socket; empty for none.
            address: String,
            /// Whom to become.
            uid: u32,
            /// With this group.
            gid: u32,
            /// Process id of the core.
            core: u32,
        } with 2..=2,
        /// A session process was started; the descriptor is the page in which it counts.
        2 = Process {
            /// The core's number for it.
            id: u64,
        } with 1..=1,
        /// A session process has ended; its counts stay.
        3 = Ended {
            /// The core's number for it.
            id: u64,
        },
        /// The gateway is connected; the descriptors are the pages of its two halves.
        4 = Gateway {} with 2..=2,
    }
}

link::messages! {
    /// From the metrics process to the core.
    pub enum FromMetrics {
        /// Scrapes are answered.
        1 = Ready {
            /// Where, for the log.
            places: String,
        },
        /// It cannot be, and the process ends.
        2 = Failed {
            /// Why.
            why: String,
        },
    }
}

/// System calls of the process after the sandbox is closed, beside those of everybody who serves sockets: it reads
/// pages.
const OWN: &[libc::c_long] = &[libc::SYS_pread64, libc::SYS_setsockopt];

/// Runs the process; its channel to the core is standard input.
///
/// # Errors
/// When it was not started by the core, or the channel breaks.
pub fn main() -> Result<(), Box<dyn Error>> {
    crate::sys::close_from(3)?;
    let channel = crate::session::take_channel()?;
    rustix::thread::set_name(c"vmserverd")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(run(channel))
}

async fn run(channel: OwnedFd) -> Result<(), Box<dyn Error>> {
    let channel = Channel::<FromMetrics, ToMetrics>::from_fd(channel)?;
    let Some((ToMetrics::Start { socket, address, uid, gid, core }, fds)) = channel.recv().await? else {
        return Err("the core did not say where to listen".into());
    };
    let [state, ended] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| "the core sent no pages")?;
    let places = match prepare(&socket, &address, (uid, gid)) {
        Ok(places) => places,
        Err(error) => {
            channel.send(&FromMetrics::Failed { why: error.to_string() }, &[]).await?;
            return Err(error);
        }
    };
    let figures = Rc::new(RefCell::new(Figures::new(state, ended, core)));
    link::confine::close(OWN)?;
    channel.send(&FromMetrics::Ready { places: places.shown }, &[]).await?;
    let mut open = VecDeque::new();
    loop {
        tokio::select! {
            message = channel.recv() => match message? {
                Some((message, fds)) => figures.borrow_mut().learn(&message, fds),
                // The core is gone; the next one starts another process.
                None => return Ok(()),
            },
            accepted = accept_unix(places.unix.as_ref()) => {
                if let Ok(stream) = accepted {
                    admit(&mut open, http::serve(stream, http::Hosts::Any, http::HEAD_WITHIN, text_of(&figures)));
                } else {
                    pause().await;
                }
            },
            accepted = accept_tcp(places.tcp.as_ref()) => {
                if let Ok(stream) = accepted {
                    admit(&mut open, http::serve(stream, http::Hosts::Local, http::HEAD_WITHIN, text_of(&figures)));
                } else {
                    pause().await;
                }
            },
        }
    }
}

/// Out of descriptors, or a caller who left in the queue: gives others a moment.
async fn pause() {
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
}

async fn accept_unix(listener: Option<&UnixListener>) -> io::Result<tokio::net::UnixStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

async fn accept_tcp(listener: Option<&TcpListener>) -> io::Result<tokio::net::TcpStream> {
    match listener {
        Some(listener) => Ok(listener.accept().await?.0),
        None => std::future::pending().await,
    }
}

/// Starts on a connection. Of too many the oldest ends: whoever asks and reads is done long before.
fn admit(open: &mut VecDeque<AbortHandle>, connection: impl Future<Output = ()> + 'static) {
    open.retain(|one| !one.is_finished());
    if open.len() >= CONNECTIONS
        && let Some(oldest) = open.pop_front()
    {
        oldest.abort();
    }
    open.push_back(tokio::task::spawn_local(connection).abort_handle());
}

fn text_of(figures: &Rc<RefCell<Figures>>) -> impl FnOnce() -> String + use<> {
    let figures = Rc::clone(figures);
    move || handlers::metrics::render(figures.borrow_mut().look(), None)
}

/// The sockets.
struct Places {
    unix: Option<UnixListener>,
    tcp: Option<TcpListener>,
    shown: String,
}

/// Makes the sockets, and becomes a user who owns nothing.
fn prepare(socket: &str, address: &str, (uid, gid): (u32, u32)) -> Result<Places, Box<dyn Error>> {
    let mut shown = Vec::new();
    let mut unix = None;
    if !socket.is_empty() {
        let path = Path::new(socket);
        let describe =
            |error: io::Error| link::layout::describe(&error, "metrics.socket: cannot listen on", path);
        unix = Some(listen_unix(path).map_err(describe)?);
        shown.push(socket.to_owned());
    }
    let mut tcp = None;
    if !address.is_empty() {
        let parsed: SocketAddr = address.parse()?;
        let describe = |error: io::Error| {
            io::Error::new(error.kind(), format!("metrics.listen: cannot listen on {address}: {error}"))
        };
        let listener = std::net::TcpListener::bind(parsed).map_err(describe)?;
        listener.set_nonblocking(true)?;
        tcp = Some(TcpListener::from_std(listener)?);
        shown.push(format!("http://{address}/metrics"));
    }
    crate::session::become_user::become_user(uid, gid, &[])?;
    Ok(Places { unix, tcp, shown: shown.join(" and ") })
}

/// Removes a socket, if there is one. Anything else is not ours to remove.
///
/// # Errors
/// As `unlink(2)`.
pub fn remove_socket(path: &Path) -> io::Result<()> {
    if std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}

fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    link::layout::check_socket_path(path)?;
    // Of an earlier process.
    remove_socket(path)?;
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(SOCKET_MODE))?;
    Ok(listener)
}

/// Everything that can be told.
struct Figures {
    page: OwnedFd,
    /// The last state that could be read.
    state: ServerState,
    tally: Tally,
    living: BTreeMap<u64, Counter>,
    gateway: Option<(OwnedFd, OwnedFd)>,
    logins: Option<Logins>,
    front: Option<Front>,
    /// Memory of processes, by their names.
    memory: Vec<(&'static str, File)>,
    /// Bytes of a page; asked for before the sandbox hides it.
    page_size: u64,
}

impl Figures {
    fn new(page: OwnedFd, ended: OwnedFd, core: u32) -> Self {
        let mut tally = Tally::default();
        tally.keep(&Counter::of(ended));
        // Opened now: the sandbox hides them.
        let memory = [("core", core.to_string()), ("metrics", "self".to_owned())];
        let memory = memory
            .into_iter()
            .filter_map(|(name, pid)| Some((name, File::open(format!("/proc/{pid}/statm")).ok()?)));
        Figures {
            page,
            state: ServerState::default(),
            tally,
            living: BTreeMap::new(),
            gateway: None,
            logins: None,
            front: None,
            memory: memory.collect(),
            page_size: rustix::param::page_size() as u64,
        }
    }

    fn learn(&mut self, message: &ToMetrics, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        match *message {
            ToMetrics::Start { .. } => {}
            ToMetrics::Process { id } => {
                if let Some(page) = fds.next() {
                    self.living.insert(id, Counter::of(page));
                }
            }
            ToMetrics::Ended { id } => {
                if let Some(counter) = self.living.remove(&id) {
                    self.tally.keep(&counter);
                }
            }
            ToMetrics::Gateway {} => self.gateway = fds.next().zip(fds.next()),
        }
    }

    /// What is so now, or was when it was published last.
    fn look(&mut self) -> Metrics {
        if let Some(state) = page::read(&self.page) {
            self.state = state;
        }
        if let Some((logins, front)) = &self.gateway {
            self.logins = page::read(logins).or(self.logins.take());
            self.front = page::read(front).or(self.front.take());
        }
        let resident = self
            .memory
            .iter()
            .filter_map(|(name, file)| Some(((*name).to_owned(), resident(file, self.page_size)?)));
        Metrics {
            state: self.state.clone(),
            resident: resident.collect(),
            ops: crate::figures::read(&self.tally.figures(self.living.values())),
            logins: self.logins.clone(),
            front: self.front.clone(),
        }
    }
}

/// Resident memory in bytes, from a `statm` of `/proc` and the size of its pages; `None` when the process has ended.
pub(crate) fn resident(statm: &File, page_size: u64) -> Option<u64> {
    let mut bytes = [0; 128];
    let length = rustix::io::pread(statm, &mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..length)?).ok()?;
    let pages: u64 = text.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages.saturating_mul(page_size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::page::Page;
    use std::time::Duration;

    fn figures() -> (Figures, Page) {
        let page = Page::new("test").unwrap();
        let ended = Tally::default().snapshot().unwrap();
        (Figures::new(page.reader().unwrap(), ended, std::process::id()), page)
    }

    #[test]
    fn counts_of_the_living_and_the_dead_are_there_once() {
        let (mut figures, _page) = figures();
        let counter = Counter::new().unwrap();
        let words = crate::sys::map_counter(&counter.share().unwrap(), crate::figures::WORDS).unwrap();
        let count = crate::figures::Figures::new(words);
        figures.learn(&ToMetrics::Process { id: 1 }, vec![counter.reader().unwrap()]);
        (0..3).for_each(|_| count.count(1, false, Duration::ZERO));
        assert_eq!(figures.look().ops[0].buckets[0], 3);
        figures.learn(&ToMetrics::Ended { id: 1 }, Vec::new());
        figures.learn(&ToMetrics::Ended { id: 1 }, Vec::new());
        assert_eq!(figures.look().ops[0].buckets[0], 3);
        // A process that is started anew begins with what the core kept.
        let mut tally = Tally::default();
        tally.keep(&counter);
        let mut next = Figures::new(figures.page, tally.snapshot().unwrap(), 1);
        assert_eq!(next.look().ops[0].buckets[0], 3);
    }

    #[test]
    fn the_last_state_stays_when_the_page_holds_none() {
        let (mut figures, mut page) = figures();
        assert_eq!(figures.look().state, ServerState::default());
        page.publish(&ServerState { sessions: 7, ..ServerState::default() });
        assert_eq!(figures.look().state.sessions, 7);
        rustix::io::pwrite(page.writer().unwrap(), &[0xff; 64], 0).unwrap();
        assert_eq!(figures.look().state.sessions, 7);
        assert!(figures.look().resident.iter().all(|(_, bytes)| *bytes > 100_000));
    }
}
