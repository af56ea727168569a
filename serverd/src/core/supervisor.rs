//! One session process per identity: handing sessions to it, answering it, surviving it.
//!
//! ```text
//!                      hand_over                  Accepted            Closed
//!   gateway ─▶ socket ──────────▶ on its way ───────────▶ live ───────────────▶ gone
//!                                     │  process dies        │ process dies
//!                                     ▼                      ▼
//!                            next process of the user      gone
//! ```
//!
//! A session process is the caller's, so everything it sends is hostile until it makes sense here. It
//! can end its own sessions, lie about its own request count and fill its own share of the log. A
//! message that it has no reason to send costs it its life. It can never name another user: identity
//! is a property of the entry in this table, not of any message.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use link::audit::{Audit, Kind, Origin, Outcome};
use link::identity::for_log;
use link::ration::Ration;
use link::settings::AuditLevel;
use link::{Identity, Proof};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Event;
use super::admission::Admission;
use super::auditing::Did;
use super::connect::Connecting;
use super::counter::{Counter, Tally};
use super::journal::Owner;
use super::machines::Machines;
use super::observe::Observe;
use super::processes::{self, Handles, ProcessEvent, ProcessId};
use super::questions::{Claim, Shared, UnderWay};
use super::security::Gateway;
use super::sharing::Sharing;
use crate::channel::{SessionFacts, ToCore, ToSession};

/// How often a session is handed to another process because the last one died on the way.
const ATTEMPTS: u32 = 3;

/// Settings that session processes are started with.
#[derive(Debug, Clone)]
pub struct Template {
    /// `serverd.product`
    pub product: link::settings::Product,
    /// `serverd.sessions.idle`, seconds.
    pub idle: u32,
    /// `serverd.compat.historicBugs`
    pub historic_bugs: bool,
    /// Number of the group of administrators, if there is one.
    pub admin_group: Option<u32>,
    /// Most talkative level to log.
    pub level: u8,
    /// Root of the instance's files.
    pub root: String,
    /// `serverd.eventlog.dir`, below the root.
    pub event_logs: String,
    /// Number of `audit.level`.
    pub audit: u8,
}

/// Exactly whose process it is: the same uid with other groups is somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

/// A session on its way to a process.
#[derive(Debug)]
struct Handover {
    identity: Identity,
    early: Vec<u8>,
    socket: OwnedFd,
    /// The machine that it came to by `CONNECT`.
    machine: Option<String>,
    attempts: u32,
}

/// A session that a process has accepted.
#[derive(Debug)]
struct Live {
    /// Login name; shared by the sessions of a process, as is the address.
    name: Arc<str>,
    /// Numeric address, or `unix`.
    peer: Arc<str>,
    /// The caller's port, or process.
    origin: u32,
    tls: bool,
    /// The login was by password.
    pass: bool,
    /// Time of login, Unix seconds.
    since: i64,
}

/// Questions of a process that need a proof, one at a time.
#[derive(Debug, Default)]
pub(super) struct Claims {
    pub(super) waiting: VecDeque<Claim>,
    pub(super) proving: bool,
}

/// A session process.
#[derive(Debug)]
struct Process {
    key: Key,
    /// For logs.
    name: String,
    owner: Owner,
    admin: bool,
    claims: Claims,
    handles: Handles,
    counter: Counter,
    /// Sessions ever sent to it.
    sent: u64,
    /// Sessions sent and not accepted, by their number.
    on_the_way: BTreeMap<u64, Handover>,
    /// Sessions accepted and not closed, by their number.
    live: BTreeMap<u64, Live>,
    ration: Ration,
    /// It broke the rules; nothing of it is to be saved.
    broken: bool,
    channel_ended: bool,
    exited: Option<String>,
}

/// All session processes.
#[derive(Debug)]
pub struct Supervisor {
    template: Template,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) shared: Shared,
    pub(super) under_way: UnderWay,
    pub(super) sharing: Sharing,
    pub(super) gateway: Gateway,
    pub(super) connecting: Connecting,
    processes: HashMap<ProcessId, Process>,
    /// The process that gets new sessions of an identity.
    current: HashMap<Key, ProcessId>,
    tally: Tally,
    pub(super) machines: Machines,
    pub(super) observe: Observe,
    pub(super) audit: Audit,
    next_process: ProcessId,
    next_session: u64,
    pub(super) stopping: bool,
}

