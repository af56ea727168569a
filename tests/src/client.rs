//! A caller of the gateway: lines over TCP, TLS, a unix socket, or through another process.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::caller::Piped;
use crate::exec::Exec;

/// Banner of a TLS listener, as sent.
pub const TLS_BANNER: &str =
    "220 VMware Authentication Daemon Version 1.10: SSL Required, MKSDisplayProtocol:VNC \r\n";
/// Banner of a plain listener and of the unix socket, as sent.
pub const PLAIN_BANNER: &str = "220 VMware Authentication Daemon Version 1.00\r\n";

/// Longest wait for anything the server sends, unless a test sets another.
pub const PATIENCE: Duration = Duration::from_secs(45);

/// The way bytes go.
#[derive(Debug)]
pub enum Tap {
    /// Plain TCP.
    Tcp(TcpStream),
    /// The unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    /// A process of another user that connected for us.
    Piped(Piped),
}

impl Tap {
    fn reader(&self) -> BorrowedFd<'_> {
        match self {
            Tap::Tcp(stream) => stream.as_fd(),
            Tap::Unix(stream) => stream.as_fd(),
            Tap::Tls(stream) => stream.sock.as_fd(),
            Tap::Piped(piped) => piped.reader(),
        }
    }

    /// Reads what is there, waiting up to `patience` for the first byte. `Ok(0)` is the end.
    fn read(&mut self, buffer: &mut [u8], patience: Duration) -> std::io::Result<usize> {
        if let Tap::Tls(stream) = self {
            stream.sock.set_read_timeout(Some(patience))?;
            return stream.read(buffer);
        }
        let limit = Timespec::try_from(patience).expect("a short time");
        if poll(&mut [PollFd::new(&self.reader(), PollFlags::IN)], Some(&limit))? == 0 {
            return Err(ErrorKind::TimedOut.into());
        }
        match self {
            Tap::Tcp(stream) => stream.read(buffer),
            Tap::Unix(stream) => stream.read(buffer),
            Tap::Tls(stream) => stream.read(buffer),
            Tap::Piped(piped) => piped.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Tap::Tcp(stream) => stream.write_all(bytes),
            Tap::Unix(stream) => stream.write_all(bytes),
            Tap::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
            Tap::Piped(piped) => piped.write_all(bytes),
        }
    }

    fn end_sending(&mut self) {
        match self {
            Tap::Tcp(stream) => stream.shutdown(Shutdown::Write).expect("connected"),
            Tap::Unix(stream) => stream.shutdown(Shutdown::Write).expect("connected"),
            Tap::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.flush().expect("connected");
            }
            Tap::Piped(piped) => piped.end_sending(),
        }
    }
}

/// How a connection gave no more bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server closed it; a reset counts, because unread input makes the kernel send one.
    Closed,
    /// Nothing came in time.
    Silent,
}

/// A connection, with what was read ahead.
#[derive(Debug)]
pub struct Client {
    tap: Tap,
    ahead: Vec<u8>,
    patience: Duration,
}

impl Client {
    /// Wraps a connection.
    #[must_use]
    pub fn new(tap: Tap) -> Self {
        Client { tap, ahead: Vec::new(), patience: PATIENCE }
    }

    /// Connects to a TCP port of 127.0.0.1.
    #[must_use]
    pub fn tcp(port: u16) -> Self {
        Self::tcp_from(Ipv4Addr::LOCALHOST, port)
    }

    /// Connects to a TCP port of 127.0.0.1 from another loopback address, which the gateway counts
    /// apart.
    #[must_use]
    pub fn tcp_from(source: Ipv4Addr, port: u16) -> Self {
        let stream = connect_from(source, port).expect("the gateway listens");
        Client::new(Tap::Tcp(stream))
    }

    /// Connects to the unix socket.
    #[must_use]
    pub fn unix(path: &Path) -> Self {
        Client::new(Tap::Unix(UnixStream::connect(path).expect("the gateway listens")))
    }

    /// Sets how long to wait for the server.
    #[must_use]
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Reads the banner, which must be one of the two.
    #[must_use]
    pub fn greeted(mut self) -> Self {
        let banner = self.line();
        assert!([TLS_BANNER, PLAIN_BANNER].contains(&format!("{banner}\r\n").as_str()), "banner: {banner:?}");
        self
    }

    /// Makes the TLS handshake, with whatever version the two sides prefer.
    #[must_use]
    pub fn secure(self) -> Self {
        self.secure_with(&[&rustls::version::TLS13, &rustls::version::TLS12]).expect("a handshake")
    }

