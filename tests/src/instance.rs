//! A whole instance of the server below a directory of its own, through `xtask up`.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use link::Layout;
use link::product_config::ProductConfig;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::client::Client;
use crate::exec::Exec;
use crate::{Account, eventually, process, programs};

/// How an instance is to be started.
#[derive(Debug, Default)]
pub struct Setup {
    tls: bool,
    plain: bool,
    settings: Vec<(String, String)>,
    config: Vec<(String, String)>,
    owner: Option<(u32, u32)>,
    ports: Option<(u16, u16)>,
    descriptors: Option<u32>,
    programs: Option<PathBuf>,
}

impl Setup {
    /// With a unix socket and no TCP port.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a TLS port.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// With a plain port.
    #[must_use]
    pub fn plain(mut self) -> Self {
        self.plain = true;
        self
    }

    /// With these two ports, whatever uses them already.
    #[must_use]
    pub fn ports(mut self, tls: u16, plain: u16) -> Self {
        self.ports = Some((tls, plain));
        self
    }

    /// With a key of `etc/vmserverd.toml`, its value as TOML.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl std::fmt::Display + Copy) -> Self {
        self.settings.push((key.to_owned(), value.to_string()));
        self
    }

    /// Without delays after wrong passwords, for tests that are not about them.
    #[must_use]
    pub fn hasty(self) -> Self {
        self.set("authd.login.delay", 0).set("authd.login.delayMax", 0)
    }

    /// With a key of the product's `etc/vmware/config`.
    #[must_use]
    pub fn config(mut self, key: &str, value: &str) -> Self {
        self.config.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With the programs of a directory of the test's own; see [`copy_programs`].
    #[must_use]
    pub fn programs(mut self, directory: &Path) -> Self {
        self.programs = Some(directory.to_owned());
        self
    }

    /// With at most so many descriptors in each process.
    #[must_use]
    pub fn descriptors(mut self, most: u32) -> Self {
        self.descriptors = Some(most);
        self
    }

    /// Run by an ordinary user instead of root.
    #[must_use]
    pub fn owned_by(mut self, account: &Account) -> Self {
        self.owner = Some((account.uid, account.gid));
        self
    }

    /// Starts it and waits until it accepts logins.
    ///
    /// # Panics
    /// When it does not start; the message holds what it said.
    #[must_use]
    pub fn start(self) -> Instance {
        for _ in 0..5 {
            match self.try_start(&Base::new()) {
                Ok(instance) => return instance,
                // Another test program took the port between our look and the daemon's.
                Err(failed) if self.ports.is_none() && failed.said.contains("in use") => {}
                Err(failed) => panic!("the instance did not start ({}):\n{}", failed.status, failed.said),
            }
        }
        panic!("no free port after five attempts");
    }

    /// Starts it in a directory, which may hold files of an earlier instance.
    ///
    /// # Errors
    /// When it ends before it is ready.
    pub fn try_start(&self, base: &Base) -> Result<Instance, Failed> {
        let (tls, plain) = self.ports.unwrap_or_else(|| {
            (if self.tls { free_port() } else { 0 }, if self.plain { free_port() } else { 0 })
        });
        let root = base.root();
        let layout = Layout::new(Some(&root)).expect("an absolute path");
        layout.create_directories().expect("directories in /tmp");
        let mut config = ProductConfig::load(&layout.product_config()).expect("readable");
        for (key, value) in &self.config {
            config.set(key, value);
        }
        config.store(&layout.product_config(), 0o644).expect("writable");
        let mut bin_dir = self.programs.clone().unwrap_or_else(|| programs::directory().to_owned());
        let mut command = if let Some((uid, gid)) = self.owner {
            give(&base.path, uid, gid);
            bin_dir = base.path.join("bin");
            copy_programs(&bin_dir);
            let mut command = Command::new(bin_dir.join("xtask"));
            command.uid(uid).gid(gid).env("HOME", &base.path);
            command
        } else if let Some(most) = self.descriptors {
            let mut command = Command::new("prlimit");
            command.arg(format!("--nofile={most}:{most}")).arg(bin_dir.join("xtask"));
            command
        } else {
            Command::new(bin_dir.join("xtask"))
        };
        command.arg("up").arg("--root").arg(&root).arg("--bin-dir").arg(&bin_dir);
        command.args(["--tls-port", &tls.to_string(), "--plain-port", &plain.to_string()]);
        for (key, value) in &self.settings {
            command.args(["--set", &format!("{key}={value}")]);
        }
        let log = std::fs::File::options().create(true).append(true).open(base.said_path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.expect("writable"));
        let mut child = command.spawn().expect("xtask starts");
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = String::new();
        output.read_line(&mut ready).expect("utf-8");
        if !ready.starts_with("ready ") {
            let status = child.wait().expect("a child");
            return Err(Failed { status, said: base.said() });
        }
        Ok(Instance { base: base.clone(), layout, tls, plain, ready, child, output: Some(output) })
    }
}

