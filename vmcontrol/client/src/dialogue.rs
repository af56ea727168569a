//! The lines of the gateway: banner, TLS, login, hand-over.
//!
//! ```text
//!   S: 220 ... Version 1.00            or: 220 ... SSL Required ...   then TLS begins
//!   C: LOCAL                           or: USER name, PASS password
//!   S: 230 User alice logged in.
//!   C: GLOBAL server
//!   S: 200 Connected to vmware-serverd.
//! ```

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use ops::ErrorCode;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use zeroize::Zeroizing;

use crate::address::Target;
use crate::error::{Error, system_text};
use crate::params::Params;
use crate::trust::{KnownHosts, tls_config};
use crate::wire::{Stream, Wire, left};

/// Longest line that the gateway sends; its own limit is 1024.
const MAX_LINE: usize = 4096;

/// Most of a line that an error text repeats, in bytes.
const MAX_ECHO: usize = 1024;

/// Connects, logs in and asks for the server. What follows belongs to `serverd`.
///
/// # Errors
/// See the table in `docs/operations/README.md`; every way ends at the deadline.
pub(crate) fn open(params: &Params, deadline: Instant) -> Result<Stream, Error> {
    let target = Target::of(params);
    let dialogue = Dialogue { params, name: target.name(), deadline };
    let wire = dialogue.connect(&target)?;
    let stream = dialogue.greet(wire)?;
    dialogue.log_in(stream)
}

struct Dialogue<'a> {
    params: &'a Params,
    name: String,
    deadline: Instant,
}

