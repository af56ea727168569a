//! A server below a directory of its own, with the test in the place of vmware-authd.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use link::gateway::{ToAuthd, ToServerd};
use link::identity::Account;
use link::{Channel, Identity, Proof};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tempfile::TempDir;
use tokio_seqpacket::UnixSeqpacketListener;

/// The user that tests become besides root.
pub const NOBODY: u32 = 65534;

/// No step of a test takes longer than this, or the test has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

pub fn own_uid() -> u32 {
    rustix::process::getuid().as_raw()
}

/// The identity of a user, proven by this very test.
pub fn identity(uid: u32) -> Identity {
    Account::by_uid(uid).unwrap().identity(Proof::Unix, ("unix".into(), 1), false, 1_795_000_000)
}

/// A root directory and what runs below it.
pub struct Instance {
    pub directory: TempDir,
    listener: Option<UnixSeqpacketListener>,
    server: Option<Child>,
}

impl Instance {
    /// An empty root with these settings.
    pub fn new(settings: &str) -> Self {
        let directory = tempfile::Builder::new().prefix("vms").tempdir().unwrap();
        for below in ["etc", "run/vmware"] {
            std::fs::create_dir_all(directory.path().join(below)).unwrap();
        }
        std::fs::write(directory.path().join("etc/vmserverd.toml"), settings).unwrap();
        Instance { directory, listener: None, server: None }
    }

    /// A root with a listening gateway and a server that has linked to it.
    pub async fn started(settings: &str) -> (Self, Gateway) {
        let mut instance = Self::new(settings);
        instance.listen();
        instance.start();
        let gateway = instance.accept().await;
        (instance, gateway)
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.directory.path().join(below)
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("var/log/vmware/vmware-serverd.log")).unwrap_or_default()
    }

    /// Binds the gateway's socket anew.
    pub fn listen(&mut self) {
        let path = self.path("run/vmware/authd-link.sock");
        let _ = std::fs::remove_file(&path);
        self.listener = Some(UnixSeqpacketListener::bind(path).unwrap());
    }

    /// Unbinds it, as a gateway that ends.
    pub fn unlisten(&mut self) {
        self.listener = None;
        let _ = std::fs::remove_file(self.path("run/vmware/authd-link.sock"));
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vmserverd"));
        command.arg("--root").arg(self.directory.path()).env("VMSERVERD_LOG", "debug");
        command
    }

    pub fn start(&mut self) {
        self.server = Some(self.command().spawn().unwrap());
    }

    /// Takes the server's link.
    pub async fn accept(&mut self) -> Gateway {
        let accepted = self.listener.as_mut().unwrap().accept();
        let socket = tokio::time::timeout(PATIENCE, accepted).await.expect("no link").unwrap();
        let channel = Channel::from_socket(socket).unwrap();
        let mut gateway = Gateway { channel, next: 1 };
        assert!(matches!(gateway.message().await, ToAuthd::Hello { .. }));
        gateway
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(self.server.as_ref().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for the end of the server.
    pub fn wait(&mut self) -> ExitStatus {
        let mut server = self.server.take().unwrap();
        let end = End::of(Pid::from_child(&server));
        end.wait();
        server.wait().unwrap()
    }

    /// The session processes, as uid and pid. For a moment after its start the core has a child that finds
    /// out what the host can do.
    pub fn processes(&self) -> Vec<(u32, Pid)> {
        let mut all = children(self.pid());
        all.retain(|(_, pid)| {
            let line = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == b"session")
        });
        all
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

/// The processes whose parent is `parent`, with their uid.
fn children(parent: Pid) -> Vec<(u32, Pid)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |label| number(&status, label);
        if field("PPid:") == u32::try_from(parent.as_raw_nonzero().get()).unwrap() {
            let pid = Pid::from_raw(field("Pid:").try_into().unwrap()).unwrap();
            found.push((field("Uid:"), pid));
        }
    }
    found
}

