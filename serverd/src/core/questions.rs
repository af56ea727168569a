//! Answering what handlers ask through their session process.
//!
//! Answers that need the disk come in three steps, none of which holds up the core: the right is
//! proven on a thread ([`super::proof`]), the change is written by another ([`super::store`]), and
//! then the process is told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use ::link::audit::{Kind, Outcome, Record};
use ::link::vm_list;
use ::link::wire::{Inner, Message};
use handlers::running::Happened;
use hypervisor::control::Begin;
use hypervisor::event_log::{Event, EventKind, LogRights};
use ops::{Error, ErrorCode};
use rustix::io::Errno;

use super::auditing::{By, outcome_of};
use super::connect;
use super::inventory::Inventory;
use super::journal::Partial;
use super::machines::launch::Launch;
use super::machines::requests;
use super::processes::ProcessId;
use super::proof::{self, Claimant, FileState, Need, Proven};
use super::store::{Failed, List, Note, Results, Store, Work};
use super::supervisor::Supervisor;
use super::tasks::{Orphan, Tasks};
use super::{Event as Happening, tasks};
use crate::channel::{Answer, Ask, Change, SessionFacts, TaskFacts, ToSession};

/// Bytes of text that go into one message.
const BYTES_PER_MESSAGE: usize = 32 * 1024;

/// How long somebody who stops a task waits for its end.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// Proofs of one process that may wait for their turn.
const WAITING_PROOFS: usize = 4096;

/// Keys that one question may announce as changed; a request has at most so many settings.
const MAX_KEYS: usize = 512;

/// Longest key, in bytes.
const MAX_KEY: usize = 256;

/// Longest text in a question about a task.
const MAX_TASK_TEXT: usize = 4096;

/// What all users share, besides sessions.
#[derive(Debug)]
pub struct Shared {
    /// The registered machines.
    pub inventory: Inventory,
    /// The tasks.
    pub tasks: Tasks,
    /// The writer; `None` in tests that write nothing.
    pub store: Option<Store>,
}

/// What is under way.
#[derive(Debug, Default)]
pub struct UnderWay {
    /// What happens when a job of the writer is done.
    stored: HashMap<u64, AfterStore>,
    /// Machines that are being registered or unregistered.
    changing: HashSet<String>,
    /// Who waits for the end of which task.
    stoppers: HashMap<u64, Vec<Asker>>,
    /// Sessions that are connected to a machine, and whether they came by `CONNECT`.
    attached: HashMap<String, BTreeMap<(ProcessId, u64), bool>>,
    /// Sessions that came by `CONNECT`, until their process has shown that they may.
    pub(super) arriving: HashMap<(ProcessId, u64), String>,
    /// The .vmx files of which a change was announced last.
    announced: HashMap<String, FileState>,
}

impl UnderWay {
    /// Notes that a machine is being registered or unregistered; false when that is so already.
    pub(super) fn begin_change(&mut self, config: &str) -> bool {
        self.changing.insert(config.to_owned())
    }

    /// Whether a machine is being registered or unregistered.
    pub(super) fn is_changing(&self, config: &str) -> bool {
        self.changing.contains(config)
    }

    /// Writes that are not on the disk yet.
    pub(super) fn waiting_writes(&self) -> u64 {
        self.stored.len() as u64
    }
}

#[derive(Debug)]
enum AfterStore {
    Registered {
        asker: Asker,
        config: String,
        private: bool,
    },
    Unregistered {
        asker: Asker,
        config: String,
        owner: Option<u32>,
    },
    Begun {
        asker: Asker,
        task: u64,
    },
    Ended(Vec<tasks::Ended>),
    /// All that there is to say is that it is written.
    Done {
        asker: Asker,
    },
}

/// Who asks, and the number of the question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asker {
    /// The process.
    pub process: ProcessId,
    /// Its question.
    pub question: u64,
    /// For whom.
    pub by: Arc<By>,
}

