//! Which machines are registered.
//!
//! The files `vm-list` and `vm-list-private` are the truth; this is their index in memory. A change
//! counts when it is on the disk ([`super::store`]), and whoever asked for it is told only then.
//!
//! Session processes keep copies. Each change makes a new *version*, whose number stands in a page
//! that every session process has mapped ([`News`]): whoever finds the number of his copy there need
//! not ask. Otherwise he asks for what has changed, of which the last thousand changes are kept.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::link::vm_list::VmList;
use hypervisor::control::HostClass;
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};

use super::store;
use crate::channel::Change;
use crate::sys::NEWS_BYTES;

/// Changes that are kept for session processes with an older copy.
const KEPT_CHANGES: usize = 1024;

/// A registered machine.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    config: Arc<str>,
    private: bool,
}

/// The registered machines.
#[derive(Debug)]
pub struct Inventory {
    /// In the order of the lists.
    entries: BTreeMap<u64, Entry>,
    places: HashMap<Arc<str>, u64>,
    next: u64,
    version: u64,
    /// The version that a change made, and the change.
    changes: VecDeque<(u64, Change)>,
    news: News,
}

impl Inventory {
    /// No machines.
    ///
    /// # Errors
    /// When there is no memory for the page of news.
    pub fn new() -> io::Result<Self> {
        let mut inventory = Inventory {
            entries: BTreeMap::new(),
            places: HashMap::new(),
            next: 0,
            version: 0,
            changes: VecDeque::new(),
            news: News::new()?,
        };
        // 0 is the version of whoever has nothing.
        inventory.publish();
        Ok(inventory)
    }

    /// Reads the lists; one that does not exist is empty.
    ///
    /// # Errors
    /// As `read(2)`; the text names the file.
    pub fn load(public: &Path, private: &Path) -> io::Result<Self> {
        let mut inventory = Self::new()?;
        for (path, private) in [(public, false), (private, true)] {
            let bytes = match store::read_list(path) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(::link::layout::describe(&error, "cannot read", path)),
            };
            let list = VmList::parse(&bytes);
            if list.torn() > 0 {
                tracing::warn!(
                    "{}: the last {} bytes are no whole line and are ignored",
                    path.display(),
                    list.torn()
                );
            }
            for config in list.configs() {
                inventory.put(config, private);
            }
        }
        inventory.changes.clear();
        Ok(inventory)
    }

    /// How many machines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether a machine is registered.
    #[must_use]
    pub fn contains(&self, config: &str) -> bool {
        self.places.contains_key(config)
    }

    /// Paths of all .vmx files.
    pub fn configs(&self) -> impl Iterator<Item = String> {
        self.entries.values().map(|entry| entry.config.to_string())
    }

    /// Takes a machine in; one that is there stays as it is.
    pub fn put(&mut self, config: &str, private: bool) {
        if self.contains(config) {
            return;
        }
        let config: Arc<str> = config.into();
        self.places.insert(Arc::clone(&config), self.next);
        self.entries.insert(self.next, Entry { config: Arc::clone(&config), private });
        self.next += 1;
        self.changed(Change { config: config.to_string(), there: true, private });
    }

    /// Takes a machine out.
    pub fn remove(&mut self, config: &str) {
        let Some(place) = self.places.remove(config) else { return };
        self.entries.remove(&place);
        self.changed(Change { config: config.to_owned(), there: false, private: false });
    }

    fn changed(&mut self, change: Change) {
        self.publish();
        self.changes.push_back((self.version, change));
        if self.changes.len() > KEPT_CHANGES {
            self.changes.pop_front();
        }
    }

    fn publish(&mut self) {
        self.version += 1;
        self.news.publish(self.version);
    }

    /// Brings a copy up to date: the version that it then has, whether it is to be emptied first,
    /// and the changes.
    pub fn since(&self, known: u64) -> (u64, bool, Vec<Change>) {
        let first_kept = self.changes.front().map_or(self.version + 1, |(version, _)| *version);
        if known > 0 && known <= self.version && known + 1 >= first_kept {
            let later = self.changes.iter().filter(|(version, _)| *version > known);
            return (self.version, false, later.map(|(_, change)| change.clone()).collect());
        }
        let change =
            |entry: &Entry| Change { config: entry.config.to_string(), there: true, private: entry.private };
        (self.version, true, self.entries.values().map(change).collect())
    }

    /// Whether a machine is registered as private.
    pub fn is_private(&self, config: &str) -> bool {
        let entry = self.places.get(config).and_then(|place| self.entries.get(place));
        entry.is_some_and(|entry| entry.private)
    }

    /// Publishes how many machines have a process.
    pub fn publish_running(&self, count: u64) {
        self.news.running.store(count, Ordering::Release);
    }

    /// Publishes how the host runs guests.
    pub fn publish_host(&self, host: HostClass) {
        self.news.host.store(crate::channel::host_number(host), Ordering::Release);
    }

    /// The page of news, for a new session process.
    ///
    /// # Errors
    /// As `dup(2)`.
    pub fn news(&self) -> io::Result<OwnedFd> {
        self.news.page.try_clone()
    }
}

