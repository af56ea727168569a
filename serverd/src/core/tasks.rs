//! The register of tasks: which there are, whose they are, how they are.
//!
//! ```text
//!           BeginTask            journal has it               TaskEnded, or process dies
//!   process ─────────▶ admitted ───────────────▶ running ───────────────────────────────▶ ended
//!                                                  │ process died, something may be left
//!                                                  ▼
//!                                               orphan ── a process of the same user cleans ──▶ failed
//! ```
//!
//! Nobody is told of an end before the journal has it: until then the task is shown as it was.
//!
//! The work itself runs in the session process. A task is its user's: other users are told that there
//! is no such task, administrators see all. Ended tasks are kept for a while, and never more than a
//! thousand of one user.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ops::{Error, ErrorCode};
use tokio::time::Instant;

use super::journal::{self, Owner, Partial, Recorded};
use super::processes::ProcessId;
use crate::channel::{TaskEnd, TaskFacts};

/// Ended tasks of one user that are kept at most.
const KEPT_OF_USER: usize = 1000;

/// How often another process tries to remove what a task left.
const CLEANERS: u32 = 3;

/// Longest text of an error that is kept, in bytes.
const MAX_TEXT: usize = 8192;

/// Limits of tasks.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// `serverd.tasks.perUser`
    pub per_user: u32,
    /// `serverd.tasks.max`
    pub max: u32,
    /// `serverd.tasks.keep`
    pub keep: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self::from(&::link::settings::Tasks::default())
    }
}

impl From<&::link::settings::Tasks> for Limits {
    fn from(settings: &::link::settings::Tasks) -> Self {
        let keep = Duration::from_secs(u64::from(settings.keep));
        Limits { per_user: settings.per_user, max: settings.max, keep }
    }
}

/// Who carries a task forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hands {
    /// The process that works on it.
    Worker(ProcessId),
    /// Nobody: its process died and another is still to be found.
    Nobody,
    /// The process that removes what is left.
    Cleaner(ProcessId),
}

/// A task.
#[derive(Debug)]
struct Task {
    facts: TaskFacts,
    owner: Owner,
    partial: Option<Partial>,
    hands: Hands,
    cleaners: u32,
    stopping: bool,
    /// It has ended, and the journal is still to have that.
    telling: bool,
    /// When an ended task is forgotten.
    forget: Option<Instant>,
    /// When it began, if that was in the life of this core: the clock may be set while a task runs.
    begun: Option<Instant>,
}

impl Task {
    /// What is known of it, with how long it has run.
    fn shown(&self) -> TaskFacts {
        let seconds = match self.begun.filter(|_| self.is_open()) {
            Some(begun) => whole_seconds(begun.elapsed()),
            None => self.facts.end.saturating_sub(self.facts.start).max(0),
        };
        let facts = TaskFacts { seconds, ..self.facts.clone() };
        if self.telling { TaskFacts { state: TaskEnd::Running, end: 0, ..facts } } else { facts }
    }

    /// Whether it has not ended, as far as anybody is told.
    fn is_open(&self) -> bool {
        self.is_running() || self.telling
    }

    fn is_running(&self) -> bool {
        self.facts.state == TaskEnd::Running
    }
}

/// What is to be removed by a process of the owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// Number of the task.
    pub task: u64,
    /// Whose process it takes.
    pub owner: Owner,
    /// What is to be removed.
    pub partial: Partial,
}

/// A task that has ended, of which somebody is to be told.
#[derive(Debug)]
pub struct Ended {
    /// Number of the task.
    pub task: u64,
    /// Whose it is.
    pub owner: Owner,
    /// How it ended.
    pub end: TaskEnd,
    /// That is the word of the process that worked on it.
    pub claimed: bool,
}

/// All tasks.
#[derive(Debug)]
pub struct Tasks {
    limits: Limits,
    tasks: BTreeMap<u64, Task>,
    last: u64,
    /// Lines for the journal that are still to be handed to the writer.
    lines: Vec<String>,
    ends: Vec<Ended>,
}

