//! Work that outlives its request: a thread for each task, and news of it for the core.
//!
//! ```text
//!   core's answer to BeginTask ─▶ start ─▶ thread: work(&Progress) ─▶ TaskEnded ──┐
//!                                               │ counts                          ├─▶ news() ─▶ core
//!                                               └── every 100 ms: Progress ───────┘
//! ```
//!
//! A task ends by itself, when it is told to stop, or with the process, which then tells all of them
//! to stop and waits for a while.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use handlers::tasks::{Partial, Progress, Work};
use ops::{Error, ErrorCode};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::channel::{TaskEnd, ToCore};

/// How often the core is told how far tasks are.
const REPORT_EVERY: Duration = Duration::from_millis(100);

/// How far a task stands back behind requests, of all users, when the processors are busy.
const TASK_NICE: i32 = 10;

/// Stack of a task's thread, in bytes.
const STACK: usize = 512 * 1024;

/// The tasks of the process.
#[derive(Debug)]
pub struct Tasks {
    running: Mutex<Running>,
    ends: mpsc::UnboundedSender<ToCore>,
    /// Only the main loop listens.
    news: tokio::sync::Mutex<mpsc::UnboundedReceiver<ToCore>>,
}

#[derive(Debug, Default)]
struct Running {
    tasks: BTreeMap<u64, Task>,
    cleaning: usize,
    stopping: bool,
    /// When to report next; none while there is nothing to report.
    next: Option<Instant>,
}

#[derive(Debug)]
struct Task {
    progress: Arc<Progress>,
    reported: (u64, u64),
}

impl Default for Tasks {
    fn default() -> Self {
        let (ends, news) = mpsc::unbounded_channel();
        Tasks { running: Mutex::default(), ends, news: tokio::sync::Mutex::new(news) }
    }
}

