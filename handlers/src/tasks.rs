//! Work that outlives its request.
//!
//! A handler that finds its work too long for one reply gives it to [`Core::start_task`](crate::Core)
//! and answers with the number that comes back:
//!
//! ```text
//!   handler ── NewTask + work ──▶ session process ── begin ──▶ core: number, journal, limits
//!                                   │  thread of its own           ▲
//!                                   └─ work(&Progress) ── bytes ───┘ ── status, stop ── any session
//! ```
//!
//! The work runs in the session process, as the caller. It counts bytes and asks now and then whether
//! it should stop. Everything unfinished on disk must bear a name that begins with the task's
//! [`Partial::prefix`], directly in its directory: should the process die, the core has these names
//! removed by another process of the same user.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ops::Error;

/// Where a task leaves what it has not finished.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partial {
    /// Absolute path of a directory.
    pub directory: String,
    /// What the names in it begin with; at least 16 bytes, random, so that it is nobody else's.
    pub prefix: String,
}

/// What the core is told of a new task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTask {
    /// Name of the operation that made it.
    pub op: &'static str,
    /// Bytes to do, as far as known.
    pub total: u64,
    /// What to remove should the process die.
    pub partial: Option<Partial>,
}

/// How far a task is, and whether it should go on. Shared by the work, which counts, and whoever asks.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    total: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    /// Nothing done of `total` bytes.
    #[must_use]
    pub fn new(total: u64) -> Self {
        Progress { total: AtomicU64::new(total), ..Progress::default() }
    }

    /// Counts `bytes` as done.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Corrects the number of bytes to do.
    pub fn set_total(&self, bytes: u64) {
        self.total.store(bytes, Ordering::Relaxed);
    }

    /// Bytes done.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Bytes to do in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Asks the work to stop.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the work should remove what it has not finished and return; any error will do.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

impl Partial {
    /// Removes everything in the directory whose name begins with the prefix, as the caller, however
    /// deep it is and whatever rights its directories have. No link is followed.
    ///
    /// # Errors
    /// The first that cannot be removed; a directory that is gone has nothing left in it.
    pub fn remove(&self) -> io::Result<()> {
        crate::partial::remove(self)
    }
}

/// How a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// At work.
    Running,
    /// All is done.
    Done,
    /// It has failed.
    Failed,
    /// It was stopped.
    Stopped,
}

/// A task, as the core knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its number.
    pub id: u64,
    /// Name of the operation that made it.
    pub op: String,
    /// Login name of whoever started it.
    pub user: String,
    /// How it is.
    pub state: State,
    /// Bytes done.
    pub done: u64,
    /// Bytes to do in all.
    pub total: u64,
    /// Unix seconds.
    pub start: i64,
    /// Unix seconds; `None` while it runs.
    pub end: Option<i64>,
    /// Seconds that it has run so far, or ran, whatever the clock was set to meanwhile.
    pub seconds: i64,
    /// Number and text of the error of a task that has failed.
    pub error: Option<(i32, String)>,
}

/// The work of a task. An error after [`Progress::stop`] means that it has stopped as it was told.
pub type Work = Box<dyn FnOnce(&Progress) -> Result<(), Error> + Send>;
