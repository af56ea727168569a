//! The two daemons of an instance: started, watched, started again, ended.
//!
//! ```text
//!   start ──▶ both said READY=1 ──▶ ready ──▶ a daemon ends by itself ─▶ started again, later
//!     │                                                                  each time it fails
//!     └─ one ends before that: the other is ended too, exit status 1
//!   SIGTERM, SIGINT, SIGHUP at any time: both get SIGTERM, after a while SIGKILL
//! ```
//!
//! The daemons run in process groups of their own, so that Ctrl-C reaches only us and the order of
//! the end is ours. They ask the kernel for a signal when we die (`--die-with-parent`), and what
//! they leave behind becomes our child (child subreaper), so nothing survives us.

use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};

use crate::Result;
use crate::instance::Instance;
use crate::workspace::Binaries;

/// How long both daemons together may take to become ready.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a daemon may take to end after SIGTERM: requests in flight are finished first.
const STOP_LIMIT: Duration = Duration::from_secs(35);
/// First pause before a daemon is started again; doubled each time it fails before it is ready.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A daemon that ran this long has recovered: the pause starts over.
const RECOVERED: Duration = Duration::from_secs(5);

/// Starts the instance, calls `ready` once logins are accepted, and returns when it has been told to
/// end and everything has ended.
///
/// # Errors
/// When the instance cannot be started, or a daemon had to be killed.
pub fn run(
    instance: &Instance,
    binaries: &Binaries,
    ready: impl AsyncFnOnce(&Instance) -> Result<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start the runtime: {error}"))?;
    let own = rustix::process::getpid();
    rustix::process::set_child_subreaper(Some(own)).map_err(|error| format!("cannot adopt: {error}"))?;
    runtime.block_on(async {
        let mut ends = Ends::new()?;
        // The gateway first: the server would otherwise look for it in vain, and wait a little.
        let mut authd = Daemon::new(instance, "vmware-authd", &binaries.authd)?;
        let mut serverd = Daemon::new(instance, "vmserverd", &binaries.serverd)?;
        let started = start(&mut authd, &mut serverd, &mut ends).await;
        let result = match started {
            Ok(true) => match ready(instance).await {
                Ok(()) => watch(&mut authd, &mut serverd, &mut ends).await,
                Err(why) => Err(why),
            },
            Ok(false) => Ok(()),
            Err(why) => Err(why),
        };
        let stopped = stop(&mut authd, &mut serverd, &mut ends).await;
        result.and(stopped)
    })
}

/// The signals that end us.
struct Ends([SignalStream; 3]);

impl Ends {
    fn new() -> Result<Self> {
        let stream = |kind| signal(kind).map_err(|error| format!("cannot take signals: {error}"));
        let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
        let [a, b, c] = kinds.map(stream);
        Ok(Ends([a?, b?, c?]))
    }