/// The directory an instance lives in, and what goes with it.
#[derive(Debug, Clone)]
pub struct Base {
    path: PathBuf,
    _directory: std::sync::Arc<TempDir>,
}

impl Base {
    /// A new directory below /tmp that every user can enter.
    #[must_use]
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("vmsrvd-").tempdir_in("/tmp").expect("a directory");
        let path = directory.path().to_owned();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our directory");
        Base { path, _directory: std::sync::Arc::new(directory) }
    }

    /// The prefix of the instance.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.path.join("i")
    }

    /// A place for files of the test beside the instance.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `xtask up` and the daemons wrote on standard error.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.said_path()).unwrap_or_default()
    }

    fn said_path(&self) -> PathBuf {
        self.path.join("said")
    }
}

/// Why an instance did not start.
#[derive(Debug)]
pub struct Failed {
    /// The exit status of `xtask up`.
    pub status: ExitStatus,
    /// What it and the daemons wrote on standard error.
    pub said: String,
}

/// A running instance; ends with the value.
pub struct Instance {
    /// Its directory.
    pub base: Base,
    /// Where its files are.
    pub layout: Layout,
    /// TLS port, or 0.
    pub tls: u16,
    /// Plain port, or 0.
    pub plain: u16,
    /// The line that said it was ready.
    pub ready: String,
    child: Child,
    output: Option<BufReader<ChildStdout>>,
}

impl Instance {
    /// Process id of `xtask up`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Process id of the gateway's root half, waiting for it if it is just being started again.
    #[must_use]
    pub fn monitor(&self) -> u32 {
        self.daemon("vmware-authd")
    }

    /// Process id of the gateway's network half.
    #[must_use]
    pub fn net(&self) -> u32 {
        self.helper(self.monitor(), "net")
    }

    /// Process id of the server core.
    #[must_use]
    pub fn core(&self) -> u32 {
        self.daemon("vmserverd")
    }

    /// The session processes, with the users they run as.
    #[must_use]
    pub fn sessions(&self) -> Vec<(u32, u32)> {
        let session = |child: &u32| process::words(*child).iter().any(|word| word == "session");
        let all = process::children(self.core()).into_iter().filter(session);
        all.filter_map(|child| Some((child, *process::uids(child).first()?))).collect()
    }

    /// The session process of a user, waiting for it.
    #[must_use]
    pub fn session_of(&self, uid: u32) -> u32 {
        eventually(&format!("a session process of uid {uid}"), || {
            self.sessions().into_iter().find(|(_, owner)| *owner == uid).map(|(process, _)| process)
        })
    }

    fn daemon(&self, name: &str) -> u32 {
        eventually(&format!("{name} runs"), || {
            process::children(self.pid()).into_iter().find(|child| {
                let words = process::words(*child);
                words.first().is_some_and(|word| Path::new(word).file_name() == Some(name.as_ref()))
                    && words.iter().any(|word| word == "--die-with-parent")
            })
        })
    }

    fn helper(&self, parent: u32, word: &str) -> u32 {
        eventually(&format!("helper {word} of {parent}"), || {
            process::children(parent)
                .into_iter()
                .find(|child| process::words(*child).iter().any(|w| w == word))
        })
    }

