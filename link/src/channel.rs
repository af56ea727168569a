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
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::Notify;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::{AncillaryMessageWriter, OwnedAncillaryMessage};

use crate::wire::{MAX_MESSAGE, Message, WireError};

/// Most descriptors one message can carry.
pub const MAX_DESCRIPTORS: usize = 16;

/// Room for the control message that carries [`MAX_DESCRIPTORS`], with its header and alignment.
const ANCILLARY_BYTES: usize = MAX_DESCRIPTORS * 4 + 64;

thread_local! {
    /// Where datagrams are received before they are decoded; one for all channels of a thread.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; MAX_MESSAGE]);
}

/// One end of a channel that sends `Tx` and receives `Rx`.
#[derive(Debug)]
pub struct Channel<Tx, Rx> {
    socket: UnixSeqpacket,
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
    /// When the descriptor cannot be registered with the reactor.
    pub fn from_fd(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self::from_socket(UnixSeqpacket::try_from(socket)?))
    }

    /// Wraps a socket that tokio already knows.
    #[must_use]
    pub fn from_socket(socket: UnixSeqpacket) -> Self {
        Channel { socket, marker: PhantomData }
    }

    /// Connects to a listening socket by path.
    ///
    /// # Errors
    /// As `connect(2)`.
    pub async fn connect(path: &std::path::Path) -> io::Result<Self> {
        Ok(Self::from_socket(UnixSeqpacket::connect(path).await?))
    }

    /// The user id of the process that holds the other end (`SO_PEERCRED`).
    ///
    /// # Errors
    /// As `getsockopt(2)`.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(self.socket.peer_cred()?.uid())
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
        let mut space = [0u8; ANCILLARY_BYTES];
        let mut ancillary = AncillaryMessageWriter::new(&mut space);
        if !fds.is_empty() {
            ancillary.add_fds(fds.iter().copied())?;
        }
        self.socket.send_vectored_with_ancillary(&[IoSlice::new(bytes)], &mut ancillary).await?;
        Ok(())
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
        let mut space = [0u8; ANCILLARY_BYTES];
        let received =
            self.socket.poll_recv_vectored_with_ancillary(cx, &mut [IoSliceMut::new(buffer)], &mut space);
        let (info, ancillary) = match received {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(result) => result?,
        };
        let mut fds = Vec::new();
        for message in ancillary.into_messages() {
            if let OwnedAncillaryMessage::FileDescriptors(received) = message {
                fds.extend(received);
            }
        }
        if info.truncated() || info.ancillary_truncated() {
            let text = "message longer than the limit";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        if info.bytes_read() == 0 {
            return Poll::Ready(Ok(None));
        }
        let datagram = buffer.get(..info.bytes_read()).unwrap_or_default();
        let message = Rx::decode(datagram).map_err(|why| broken(&why))?;
        let declared = message.descriptors();
        if !declared.contains(&fds.len()) {
            let why = WireError::Descriptors(fds.len(), *declared.start(), *declared.end());
            return Poll::Ready(Err(broken(&why)));
        }
        Poll::Ready(Ok(Some((message, fds))))
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
#[derive(Debug)]
pub struct Outbox<Tx> {
    shared: Arc<Shared<Tx>>,
}

impl<Tx> Clone for Outbox<Tx> {
    fn clone(&self) -> Self {
        Outbox { shared: Arc::clone(&self.shared) }
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
}

/// The outbox took no message: the peer is gone, or has not read for so long that the queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the other process does not take messages")]
pub struct Full;

impl<Tx: Message> Outbox<Tx> {
    /// A queue of at most `limit` messages.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        let queue = Queue { messages: VecDeque::new(), limit, closed: false };
        Outbox { shared: Arc::new(Shared { queue: Mutex::new(queue), wake: Notify::new() }) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue<Tx>> {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`Full`] when the queue is full or closed; message and descriptors are dropped.
    pub fn push(&self, message: Tx, fds: Vec<OwnedFd>) -> Result<(), Full> {
        let mut queue = self.lock();
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
        self.lock().closed = true;
        self.shared.wake.notify_one();
    }

    /// Writes queued messages until the outbox is closed and empty, or the channel fails.
    ///
    /// # Errors
    /// As [`Channel::send`].
    pub async fn run<Rx: Message>(self, channel: Arc<Channel<Tx, Rx>>) -> io::Result<()> {
        let result = self.drain(&channel).await;
        let mut queue = self.lock();
        queue.closed = true;
        queue.messages.clear();
        result
    }

    async fn drain<Rx: Message>(&self, channel: &Channel<Tx, Rx>) -> io::Result<()> {
        loop {
            let next = {
                let mut queue = self.lock();
                match queue.messages.pop_front() {
                    None if queue.closed => return Ok(()),
                    next => next,
                }
            };
            match next {
                Some((message, fds)) => {
                    let borrowed: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
                    channel.send(&message, &borrowed).await?;
                }
                None => self.shared.wake.notified().await,
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
