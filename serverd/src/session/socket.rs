//! The caller's socket: TCP, unix, or the gateway's end of a TLS relay, all alike.
//!
//! Registered for reading only. A socket that is also watched for writability wakes its process each
//! time the peer has read something, which for a caller that asks one thing after the other means one
//! useless wake-up per request. The few sockets that really get stuck in writing are registered again
//! for both, and stay so.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};

use ops::Inbox;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A connected stream socket.
#[derive(Debug)]
pub struct Socket {
    /// Absent only while it is registered anew.
    fd: Option<AsyncFd<OwnedFd>>,
    /// Whether it is registered for writing too.
    both: bool,
}

impl Socket {
    /// Takes over a socket. Must be called inside a runtime.
    ///
    /// # Errors
    /// When it cannot be made non-blocking or registered.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        // Replies leave in one piece as it is; waiting for more only delays them. Fails on a unix
        // socket, which has no such delay, and no peer that can vanish without a word.
        if sockopt::set_tcp_nodelay(&fd, true).is_ok() {
            sockopt::set_socket_keepalive(&fd, true)?;
        }
        Ok(Socket { fd: Some(link::reactor::register(fd, Interest::READABLE)?), both: false })
    }

    fn fd(&self) -> io::Result<&AsyncFd<OwnedFd>> {
        self.fd.as_ref().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads into the inbox once the socket is readable; 0 is the end of what the peer sends.
    ///
    /// An absent inbox is taken from `spare` when there is something to read, not before.
    ///
    /// # Errors
    /// As `recv(2)`.
    pub fn poll_read(
        &self,
        cx: &mut Context<'_>,
        inbox: &mut Option<Box<Inbox>>,
        spare: impl Fn() -> Box<Inbox>,
    ) -> Poll<io::Result<usize>> {
        let fd = self.fd()?;
        loop {
            let mut ready = ready!(fd.poll_read_ready(cx))?;
            let room = inbox.get_or_insert_with(&spare).room();
            let space = room.capacity() - room.len();
            match recv(fd.get_ref(), spare_capacity(room), RecvFlags::DONTWAIT) {
                Ok((_, count)) => {
                    // Less than there was room for: the socket is empty. The next byte raises a new
                    // event, so the read that would only say so is saved. An end that has been seen
                    // is not forgotten by this.
                    if count > 0 && count < space {
                        ready.clear_ready();
                    }
                    return Poll::Ready(Ok(count));
                }
                Err(Errno::AGAIN) => {
                    ready.clear_ready();
                    inbox.take_if(|inbox| inbox.is_empty());
                }
                Err(Errno::INTR) => {}
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    /// Writes what goes without waiting; 0 when nothing does.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match send(self.fd()?.get_ref(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(count) => return Ok(count),
                Err(Errno::AGAIN) => return Ok(0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes some bytes once the socket is writable. [`Socket::watch_writing`] comes first.
    ///
    /// # Errors
    /// As `send(2)`.
    pub fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.fd()?.poll_write_ready(cx))?;
            match self.try_send(bytes) {
                Ok(0) => ready.clear_ready(),
                result => return Poll::Ready(result),
            }
        }
    }

    /// Registers the socket for writing as well, if it is not yet.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`.
    pub fn watch_writing(&mut self) -> io::Result<()> {
        if !self.both
            && let Some(fd) = self.fd.take()
        {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.fd = Some(link::reactor::register(fd.into_inner(), interest)?);
            self.both = true;
        }
        Ok(())
    }

    /// Says that nothing more will be sent.
    pub fn finish_sending(&self) {
        // Only fails when the peer is gone already.
        if let Ok(fd) = self.fd() {
            let _ = shutdown(fd.get_ref(), Shutdown::Write);
        }
    }
}