impl Dialogue<'_> {
    /// The first way that works.
    fn connect(&self, target: &Target) -> Result<Wire, Error> {
        let mut tried = Vec::new();
        if let Some(path) = &target.socket {
            match Wire::unix(path, self.deadline) {
                Ok(wire) => return Ok(wire),
                Err(error) if error.kind() == ErrorKind::TimedOut => return Err(self.late("connecting")),
                Err(error) => tried.push(format!("{}: {}", path.display(), system_text(&error))),
            }
        }
        for address in target.addresses(self.deadline)? {
            match Wire::tcp(address, self.deadline) {
                Ok(wire) => return Ok(wire),
                Err(error) if error.kind() == ErrorKind::TimedOut && left(self.deadline).is_zero() => {
                    return Err(self.late("connecting"));
                }
                Err(error) => tried.push(format!("{address}: {}", system_text(&error))),
            }
        }
        let place = target.host.as_deref().map_or("this machine".to_owned(), |host| format!("host {host}"));
        let tried = tried.join("; ");
        let detail =
            format_args!("cannot reach vmware-authd on {place} ({tried}). Is the service running there?");
        Err(Error::with(ErrorCode::NetFail, detail))
    }

    /// Reads the banner and makes TLS where it says so.
    fn greet(&self, wire: Wire) -> Result<Stream, Error> {
        let mut stream = Stream::Plain(wire);
        let banner = self.line(&mut stream)?;
        if !check_banner(&banner)? {
            return Ok(stream);
        }
        match stream {
            Stream::Plain(wire) => self.secure(wire),
            done @ Stream::Tls(_) => Ok(done),
        }
    }

    fn secure(&self, wire: Wire) -> Result<Stream, Error> {
        let failed = |reason: &dyn std::fmt::Display| {
            let detail = format_args!(
                "TLS with {} failed: {reason}. Both sides must speak TLS 1.2 or later",
                self.name
            );
            Error::with(ErrorCode::NetFail, detail)
        };
        let connection = ClientConnection::new(shared_config()?, self.server_name());
        let connection = connection.map_err(|error| failed(&error))?;
        let mut stream = Box::new(StreamOwned::new(connection, wire));
        while stream.conn.is_handshaking() {
            match stream.conn.complete_io(&mut stream.sock) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::TimedOut => {
                    return Err(self.late("the TLS handshake"));
                }
                Err(error) => return Err(failed(&system_text(&error))),
            }
        }
        // A local caller sends no secret, and who listens on this machine's ports is not told by a
        // certificate.
        if !self.is_local() {
            let certificate = stream.conn.peer_certificates().and_then(|all| all.first());
            let certificate = certificate.ok_or_else(|| failed(&"the server shows no certificate"))?;
            KnownHosts::of(self.params)?.check(&self.name, certificate, self.deadline)?;
        }
        Ok(Stream::Tls(stream))
    }

    /// Whether the login is that of the process's owner on this machine.
    fn is_local(&self) -> bool {
        self.params.host().is_none() && self.params.user().is_none()
    }

    fn server_name(&self) -> ServerName<'static> {
        let host = self.params.host().unwrap_or("localhost").to_owned();
        let fallback = || ServerName::from(IpAddr::from(Ipv4Addr::UNSPECIFIED));
        ServerName::try_from(host).unwrap_or_else(|_| fallback())
    }

    fn log_in(&self, mut stream: Stream) -> Result<Stream, Error> {
        match self.params.user() {
            None => self.command(&mut stream, b"LOCAL", &[], "230")?,
            Some(user) => {
                self.command(&mut stream, b"USER ", user.as_bytes(), "331")?;
                let password = self.params.password.as_ref().map_or("", |password| password.as_str());
                self.command(&mut stream, b"PASS ", password.as_bytes(), "230")?;
            }
        }
        self.command(&mut stream, b"GLOBAL server", &[], "200")?;
        Ok(stream)
    }

    /// Sends one line and reads its reply, which must have this code.
    fn command(&self, stream: &mut Stream, word: &[u8], argument: &[u8], code: &str) -> Result<(), Error> {
        // Room for the longest escapes, so that no copy of a password is left in a smaller buffer.
        let mut line = Zeroizing::new(Vec::with_capacity(word.len() + argument.len() * 3 + 2));
        line.extend_from_slice(word);
        escape(argument, &mut line);
        line.extend_from_slice(b"\r\n");
        match stream.send(&line) {
            Ok(()) => {}
            // A last line that says why may be there to read.
            Err(error) if has_closed(&error) => {}
            Err(error) => return Err(self.lost(&error)),
        }
        let reply = self.line(stream)?;
        let ok = reply.strip_prefix(code).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '));
        if ok { Ok(()) } else { Err(refusal(&reply)) }
    }

    /// Reads one line, without its end. The gateway says nothing unasked, so more than that is not
    /// what we talk to.
    fn line(&self, stream: &mut Stream) -> Result<String, Error> {
        let mut received = Vec::new();
        let mut buffer = [0; 1024];
        loop {
            let length = stream.read(&mut buffer).map_err(|error| self.lost(&error))?;
            if length == 0 {
                return Err(self.closed());
            }
            received.extend_from_slice(buffer.get(..length).unwrap_or_default());
            let text = || String::from_utf8_lossy(&received).into_owned();
            match received.iter().position(|byte| *byte == b'\n') {
                Some(end) if end + 1 == received.len() => {
                    return Ok(text().trim_end_matches(['\r', '\n']).to_owned());
                }
                Some(_) => return Err(unexpected(&text())),
                None if received.len() > MAX_LINE => return Err(unexpected(&text())),
                None => {}
            }
        }
    }

    fn closed(&self) -> Error {
        let detail = format_args!("vmware-authd on {} closed the connection before the login", self.name);
        Error::with(ErrorCode::Disconnect, detail)
    }

    fn lost(&self, error: &io::Error) -> Error {
        match error.kind() {
            ErrorKind::TimedOut => self.late("the login"),
            _ if has_closed(error) => self.closed(),
            _ => {
                let detail = format_args!("talking to vmware-authd on {}: {}", self.name, system_text(error));
                Error::with(ErrorCode::NetFail, detail)
            }
        }
    }

    fn late(&self, what: &str) -> Error {
        let seconds = self.params.timeout.as_secs_f64();
        let detail = format_args!(
            "{what}: no answer from vmware-authd on {} within {seconds} seconds. Is the machine overloaded, or a \
             firewall in between?",
            self.name
        );
        Error::with(ErrorCode::Timeout, detail)
    }
}

/// One TLS configuration per process: it remembers sessions, which makes the next handshake shorter.
fn shared_config() -> Result<Arc<ClientConfig>, Error> {
    static CONFIG: OnceLock<Arc<ClientConfig>> = OnceLock::new();
    if let Some(config) = CONFIG.get() {
        return Ok(Arc::clone(config));
    }
    let config = tls_config()?;
    Ok(Arc::clone(CONFIG.get_or_init(|| config)))
}

/// Whether TLS must follow.
fn check_banner(banner: &str) -> Result<bool, Error> {
    const START: &str = "220 VMware Authentication Daemon Version ";
    let Some(version) = banner.strip_prefix(START) else { return Err(refusal(banner)) };
    // 1.00, 1.0 and 1.10 are known; the number is the lowest version that a client must speak.
    if version.split(['.', ':', ',', ' ']).next() != Some("1") {
        let detail =
            format_args!("this client speaks version 1 of the protocol, the server says: {}", cut(banner));
        return Err(Error::with(ErrorCode::BadVersion, detail));
    }
    Ok(version.contains("SSL Required"))
}

/// Writes an argument so that no byte of it is taken for an escape or the end of the line.
fn escape(argument: &[u8], line: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let digit = |nibble: u8| HEX.get(usize::from(nibble & 15)).copied().unwrap_or(b'0');
    for &byte in argument {
        match byte {
            b'%' | 0..=0x1F | 0x7F => line.extend([b'%', digit(byte >> 4), digit(byte)]),
            _ => line.push(byte),
        }
    }
}