impl Supervisor {
    /// Starts with no process. What happens to processes is reported to `events` and must be given
    /// back to [`Supervisor::event`].
    #[must_use]
    pub fn new(template: Template, shared: Shared, events: mpsc::Sender<Event>) -> Self {
        Supervisor {
            template,
            events,
            shared,
            under_way: UnderWay::default(),
            sharing: Sharing::default(),
            gateway: Gateway::default(),
            connecting: Connecting::default(),
            processes: HashMap::new(),
            current: HashMap::new(),
            tally: Tally::default(),
            machines: Machines::default(),
            observe: Observe::default(),
            audit: Audit::off(),
            next_process: 1,
            next_session: 1,
            stopping: false,
        }
    }

    /// Whether no process is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Gives a session, already admitted, to the process of its identity, which is started if there
    /// is none. A session that cannot be handed over is closed.
    pub fn hand_over(
        &mut self,
        identity: Identity,
        early: Vec<u8>,
        socket: OwnedFd,
        machine: Option<String>,
        admission: &mut Admission,
    ) {
        tracing::debug!(
            "session of {} (uid {}) from {}, proven by {}{}",
            for_log(identity.name.as_bytes()),
            identity.uid,
            for_log(identity.peer.as_bytes()),
            identity.proof.word(),
            if identity.tls { ", TLS" } else { "" }
        );
        self.send(Handover { identity, early, socket, machine, attempts: 0 }, admission);
    }

    fn send(&mut self, mut handover: Handover, admission: &mut Admission) {
        let uid = handover.identity.uid;
        handover.attempts += 1;
        let result = self.try_send(handover);
        if let Err(why) = result {
            tracing::warn!("a session of uid {uid} is closed: {why}");
            admission.closed(uid, 1);
        }
    }

    fn try_send(&mut self, handover: Handover) -> Result<(), String> {
        if self.stopping {
            return Err("the server is stopping".into());
        }
        if handover.attempts > ATTEMPTS {
            return Err(format!("{ATTEMPTS} session processes died before they accepted it"));
        }
        let number = self.next_session;
        self.next_session += 1;
        let message = ToSession::Session {
            number,
            name: handover.identity.name.clone(),
            home: handover.identity.home.clone(),
            early: handover.early.clone(),
            machine: handover.machine.clone(),
        };
        // Ours stays until the process has accepted the session.
        let socket = handover.socket.try_clone().map_err(|error| error.to_string())?;
        let id = self.process_of_identity(&handover.identity)?;
        let process = self.processes.get_mut(&id).ok_or("its process is gone")?;
        process.handles.outbox.push(message, vec![socket]).map_err(|error| error.to_string())?;
        process.sent += 1;
        if let Some(config) = &handover.machine {
            self.under_way.arriving.insert((id, number), config.clone());
        }
        process.on_the_way.insert(number, handover);
        Ok(())
    }

    /// The process of an identity.
    pub(super) fn process_of_identity(&mut self, identity: &Identity) -> Result<ProcessId, String> {
        self.process_of_owner(&Owner {
            uid: identity.uid,
            gid: identity.gid,
            groups: identity.groups.clone(),
            name: identity.name.clone(),
            home: identity.home.clone(),
        })
    }

    /// The process of a user, which is started if there is none.
    pub(super) fn process_of_owner(&mut self, owner: &Owner) -> Result<ProcessId, String> {
        let key = Key { uid: owner.uid, gid: owner.gid, groups: owner.groups.clone() };
        if let Some(id) = self.current.get(&key) {
            return Ok(*id);
        }
        let id = self.next_process;
        self.next_process += 1;
        let process = self.start(id, key.clone(), owner)?;
        self.observe.process(id, &process.counter);
        self.processes.insert(id, process);
        self.current.insert(key, id);
        Ok(id)
    }