/// A question that needs a proof first.
#[derive(Debug)]
pub struct Claim {
    asker: Asker,
    ask: Ask,
    need: Need,
    config: String,
    fd: OwnedFd,
}

impl Supervisor {
    /// Answers a question; an error is a breach of the rules.
    pub(super) fn ask(
        &mut self,
        process: ProcessId,
        (question, session): (u64, u64),
        ask: Ask,
        mut fds: Vec<OwnedFd>,
    ) -> Result<(), String> {
        if !ask.descriptors().contains(&fds.len()) {
            return Err(format!("it asked {} with {} descriptors", ask.name(), fds.len()));
        }
        let (Some((uid, admin)), Some(by)) = (self.who(process), self.by(process, session)) else {
            return Ok(());
        };
        let asker = Asker { process, question, by };
        match ask {
            Ask::Settled {} => {
                self.store(Work::Nothing, AfterStore::Done { asker });
                Ok(())
            }
            Ask::RequestCount {} => {
                let number = self.request_count();
                self.answer(&asker, Answer::Number { number })
            }
            Ask::Security { ask } => self.ask_gateway(asker, admin, ask.0),
            Ask::ConnectedVms {} => {
                let pieces = in_pieces(self.machines.connected().map(str::to_owned), String::len);
                self.answer_in_pieces(&asker, pieces, |paths| Answer::Paths { paths })
            }
            Ask::BeginTask { op, total, directory, prefix } => {
                self.begin_task(asker, op, total, directory, prefix)
            }
            Ask::TaskStatus { task } => {
                let result = self.shared.tasks.status(uid, admin, task);
                self.answer_or(&asker, result.map(|facts| Answer::Tasks { tasks: vec![facts] }))
            }
            Ask::ListTasks { all } => {
                let tasks = self.shared.tasks.list(uid, all && admin);
                let bytes = |task: &TaskFacts| 256 + task.op.len() + task.user.len();
                let pieces = in_pieces(tasks.into_iter(), bytes);
                self.answer_in_pieces(&asker, pieces, |tasks| Answer::Tasks { tasks })
            }
            Ask::StopTask { task } => self.stop_task(asker, uid, admin, task),
            Ask::UsedByOthers { config, files } => self.begin_inquiry(asker, &config, files),
            Ask::DeleteTask { task } => {
                if let Err(error) = self.shared.tasks.delete(uid, admin, task) {
                    return self.answer_or(&asker, Err(error));
                }
                let lines = self.shared.tasks.take_lines();
                self.store(Work::Journal(lines), AfterStore::Done { asker });
                Ok(())
            }
            Ask::Inventory { known } => {
                let (version, anew, changes) = self.shared.inventory.since(known);
                let mut first = anew;
                let pieces = in_pieces(changes.into_iter(), |change: &Change| change.config.len() + 8);
                self.answer_in_pieces(&asker, pieces, |changes| {
                    let anew = std::mem::take(&mut first);
                    Answer::Inventory { version, anew, changes }
                })
            }
            Ask::Register { ref config, .. } => {
                let config = config.clone();
                self.claim(asker, Need::Administer, config, ask, fds.pop())
            }
            Ask::Unregister { ref config, .. } => {
                let config = config.clone();
                self.claim(asker, Need::Unregister, config, ask, fds.pop())
            }
            Ask::Attach { session, ref config, console } => {
                if !self.is_live(process, session) {
                    return Err(format!("it attaches session {session}, which it does not have"));
                }
                let need = if console { Need::Operate } else { Need::See };
                let config = config.clone();
                self.claim(asker, need, config, ask, fds.pop())
            }
            Ask::ConfigChanged { ref config, ref keys } => {
                if keys.len() > MAX_KEYS || keys.iter().any(|key| key.len() > MAX_KEY) {
                    return Err("it changes more than there can be".into());
                }
                let need = if keys.is_empty() { Need::See } else { Need::Configure };
                let config = config.clone();
                self.claim(asker, need, config, ask, fds.pop())
            }
            Ask::Who { ref config } => {
                let config = config.clone();
                self.claim(asker, Need::See, config, ask, fds.pop())
            }
            Ask::Running {} => self.tell_running(&asker),
            Ask::StartMachine { ref config } => {
                let config = config.clone();
                self.claim(asker, Need::Operate, config, ask, fds.pop())
            }
            Ask::AskMachine { ref config, ask: ref request } => {
                let (config, need) = (config.clone(), requests::need(&request.0));
                self.claim(asker, need, config, ask, fds.pop())
            }
            Ask::WaitForEvents { epoch, since, timeout, max } => {
                let wanted = epoch.map(|epoch| (epoch, since));
                self.wait_for_events(asker, wanted, Duration::from_millis(u64::from(timeout)), max);
                Ok(())
            }
            Ask::Metrics {} => {
                let metrics = self.metrics();
                self.answer(&asker, Answer::Metrics { metrics })
            }
        }
    }