    /// Makes the TLS handshake with these versions.
    ///
    /// # Errors
    /// When the handshake fails.
    pub fn secure_with(
        self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> std::io::Result<Self> {
        assert!(self.ahead.is_empty(), "the server sent bytes behind its banner");
        let Tap::Tcp(mut socket) = self.tap else { panic!("TLS is made over TCP") };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(versions).expect("versions of the provider");
        let config = config.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate));
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection = ClientConnection::new(Arc::new(config.with_no_client_auth()), name)
            .map_err(std::io::Error::other)?;
        socket.set_read_timeout(Some(self.patience))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket)?;
        }
        let tap = Tap::Tls(Box::new(StreamOwned::new(connection, socket)));
        Ok(Client { tap, ahead: Vec::new(), patience: self.patience })
    }

    /// The TLS connection beneath.
    #[must_use]
    pub fn tls(&self) -> &ClientConnection {
        match &self.tap {
            Tap::Tls(stream) => &stream.conn,
            _ => panic!("not a TLS connection"),
        }
    }

    /// Sends bytes.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.tap.write(bytes.as_ref()).expect("the server takes bytes");
    }

    /// Sends bytes; the server may have closed already.
    ///
    /// # Errors
    /// As the write.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.tap.write(bytes.as_ref())
    }

    /// A second handle that writes to the same connection, for a thread that sends while this one
    /// reads. Plain connections only.
    #[must_use]
    pub fn writer(&self) -> Box<dyn Write + Send> {
        match &self.tap {
            Tap::Tcp(stream) => Box::new(stream.try_clone().expect("a descriptor")),
            Tap::Unix(stream) => Box::new(stream.try_clone().expect("a descriptor")),
            other => panic!("two threads cannot share {other:?}"),
        }
    }

    /// Ends the sending side and keeps the receiving side.
    pub fn end_sending(&mut self) {
        self.tap.end_sending();
    }

    /// What one read of the connection returns.
    ///
    /// # Errors
    /// When nothing comes.
    pub fn read_once(&mut self) -> Result<Vec<u8>, End> {
        if !self.ahead.is_empty() {
            return Ok(std::mem::take(&mut self.ahead));
        }
        let mut buffer = vec![0; 65536];
        match self.tap.read(&mut buffer, self.patience) {
            Ok(0) => Err(End::Closed),
            Ok(length) => {
                buffer.truncate(length);
                Ok(buffer)
            }
            Err(error) => match error.kind() {
                ErrorKind::TimedOut | ErrorKind::WouldBlock => Err(End::Silent),
                ErrorKind::ConnectionReset | ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe => {
                    Err(End::Closed)
                }
                _ => panic!("reading from the server: {error}"),
            },
        }
    }

    /// Reads up to and with a mark.
    ///
    /// # Errors
    /// When the connection gives no more before the mark came; what came stays.
    pub fn read_to(&mut self, mark: &[u8]) -> Result<Vec<u8>, End> {
        let mut looked = 0;
        loop {
            let found =
                self.ahead.get(looked..).unwrap_or_default().windows(mark.len()).position(|w| w == mark);
            if let Some(at) = found {
                let rest = self.ahead.split_off(looked + at + mark.len());
                return Ok(std::mem::replace(&mut self.ahead, rest));
            }
            looked = self.ahead.len().saturating_sub(mark.len() - 1);
            let mut all = std::mem::take(&mut self.ahead);
            let more = self.read_once();
            if let Ok(more) = &more {
                all.extend_from_slice(more);
            }
            self.ahead = all;
            more?;
        }
    }

    /// Reads one line, which must end in CR LF, and returns it without.
    ///
    /// # Errors
    /// When the connection gives no line.
    pub fn try_line(&mut self) -> Result<String, End> {
        let line = self.read_to(b"\n")?;
        let text = line.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("a line without CR: {line:?}"));
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// As [`Client::try_line`], for a line that must come.
    #[must_use]
    pub fn line(&mut self) -> String {
        self.try_line().unwrap_or_else(|end| panic!("no line: {end:?}; before that: {:?}", self.ahead))
    }

    /// Whether the connection ends now: no byte more, then the end.
    #[must_use]
    pub fn closed(&mut self) -> bool {
        match self.read_once() {
            Err(End::Closed) => true,
            Err(End::Silent) => false,
            Ok(bytes) => panic!("bytes where the end was expected: {:?}", String::from_utf8_lossy(&bytes)),
        }
    }

    /// Whether the connection stays open and says nothing for a short while.
    #[must_use]
    pub fn stays(&mut self) -> bool {
        let patience = std::mem::replace(&mut self.patience, Duration::from_millis(150));
        let result = self.read_once();
        self.patience = patience;
        result == Err(End::Silent)
    }

    /// Sends a line and returns the reply.
    pub fn ask(&mut self, line: impl AsRef<[u8]>) -> String {
        let mut bytes = line.as_ref().to_vec();
        bytes.extend_from_slice(b"\r\n");
        self.send(bytes);
        self.line()
    }

    /// Logs in with name and password and returns the last reply.
    pub fn try_login(&mut self, name: &str, password: &str) -> String {
        let reply = self.ask(format!("USER {name}"));
        assert!(reply.starts_with("331 "), "{reply}");
        self.ask(format!("PASS {password}"))
    }

    /// Logs in with name and password, which must succeed.
    #[must_use]
    pub fn login(mut self, account: &crate::Account) -> Self {
        let reply = self.try_login(&account.name, &account.password);
        assert_eq!(reply, format!("230 User {} logged in.", account.name));
        self
    }

    /// Logs in as who we are, which must succeed.
    #[must_use]
    pub fn local(mut self) -> Self {
        let reply = self.ask("LOCAL");
        assert!(reply.starts_with("230 User "), "{reply}");
        self
    }

    /// Asks for the server, which must be reached.
    #[must_use]
    pub fn server(mut self) -> Exec {
        let reply = self.ask("GLOBAL server");
        assert_eq!(reply, "200 Connected to vmware-serverd.");
        Exec::new(self)
    }
}

/// Connects to a port of 127.0.0.1 from a given loopback address.
///
/// # Errors
/// As `connect(2)`.
pub fn connect_from(source: Ipv4Addr, port: u16) -> std::io::Result<TcpStream> {
    let fd: OwnedFd = socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    bind(&fd, &SocketAddr::from((source, 0)))?;
    connect(&fd, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    let stream = TcpStream::from(fd);
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Takes every certificate: the gateway's is self-signed, and not what is tested here.
#[derive(Debug)]
struct AnyCertificate;

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
