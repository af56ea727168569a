//! What a handler gets besides its request: who asks, what the server is, and the way to the core.

use std::collections::{BTreeMap, HashSet};
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use hypervisor::control::{FromVmx, HostClass, State, ToVmx};
use link::Layout;
use ops::{Error, Fault, Product};

use crate::registered::Registered;
use crate::running::{EventBatch, Metrics, Running};
use crate::tasks::{NewTask, Status, Work};

/// The caller, as the kernel knows the process that the handler runs in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Every group, the primary one included.
    pub groups: Vec<u32>,
    /// Home directory according to the user database.
    pub home: String,
    /// Whether the caller is an administrator: uid 0, or a member of the group that the setting
    /// `serverd.admin.group` names.
    pub admin: bool,
}

tokio::task_local! {
    static SESSION: u64;
}

/// Polls a handler for a session, whose number goes with what is asked of the core meanwhile.
pub fn in_session<T>(session: u64, poll: impl FnOnce() -> T) -> T {
    SESSION.sync_scope(session, poll)
}

/// The session for which a handler is polled just now; 0 for none.
#[must_use]
pub fn current_session() -> u64 {
    SESSION.try_with(|session| *session).unwrap_or_default()
}

/// The context of a request: whose it is, and which session it came on.
#[derive(Clone)]
pub struct Ctx {
    caller: Arc<Caller>,
    /// The core's number for the session; unique as long as the server runs.
    pub session: u64,
    /// The machine that the session came to by `CONNECT`: requests that name none are about it.
    pub machine: Option<Arc<str>>,
}

impl Ctx {
    /// The context of the requests of one session.
    #[must_use]
    pub fn new(caller: Arc<Caller>, session: u64) -> Self {
        Ctx { caller, session, machine: None }
    }

    /// Starts work that goes to its end, whether or not somebody waits for the answer.
    pub(crate) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        tokio::spawn(SESSION.scope(self.session, work))
    }

    /// The context of the requests of a connection to one machine.
    #[must_use]
    pub fn connected_to(self, machine: &str) -> Self {
        Ctx { machine: Some(machine.into()), ..self }
    }
}

impl Deref for Ctx {
    type Target = Caller;

    fn deref(&self) -> &Caller {
        &self.caller
    }
}

#[cfg(test)]
impl std::ops::DerefMut for Ctx {
    fn deref_mut(&mut self) -> &mut Caller {
        Arc::get_mut(&mut self.caller).unwrap()
    }
}

/// What all sessions of one login name share.
pub struct Caller {
    /// Who asks.
    pub user: User,
    /// What replies say the product is.
    pub product: Product,
    /// The product as a number of the C library: 4 Server, or 2 GSX (`serverd.product.number`).
    pub product_number: u32,
    /// Whether the two bugs of VMware Server 1.0.3 for Windows are shown again
    /// (`serverd.compat.historicBugs`).
    pub historic_bugs: bool,
    /// Where the product's files are.
    pub layout: Layout,
    /// Where the event logs of machines are (`serverd.eventlog.dir`), the layout's root included.
    pub event_logs: PathBuf,
    /// The way to what all users share.
    pub core: Arc<dyn Core>,
}

impl fmt::Debug for Ctx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx").field("user", &self.user).finish_non_exhaustive()
    }
}

/// An answer of the core that is still to come.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// What handlers may ask of the server's core.
///
/// Declared here and implemented by the session process, so that no handler knows how the question
/// travels. A question names no user: the core knows who asks from the channel it came on.
pub trait Core: Send + Sync {
    /// Requests answered since the server started, over all users. The request that is being worked
    /// on is not among them yet.
    fn request_count(&self) -> Answer<'_, u64>;

    /// Paths of the .vmx files of all machines that have a process, sorted by bytes, whoever may
    /// read them.
    fn connected_vms(&self) -> Answer<'_, Vec<String>>;

    /// Starts work that outlives the request and answers with the number of the task. Fails with -22
    /// when the caller has as many tasks as `serverd.tasks.perUser` allows; nothing has run then.
    fn start_task(&self, task: NewTask, work: Work) -> Answer<'_, u64>;

    /// How a task of the caller is; administrators may ask of any. Fails with `No such task`.
    fn task(&self, task: u64) -> Answer<'_, Status>;

    /// Stops a task and waits for its end, at most five seconds. Fails as [`Core::task`].
    fn stop_task(&self, task: u64) -> Answer<'_, Status>;