    fn answer(&self, asker: &Asker, answer: Answer) -> Result<(), String> {
        let (process, question) = (asker.process, asker.question);
        self.tell(process, ToSession::Answer { question, answer: Inner(answer), more: false })
    }

    pub(super) fn answer_or(&self, asker: &Asker, result: Result<Answer, Error>) -> Result<(), String> {
        let refused = |error: Error| Answer::Refused { code: error.code.number(), text: error.text };
        self.answer(asker, result.unwrap_or_else(refused))
    }

    /// As [`Self::answer_or`], to a process that may have broken its channel, which shows elsewhere.
    pub(super) fn settle(&self, asker: &Asker, result: Result<Answer, Error>) {
        let _ = self.answer_or(asker, result);
    }

    pub(super) fn answer_in_pieces<T>(
        &self,
        asker: &Asker,
        pieces: Vec<(Vec<T>, bool)>,
        mut answer: impl FnMut(Vec<T>) -> Answer,
    ) -> Result<(), String> {
        let (process, question) = (asker.process, asker.question);
        for (piece, more) in pieces {
            self.tell(process, ToSession::Answer { question, answer: Inner(answer(piece)), more })?;
        }
        Ok(())
    }

    // Tasks.

    fn begin_task(
        &mut self,
        asker: Asker,
        op: String,
        total: u64,
        directory: String,
        prefix: String,
    ) -> Result<(), String> {
        if [&op, &directory, &prefix].iter().any(|text| text.len() > MAX_TASK_TEXT) || prefix.contains('/') {
            return Err("it describes a task in too many words".into());
        }
        if self.stopping {
            let text = "the server is stopping".to_owned();
            return self.answer_or(&asker, Err(Error::with(ErrorCode::InsufficientResources, text)));
        }
        let partial = (!directory.is_empty()).then_some(Partial { directory, prefix });
        let Some(owner) = self.owner(asker.process) else { return Ok(()) };
        let named = op.clone();
        match self.shared.tasks.begin(asker.process, &owner, op, total, partial) {
            Ok((task, line)) => {
                // Which operation is the process's word.
                let record = Record {
                    claimed: true,
                    operation: Some(named),
                    task: Some(task),
                    ..Record::new(Kind::TaskBegin, Outcome::Ok)
                };
                self.audit_by(&asker.by, record);
                self.store(Work::Journal(line), AfterStore::Begun { asker, task });
                Ok(())
            }
            Err(error) => self.answer_or(&asker, Err(error)),
        }
    }

