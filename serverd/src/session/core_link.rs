//! Asking the core on behalf of handlers.
//!
//! A question gets a number; whoever asked waits for the answer with that number, which may come in
//! pieces. When the core is gone, everybody who waits is told. What goes over the channel is
//! [`crate::channel`]'s; what handlers see is [`handlers::Core`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::future::Future;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handlers::registered::Registered;
use handlers::running::{EventBatch, Metrics, Running};
use handlers::tasks::{NewTask, State, Status, Work};
use handlers::{Answer as Later, ConnectedUser, Core, Failure};
use hypervisor::control::{self, FromVmx, HostClass, ToVmx};
use link::Outbox;
use link::wire::Inner;
use ops::{Error, ErrorCode};
use tokio::io::Interest;
use tokio::sync::oneshot;

use super::inventory::Copy;
use super::tasks::Tasks;
use crate::channel::{Answer, Ask, TaskEnd, TaskFacts, ToCore};

/// What a caller reads when the core died before it answered: nobody knows whether it has done what
/// was asked.
fn gone() -> Failure {
    let text = "The server ended while it worked on this request: see whether it was done, and ask again";
    Error::unspecified(text).into()
}

/// What a handler's log has when the core answered something else.
#[derive(Debug, thiserror::Error)]
#[error("the core answered {0}")]
struct Beside(&'static str);

/// The session process's way to the core.
#[derive(Debug)]
pub struct CoreLink {
    outbox: Outbox<ToCore>,
    waiting: Mutex<Waiting>,
    inventory: Copy,
    /// How many machines have a process.
    running: &'static AtomicU64,
    /// Number of the kind of host.
    host: &'static AtomicU64,
    tasks: Arc<Tasks>,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiting {
    gone: bool,
    next: u64,
    askers: HashMap<u64, Asker>,
}

/// Somebody who waits, with the pieces of his answer that have arrived.
struct Asker {
    pieces: Vec<Answer>,
    to: oneshot::Sender<Vec<Answer>>,
    /// Work that starts as soon as the core has given it a number, whether or not whoever asked for
    /// it is still there.
    work: Option<(u64, Work)>,
}

impl std::fmt::Debug for Asker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asker").field("pieces", &self.pieces).finish_non_exhaustive()
    }
}