/// A page in which the core publishes the version of the inventory, the number of machines that have a
/// process, and the kind of the host. Nobody else can write there.
#[derive(Debug)]
struct News {
    page: OwnedFd,
    version: &'static AtomicU64,
    running: &'static AtomicU64,
    host: &'static AtomicU64,
}

impl News {
    fn new() -> io::Result<Self> {
        let page = memfd_create("vmserverd-news", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&page, NEWS_BYTES as u64)?;
        // Our own mapping is made before the seal that forbids any further one for writing.
        let [version, running, host] = crate::sys::map_publishing(&page)?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE | SealFlags::SEAL;
        fcntl_add_seals(&page, seals)?;
        Ok(News { page, version, running, host })
    }

    fn publish(&self, version: u64) {
        self.version.store(version, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inventory(configs: &[&str]) -> Inventory {
        let mut inventory = Inventory::new().unwrap();
        for config in configs {
            inventory.put(config, false);
        }
        inventory
    }

    fn names(changes: &[Change]) -> Vec<(&str, bool)> {
        changes.iter().map(|change| (change.config.as_str(), change.there)).collect()
    }

    #[test]
    fn both_lists_are_read_and_the_first_of_two_lines_counts() {
        let directory = tempfile::tempdir().unwrap();
        let (public, private) = (directory.path().join("vm-list"), directory.path().join("p"));
        std::fs::write(&public, "config \"/a.vmx\"\nconfig \"/b.vmx\"\nconfig \"/a.vmx\"\n").unwrap();
        std::fs::write(&private, "config \"/b.vmx\"\nconfig \"/c.vmx\"\nconfig \"/d.v").unwrap();
        let inventory = Inventory::load(&public, &private).unwrap();
        let (_, anew, all) = inventory.since(0);
        assert!(anew);
        let all: Vec<_> = all.iter().map(|change| (change.config.as_str(), change.private)).collect();
        assert_eq!(all, [("/a.vmx", false), ("/b.vmx", false), ("/c.vmx", true)]);
        assert!(Inventory::load(Path::new("/no"), Path::new("/no")).unwrap().is_empty());
        assert!(Inventory::load(directory.path(), Path::new("/no")).is_err());
    }

    #[test]
    fn a_copy_is_brought_up_to_date_by_what_has_changed() {
        let mut inventory = inventory(&["/a.vmx", "/b.vmx"]);
        let (version, anew, _) = inventory.since(0);
        assert!(anew);
        assert_eq!(inventory.since(version), (version, false, Vec::new()));
        inventory.remove("/a.vmx");
        inventory.put("/c.vmx", true);
        inventory.put("/c.vmx", false);
        let (next, anew, changes) = inventory.since(version);
        assert_eq!(
            (next, anew, names(&changes)),
            (version + 2, false, vec![("/a.vmx", false), ("/c.vmx", true)])
        );
        assert_eq!(inventory.len(), 2);
    }

    #[test]
    fn whoever_has_slept_too_long_gets_everything() {
        let mut inventory = inventory(&["/a.vmx"]);
        let (version, ..) = inventory.since(0);
        for number in 0..=KEPT_CHANGES {
            inventory.put(&format!("/{number}.vmx"), false);
        }
        let (_, anew, all) = inventory.since(version);
        assert!(anew);
        assert_eq!(all.len(), KEPT_CHANGES + 2);
        assert!(!inventory.since(version + 1).1);
        // A version of the future, such as that of another server.
        assert!(inventory.since(u64::MAX).1);
    }

    #[test]
    fn the_news_are_read_by_everybody_and_written_by_nobody_else() {
        let mut inventory = inventory(&[]);
        let page = inventory.news().unwrap();
        let [seen, running, host] = crate::sys::map_published(&page).unwrap();
        let before = seen.load(Ordering::Acquire);
        inventory.put("/a.vmx", false);
        assert_eq!(seen.load(Ordering::Acquire), before + 1);
        inventory.publish_running(7);
        let published = || crate::channel::published_host(host.load(Ordering::Acquire));
        assert_eq!(published(), None);
        for class in HostClass::ALL {
            inventory.publish_host(class);
            assert_eq!(published(), Some(class));
        }
        assert_eq!(running.load(Ordering::Acquire), 7);
        assert!(rustix::io::pwrite(&page, b"12345678", 0).is_err());
        assert!(crate::sys::map_counter(&page, 1).is_err());
    }
}
