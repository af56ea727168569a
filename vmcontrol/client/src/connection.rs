//! A session with the server: documents out, documents in.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use ops::{Document, ErrorCode, Guard, Progress, Reason};

use crate::dialogue;
use crate::error::{Error, system_text};
use crate::message::{Element, REPLY, Reply, Request};
use crate::params::Params;
use crate::wire::Stream;

/// A session with the server.
///
/// ```no_run
/// use vmcontrol_client::{Connection, Params, Request};
///
/// let mut server = Connection::open(&Params::default())?;
/// let out = server.call(&Request::new("inc").text("number", "42"))?;
/// assert_eq!(out.text("number"), Some("43"));
/// # Ok::<(), vmcontrol_client::Error>(())
/// ```
pub struct Connection {
    params: Params,
    /// A request that makes a new session like the one before.
    hello: Option<String>,
    /// None when the connection was lost.
    link: Option<Link>,
}

/// An open stream and what was read ahead on it.
struct Link {
    stream: Stream,
    /// Finds where a reply ends, and refuses what is none at its first wrong byte.
    guard: Guard,
    /// What came and belongs to no reply yet. Grows by doubling, as far as bytes really come.
    pending: Vec<u8>,
    /// Room for one read.
    room: Box<[u8]>,
    /// The server closes after its last reply.
    ends: bool,
}

impl Connection {
    /// Connects, logs in and reaches the server, all within [`Params::timeout`].
    ///
    /// # Errors
    /// -2 not reachable, or TLS; -4 login refused; -6 another protocol; -7 too slow; -13 closed on the
    /// way; -14 another line than expected, with the line.
    pub fn open(params: &Params) -> Result<Self, Error> {
        let link = Link::open(params)?;
        Ok(Connection { params: params.clone(), hello: None, link: Some(link) })
    }

    /// Whether there is a connection, as far as is known without asking.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.is_some()
    }

    /// Sets the longest time that one call may take.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.params.timeout = timeout;
    }

    /// Sets a request that is sent first whenever the connection is opened again, because the session
    /// needs it: it must succeed then.
    pub fn set_hello(&mut self, request: &Request) {
        self.hello = Some(request.to_string());
    }

    /// Sends one document as it is and returns the reply as it is, also when the reply reports failure.
    /// The line end behind a reply is not part of it.
    ///
    /// # Errors
    /// The exchange failed: -3 nothing was sent, because the text is not one document; -5 the
    /// connection was lost before; -7, -13, -15 it is lost now, and whether the server carried the
    /// request out is not known.
    pub fn exec(&mut self, request: &str) -> Result<String, Error> {
        // What is cut short would wait for ever, what goes on would leave a second reply behind.
        // Anything else that is wrong with it is for the server to say.
        let whole = Document::check(request);
        if let Err(reason @ (Reason::Incomplete | Reason::Outside)) = whole {
            return Err(Error::invalid("request", format_args!("must be one document: {reason}")));
        }
        let deadline = Instant::now() + self.params.timeout;
        self.revive(deadline)?;
        let reply = self.exchange(request, deadline);
        match &mut self.link {
            // The server closes after a document that it could not read.
            Some(link) if reply.is_ok() => link.ends = whole.is_err(),
            _ => self.drop_link(),
        }
        reply
    }

    /// Asks for an operation and returns the contents of `out`.
    ///
    /// # Errors
    /// As [`Connection::exec`]; -15 for a reply that is no envelope; otherwise code and text of the
    /// reply, -999 when it reports failure and carries none.
    pub fn call(&mut self, request: &Request) -> Result<Element, Error> {
        self.reply(request)?.into_result()
    }

    /// As [`Connection::call`], with all of the reply: product, warnings, and what was finished before
    /// a failure.
    ///
    /// # Errors
    /// As [`Connection::exec`]; -15 for a reply that is no envelope.
    pub fn reply(&mut self, request: &Request) -> Result<Reply, Error> {
        let text = self.exec(&request.to_string())?;
        let reply = Reply::parse(&text);
        if reply.is_err() {
            self.drop_link();
        }
        reply
    }

    /// Says goodbye and closes. Dropping does the same.
    pub fn close(mut self) {
        self.drop_link();
    }

    fn drop_link(&mut self) {
        if let Some(link) = self.link.take() {
            link.stream.close();
        }
    }

    /// Opens the connection again when the server has ended it since the last call.
    fn revive(&mut self, deadline: Instant) -> Result<(), Error> {
        let Some(link) = &mut self.link else { return Err(Error::new(ErrorCode::NotConnected)) };
        match link.is_alive() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => {
                self.drop_link();
                return Err(error);
            }
        }
        self.drop_link();
        self.link = Some(Link::open_until(&self.params, deadline)?);
        if let Some(hello) = self.hello.clone() {
            let reply = self.exchange(&hello, deadline).and_then(|text| Reply::parse(&text)?.into_result());
            if let Err(error) = reply {
                self.drop_link();
                return Err(error);
            }
        }
        Ok(())
    }

    fn exchange(&mut self, request: &str, deadline: Instant) -> Result<String, Error> {
        let timeout = self.params.timeout;
        let link = self.link.as_mut().ok_or_else(|| Error::new(ErrorCode::NotConnected))?;
        link.stream.set_deadline(deadline);
        link.exchange(request, timeout).map_err(|trouble| match trouble {
            Trouble::Reply(reason) => Error::garbage(reason),
            Trouble::Io(error) if error.kind() == ErrorKind::TimedOut => {
                let detail = format_args!(
                    "no answer within {} seconds. Whether the operation was carried out is not known; the \
                     connection is closed",
                    timeout.as_secs_f64()
                );
                Error::with(ErrorCode::Timeout, detail)
            }
            Trouble::Io(error) => Error::with(
                ErrorCode::Disconnect,
                format_args!(
                    "{}. Whether the operation was carried out is not known; connect again to see",
                    system_text(&error)
                ),
            ),
        })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.drop_link();
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("params", &self.params)
            .field("open", &self.is_connected())
            .finish()
    }
}

