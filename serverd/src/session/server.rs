//! What all connections of a session process share, and what happens to one request.
//!
//! ```text
//!   document ─▶ envelope ─▶ may this caller? ─▶ handler ─┬─ quick: reply appended at once
//!                   │                │                   └─ slow:  Slow, a future of the reply
//!                   └── Fault ◀──────┴── Failure ─▶ error reply, one log line under the request's id
//! ```
//!
//! Every error is turned into a reply here and nowhere else. What the caller may know goes into the
//! reply; what went wrong inside goes to the log under the same request id.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use handlers::{Ctx, Failure, Linked, Run};
use ops::guard::Document;
use ops::{Error, Fault, Inbox, Reason, envelope};
use tokio::sync::Notify;

use super::audit::{Audit, Subject};
use crate::figures::{Figures, NO_OP};

/// Reply buffers larger than this are not kept for reuse, in bytes.
const KEEP_BUFFER: usize = 256 * 1024;

/// Number of a request: the process and the count of its requests, unique in the log of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    process: u32,
    number: u64,
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.process, self.number)
    }
}

/// A reply that takes a while: the finished document.
pub type Slow = Pin<Box<dyn Future<Output = Vec<u8>>>>;

/// One request, for its reply, the log and the figures.
#[derive(Debug)]
struct Asked {
    id: RequestId,
    /// Index of the operation, or [`NO_OP`].
    op: usize,
    /// Its name; empty when there is none.
    name: &'static str,
    since: Instant,
    /// What it is about, where the audit wants to know.
    subject: Option<Box<Subject>>,
}

/// What became of a request.
pub enum Handled {
    /// Its reply has been appended.
    Done,
    /// Its reply has been appended, and the stream cannot be read on.
    Close,
    /// Its reply is still to come, and no other request of the connection may overtake it.
    Slow(Slow),
}

/// Shared by all connections of the process. Lives on one thread.
pub struct Server {
    linked: Linked,
    figures: Figures,
    audit: Audit,
    process: u32,
    requests: Cell<u64>,
    /// The buffer for replies, lent to whichever connection is at work.
    buffer: RefCell<Vec<u8>>,
    /// The inbox of the connection that last became idle, for the next one that does not stay so.
    inbox: RefCell<Option<Box<Inbox>>>,
    stopping: Cell<bool>,
    busy: Cell<usize>,
    live: Cell<usize>,
    silent: Cell<usize>,
    /// Sessions that have ended and were not reported.
    ended: RefCell<Vec<u64>>,
    /// Raised when the server is told to stop.
    pub stop: Notify,
    /// Raised when a connection has ended, or is no longer busy.
    pub changed: Notify,
}

impl Server {
    /// A server whose requests are counted in `figures`, and told to the audit.
    #[must_use]
    pub fn new(linked: Linked, figures: Figures, audit: Audit) -> Rc<Self> {
        Rc::new(Server {
            linked,
            figures,
            audit,
            process: std::process::id(),
            requests: Cell::new(0),
            buffer: RefCell::new(Vec::new()),
            inbox: RefCell::new(None),
            stopping: Cell::new(false),
            busy: Cell::new(0),
            live: Cell::new(0),
            silent: Cell::new(0),
            ended: RefCell::new(Vec::new()),
            stop: Notify::new(),
            changed: Notify::new(),
        })
    }

