//! The last events of the server, and who waits for the next one.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use handlers::running::{Happened, ServerEvent};

use crate::core::questions::Asker;
use crate::core::tasks::unix_now;

/// Events that are kept.
const KEPT: usize = 10_000;

/// Waiting questions of one process.
const MAX_WAITING: usize = 16 * 1024;

/// The longest wait.
pub const MAX_WAIT: Duration = Duration::from_secs(60);

/// Who asks for events, and for which.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Who asks.
    pub asker: Asker,
    /// Uid of his.
    pub uid: u32,
    /// He sees events of all users.
    pub admin: bool,
    /// Number of the first event.
    pub since: u64,
    /// At most so many.
    pub max: usize,
}

/// What somebody gets.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// See [`handlers::running::EventBatch`].
    pub next: u64,
    /// Events were missed.
    pub lost: bool,
    /// The events.
    pub events: Vec<ServerEvent>,
}

/// The last events.
#[derive(Debug)]
pub struct Ring {
    /// Changes with every start of the core.
    pub epoch: u64,
    next: u64,
    /// With the only user who may see it, if it is not for all.
    events: VecDeque<(Option<u32>, ServerEvent)>,
    waiting: Vec<Wanted>,
}

impl Default for Ring {
    fn default() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let epoch = u64::try_from(now.as_micros()).unwrap_or(1);
        Ring { epoch, next: 1, events: VecDeque::new(), waiting: Vec::new() }
    }
}

impl Ring {
    /// Takes in an event; who has waited for one is in the result and is answered by the caller.
    #[must_use]
    pub fn push(&mut self, only: Option<u32>, config: &str, what: Happened) -> Vec<Wanted> {
        let event = ServerEvent { sequence: self.next, time: unix_now(), config: config.to_owned(), what };
        self.next += 1;
        if self.events.len() >= KEPT {
            self.events.pop_front();
        }
        self.events.push_back((only, event));
        let sees = |wanted: &Wanted| {
            wanted.since < self.next && (wanted.admin || only.is_none_or(|uid| uid == wanted.uid))
        };
        let (told, waiting) = std::mem::take(&mut self.waiting).into_iter().partition(sees);
        self.waiting = waiting;
        told
    }

    /// What there is from a number on.
    #[must_use]
    pub fn since(&self, wanted: &Wanted) -> Batch {
        let oldest = self.events.front().map_or(self.next, |(_, event)| event.sequence);
        let lost = wanted.since < oldest || wanted.since > self.next;
        let since = if lost { oldest } else { wanted.since };
        let skip = usize::try_from(since.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let mut batch = Batch { next: self.next, lost, events: Vec::new() };
        for (only, event) in self.events.iter().skip(skip) {
            if batch.events.len() >= wanted.max {
                batch.next = event.sequence;
                break;
            }
            if wanted.admin || only.is_none_or(|uid| uid == wanted.uid) {
                batch.events.push(event.clone());
            }
        }
        batch
    }

    /// Nothing but where to go on.
    #[must_use]
    pub fn now(&self) -> Batch {
        Batch { next: self.next, lost: false, events: Vec::new() }
    }

    /// Lets somebody wait; false when too many of that process do.
    pub fn wait(&mut self, wanted: Wanted) -> bool {
        let process = wanted.asker.process;
        if self.waiting.iter().filter(|one| one.asker.process == process).count() >= MAX_WAITING {
            return false;
        }
        self.waiting.push(wanted);
        true
    }

    /// Somebody who has waited long enough, if he still does.
    pub fn give_up(&mut self, asker: &Asker) -> Option<Wanted> {
        let at = self.waiting.iter().position(|one| one.asker == *asker)?;
        Some(self.waiting.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asker(question: u64) -> Asker {
        Asker { process: 1, question, by: std::sync::Arc::default() }
    }

    fn wanted(question: u64, uid: u32, since: u64, max: usize) -> Wanted {
        Wanted { asker: asker(question), uid, admin: uid == 0, since, max }
    }

    #[test]
    fn events_are_numbered_kept_and_seen_by_whom_they_concern() {
        let mut ring = Ring::default();
        assert_eq!(ring.now().next, 1);
        assert!(ring.wait(wanted(1, 7, 1, 9)) && ring.wait(wanted(2, 0, 1, 9)));
        let told = ring.push(Some(8), "", Happened::Task { task: 1, state: "done".into(), percent: 100 });
        assert_eq!(told.iter().map(|one| one.asker.question).collect::<Vec<_>>(), [2]);
        let told = ring.push(None, "/a", Happened::Registered {});
        assert_eq!(told.iter().map(|one| one.asker.question).collect::<Vec<_>>(), [1]);
        let batch = ring.since(&wanted(1, 7, 1, 9));
        assert_eq!((batch.next, batch.lost, batch.events.len(), batch.events[0].sequence), (3, false, 1, 2));
        let batch = ring.since(&wanted(1, 0, 1, 1));
        assert_eq!((batch.next, batch.events.len()), (2, 1));
        assert!(ring.since(&wanted(1, 0, 99, 1)).lost);
        for _ in 0..KEPT {
            let _ = ring.push(None, "/a", Happened::Snapshot {});
        }
        let batch = ring.since(&wanted(1, 0, 1, usize::MAX));
        assert_eq!((batch.lost, batch.events.len(), batch.events[0].sequence), (true, KEPT, 3));
        assert!(ring.wait(wanted(3, 7, 99_999, 9)));
        assert!(ring.give_up(&asker(3)).is_some());
        assert!(ring.give_up(&asker(3)).is_none());
    }
}
