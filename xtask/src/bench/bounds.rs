//! The bounds: the least a server can do for the same bytes, each a process of its own.
//!
//! ```text
//!   direct echo   caller ──▶ echo
//!   TLS relay     caller ══▶ relay ──▶ echo            copies bytes, tokio-rustls
//!   hand-over     caller ──▶ front ··▶ back             front accepts and passes the descriptor
//! ```
//!
//! All are single-threaded tokio programs, like our own processes, without any of their work: no
//! login, no parser, no log. The request ends at its line end, the answer is the very bytes that
//! ours gave.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_rustls::TlsAcceptor;

use crate::Result;
use crate::bench::child::Child;

/// A bound that runs.
#[derive(Debug)]
pub struct Bound {
    /// The process that callers connect to.
    pub front: Child,
    /// The process behind it, if there is one.
    _back: Option<Child>,
    /// Where callers connect, unless it is TLS.
    pub path: PathBuf,
    /// Where TLS callers connect.
    pub port: u16,
}

impl Bound {
    /// Starts the direct echo, which answers `answer`.
    ///
    /// # Errors
    /// When it does not start.
    pub fn echo(scratch: &Path, answer: &str) -> Result<Self> {
        let path = scratch.join("echo.sock");
        let front = start(&["echo", &path.display().to_string(), answer], Stdio::null(), scratch)?.0;
        Ok(Bound { front, _back: None, path, port: 0 })
    }

    /// Starts the TLS relay and an echo behind it, with this certificate and key.
    ///
    /// # Errors
    /// When they do not start.
    pub fn tls_relay(scratch: &Path, answer: &str, (certificate, key): &(PathBuf, PathBuf)) -> Result<Self> {
        let path = scratch.join("relay-echo.sock");
        let text = path.display().to_string();
        let (back, _) = start(&["echo", &text, answer], Stdio::null(), scratch)?;
        let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
        let (front, said) = start(&["tls-relay", &text, &certificate, &key], Stdio::null(), scratch)?;
        let port = said.parse().map_err(|_| format!("the relay said {said:?}"))?;
        Ok(Bound { front, _back: Some(back), path, port })
    }

    /// Starts the hand-over: one process accepts, another answers.
    ///
    /// # Errors
    /// When they do not start.
    pub fn hand_over(scratch: &Path, answer: &str) -> Result<Self> {
        let path = scratch.join("handover.sock");
        let pair = std::os::unix::net::UnixStream::pair();
        let (ours, theirs) = pair.map_err(|error| format!("no socket pair: {error}"))?;
        let (back, _) = start(&["back", answer], Stdio::from(OwnedFd::from(theirs)), scratch)?;
        let stdin = Stdio::from(OwnedFd::from(ours));
        let (front, _) = start(&["front", &path.display().to_string()], stdin, scratch)?;
        Ok(Bound { front, _back: Some(back), path, port: 0 })
    }
}

/// Starts this program as a bound; returns it with what it said when it was ready.
fn start(words: &[&str], stdin: Stdio, scratch: &Path) -> Result<(Child, String)> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find xtask: {error}"))?;
    let mut arguments = vec!["bench", "--serve"];
    arguments.extend(words.iter().map(|word| word.trim_end()));
    let mut child = Child::start(&program, stdin, &arguments, scratch)?;
    let line = child.line()?;
    Ok((child, line.trim_start_matches("ready").trim().to_owned()))
}

/// The other side of [`start`]: serves until it is killed.
///
/// # Errors
/// When it cannot start.
pub fn serve(words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if let ["read", rest @ ..] = words.as_slice() {
        return super::instructions::read(rest);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let served = runtime.block_on(async {
        match words.as_slice() {
            ["echo", path, answer] => echo(Path::new(path), with_line_end(answer)).await,
            ["tls-relay", path, certificate, key] => tls_relay(Path::new(path), certificate, key).await,
            ["front", path] => front(Path::new(path)).await,
            ["back", answer] => back(with_line_end(answer)).await,
            _ => Err(std::io::Error::other("no such bound")),
        }
    });
    served.map_err(|error| format!("{words:?}: {error}"))
}

fn with_line_end(answer: &str) -> Arc<[u8]> {
    format!("{answer}\n").into_bytes().into()
}

async fn echo(path: &Path, answer: Arc<[u8]>) -> std::io::Result<()> {
    // The file of an earlier bound of this run may still be there.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(answer_all(stream, Arc::clone(&answer)));
    }
}

/// Answers each line of one caller. A caller who goes ends only his own task.
async fn answer_all(mut stream: UnixStream, answer: Arc<[u8]>) -> std::io::Result<()> {
    let mut buffer = [0u8; 512];
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let received = buffer.get(..length).unwrap_or_default();
        for _ in received.iter().filter(|byte| **byte == b'\n') {
            stream.write_all(&answer).await?;
        }
    }
}

/// A TLS server with this certificate and key and nothing special.
///
/// # Errors
/// When they cannot be read or do not belong together.
pub fn server_config((certificate, key): &(PathBuf, PathBuf)) -> std::io::Result<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(certificate).map_err(std::io::Error::other)?;
    let chain = chain.collect::<Result<Vec<_>, _>>().map_err(std::io::Error::other)?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(std::io::Error::other)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.and_then(|config| config.with_no_client_auth().with_single_cert(chain, key));
    config.map_err(std::io::Error::other)
}

async fn tls_relay(path: &Path, certificate: &str, key: &str) -> std::io::Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(server_config(&(certificate.into(), key.into()))?));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("ready {}", listener.local_addr()?.port());
    loop {
        let (socket, _) = listener.accept().await?;
        socket.set_nodelay(true)?;
        let (acceptor, path) = (acceptor.clone(), path.to_owned());
        tokio::spawn(async move {
            let mut caller = acceptor.accept(socket).await?;
            let mut server = UnixStream::connect(path).await?;
            tokio::io::copy_bidirectional(&mut caller, &mut server).await
        });
    }
}

/// Accepts, and passes every caller's socket to the process at the other end of standard input.
async fn front(path: &Path) -> std::io::Result<()> {
    let channel = std::io::stdin().as_fd().try_clone_to_owned()?;
    let listener = UnixListener::bind(path)?;
    println!("ready");
    loop {
        let (stream, _) = listener.accept().await?;
        let descriptors = [stream.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
        // Blocks while the other process is behind, which is all this one could do anyway.
        sendmsg(&channel, &[IoSlice::new(b"x")], &mut control, SendFlags::empty())?;
    }
}

/// Takes sockets from standard input and answers their callers.
async fn back(answer: Arc<[u8]>) -> std::io::Result<()> {
    let channel = std::os::unix::net::UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    channel.set_nonblocking(true)?;
    let channel = UnixStream::from_std(channel)?;
    println!("ready");
    loop {
        let received = channel.async_io(Interest::READABLE, || receive(channel.as_fd())).await?;
        let Some(descriptor) = received else {
            return Ok(());
        };
        let stream = std::os::unix::net::UnixStream::from(descriptor);
        stream.set_nonblocking(true)?;
        tokio::spawn(answer_all(UnixStream::from_std(stream)?, Arc::clone(&answer)));
    }
}

/// One descriptor; `None` at the end.
fn receive(channel: BorrowedFd<'_>) -> std::io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0u8; 1];
    recvmsg(channel, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    Ok(control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    }))
}
