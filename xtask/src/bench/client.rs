//! Our callers: from connecting to the first answered exec, and the exchange after it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned};

use crate::bench::load::Caller;

/// The question of every call: the first exec of the API page, with a line end.
pub const REQUEST: &str = "<exec><op>inc</op><in><number>42</number></in></exec>\n";
/// The answer carries it, whatever product the instance says it is.
const ANSWER: &str = "<out><number>43</number></out></exec>\n";
/// What a caller who does not wait for replies sends at once.
const AT_ONCE: &str = "LOCAL\r\nGLOBAL server\r\n<exec><op>inc</op><in><number>42</number></in></exec>\n";
/// No answer takes this long, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// TLS over TCP, from the client's side.
pub type Tls = StreamOwned<ClientConnection, TcpStream>;

fn unexpected(received: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(received).into_owned();
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer {text:?}"))
}

/// Reads until the bytes end as given. Each answer is followed by silence, so nothing is read ahead.
fn read_until<S: Read>(stream: &mut S, end: &str) -> io::Result<Vec<u8>> {
    let (mut received, mut buffer) = (Vec::new(), [0u8; 1024]);
    while !received.ends_with(end.as_bytes()) {
        match stream.read(&mut buffer)? {
            0 => return Err(unexpected(&received)),
            length => received.extend_from_slice(buffer.get(..length).unwrap_or_default()),
        }
    }
    Ok(received)
}

/// Sends one line of the dialogue and reads its reply, which must have this code.
fn command<S: Read + Write>(stream: &mut S, line: &str, code: &str) -> io::Result<()> {
    stream.write_all(line.as_bytes())?;
    stream.flush()?;
    let reply = read_until(stream, "\r\n")?;
    if reply.starts_with(code.as_bytes()) { Ok(()) } else { Err(unexpected(&reply)) }
}

/// `LOCAL` and `GLOBAL server`, waiting for each reply.
fn log_in<S: Read + Write>(stream: &mut S) -> io::Result<()> {
    command(stream, "LOCAL\r\n", "230 ")?;
    command(stream, "GLOBAL server\r\n", "200 ")
}

/// A session over the unix socket, logged in and handed over.
///
/// # Errors
/// When the instance does not answer as it should.
pub fn unix(path: &Path) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    read_until(&mut stream, "\r\n")?;
    log_in(&mut stream)?;
    Ok(stream)
}

/// A session over the TLS port, logged in and handed over.
///
/// # Errors
/// When the instance does not answer as it should.
pub fn tls(port: u16, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    let mut socket = tcp(port)?;
    read_until(&mut socket, "\r\n")?;
    let mut stream = handshake(socket, config)?;
    log_in(&mut stream)?;
    Ok(stream)
}

/// A caller who logs in with a password through TLS.
#[derive(Debug, Clone)]
pub struct Login {
    /// TLS port.
    pub port: u16,
    /// How TLS is spoken.
    pub config: Arc<ClientConfig>,
    /// Login name.
    pub name: String,
}

/// Connects and reads the banner; nobody is logged in yet.
///
/// # Errors
/// When the instance does not answer as it should.
pub fn greet(login: &Login) -> io::Result<Tls> {
    let mut socket = tcp(login.port)?;
    read_until(&mut socket, "\r\n")?;
    handshake(socket, &login.config)
}

/// Sends name and password, and reads only the reply to the name.
///
/// # Errors
/// When the instance does not answer as it should.
pub fn send_password(stream: &mut Tls, name: &str, password: &str) -> io::Result<()> {
    command(stream, &format!("USER {name}\r\n"), "331 ")?;
    stream.write_all(format!("PASS {password}\r\n").as_bytes())?;
    stream.flush()
}

/// Waits for the reply that a password was wrong.
///
/// # Errors
/// When another one comes, or none.
pub fn no(stream: &mut Tls) -> io::Result<()> {
    let reply = read_until(stream, "\r\n")?;
    if reply.starts_with(b"530 ") { Ok(()) } else { Err(unexpected(&reply)) }
}