    fn stop_task(&mut self, asker: Asker, uid: u32, admin: bool, task: u64) -> Result<(), String> {
        let stopped = self.shared.tasks.stop(uid, admin, task);
        let code = stopped.as_ref().err().map(|error| error.code.number());
        let record =
            Record { task: Some(task), code, ..Record::new(Kind::TaskStop, outcome_of(code.unwrap_or(0))) };
        self.audit_by(&asker.by, record);
        match stopped {
            Err(error) => return self.answer_or(&asker, Err(error)),
            Ok(worker) => {
                if let Some(worker) = worker {
                    self.tell_or_end(worker, ToSession::StopTask { task });
                }
            }
        }
        if !self.shared.tasks.is_open(task) {
            let result = self.shared.tasks.status(uid, admin, task);
            return self.answer_or(&asker, result.map(|facts| Answer::Tasks { tasks: vec![facts] }));
        }
        self.under_way.stoppers.entry(task).or_default().push(asker.clone());
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(STOP_WITHIN).await;
            let _ = events.send(Happening::StopWaited { task, asker }).await;
        });
        Ok(())
    }

    /// Somebody has waited long enough for a task to stop; he is told how it is.
    pub fn stop_waited(&mut self, task: u64, asker: &Asker) {
        let Some(waiting) = self.under_way.stoppers.get_mut(&task) else { return };
        let before = waiting.len();
        waiting.retain(|one| one != asker);
        if waiting.len() < before {
            self.tell_stopper(task, asker);
        }
    }

    fn tell_stopper(&mut self, task: u64, asker: &Asker) {
        let Some((uid, admin)) = self.who(asker.process) else { return };
        let result = self.shared.tasks.status(uid, admin, task);
        self.settle(asker, result.map(|facts| Answer::Tasks { tasks: vec![facts] }));
    }

    /// After tasks may have ended: the journal gets it, and then whoever is concerned is told.
    pub(super) fn tasks_changed(&mut self) {
        let (lines, ends) = (self.shared.tasks.take_lines(), self.shared.tasks.take_ends());
        if !lines.is_empty() {
            self.store(Work::Journal(lines), AfterStore::Ended(ends));
        }
    }

    fn tell_end(&mut self, ended: &tasks::Ended) {
        let task = ended.task;
        self.shared.tasks.told(task);
        for asker in self.under_way.stoppers.remove(&task).unwrap_or_default() {
            self.tell_stopper(task, &asker);
        }
        self.announce_task(ended.owner.uid, task);
        self.audit_task_end(ended);
    }

    /// Has what dead processes left removed by others of the same user.
    pub fn clean_up(&mut self) {
        if self.stopping {
            // The journal knows; the next server does it.
            return;
        }
        for Orphan { task, owner, partial } in self.shared.tasks.orphans() {
            let Partial { directory, prefix } = partial;
            match self.process_of_owner(&owner) {
                Ok(process) => {
                    self.shared.tasks.handed_to(task, process);
                    self.tell_or_end(process, ToSession::Clean { task, directory, prefix });
                }
                Err(why) => tracing::warn!("nobody cleans up after task {task}: {why}"),
            }
        }
        self.tasks_changed();
    }

    // Machines.

    /// Queues a question that needs a proof.
    fn claim(
        &mut self,
        asker: Asker,
        need: Need,
        config: String,
        ask: Ask,
        fd: Option<OwnedFd>,
    ) -> Result<(), String> {
        let Some(fd) = fd else { return Err("it claims without a descriptor".into()) };
        let process = asker.process;
        if !vm_list::can_hold(&config) || config.len() > 4095 {
            return self.answer_or(
                &asker,
                Err(Error::invalid(
                    "config",
                    "not an absolute path of at most 4095 bytes without control characters",
                )),
            );
        }
        let registers = matches!(ask, Ask::Register { .. });
        let known = self.shared.inventory.contains(&config);
        match (registers, known) {
            (true, true) => return self.answer_or(&asker, Err(Error::new(ErrorCode::VmExists))),
            (false, false) => return self.answer_or(&asker, Err(unknown(&ask, &config))),
            _ => {}
        }
        let Some(claims) = self.claims(process) else { return Ok(()) };
        if claims.waiting.len() >= WAITING_PROOFS {
            return Err("it claims more than it lets be proven".into());
        }
        claims.waiting.push_back(Claim { asker, ask, need, config, fd });
        self.next_proof(process);
        Ok(())
    }

    fn next_proof(&mut self, process: ProcessId) {
        let Some((uid, gid, mut groups)) = self.identity(process) else { return };
        let Some(claims) = self.claims(process) else { return };
        if claims.proving {
            return;
        }
        let Some(Claim { asker, ask, need, config, fd }) = claims.waiting.pop_front() else { return };
        claims.proving = true;
        groups.push(gid);
        let claimant = Claimant { uid, gid, groups };
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let proven = proof::prove(need, &claimant, &config, &fd).and_then(|rights| {
                let begin = match &ask {
                    Ask::StartMachine { .. } => Some(Begin::PowerOn),
                    Ask::AskMachine { ask, .. } if requests::is_maintenance(&ask.0) => {
                        Some(Begin::Maintenance)
                    }
                    _ => None,
                };
                let launch = begin.map(|begin| Launch::prepare(&fd, begin)).transpose()?;
                Ok(Proven { rights, launch, file: FileState::of(&fd) })
            });
            drop(fd);
            let _ = events.blocking_send(Happening::Proven { asker, ask, proven });
        });
    }

    /// A proof has been tried.
    pub fn proven(&mut self, asker: Asker, ask: Ask, proven: Result<Proven, Error>) {
        if let Some(claims) = self.claims(asker.process) {
            claims.proving = false;
        }
        self.next_proof(asker.process);
        if let Err(error) = &proven {
            self.audit_refusal(&asker.by, &ask, error);
        }
        let Proven { rights, launch, file } = match (proven, &ask) {
            (Ok(proven), _) => proven,
            // As if it were not registered, since to this caller it is not.
            (
                Err(_),
                Ask::Attach { config, .. } | Ask::Who { config } | Ask::ConfigChanged { config, .. },
            ) => {
                let error = Error::not_registered(config);
                return self.settle(&asker, Err(error));
            }
            (Err(_), Ask::AskMachine { config, ask }) if requests::need(&ask.0) == Need::See => {
                let error = Error::not_registered(config);
                return self.settle(&asker, Err(error));
            }
            (Err(error), _) => return self.settle(&asker, Err(error)),
        };
        match ask {
            Ask::Register { config, private } => {
                if self.shared.inventory.contains(&config) || !self.under_way.begin_change(&config) {
                    return self.settle(&asker, Err(Error::new(ErrorCode::VmExists)));
                }
                let list = if private { List::Private } else { List::Public };
                let note = Self::note(&asker.by, rights, "Virtual machine registered.");
                let work = Work::Add(list, config.clone(), note);
                self.store(work, AfterStore::Registered { asker, config, private });
            }
            Ask::Unregister { config, idle } => {
                if idle && self.shared.tasks.is_at_work_in(std::path::Path::new(&config).parent()) {
                    return self.settle(
                        &asker,
                        Err(Error::with(ErrorCode::VmBusy, "a task is at work in its directory")),
                    );
                }
                if self.machines.connected().any(|running| running == config) {
                    return self.settle(&asker, Err(Error::state_conflict("unregister", "on")));
                }
                if self.machines.is_busy(&config) {
                    let error = Error::with(ErrorCode::VmBusy, "another operation on it is under way");
                    return self.settle(&asker, Err(error));
                }
                if !self.shared.inventory.contains(&config) || !self.under_way.begin_change(&config) {
                    return self.settle(&asker, Err(Error::no_such_vm()));
                }
                let note = Self::note(&asker.by, rights, "Virtual machine unregistered.");
                let owner = rights.map(|rights| rights.uid);
                let work = Work::Remove(config.clone(), note);
                self.store(work, AfterStore::Unregistered { asker, config, owner });
            }
            Ask::Attach { session, config, console } => {
                self.under_way.arriving.remove(&(asker.process, session));
                if console && self.consoles(&config) >= connect::MOST {
                    let text = "it has as many connections as it can have";
                    return self.settle(&asker, Err(Error::with(ErrorCode::VmBusy, text)));
                }
                if self.is_live(asker.process, session) {
                    let sessions = self.under_way.attached.entry(config).or_default();
                    *sessions.entry((asker.process, session)).or_default() |= console;
                }
                self.settle(&asker, Ok(Answer::Done {}));
            }
            Ask::ConfigChanged { config, keys } => {
                self.config_changed(&config, keys, file);
                self.settle(&asker, Ok(Answer::Done {}));
            }
            Ask::Who { config } => {
                let users = self.attached_to(&config);
                let pieces = in_pieces(users.into_iter(), |user| 32 + user.name.len() + user.address.len());
                let _ = self.answer_in_pieces(&asker, pieces, |users| Answer::Users { users });
            }
            Ask::StartMachine { config } => self.start_machine(asker, &config, launch, rights),
            Ask::AskMachine { config, ask } => self.ask_machine(asker, &config, ask.0, launch, rights),
            _ => {}
        }
    }

    fn attached_to(&self, config: &str) -> Vec<SessionFacts> {
        let attached = self.under_way.attached.get(config);
        let mut users: Vec<SessionFacts> = attached
            .into_iter()
            .flatten()
            .filter_map(|((process, session), console)| {
                let facts = self.session_facts(*process, *session)?;
                Some(SessionFacts { console: *console, ..facts })
            })
            .collect();
        users.sort_by(|a, b| (a.time, &a.name).cmp(&(b.time, &b.name)));
        users
    }

    /// How many sessions have come to a machine by `CONNECT`, or were told that they have.
    pub(super) fn consoles(&self, config: &str) -> usize {
        let attached = self.under_way.attached.get(config);
        let attached = attached.map_or(0, |sessions| sessions.values().filter(|console| **console).count());
        let arriving = self.under_way.arriving.values().filter(|machine| *machine == config).count();
        attached + arriving + self.connecting.agreed(config)
    }

    /// The .vmx of a machine was changed. Several processes may see that: a state of the file of which
    /// something was announced is not announced again without keys.
    fn config_changed(&mut self, config: &str, keys: Vec<String>, file: Option<FileState>) {
        let before = file.and_then(|file| self.under_way.announced.insert(config.to_owned(), file));
        if keys.is_empty() && before != file {
            self.announce(None, config, Happened::Config { key: None });
        }
        for key in keys {
            self.announce(None, config, Happened::Config { key: Some(key) });
        }
    }

    /// Sessions have ended: they are connected to nothing any more.
    pub(super) fn detach(&mut self, gone: impl Fn(ProcessId, u64) -> bool) {
        self.under_way.arriving.retain(|(process, session), _| !gone(*process, *session));
        self.under_way.attached.retain(|_, sessions| {
            sessions.retain(|(process, session), _| !gone(*process, *session));
            !sessions.is_empty()
        });
    }

    // Writing.

    /// What the event log of a machine says about what somebody did to it.
    fn note(by: &By, rights: Option<LogRights>, subject: &str) -> Option<Note> {
        let mut event = Event::new(EventKind::Info, tasks::unix_now(), subject);
        event.users.push(by.name.clone());
        Some(Note { rights: rights?, event })
    }

    fn store(&mut self, work: Work, after: AfterStore) {
        match &mut self.shared.store {
            Some(store) => {
                let number = store.push(work);
                self.under_way.stored.insert(number, after);
            }
            None => self.after(after, Ok(())),
        }
    }

    /// The writer has done, or failed to do, what it was given.
    pub fn stored(&mut self, results: Results) {
        for (number, result) in results {
            if let Some(after) = self.under_way.stored.remove(&number) {
                self.after(after, result);
            }
        }
    }

    fn after(&mut self, after: AfterStore, result: Result<(), Failed>) {
        let result = result.map_err(|failed| not_written(&failed));
        match after {
            AfterStore::Registered { asker, config, private } => {
                self.audit_machine(&asker.by, Kind::Register, &config, result.as_ref().err());
                self.under_way.changing.remove(&config);
                if result.is_ok() {
                    tracing::info!("{config} is registered by {}", asker.by.name);
                    self.shared.inventory.put(&config, private);
                    self.announce(None, &config, Happened::Registered {});
                }
                self.settle(&asker, result.map(|()| Answer::Done {}));
            }
            AfterStore::Unregistered { asker, config, owner } => {
                self.audit_machine(&asker.by, Kind::Unregister, &config, result.as_ref().err());
                self.under_way.changing.remove(&config);
                if result.is_ok() {
                    tracing::info!("{config} is unregistered by {}", asker.by.name);
                    let private = self.shared.inventory.is_private(&config);
                    self.shared.inventory.remove(&config);
                    self.under_way.attached.remove(&config);
                    self.under_way.announced.remove(&config);
                    let by = asker.by.uid;
                    self.announce(None, &config, Happened::Unregistered { by, owner, private });
                }
                self.settle(&asker, result.map(|()| Answer::Done {}));
            }
            AfterStore::Begun { asker, task } => {
                if result.is_err() {
                    self.shared.tasks.withdraw(task);
                } else {
                    self.announce_task(asker.by.uid, task);
                }
                self.settle(&asker, result.map(|()| Answer::Number { number: task }));
            }
            // What could not be written down has happened all the same.
            AfterStore::Ended(ends) => ends.iter().for_each(|ended| self.tell_end(ended)),
            AfterStore::Done { asker } => self.settle(&asker, result.map(|()| Answer::Done {})),
        }
    }
}