    /// Carries out one document.
    pub fn handle(self: &Rc<Self>, ctx: &Ctx, document: Document<'_>, out: &mut Vec<u8>) -> Handled {
        let mut asked = self.next_request();
        let request = match envelope::parse(document) {
            Ok(request) => request,
            Err(fault) => return self.fail(ctx, &asked, fault.into(), out),
        };
        (asked.op, asked.name) = (request.op.index(), request.row().name);
        asked.subject = self.audit.subject(&request, ctx.machine.as_deref());
        let request = match request.admit(ctx.user.admin) {
            Ok(request) => request,
            Err(fault) => return self.fail(ctx, &asked, fault.into(), out),
        };
        let Some(run) = self.linked.get(request.op) else {
            // Linking has made sure that this does not happen.
            let failure = Failure::internal("finding the handler", asked.name);
            return self.fail(ctx, &asked, failure, out);
        };
        let start = out.len();
        let input = request.into_input().about(ctx.machine.as_deref());
        match run {
            Run::Quick(handler) => {
                let result = caught(|| handler(ctx, input, out));
                match result {
                    Ok(()) => {
                        self.count(ctx, &asked, 0);
                        Handled::Done
                    }
                    Err(failure) => {
                        // A handler that gave up half-way has left half a reply.
                        out.truncate(start);
                        self.fail(ctx, &asked, failure, out)
                    }
                }
            }
            Run::Blocking(prepare) => match caught(|| prepare(ctx, input)) {
                Ok(job) => {
                    let task = async {
                        let work = tokio::task::spawn_blocking(|| caught(job));
                        work.await
                            .unwrap_or_else(|error| Err(Failure::internal("running the handler", error)))
                    };
                    Handled::Slow(self.slow(ctx, asked, task))
                }
                Err(failure) => self.fail(ctx, &asked, failure, out),
            },
            Run::Async(prepare) => match caught(|| prepare(ctx, input)) {
                Ok(work) => {
                    let mut later = Caught { session: ctx.session, work };
                    // An answer that needs nobody else is there at once, and takes no detour. One that
                    // does is polled again by whoever waits for it.
                    match Pin::new(&mut later).poll(&mut Context::from_waker(Waker::noop())) {
                        Poll::Ready(Ok(reply)) => {
                            self.count(ctx, &asked, 0);
                            out.extend_from_slice(&reply);
                            Handled::Done
                        }
                        Poll::Ready(Err(failure)) => self.fail(ctx, &asked, failure, out),
                        Poll::Pending => Handled::Slow(self.slow(ctx, asked, later)),
                    }
                }
                Err(failure) => self.fail(ctx, &asked, failure, out),
            },
        }
    }

    /// Completes a future with what every reply needs.
    fn slow(
        self: &Rc<Self>,
        ctx: &Ctx,
        asked: Asked,
        work: impl Future<Output = Result<Vec<u8>, Failure>> + 'static,
    ) -> Slow {
        let (server, ctx) = (Rc::clone(self), ctx.clone());
        Box::pin(async move {
            match work.await {
                Ok(reply) => {
                    server.count(&ctx, &asked, 0);
                    reply
                }
                Err(failure) => {
                    let mut reply = Vec::new();
                    server.fail(&ctx, &asked, failure, &mut reply);
                    reply
                }
            }
        })
    }

    /// Answers a stream that is not XML or exceeds a limit.
    pub fn refuse(&self, ctx: &Ctx, reason: Reason, out: &mut Vec<u8>) {
        let asked = self.next_request();
        self.fail(ctx, &asked, Fault::Malformed(reason).into(), out);
    }

    /// Turns a failure into its reply and logs it: the only place that does.
    fn fail(&self, ctx: &Ctx, asked: &Asked, failure: Failure, out: &mut Vec<u8>) -> Handled {
        let (id, name) = (asked.id, asked.name);
        let (error, closes) = match failure {
            Failure::Told(fault) => {
                tracing::debug!("request {id} {name}: {fault}");
                let closes = fault.closes();
                (fault.into_error(), closes)
            }
            internal @ Failure::Internal { .. } => {
                tracing::error!("request {id} {name}: {internal}");
                (Error::internal(id), false)
            }
        };
        envelope::write_error(out, &ctx.product, &error);
        self.count(ctx, asked, error.code.number());
        if closes { Handled::Close } else { Handled::Done }
    }

    fn next_request(&self) -> Asked {
        let number = self.requests.get() + 1;
        self.requests.set(number);
        let id = RequestId { process: self.process, number };
        Asked { id, op: NO_OP, name: "", since: Instant::now(), subject: None }
    }

    /// Counts a request whose reply is complete, before any of the reply can be read, and tells the audit.
    /// The code is 0 for success.
    fn count(&self, ctx: &Ctx, asked: &Asked, code: i32) {
        self.figures.count(asked.op, code != 0, asked.since.elapsed());
        self.audit.tell(ctx.session, asked.id.number, asked.op, code, asked.subject.as_deref());
    }