    /// Waits for the next of them.
    async fn recv(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// What a daemon did.
enum Event {
    Ready,
    Ended(ExitStatus),
    Due,
}

/// One of the two daemons.
struct Daemon {
    name: &'static str,
    command: Command,
    notify: UnixDatagram,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
    due: Option<Instant>,
}

impl Daemon {
    fn new(instance: &Instance, name: &'static str, program: &std::path::Path) -> Result<Self> {
        let socket = instance.notify_socket(name);
        let _ = std::fs::remove_file(&socket);
        let notify = UnixDatagram::bind(&socket)
            .map_err(|error| format!("cannot bind {}: {error}", socket.display()))?;
        let mut command = Command::new(program);
        command.arg("--root").arg(instance.layout.root()).arg("--die-with-parent");
        command.env("NOTIFY_SOCKET", &socket).process_group(0).stdin(std::process::Stdio::null());
        // Standard output belongs to the one line that says ready.
        command.stdout(std::io::stderr());
        let pause = FIRST_PAUSE;
        Ok(Daemon { name, command, notify, child: None, started: Instant::now(), pause, due: None })
    }

    fn start(&mut self) -> Result<()> {
        let child = self.command.spawn().map_err(|error| format!("cannot start {}: {error}", self.name))?;
        self.child = Some(child);
        self.started = Instant::now();
        self.due = None;
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        self.child.as_ref()?.id().and_then(|id| Pid::from_raw(id.cast_signed()))
    }

    /// The next thing that happens with this daemon. Cancel safe.
    async fn event(&mut self) -> Event {
        let mut datagram = [0u8; 512];
        loop {
            let due = self.due;
            tokio::select! {
                received = self.notify.recv(&mut datagram) => {
                    let text = received.ok().and_then(|length| datagram.get(..length)).unwrap_or_default();
                    if text.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                        self.pause = FIRST_PAUSE;
                        return Event::Ready;
                    }
                }
                status = ended(&mut self.child) => {
                    self.child = None;
                    return Event::Ended(status);
                }
                () = until(due) => {
                    self.due = None;
                    return Event::Due;
                }
            }
        }
    }

    /// Plans the next start after an end that nobody asked for.
    fn plan(&mut self, status: ExitStatus) {
        if self.started.elapsed() >= RECOVERED {
            self.pause = FIRST_PAUSE;
        }
        eprintln!("xtask: {} ended by itself ({status}); starting it again in {:?}", self.name, self.pause);
        self.due = Some(Instant::now() + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Waits for the end of a child; for ever when there is none.
async fn ended(child: &mut Option<Child>) -> ExitStatus {
    match child {
        Some(child) => match child.wait().await {
            Ok(status) => status,
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Starts both and waits until both are ready. `false` when we were told to end meanwhile.
async fn start(authd: &mut Daemon, serverd: &mut Daemon, ends: &mut Ends) -> Result<bool> {
    let limit = Some(Instant::now() + START_LIMIT);
    authd.start()?;
    serverd.start()?;
    let (mut authd_ready, mut serverd_ready) = (false, false);
    while !(authd_ready && serverd_ready) {
        let (name, event) = tokio::select! {
            () = ends.recv() => return Ok(false),
            () = until(limit) => return Err(format!("the instance was not ready within {START_LIMIT:?}")),
            event = authd.event() => (authd.name, event),
            event = serverd.event() => (serverd.name, event),
        };
        match event {
            Event::Ready if name == authd.name => authd_ready = true,
            Event::Ready => serverd_ready = true,
            Event::Ended(status) => {
                return Err(format!("{name} did not start ({status}); what it said stands above"));
            }
            Event::Due => {}
        }
    }
    Ok(true)
}

/// Keeps both running until we are told to end.
async fn watch(authd: &mut Daemon, serverd: &mut Daemon, ends: &mut Ends) -> Result<()> {
    loop {
        let (daemon, event) = tokio::select! {
            () = ends.recv() => return Ok(()),
            event = authd.event() => (&mut *authd, event),
            event = serverd.event() => (&mut *serverd, event),
        };
        match event {
            Event::Ready => eprintln!("xtask: {} is ready again", daemon.name),
            Event::Ended(status) => daemon.plan(status),
            Event::Due => daemon.start()?,
        }
        // What a daemon left behind is dead by now, or will be at the next event.
        reap(&[authd, serverd]);
    }
}

/// Ends both, and whatever they left behind. A second signal shortens the wait.
async fn stop(authd: &mut Daemon, serverd: &mut Daemon, ends: &mut Ends) -> Result<()> {
    let limit = Some(Instant::now() + STOP_LIMIT);
    for daemon in [&*authd, &*serverd] {
        if let Some(pid) = daemon.pid() {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    let mut killed = Vec::new();
    while authd.child.is_some() || serverd.child.is_some() {
        tokio::select! {
            _ = ended(&mut authd.child), if authd.child.is_some() => authd.child = None,
            _ = ended(&mut serverd.child), if serverd.child.is_some() => serverd.child = None,
            () = ends.recv(), if killed.is_empty() => killed = kill(&[authd, serverd]),
            () = until(limit), if killed.is_empty() => killed = kill(&[authd, serverd]),
        }
    }
    // Machines survive the server on purpose; an instance of ours takes them along.
    for pid in reap(&[authd, serverd]) {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
        if name.is_ok_and(|name| name.trim_end() == "vmx") {
            eprintln!("xtask: the machine of process {} is powered off", pid.as_raw_nonzero());
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    // Helpers end by themselves when their daemon does; give the last of them a moment.
    let limit = Instant::now() + Duration::from_secs(2);
    while !reap(&[authd, serverd]).is_empty() && Instant::now() < limit {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for pid in reap(&[authd, serverd]) {
        killed.push(format!("process {}", pid.as_raw_nonzero()));
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
    if killed.is_empty() {
        Ok(())
    } else {
        Err(format!("{} did not end after SIGTERM and was killed", killed.join(" and ")))
    }
}

/// Kills the daemons that still run, and tells which.
fn kill(daemons: &[&Daemon]) -> Vec<String> {
    let running = daemons.iter().filter_map(|daemon| Some((daemon.name, daemon.pid()?)));
    running
        .map(|(name, pid)| {
            let _ = kill_process(pid, Signal::KILL);
            name.to_owned()
        })
        .collect()
}

/// Collects the dead among the processes we inherited and returns the living. The daemons themselves
/// are left out: their end belongs to their [`Child`].
fn reap(daemons: &[&Daemon]) -> Vec<Pid> {
    let own = std::process::id();
    let children = std::fs::read_to_string(format!("/proc/self/task/{own}/children")).unwrap_or_default();
    let pids = children.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?));
    pids.filter(|pid| daemons.iter().all(|daemon| daemon.pid() != Some(*pid)))
        .filter(|pid| !matches!(waitpid(Some(*pid), WaitOptions::NOHANG), Ok(Some(_)) | Err(_)))
        .collect()
}