    fn start(&self, id: ProcessId, key: Key, owner: &Owner) -> Result<Process, String> {
        let describe = |error: std::io::Error| format!("cannot start a session process: {error}");
        let counter = Counter::new().map_err(describe)?;
        let page = counter.share().map_err(describe)?;
        let news = self.shared.inventory.news().map_err(describe)?;
        let handles = processes::spawn(id, owner, &self.events).map_err(describe)?;
        let Template { product, idle, historic_bugs, admin_group, level, root, event_logs, audit } =
            self.template.clone();
        let admin =
            key.uid == 0 || admin_group.is_some_and(|group| key.gid == group || key.groups.contains(&group));
        let start = ToSession::Start {
            uid: key.uid,
            gid: key.gid,
            groups: key.groups.clone(),
            admin,
            title: product.title,
            version: product.version,
            build: product.build,
            product_number: product.number,
            idle,
            historic_bugs,
            level,
            root,
            event_logs,
            audit,
        };
        handles.outbox.push(start, vec![page, news]).map_err(|error| error.to_string())?;
        let name = for_log(owner.name.as_bytes());
        tracing::info!("session process {} of {name} (uid {}) started", handles.pid, key.uid);
        Ok(Process {
            key,
            name,
            owner: owner.clone(),
            admin,
            claims: Claims::default(),
            handles,
            counter,
            sent: 0,
            on_the_way: BTreeMap::new(),
            live: BTreeMap::new(),
            ration: Ration::new(Instant::now().into_std()),
            broken: false,
            channel_ended: false,
            exited: None,
        })
    }

    /// Takes in what happened to a process.
    pub fn event(&mut self, id: ProcessId, event: ProcessEvent, admission: &mut Admission) {
        match event {
            ProcessEvent::Message(message, fds) => {
                if let Err(why) = self.message(id, message, fds, admission) {
                    self.give_up(id, &why);
                }
            }
            ProcessEvent::ChannelEnded(end) => {
                if let Err(error) = end {
                    self.give_up(id, &format!("it broke its channel: {error}"));
                }
                self.retire(id);
                if let Some(process) = self.processes.get_mut(&id) {
                    process.channel_ended = true;
                    // It is about to exit; one that stays, deaf as it is, is ended.
                    process.handles.kill_later();
                }
                self.bury(id, admission);
            }
            ProcessEvent::Exited(how) => {
                self.retire(id);
                if let Some(process) = self.processes.get_mut(&id) {
                    process.exited = Some(how);
                }
                self.bury(id, admission);
            }
        }
    }

    /// Obeys one message; an error is a breach of the rules.
    fn message(
        &mut self,
        id: ProcessId,
        message: ToCore,
        fds: Vec<OwnedFd>,
        admission: &mut Admission,
    ) -> Result<(), String> {
        let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
        if process.broken {
            return Ok(());
        }
        match message {
            ToCore::Accepted { number } => {
                let Some(handover) = process.on_the_way.remove(&number) else {
                    return Err(format!("it accepted session {number}, which it was not given"));
                };
                let identity = handover.identity;
                // Most sessions of a process have the name and the address of another one.
                let like = process.live.last_key_value().map(|(_, live)| live);
                let shared = |text: &str, of: fn(&Live) -> &Arc<str>| match like.map(of) {
                    Some(same) if **same == *text => Arc::clone(same),
                    _ => Arc::from(text),
                };
                let name = shared(&identity.name, |live| &live.name);
                let peer = shared(&identity.peer, |live| &live.peer);
                let since = i64::try_from(identity.login_time).unwrap_or(i64::MAX);
                let (tls, pass) = (identity.tls, identity.proof == Proof::Pam);
                process.live.insert(number, Live { name, peer, origin: identity.origin, tls, pass, since });
                self.observe.sessions_begun += 1;
                self.audit_session(id, Kind::SessionBegin, number, Outcome::Ok, handover.machine);
            }
            ToCore::Closed { numbers } => {
                let count = u32::try_from(numbers.len()).unwrap_or(u32::MAX);
                if numbers.is_empty() {
                    return Err("it closed no session".into());
                }
                if self.audit.wants(AuditLevel::Changes) {
                    // While it is still known who they were.
                    let had = |number: &&u64| process.live.contains_key(number);
                    let known: Vec<u64> = numbers.iter().filter(had).copied().collect();
                    for number in known {
                        self.audit_session(id, Kind::SessionEnd, number, Outcome::Ok, None);
                    }
                }
                let Some(process) = self.processes.get_mut(&id) else { return Ok(()) };
                for number in &numbers {
                    if process.live.remove(number).is_none() {
                        return Err(format!("it closed session {number}, which it does not have"));
                    }
                }
                admission.closed(process.key.uid, count);
                self.detach(|process, session| process == id && numbers.contains(&session));
            }
            ToCore::Idle { received } => {
                // A session may have been sent while this message was on its way.
                if received == process.sent
                    && process.live.is_empty()
                    && process.on_the_way.is_empty()
                    && !self.shared.tasks.needs(id)
                    && !self.is_connecting(id)
                {
                    self.retire(id);
                    self.tell(id, ToSession::Finish {})?;
                }
            }
            ToCore::Log { level, text } => {
                let level = crate::log::level_of(level);
                if crate::log::level_number(level) > self.template.level {
                    return Err("it logs what it was told not to log".into());
                }
                if let Some(dropped) = process.ration.allow(Instant::now().into_std()) {
                    let (pid, name) = (process.handles.pid, &process.name);
                    if dropped > 0 {
                        tracing::warn!("session process {pid} of {name}: {dropped} lines dropped");
                    }
                    log_for(level, pid, name, &text);
                }
            }
            ToCore::Ask { question, session, ask } => self.ask(id, (question, session), ask.0, fds)?,
            ToCore::Progress { task, done, total } => self.shared.tasks.progress(id, task, done, total)?,
            ToCore::TaskEnded { task, end, done, total } => {
                self.shared.tasks.ended(id, task, end, done, total)?;
                self.tasks_changed();
            }
            ToCore::Did { session, request, op, code, machine, paths } => {
                let pid = process.handles.pid;
                self.audit_operation(id, pid, Did { session, request, op, code, machine, paths });
            }
            ToCore::Cleaned { task, left } => {
                self.shared.tasks.cleaned(id, task, &left)?;
                self.tasks_changed();
            }
            ToCore::Connectable { number, declined } => self.connectable(id, number, declined, admission),
            ToCore::Used { inquiry, files } => self.used(id, inquiry, &files)?,
        }
        Ok(())
    }