impl CoreLink {
    /// Asks through `outbox`; answers must be given to [`CoreLink::answer`]. `news` is the page in
    /// which the core publishes the version of the inventory, the number of running machines, and the kind
    /// of host.
    #[must_use]
    pub fn new(outbox: Outbox<ToCore>, news: [&'static AtomicU64; 3]) -> Self {
        let [version, running, host] = news;
        let inventory = Copy::new(version);
        CoreLink { outbox, waiting: Mutex::default(), inventory, running, host, tasks: Arc::default() }
    }

    /// The tasks that were started through this link.
    #[must_use]
    pub fn tasks(&self) -> Arc<Tasks> {
        Arc::clone(&self.tasks)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an answer to whoever waits for it.
    pub fn answer(&self, question: u64, answer: Answer, more: bool) {
        let mut waiting = self.lock();
        if more {
            if let Some(asker) = waiting.askers.get_mut(&question) {
                asker.pieces.push(answer);
            }
            return;
        }
        let Some(mut asker) = waiting.askers.remove(&question) else { return };
        drop(waiting);
        if let (Answer::Number { number }, Some((total, work))) = (&answer, asker.work) {
            // Now, and not when the asker wakes: a message that stops it may be the next.
            self.tasks.start(*number, total, work);
        }
        asker.pieces.push(answer);
        // Somebody who no longer waits has closed the connection; the answer is then for nobody.
        let _ = asker.to.send(asker.pieces);
    }

    /// Tells the core something that it has asked for.
    pub fn tell(&self, message: ToCore) {
        // A core that takes no message has gone, which shows elsewhere.
        let _ = self.outbox.push(message, Vec::new());
    }

    /// The core is gone: nobody will be answered any more.
    pub fn gone(&self) {
        let mut waiting = self.lock();
        waiting.gone = true;
        waiting.askers.clear();
    }

    /// Sends a question; the answer is what the future yields. An error that the core has for the
    /// caller is a failure.
    fn ask(
        &self,
        ask: Ask,
        fds: Vec<OwnedFd>,
        work: Option<(u64, Work)>,
    ) -> impl Future<Output = Result<Vec<Answer>, Failure>> + Send + use<> {
        let asked = self.send(ask, fds, work);
        async move {
            let pieces = asked?.await.map_err(|_| gone())?;
            match pieces.first() {
                Some(Answer::Refused { code, text }) => {
                    let code = ErrorCode::from_number(*code).unwrap_or(ErrorCode::Unspecified);
                    Err(Error { text: text.clone(), ..Error::new(code) }.into())
                }
                _ => Ok(pieces),
            }
        }
    }

    fn send(
        &self,
        ask: Ask,
        fds: Vec<OwnedFd>,
        work: Option<(u64, Work)>,
    ) -> Result<oneshot::Receiver<Vec<Answer>>, Failure> {
        let (to, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.gone {
            return Err(gone());
        }
        waiting.next += 1;
        let question = waiting.next;
        waiting.askers.insert(question, Asker { pieces: Vec::new(), to, work });
        let session = handlers::current_session();
        let sent = self.outbox.push(ToCore::Ask { question, session, ask: Inner(ask) }, fds);
        // A core that has just died takes no message before the end of the channel is seen.
        sent.map_err(|_| gone())?;
        Ok(receiver)
    }

    /// Asks for something of which the answer says only that it is done.
    fn order(&self, ask: Ask, fds: Vec<OwnedFd>) -> Later<'_, ()> {
        let asked = self.ask(ask, fds, None);
        Box::pin(async move { asked.await.map(drop) })
    }

    fn one_task(&self, ask: Ask) -> Later<'_, Status> {
        let asked = self.ask(ask, Vec::new(), None);
        Box::pin(async move {
            match asked.await?.pop() {
                Some(Answer::Tasks { mut tasks }) if tasks.len() == 1 => match tasks.pop() {
                    Some(facts) => Ok(status(facts)),
                    None => Err(beside("no task")),
                },
                _ => Err(beside("something else than a task")),
            }
        })
    }
}

fn beside(what: &'static str) -> Failure {
    Failure::internal("asking the core", Beside(what))
}

fn status(facts: TaskFacts) -> Status {
    let TaskFacts { id, op, user, state, done, total, start, end, seconds } = facts;
    let (state, error) = match state {
        TaskEnd::Running => (State::Running, None),
        TaskEnd::Done => (State::Done, None),
        TaskEnd::Stopped => (State::Stopped, None),
        TaskEnd::Failed { code, text } => (State::Failed, Some((code, text))),
    };
    Status { id, op, user, state, done, total, start, end: (end > 0).then_some(end), seconds, error }
}

impl Core for CoreLink {
    fn request_count(&self) -> Later<'_, u64> {
        let asked = self.ask(Ask::RequestCount {}, Vec::new(), None);
        Box::pin(async move {
            match asked.await?.pop() {
                Some(Answer::Number { number }) => Ok(number),
                _ => Err(beside("no number")),
            }
        })
    }

