//! One caller, from accept to hand-over: the I/O around [`crate::dialogue`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::dialogue::{Dialogue, Question, Reason, Step};
use crate::messages::{Kind, ToMonitor};
use crate::net::limits::Permit;
use crate::net::relay::relay;
use crate::net::unix::UnixStream;
use crate::net::{Answer, Shared};
use crate::reply;
use crate::source;

/// How long a caller may take to accept a reply.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);
/// After the last reply the rest of the input is read and dropped, so that the reply is not lost to a
/// reset: for this long, and so many bytes.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;
/// Bytes per read before the hand-over.
const READ: usize = 4096;

/// A socket as it was accepted.
#[derive(Debug)]
pub enum Caller {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Caller {
    /// A TCP connection.
    ///
    /// # Errors
    /// When it is none any more.
    pub fn tcp(socket: TcpStream) -> std::io::Result<Self> {
        // Every reply is one write and must not wait for the next.
        socket.set_nodelay(true)?;
        Ok(Caller::Tcp(socket))
    }
}

impl AsFd for Caller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Caller::Tcp(socket) => socket.as_fd(),
            Caller::Unix(socket) => socket.as_fd(),
        }
    }
}

/// How a conversation ended.
enum End {
    /// Nothing more to do.
    Closed,
    /// The reply with 200 is written; these bytes came early.
    HandOver(Vec<u8>),
}

/// Everything one conversation needs besides its stream.
struct Conversation {
    shared: Rc<Shared>,
    dialogue: Dialogue,
    rules: Rc<crate::dialogue::Rules>,
    accepted: Instant,
    /// When he said something last; at first, when he came.
    heard: Instant,
    /// Counted among the unauthenticated until the login.
    permit: Option<Permit>,
    number: u32,
    /// A copy of the caller's socket, for the monitor's questions to the kernel.
    socket: OwnedFd,
    tls: bool,
    /// The monitor keeps something under our number.
    known: bool,
}

/// Says that there are too many connections, instead of the banner.
pub async fn turn_away(caller: Caller) {
    // Best effort: a caller who does not take one line is simply closed.
    let _ = match caller {
        Caller::Tcp(mut socket) => finish(&mut socket, reply::TOO_MANY).await,
        Caller::Unix(mut socket) => finish(&mut socket, reply::TOO_MANY).await,
    };
}

/// Serves one caller. Errors of the connection end it and are nobody's business.
pub async fn serve(shared: Rc<Shared>, caller: Caller, kind: Kind, permit: Permit) {
    let Ok(socket) = caller.as_fd().try_clone_to_owned() else {
        return;
    };
    let rules = shared.rules(kind);
    let mut talk = Conversation {
        dialogue: Dialogue::new(&rules, kind != Kind::Unix),
        rules,
        accepted: Instant::now(),
        heard: Instant::now(),
        permit: Some(permit),
        number: shared.next_number(),
        socket,
        tls: kind == Kind::Tls,
        known: false,
        shared,
    };
    // An error is a caller who has gone; nothing can be told to him.
    let _ = match caller {
        Caller::Tcp(socket) if kind == Kind::Tls => talk.through_tls(socket).await,
        Caller::Tcp(socket) => talk.in_clear(socket).await,
        Caller::Unix(socket) => talk.in_clear(socket).await,
    };
    if talk.known {
        talk.shared.tell(ToMonitor::Forget { connection: talk.number }, Vec::new());
    }
}

impl Conversation {
    async fn in_clear<S: AsyncRead + AsyncWrite + Unpin>(&mut self, mut stream: S) -> io::Result<()> {
        write(&mut stream, self.rules.banner).await?;
        if let End::HandOver(early) = self.run(&mut stream).await? {
            // Our own copy first: then nobody but the server holds the session.
            drop(stream);
            self.hand_over(early, None);
        }
        Ok(())
    }

    async fn through_tls(&mut self, mut socket: TcpStream) -> io::Result<()> {
        write(&mut socket, self.rules.banner).await?;
        let acceptor = self.shared.acceptor()?;
        let deadline = self.accepted + self.rules.login_deadline;
        let handshake = async {
            answer_auth_tls(&mut socket).await?;
            acceptor.accept(socket).await
        };
        let mut stream = tokio::select! {
            accepted = tokio::time::timeout_at(deadline, handshake) => match accepted {
                Ok(stream) => Box::new(stream?),
                Err(_) => {
                    self.log(Reason::TimeOut);
                    return Ok(());
                }
            },
            () = self.cut_short() => return Ok(()),
        };
        if let End::HandOver(early) = self.run(&mut stream).await? {
            let (ours, theirs) = UnixStream::pair()?;
            self.hand_over(early, Some(theirs));
            let mut stopping = self.shared.stopping();
            let stopping = async move {
                // An error would say that the sender is gone, and so is the process.
                let _ = stopping.wait_for(|stopping| *stopping).await;
            };
            // Boxed, because every async layer that takes the future by value would hold it twice.
            self.shared.spawn_relay(Box::pin(relay(stream, ours, stopping)));
        }
        Ok(())
    }

