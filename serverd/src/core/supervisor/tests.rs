//! A supervisor with one process that is played by the test.

use super::*;
use crate::channel::{Answer, Ask, TaskEnd};
use crate::core::inventory::Inventory;
use crate::core::tasks::{Limits, Tasks};
use link::audit::Audit;
use link::settings::AuditLevel;
use link::wire::Inner;
use link::{Channel, Outbox, Proof};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

const ID: ProcessId = 7;

/// A supervisor with one process that is played by the test, and the test's end of its channel.
struct Stage {
    supervisor: Supervisor,
    admission: Admission,
    kill: Arc<Notify>,
    process: Channel<ToCore, ToSession>,
    events: mpsc::Receiver<Event>,
}

impl Stage {
    fn new(sessions: u64) -> Self {
        let (sender, events) = mpsc::channel(16);
        let template = Template {
            product: link::settings::Product::default(),
            idle: 60,
            historic_bugs: false,
            admin_group: None,
            level: crate::log::level_number(tracing::Level::INFO),
            root: "/nowhere".into(),
            event_logs: "/nowhere".into(),
            audit: 0,
        };
        let shared = Shared {
            inventory: Inventory::new().unwrap(),
            tasks: Tasks::new(Limits::default()),
            store: None,
        };
        let mut supervisor = Supervisor::new(template, shared, sender);
        let (ours, theirs) = link::channel::pair().unwrap();
        let outbox = Outbox::new(8);
        let kill = Arc::new(Notify::new());
        let channel: Channel<ToSession, ToCore> = Channel::from_fd(ours).unwrap();
        tokio::spawn(outbox.clone().run(Arc::new(channel)));
        let key = Key { uid: 1000, gid: 1000, groups: vec![1000] };
        let mut admission = Admission::new(100, 100, None);
        let mut on_the_way = BTreeMap::new();
        for number in 1..=sessions {
            admission.admit(number, 1000).unwrap();
            on_the_way.insert(number, handover());
        }
        let process = Process {
            key: key.clone(),
            name: "alice".into(),
            owner: Owner { uid: 1000, gid: 1000, groups: vec![1000], name: "alice".into(), home: "/".into() },
            admin: false,
            claims: Claims::default(),
            handles: Handles { pid: 1, outbox, kill: Arc::clone(&kill) },
            counter: Counter::new().unwrap(),
            sent: sessions,
            on_the_way,
            live: BTreeMap::new(),
            ration: Ration::new(Instant::now().into_std()),
            broken: false,
            channel_ended: false,
            exited: None,
        };
        supervisor.processes.insert(ID, process);
        supervisor.current.insert(key, ID);
        Stage { supervisor, admission, kill, process: Channel::from_fd(theirs).unwrap(), events }
    }

    fn says(&mut self, message: ToCore) {
        self.says_with(message, Vec::new());
    }

    fn says_with(&mut self, message: ToCore, fds: Vec<OwnedFd>) {
        self.supervisor.event(ID, ProcessEvent::Message(message, fds), &mut self.admission);
    }

    fn asks(&mut self, question: u64, ask: Ask) {
        self.says(ToCore::Ask { question, session: 0, ask: Inner(ask) });
    }

    /// The next answer.
    async fn answer(&self) -> (u64, Answer) {
        match self.process.recv().await.unwrap().unwrap().0 {
            ToSession::Answer { question, answer, more: false } => (question, answer.0),
            other => panic!("{other:?}"),
        }
    }

    /// Carries out what happens on other threads until there is an answer.
    async fn settle(&mut self) {
        match self.events.recv().await.unwrap() {
            Event::Proven { asker, ask, proven } => self.supervisor.proven(asker, ask, proven),
            other => panic!("{other:?}"),
        }
    }

    /// Whether the process was given up; it then gets no further session.
    async fn killed(&self) -> bool {
        let told = tokio::time::timeout(Duration::ZERO, self.kill.notified()).await.is_ok();
        assert_eq!(told, self.supervisor.current.is_empty());
        told
    }
}

fn handover() -> Handover {
    let identity = Identity {
        name: "alice".into(),
        uid: 1000,
        gid: 1000,
        groups: vec![1000],
        home: "/".into(),
        proof: Proof::Unix,
        peer: "unix".into(),
        origin: 1,
        tls: false,
        login_time: 0,
    };
    let (socket, _) = UnixStream::pair().unwrap();
    Handover { identity, early: Vec::new(), socket: socket.into(), machine: None, attempts: 1 }
}