    /// Forgets a task that has ended. Fails as [`Core::task`], and while it runs.
    fn delete_task(&self, task: u64) -> Answer<'_, ()>;

    /// Tasks of the caller, newest first; those of everybody for an administrator who wants `all`.
    fn tasks(&self, all: bool) -> Answer<'_, Vec<Status>>;

    /// The registered machines, whoever may read them.
    fn registered(&self) -> Answer<'_, Arc<Registered>>;

    /// Registers a machine, durably. `vmx` is the .vmx, opened for reading and writing (root: for
    /// reading), which proves the right. Fails with -20, -11, -4 or -22.
    fn register(&self, config: &str, private: bool, vmx: OwnedFd) -> Answer<'_, ()>;

    /// Unregisters a machine, durably. `proof` is as for [`Core::register`], or, when the .vmx is
    /// gone, the nearest directory above that is there. With `idle` it also fails, with -21, while a
    /// task is at work in the machine's directory.
    fn unregister(&self, config: &str, idle: bool, proof: OwnedFd) -> Answer<'_, ()>;

    /// Which of these files (device and inode) are used by registered machines of other users, besides
    /// the machine `config`. Asks the owners of those machines; takes as long as they need, at most ten
    /// seconds.
    fn used_by_others(&self, config: &str, files: Vec<(u64, u64)>) -> Answer<'_, HashSet<(u64, u64)>>;

    /// Lists a session of the caller as connected to a machine until it ends. `vmx` is the .vmx,
    /// opened for reading. `console` is for one that came by `CONNECT`, which takes rx, and fails with
    /// -21 when there are too many.
    fn attach(&self, session: u64, config: &str, console: bool, vmx: OwnedFd) -> Answer<'_, ()>;

    /// Who is connected to a machine, by time. `vmx` is as for [`Core::attach`].
    fn connected_users(&self, config: &str, vmx: OwnedFd) -> Answer<'_, Vec<ConnectedUser>>;

    /// Asks the gateway about encryption. Administrators only. Fails with -22 when there is no gateway
    /// to ask.
    fn security(&self, ask: link::security::Ask) -> Answer<'_, link::security::Answer>;

    /// Waits until everything is written that anybody has been told of: the lists, the journal of tasks and the
    /// event logs of machines.
    fn settled(&self) -> Answer<'_, ()>;

    /// The machines that have a process, by the paths of their .vmx files, whoever may read them.
    fn running(&self) -> Answer<'_, Arc<BTreeMap<String, Running>>>;

    /// Powers a machine on, or resumes it; answered when it is on. `vmx` is the .vmx, opened for
    /// reading by a caller who may execute it as well. Fails with -4, -11, -8 when it is on, -16 with
    /// a question pending, -18, -19, -21 while it is being started or stopped, -22.
    fn start_machine(&self, config: &str, vmx: OwnedFd) -> Answer<'_, State>;

    /// Hands a request to the process of a machine, never [`ToVmx::Start`], and returns what it
    /// answers: any number of [`FromVmx::OneSnapshot`] or one of the other answers, the final one
    /// last. A [`FromVmx::Failed`] is an error. The number in the request does not matter. `vmx` is as
    /// for [`Core::start_machine`]; reading is enough for SerialRead, Screenshot, GetGuestInfo,
    /// GetStatus and ListSnapshots.
    ///
    /// A machine without a process: -8, but for snapshots, for which a process is started that does
    /// nothing else, and for SerialRead, which reads what is kept of the last run.
    fn ask_machine(&self, config: &str, vmx: OwnedFd, ask: ToVmx) -> Answer<'_, Vec<FromVmx>>;

    /// Events from a number on, `wanted` being epoch and number; as soon as there is one, or after
    /// `timeout` without. Answered at once when nothing is wanted, and when the epoch is another one
    /// or some of the events are no longer kept: then with the oldest that are.
    fn wait_for_events(
        &self,
        wanted: Option<(u64, u64)>,
        timeout: Duration,
        max: u32,
    ) -> Answer<'_, EventBatch>;

    /// Numbers that the core knows.
    fn metrics(&self) -> Answer<'_, Metrics>;

    /// Waits until a descriptor can be read from. Not of the core, but of whatever runs handlers.
    fn readable(&self, descriptor: OwnedFd) -> Answer<'_, ()>;