impl Tasks {
    /// No tasks yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Tasks { limits, tasks: BTreeMap::new(), last: 0, lines: Vec::new(), ends: Vec::new() }
    }

    /// Takes over what the journal has of earlier runs. Tasks without an end were interrupted.
    /// Returns them with the lines of a new journal, which holds nothing that is too old.
    #[must_use]
    pub fn recover(limits: Limits, journal: &str) -> (Self, String) {
        let (recorded, last) = journal::read(journal);
        let mut tasks = Tasks { last, ..Self::new(limits) };
        let mut lines = String::new();
        let now = unix_now();
        if last > 0 {
            lines.push_str(&journal::last(last));
        }
        for (id, Recorded { facts, owner, partial }) in recorded {
            let ended = facts.state != TaskEnd::Running;
            // A clock that went back makes nothing older than it was at its end.
            let age = Duration::from_secs(u64::try_from(now.saturating_sub(facts.end)).unwrap_or(0));
            let left = limits.keep.checked_sub(age).unwrap_or_default();
            if ended && left.is_zero() {
                continue;
            }
            lines.push_str(&journal::begin(&facts, &owner, partial.as_ref()));
            if ended {
                lines.push_str(&journal::end(&facts));
            }
            let forget = ended.then(|| Instant::now() + left);
            let task = Task {
                facts,
                owner,
                partial,
                hands: Hands::Nobody,
                cleaners: 0,
                stopping: false,
                telling: false,
                forget,
                begun: None,
            };
            tasks.tasks.insert(id, task);
        }
        // Those that have nothing to clean are over at once.
        let over: Vec<u64> = tasks
            .tasks
            .iter()
            .filter(|(_, task)| task.is_running() && task.partial.is_none())
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            tasks.end(id, interrupted(""), false);
        }
        (tasks, lines)
    }

    /// How many run, are done, have failed, were stopped.
    #[must_use]
    pub fn counts(&self) -> [u64; 4] {
        let mut counts = [0; 4];
        let [running, done, failed, stopped] = &mut counts;
        for task in self.tasks.values() {
            *match task.facts.state {
                TaskEnd::Running => &mut *running,
                TaskEnd::Done => &mut *done,
                TaskEnd::Failed { .. } => &mut *failed,
                TaskEnd::Stopped => &mut *stopped,
            } += 1;
        }
        counts
    }

    /// Lines that the journal must have, one after the other.
    pub fn take_lines(&mut self) -> String {
        std::mem::take(&mut self.lines).concat()
    }

    /// Tasks that have ended since the last call. When the journal has the lines, [`Tasks::told`] shows it.
    pub fn take_ends(&mut self) -> Vec<Ended> {
        std::mem::take(&mut self.ends)
    }

    /// The journal has the end of a task.
    pub fn told(&mut self, id: u64) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.telling = false;
        }
    }

    /// A new task of a process; the line for the journal comes with its number. It counts from now
    /// on; [`Tasks::withdraw`] takes it back.
    ///
    /// # Errors
    /// -22 when the user, or all users together, have as many as they may.
    pub fn begin(
        &mut self,
        process: ProcessId,
        owner: &Owner,
        op: String,
        total: u64,
        partial: Option<Partial>,
    ) -> Result<(u64, String), Error> {
        self.expire();
        let running = || self.tasks.values().filter(|task| task.is_running());
        let of_user = running().filter(|task| task.owner.uid == owner.uid).count();
        let full = |what: &str, limit: u32| {
            let text = format!("{limit} unfinished tasks, the limit {what}: wait for one to end, or stop it");
            Error::with(ErrorCode::InsufficientResources, text)
        };
        if of_user >= self.limits.per_user as usize {
            return Err(full("serverd.tasks.perUser", self.limits.per_user));
        }
        if running().count() >= self.limits.max as usize {
            return Err(full("serverd.tasks.max", self.limits.max));
        }
        self.last += 1;
        let id = self.last;
        let user = owner.name.clone();
        let facts = TaskFacts {
            id,
            op,
            user,
            state: TaskEnd::Running,
            done: 0,
            total,
            start: unix_now(),
            end: 0,
            seconds: 0,
        };
        let begun = Some(Instant::now());
        let line = journal::begin(&facts, owner, partial.as_ref());
        let hands = Hands::Worker(process);
        let owner = owner.clone();
        let task = Task {
            facts,
            owner,
            partial,
            hands,
            cleaners: 0,
            stopping: false,
            telling: false,
            forget: None,
            begun,
        };
        self.tasks.insert(id, task);
        Ok((id, line))
    }

    /// A task that could not be written down has never been.
    pub fn withdraw(&mut self, id: u64) {
        self.tasks.remove(&id);
    }

    /// Whether a process works or cleans.
    #[must_use]
    pub fn needs(&self, process: ProcessId) -> bool {
        let has = |task: &Task| matches!(task.hands, Hands::Worker(id) | Hands::Cleaner(id) if id == process);
        self.tasks.values().any(|task| task.is_running() && has(task))
    }

    /// The running task that a process works on; an error when it is somebody else's.
    fn of_worker(&mut self, process: ProcessId, id: u64) -> Result<&mut Task, String> {
        match self.tasks.get_mut(&id) {
            Some(task) if task.hands == Hands::Worker(process) => Ok(task),
            _ => Err(format!("it speaks of task {id}, which is not its own")),
        }
    }

    /// A process says how far it is.
    ///
    /// # Errors
    /// When the task is not its own.
    pub fn progress(&mut self, process: ProcessId, id: u64, done: u64, total: u64) -> Result<(), String> {
        let task = self.of_worker(process, id)?;
        if task.is_running() {
            (task.facts.done, task.facts.total) = (done, total);
        }
        Ok(())
    }

    /// A process says that a task has ended.
    ///
    /// # Errors
    /// When the task is not its own, or it has not ended.
    pub fn ended(
        &mut self,
        process: ProcessId,
        id: u64,
        end: TaskEnd,
        done: u64,
        total: u64,
    ) -> Result<(), String> {
        let task = self.of_worker(process, id)?;
        if end == TaskEnd::Running || !task.is_running() {
            return Err(format!("it ended task {id} in no way"));
        }
        (task.facts.done, task.facts.total) = (done, total);
        // A stop that nobody asked for is that of the server.
        let end = if end == TaskEnd::Stopped && !task.stopping { interrupted("") } else { end };
        self.end(id, end, true);
        Ok(())
    }

    fn end(&mut self, id: u64, end: TaskEnd, claimed: bool) {
        let keep = self.limits.keep;
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.facts.state = match end {
            TaskEnd::Failed { code, mut text } => {
                let cut = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
                text.truncate(cut);
                TaskEnd::Failed { code, text }
            }
            other => other,
        };
        // No task ends before it began, nor years later than it did.
        let start = task.facts.start;
        task.facts.end = match task.begun {
            Some(begun) => start.saturating_add(whole_seconds(begun.elapsed())),
            None => unix_now().max(start),
        };
        task.hands = Hands::Nobody;
        task.telling = true;
        task.forget = Some(Instant::now() + keep);
        let line = journal::end(&task.facts);
        let uid = task.owner.uid;
        self.lines.push(line);
        let (owner, end) = (task.owner.clone(), task.facts.state.clone());
        self.ends.push(Ended { task: id, owner, end, claimed });
        let of_user = self.tasks.iter().filter(|(_, task)| task.owner.uid == uid && !task.is_running());
        let ended: Vec<u64> = of_user.map(|(id, _)| *id).collect();
        if ended.len() > KEPT_OF_USER
            && let Some(oldest) = ended.first()
        {
            self.forget(*oldest);
        }
    }

    fn forget(&mut self, id: u64) {
        if self.tasks.remove(&id).is_some() {
            self.lines.push(journal::forget(id));
        }
    }

    /// Forgets what has been kept long enough.
    fn expire(&mut self) {
        let now = Instant::now();
        let old = |task: &Task| task.forget.is_some_and(|forget| forget <= now);
        let old: Vec<u64> = self.tasks.iter().filter(|(_, task)| old(task)).map(|(id, _)| *id).collect();
        for id in old {
            self.forget(id);
        }
    }

    /// A process has died. Its tasks without anything to clean have failed.
    pub fn process_died(&mut self, process: ProcessId) {
        let mut over = Vec::new();
        for (id, task) in &mut self.tasks {
            let had = matches!(task.hands, Hands::Worker(hand) | Hands::Cleaner(hand) if hand == process);
            if task.is_running() && had {
                task.hands = Hands::Nobody;
                if task.partial.is_none() {
                    over.push(*id);
                }
            }
        }
        for id in over {
            self.end(id, interrupted(""), false);
        }
    }

    /// What other processes are to remove. A task that has been through too many hands is over.
    pub fn orphans(&mut self) -> Vec<Orphan> {
        let mut orphans = Vec::new();
        let mut over = Vec::new();
        for (id, task) in &mut self.tasks {
            if !task.is_running() || task.hands != Hands::Nobody {
                continue;
            }
            let Some(partial) = &task.partial else { continue };
            if task.cleaners >= CLEANERS {
                over.push((*id, format!("{}/{}*", partial.directory, partial.prefix)));
                continue;
            }
            task.cleaners += 1;
            orphans.push(Orphan { task: *id, owner: task.owner.clone(), partial: partial.clone() });
        }
        for (id, left) in over {
            self.end(id, interrupted(&left), false);
        }
        orphans
    }

    /// A process was told to clean.
    pub fn handed_to(&mut self, id: u64, process: ProcessId) {
        if let Some(task) = self.tasks.get_mut(&id) {
            task.hands = Hands::Cleaner(process);
        }
    }

    /// A process says that it has cleaned.
    ///
    /// # Errors
    /// When it was not told to.
    pub fn cleaned(&mut self, process: ProcessId, id: u64, left: &str) -> Result<(), String> {
        match self.tasks.get(&id) {
            Some(task) if task.hands == Hands::Cleaner(process) => {
                self.end(id, interrupted(left), false);
                Ok(())
            }
            _ => Err(format!("it cleaned task {id}, which it was not told to")),
        }
    }

    /// The task of that number if `uid` may know of it.
    fn visible(&mut self, uid: u32, admin: bool, id: u64) -> Result<&mut Task, Error> {
        self.expire();
        let visible = self.tasks.get_mut(&id).filter(|task| admin || task.owner.uid == uid);
        visible.ok_or_else(|| Error::no_such_task(id))
    }

    /// How a task is.
    ///
    /// # Errors
    /// `No such task`.
    pub fn status(&mut self, uid: u32, admin: bool, id: u64) -> Result<TaskFacts, Error> {
        Ok(self.visible(uid, admin, id)?.shown())
    }

    /// Tasks of a user, or all, newest first.
    pub fn list(&mut self, uid: u32, all: bool) -> Vec<TaskFacts> {
        self.expire();
        let shown = self.tasks.values().rev().filter(|task| all || task.owner.uid == uid);
        shown.map(Task::shown).collect()
    }

    /// Somebody wants a task to stop: the process to tell, or nothing when it has ended. A task whose
    /// process has died is being cleaned and will end by itself.
    ///
    /// # Errors
    /// `No such task`.
    pub fn stop(&mut self, uid: u32, admin: bool, id: u64) -> Result<Option<ProcessId>, Error> {
        let task = self.visible(uid, admin, id)?;
        if !task.is_running() {
            // Or is about to be told of: then there is nobody to tell either.
            return Ok(None);
        }
        task.stopping = true;
        Ok(match task.hands {
            Hands::Worker(process) => Some(process),
            Hands::Nobody | Hands::Cleaner(_) => None,
        })
    }

    /// Whether a task may be writing into a directory.
    #[must_use]
    pub fn is_at_work_in(&self, directory: Option<&Path>) -> bool {
        let there = |partial: &Partial| Some(Path::new(&partial.directory)) == directory;
        self.tasks.values().any(|task| task.is_running() && task.partial.as_ref().is_some_and(there))
    }

    /// Whether a task has not ended, as far as anybody is told.
    #[must_use]
    pub fn is_open(&self, id: u64) -> bool {
        self.tasks.get(&id).is_some_and(Task::is_open)
    }

    /// Forgets an ended task.
    ///
    /// # Errors
    /// `No such task`, or that it still runs.
    pub fn delete(&mut self, uid: u32, admin: bool, id: u64) -> Result<(), Error> {
        if self.visible(uid, admin, id)?.is_open() {
            return Err(Error::unspecified(format!("Task {id} is still running")));
        }
        self.forget(id);
        Ok(())
    }
}