    /// The unix socket for local callers.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.layout.authd_socket()
    }

    /// The gateway's log, as it stands.
    #[must_use]
    pub fn authd_log(&self) -> String {
        read(&self.layout.log_directory().join("vmware-authd.log"))
    }

    /// The server's log, as it stands.
    #[must_use]
    pub fn serverd_log(&self) -> String {
        read(&self.layout.log_directory().join("vmware-serverd.log"))
    }

    /// Waits until the gateway's log holds a text.
    pub fn authd_logs(&self, text: &str) {
        eventually(&format!("{text:?} in the gateway's log:\n{}", self.authd_log()), || {
            self.authd_log().contains(text).then_some(())
        });
    }

    /// A new connection to the unix socket, its banner read.
    #[must_use]
    pub fn unix(&self) -> Client {
        Client::unix(&self.socket()).greeted()
    }

    /// A new connection to the plain port, its banner read.
    #[must_use]
    pub fn tcp(&self) -> Client {
        Client::tcp(self.plain).greeted()
    }

    /// A new connection to the TLS port, the handshake done.
    #[must_use]
    pub fn secure(&self) -> Client {
        Client::tcp(self.tls).greeted().secure()
    }

    /// An exec session of the test's own user over the unix socket.
    #[must_use]
    pub fn exec(&self) -> Exec {
        self.unix().local().server()
    }

    /// An exec session over the unix socket, if the instance serves one just now.
    #[must_use]
    pub fn try_exec(&self) -> Option<Exec> {
        Exec::try_unix(&self.socket())
    }

    /// Waits until the instance serves new callers.
    #[must_use]
    pub fn serves(&self) -> Exec {
        eventually("a new login works", || {
            let mut exec = self.try_exec()?;
            exec.send(crate::exec::request("inc", "<number>1</number>"));
            exec.try_reply().ok().filter(|reply| reply.ok() && reply.out("number") == "2")?;
            Some(exec)
        })
    }

    /// Sends SIGTERM without waiting.
    pub fn ask_to_end(&self) {
        process::signal(self.pid(), Signal::TERM);
    }

    /// Waits for the end, which must come within 20 s.
    pub fn wait(&mut self) -> ExitStatus {
        assert!(process::ends_within(self.pid(), Duration::from_secs(20)), "the instance does not end");
        self.child.wait().expect("a child")
    }

    /// What was printed on standard output behind the line that said ready; call when it has ended.
    pub fn rest_of_output(&mut self) -> String {
        let mut text = String::new();
        if let Some(mut output) = self.output.take() {
            output.read_to_string(&mut text).expect("utf-8");
        }
        text
    }

    /// Copies a program of the tests to where every user may run it.
    #[must_use]
    pub fn public_copy(&self, program: &Path) -> PathBuf {
        let path = self.base.path.join(program.file_name().expect("a program"));
        if !path.exists() {
            programs::copy(program, &path);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("our copy");
        }
        path
    }

    /// A directory that every user may write to, as /tmp is.
    #[must_use]
    pub fn public_directory(&self, name: &str) -> PathBuf {
        let path = self.base.path.join(name);
        std::fs::create_dir(&path).expect("a new directory");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o1777)).expect("our directory");
        path
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.ask_to_end();
        let ended = process::ends_within(self.pid(), Duration::from_secs(40));
        if !ended {
            process::kill(self.pid());
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- standard error of the instance\n{}", self.base.said());
            eprintln!("--- vmware-authd.log\n{}", tail(&self.authd_log()));
            eprintln!("--- vmware-serverd.log\n{}", tail(&self.serverd_log()));
        } else {
            assert!(ended, "the instance did not end within 40 s of SIGTERM");
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines.iter().skip(lines.len().saturating_sub(40)).flat_map(|line| [line, "\n"]).collect()
}

/// Gives a directory and all below it to a user.
fn give(path: &Path, uid: u32, gid: u32) {
    std::os::unix::fs::lchown(path, Some(uid), Some(gid)).expect("root may");
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).expect("readable") {
            give(&entry.expect("readable").path(), uid, gid);
        }
    }
}

/// Copies the programs of an instance to a directory of a test's own.
///
/// # Panics
/// When there is no room.
pub fn copy_programs(directory: &Path) {
    std::fs::create_dir_all(directory).expect("a directory in /tmp");
    for name in ["xtask", "vmserverd", "vmware-authd", "vmx"] {
        let copy = directory.join(name);
        if !copy.exists() {
            programs::copy(&programs::directory().join(name), &copy);
        }
    }
}

/// A TCP port that nobody listens on, below the range that the kernel gives to outgoing connections.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u16 = 10_000;
    const COUNT: u16 = 22_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at once start at different places.
    let start = std::process::id().wrapping_mul(97) % u32::from(COUNT);
    loop {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = FIRST + u16::try_from((start + step) % u32::from(COUNT)).expect("small");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