impl Tasks {
    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing runs and nothing is cleaned. What was there last may still have to be told.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let running = self.lock();
        running.tasks.is_empty() && running.cleaning == 0
    }

    /// Starts the work of a task that the core has numbered.
    pub fn start(self: &Arc<Self>, id: u64, total: u64, work: Work) {
        let progress = Arc::new(Progress::new(total));
        let mut running = self.lock();
        if running.stopping {
            progress.stop();
        }
        running.tasks.insert(id, Task { progress: Arc::clone(&progress), reported: (0, total) });
        running.next.get_or_insert_with(|| Instant::now() + REPORT_EVERY);
        drop(running);
        let tasks = Arc::clone(self);
        let run = move || {
            // This thread's alone, as Linux has it: requests are answered first when there is not enough for
            // both. A thread that cannot lower itself copies all the same.
            let _ = rustix::process::nice(TASK_NICE);
            let result = catch_unwind(AssertUnwindSafe(|| work(&progress)));
            tasks.ended(id, &progress, result.unwrap_or_else(|_| Err(Error::internal(format!("task {id}")))));
        };
        if let Err(error) = std::thread::Builder::new().name("task".into()).stack_size(STACK).spawn(run) {
            let why = Error::with(ErrorCode::InsufficientResources, format!("no further thread: {error}"));
            self.ended(id, &Progress::new(total), Err(why));
        }
    }

    fn ended(&self, task: u64, progress: &Progress, result: Result<(), Error>) {
        let end = match result {
            Ok(()) => TaskEnd::Done,
            Err(_) if progress.is_stopped() => TaskEnd::Stopped,
            Err(error) => TaskEnd::Failed { code: error.code.number(), text: error.text },
        };
        let (done, total) = (progress.done(), progress.total());
        // Both at once: whoever sees no task must find its end among the news, and nothing may be reported of a
        // task behind its end, for which the core would end this process.
        let mut running = self.lock();
        running.tasks.remove(&task);
        let _ = self.ends.send(ToCore::TaskEnded { task, end, done, total });
    }

    /// Tells a task to stop.
    pub fn stop(&self, id: u64) {
        if let Some(task) = self.lock().tasks.get(&id) {
            task.progress.stop();
        }
    }

    /// Tells all tasks to stop, those that are still to start included.
    pub fn stop_all(&self) {
        let mut running = self.lock();
        running.stopping = true;
        for task in running.tasks.values() {
            task.progress.stop();
        }
    }

    /// Removes what a dead process of this user left.
    pub fn clean(self: &Arc<Self>, task: u64, partial: Partial) {
        self.lock().cleaning += 1;
        let tasks = Arc::clone(self);
        tokio::task::spawn_blocking(move || {
            let left = match partial.remove() {
                Ok(()) => String::new(),
                Err(error) => format!("{}/{}*: {error}", partial.directory, partial.prefix),
            };
            let _ = tasks.ends.send(ToCore::Cleaned { task, left });
            tasks.lock().cleaning -= 1;
        });
    }

    /// What the core should be told next. Safe to drop while it waits.
    pub async fn news(&self) -> ToCore {
        let mut news = self.news.lock().await;
        loop {
            let next = self.lock().next;
            let report = async {
                match next {
                    Some(next) => sleep_until(next).await,
                    // A task that starts makes the main loop turn, and this is asked again.
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(message) = news.recv() => return message,
                () = report => {
                    if let Some(message) = self.report() {
                        return message;
                    }
                }
            }
        }
    }

    /// The next piece of progress that the core does not know. When there is none, the time of the
    /// next look is set.
    fn report(&self) -> Option<ToCore> {
        let mut running = self.lock();
        for (id, task) in &mut running.tasks {
            let now = (task.progress.done(), task.progress.total());
            if now != task.reported {
                task.reported = now;
                return Some(ToCore::Progress { task: *id, done: now.0, total: now.1 });
            }
        }
        running.next = (!running.tasks.is_empty()).then(|| Instant::now() + REPORT_EVERY);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[tokio::test]
    async fn a_task_reports_and_ends() {
        let tasks = Arc::new(Tasks::default());
        let (go, wait) = channel::<()>();
        tasks.start(
            5,
            10,
            Box::new(move |progress| {
                progress.add(4);
                wait.recv().ok();
                progress.add(6);
                Ok(())
            }),
        );
        assert_eq!(tasks.news().await, ToCore::Progress { task: 5, done: 4, total: 10 });
        go.send(()).unwrap();
        let mut last = tasks.news().await;
        if matches!(last, ToCore::Progress { .. }) {
            last = tasks.news().await;
        }
        assert_eq!(last, ToCore::TaskEnded { task: 5, end: TaskEnd::Done, done: 10, total: 10 });
    }

    fn until_stopped(progress: &Progress) -> Result<(), Error> {
        while !progress.is_stopped() {
            std::thread::yield_now();
        }
        Err(Error::unspecified("whatever"))
    }

    #[tokio::test]
    async fn tasks_stop_when_told_and_with_the_process() {
        let tasks = Arc::new(Tasks::default());
        tasks.start(1, 0, Box::new(until_stopped));
        tasks.stop(1);
        let stopped = |task| ToCore::TaskEnded { task, end: TaskEnd::Stopped, done: 0, total: 0 };
        assert_eq!(tasks.news().await, stopped(1));
        tasks.start(2, 0, Box::new(until_stopped));
        tasks.stop_all();
        assert_eq!(tasks.news().await, stopped(2));
        tasks.start(3, 0, Box::new(until_stopped));
        assert_eq!(tasks.news().await, stopped(3));
    }

    #[tokio::test]
    async fn failures_and_panics_are_ends() {
        let tasks = Arc::new(Tasks::default());
        tasks.start(1, 0, Box::new(|_| Err(Error::no_access("/x"))));
        let ToCore::TaskEnded { end, .. } = tasks.news().await else { panic!() };
        assert_eq!(end, TaskEnd::Failed { code: -4, text: "Permission denied: /x".into() });
        tasks.start(2, 0, Box::new(|_| panic!("as ordered")));
        let ToCore::TaskEnded { end: TaskEnd::Failed { text, .. }, .. } = tasks.news().await else {
            panic!()
        };
        assert_eq!(text, "Internal error (request task 2)");
    }

    #[tokio::test]
    async fn what_was_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let prefix = ".vmserverd-0123456789abcdef-";
        std::fs::create_dir(directory.path().join(format!("{prefix}1"))).unwrap();
        std::fs::write(directory.path().join(format!("{prefix}1/file")), "half").unwrap();
        std::fs::write(directory.path().join(format!("{prefix}2")), "half").unwrap();
        std::fs::write(directory.path().join("other"), "whole").unwrap();
        let tasks = Arc::new(Tasks::default());
        let partial = Partial { directory: directory.path().to_str().unwrap().into(), prefix: prefix.into() };
        tasks.clean(9, partial.clone());
        assert_eq!(tasks.news().await, ToCore::Cleaned { task: 9, left: String::new() });
        let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        tasks.clean(9, Partial { directory: "/nowhere/at/all".into(), ..partial });
        assert_eq!(tasks.news().await, ToCore::Cleaned { task: 9, left: String::new() }, "gone is gone");
    }
}