/// Whether an error says that the other side has closed. Who does so while bytes of ours are unread resets the
/// connection.
fn has_closed(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

/// What a reply that is not the expected one means.
fn refusal(line: &str) -> Error {
    let (code, text) = line.split_once(' ').unwrap_or((line, ""));
    let with = |code| if text.is_empty() { Error::new(code) } else { Error::with(code, cut(text)) };
    match code {
        "421" => with(ErrorCode::Timeout),
        "514" => with(ErrorCode::BadState),
        "530" | "550" => with(ErrorCode::NoAccess),
        "551" => {
            let path = text
                .strip_prefix("The config file ")
                .and_then(|rest| rest.strip_suffix(" is not registered."));
            path.map_or_else(|| with(ErrorCode::NoSuchVm), |path| ops::Error::not_registered(path).into())
        }
        "552" => with(ErrorCode::VmBusy),
        _ => unexpected(line),
    }
}

/// A line that means nothing here: -14 with the line.
fn unexpected(line: &str) -> Error {
    Error::with(ErrorCode::BadResponse, cut(line.trim_end()))
}

/// So much of a text as an error may repeat, control characters left out.
fn cut(text: &str) -> String {
    let shown = (0..=MAX_ECHO).rev().find_map(|end| text.get(..end)).unwrap_or(text);
    let shown = if text.len() <= MAX_ECHO { text } else { shown };
    let mut shown: String = shown.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect();
    if text.len() > MAX_ECHO {
        shown.push_str("...");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn banners_of_all_generations() {
        for (version, tls) in [
            ("1.00", false),
            ("1.0, ServerDaemonProtocol:SOAP, MKSDisplayProtocol:VNC , ,", false),
            ("1.10: SSL Required", true),
            ("1.10: SSL Required, MKSDisplayProtocol:VNC ", true),
        ] {
            let banner = format!("220 VMware Authentication Daemon Version {version}");
            assert_eq!(check_banner(&banner), Ok(tls), "{banner}");
        }
        for (banner, code) in [
            ("220 VMware Authentication Daemon Version 2.00", ErrorCode::BadVersion),
            ("220 VMware Authentication Daemon Version ", ErrorCode::BadVersion),
            ("220 (vsFTPd 3.0.3)", ErrorCode::BadResponse),
            ("SSH-2.0-OpenSSH_9.2", ErrorCode::BadResponse),
            ("", ErrorCode::BadResponse),
            ("421 Too many connections.", ErrorCode::Timeout),
        ] {
            assert_eq!(check_banner(banner).unwrap_err().code, code, "{banner}");
        }
    }

    #[test]
    fn each_refusal_has_its_number_and_text() {
        for (line, number, text) in [
            ("530 Login incorrect.", -4, "Permission denied: Login incorrect."),
            ("550 You need execute access", -4, "Permission denied: You need execute access"),
            ("552 Virtual machine /a is busy.", -21, "Virtual machine is busy: Virtual machine /a is busy."),
            ("421 Login timed out.", -7, "Operation timed out: Login timed out."),
            (
                "511 Error connecting to /usr/sbin/vmware-serverd process.",
                -14,
                "Unexpected response from vmware-authd: 511 Error connecting to /usr/sbin/vmware-serverd process.",
            ),
            (
                "512 The server daemon refused the session.",
                -14,
                "Unexpected response from vmware-authd: 512 The server daemon refused the session.",
            ),
            (
                "551 The config file /a b.vmx is not registered.",
                -11,
                "No such virtual machine: The config file /a b.vmx is not registered.\n\
                 Please register the config file on the server.  For example:\n\
                 vmware-cmd -s register \"/a b.vmx\"",
            ),
        ] {
            let error = refusal(line);
            assert_eq!((error.code.number(), error.text.as_str()), (number, text));
        }
        assert_eq!(refusal("514 Virtual machine /a is not running.").code, ErrorCode::BadState);
    }

    #[test]
    fn arguments_are_escaped_as_the_gateway_reads_them() {
        let mut line = Vec::new();
        escape("a%41 b\r\n\0\u{7f}ä".as_bytes(), &mut line);
        assert_eq!(line, "a%2541 b%0D%0A%00%7Fä".as_bytes());
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        assert_eq!(cut("a\u{1b}b"), "a\u{FFFD}b");
        let long = "ä".repeat(600);
        assert_eq!(cut(&long), format!("{}...", "ä".repeat(512)));
        assert_eq!(cut(&format!("x{long}")), format!("x{}...", "ä".repeat(511)));
    }
}
