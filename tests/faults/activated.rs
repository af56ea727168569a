//! The daemons as a service manager starts them: it holds the listeners, so that a caller of the meantime waits.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use link::Layout;
use rustix::process::Signal;
use tests::exec::Exec;
use tests::{Base, eventually, process, programs};

/// What a service manager does for the gateway: holds the listeners, and starts it with them.
pub struct Activated {
    layout: Layout,
    unix: UnixListener,
    tcp: TcpListener,
    /// Removed last.
    _base: Base,
}

impl Activated {
    /// Listeners, and nobody who accepts.
    pub fn new() -> Self {
        let base = Base::new();
        let layout = Layout::new(Some(&base.root())).unwrap();
        layout.create_directories().unwrap();
        let socket = layout.authd_socket();
        let unix = UnixListener::bind(&socket).unwrap();
        std::fs::set_permissions(&socket, PermissionsExt::from_mode(0o666)).unwrap();
        Activated { layout, unix, tcp: TcpListener::bind("127.0.0.1:0").unwrap(), _base: base }
    }

    /// Starts a gateway with the two listeners, as `sd_listen_fds(3)` says.
    pub fn gateway(&self) -> Daemon {
        let own = |fd: &dyn AsOwned| Stdio::from(fd.duplicate());
        let mut command = Command::new("sh");
        let script = "exec 3<&0 4<&1 </dev/null >&2; LISTEN_PID=$$ LISTEN_FDS=2 exec \"$@\"";
        command.args(["-c", script, "sh"]).arg(programs::directory().join("vmware-authd"));
        command.arg("--root").arg(self.layout.root()).arg("--die-with-parent");
        command.stdin(own(&self.unix)).stdout(own(&self.tcp)).stderr(Stdio::null());
        Daemon(command.spawn().expect("sh starts"))
    }

    /// Starts a server.
    pub fn server(&self) -> Daemon {
        let mut command = Command::new(programs::directory().join("vmserverd"));
        command.arg("--root").arg(self.layout.root()).arg("--die-with-parent");
        Daemon(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("vmserverd starts"))
    }

    /// Where callers connect.
    pub fn socket(&self) -> PathBuf {
        self.layout.authd_socket()
    }

    /// The TCP port, which speaks TLS.
    pub fn port(&self) -> u16 {
        self.tcp.local_addr().expect("it listens").port()
    }

    /// A session over the unix socket. It waits for as long as nobody accepts, and is tried again when it was
    /// the gateway that dies who did, or one that the server has not found yet.
    pub fn call(&self) -> Exec {
        eventually("a session", || Exec::try_unix(&self.socket()))
    }
}

trait AsOwned {
    fn duplicate(&self) -> OwnedFd;
}

impl AsOwned for UnixListener {
    fn duplicate(&self) -> OwnedFd {
        self.try_clone().expect("a descriptor").into()
    }
}

impl AsOwned for TcpListener {
    fn duplicate(&self) -> OwnedFd {
        self.try_clone().expect("a descriptor").into()
    }
}

/// A process that ends with the value.
pub struct Daemon(Child);

impl Daemon {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Stops it as a service manager does, and waits for its end.
    pub fn stop(&mut self) {
        process::signal(self.id(), Signal::TERM);
        assert!(process::ends_within(self.id(), Duration::from_secs(40)), "{} does not end", self.id());
        let status = self.0.wait().expect("a child");
        assert_eq!(status.code(), Some(0));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            process::signal(self.id(), Signal::TERM);
            let _ = self.0.wait();
        }
    }
}