    /// How the host runs guests, once it has been found out.
    fn host(&self) -> Option<HostClass>;

    /// Says that the .vmx of a machine was changed: these keys of it, or, without any, something in it.
    /// `vmx` is the file as it is now, opened for reading; with keys by a caller who may write it. What
    /// was announced already is not announced again.
    fn config_changed(&self, config: &str, keys: Vec<String>, vmx: OwnedFd) -> Answer<'_, ()>;
}

/// A session that is connected to a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectedUser {
    /// Login name.
    pub name: String,
    /// Time of login, Unix seconds.
    pub time: i64,
    /// Numeric address, or `unix`.
    pub address: String,
    /// Whether it came by `CONNECT`.
    pub console: bool,
}

/// Why a request has no reply of its own.
#[derive(Debug)]
pub enum Failure {
    /// The caller reads this: the error itself, or what was malformed.
    Told(Fault),
    /// A fault inside the server. The caller reads `Internal error (request R)`, the log has the
    /// rest.
    Internal {
        /// What was attempted, for example `asking the core`.
        attempt: &'static str,
        /// What went wrong.
        cause: Box<dyn StdError + Send + Sync>,
    },
}

impl Failure {
    /// A fault inside the server.
    pub fn internal(attempt: &'static str, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Failure::Internal { attempt, cause: cause.into() }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Told(Fault::Refused(error))
    }
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Failure::Told(fault)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Told(fault) => fault.fmt(f),
            Failure::Internal { attempt, cause } => {
                write!(f, "{attempt}: {cause}")?;
                let mut source = cause.source();
                while let Some(cause) = source {
                    write!(f, ": {cause}")?;
                    source = cause.source();
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::running::{BUCKETS, OpFigures};
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// A core that answers from constants.
    #[derive(Default)]
    pub struct FixedCore {
        pub count: u64,
        pub vms: Vec<String>,
        pub script: Arc<Script>,
    }

    /// What a [`FixedCore`] knows of running machines; a test keeps it, changes it and looks into it.
    #[derive(Default)]
    pub struct Script {
        /// Machines that have a process.
        pub machines: Mutex<BTreeMap<String, Running>>,
        /// What the next requests to machines are answered; without any, `Done`.
        pub answers: Mutex<VecDeque<Result<Vec<FromVmx>, Error>>>,
        /// What machines were asked.
        pub asked: Mutex<Vec<(String, ToVmx)>>,
        /// What the next waits for events are answered.
        pub batches: Mutex<VecDeque<EventBatch>>,
        /// Changed .vmx files, with their keys.
        pub changed: Mutex<Vec<(String, Vec<String>)>>,
        /// What waits for events wanted.
        pub wanted: Mutex<Vec<Option<(u64, u64)>>>,
    }

    /// The status of a machine in that state.
    pub fn status(state: State) -> hypervisor::control::Status {
        hypervisor::control::Status {
            state,
            paused: false,
            uptime: 12,
            heartbeat: 3,
            tools_last_active: 1,
            memory_mb: 128,
            cpus: 2,
            has_snapshot: true,
            connected: vec!["floppy0".into()],
            question: None,
            class: hypervisor::control::HostClass::Emulated,
        }
    }

    impl Script {
        /// Adds a running machine.
        pub fn run(&self, config: &str, state: State) {
            let status = status(state);
            let running = Running {
                config: config.into(),
                id: 5,
                pid: 77,
                started: 1000,
                cpu_percent: 50,
                remote_connections: 1,
                ip: None,
                status,
            };
            self.machines.lock().unwrap().insert(config.into(), running);
        }

        /// What the next request to a machine is answered.
        pub fn answer(&self, answer: Result<Vec<FromVmx>, Error>) {
            self.answers.lock().unwrap().push_back(answer);
        }

        /// What machines were asked since the last call.
        pub fn asked(&self) -> Vec<ToVmx> {
            self.asked.lock().unwrap().drain(..).map(|(_, ask)| ask).collect()
        }
    }

    /// A context with one registered machine `a.vmx` in a directory of its own.
    pub struct Stage {
        pub ctx: Ctx,
        pub script: Arc<Script>,
        pub config: ops::value::ConfigPath,
        _directory: tempfile::TempDir,
    }

    impl Stage {
        pub fn new(vmx: &str) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("a.vmx");
            std::fs::write(&path, vmx).unwrap();
            let stage = Stage::of(directory, &path);
            stage.mode(0o700);
            stage
        }

        fn of(directory: tempfile::TempDir, path: &std::path::Path) -> Self {
            let config = path.to_str().unwrap().to_owned();
            let script = Arc::new(Script::default());
            let core =
                FixedCore { vms: vec![config.clone()], script: script.clone(), ..FixedCore::default() };
            let config = ops::value::ConfigPath::try_from(config).unwrap();
            Stage { ctx: ctx_below(directory.path(), core), script, config, _directory: directory }
        }

        /// Sets the rights on the .vmx.
        pub fn mode(&self, mode: u32) {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(self.config.as_str(), PermissionsExt::from_mode(mode)).unwrap();
        }

        /// The .vmx as it is now.
        pub fn text(&self) -> String {
            std::fs::read_to_string(self.config.as_str()).unwrap()
        }
    }

    /// The error that a caller reads.
    pub fn told<T>(result: Result<T, Failure>) -> Error {
        match result {
            Err(Failure::Told(fault)) => fault.into_error(),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("no error"),
        }
    }

    impl Core for FixedCore {
        fn request_count(&self) -> Answer<'_, u64> {
            Box::pin(async { Ok(self.count) })
        }
        fn connected_vms(&self) -> Answer<'_, Vec<String>> {
            Box::pin(async { Ok(self.vms.clone()) })
        }
        /// Runs the work at once; its failure shows as the failure to start it.
        fn start_task(&self, task: NewTask, work: Work) -> Answer<'_, u64> {
            // As in the session process: not on a thread of the runtime.
            let result = std::thread::spawn(move || work(&crate::tasks::Progress::new(task.total)));
            let result = result.join().unwrap();
            Box::pin(async { result.map(|()| 7).map_err(Failure::from) })
        }
        fn task(&self, task: u64) -> Answer<'_, Status> {
            Box::pin(async move { Err(Error::no_such_task(task).into()) })
        }
        fn stop_task(&self, task: u64) -> Answer<'_, Status> {
            self.task(task)
        }
        fn delete_task(&self, task: u64) -> Answer<'_, ()> {
            Box::pin(async move { Err(Error::no_such_task(task).into()) })
        }
        fn tasks(&self, _: bool) -> Answer<'_, Vec<Status>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn registered(&self) -> Answer<'_, Arc<Registered>> {
            let mut list = Registered::default();
            for vm in &self.vms {
                list.put(vm.clone(), false);
            }
            Box::pin(async { Ok(Arc::new(list)) })
        }
        fn register(&self, _: &str, _: bool, _: OwnedFd) -> Answer<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn unregister(&self, _: &str, _: bool, _: OwnedFd) -> Answer<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn used_by_others(&self, _: &str, _: Vec<(u64, u64)>) -> Answer<'_, HashSet<(u64, u64)>> {
            Box::pin(async { Ok(HashSet::new()) })
        }
        fn attach(&self, _: u64, _: &str, _: bool, _: OwnedFd) -> Answer<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn connected_users(&self, _: &str, _: OwnedFd) -> Answer<'_, Vec<ConnectedUser>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        /// As a gateway that has a certificate and does as it is told.
        fn security(&self, ask: link::security::Ask) -> Answer<'_, link::security::Answer> {
            use link::security::{Answer, Ask, Certificate};
            let now = |console, subject: &str, days: u32| Answer::Now {
                console,
                management: true,
                certificate: link::wire::Inner(Certificate::Facts {
                    file: "/fixed/rui.crt".into(),
                    subject: subject.into(),
                    issuer: subject.into(),
                    not_before: 0,
                    not_after: i64::from(days) * 86_400,
                    fingerprint: "00:11".into(),
                }),
            };
            let answer = match ask {
                Ask::Look {} => now(true, "CN=fixed", 1),
                Ask::Activate { console, .. } => now(console.unwrap_or(true), "CN=fixed", 1),
                Ask::CreateCertificate { overwrite: false, .. } => {
                    Answer::Failed { path: "/fixed/rui.crt".into(), errno: 17, text: String::new() }
                }
                Ask::CreateCertificate { common_name, days, .. } => {
                    now(true, &format!("CN={}", common_name.unwrap_or_default()), days)
                }
            };
            Box::pin(async { Ok(answer) })
        }
        fn settled(&self) -> Answer<'_, ()> {
            Box::pin(async { Ok(()) })
        }
        fn running(&self) -> Answer<'_, Arc<BTreeMap<String, Running>>> {
            let machines = self.script.machines.lock().unwrap().clone();
            Box::pin(async { Ok(Arc::new(machines)) })
        }
        /// As a core whose machines start at once.
        fn start_machine(&self, config: &str, _: OwnedFd) -> Answer<'_, State> {
            if self.script.machines.lock().unwrap().contains_key(config) {
                return Box::pin(async { Err(Error::state_conflict("start", "on").into()) });
            }
            self.script.run(config, State::On);
            Box::pin(async { Ok(State::On) })
        }
        fn ask_machine(&self, config: &str, _: OwnedFd, ask: ToVmx) -> Answer<'_, Vec<FromVmx>> {
            self.script.asked.lock().unwrap().push((config.into(), ask));
            let answer = self.script.answers.lock().unwrap().pop_front();
            let answer = answer.unwrap_or_else(|| Ok(vec![FromVmx::Done { request: 1 }]));
            Box::pin(async { Ok(answer?) })
        }
        fn wait_for_events(&self, wanted: Option<(u64, u64)>, _: Duration, _: u32) -> Answer<'_, EventBatch> {
            self.script.wanted.lock().unwrap().push(wanted);
            let batch = self.script.batches.lock().unwrap().pop_front();
            let none = EventBatch { epoch: 1, next: 1, lost: false, events: Vec::new() };
            Box::pin(async { Ok(batch.unwrap_or(none)) })
        }
        fn metrics(&self) -> Answer<'_, Metrics> {
            let figures = |op, failed, buckets: &[u64]| OpFigures {
                op,
                failed,
                buckets: buckets.iter().copied().chain([0; BUCKETS]).take(BUCKETS).collect(),
                micros: 1_500_000,
            };
            let ops = vec![
                figures(0, false, &[2, 0, 1]),
                figures(0, true, &[0, 1]),
                figures(u32::try_from(ops::TABLE.len()).unwrap(), true, &[4]),
            ];
            Box::pin(async { Ok(Metrics { ops, ..Metrics::default() }) })
        }
        /// May say so too early.
        fn readable(&self, descriptor: OwnedFd) -> Answer<'_, ()> {
            let wait = move || {
                let limit = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
                let flags = rustix::event::PollFlags::IN;
                let _ =
                    rustix::event::poll(&mut [rustix::event::PollFd::new(&descriptor, flags)], Some(&limit));
            };
            Box::pin(async move {
                tokio::task::spawn_blocking(wait).await.map_err(|error| Failure::internal("waiting", error))
            })
        }
        fn host(&self) -> Option<HostClass> {
            Some(HostClass::Emulated)
        }
        fn config_changed(&self, config: &str, keys: Vec<String>, _: OwnedFd) -> Answer<'_, ()> {
            self.script.changed.lock().unwrap().push((config.into(), keys));
            Box::pin(async { Ok(()) })
        }
    }

    /// The context of a user who really runs the test.
    pub fn ctx() -> Ctx {
        ctx_with(FixedCore { count: 41, ..FixedCore::default() })
    }

    pub fn ctx_with(core: FixedCore) -> Ctx {
        ctx_below(std::path::Path::new("/nowhere/to/be/found"), core)
    }

    /// With an instance's root of its own.
    pub fn ctx_below(root: &std::path::Path, core: FixedCore) -> Ctx {
        let user = User {
            name: "alice".into(),
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            groups: Vec::new(),
            home: "/home/alice".into(),
            admin: false,
        };
        let caller = Caller {
            user,
            product: Product::default(),
            product_number: 4,
            historic_bugs: false,
            layout: Layout::new(Some(root)).unwrap(),
            event_logs: root.join("var/log/vmware"),
            core: Arc::new(core),
        };
        Ctx::new(Arc::new(caller), 1)
    }

    #[test]
    fn an_internal_failure_names_its_whole_chain() {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("no answer")
            }
        }
        impl StdError for Outer {
            fn source(&self) -> Option<&(dyn StdError + 'static)> {
                Some(&self.0)
            }
        }
        let failure = Failure::internal("asking the core", Outer(std::io::Error::other("pipe broke")));
        assert_eq!(failure.to_string(), "asking the core: no answer: pipe broke");
    }
}
