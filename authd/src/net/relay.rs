//! Carries the bytes of a TLS session to and from the server, after the hand-over.
//!
//! The server has one end of a socket pair and cannot tell it from a plain session. End of data goes
//! both ways: close_notify (or a bare end of the TCP stream) becomes a shutdown of the sending side
//! towards the server, and the server's end of data becomes close_notify.
//!
//! An idle session costs no buffer: bytes pass through one buffer that all relays of the process
//! share, and only what the other side would not take at once is kept.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Size of the shared buffer: one TLS record.
const SCRATCH_BYTES: usize = 16 * 1024;

/// How long a caller may keep the connection after the server has closed its end.
const LINGER: Duration = if cfg!(test) { Duration::from_millis(100) } else { Duration::from_secs(30) };
/// The same when the gateway stops.
const LINGER_AT_STOP: Duration = Duration::from_millis(500);

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH_BYTES]);
}

/// One direction of a relay.
#[derive(Debug, Default)]
struct Direction {
    /// What was read and not yet taken by the other side.
    pending: Vec<u8>,
    sent: usize,
    /// The reading side has ended.
    ended: bool,
    /// And the other side was told.
    closed: bool,
}

/// Relays until the server has ended and the caller was told. Both streams are closed on return.
/// `stopping` is ready when the gateway stops: a running session may still end by itself, but nobody
/// waits for a caller whose session is over.
///
/// # Errors
/// When the caller is gone.
pub async fn relay<C, S>(mut caller: C, mut server: S, stopping: impl Future<Output = ()>) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut up, mut down) = (Direction::default(), Direction::default());
    std::future::poll_fn(|cx| {
        // Whatever ends this direction, the server is told, and only its own end ends the session: one
        // that takes no more may still have something to say.
        while let Poll::Ready(Err(_)) = up.poll(cx, &mut caller, &mut server) {
            up = Direction { ended: true, closed: up.ended, ..Direction::default() };
        }
        down.poll(cx, &mut server, &mut caller)
    })
    .await?;
    // Let the caller read the rest and close, but not for ever.
    let rest = std::future::poll_fn(|cx| up.poll(cx, &mut caller, &mut server));
    // An error here only says that the caller closed first.
    tokio::select! {
        _ = rest => {}
        () = tokio::time::sleep(LINGER) => {}
        () = async { stopping.await; tokio::time::sleep(LINGER_AT_STOP).await } => {}
    }
    Ok(())
}

impl Direction {
    /// Moves bytes until one side is not ready; ready when the end of data was passed on.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, from: &mut R, to: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            while let Some(rest) = self.pending.get(self.sent..).filter(|rest| !rest.is_empty()) {
                match ready!(Pin::new(&mut *to).poll_write(cx, rest))? {
                    0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                    written => self.sent += written,
                }
            }
            if self.sent > 0 {
                *self = Direction { ended: self.ended, closed: self.closed, ..Direction::default() };
            }
            if self.closed {
                return Poll::Ready(Ok(()));
            }
            if self.ended {
                ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                self.closed = true;
                continue;
            }
            match SCRATCH.with_borrow_mut(|scratch| self.poll_once(cx, from, to, scratch)) {
                Poll::Ready(result) => result?,
                Poll::Pending => {
                    // TLS may hold a record back; send it before going to sleep.
                    let _ = Pin::new(&mut *to).poll_flush(cx)?;
                    return Poll::Pending;
                }
            }
        }
    }

    /// One read, and a write of what it gave.
    fn poll_once<R, W>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut buffer = ReadBuf::new(scratch);
        match ready!(Pin::new(from).poll_read(cx, &mut buffer)) {
            Ok(()) => {}
            // Most old clients drop the TCP connection without close_notify.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => buffer.clear(),
            Err(error) => return Poll::Ready(Err(error)),
        }
        let filled = buffer.filled();
        if filled.is_empty() {
            self.ended = true;
            return Poll::Ready(Ok(()));
        }
        let written = match Pin::new(to).poll_write(cx, filled) {
            Poll::Ready(written) => written?,
            Poll::Pending => 0,
        };
        if let Some(rest) = filled.get(written..).filter(|rest| !rest.is_empty()) {
            self.pending = rest.to_vec();
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn bytes_and_ends_go_both_ways() {
        // Buffers far smaller than the data, so that every partial write is met.
        let (mut caller, caller_end) = duplex(7);
        let (mut server, server_end) = duplex(5);
        let task = tokio::spawn(relay(caller_end, server_end, std::future::pending()));
        let sent: Vec<u8> = (0..100_000u32).map(|n| (n % 251) as u8).collect();
        let copy = sent.clone();
        let server_task = tokio::spawn(async move {
            let mut received = Vec::new();
            server.read_to_end(&mut received).await.unwrap();
            server.write_all(b"answer").await.unwrap();
            received
        });
        caller.write_all(&copy).await.unwrap();
        caller.shutdown().await.unwrap();
        let mut answer = Vec::new();
        caller.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"answer");
        assert_eq!(server_task.await.unwrap(), sent);
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_caller_who_stays_after_the_end_is_dropped_in_the_end() {
        let (mut caller, caller_end) = duplex(64);
        let (server, server_end) = duplex(64);
        let task = tokio::spawn(relay(caller_end, server_end, std::future::pending()));
        drop(server);
        let mut rest = Vec::new();
        caller.read_to_end(&mut rest).await.unwrap();
        task.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn nobody_waits_for_such_a_caller_when_the_gateway_stops() {
        let (caller, caller_end) = duplex(64);
        let (server, server_end) = duplex(64);
        drop(server);
        relay(caller_end, server_end, std::future::ready(())).await.unwrap();
        drop(caller);
    }
}