#[tokio::test]
async fn an_orderly_life_is_not_disturbed() {
    let mut stage = Stage::new(2);
    stage.says(ToCore::Accepted { number: 1 });
    // A session is on its way: the process must stay.
    stage.says(ToCore::Idle { received: 1 });
    stage.says(ToCore::Accepted { number: 2 });
    stage.asks(5, Ask::RequestCount {});
    stage.asks(6, Ask::ConnectedVms {});
    stage.says(ToCore::Closed { numbers: vec![2, 1] });
    assert!(!stage.killed().await);
    assert_eq!(stage.answer().await, (5, Answer::Number { number: 0 }));
    assert_eq!(stage.answer().await, (6, Answer::Paths { paths: Vec::new() }));
    stage.says(ToCore::Idle { received: 2 });
    assert_eq!(stage.process.recv().await.unwrap().unwrap().0, ToSession::Finish {});
    assert!(stage.supervisor.current.is_empty());
}

#[tokio::test]
async fn whatever_makes_no_sense_ends_the_process() {
    for (message, why) in [
        (ToCore::Accepted { number: 9 }, "a session of somebody else"),
        (ToCore::Closed { numbers: Vec::new() }, "nothing"),
        (ToCore::Closed { numbers: vec![1] }, "a session that it has not accepted"),
        (ToCore::Progress { task: 1, done: 0, total: 0 }, "a task of nobody"),
        (ToCore::TaskEnded { task: 1, end: TaskEnd::Done, done: 0, total: 0 }, "a task of nobody"),
        (ToCore::Cleaned { task: 1, left: String::new() }, "nobody told it to clean"),
        (ask(Ask::Register { config: "/a.vmx".into(), private: false }), "without the descriptor"),
        (
            ask(Ask::Attach { session: 9, config: "/a.vmx".into(), console: false }),
            "a session of somebody else",
        ),
        (
            ask(Ask::BeginTask { op: "x".into(), total: 1, directory: "/d".into(), prefix: "../x".into() }),
            "a prefix that leaves the directory",
        ),
        (ToCore::Log { level: 4, text: String::new() }, "more than it was asked to log"),
    ] {
        let mut stage = Stage::new(1);
        stage.says(message);
        assert!(stage.killed().await, "{why}");
    }
}

#[tokio::test]
async fn a_process_that_asks_and_does_not_listen_is_ended() {
    let mut stage = Stage::new(0);
    for question in 0..8 {
        stage.asks(question, Ask::RequestCount {});
    }
    assert!(!stage.killed().await);
    // The test has not let the writing task run in between more often than the queue is long.
    for question in 0..10_000 {
        stage.asks(question, Ask::RequestCount {});
    }
    assert!(stage.killed().await);
}

#[tokio::test]
async fn a_process_is_buried_only_after_its_last_words() {
    let mut stage = Stage::new(2);
    stage.supervisor.event(ID, ProcessEvent::Exited("signal: 9".into()), &mut stage.admission);
    assert!(!stage.supervisor.is_empty());
    stage.says(ToCore::Accepted { number: 1 });
    // It breaks the rules even now: what was on its way is closed with it.
    stage.says(ToCore::Accepted { number: 1 });
    stage.supervisor.event(ID, ProcessEvent::ChannelEnded(Ok(())), &mut stage.admission);
    assert!(stage.supervisor.is_empty());
    // All places are free again.
    for session in 0..100 {
        stage.admission.admit(session, 1000).unwrap();
    }
}

fn ask(ask: Ask) -> ToCore {
    ToCore::Ask { question: 1, session: 0, ask: Inner(ask) }
}

/// A .vmx that uid 1000 could have opened for reading and writing.
fn vmx() -> (tempfile::TempDir, String, impl Fn() -> OwnedFd) {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vmx");
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let config = path.to_str().unwrap().to_owned();
    let open = move || std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap().into();
    (directory, config, open)
}

