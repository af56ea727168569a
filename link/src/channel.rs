//! A typed channel over a SOCK_SEQPACKET unix socket.
//!
//! Each end names what it sends (`Tx`) and what it expects (`Rx`). A datagram that is not a message
//! of `Rx`, or that carries another number of descriptors than its variant declares, is an error,
//! and the caller treats the peer as broken: between our processes a wrong message is never noise.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;
use tokio_seqpacket::UnixSeqpacket;

use crate::reactor;
use crate::wire::{MAX_MESSAGE, Message, WireError};

/// Most descriptors one message can carry.
pub const MAX_DESCRIPTORS: usize = 16;

/// Room for the control message that carries [`MAX_DESCRIPTORS`], with its header and alignment.
const ANCILLARY_BYTES: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS));

thread_local! {
    /// Where datagrams are received before they are decoded; one for all channels of a thread.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_MESSAGE]);
}

/// One end of a channel that sends `Tx` and receives `Rx`.
#[derive(Debug)]
pub struct Channel<Tx, Rx> {
    /// Watched for reading only; see [`reactor`].
    socket: AsyncFd<OwnedFd>,
    marker: PhantomData<fn(Tx) -> Rx>,
}

/// A received message with its descriptors.
pub type Received<Rx> = (Rx, Vec<OwnedFd>);

fn broken(why: &WireError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

impl<Tx: Message, Rx: Message> Channel<Tx, Rx> {
    /// Wraps a connected SOCK_SEQPACKET socket. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the descriptor cannot be made non-blocking or registered with the reactor.
    pub fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Channel { socket: reactor::register(socket, Interest::READABLE)?, marker: PhantomData })
    }

    /// Wraps a socket that tokio already knows.
    ///
    /// # Errors
    /// As [`Channel::from_fd`].
    pub fn from_socket(socket: UnixSeqpacket) -> io::Result<Self> {
        Self::from_fd(socket.into())
    }

    /// Connects to a listening socket by path.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub async fn connect(path: &std::path::Path) -> io::Result<Self> {
        Self::from_socket(UnixSeqpacket::connect(path).await?)
    }

    /// The user id of the process that holds the other end (`SO_PEERCRED`).
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(sockopt::socket_peercred(&self.socket)?.uid.as_raw())
    }

    /// Sends one message; waits while the socket is full.
    ///
    /// # Errors
    /// `InvalidInput` when the message is longer than [`MAX_MESSAGE`] or the number of descriptors is
    /// not what the variant declares; otherwise as `sendmsg(2)`.
    pub async fn send(&self, message: &Tx, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(128);
        message.encode(&mut bytes);
        self.send_encoded(message.name(), &message.descriptors(), &bytes, fds).await
    }

    async fn send_encoded(
        &self,
        name: &str,
        declared: &std::ops::RangeInclusive<usize>,
        bytes: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        if bytes.len() > MAX_MESSAGE {
            let text = format!("message {name} of {} bytes is longer than {MAX_MESSAGE}", bytes.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        if !declared.contains(&fds.len()) {
            let text = format!("message {name} with {} descriptors", fds.len());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        loop {
            match self.send_now(bytes, fds) {
                Ok(()) => return Ok(()),
                Err(Errno::AGAIN) => reactor::room(self.socket.as_fd()).await,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send_now(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Errno::INVAL);
        }
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        sendmsg(&self.socket, &[IoSlice::new(bytes)], &mut ancillary, flags).map(drop)
    }

    /// Receives one message with its descriptors, or `None` at the end of the channel.
    ///
    /// Cancel safe: a message is either returned or still in the socket.
    ///
    /// # Errors
    /// `InvalidData` when the datagram is not a message; otherwise as `recvmsg(2)`.
    pub async fn recv(&self) -> io::Result<Option<Received<Rx>>> {
        std::future::poll_fn(|cx| SCRATCH.with_borrow_mut(|buffer| self.poll_recv(cx, buffer))).await
    }

    fn poll_recv(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Option<Received<Rx>>>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            match self.recv_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn recv_now(&self, buffer: &mut [u8]) -> io::Result<Option<Received<Rx>>> {
        let mut space = [MaybeUninit::uninit(); ANCILLARY_BYTES];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let info = recvmsg(&self.socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags)?;
        let mut fds = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                fds.extend(received);
            }
        }
        if info.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "message longer than the limit"));
        }
        if info.bytes == 0 {
            return Ok(None);
        }
        let datagram = buffer.get(..info.bytes).unwrap_or_default();
        let message = Rx::decode(datagram).map_err(|why| broken(&why))?;
        let declared = message.descriptors();
        if !declared.contains(&fds.len()) {
            let why = WireError::Descriptors(fds.len(), *declared.start(), *declared.end());
            return Err(broken(&why));
        }
        Ok(Some((message, fds)))
    }
}