    pub(super) fn tell(&self, id: ProcessId, message: ToSession) -> Result<(), String> {
        match self.processes.get(&id) {
            Some(process) => {
                process.handles.outbox.push(message, Vec::new()).map_err(|error| error.to_string())
            }
            None => Ok(()),
        }
    }

    /// As [`Self::tell`]; a process that takes no message is ended.
    pub(super) fn tell_or_end(&mut self, id: ProcessId, message: ToSession) {
        if let Err(why) = self.tell(id, message) {
            self.give_up(id, &why);
        }
    }

    /// Uid of a process, and whether its user is an administrator.
    pub(super) fn who(&self, id: ProcessId) -> Option<(u32, bool)> {
        self.processes.get(&id).map(|process| (process.key.uid, process.admin))
    }

    /// Uid, primary group and groups of a process.
    pub(super) fn identity(&self, id: ProcessId) -> Option<(u32, u32, Vec<u32>)> {
        self.processes.get(&id).map(|process| (process.key.uid, process.key.gid, process.key.groups.clone()))
    }

    /// Whose a process is.
    pub(super) fn owner(&self, id: ProcessId) -> Option<Owner> {
        self.processes.get(&id).map(|process| process.owner.clone())
    }

    /// What a process has to prove.
    pub(super) fn claims(&mut self, id: ProcessId) -> Option<&mut Claims> {
        self.processes.get_mut(&id).map(|process| &mut process.claims)
    }

    /// Whether a process has a session.
    pub(super) fn is_live(&self, id: ProcessId, session: u64) -> bool {
        self.processes.get(&id).is_some_and(|process| process.live.contains_key(&session))
    }

    /// Who is at the other end of a session.
    pub(super) fn session_facts(&self, id: ProcessId, session: u64) -> Option<SessionFacts> {
        let live = self.processes.get(&id)?.live.get(&session)?;
        let (name, address) = (live.name.to_string(), live.peer.to_string());
        Some(SessionFacts { name, time: live.since, address, console: false })
    }

    /// Login name and origin of a session that a process has.
    pub(super) fn origin_of(&self, id: ProcessId, session: u64) -> Option<(String, Origin)> {
        let live = self.processes.get(&id)?.live.get(&session)?;
        let login = if live.pass { "PASS" } else { "LOCAL" };
        Some((live.name.to_string(), Origin::new(&live.peer, live.origin, live.tls, login)))
    }

    /// Rights that are being looked at, or wait for that.
    pub(super) fn waiting_proofs(&self) -> u64 {
        let waiting = |process: &Process| process.claims.waiting.len() + usize::from(process.claims.proving);
        self.processes.values().map(waiting).sum::<usize>() as u64
    }

    /// What the processes that have ended counted.
    pub(super) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The counters of the others.
    pub(super) fn counters(&self) -> impl Iterator<Item = (ProcessId, &Counter)> {
        self.processes.iter().map(|(id, process)| (*id, &process.counter))
    }

