//! One connection: bytes in, replies out, in order.
//!
//! ```text
//!          ┌────────────────────────────── idle: one small future, no buffers
//!          ▼
//!   poll_read ─▶ turn: every complete document that is quick ─▶ one send ─▶ idle
//!                  │
//!                  ├─ a slow request, a client that does not read, the end ─▶ busy (boxed)
//!                  └─ more documents than one turn may take ─▶ yield to the others, next turn
//! ```
//!
//! The common case, a caller that asks one quick thing after the other, costs one `recv` and one
//! `send` per request and stays in `turn`. Everything that takes time lives in `busy`, whose future
//! is allocated when it is needed and freed when it is over; so ten thousand idle connections cost
//! little more than their sockets.
//!
//! Reading stops while a request is worked on. What is read ahead is at most one inbox, 64 KiB; the
//! rest waits in the kernel, which tells the client to slow down.
//!
//! An idle connection has no inbox either: the one that the last busy connection left is lent to the
//! next.

use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use handlers::Ctx;
use ops::Inbox;
use tokio::time::{Instant, sleep_until, timeout};

use super::server::{Handled, LiveMark, Server, Slow};
use super::socket::Socket;

/// Replies of one turn, in bytes; then they are sent and others get their turn.
const TURN: usize = 64 * 1024;

/// Most documents of one turn.
const TURN_DOCUMENTS: usize = 256;

/// Replies that may wait for a client that does not read, in bytes.
pub const MAX_WAITING: usize = 8 * 1024 * 1024;

/// How long so much may wait without a single byte being read.
pub const MAX_STALL: Duration = Duration::from_secs(if cfg!(test) { 3 } else { 60 });

/// How long a connection that we close waits for the client to close too, so that the last reply is
/// not lost with it.
const LINGER: Duration = Duration::from_secs(2);

/// The same when the whole server stops, which must not take long.
const LINGER_AT_STOP: Duration = Duration::from_millis(500);

/// Most bytes that are thrown away meanwhile.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Serves one connection until it ends. `early` was sent before the hand-over.
///
/// The future is what an idle connection costs, so it is built around one value: whatever an async
/// function moves about while it starts would stay in its memory for good.
pub fn serve(server: &Rc<Server>, ctx: Ctx, fd: OwnedFd, early: &[u8]) -> impl Future<Output = ()> + use<> {
    let mut connection = Connection::new(server, ctx, fd, early);
    async move {
        if let Some(connection) = &mut connection {
            connection.run().await;
        }
    }
}

/// What a turn ended with.
enum Turn {
    /// All answered; more bytes are needed.
    Idle,
    /// All answered; more documents have arrived already.
    Again,
    /// Something takes time.
    Busy(Busy),
    /// The client has gone.
    Gone,
}

/// What a connection is in the middle of.
struct Busy {
    /// Replies that the socket has not taken, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
    /// A request that is being worked on.
    work: Option<Slow>,
    /// No further request is read.
    closing: bool,
    /// The inbox holds no complete document.
    drained: bool,
    /// The client has said that it sends nothing more.
    ended: bool,
}

impl Busy {
    /// Bytes of replies that the socket has not taken.
    fn waiting(&self) -> usize {
        self.unsent.len() - self.sent
    }

    /// Whether documents that have arrived may be answered now.
    fn may_answer(&self) -> bool {
        self.work.is_none() && !self.closing && !self.drained && self.waiting() < MAX_WAITING
    }

    /// Appends a finished reply.
    fn append(&mut self, reply: Vec<u8>) {
        if self.unsent.is_empty() {
            self.unsent = reply;
        } else {
            self.unsent.extend_from_slice(&reply);
        }
    }

    /// Notes that `count` more bytes were sent.
    fn advance(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.unsent.len() {
            self.unsent = Vec::new();
            self.sent = 0;
        } else if self.sent > MAX_WAITING {
            // Keeps the memory within twice of what is really waiting.
            self.unsent.drain(..self.sent);
            self.sent = 0;
        }
    }
}

