//! A stream socket that is watched for reading only: local callers, and the inner ends of relays.
//!
//! That of tokio wakes the process each time the other end has read something; see [`link::reactor`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use link::reactor;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, recv, send,
    shutdown, socketpair,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

/// A connected unix socket.
pub struct UnixStream {
    socket: AsyncFd<OwnedFd>,
    /// There while the socket is full.
    room: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl std::fmt::Debug for UnixStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UnixStream").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl UnixStream {
    /// Takes over a socket that does not block. Must be called inside a runtime.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(UnixStream { socket: reactor::register(socket, Interest::READABLE)?, room: None })
    }

    /// Waits for the next caller of a listener. Cancel safe.
    ///
    /// # Errors
    /// As `accept(2)`.
    pub async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<Self> {
        loop {
            let mut ready = listener.readable().await?;
            match accept_with(listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok(socket) => return Self::new(socket),
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Two connected sockets, of which the other is for somebody else and not registered.
    ///
    /// # Errors
    /// As `socketpair(2)`.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self::new(ours)?, theirs))
    }
}

impl AsFd for UnixStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsyncRead for UnixStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.socket.poll_read_ready(cx))?;
            let space = buffer.initialize_unfilled();
            let length = space.len();
            match recv(&self.socket, space, RecvFlags::DONTWAIT) {
                Ok((_, count)) => {
                    // Less than there was room for: the socket is empty, and the next byte raises a new event.
                    if 0 < count && count < length {
                        ready.clear_ready();
                    }
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Err(Errno::AGAIN) => ready.clear_ready(),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for UnixStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(room) = &mut self.room {
                ready!(room.as_mut().poll(cx));
                self.room = None;
            }
            match send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Ok(count) => return Poll::Ready(Ok(count)),
                Err(Errno::AGAIN) => self.room = Some(Box::pin(reactor::room(self.socket.as_fd()))),
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(&self.socket, Shutdown::Write).map_err(io::Error::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn more_than_the_socket_holds_goes_both_ways() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let mut theirs = UnixStream::new(theirs).unwrap();
        let sent: Vec<u8> = (0..2_000_000u32).map(|n| (n % 251) as u8).collect();
        let echo = tokio::spawn(async move {
            let mut all = Vec::new();
            theirs.read_to_end(&mut all).await.unwrap();
            theirs.write_all(&all).await.unwrap();
        });
        ours.write_all(&sent).await.unwrap();
        ours.shutdown().await.unwrap();
        let mut back = Vec::new();
        ours.read_to_end(&mut back).await.unwrap();
        assert!(back == sent, "{} bytes came back", back.len());
        echo.await.unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_has_gone_is_an_error_to_write_to() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        while send(&ours, &[0; 4096], SendFlags::DONTWAIT).is_ok() {}
        let writing = tokio::spawn(async move { ours.write_all(b"x").await });
        tokio::task::yield_now().await;
        drop(theirs);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn callers_are_accepted_as_they_come() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = reactor::register(listener.into(), Interest::READABLE).unwrap();
        let caller = std::thread::spawn(move || std::os::unix::net::UnixStream::connect(path).unwrap());
        let mut accepted = UnixStream::accept(&listener).await.unwrap();
        drop(caller.join().unwrap());
        assert_eq!(accepted.read(&mut [0; 8]).await.unwrap(), 0);
    }
}
