//! The peer: libvirtd with its test driver, driven through the daemon by a C program of ours.
//!
//! Everything lives in the scratch directory: configuration, sockets, certificates, and the program,
//! which is compiled from `libvirt_load.c` for each run of the bench. The daemon's own directories are empty
//! ones that nobody else sees, and it finds no other driver than the test driver, which is built in: so none
//! of them holds a pid file or a network from an earlier run, and any number of daemons can follow each other.
//! The test driver does less for a request than a real one, so libvirt is flattered.
//!
//! The client has a time limit, and a peer that exceeds it is left out: the bench goes on.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::bench::child::Child;
use crate::bench::load::Sample;
use crate::bench::ours::free_port;
use crate::workspace::{installed, root};

/// What the client may take beyond the time it is told to work: connecting, and reading 10 000 domains for each
/// connection.
const PATIENCE: Duration = Duration::from_secs(60);
/// The same for connections that are held: libvirtd looks at all of them whenever one is added.
const HOLD_PATIENCE: Duration = Duration::from_secs(150);

/// Starts the daemon with directories of its own, which end with it. `$1` is an empty directory for drivers.
const SEPARATE: &str = r#"for directory in /run/libvirt /var/lib/libvirt /var/cache/libvirt /var/log/libvirt; do
    mkdir -p $directory && mount -t tmpfs bench $directory || exit 1
done
exec env LIBVIRT_DRIVER_DIR="$@""#;

/// A running libvirtd.
#[derive(Debug)]
pub struct Libvirt {
    daemon: Child,
    client: PathBuf,
    scratch: PathBuf,
    /// URI of the test driver over the unix socket.
    pub unix: String,
    /// URI of the test driver over mutual TLS.
    pub tls: String,
}

/// Why this machine cannot run the peer, or `None`.
pub fn missing() -> Option<String> {
    let daemon = ["/usr/sbin/libvirtd", "/usr/bin/libvirtd"].iter().any(|path| Path::new(path).exists());
    if !rustix::process::geteuid().is_root() {
        Some("libvirtd needs root".to_owned())
    } else if !daemon {
        Some(
            "libvirtd is not installed (apt-get install libvirt-daemon-system libvirt-clients libvirt-dev)"
                .to_owned(),
        )
    } else if running() {
        Some("a libvirtd runs on this machine: stop it for the bench".to_owned())
    } else if !Path::new("/usr/include/libvirt/libvirt.h").exists() {
        Some("libvirt's header is not installed (apt-get install libvirt-dev)".to_owned())
    } else {
        let programs = ["gcc", "openssl", "unshare"];
        programs.iter().find(|name| !installed(name)).map(|name| format!("{name} is not installed"))
    }
}

/// Whether there is a libvirtd that is not ours.
fn running() -> bool {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.into_iter().any(|process| {
        std::fs::read_to_string(process.path().join("comm")).is_ok_and(|name| name.trim() == "libvirtd")
    })
}

