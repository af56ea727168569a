//! Our side: an instance of its own below the scratch directory, as `xtask up` runs it.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::Result;
use crate::bench::child::Child;

/// A running instance with a TLS port and a unix socket.
#[derive(Debug)]
pub struct Ours {
    up: Child,
    /// TCP port of TLS callers.
    pub tls_port: u16,
    /// Where local callers connect.
    pub socket: PathBuf,
    root: PathBuf,
}

impl Ours {
    /// Starts an instance in `scratch`/`name` and waits until logins are accepted.
    ///
    /// # Errors
    /// When it does not start; the text ends with what it said.
    pub fn start(scratch: &Path, name: &str, bin_dir: &Path) -> Result<Self> {
        Self::start_with(scratch, name, bin_dir, &[])
    }

    /// As [`Ours::start`], with settings of `vmserverd.toml`: `key=value`.
    ///
    /// # Errors
    /// When it does not start; the text ends with what it said.
    pub fn start_with(scratch: &Path, name: &str, bin_dir: &Path, settings: &[&str]) -> Result<Self> {
        let root = scratch.join(name);
        let tls_port = free_port()?;
        let program = std::env::current_exe().map_err(|error| format!("cannot find xtask: {error}"))?;
        let (root_text, bin_text) = (root.display().to_string(), bin_dir.display().to_string());
        let port = tls_port.to_string();
        let mut arguments = vec!["up", "--root", &root_text, "--tls-port", &port, "--bin-dir", &bin_text];
        arguments.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        let mut up = Child::start(&program, Stdio::null(), &arguments, scratch)?;
        let ready = up.line()?;
        let socket = ready.rsplit_once("socket=").map(|(_, path)| PathBuf::from(path));
        let socket = socket.ok_or_else(|| format!("xtask up said {ready:?}"))?;
        Ok(Ours { up, tls_port, socket, root })
    }

    /// Process id of the supervisor, whose descendants are the instance.
    pub fn pid(&self) -> u32 {
        self.up.pid()
    }

    /// The gateway's certificate and key, for a bound that shall pay the same for its handshakes.
    pub fn certificate(&self) -> (PathBuf, PathBuf) {
        let directory = self.root.join("etc/vmware/ssl");
        (directory.join("rui.crt"), directory.join("rui.key"))
    }
}

/// A TCP port that nobody listens on now.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    address.map(|address| address.port()).map_err(|error| format!("no free port: {error}"))
}
