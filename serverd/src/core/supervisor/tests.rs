//! A supervisor with one process that is played by the test.

use super::*;
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
    _events: mpsc::Receiver<Event>,
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
        };
        let mut supervisor = Supervisor::new(template, sender);
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
            handles: Handles { pid: 1, outbox, kill: Arc::clone(&kill) },
            counter: Counter::new().unwrap(),
            sent: sessions,
            on_the_way,
            live: 0,
            ration: Ration::new(Instant::now()),
            broken: false,
            channel_ended: false,
            exited: None,
        };
        supervisor.processes.insert(ID, process);
        supervisor.current.insert(key, ID);
        Stage { supervisor, admission, kill, process: Channel::from_fd(theirs).unwrap(), _events: events }
    }

    fn says(&mut self, message: ToCore) {
        self.supervisor.event(ID, ProcessEvent::Message(message), &mut self.admission);
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
        tls: false,
        login_time: 0,
    };
    let (socket, _) = UnixStream::pair().unwrap();
    Handover { identity, early: Vec::new(), socket: socket.into(), attempts: 1 }
}

#[tokio::test]
async fn an_orderly_life_is_not_disturbed() {
    let mut stage = Stage::new(2);
    stage.says(ToCore::Accepted { number: 1 });
    // A session is on its way: the process must stay.
    stage.says(ToCore::Idle { received: 1 });
    stage.says(ToCore::Accepted { number: 2 });
    stage.says(ToCore::RequestCount { question: 5 });
    stage.says(ToCore::ConnectedVms { question: 6 });
    stage.says(ToCore::Closed { count: 2 });
    assert!(!stage.killed().await);
    let next = async || stage.process.recv().await.unwrap().unwrap().0;
    assert_eq!(next().await, ToSession::RequestCount { question: 5, count: 0 });
    assert_eq!(next().await, ToSession::ConnectedVms { question: 6, vms: Vec::new(), more: false });
    stage.says(ToCore::Idle { received: 2 });
    assert_eq!(stage.process.recv().await.unwrap().unwrap().0, ToSession::Finish {});
    assert!(stage.supervisor.current.is_empty());
}

#[tokio::test]
async fn whatever_makes_no_sense_ends_the_process() {
    for (message, why) in [
        (ToCore::Accepted { number: 9 }, "a session of somebody else"),
        (ToCore::Closed { count: 0 }, "nothing"),
        (ToCore::Closed { count: 1 }, "more than there are"),
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
        stage.says(ToCore::RequestCount { question });
    }
    assert!(!stage.killed().await);
    // The test has not let the writing task run in between more often than the queue is long.
    for question in 0..10_000 {
        stage.says(ToCore::RequestCount { question });
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

#[test]
fn paths_are_cut_into_messages_and_the_last_is_marked() {
    assert_eq!(in_pieces(std::iter::empty()), [(Vec::new(), false)]);
    let long = "x".repeat(4000);
    let pieces = in_pieces((0..20).map(|_| long.as_str()));
    assert_eq!(pieces.iter().map(|(paths, _)| paths.len()).sum::<usize>(), 20);
    assert_eq!(pieces.iter().map(|(_, more)| *more).collect::<Vec<_>>(), [true, true, false]);
    assert!(pieces.iter().all(|(paths, _)| paths.len() <= PATHS_PER_MESSAGE / 4000));
}