#[tokio::test]
async fn a_machine_is_registered_once_and_seen_by_everybody() {
    let mut stage = Stage::new(1);
    stage.says(ToCore::Accepted { number: 1 });
    let (_directory, config, open) = vmx();
    let register = |question| ToCore::Ask {
        question,
        session: 0,
        ask: Inner(Ask::Register { config: config.clone(), private: false }),
    };
    // Two at the same time: one wins.
    stage.says_with(register(1), vec![open()]);
    stage.says_with(register(2), vec![open()]);
    stage.settle().await;
    stage.settle().await;
    assert_eq!(stage.answer().await, (1, Answer::Done {}));
    let (_, Answer::Refused { code: -20, .. }) = stage.answer().await else { panic!() };
    stage.says_with(register(3), vec![open()]);
    let (3, Answer::Refused { code: -20, .. }) = stage.answer().await else { panic!() };
    stage.asks(4, Ask::Inventory { known: 0 });
    let (4, Answer::Inventory { anew: true, changes, .. }) = stage.answer().await else { panic!() };
    assert_eq!(changes.iter().map(|change| &change.config).collect::<Vec<_>>(), [&config]);

    // Connected until the session ends.
    let attach = Ask::Attach { session: 1, config: config.clone(), console: false };
    stage.says_with(ToCore::Ask { question: 5, session: 0, ask: Inner(attach) }, vec![open()]);
    stage.settle().await;
    assert_eq!(stage.answer().await, (5, Answer::Done {}));
    let who =
        |question| ToCore::Ask { question, session: 0, ask: Inner(Ask::Who { config: config.clone() }) };
    stage.says_with(who(6), vec![open()]);
    stage.settle().await;
    let (6, Answer::Users { users }) = stage.answer().await else { panic!() };
    assert_eq!((users[0].name.as_str(), users[0].address.as_str()), ("alice", "unix"));
    stage.says(ToCore::Closed { numbers: vec![1] });
    stage.says_with(who(7), vec![open()]);
    stage.settle().await;
    assert_eq!(stage.answer().await, (7, Answer::Users { users: Vec::new() }));

    let unregister = ToCore::Ask {
        question: 8,
        session: 0,
        ask: Inner(Ask::Unregister { config: config.clone(), idle: true }),
    };
    stage.says_with(unregister, vec![open()]);
    stage.settle().await;
    assert_eq!(stage.answer().await, (8, Answer::Done {}));
    assert!(stage.supervisor.shared.inventory.is_empty());
    assert!(!stage.killed().await);
}

#[tokio::test]
async fn a_descriptor_of_another_file_proves_nothing() {
    let mut stage = Stage::new(0);
    let (_directory, config, open) = vmx();
    let (_other, _, other) = vmx();
    let register = |question| ToCore::Ask {
        question,
        session: 0,
        ask: Inner(Ask::Register { config: config.clone(), private: false }),
    };
    stage.says_with(register(1), vec![other()]);
    stage.settle().await;
    let (1, Answer::Refused { code: -11, .. }) = stage.answer().await else { panic!() };
    let read_only: OwnedFd = std::fs::File::open(&config).unwrap().into();
    stage.says_with(register(2), vec![read_only]);
    stage.settle().await;
    let (2, Answer::Refused { code: -4, .. }) = stage.answer().await else { panic!() };
    drop(open);
}

#[tokio::test]
async fn tasks_keep_the_process_and_die_with_it() {
    let mut stage = Stage::new(0);
    let begin = |partial: &str| Ask::BeginTask {
        op: "X".into(),
        total: 9,
        directory: partial.into(),
        prefix: ".p-".into(),
    };
    stage.asks(1, begin(""));
    assert_eq!(stage.answer().await, (1, Answer::Number { number: 1 }));
    stage.says(ToCore::Idle { received: 0 });
    assert_eq!(stage.supervisor.current.len(), 1, "it has work to do");
    stage.says(ToCore::Progress { task: 1, done: 3, total: 9 });
    // Whoever stops it waits for the end.
    stage.asks(2, Ask::StopTask { task: 1 });
    assert_eq!(stage.process.recv().await.unwrap().unwrap().0, ToSession::StopTask { task: 1 });
    stage.says(ToCore::TaskEnded { task: 1, end: TaskEnd::Stopped, done: 3, total: 9 });
    let (2, Answer::Tasks { tasks }) = stage.answer().await else { panic!() };
    assert_eq!((tasks[0].state.clone(), tasks[0].done), (TaskEnd::Stopped, 3));

    stage.asks(3, begin(""));
    assert_eq!(stage.answer().await, (3, Answer::Number { number: 2 }));
    stage.supervisor.event(ID, ProcessEvent::Exited("signal: 9".into()), &mut stage.admission);
    stage.supervisor.event(ID, ProcessEvent::ChannelEnded(Ok(())), &mut stage.admission);
    let failed = TaskEnd::Failed { code: -999, text: "interrupted".into() };
    assert_eq!(stage.supervisor.shared.tasks.status(1000, false, 2).unwrap().state, failed);
}