impl<Tx, Rx> AsFd for Channel<Tx, Rx> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A queue in front of a channel, for senders that must never wait for the peer.
///
/// [`Outbox::push`] returns at once; a task made by [`Outbox::run`] does the writing. A peer that
/// does not read fills the queue, and a full queue is reported to the sender, who then gives the
/// peer up. So a stuck or hostile peer costs a bounded amount of memory and nobody's time.
///
/// The task, and with it the channel, ends when nobody is left who could push.
#[derive(Debug)]
pub struct Outbox<Tx> {
    shared: Arc<Shared<Tx>>,
}

impl<Tx> Clone for Outbox<Tx> {
    fn clone(&self) -> Self {
        self.shared.lock().senders += 1;
        Outbox { shared: Arc::clone(&self.shared) }
    }
}

impl<Tx> Drop for Outbox<Tx> {
    fn drop(&mut self) {
        self.shared.lock().senders -= 1;
        self.shared.wake.notify_one();
    }
}

#[derive(Debug)]
struct Shared<Tx> {
    queue: Mutex<Queue<Tx>>,
    wake: Notify,
}

#[derive(Debug)]
struct Queue<Tx> {
    messages: VecDeque<(Tx, Vec<OwnedFd>)>,
    limit: usize,
    closed: bool,
    /// How many outboxes there are; a task that writes is none.
    senders: usize,
}

impl<Tx> Shared<Tx> {
    fn lock(&self) -> MutexGuard<'_, Queue<Tx>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outbox took no message: the peer is gone, or has not read for so long that the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other process does not take messages")]
pub struct Full;

impl<Tx: Message> Outbox<Tx> {
    /// A queue of at most `limit` messages.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let queue = Queue { messages: VecDeque::new(), limit, closed: false, senders: 1 };
        Outbox { shared: Arc::new(Shared { queue: Mutex::new(queue), wake: Notify::new() }) }
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`Full`] when the queue is full or closed; message and descriptors are dropped.
    pub fn push(&self, message: Tx, fds: Vec<OwnedFd>) -> Result<(), Full> {
        let mut queue = self.shared.lock();
        if queue.closed || queue.messages.len() >= queue.limit {
            return Err(Full);
        }
        queue.messages.push_back((message, fds));
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }

    /// Refuses further messages; [`Outbox::run`] ends when those already queued are sent.
    pub fn close(&self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
    }

    /// Writes queued messages until the outbox is closed, or all its copies are gone, and it is empty, or the
    /// channel fails.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub async fn run<Rx: Message>(self, channel: Arc<Channel<Tx, Rx>>) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        drop(self);
        let result = shared.drain(&channel).await;
        let mut queue = shared.lock();
        queue.closed = true;
        queue.messages.clear();
        result
    }
}

impl<Tx: Message> Shared<Tx> {
    async fn drain<Rx: Message>(&self, channel: &Channel<Tx, Rx>) -> io::Result<()> {
        loop {
            let next = {
                let mut queue = self.lock();
                match queue.messages.pop_front() {
                    None if queue.closed || queue.senders == 0 => return Ok(()),
                    next => next,
                }
            };
            match next {
                Some((message, fds)) => {
                    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                    channel.send(&message, &borrowed).await?;
                }
                None => self.wake.notified().await,
            }
        }
    }
}