/// A machine that is not registered, in the words that fit the question.
fn unknown(ask: &Ask, config: &str) -> Error {
    match ask {
        Ask::Unregister { .. } => Error::no_such_vm(),
        _ => Error::not_registered(config),
    }
}

/// A change that could not be made durable: whose file it was is nothing that the caller could mend,
/// so no permission of the caller's is blamed.
fn not_written(failed: &Failed) -> Error {
    let text = format!("{}: {}", failed.path.display(), failed.text);
    let lacking = [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE, Errno::ROFS];
    if lacking.iter().any(|errno| errno.raw_os_error() == failed.errno) {
        Error::with(ErrorCode::InsufficientResources, text)
    } else {
        Error::unspecified(text)
    }
}

/// Cuts a list into messages; the last one, which may be empty, is marked.
pub(super) fn in_pieces<T>(
    items: impl Iterator<Item = T>,
    bytes_of: impl Fn(&T) -> usize,
) -> Vec<(Vec<T>, bool)> {
    let mut pieces = Vec::new();
    let mut piece = Vec::new();
    let mut bytes = 0;
    for item in items {
        let more = bytes_of(&item);
        if bytes + more > BYTES_PER_MESSAGE && !piece.is_empty() {
            pieces.push((std::mem::take(&mut piece), true));
            bytes = 0;
        }
        bytes += more;
        piece.push(item);
    }
    pieces.push((piece, false));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_cut_into_messages_and_the_last_is_marked() {
        assert_eq!(in_pieces(std::iter::empty::<String>(), String::len), [(Vec::new(), false)]);
        let long = "x".repeat(4000);
        let pieces = in_pieces((0..20).map(|_| long.clone()), String::len);
        assert_eq!(pieces.iter().map(|(paths, _)| paths.len()).sum::<usize>(), 20);
        assert_eq!(pieces.iter().map(|(_, more)| *more).collect::<Vec<_>>(), [true, true, false]);
        assert!(pieces.iter().all(|(paths, _)| paths.len() <= BYTES_PER_MESSAGE / 4000));
        let huge = "x".repeat(BYTES_PER_MESSAGE + 1);
        assert_eq!(in_pieces([huge].into_iter(), String::len).len(), 1);
    }
}