/// What a busy connection waited for.
enum Happened {
    Reply(Vec<u8>),
    Sent(io::Result<usize>),
    Read(io::Result<usize>),
    Stop,
    Stalled,
}

struct Connection {
    socket: Socket,
    /// Present while any byte of it waits, or while something is worked on.
    inbox: Option<Box<Inbox>>,
    mark: LiveMark,
}

impl Connection {
    fn new(server: &Rc<Server>, ctx: Ctx, fd: OwnedFd, early: &[u8]) -> Option<Self> {
        let mark = server.mark_live(ctx);
        match Socket::new(fd) {
            Ok(socket) => {
                let inbox = (!early.is_empty()).then(|| {
                    let mut inbox = Box::<Inbox>::default();
                    inbox.feed(early);
                    inbox
                });
                Some(Connection { socket, inbox, mark })
            }
            Err(error) => {
                tracing::warn!("a session is closed: {error}");
                None
            }
        }
    }

    /// Reads and answers until the connection ends.
    async fn run(&mut self) {
        let mut read = self.inbox.is_none();
        loop {
            if read {
                match poll_fn(|cx| self.poll_read(cx)).await {
                    // What was complete has been answered; a part of a document is nothing.
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            read = match self.turn() {
                Turn::Idle => true,
                Turn::Again => {
                    tokio::task::yield_now().await;
                    false
                }
                Turn::Busy(busy) => match Box::pin(self.busy(busy)).await {
                    Some(read) => read,
                    None => return,
                },
                Turn::Gone => return,
            };
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let server = self.mark.server();
        self.socket.poll_read(cx, &mut self.inbox, || server.take_inbox())
    }

    /// Answers what has arrived, as far as it is quick, and sends the replies in one piece.
    fn turn(&mut self) -> Turn {
        let server = Rc::clone(self.mark.server());
        let mut busy = Busy {
            unsent: server.take_buffer(),
            sent: 0,
            work: None,
            closing: false,
            drained: false,
            ended: false,
        };
        self.answer(&mut busy);
        let sent = if busy.unsent.is_empty() { Ok(0) } else { self.socket.try_send(&busy.unsent) };
        match sent {
            Ok(count) if count == busy.unsent.len() => {
                server.give_buffer(std::mem::take(&mut busy.unsent));
                if busy.work.is_some() || busy.closing {
                    Turn::Busy(busy)
                } else if busy.drained {
                    Turn::Idle
                } else {
                    Turn::Again
                }
            }
            Ok(count) => {
                busy.advance(count);
                Turn::Busy(busy)
            }
            Err(_) => Turn::Gone,
        }
    }

    /// Answers documents from the inbox until one is slow, none is left, or the turn is over.
    fn answer(&mut self, busy: &mut Busy) {
        let server = self.mark.server();
        let limit = busy.unsent.len() + TURN;
        for _ in 0..TURN_DOCUMENTS {
            if busy.unsent.len() >= limit {
                return;
            }
            let Some(inbox) = &mut self.inbox else {
                busy.drained = true;
                return;
            };
            match inbox.next() {
                Ok(Some(document)) => {
                    match server.handle(&self.mark.ctx, document, &mut busy.unsent) {
                        Handled::Done => {}
                        Handled::Close => busy.closing = true,
                        Handled::Slow(work) => busy.work = Some(work),
                    }
                    self.mark.heard();
                }
                Ok(None) => {
                    busy.drained = true;
                    if inbox.is_empty()
                        && let Some(inbox) = self.inbox.take()
                    {
                        server.give_inbox(inbox);
                    }
                }
                Err(reason) => {
                    server.refuse(&self.mark.ctx, reason, &mut busy.unsent);
                    busy.closing = true;
                    self.mark.heard();
                }
            }
            // The request in flight is the last one; what else was sent ahead is dropped. Half a request is none.
            if server.stopping() && busy.work.is_none() && !busy.drained {
                busy.closing = true;
            }
            if busy.drained || busy.closing || busy.work.is_some() {
                return;
            }
        }
    }

    /// Works until nothing is pending. `Some(true)`: go on with reading; `Some(false)`: go on with
    /// what has been read; `None`: the connection has ended.
    async fn busy(&mut self, mut busy: Busy) -> Option<bool> {
        let server = Rc::clone(self.mark.server());
        let _mark = server.mark_busy();
        let mut stalled = Instant::now() + MAX_STALL;
        loop {
            if busy.waiting() < MAX_WAITING {
                stalled = Instant::now() + MAX_STALL;
            }
            // A client may send far ahead before it reads anything; its requests are answered as long
            // as the replies fit.
            if busy.may_answer() {
                self.answer(&mut busy);
                self.send_now(&mut busy).ok()?;
            }
            if busy.waiting() == 0 && busy.work.is_none() {
                if busy.closing {
                    self.close(busy.ended).await;
                    return None;
                }
                return Some(busy.drained);
            }
            if busy.may_answer() {
                tokio::task::yield_now().await;
                continue;
            }
            if busy.waiting() > 0 {
                self.socket.watch_writing().ok()?;
            }
            match self.wait(&server, &mut busy, stalled).await {
                Happened::Reply(reply) => {
                    busy.work = None;
                    busy.append(reply);
                    busy.closing |= server.stopping();
                    self.send_now(&mut busy).ok()?;
                }
                Happened::Sent(count) => {
                    busy.advance(count.ok()?);
                    stalled = Instant::now() + MAX_STALL;
                }
                Happened::Read(count) => match count.ok()? {
                    0 => {
                        busy.closing = true;
                        busy.ended = true;
                    }
                    _ => busy.drained = false,
                },
                Happened::Stop => busy.closing = true,
                Happened::Stalled => {
                    tracing::info!("a client of {} that does not read is dropped", self.mark.ctx.user.name);
                    return None;
                }
            }
        }
    }

    /// Sends what the socket takes at once.
    fn send_now(&self, busy: &mut Busy) -> io::Result<()> {
        let unsent = busy.unsent.get(busy.sent..).unwrap_or_default();
        if !unsent.is_empty() {
            let count = self.socket.try_send(unsent)?;
            busy.advance(count);
        }
        Ok(())
    }

    /// Waits for the first thing that lets a busy connection go on.
    async fn wait(&mut self, server: &Server, busy: &mut Busy, stalled: Instant) -> Happened {
        let mut stop = pin!(server.stop.notified());
        let mut stall = pin!(sleep_until(stalled));
        let full = busy.waiting() >= MAX_WAITING;
        // The slow request in flight is finished, whatever happens.
        let free = busy.work.is_none() && !busy.closing;
        poll_fn(|cx| {
            if free && (server.stopping() || stop.as_mut().poll(cx).is_ready()) {
                return Poll::Ready(Happened::Stop);
            }
            if let Some(work) = &mut busy.work
                && let Poll::Ready(reply) = work.as_mut().poll(cx)
            {
                return Poll::Ready(Happened::Reply(reply));
            }
            let unsent = busy.unsent.get(busy.sent..).unwrap_or_default();
            if !unsent.is_empty()
                && let Poll::Ready(sent) = self.socket.poll_send(cx, unsent)
            {
                return Poll::Ready(Happened::Sent(sent));
            }
            if full && stall.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Happened::Stalled);
            }
            if free
                && !full
                && let Poll::Ready(count) = self.poll_read(cx)
            {
                return Poll::Ready(Happened::Read(count));
            }
            Poll::Pending
        })
        .await
    }

    /// Ends the connection in order: our end of sending first, then what the client still sends is
    /// thrown away for a moment. A plain close with unread input would destroy the last reply.
    async fn close(&mut self, ended: bool) {
        self.socket.finish_sending();
        if ended {
            return;
        }
        let linger = if self.mark.server().stopping() { LINGER_AT_STOP } else { LINGER };
        let drain = async {
            let mut thrown_away = 0;
            while thrown_away < LINGER_BYTES {
                self.inbox = None;
                match poll_fn(|cx| self.poll_read(cx)).await {
                    Ok(0) | Err(_) => return,
                    Ok(count) => thrown_away += count,
                }
            }
        };
        // The time is up: the client has had the chance to read.
        let _ = timeout(linger, drain).await;
    }
}