    /// The conversation itself.
    async fn run<S: AsyncRead + AsyncWrite + Unpin>(&mut self, stream: &mut S) -> io::Result<End> {
        let mut step = self.dialogue.next(&self.rules);
        loop {
            step = match step {
                Step::Reply(text) => {
                    write(stream, &text).await?;
                    if self.dialogue.logged_in() {
                        self.permit = None;
                    }
                    self.dialogue.next(&self.rules)
                }
                Step::Close(text, reason) => {
                    self.log(reason);
                    finish(stream, &text).await?;
                    return Ok(End::Closed);
                }
                Step::HandOver { reply, early } => {
                    write(stream, &reply).await?;
                    return Ok(End::HandOver(early));
                }
                Step::Ask(question) => {
                    let over = self.cut_short();
                    tokio::select! {
                        step = self.ask(question) => step?,
                        () = over => shutting_down(),
                    }
                }
                Step::Read => {
                    let over = self.cut_short();
                    tokio::select! {
                        step = self.read(stream) => match step? {
                            Some(step) => step,
                            None => return Ok(End::Closed),
                        },
                        () = over => shutting_down(),
                    }
                }
            }
        }
    }

    /// Waits until the gateway stops and this caller has been silent for [`DRAIN`].
    fn cut_short(&self) -> impl Future<Output = ()> + use<> {
        let (mut stopping, until) = (self.shared.stopping(), self.heard + super::DRAIN);
        async move {
            // An error would say that the sender is gone, and so is the process.
            let _ = stopping.wait_for(|stopping| *stopping).await;
            tokio::time::sleep_until(until).await;
        }
    }

    /// Reads once; `None` at the end of the stream.
    async fn read<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<Option<Step>> {
        let mut buffer = [0u8; READ];
        let deadline = self.accepted + self.dialogue.deadline().unwrap_or(self.rules.idle);
        match tokio::time::timeout_at(deadline, stream.read(&mut buffer)).await {
            Err(_) => Ok(Some(self.dialogue.expired())),
            Ok(Ok(0)) => Ok(None),
            Ok(Ok(length)) => {
                self.heard = Instant::now();
                let now = self.accepted.elapsed();
                self.dialogue.received(&self.rules, now, buffer.get(..length).unwrap_or_default());
                Ok(Some(self.dialogue.next(&self.rules)))
            }
            Ok(Err(error)) => Err(error),
        }
    }

    /// Asks the monitor and turns its answer into the next step.
    async fn ask(&mut self, question: Question) -> io::Result<Step> {
        let connection = self.number;
        let (message, fds) = match question {
            Question::Password { name, password } => {
                let usable = password.is_some();
                let password = password.map(|password| password.to_vec()).unwrap_or_default();
                let message = ToMonitor::Password { connection, name, password, usable, tls: self.tls };
                (message, vec![self.socket.try_clone()?])
            }
            Question::Local => {
                (ToMonitor::Local { connection, tls: self.tls }, vec![self.socket.try_clone()?])
            }
            Question::Confirm => (ToMonitor::Confirm { connection }, Vec::new()),
            Question::Reserve => (ToMonitor::Reserve { connection }, Vec::new()),
            Question::Connect { config, console } => {
                (ToMonitor::Connect { connection, config, console }, Vec::new())
            }
        };
        self.known = true;
        let answer = self.shared.ask(connection, message, fds).await.ok_or(io::ErrorKind::BrokenPipe)?;
        let now = self.accepted.elapsed();
        Ok(match answer {
            Answer::Login(user) => {
                self.dialogue.login_answer(&self.rules, now, user.as_deref().map(str::as_bytes))
            }
            Answer::Confirmed(same) => self.dialogue.confirm_answer(&self.rules, now, same),
            Answer::Reserved(outcome) => self.dialogue.reserve_answer(&self.rules, now, outcome),
        })
    }

    /// Passes the session on; afterwards the monitor has nothing under our number.
    fn hand_over(&mut self, early: Vec<u8>, relay_end: Option<OwnedFd>) {
        let message = ToMonitor::HandOver { connection: self.number, early };
        self.shared.tell(message, relay_end.into_iter().collect());
        self.known = false;
    }

    fn log(&self, reason: Reason) {
        if let Some(words) = reason.words() {
            let from = source::shown(&self.socket);
            self.shared.log(&format!("connection from {from} closed: {words}"));
        }
    }
}

/// On a TLS listener the caller's first bytes are a ClientHello. One line is allowed before it,
/// `AUTH TLS`, so that `openssl s_client -starttls ftp` can be used by hand: our addition, which no
/// old client knows (docs/decisions/0005). Anything else is left for the handshake to fail on.
async fn answer_auth_tls(socket: &mut TcpStream) -> io::Result<()> {
    const LINE: &[u8] = b"AUTH TLS\r\n";
    let mut first = [0u8; 1];
    if socket.peek(&mut first).await? == 0 || first.first() != LINE.first() {
        return Ok(());
    }
    let mut line = [0u8; LINE.len()];
    socket.read_exact(&mut line).await?;
    if line != LINE {
        return Err(io::ErrorKind::InvalidData.into());
    }
    write(socket, reply::BEGIN_TLS).await
}

fn shutting_down() -> Step {
    Step::Close(reply::SHUTTING_DOWN.to_vec(), Reason::Stopping)
}

/// Writes a reply in one piece.
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, text: &[u8]) -> io::Result<()> {
    let all = async {
        stream.write_all(text).await?;
        stream.flush().await
    };
    tokio::time::timeout(WRITE_PATIENCE, all).await.map_err(|_| io::ErrorKind::TimedOut)?
}

/// Writes the last reply and closes in good order.
async fn finish<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, text: &[u8]) -> io::Result<()> {
    write(stream, text).await?;
    stream.shutdown().await?;
    let drain = async {
        let mut buffer = [0u8; READ];
        let mut left = LINGER_BYTES;
        while let Ok(length) = stream.read(&mut buffer).await {
            left = left.saturating_sub(length);
            if length == 0 || left == 0 {
                break;
            }
        }
    };
    // Whether the caller closes in time or not, we close now.
    let _ = tokio::time::timeout(LINGER, drain).await;
    Ok(())
}