/// A session by password, handed over.
///
/// # Errors
/// When the instance does not answer as it should.
pub fn password(login: &Login, password: &str) -> io::Result<Tls> {
    let mut stream = greet(login)?;
    send_password(&mut stream, &login.name, password)?;
    let reply = read_until(&mut stream, "\r\n")?;
    if !reply.starts_with(b"230 ") {
        return Err(unexpected(&reply));
    }
    command(&mut stream, "GLOBAL server\r\n", "200 ")?;
    Ok(stream)
}

/// Asks once on a session that is then closed.
///
/// # Errors
/// When the answer is not the expected one.
pub fn once<S: Read + Write>(stream: S) -> io::Result<()> {
    Exchange::new(stream).first().map(drop)
}

/// TLS from the first byte, as the bound speaks it.
///
/// # Errors
/// When the handshake fails.
pub fn bare_tls(port: u16, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    handshake(tcp(port)?, config)
}

fn tcp(port: u16) -> io::Result<TcpStream> {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn handshake(mut socket: TcpStream, config: &Arc<ClientConfig>) -> io::Result<Tls> {
    let name = ServerName::try_from("localhost").map_err(io::Error::other)?;
    let mut connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// A client configuration that takes any certificate: who the server is, is not what is measured.
/// Every handshake is a full one.
///
/// # Errors
/// When the TLS library has no usable defaults.
pub fn tls_config() -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let verifier = Arc::new(AnyCertificate(provider));
    let mut config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Checks signatures, so that the handshake costs what it costs, and nothing else.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// One `inc` over an open stream: of ours, or of a bound that answers the same bytes.
#[derive(Debug)]
pub struct Exchange<S> {
    stream: S,
    /// The answer, once the first one has come.
    expected: Vec<u8>,
    buffer: Vec<u8>,
}

impl<S: Read + Write> Exchange<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Exchange { stream, expected: Vec::new(), buffer: vec![0; 1024] }
    }

    /// Asks for the first time, and returns the answer that every later one must equal.
    ///
    /// # Errors
    /// When it is not the answer to `inc` of 42.
    pub fn first(&mut self) -> io::Result<&[u8]> {
        self.stream.write_all(REQUEST.as_bytes())?;
        self.stream.flush()?;
        self.expected = read_until(&mut self.stream, "</exec>\n")?;
        if self.expected.ends_with(ANSWER.as_bytes()) {
            Ok(&self.expected)
        } else {
            Err(unexpected(&self.expected))
        }
    }
}

impl<S: Read + Write + Send> Caller for Exchange<S> {
    fn call(&mut self) -> io::Result<()> {
        if self.expected.is_empty() {
            return self.first().map(|_| ());
        }
        self.stream.write_all(REQUEST.as_bytes())?;
        self.stream.flush()?;
        let mut filled = 0;
        while filled < self.expected.len() {
            match self.stream.read(self.buffer.get_mut(filled..).unwrap_or_default())? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => filled += length,
            }
        }
        let received = self.buffer.get(..filled).unwrap_or_default();
        if received == self.expected { Ok(()) } else { Err(unexpected(received)) }
    }
}

/// A whole visit: connect, log in, one `inc`, close.
#[derive(Debug)]
pub struct Visit {
    /// The unix socket.
    pub path: PathBuf,
    /// Whether to wait for each reply before the next line is sent.
    pub stepwise: bool,
}

impl Caller for Visit {
    fn call(&mut self) -> io::Result<()> {
        if self.stepwise {
            return Exchange::new(unix(&self.path)?).first().map(|_| ());
        }
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(AT_ONCE.as_bytes())?;
        let received = read_until(&mut stream, "</exec>\n")?;
        if received.ends_with(ANSWER.as_bytes()) { Ok(()) } else { Err(unexpected(&received)) }
    }
}

/// The same against a bound, which knows no login.
#[derive(Debug)]
pub struct BareVisit(pub PathBuf);

impl Caller for BareVisit {
    fn call(&mut self) -> io::Result<()> {
        let stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Exchange::new(stream).first().map(|_| ())
    }
}
