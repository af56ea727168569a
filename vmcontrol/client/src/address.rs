//! Which socket or port the server is at, from the parameters and the product's settings.
//!
//! ```text
//!   no host            unix socket (authd.local.socket), then 127.0.0.1 and ::1
//!   no host, odd port  127.0.0.1 and ::1: the socket is that of another instance
//!   host               its addresses, in the resolver's order
//! ```

use std::env;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

use ops::ErrorCode;

use crate::error::{Error, system_text};
use crate::params::Params;

/// The port of the product, where the settings name no other.
const PORT: u16 = 902;

/// The unix socket, where the settings name no other.
const SOCKET: &str = "/run/vmware/authd.sock";

/// Most of the settings file that is read, in bytes.
const MAX_CONFIG: u64 = 1024 * 1024;

/// Where to try, in this order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Unix socket of this machine.
    pub socket: Option<PathBuf>,
    /// Host for TCP; None is the loopback address.
    pub host: Option<String>,
    /// Port for TCP.
    pub port: u16,
}

impl Target {
    /// What the parameters mean here.
    pub fn of(params: &Params) -> Self {
        let root = params.root.clone().or_else(|| variable("VMSERVERD_ROOT")).unwrap_or_else(|| "/".into());
        let settings = read(&root.join("etc/vmware/config"));
        let usual = value(&settings, "authd.client.port").and_then(|port| port.parse().ok());
        let usual = usual.filter(|port| *port != 0).unwrap_or(PORT);
        let port = if params.port == 0 { usual } else { params.port };
        let host = params.host().map(str::to_owned);
        let socket = match value(&settings, "authd.local.socket") {
            // An empty value says that there is none.
            Some(path) if path.is_empty() => None,
            Some(path) if path != SOCKET => Some(PathBuf::from(path)),
            _ => Some(root.join(SOCKET.trim_start_matches('/'))),
        };
        Target { socket: socket.filter(|_| host.is_none() && port == usual), host, port }
    }

    /// Host and port, as people write them and as certificates are remembered under.
    pub fn name(&self) -> String {
        let host = self.host.as_deref().unwrap_or("localhost");
        if host.contains(':') { format!("[{host}]:{}", self.port) } else { format!("{host}:{}", self.port) }
    }

    /// The addresses for TCP. Looking a name up ends at the deadline, even if the resolver does not.
    ///
    /// # Errors
    /// -2 for a name that nobody knows, -7 when the resolver takes too long.
    pub fn addresses(&self, deadline: Instant) -> Result<Vec<SocketAddr>, Error> {
        let port = self.port;
        let Some(host) = &self.host else {
            let both: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            return Ok(both.map(|address| SocketAddr::new(address, port)).into());
        };
        if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        let (send, receive) = mpsc::channel();
        let name = host.clone();
        let resolver = move || {
            let _ = send.send((name.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>));
        };
        let thread = std::thread::Builder::new().name("vmcontrol-resolve".to_owned());
        let failed = |error: &std::io::Error| {
            Error::with(
                ErrorCode::NetFail,
                format_args!("cannot look up host {host}: {}", system_text(error)),
            )
        };
        thread.spawn(resolver).map_err(|error| failed(&error))?;
        match receive.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Ok(found)) if !found.is_empty() => Ok(found),
            Ok(Ok(_)) => Err(Error::with(ErrorCode::NetFail, format_args!("host {host} has no address"))),
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => {
                Err(Error::with(ErrorCode::Timeout, format_args!("looking up host {host} takes too long")))
            }
        }
    }
}

/// An environment variable that is a path. A set-uid program does not listen to its caller's.
pub(crate) fn variable(name: &str) -> Option<PathBuf> {
    use rustix::process::{getegid, geteuid, getgid, getuid};
    let own = getuid() == geteuid() && getgid() == getegid();
    let found = own.then(|| env::var_os(name)).flatten();
    found.filter(|value| !OsStr::is_empty(value)).map(PathBuf::from)
}

