//! Bytes with a deadline: a unix socket or TCP, plain or in TLS.
//!
//! The deadline is set before each exchange and holds for all of it: a server that sends a byte now
//! and then does not extend it. Sending never raises SIGPIPE.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};
use rustls::{ClientConnection, StreamOwned};

/// Shortest time-out that the kernel takes for one: nothing means forever.
const INSTANT: Duration = Duration::from_millis(1);

/// What is left until a deadline.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// A connected socket, every use of which ends at the deadline.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    deadline: Instant,
}

impl Wire {
    /// Connects to a unix socket.
    pub fn unix(path: &Path, deadline: Instant) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A full backlog would block for good.
        set_socket_timeout(&socket, Timeout::Send, Some(left(deadline).max(INSTANT)))?;
        match connect(&socket, &SocketAddrUnix::new(path)?) {
            Err(Errno::AGAIN) => return Err(ErrorKind::TimedOut.into()),
            other => other?,
        }
        Ok(Wire { socket, deadline })
    }

    /// Connects to a TCP port.
    pub fn tcp(address: SocketAddr, deadline: Instant) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, left(deadline).max(INSTANT))?;
        stream.set_nodelay(true)?;
        Ok(Wire { socket: stream.into(), deadline })
    }

    /// Waits until the socket is ready, but not beyond the deadline.
    fn wait(&self, what: PollFlags) -> io::Result<()> {
        loop {
            let limit = Timespec::try_from(left(self.deadline)).map_err(io::Error::other)?;
            let fd = self.socket.as_fd();
            match poll(&mut [PollFd::new(&fd, what)], Some(&limit)) {
                Ok(0) => return Err(ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                // A signal handler of the host program ran.
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.wait(PollFlags::IN)?;
            match recv(&self.socket, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Ok(length),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match send(&self.socket, buffer, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(length) => return Ok(length),
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT)?,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A wire, with or without TLS on it.
pub(crate) enum Stream {
    /// As it is.
    Plain(Wire),
    /// In TLS.
    Tls(Box<StreamOwned<ClientConnection, Wire>>),
}

impl Stream {
    /// Sets the deadline of everything that follows.
    pub fn set_deadline(&mut self, deadline: Instant) {
        match self {
            Stream::Plain(wire) => wire.deadline = deadline,
            Stream::Tls(stream) => stream.sock.deadline = deadline,
        }
    }

    /// Sends all of it.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Stream::Plain(wire) => wire.write_all(bytes),
            Stream::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Reads what there is, waiting for the first byte; 0 is the end. A TLS peer that leaves without
    /// saying so has ended too.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = match self {
            Stream::Plain(wire) => wire.read(buffer),
            Stream::Tls(stream) => stream.read(buffer),
        };
        match result {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            other => other,
        }
    }

    /// Says goodbye as far as that is possible without waiting.
    pub fn close(mut self) {
        if let Stream::Tls(stream) = &mut self {
            stream.sock.deadline = Instant::now();
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stream::Plain(_) => "Plain",
            Stream::Tls(_) => "Tls",
        })
    }
}