impl Libvirt {
    /// Compiles the client, makes certificates and starts the daemon in `scratch`/`name`.
    ///
    /// # Errors
    /// When one of them fails.
    pub fn start(scratch: &Path, name: &str) -> Result<Self> {
        let scratch = scratch.join(name);
        let pki = scratch.join("pki");
        std::fs::create_dir_all(&pki).map_err(|error| format!("cannot make {}: {error}", pki.display()))?;
        let client = scratch.join("libvirt_load");
        let source = root().join("xtask/src/bench/libvirt_load.c");
        let flags = ["-O2", "-Wall", "-Wextra", "-o"];
        quietly(Command::new("gcc").args(flags).arg(&client).arg(source).args(["-lvirt", "-lpthread"]))?;
        certificates(&pki)?;
        let port = free_port()?;
        let configuration = scratch.join("libvirtd.conf");
        std::fs::write(&configuration, settings(&scratch, &pki, port))
            .map_err(|error| format!("cannot write {}: {error}", configuration.display()))?;
        let text = |path: PathBuf| path.display().to_string();
        let drivers = scratch.join("no-drivers");
        std::fs::create_dir_all(&drivers)
            .map_err(|error| format!("cannot make {}: {error}", drivers.display()))?;
        // Each program becomes the next one, so the process that is started is the daemon in the end.
        let arguments = [
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            SEPARATE,
            "sh",
            &text(drivers),
            "libvirtd",
            "--listen",
            "--config",
            &text(configuration),
            "--pid-file",
            &text(scratch.join("pid")),
        ];
        let daemon = Child::start(Path::new("unshare"), Stdio::null(), &arguments, &scratch)?;
        let mut daemon = daemon.expendable();
        let socket = scratch.join("libvirt-sock");
        daemon.until(|| UnixStream::connect(&socket))?;
        daemon.until(|| std::net::TcpStream::connect(("127.0.0.1", port)))?;
        let unix = format!("test+unix:///default?socket={}", socket.display());
        let tls = format!("test+tls://localhost:{port}/default?pkipath={}", pki.display());
        Ok(Libvirt { daemon, client, scratch, unix, tls })
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> u32 {
        self.daemon.pid()
    }

    /// `virDomainGetInfo` on so many connections for so long.
    ///
    /// # Errors
    /// When the client fails.
    pub fn calls(&self, uri: &str, connections: usize, length: Duration) -> Result<Sample> {
        self.load("calls", uri, connections, length)
    }

    /// URI of the test driver over the unix socket, with the domains of a file.
    pub fn unix_with(&self, domains: &Path) -> String {
        let socket = self.scratch.join("libvirt-sock");
        format!("test+unix://{}?socket={}", domains.display(), socket.display())
    }

    /// `virConnectListAllDomains` again and again on one connection.
    ///
    /// # Errors
    /// When the client fails.
    pub fn lists(&self, uri: &str, length: Duration) -> Result<Sample> {
        self.load("lists", uri, 1, length)
    }

    /// `virDomainGetInfo` of the domain of that name, again and again on one connection.
    ///
    /// # Errors
    /// When the client fails.
    pub fn infos(&self, uri: &str, domain: &str, length: Duration) -> Result<Sample> {
        self.load_more("calls", uri, 1, length, &[domain])
    }

    /// `virConnectOpen` and close, one after another, for so long.
    ///
    /// # Errors
    /// When the client fails.
    pub fn opens(&self, uri: &str, length: Duration) -> Result<Sample> {
        self.load("opens", uri, 1, length)
    }

    /// Opens connections and keeps them until the child's standard input is closed.
    ///
    /// # Errors
    /// When the client fails.
    pub fn hold(&self, uri: &str, connections: usize) -> Result<Child> {
        let arguments = ["holds", uri, &connections.to_string()];
        let mut child = Child::start(&self.client, Stdio::piped(), &arguments, &self.scratch)?;
        child.within(HOLD_PATIENCE, Child::line)?;
        Ok(child.expendable())
    }

    fn load(&self, mode: &str, uri: &str, connections: usize, length: Duration) -> Result<Sample> {
        self.load_more(mode, uri, connections, length, &[])
    }

    fn load_more(
        &self,
        mode: &str,
        uri: &str,
        connections: usize,
        length: Duration,
        more: &[&str],
    ) -> Result<Sample> {
        let limit = length + PATIENCE;
        let (connections, length) = (connections.to_string(), length.as_secs_f64().to_string());
        let mut arguments = vec![mode, uri, &connections, &length];
        arguments.extend(more);
        let output =
            Child::start(&self.client, Stdio::null(), &arguments, &self.scratch)?.all_within(limit)?;
        let (elapsed, took) = output.split_first_chunk::<8>().ok_or("the client wrote too little")?;
        let took = took.chunks_exact(4).filter_map(|four| Some(u32::from_ne_bytes(four.try_into().ok()?)));
        Sample::of(took.collect(), Duration::from_nanos(u64::from_ne_bytes(*elapsed)))
    }
}

/// The settings that keep every limit of libvirtd out of the way.
fn settings(scratch: &Path, pki: &Path, port: u16) -> String {
    let (scratch, pki) = (scratch.display(), pki.display());
    format!(
        r#"unix_sock_dir = "{scratch}"
auth_unix_rw = "none"
max_clients = 20000
max_workers = 20
max_client_requests = 100
keepalive_interval = -1
listen_tls = 1
listen_tcp = 0
tls_port = "{port}"
listen_addr = "127.0.0.1"
auth_tls = "none"
ca_file = "{pki}/cacert.pem"
cert_file = "{pki}/servercert.pem"
key_file = "{pki}/serverkey.pem"
"#
    )
}

/// An authority, a server and a client: RSA, because libvirtd refuses elliptic curves.
fn certificates(pki: &Path) -> Result<()> {
    let usage = "keyUsage = digitalSignature, keyEncipherment\nextendedKeyUsage = serverAuth, clientAuth\n";
    let files = [
        ("ca.ext", "basicConstraints = critical, CA:TRUE\nkeyUsage = keyCertSign\n".to_owned()),
        ("leaf.ext", format!("{usage}subjectAltName = DNS:localhost\n")),
    ];
    for (name, text) in files {
        std::fs::write(pki.join(name), text).map_err(|error| format!("cannot write {name}: {error}"))?;
    }
    let openssl =
        |line: &str| quietly(Command::new("openssl").current_dir(pki).args(line.split_whitespace()));
    for (name, signer) in [
        ("ca", "-signkey cakey.pem -extfile ca.ext"),
        ("server", "-CA cacert.pem -CAkey cakey.pem -CAcreateserial -extfile leaf.ext"),
        ("client", "-CA cacert.pem -CAkey cakey.pem -CAcreateserial -extfile leaf.ext"),
    ] {
        openssl(&format!(
            "req -new -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}key.pem -out {name}.csr"
        ))?;
        openssl(&format!("x509 -req -in {name}.csr -days 2 {signer} -out {name}cert.pem"))?;
    }
    Ok(())
}

/// Runs a program that is heard only when it fails.
fn quietly(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}