fn number(status: &str, label: &str) -> u32 {
    let line = status.lines().find_map(|line| line.strip_prefix(label)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A line of `/proc/PID/status`.
pub fn status(pid: Pid, label: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(label)).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A handle that notices the end of a process, taken while it runs.
pub struct End(OwnedFd);

impl End {
    pub fn of(pid: Pid) -> Self {
        End(pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }

    pub fn wait(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        let patience = Timespec { tv_sec: PATIENCE.as_secs().try_into().unwrap(), tv_nsec: 0 };
        assert_eq!(poll(&mut fds, Some(&patience)).unwrap(), 1, "the process does not end");
    }
}

/// The gateway's end of the link.
pub struct Gateway {
    channel: Channel<ToServerd, ToAuthd>,
    next: u64,
}

impl Gateway {
    pub async fn message(&mut self) -> ToAuthd {
        let received = tokio::time::timeout(PATIENCE, self.channel.recv()).await.expect("no message");
        received.unwrap().expect("the link has ended").0
    }

    /// Asks for a session; its number when it was granted, else the reason.
    pub async fn reserve(&mut self, uid: u32) -> Result<u64, String> {
        let session = self.next;
        self.next += 1;
        self.channel.send(&ToServerd::Reserve { session, uid }, &[]).await.unwrap();
        match self.message().await {
            ToAuthd::Accept { session: granted } if granted == session => Ok(session),
            ToAuthd::Refuse { session: refused, reason } if refused == session => Err(reason),
            other => panic!("{other:?}"),
        }
    }

    pub async fn cancel(&mut self, session: u64) {
        self.channel.send(&ToServerd::Cancel { session }, &[]).await.unwrap();
    }

    /// Hands over a reserved session; the caller's end of it.
    pub async fn hand_over(&mut self, session: u64, identity: Identity, early: &[u8]) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let message = ToServerd::Session { session, identity, early: early.to_vec() };
        self.channel.send(&message, &[theirs.as_fd()]).await.unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        Client(ours)
    }

    /// A session of a user.
    pub async fn session(&mut self, uid: u32) -> Client {
        let session = self.reserve(uid).await.unwrap();
        self.hand_over(session, identity(uid), b"").await
    }
}

/// A caller.
pub struct Client(pub UnixStream);

impl Client {
    pub fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).unwrap();
    }

    /// Reads one reply; `None` at the end of the stream.
    pub fn read(&mut self) -> Option<String> {
        let mut text = Vec::new();
        while !text.ends_with(b"</exec>\n") {
            let mut byte = [0];
            match self.0.read(&mut byte) {
                Ok(0) if text.is_empty() => return None,
                Ok(1) => text.push(byte[0]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset && text.is_empty() => {
                    return None;
                }
                other => panic!("{other:?} after {}", String::from_utf8_lossy(&text)),
            }
        }
        Some(String::from_utf8(text).unwrap())
    }

    pub fn ask(&mut self, request: &str) -> String {
        self.send(request);
        self.read().expect("the session has ended")
    }

    /// The text of the first such element of the reply to an operation without arguments.
    pub fn fact(&mut self, operation: &str, element: &str) -> String {
        let reply = self.ask(&format!("<exec><op>{operation}</op></exec>"));
        between(&reply, element).to_owned()
    }

    pub fn count(&mut self) -> u64 {
        self.fact("VMServerd_GetRequestCount", "count").parse().unwrap()
    }

    pub fn inc(&mut self, number: i64) -> i64 {
        let reply = self.ask(&inc(number));
        between(&reply, "number").parse().unwrap()
    }

    pub fn make_dir(&mut self, path: &Path) -> String {
        self.ask(&format!(
            "<exec><op>FileManager_MakeDir</op><in><directories><directory>{}</directory></directories>\
             <owner_mode>rwx</owner_mode><group_mode>rwx</group_mode><other_mode>rx</other_mode></in></exec>",
            path.display()
        ))
    }
}

pub fn inc(number: i64) -> String {
    format!("<exec><op>inc</op><in><number>{number}</number></in></exec>")
}

pub fn between<'a>(text: &'a str, element: &str) -> &'a str {
    let start = format!("<{element}>");
    let at = text.find(&start).unwrap_or_else(|| panic!("no {element} in {text}"));
    text[at + start.len()..].split('<').next().unwrap()
}