    /// Lets session processes know whether there is any running machine to ask about.
    pub fn publish_running(&self) {
        let count = self.machines.connected().count();
        self.shared.inventory.publish_running(count as u64);
    }

    /// Requests answered since start, over all users.
    #[must_use]
    pub fn request_count(&self) -> u64 {
        self.tally.total(self.processes.values().map(|process| &process.counter))
    }

    /// Figures of all requests answered since start; see [`crate::figures`].
    pub(super) fn figures(&self) -> Vec<u64> {
        self.tally.figures(self.processes.values().map(|process| &process.counter))
    }

    /// Session processes, and sessions.
    pub(super) fn session_counts(&self) -> (u64, u64) {
        let sessions = self.processes.values().map(|process| process.live.len() + process.on_the_way.len());
        (self.processes.len() as u64, sessions.sum::<usize>() as u64)
    }

    /// The process gets no new sessions; the next one of its user starts another.
    fn retire(&mut self, id: ProcessId) {
        if let Some(process) = self.processes.get(&id)
            && self.current.get(&process.key) == Some(&id)
        {
            self.current.remove(&process.key);
        }
    }

    /// Ends a process that broke the rules.
    fn give_up(&mut self, id: ProcessId, why: &str) {
        self.retire(id);
        if let Some(process) = self.processes.get_mut(&id)
            && !process.broken
        {
            let pid = process.handles.pid;
            tracing::warn!("session process {pid} of {} is killed: {why}", process.name);
            process.broken = true;
            process.handles.kill();
        }
    }

    /// Forgets a process once it has exited and everything it said was heard: only then is it
    /// certain which sessions it had accepted.
    fn bury(&mut self, id: ProcessId, admission: &mut Admission) {
        let over = |process: &Process| process.channel_ended && process.exited.is_some();
        if !self.processes.get(&id).is_some_and(over) {
            return;
        }
        if self.audits() {
            let live: Vec<u64> = self
                .processes
                .get(&id)
                .into_iter()
                .flat_map(|process| process.live.keys().copied())
                .collect();
            for number in live {
                self.audit_session(id, Kind::SessionEnd, number, Outcome::Failed, None);
            }
        }
        let Some(process) = self.processes.remove(&id) else { return };
        self.tally.keep(&process.counter);
        self.observe.ended(id);
        let live = u32::try_from(process.live.len()).unwrap_or(u32::MAX);
        admission.closed(process.key.uid, live);
        self.detach(|gone, _| gone == id);
        self.shared.tasks.process_died(id);
        self.nobody_answers(id);
        self.nobody_looks(id, admission);
        self.clean_up();
        let how = process.exited.unwrap_or_default();
        let (pid, name) = (process.handles.pid, process.name);
        if live == 0 && process.on_the_way.is_empty() {
            tracing::info!("session process {pid} of {name} ended: {how}");
        } else {
            tracing::warn!(
                "session process {pid} of {name} ended: {how}; {live} sessions are closed, {} go to the next process",
                if process.broken { 0 } else { process.on_the_way.len() }
            );
        }
        for handover in process.on_the_way.into_values() {
            if process.broken {
                admission.closed(process.key.uid, 1);
            } else {
                self.send(handover, admission);
            }
        }
    }

    /// Tells every process to finish its requests in flight and exit. No new one is started.
    pub fn finish(&mut self) {
        self.stopping = true;
        self.announce(None, "", handlers::running::Happened::Stopping {});
        self.current.clear();
        for process in self.processes.values() {
            if process.handles.outbox.push(ToSession::Finish {}, Vec::new()).is_err() {
                process.handles.kill();
            }
        }
    }

    /// Ends every process now.
    pub fn kill_all(&self) {
        for process in self.processes.values() {
            tracing::warn!(
                "session process {} of {} did not finish in time",
                process.handles.pid,
                process.name
            );
            process.handles.kill();
        }
    }
}

/// Writes a line of a session process under its pid and user.
fn log_for(level: tracing::Level, pid: u32, name: &str, text: &str) {
    match level {
        tracing::Level::ERROR => tracing::error!("session process {pid} of {name}: {text}"),
        tracing::Level::WARN => tracing::warn!("session process {pid} of {name}: {text}"),
        tracing::Level::INFO => tracing::info!("session process {pid} of {name}: {text}"),
        _ => tracing::debug!("session process {pid} of {name}: {text}"),
    }
}

#[cfg(test)]
mod tests;