/// The gateway, played by the test.
fn gateway()
-> (Outbox<::link::gateway::ToAuthd>, Channel<::link::gateway::ToServerd, ::link::gateway::ToAuthd>) {
    let (ours, theirs) = link::channel::pair().unwrap();
    let outbox = Outbox::new(8);
    let channel: Channel<::link::gateway::ToAuthd, ::link::gateway::ToServerd> =
        Channel::from_fd(ours).unwrap();
    tokio::spawn(outbox.clone().run(Arc::new(channel)));
    (outbox, Channel::from_fd(theirs).unwrap())
}

fn look() -> Ask {
    Ask::Security { ask: Inner(link::security::Ask::Look {}) }
}

#[tokio::test]
async fn only_a_process_of_an_administrator_reaches_the_gateway() {
    let mut stage = Stage::new(0);
    let (outbox, _gateway) = gateway();
    stage.supervisor.linked(outbox);
    stage.asks(1, look());
    assert!(stage.killed().await);
}

#[tokio::test]
async fn the_gateways_answer_finds_whoever_asked() {
    let mut stage = Stage::new(0);
    stage.supervisor.processes.get_mut(&ID).unwrap().admin = true;
    let refused = |answer: Answer| match answer {
        Answer::Refused { code: -22, text } => text,
        other => panic!("{other:?}"),
    };
    stage.asks(1, look());
    let (question, answer) = stage.answer().await;
    assert_eq!(question, 1);
    assert!(refused(answer).contains("not connected"));

    let (outbox, gateway) = gateway();
    stage.supervisor.linked(outbox);
    stage.asks(7, look());
    let (asked, _) = gateway.recv().await.unwrap().unwrap();
    let ::link::gateway::ToAuthd::Security { question, .. } = asked else { panic!("{asked:?}") };
    let failed = link::security::Answer::Failed { path: "/x".into(), errno: 2, text: String::new() };
    stage.supervisor.gateway_answered(question + 1, failed.clone());
    stage.supervisor.gateway_answered(question, failed.clone());
    assert_eq!(stage.answer().await, (7, Answer::Security { answer: Inner(failed) }));

    stage.asks(8, look());
    stage.supervisor.unlinked();
    let (question, answer) = stage.answer().await;
    assert_eq!(question, 8);
    assert!(refused(answer).contains("went away"));
}

/// The same, and the supervisor knows of it.
fn linked_gateway(stage: &mut Stage) -> Channel<link::gateway::ToServerd, link::gateway::ToAuthd> {
    let (outbox, channel) = gateway();
    stage.supervisor.linked(outbox);
    channel
}

