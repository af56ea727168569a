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

/// How much of its time an exchange may have used and still wait in one call of the kernel.
const SLACK: Duration = Duration::from_millis(5);

/// What is left until a deadline.
pub(crate) fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// A connected socket, every use of which ends at the deadline.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    deadline: Instant,
    /// The time-out that the kernel has for one receive: that of a whole exchange, so that the answer
    /// to a request is waited for in one call, without asking first whether there is one.
    patience: Option<Duration>,
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
        Ok(Wire { socket, deadline, patience: None })
    }

    /// Connects to a TCP port.
    pub fn tcp(address: SocketAddr, deadline: Instant) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, left(deadline).max(INSTANT))?;
        stream.set_nodelay(true)?;
        Ok(Wire { socket: stream.into(), deadline, patience: None })
    }

    /// Lets the kernel wait as long as a whole exchange may take.
    fn set_patience(&mut self, timeout: Duration) -> io::Result<()> {
        if self.patience != Some(timeout) {
            set_socket_timeout(&self.socket, Timeout::Recv, Some(timeout.max(INSTANT)))?;
            self.patience = Some(timeout);
        }
        Ok(())
    }

    /// Waits until the socket is ready, but not beyond the deadline.
    fn wait(&self, what: PollFlags) -> io::Result<()> {
        loop {
            let left = left(self.deadline);
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let limit = Timespec::try_from(left).map_err(io::Error::other)?;
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
        let early = self.patience.is_some_and(|patience| left(self.deadline) + SLACK >= patience);
        let mut flags = if early { RecvFlags::empty() } else { RecvFlags::DONTWAIT };
        loop {
            match recv(&self.socket, &mut *buffer, flags) {
                Ok((length, _)) => return Ok(length),
                Err(Errno::AGAIN | Errno::INTR) => self.wait(PollFlags::IN)?,
                Err(error) => return Err(error.into()),
            }
            flags = RecvFlags::DONTWAIT;
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
    fn wire(&mut self) -> &mut Wire {
        match self {
            Stream::Plain(wire) => wire,
            Stream::Tls(stream) => &mut stream.sock,
        }
    }

    /// Sets the deadline of everything that follows.
    pub fn set_deadline(&mut self, deadline: Instant) {
        self.wire().deadline = deadline;
    }

    /// Lets the kernel wait as long as a whole exchange may take.
    pub fn set_patience(&mut self, timeout: Duration) -> io::Result<()> {
        self.wire().set_patience(timeout)
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