/// The end of a task whose process or server died; `left` is what could not be removed.
fn interrupted(left: &str) -> TaskEnd {
    let code = ErrorCode::Unspecified.number();
    if left.is_empty() {
        return TaskEnd::Failed { code, text: "interrupted".into() };
    }
    TaskEnd::Failed { code, text: format!("interrupted; not removed: {left}") }
}

fn whole_seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Unix seconds.
pub(super) fn unix_now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(uid: u32) -> Owner {
        Owner { uid, gid: uid, groups: vec![uid], name: format!("u{uid}"), home: "/".into() }
    }

    fn partial() -> Option<Partial> {
        Some(Partial { directory: "/d".into(), prefix: ".p-".into() })
    }

    fn tasks() -> Tasks {
        Tasks::new(Limits { per_user: 2, max: 3, keep: Duration::from_secs(60) })
    }

    fn begin(tasks: &mut Tasks, process: ProcessId, uid: u32) -> Result<u64, Error> {
        tasks.begin(process, &owner(uid), "X".into(), 10, partial()).map(|(id, _)| id)
    }

    /// The journal has all ends; returns of which tasks.
    fn written(tasks: &mut Tasks) -> Vec<u64> {
        let ends: Vec<u64> = tasks.take_ends().into_iter().map(|end| end.task).collect();
        ends.iter().for_each(|id| tasks.told(*id));
        ends
    }

    #[tokio::test]
    async fn a_task_from_its_beginning_to_its_end() {
        let mut tasks = tasks();
        let id = begin(&mut tasks, 7, 1000).unwrap();
        tasks.progress(7, id, 4, 10).unwrap();
        assert!(tasks.is_at_work_in(Some(Path::new("/d/"))) && !tasks.is_at_work_in(Some(Path::new("/"))));
        let facts = tasks.status(1000, false, id).unwrap();
        assert_eq!((facts.done, facts.total, facts.state, facts.end), (4, 10, TaskEnd::Running, 0));
        assert!(tasks.needs(7) && !tasks.needs(8));
        assert_eq!(tasks.delete(1000, false, id).unwrap_err().text, "Task 1 is still running");
        tasks.ended(7, id, TaskEnd::Done, 10, 10).unwrap();
        // Whoever asks before the journal has it could find it interrupted later.
        assert_eq!(tasks.status(1000, false, id).unwrap().state, TaskEnd::Running);
        assert!(tasks.is_open(id) && tasks.delete(1000, false, id).is_err());
        assert_eq!((tasks.take_lines().lines().count(), written(&mut tasks)), (1, vec![id]));
        assert!(tasks.status(1000, false, id).unwrap().end > 0 && !tasks.is_open(id));
        assert_eq!(tasks.stop(1000, false, id), Ok(None));
        let forget = &mut tasks.tasks.get_mut(&id).unwrap().forget;
        let left = forget.unwrap() - Instant::now();
        assert!((50..=60).contains(&left.as_secs()), "{left:?}");
        *forget = Some(Instant::now());
        assert_eq!(tasks.status(1000, false, id).unwrap_err().text, "No such task: 1");
        assert_eq!(begin(&mut tasks, 7, 1000).unwrap(), 2, "numbers are not used again");
    }

    #[tokio::test]
    async fn other_users_know_nothing_and_administrators_everything() {
        let mut tasks = tasks();
        let id = begin(&mut tasks, 7, 1000).unwrap();
        for result in [tasks.status(1001, false, id).err(), tasks.stop(1001, false, id).err()] {
            assert_eq!(result.unwrap().text, "No such task: 1");
        }
        assert_eq!(tasks.list(1001, false), []);
        assert_eq!(tasks.list(0, true).len(), 1);
        assert_eq!(tasks.stop(0, true, id), Ok(Some(7)));
        tasks.ended(7, id, TaskEnd::Stopped, 1, 10).unwrap();
        written(&mut tasks);
        assert_eq!(tasks.status(1000, false, id).unwrap().state, TaskEnd::Stopped);
    }

    #[tokio::test]
    async fn limits_are_named() {
        let mut tasks = tasks();
        begin(&mut tasks, 7, 1000).unwrap();
        begin(&mut tasks, 7, 1000).unwrap();
        let error = begin(&mut tasks, 7, 1000).unwrap_err();
        assert_eq!(error.code, ErrorCode::InsufficientResources);
        assert!(error.text.contains("serverd.tasks.perUser"), "{error}");
        begin(&mut tasks, 8, 1001).unwrap();
        assert!(begin(&mut tasks, 8, 1001).unwrap_err().text.contains("serverd.tasks.max"));
        tasks.withdraw(3);
        begin(&mut tasks, 8, 1001).unwrap();
    }

    #[tokio::test]
    async fn a_process_cannot_speak_of_tasks_that_are_not_its_own() {
        let mut tasks = tasks();
        let id = begin(&mut tasks, 7, 1000).unwrap();
        assert!(tasks.progress(8, id, 1, 1).is_err());
        assert!(tasks.ended(8, id, TaskEnd::Done, 1, 1).is_err());
        assert!(tasks.ended(7, id, TaskEnd::Running, 1, 1).is_err());
        assert!(tasks.cleaned(7, id, "").is_err());
        tasks.ended(7, id, TaskEnd::Done, 1, 1).unwrap();
        assert!(tasks.ended(7, id, TaskEnd::Done, 1, 1).is_err());
        assert!(tasks.progress(7, 99, 1, 1).is_err());
    }

    #[tokio::test]
    async fn what_a_dead_process_left_is_cleaned_by_another() {
        let mut tasks = tasks();
        let id = begin(&mut tasks, 7, 1000).unwrap();
        tasks.process_died(7);
        for cleaner in 8..11 {
            assert_eq!(tasks.status(1000, false, id).unwrap().state, TaskEnd::Running);
            let orphans = tasks.orphans();
            assert_eq!((orphans.len(), orphans[0].task), (1, id));
            tasks.handed_to(id, cleaner);
            assert!(tasks.orphans().is_empty());
            tasks.process_died(cleaner);
        }
        assert!(tasks.orphans().is_empty());
        assert_eq!(written(&mut tasks), [id]);
        let TaskEnd::Failed { text, .. } = tasks.status(1000, false, id).unwrap().state else { panic!() };
        assert_eq!(text, "interrupted; not removed: /d/.p-*");

        let id = begin(&mut tasks, 7, 1000).unwrap();
        tasks.process_died(7);
        tasks.orphans();
        tasks.handed_to(id, 8);
        tasks.cleaned(8, id, "").unwrap();
        written(&mut tasks);
        let failed = TaskEnd::Failed { code: -999, text: "interrupted".into() };
        assert_eq!(tasks.status(1000, false, id).unwrap().state, failed);
    }

    #[tokio::test]
    async fn tasks_of_an_earlier_run_are_known() {
        let mut first = tasks();
        let mut journal = String::new();
        for uid in [1000, 1001, 1000] {
            journal.push_str(&first.begin(7, &owner(uid), "X".into(), 10, partial()).unwrap().1);
        }
        first.ended(7, 1, TaskEnd::Done, 10, 10).unwrap();
        journal.push_str(&first.take_lines());
        let (mut second, lines) = Tasks::recover(first.limits, &journal);
        assert_eq!(second.status(1000, false, 1).unwrap().state, TaskEnd::Done);
        assert_eq!(second.orphans().iter().map(|orphan| orphan.task).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(Tasks::recover(first.limits, &lines).1, lines, "a journal that is new stays as it is");
        assert_eq!(begin(&mut second, 7, 1001).unwrap(), 4, "numbers go on");
        // Without anything to clean it is over at once.
        let line = tasks().begin(7, &owner(1000), "X".into(), 10, None).unwrap().1;
        let (mut third, _) = Tasks::recover(first.limits, &line);
        assert_eq!(written(&mut third), [1]);
        assert!(matches!(third.status(0, true, 1).unwrap().state, TaskEnd::Failed { .. }));
        assert_eq!(third.take_lines().lines().count(), 1);
    }
}
