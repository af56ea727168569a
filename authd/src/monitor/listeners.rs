//! The sockets that callers connect to: opened by the monitor, served by the network child.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use link::layout::{check_socket_path, describe};

use crate::messages::Kind;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// What to listen on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Address and port.
    Tcp(String, u16),
    /// Path of a unix socket.
    Unix(PathBuf),
    /// Handed over by the service manager.
    Inherited(String),
}

/// An open listener.
#[derive(Debug)]
pub struct Listener {
    /// What is spoken on it.
    pub kind: Kind,
    /// Where it listens.
    pub place: Place,
    /// The socket.
    pub socket: OwnedFd,
}

impl Listener {
    /// As shown in messages: `127.0.0.1:902`, or a path.
    #[must_use]
    pub fn shown(&self) -> String {
        match &self.place {
            Place::Tcp(address, port) if address.contains(':') => format!("[{address}]:{port}"),
            Place::Tcp(address, port) => format!("{address}:{port}"),
            Place::Unix(path) => path.display().to_string(),
            Place::Inherited(name) => name.clone(),
        }
    }
}

/// Opens the wanted listeners, and takes those from `old` that are already open: a reload must not
/// refuse callers in between.
///
/// # Errors
/// When one cannot be opened; the text names it and what to do. `old` is then gone.
pub fn open(wanted: Vec<(Kind, Place)>, old: Vec<Listener>) -> io::Result<Vec<Listener>> {
    let mut old = old;
    let mut open = Vec::new();
    for (kind, place) in wanted {
        let kept = old.iter().position(|listener| listener.place == place).map(|at| old.swap_remove(at));
        let socket = match kept {
            Some(listener) => listener.socket,
            None => match &place {
                Place::Tcp(address, port) => tcp(address, *port)?,
                Place::Unix(path) => unix(path)?,
                Place::Inherited(_) => continue,
            },
        };
        open.push(Listener { kind, place, socket });
    }
    // Sockets that the service manager gave us are its, and stay open.
    open.extend(old.into_iter().filter(|listener| matches!(listener.place, Place::Inherited(_))));
    Ok(open)
}

fn tcp(address: &str, port: u16) -> io::Result<OwnedFd> {
    let bound = if address == "*" {
        // A dual-stack socket where the machine has IPv6.
        TcpListener::bind(("::", port)).or_else(|_| TcpListener::bind(("0.0.0.0", port)))
    } else {
        TcpListener::bind((address, port))
    };
    let listener = bound.map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => {
                ": another program listens there; stop it, or choose another authd.port"
            }
            io::ErrorKind::PermissionDenied => ": ports below 1024 need root; choose another authd.port",
            io::ErrorKind::AddrNotAvailable => ": this machine has no such address; see authd.listen",
            _ => "",
        };
        io::Error::new(error.kind(), format!("cannot listen on {address} port {port}: {error}{advice}"))
    })?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener.into())
}

fn unix(path: &Path) -> io::Result<OwnedFd> {
    remove_stale(path)?;
    let listener = UnixListener::bind(path).map_err(|error| describe(&error, "cannot listen on", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o666))?;
    rustix::net::listen(&listener, BACKLOG)?;
    Ok(listener.into())
}

/// Removes a socket file that no process listens on any more.
///
/// # Errors
/// When one does: this instance is already running.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    check_socket_path(path)?;
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{} is served by another vmware-authd: this instance is already running", path.display()),
        )),
        Err(_) => match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(describe(&error, "cannot remove the old socket", path))
            }
            _ => Ok(()),
        },
    }
}

/// What is spoken on a TCP socket that somebody else has opened: nothing encrypted if its port is `plain_port`,
/// and otherwise TLS if `tls` says so.
#[must_use]
pub fn spoken(port: Option<u16>, tls: bool, plain_port: u16) -> Kind {
    if tls && port != Some(plain_port) { Kind::Tls } else { Kind::Plain }
}

/// Listeners passed by the service manager (`LISTEN_FDS`), or none. A unix socket is plain; for TCP see [`spoken`].
#[must_use]
pub fn inherited(tls: bool, plain_port: u16) -> Vec<Listener> {
    let mut passed = listenfd::ListenFd::from_env();
    let mut listeners = Vec::new();
    for index in 0..passed.len() {
        if let Ok(Some(socket)) = passed.take_unix_listener(index) {
            let path = socket.local_addr().ok().and_then(|address| address.as_pathname().map(Path::to_owned));
            let shown = path.map_or_else(|| "unix socket".to_owned(), |path| path.display().to_string());
            let place = Place::Inherited(shown);
            listeners.push(Listener { kind: Kind::Unix, place, socket: socket.into() });
        } else if let Ok(Some(socket)) = passed.take_tcp_listener(index) {
            let address = socket.local_addr().ok();
            let kind = spoken(address.map(|address| address.port()), tls, plain_port);
            let shown = address.map_or_else(|| "TCP socket".to_owned(), |address| address.to_string());
            listeners.push(Listener { kind, place: Place::Inherited(shown), socket: socket.into() });
        }
    }
    for listener in &listeners {
        // Some service managers pass blocking sockets.
        let _ = rustix::io::ioctl_fionbio(listener.socket.as_fd(), true);
    }
    listeners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_keeps_what_stays_and_opens_what_is_new() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("authd.sock");
        let first = open(vec![(Kind::Unix, Place::Unix(path.clone()))], Vec::new()).unwrap();
        let inode = rustix::fs::fstat(&first[0].socket).unwrap().st_ino;
        let wanted =
            vec![(Kind::Plain, Place::Tcp("127.0.0.1".into(), 0)), (Kind::Unix, Place::Unix(path.clone()))];
        let second = open(wanted, first).unwrap();
        assert_eq!(second.len(), 2);
        assert_eq!(rustix::fs::fstat(&second[1].socket).unwrap().st_ino, inode);
        // A second instance on the same path is refused, and a stale file is not.
        let error = open(vec![(Kind::Unix, Place::Unix(path.clone()))], Vec::new()).unwrap_err();
        assert!(error.to_string().contains("already running"), "{error}");
        drop(second);
        open(vec![(Kind::Unix, Place::Unix(path))], Vec::new()).unwrap();
    }

    #[test]
    fn a_taken_port_says_so() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = open(vec![(Kind::Plain, Place::Tcp("127.0.0.1".into(), port))], Vec::new()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(&port.to_string()) && text.contains("authd.port"), "{text}");
    }
}
