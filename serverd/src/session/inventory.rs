//! A session process's copy of the list of registered machines.
//!
//! Whether it is up to date is one look at the page of news. If not, the core is asked for what has
//! changed. A list that somebody still reads is not touched: he has the list of his moment.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use handlers::registered::Registered;

use crate::channel::{Answer, Change};

/// The copy.
#[derive(Debug)]
pub struct Copy {
    /// The version of the core's list.
    news: &'static AtomicU64,
    latest: Mutex<(u64, Arc<Registered>)>,
    /// Held by whoever asks the core: one question at a time.
    pub asking: tokio::sync::Mutex<()>,
}

impl Copy {
    /// An empty copy, older than any version that the core publishes in `news`.
    #[must_use]
    pub fn new(news: &'static AtomicU64) -> Self {
        Copy { news, latest: Mutex::default(), asking: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Arc<Registered>)> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list if nothing has changed since it was made.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Registered>> {
        let latest = self.lock();
        (latest.0 == self.news.load(Ordering::Acquire)).then(|| Arc::clone(&latest.1))
    }

    /// Its version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.lock().0
    }

    /// Takes in the answer to a question that was asked with [`Copy::version`].
    pub fn update(&self, pieces: Vec<Answer>) -> Arc<Registered> {
        let mut latest = self.lock();
        for piece in pieces {
            let Answer::Inventory { version, anew, changes } = piece else { continue };
            if anew {
                latest.1 = Arc::default();
            }
            let list = Arc::make_mut(&mut latest.1);
            for Change { config, there, private } in changes {
                if there { list.put(config, private) } else { list.remove(&config) }
            }
            latest.0 = version;
        }
        Arc::clone(&latest.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(config: &str, there: bool) -> Change {
        Change { config: config.into(), there, private: false }
    }

    #[test]
    fn a_copy_follows_and_old_readers_keep_what_they_have() {
        let news = Box::leak(Box::new(AtomicU64::new(3)));
        let copy = Copy::new(news);
        assert!(copy.current().is_none());
        let pieces = vec![
            Answer::Inventory { version: 3, anew: true, changes: vec![change("/a", true)] },
            Answer::Inventory { version: 3, anew: false, changes: vec![change("/b", true)] },
        ];
        let before = copy.update(pieces);
        assert_eq!((before.len(), copy.version()), (2, 3));
        assert!(copy.current().is_some());
        news.store(4, Ordering::Release);
        assert!(copy.current().is_none());
        copy.update(vec![Answer::Inventory { version: 4, anew: false, changes: vec![change("/a", false)] }]);
        assert_eq!((copy.current().unwrap().len(), before.len()), (1, 2));
    }
}