    /// Borrows the reply buffer, empty.
    pub(super) fn take_buffer(&self) -> Vec<u8> {
        self.buffer.take()
    }

    /// Gives the reply buffer back.
    pub(super) fn give_buffer(&self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= KEEP_BUFFER {
            buffer.clear();
            self.buffer.replace(buffer);
        }
    }

    /// A new inbox, in the memory of the last one.
    pub(super) fn take_inbox(&self) -> Box<Inbox> {
        self.inbox.take().unwrap_or_default()
    }

    /// Takes over the inbox of a connection that needs none.
    pub(super) fn give_inbox(&self, mut inbox: Box<Inbox>) {
        // Whatever state it had was that connection's.
        *inbox = Inbox::new();
        self.inbox.replace(Some(inbox));
    }

    /// Whether requests in flight are the last ones.
    #[must_use]
    pub fn stopping(&self) -> bool {
        self.stopping.get()
    }

    /// From now on each connection finishes its request in flight and closes.
    pub fn begin_stop(&self) {
        self.stopping.set(true);
        self.stop.notify_waiters();
    }

    /// How many connections are in the middle of something.
    #[must_use]
    pub fn busy(&self) -> usize {
        self.busy.get()
    }

    /// How many connections there are.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.get()
    }

    /// How many of them have not asked anything yet.
    #[must_use]
    pub fn silent(&self) -> usize {
        self.silent.get()
    }

    /// Numbers of the sessions that have ended since the last call.
    #[must_use]
    pub fn take_ended(&self) -> Vec<u64> {
        self.ended.take()
    }

    /// Marks a connection as being in the middle of something until the mark is dropped.
    pub(super) fn mark_busy(self: &Rc<Self>) -> BusyMark {
        self.busy.set(self.busy.get() + 1);
        BusyMark(Rc::clone(self))
    }

    /// Registers a connection of a session until the mark is dropped.
    pub(super) fn mark_live(self: &Rc<Self>, ctx: Ctx) -> LiveMark {
        self.live.set(self.live.get() + 1);
        self.silent.set(self.silent.get() + 1);
        LiveMark { server: Rc::clone(self), silent: Cell::new(true), ctx }
    }
}

/// See [`Server::busy`].
pub(super) struct BusyMark(Rc<Server>);

impl Drop for BusyMark {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get().saturating_sub(1));
        if self.0.stopping() {
            self.0.changed.notify_one();
        }
    }
}

/// See [`Server::live`].
pub(super) struct LiveMark {
    server: Rc<Server>,
    /// Counted in [`Server::silent`].
    silent: Cell<bool>,
    /// The session.
    pub(super) ctx: Ctx,
}

impl LiveMark {
    /// The server that the connection belongs to.
    pub(super) fn server(&self) -> &Rc<Server> {
        &self.server
    }

    /// The caller has asked something.
    pub(super) fn heard(&self) {
        if self.silent.replace(false) {
            self.server.silent.set(self.server.silent.get().saturating_sub(1));
            if self.server.stopping() {
                self.server.changed.notify_one();
            }
        }
    }
}

impl Drop for LiveMark {
    fn drop(&mut self) {
        self.heard();
        self.server.live.set(self.server.live.get().saturating_sub(1));
        self.server.ended.borrow_mut().push(self.ctx.session);
        self.server.changed.notify_one();
    }
}

/// A panic of a handler as the failure it is.
fn panicked(payload: &(dyn Any + Send)) -> Failure {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no text".to_owned());
    Failure::internal("the handler panicked", text)
}

/// Runs code of a handler; its panic becomes a failure of this one request.
///
/// The handler's own state is gone with it, and what it shares (the context) has no locks that a
/// panic could leave half-way.
fn caught<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|payload| Err(panicked(&*payload)))
}

/// The work of a handler for a session. A panic becomes a failure.
struct Caught {
    session: u64,
    work: handlers::Later,
}

impl Future for Caught {
    type Output = Result<Vec<u8>, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let session = self.session;
        let poll = || handlers::in_session(session, || self.work.as_mut().poll(cx));
        let polled = catch_unwind(AssertUnwindSafe(poll));
        polled.unwrap_or_else(|payload| Poll::Ready(Err(panicked(&*payload))))
    }
}