/// A pair of connected SOCK_SEQPACKET sockets, close-on-exec, for a parent and its child.
///
/// # Errors
/// As `socketpair(2)`.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::{ToAuthd, ToServerd};

    type Gateway = Channel<ToServerd, ToAuthd>;
    type Core = Channel<ToAuthd, ToServerd>;

    fn channels() -> (Gateway, Core) {
        let (a, b) = pair().unwrap();
        (Channel::from_fd(a).unwrap(), Channel::from_fd(b).unwrap())
    }

    #[tokio::test]
    async fn an_outbox_that_nobody_has_any_more_lets_the_channel_go() {
        let (gateway, core) = channels();
        let outbox = Outbox::new(4);
        let copy = outbox.clone();
        let writer = tokio::spawn(outbox.clone().run(Arc::new(gateway)));
        outbox.push(ToServerd::Reserve { session: 1, uid: 2 }, Vec::new()).unwrap();
        drop(outbox);
        assert!(matches!(core.recv().await.unwrap(), Some((ToServerd::Reserve { session: 1, uid: 2 }, _))));
        copy.push(ToServerd::Reserve { session: 2, uid: 2 }, Vec::new()).unwrap();
        drop(copy);
        assert!(matches!(core.recv().await.unwrap(), Some((ToServerd::Reserve { session: 2, .. }, _))));
        assert!(core.recv().await.unwrap().is_none(), "the writer still holds the channel");
        writer.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn messages_and_descriptors_arrive() {
        let (gateway, core) = channels();
        gateway.send(&ToServerd::Reserve { session: 1, uid: 2 }, &[]).await.unwrap();
        let (message, fds) = core.recv().await.unwrap().unwrap();
        assert_eq!((message, fds.len()), (ToServerd::Reserve { session: 1, uid: 2 }, 0));
        assert_eq!(core.peer_uid().unwrap(), rustix::process::getuid().as_raw());
        drop(gateway);
        assert!(core.recv().await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_descriptor_where_none_is_declared_is_refused_by_both_ends() {
        let (gateway, core) = channels();
        let (extra, _other) = pair().unwrap();
        let error = gateway.send(&ToServerd::Cancel { session: 1 }, &[extra.as_fd()]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        // A hostile sender does not check: write the datagram by hand.
        let mut bytes = Vec::new();
        ToServerd::Cancel { session: 1 }.encode(&mut bytes);
        gateway.send_encoded("Cancel", &(1..=1), &bytes, &[extra.as_fd()]).await.unwrap();
        assert_eq!(core.recv().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
        // And the other way round: a declared descriptor that is missing.
        gateway.send_encoded("Session", &(0..=0), &[2, 0], &[]).await.unwrap();
        assert_eq!(core.recv().await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn a_message_over_the_limit_is_refused() {
        let (_gateway, core) = channels();
        let error = core.send(&ToAuthd::Refuse { session: 1, reason: "x".repeat(140_000) }, &[]).await;
        assert_eq!(error.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn a_peer_that_does_not_read_fills_the_outbox_and_nothing_else() {
        let (gateway, core) = channels();
        let outbox = Outbox::new(3);
        for session in 0..3 {
            outbox.push(ToServerd::Cancel { session }, Vec::new()).unwrap();
        }
        assert_eq!(outbox.push(ToServerd::Cancel { session: 9 }, Vec::new()), Err(Full));
        outbox.close();
        outbox.clone().run(Arc::new(gateway)).await.unwrap();
        for session in 0..3 {
            assert_eq!(core.recv().await.unwrap().unwrap().0, ToServerd::Cancel { session });
        }
        assert_eq!(outbox.push(ToServerd::Cancel { session: 9 }, Vec::new()), Err(Full));
    }
}