/// The text of the settings, as far as it can be read. A host without the file has the defaults.
fn read(path: &Path) -> String {
    let mut bytes = Vec::new();
    let file = File::open(path);
    let _ = file.and_then(|file| file.take(MAX_CONFIG).read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The value of a key in `key = "value"` lines. The last line wins, keys are compared without regard
/// to case, quotes may be missing.
fn value(text: &str, key: &str) -> Option<String> {
    let lines = text.lines().rev().filter_map(|line| line.split_once('='));
    let mut found = lines.filter(|(name, _)| name.trim().eq_ignore_ascii_case(key));
    let (_, value) = found.next()?;
    let value = value.trim();
    let value = match value.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None => value,
    };
    Some(value.replace("|22", "\"").replace("|7C", "|").replace("|7c", "|"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(settings: &str, params: Params) -> Target {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/vmware")).unwrap();
        std::fs::write(root.path().join("etc/vmware/config"), settings).unwrap();
        let mut found = Target::of(&Params { root: Some(root.path().to_owned()), ..params });
        // The root is a new one each time.
        found.socket = found.socket.map(|path| match path.strip_prefix(root.path()) {
            Ok(rest) => Path::new("ROOT").join(rest),
            Err(_) => path,
        });
        found
    }

    fn to(host: &str, port: u16) -> Params {
        Params { host: Some(host.to_owned()), port, ..Params::default() }
    }

    #[test]
    fn settings_are_read_as_the_product_writes_them() {
        let text = "# x\nlibdir = \"/usr/lib\"\n authd.client.port=\"1\"\r\nAUTHD.client.PORT = 9902\nempty = \"\"\n";
        assert_eq!(value(text, "authd.client.port").as_deref(), Some("9902"));
        assert_eq!(value(text, "libdir").as_deref(), Some("/usr/lib"));
        assert_eq!(value(text, "empty").as_deref(), Some(""));
        assert_eq!(value(text, "x"), None);
    }

    #[test]
    fn without_a_host_the_socket_comes_first() {
        let here = target("", Params::default());
        assert_eq!(here.socket.as_deref(), Some(Path::new("ROOT/run/vmware/authd.sock")));
        assert_eq!((here.port, here.name().as_str()), (902, "localhost:902"));
        for (settings, port, socket, expected) in [
            ("authd.client.port = \"9902\"", 0, true, 9902),
            ("authd.client.port = \"9902\"", 9902, true, 9902),
            ("authd.client.port = \"9902\"", 902, false, 902),
            ("authd.client.port = \"0\"", 0, true, 902),
            ("authd.client.port = \"x\"", 902, true, 902),
            ("authd.local.socket = \"\"", 0, false, 902),
        ] {
            let found = target(settings, Params { port, ..Params::default() });
            assert_eq!((found.socket.is_some(), found.port), (socket, expected), "{settings} {port}");
        }
        let named = target("authd.local.socket = \"/tmp/a.sock\"", to("", 0));
        assert_eq!(named.socket.as_deref(), Some(Path::new("/tmp/a.sock")));
    }

    #[test]
    fn with_a_host_it_is_tcp() {
        let deadline = Instant::now() + std::time::Duration::from_secs(5);
        for (host, name, address) in
            [("127.0.0.1", "127.0.0.1:902", "127.0.0.1:902"), ("::1", "[::1]:902", "[::1]:902")]
        {
            let found = target("", to(host, 0));
            assert_eq!((found.socket.is_none(), found.name().as_str()), (true, name));
            assert_eq!(found.addresses(deadline).unwrap(), [address.parse().unwrap()]);
        }
        let here = target("", Params::default()).addresses(deadline).unwrap();
        assert_eq!(here, ["127.0.0.1:902".parse().unwrap(), "[::1]:902".parse().unwrap()]);
        // A name that cannot exist fails here, whatever the resolver.
        let error = target("", to("a b", 0)).addresses(deadline).unwrap_err();
        assert_eq!(error.code, ErrorCode::NetFail);
        assert!(error.text.starts_with("Network failure: cannot look up host a b: "), "{}", error.text);
    }
}