    fn settled(&self) -> Later<'_, ()> {
        self.order(Ask::Settled {}, Vec::new())
    }

    fn connected_vms(&self) -> Later<'_, Vec<String>> {
        let asked = self.ask(Ask::ConnectedVms {}, Vec::new(), None);
        Box::pin(async move {
            let paths = |piece| match piece {
                Answer::Paths { paths } => paths,
                _ => Vec::new(),
            };
            Ok(asked.await?.into_iter().flat_map(paths).collect())
        })
    }

    fn start_task(&self, task: NewTask, work: Work) -> Later<'_, u64> {
        let NewTask { op, total, partial } = task;
        let (directory, prefix) = partial.map(|left| (left.directory, left.prefix)).unwrap_or_default();
        let ask = Ask::BeginTask { op: op.to_owned(), total, directory, prefix };
        let asked = self.ask(ask, Vec::new(), Some((total, work)));
        Box::pin(async move {
            match asked.await?.pop() {
                Some(Answer::Number { number }) => Ok(number),
                _ => Err(beside("no number")),
            }
        })
    }

    fn task(&self, task: u64) -> Later<'_, Status> {
        self.one_task(Ask::TaskStatus { task })
    }

    fn stop_task(&self, task: u64) -> Later<'_, Status> {
        self.one_task(Ask::StopTask { task })
    }

    fn delete_task(&self, task: u64) -> Later<'_, ()> {
        self.order(Ask::DeleteTask { task }, Vec::new())
    }

    fn tasks(&self, all: bool) -> Later<'_, Vec<Status>> {
        let asked = self.ask(Ask::ListTasks { all }, Vec::new(), None);
        Box::pin(async move {
            let tasks = |piece| match piece {
                Answer::Tasks { tasks } => tasks,
                _ => Vec::new(),
            };
            Ok(asked.await?.into_iter().flat_map(tasks).map(status).collect())
        })
    }

    fn security(&self, ask: link::security::Ask) -> Later<'_, link::security::Answer> {
        let asked = self.ask(Ask::Security { ask: Inner(ask) }, Vec::new(), None);
        Box::pin(async move {
            match asked.await?.pop() {
                Some(Answer::Security { answer }) => Ok(answer.0),
                _ => Err(beside("no word of the gateway's")),
            }
        })
    }

    fn registered(&self) -> Later<'_, Arc<Registered>> {
        Box::pin(async move {
            if let Some(list) = self.inventory.current() {
                return Ok(list);
            }
            let _asking = self.inventory.asking.lock().await;
            // Whoever was faster has perhaps asked for all of us.
            if let Some(list) = self.inventory.current() {
                return Ok(list);
            }
            let known = self.inventory.version();
            let pieces = self.ask(Ask::Inventory { known }, Vec::new(), None).await?;
            Ok(self.inventory.update(pieces))
        })
    }

    fn register(&self, config: &str, private: bool, vmx: OwnedFd) -> Later<'_, ()> {
        self.order(Ask::Register { config: config.to_owned(), private }, vec![vmx])
    }

    fn unregister(&self, config: &str, idle: bool, proof: OwnedFd) -> Later<'_, ()> {
        self.order(Ask::Unregister { config: config.to_owned(), idle }, vec![proof])
    }

    fn used_by_others(&self, config: &str, files: Vec<(u64, u64)>) -> Later<'_, HashSet<(u64, u64)>> {
        let files = files.into_iter().flat_map(|(device, inode)| [device, inode]).collect();
        let asked = self.ask(Ask::UsedByOthers { config: config.to_owned(), files }, Vec::new(), None);
        Box::pin(async move {
            match asked.await?.pop() {
                Some(Answer::Files { files }) => {
                    Ok(files.as_chunks::<2>().0.iter().map(|[device, inode]| (*device, *inode)).collect())
                }
                _ => Err(beside("no files")),
            }
        })
    }

    fn attach(&self, session: u64, config: &str, console: bool, vmx: OwnedFd) -> Later<'_, ()> {
        self.order(Ask::Attach { session, config: config.to_owned(), console }, vec![vmx])
    }

    fn connected_users(&self, config: &str, vmx: OwnedFd) -> Later<'_, Vec<ConnectedUser>> {
        let asked = self.ask(Ask::Who { config: config.to_owned() }, vec![vmx], None);
        Box::pin(async move {
            let users = |piece| match piece {
                Answer::Users { users } => users,
                _ => Vec::new(),
            };
            let user = |facts: crate::channel::SessionFacts| ConnectedUser {
                name: facts.name,
                time: facts.time,
                address: facts.address,
                console: facts.console,
            };
            Ok(asked.await?.into_iter().flat_map(users).map(user).collect())
        })
    }

    fn running(&self) -> Later<'_, Arc<BTreeMap<String, Running>>> {
        if self.running.load(Ordering::Acquire) == 0 {
            return Box::pin(async { Ok(Arc::default()) });
        }
        let asked = self.ask(Ask::Running {}, Vec::new(), None);
        Box::pin(async move {
            let machines = |piece| match piece {
                Answer::Running { machines } => machines,
                _ => Vec::new(),
            };
            let machines = asked.await?.into_iter().flat_map(machines);
            Ok(Arc::new(machines.map(|machine| (machine.config.clone(), machine)).collect()))
        })
    }

    fn start_machine(&self, config: &str, vmx: OwnedFd) -> Later<'_, control::State> {
        let asked = self.ask(Ask::StartMachine { config: config.to_owned() }, vec![vmx], None);
        Box::pin(async move {
            match asked.await?.pop() {
                Some(Answer::State { state }) => Ok(state),
                _ => Err(beside("no state")),
            }
        })
    }

    fn ask_machine(&self, config: &str, vmx: OwnedFd, ask: ToVmx) -> Later<'_, Vec<FromVmx>> {
        let ask = Ask::AskMachine { config: config.to_owned(), ask: Inner(ask) };
        let asked = self.ask(ask, vec![vmx], None);
        Box::pin(async move {
            let message = |piece| match piece {
                Answer::Machine { message } => Some(message.0),
                _ => None,
            };
            Ok(asked.await?.into_iter().filter_map(message).collect())
        })
    }

    fn wait_for_events(
        &self,
        wanted: Option<(u64, u64)>,
        timeout: Duration,
        max: u32,
    ) -> Later<'_, EventBatch> {
        let timeout = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
        let (epoch, since) = (wanted.map(|wanted| wanted.0), wanted.map_or(0, |wanted| wanted.1));
        let asked = self.ask(Ask::WaitForEvents { epoch, since, timeout, max }, Vec::new(), None);
        Box::pin(async move {
            let mut batch: Option<EventBatch> = None;
            for piece in asked.await? {
                let Answer::Events { epoch, next, lost, events } = piece else {
                    return Err(beside("no events"));
                };
                match &mut batch {
                    Some(batch) => batch.events.extend(events),
                    None => batch = Some(EventBatch { epoch, next, lost, events }),
                }
            }
            batch.ok_or_else(|| beside("nothing"))
        })
    }

    fn metrics(&self) -> Later<'_, Metrics> {
        let asked = self.ask(Ask::Metrics {}, Vec::new(), None);
        Box::pin(async move {
            match asked.await?.pop() {
                Some(Answer::Metrics { metrics }) => Ok(metrics),
                _ => Err(beside("no numbers")),
            }
        })
    }

    fn readable(&self, descriptor: OwnedFd) -> Later<'_, ()> {
        Box::pin(async move {
            let wait =
                async { link::reactor::register(descriptor, Interest::READABLE)?.readable().await.map(drop) };
            wait.await.map_err(|error| Failure::internal("waiting for a descriptor", error))
        })
    }

    fn host(&self) -> Option<HostClass> {
        crate::channel::published_host(self.host.load(Ordering::Acquire))
    }

    fn config_changed(&self, config: &str, keys: Vec<String>, vmx: OwnedFd) -> Later<'_, ()> {
        self.order(Ask::ConfigChanged { config: config.to_owned(), keys }, vec![vmx])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link() -> CoreLink {
        CoreLink::new(Outbox::new(8), [1, 0, 0].map(|number| &*Box::leak(Box::new(AtomicU64::new(number)))))
    }

    #[tokio::test]
    async fn every_question_gets_its_own_answer() {
        let link = link();
        let (first, second, list) = (link.request_count(), link.request_count(), link.connected_vms());
        link.answer(2, Answer::Number { number: 22 }, false);
        link.answer(1, Answer::Number { number: 11 }, false);
        link.answer(9, Answer::Number { number: 99 }, false);
        link.answer(3, Answer::Paths { paths: vec!["/a".into()] }, true);
        link.answer(3, Answer::Paths { paths: vec!["/b".into()] }, false);
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (11, 22));
        assert_eq!(list.await.unwrap(), ["/a", "/b"]);
    }

    #[tokio::test]
    async fn a_refusal_is_what_the_caller_reads() {
        let link = link();
        let asked = link.delete_task(3);
        link.answer(1, Answer::Refused { code: -999, text: "No such task: 3".into() }, false);
        assert_eq!(asked.await.unwrap_err().to_string(), "No such task: 3 (-999)");
    }

    #[tokio::test]
    async fn without_a_core_every_question_fails() {
        let link = link();
        let before = link.request_count();
        link.gone();
        assert!(before.await.unwrap_err().to_string().starts_with("The server ended while"));
        assert!(link.connected_vms().await.is_err());
    }

    #[tokio::test]
    async fn work_starts_when_it_has_a_number_even_if_nobody_waits() {
        let link = link();
        let (sender, ran) = oneshot::channel();
        let work: Work = Box::new(move |progress| {
            progress.add(1);
            sender.send(progress.total()).map_err(|_| Error::new(ErrorCode::Unspecified))
        });
        drop(link.start_task(NewTask { op: "X", total: 5, partial: None }, work));
        link.answer(1, Answer::Number { number: 4 }, false);
        assert_eq!(ran.await.unwrap(), 5);
    }

    #[tokio::test]
    async fn the_list_of_machines_is_asked_for_once() {
        let link = link();
        let asked = async { link.registered().await.unwrap().len() };
        let answer = async {
            tokio::task::yield_now().await;
            let changes = vec![crate::channel::Change { config: "/a".into(), there: true, private: false }];
            link.answer(1, Answer::Inventory { version: 1, anew: true, changes }, false);
        };
        let (first, second, ()) =
            tokio::join!(asked, async { link.registered().await.unwrap().len() }, answer);
        assert_eq!((first, second), (1, 1));
        assert_eq!(link.registered().await.unwrap().len(), 1);
        assert_eq!(link.lock().next, 1);
    }
}