#[tokio::test]
async fn a_connection_to_a_machine_is_what_its_own_process_says() {
    use link::gateway::{Declined, ToAuthd};
    let mut stage = Stage::new(0);
    let gateway = linked_gateway(&mut stage);
    let identity = handover().identity;
    let config = || "/a.vmx".to_owned();
    for (session, declined, answer) in [
        (1, None, ToAuthd::Accept { session: 1 }),
        (2, Some(Declined::Denied), ToAuthd::Decline { session: 2, why: Declined::Denied }),
    ] {
        stage.admission.reserve(session, 1000, Instant::now()).unwrap();
        stage.supervisor.connect(session, &identity, config(), false, &mut stage.admission);
        let number = match stage.process.recv().await.unwrap().unwrap().0 {
            ToSession::Connect { number, config, console: false, .. } if config == "/a.vmx" => number,
            other => panic!("{other:?}"),
        };
        // An answer to another question is no answer, and it may not leave meanwhile.
        stage.says(ToCore::Connectable { number: number + 7, declined: None });
        stage.says(ToCore::Idle { received: 0 });
        stage.says(ToCore::Connectable { number, declined });
        assert_eq!(gateway.recv().await.unwrap().unwrap().0, answer);
        assert!(!stage.killed().await);
    }
    assert_eq!(stage.supervisor.connected(1).as_deref(), Some("/a.vmx"));
    assert_eq!((stage.supervisor.connected(1), stage.supervisor.connected(2)), (None, None));
    // A process that dies while it looks: the gateway is told at once, and the place is free again.
    stage.admission.reserve(3, 1000, Instant::now()).unwrap();
    stage.supervisor.connect(3, &identity, config(), false, &mut stage.admission);
    let Stage { supervisor, admission, .. } = &mut stage;
    supervisor.event(ID, ProcessEvent::ChannelEnded(Ok(())), admission);
    supervisor.event(ID, ProcessEvent::Exited("killed".into()), admission);
    match gateway.recv().await.unwrap().unwrap().0 {
        ToAuthd::Refuse { session: 3, .. } => {}
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_a_process_claims_is_recorded_as_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let mut stage = Stage::new(1);
    stage.supervisor.audit = Audit::start(&path, AuditLevel::Changes, "test").unwrap();
    stage.says(ToCore::Accepted { number: 1 });
    let did = |session: u64, op: u32, code: i32, machine: &str| ToCore::Did {
        session,
        request: 1,
        op,
        code,
        machine: Some(machine.into()),
        paths: vec!["x".repeat(100_000); 500],
    };
    let index = |name: &str| ops::TABLE.iter().position(|row| row.name == name).unwrap() as u32;
    stage.says(did(1, index("VM_Start"), 0, "/a.vmx"));
    // A session of somebody else, no operation at all, an error that there is not: his own all the same.
    stage.says(did(77, u32::MAX, i32::MIN, "/b\",\"uid\":0,\"x\":\"\n{}"));
    // A reading operation is nothing that anybody wants to know at this level, unless it was refused.
    stage.says(did(1, index("inc"), 0, "/c.vmx"));
    stage.says(did(1, index("VM_List"), -4, "/d.vmx"));
    stage.supervisor.audit = Audit::off();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [begin, first, second, third] = lines.as_slice() else { panic!("{text}") };
    assert_eq!((&begin["event"], &begin["source"]), (&"session-begin".into(), &"unix:1".into()));
    for line in &lines {
        assert_eq!((&line["uid"], &line["user"]), (&1000.into(), &"alice".into()), "{line}");
    }
    assert_eq!(
        (&first["operation"], &first["session"], &first["machine"]),
        (&"VM_Start".into(), &1.into(), &"/a.vmx".into())
    );
    assert_eq!((first["paths"].as_array().unwrap().len(), &first["claimed"]), (4, &true.into()));
    assert!(text.lines().all(|line| line.len() < 8000));
    assert_eq!(
        (&second["operation"], second.get("session"), &second["outcome"]),
        (&"none".into(), None, &"failed".into())
    );
    assert_eq!((&third["operation"], &third["outcome"]), (&"VM_List".into(), &"refused".into()));
    assert!(!stage.killed().await);
}

#[tokio::test]
async fn what_is_done_for_a_process_that_has_gone_stands_under_its_user() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("audit.log");
    let mut stage = Stage::new(1);
    stage.supervisor.audit = Audit::start(&path, AuditLevel::Changes, "test").unwrap();
    stage.says(ToCore::Accepted { number: 1 });
    let (_directory, config, open) = vmx();
    let register = Inner(Ask::Register { config: config.clone(), private: false });
    stage.says_with(ToCore::Ask { question: 1, session: 1, ask: register }, vec![open()]);
    // It is gone before the right has been looked at.
    let Stage { supervisor, admission, .. } = &mut stage;
    supervisor.event(ID, ProcessEvent::ChannelEnded(Ok(())), admission);
    supervisor.event(ID, ProcessEvent::Exited("killed".into()), admission);
    stage.settle().await;
    assert!(!stage.supervisor.shared.inventory.is_empty());
    stage.supervisor.audit = Audit::off();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let registered = lines.iter().find(|line| line["event"] == "register").unwrap();
    assert_eq!((&registered["uid"], &registered["user"]), (&1000.into(), &"alice".into()), "{registered}");
    assert_eq!(
        (&registered["session"], &registered["source"]),
        (&1.into(), &"unix:1".into()),
        "{registered}"
    );
}

#[tokio::test]
async fn a_machine_that_is_being_unregistered_is_not_started() {
    let mut stage = Stage::new(0);
    let (_directory, config, open) = vmx();
    stage.supervisor.shared.inventory.put(&config, false);
    assert!(stage.supervisor.under_way.begin_change(&config));
    let start = Inner(Ask::StartMachine { config });
    stage.says_with(ToCore::Ask { question: 1, session: 0, ask: start }, vec![open()]);
    stage.settle().await;
    let (1, Answer::Refused { code: -21, .. }) = stage.answer().await else { panic!() };
}