/// How an exchange fails.
enum Trouble {
    Io(io::Error),
    Reply(Reason),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Trouble::Io(error)
    }
}

impl From<Reason> for Trouble {
    fn from(reason: Reason) -> Self {
        Trouble::Reply(reason)
    }
}

impl Link {
    fn open(params: &Params) -> Result<Self, Error> {
        Self::open_until(params, Instant::now() + params.timeout)
    }

    fn open_until(params: &Params, deadline: Instant) -> Result<Self, Error> {
        let stream = dialogue::open(params, deadline)?;
        Ok(Link {
            stream,
            guard: Guard::with_limits(&REPLY),
            pending: Vec::new(),
            room: vec![0; 16 * 1024].into(),
            ends: false,
        })
    }

    /// Whether the server has not ended the connection. Takes in what came unasked, which is white
    /// space at most.
    fn is_alive(&mut self) -> Result<bool, Error> {
        if self.ends {
            return Ok(false);
        }
        self.stream.set_deadline(Instant::now());
        loop {
            let document = self.next().map_err(Error::garbage)?.is_some();
            if document || !self.pending.is_empty() {
                return Err(Error::garbage("the server said something unasked"));
            }
            match self.read() {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => return Ok(true),
                Err(_) => return Ok(false),
            }
        }
    }

    /// Sends a document, with a line end, and reads the reply.
    fn exchange(&mut self, request: &str, timeout: Duration) -> Result<String, Trouble> {
        self.stream.set_patience(timeout)?;
        let mut bytes = Vec::with_capacity(request.len() + 1);
        bytes.extend_from_slice(request.as_bytes());
        bytes.push(b'\n');
        self.stream.send(&bytes)?;
        loop {
            if let Some(document) = self.next()? {
                return Ok(document);
            }
            if self.read()? == 0 {
                let text = "the server closed the connection before it had answered";
                return Err(io::Error::new(ErrorKind::UnexpectedEof, text).into());
            }
        }
    }

    /// The next whole document of what came. White space between documents is dropped.
    fn next(&mut self) -> Result<Option<String>, Reason> {
        while !self.pending.is_empty() {
            match self.guard.scan(&self.pending) {
                Progress::Skip(padding) => drop(self.pending.drain(..padding)),
                Progress::More => return Ok(None),
                Progress::Refused(reason) => return Err(reason),
                Progress::Document(length) => {
                    let rest = self.pending.split_off(length);
                    let document = std::mem::replace(&mut self.pending, rest);
                    return String::from_utf8(document).map(Some).map_err(|_| Reason::Utf8);
                }
            }
        }
        Ok(None)
    }

    /// Reads once; 0 is the end.
    fn read(&mut self) -> io::Result<usize> {
        let length = self.stream.read(&mut self.room)?;
        self.pending.extend_from_slice(self.room.get(..length).unwrap_or_default());
        Ok(length)
    }
}
