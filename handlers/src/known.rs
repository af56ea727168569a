//! Machines that are known to be unchanged since they were last looked at.
//!
//! To look at a .vmx as its user takes some ten system calls; to list ten thousand machines, a hundred
//! thousand. So what was found is kept until the kernel says that something has happened to it:
//!
//! ```text
//!   the .vmx itself          written, rights or owner changed, moved, deleted  ─▶ forgotten
//!   names on its path        created, moved, deleted, rights changed           ─▶ forgotten
//!   too much has happened    the queue has overflowed                          ─▶ all forgotten
//! ```
//!
//! The watches are placed before the file is read, so that nothing can change unseen. Where they cannot
//! be placed (no right to read a directory on the path, no watch left, a link on the path) or tell only
//! half (a file system of the network), nothing is kept and every look is a real one. What is kept is
//! the process's own, so it is seen with the rights of one user.

use std::collections::HashMap;
use std::ffi::OsString;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use ops::machine::ListedVm;
use ops::value::{ConfigPath, Element};
use ops::vm_info::VmInfo;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use tokio::sync::Notify;

use crate::machine::{Facts, Machine, Seen};
use crate::{Core, User};

/// What happens to a .vmx.
const OF_FILE: WatchFlags = WatchFlags::MODIFY
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::DONT_FOLLOW);

/// What happens to names in a directory on its path, and to the directory.
const OF_DIRECTORY: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::DELETE)
    .union(WatchFlags::MOVED_FROM)
    .union(WatchFlags::MOVED_TO)
    .union(WatchFlags::CLOSE_WRITE)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::ONLYDIR)
    .union(WatchFlags::DONT_FOLLOW);

/// Machines that are forgotten one by one; beyond it is cheaper to start anew.
const MANY: usize = 256;

/// File systems that only this machine changes, by the numbers of `statfs(2)`: ext, XFS, Btrfs, tmpfs,
/// overlay, F2FS, ZFS.
const LOCAL: [u64; 7] =
    [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0x794c_7630, 0xf2f5_2010, 0x2fc1_2fc1];

/// A .vmx at one moment: device, inode, size, and time of the last change of its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(u64, u64, u64, i64, i64);

impl Mark {
    /// The mark of a file.
    pub(crate) fn of(file: &std::fs::Metadata) -> Self {
        Mark(file.dev(), file.ino(), file.size(), file.mtime(), file.mtime_nsec())
    }
}

/// What is kept of a machine.
#[derive(Debug)]
pub(crate) struct Known {
    /// Which file it was, and how it was.
    pub(crate) mark: Mark,
    /// Everything, as of a machine that has no process.
    pub(crate) info: VmInfo,
    /// Whether that includes if there are snapshots: the caller saw it, or the machine's process has told.
    pub(crate) sure: bool,
    /// Uid of the owner of the .vmx.
    pub(crate) owner: u32,
    /// Whether the caller may operate it.
    pub(crate) execute: bool,
    /// Its element in a list, as of a machine that has no process.
    pub(crate) listed: Arc<[u8]>,
}

impl Known {
    fn of(machine: &Machine) -> Self {
        let facts = Facts::of(machine, None);
        let listed = ListedVm { config: machine.config.clone(), details: facts.details(machine) };
        let Seen { info, sure } = facts.info(machine);
        let mut bytes = Vec::new();
        listed.write_element("vm", &mut ops::Out::new(&mut bytes));
        Known {
            mark: Mark::of(&machine.metadata),
            info,
            sure,
            owner: machine.metadata.uid(),
            execute: machine.rights.execute,
            listed: bytes.into(),
        }
    }
}

/// The machines that are kept.
#[derive(Debug)]
pub(crate) struct Cache {
    inner: Mutex<Inner>,
    /// Raised when there are changes to tell, or another queue to read them from.
    news: Notify,
}

/// The one of this process.
pub(crate) static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache {
    inner: Mutex::new(Inner { inotify: queue(), ..Inner::default() }),
    news: Notify::new(),
});

/// A queue in which nothing has happened.
fn queue() -> Option<Arc<OwnedFd>> {
    inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok().map(Arc::new)
}

#[derive(Debug, Default)]
struct Inner {
    /// None when there can be no further one; then nothing is kept.
    inotify: Option<Arc<OwnedFd>>,
    kept: HashMap<Arc<str>, Slot>,
    files: HashMap<i32, Arc<str>>,
    directories: HashMap<PathBuf, i32>,
    /// Whether somebody wants to know what has changed.
    wanted: bool,
    /// What has changed, and how it was before.
    changed: HashMap<Arc<str>, Mark>,
    /// How machines were that are not kept any more, while somebody wants to know: a change that no watch
    /// has seen shows when they are looked at again.
    last: HashMap<Arc<str>, Mark>,
    /// Machines whose path has this name in the watched directory.
    names: HashMap<i32, HashMap<OsString, Vec<Arc<str>>>>,
}

/// A machine whose watches stand.
#[derive(Debug)]
struct Slot {
    file: i32,
    /// None while it is being looked at.
    known: Option<Arc<Known>>,
}

impl Cache {
    /// Takes in what has happened, and wakes whoever wants to know.
    fn catch_up(&self, inner: &mut Inner) {
        let before = inner.inotify.clone();
        inner.drain();
        let same = match (&before, &inner.inotify) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => false,
        };
        if !inner.changed.is_empty() || !same {
            self.news.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something has happened to machines that were kept, and says to which, with the marks
    /// that they had. It may be nothing: whoever looks finds the same mark. Only what happens after the
    /// first call is told. `core` knows how to wait.
    pub(crate) async fn changes(&self, core: &dyn Core) -> HashMap<Arc<str>, Mark> {
        loop {
            let mut news = pin!(self.news.notified());
            news.as_mut().enable();
            let queue = {
                let mut inner = self.lock();
                inner.wanted = true;
                inner.drain();
                if !inner.changed.is_empty() {
                    return std::mem::take(&mut inner.changed);
                }
                inner.inotify.clone()
            };
            // Of its own, because several may wait for the same.
            let queue = queue.and_then(|queue| queue.try_clone().ok());
            match queue {
                Some(queue) => tokio::select! {
                    readable = core.readable(queue) => if readable.is_err() {
                        // The next one who looks at a machine sees it, and tells.
                        self.news.notified().await;
                    },
                    () = news => {}
                },
                None => news.await,
            }
        }
    }

    /// What is known of a machine and still true.
    pub(crate) fn get(&self, config: &str) -> Option<Arc<Known>> {
        let mut inner = self.lock();
        self.catch_up(&mut inner);
        inner.kept.get(config)?.known.clone()
    }

    /// The same for many, in their order.
    pub(crate) fn get_all<'a>(&self, configs: impl Iterator<Item = &'a str>) -> Vec<Option<Arc<Known>>> {
        let mut inner = self.lock();
        self.catch_up(&mut inner);
        configs.map(|config| inner.kept.get(config)?.known.clone()).collect()
    }

    /// Looks at a machine, as the process, and keeps what it finds if it can. May wait for the file
    /// system.
    ///
    /// # Errors
    /// As [`Machine::open`].
    pub(crate) fn look(&self, user: &User, config: &ConfigPath) -> std::io::Result<Arc<Known>> {
        let (watched, before) = self.watch(config);
        let machine = Machine::open(user, config);
        let local = machine.as_ref().is_ok_and(|machine| {
            rustix::fs::fstatfs(&machine.file).is_ok_and(|facts| LOCAL.contains(&(facts.f_type as u64)))
        });
        let known = machine.map(|machine| Arc::new(Known::of(&machine)));
        if watched {
            let mut inner = self.lock();
            self.catch_up(&mut inner);
            if let (Some(before), Ok(known)) = (before, &known)
                && before != known.mark
                && inner.wanted
            {
                // It was changed when no watch stood.
                inner.changed.entry(config.as_str().into()).or_insert(before);
                self.news.notify_waiters();
            }
            match &known {
                Ok(known) if local => {
                    // Gone when something has happened meanwhile.
                    if let Some(slot) = inner.kept.get_mut(config.as_str()) {
                        slot.known = Some(Arc::clone(known));
                    } else if inner.wanted {
                        inner.last.insert(config.as_str().into(), known.mark);
                    }
                }
                _ => inner.forget(config.as_str()),
            }
        }
        known
    }

    /// Keeps whether a machine has snapshots, as its process has told, with what was known before it was
    /// asked; unless something has happened to the machine since.
    pub(crate) fn learn(&self, before: &Arc<Known>, has_snapshot: bool) {
        let info = VmInfo { has_snapshot, ..before.info.clone() };
        let known = Known { info, sure: true, listed: Arc::clone(&before.listed), ..**before };
        let mut inner = self.lock();
        self.catch_up(&mut inner);
        if let Some(slot) = inner.kept.get_mut(before.info.config.as_str())
            && slot.known.as_ref().is_some_and(|now| Arc::ptr_eq(now, before))
        {
            slot.known = Some(Arc::new(known));
        }
    }

    /// Places the watches of a machine; false when that cannot be done. Also tells the mark under which it
    /// was kept until now.
    fn watch(&self, config: &ConfigPath) -> (bool, Option<Mark>) {
        let path = Path::new(config.as_str());
        // A link on the path could be changed where nobody looks.
        if !std::fs::canonicalize(path).is_ok_and(|real| real == path) {
            return (false, None);
        }
        let mut inner = self.lock();
        self.catch_up(&mut inner);
        let kept = inner.kept.get(config.as_str()).and_then(|slot| slot.known.as_ref());
        let before = kept.map(|known| known.mark).or_else(|| inner.last.get(config.as_str()).copied());
        inner.forget(config.as_str());
        (inner.watch(config.as_str().into(), path).is_some(), before)
    }
}

impl Inner {
    fn watch(&mut self, config: Arc<str>, path: &Path) -> Option<()> {
        let inotify = self.inotify.as_ref()?;
        for (directory, name) in places(path) {
            let watch = match self.directories.get(directory) {
                Some(watch) => *watch,
                None => {
                    let watch = inotify::add_watch(inotify, directory, OF_DIRECTORY).ok()?;
                    self.directories.insert(directory.to_owned(), watch);
                    watch
                }
            };
            self.names.entry(watch).or_default().entry(name).or_default().push(Arc::clone(&config));
        }
        let file = inotify::add_watch(inotify, path, OF_FILE).ok()?;
        self.files.insert(file, Arc::clone(&config));
        self.kept.insert(config, Slot { file, known: None });
        Some(())
    }

    /// Takes in what has happened, without waiting.
    fn drain(&mut self) {
        let Some(inotify) = &self.inotify else { return };
        let mut room = [MaybeUninit::<u8>::uninit(); 4096];
        let mut happened: Vec<(i32, Option<OsString>)> = Vec::new();
        let mut overflow = false;
        let mut reader = Reader::new(inotify, &mut room);
        while let Ok(event) = reader.next() {
            overflow |= event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let name = event.file_name().map(|name| std::ffi::OsStr::from_bytes(name.to_bytes()).to_owned());
            happened.push((event.wd(), name));
        }
        if overflow {
            self.forget_all();
            return;
        }
        for (watch, name) in happened {
            let gone: Vec<Arc<str>> = if let Some(config) = self.files.get(&watch) {
                vec![Arc::clone(config)]
            } else {
                match (self.names.get(&watch), name) {
                    (Some(names), Some(name)) => names.get(&name).cloned().unwrap_or_default(),
                    // Of the directory itself: rare, and it concerns everybody below.
                    (Some(names), None) => names.values().flatten().cloned().collect(),
                    (None, _) => Vec::new(),
                }
            };
            if gone.len() > MANY {
                self.forget_all();
                return;
            }
            for config in gone {
                self.note(&config);
                self.forget(&config);
            }
        }
    }

    /// Something has happened to a machine.
    fn note(&mut self, config: &str) {
        if !self.wanted {
            return;
        }
        // While it is being looked at, what it was before counts.
        let mark = match self.kept.get(config) {
            Some(Slot { known: Some(known), .. }) => known.mark,
            Some(_) => match self.last.get(config) {
                Some(mark) => *mark,
                None => return,
            },
            None => return,
        };
        self.changed.entry(config.into()).or_insert(mark);
    }

    fn forget(&mut self, config: &str) {
        let Some((config, slot)) = self.kept.remove_entry(config) else { return };
        if let Some(known) = slot.known.filter(|_| self.wanted) {
            self.last.insert(Arc::clone(&config), known.mark);
        }
        self.files.remove(&slot.file);
        let Some(inotify) = &self.inotify else { return };
        // A file that is gone has taken its watch along.
        let _ = inotify::remove_watch(inotify, slot.file);
        for (directory, name) in places(Path::new(&*config)) {
            let Some(watch) = self.directories.get(directory).copied() else { continue };
            let Some(names) = self.names.get_mut(&watch) else { continue };
            if let Some(configs) = names.get_mut(&name) {
                configs.retain(|other| *other != config);
                if configs.is_empty() {
                    names.remove(&name);
                }
            }
            if names.is_empty() {
                self.names.remove(&watch);
                self.directories.remove(directory);
                let _ = inotify::remove_watch(inotify, watch);
            }
        }
    }

    /// Starts anew, with a queue that has lost nothing.
    fn forget_all(&mut self) {
        let all: Vec<Arc<str>> = self.kept.keys().cloned().collect();
        all.iter().for_each(|config| self.note(config));
        let (wanted, changed) = (self.wanted, std::mem::take(&mut self.changed));
        *self = Inner { inotify: queue(), wanted, changed, ..Inner::default() };
    }
}

/// Each directory on a path, with the name in it that matters; of the last directory also the name of
/// the file that tells of snapshots.
fn places(path: &Path) -> impl Iterator<Item = (&Path, OsString)> {
    let snapshots = path.with_extension("vmsd");
    let beside = path.parent().zip(snapshots.file_name().map(ToOwned::to_owned));
    let on_the_way =
        path.ancestors().filter_map(|below| Some((below.parent()?, below.file_name()?.to_owned())));
    on_the_way.chain(beside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::ctx;
    use std::os::unix::fs::PermissionsExt;

    /// A directory whose real path has no links.
    fn machine(name: &str) -> (tempfile::TempDir, ConfigPath) {
        let directory = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(directory.path()).unwrap();
        std::fs::create_dir(root.join("vm")).unwrap();
        let path = root.join("vm").join(name);
        std::fs::write(&path, "config.version = \"8\"\ndisplayName = \"one\"\n").unwrap();
        (directory, ConfigPath::try_from(path.to_str().unwrap().to_owned()).unwrap())
    }

    fn cache() -> Cache {
        Cache { inner: Mutex::new(Inner { inotify: queue(), ..Inner::default() }), news: Notify::new() }
    }

    /// Looks and keeps; says whether it was kept. A child that another test forks has every file open that is just being
    /// written here, for a moment; its end is one more event, after which it takes another look.
    fn look(cache: &Cache, config: &ConfigPath) -> bool {
        (0..1000).any(|_| {
            cache.look(&ctx().user, config).unwrap();
            std::thread::yield_now();
            cache.get(config.as_str()).is_some()
        })
    }

    #[test]
    fn what_nobody_touches_is_kept_and_every_change_is_seen() {
        let (_directory, config) = machine("a.vmx");
        let path = Path::new(config.as_str());
        let vm = path.parent().unwrap();
        let other = vm.with_file_name("other");
        let cache = cache();
        let changes: [(&str, &dyn Fn()); 9] = [
            ("written", &|| std::fs::write(path, "displayName = \"two\"\n").unwrap()),
            ("rights", &|| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap()),
            ("replaced", &|| {
                std::fs::write(vm.join("new"), "displayName = \"three\"\n").unwrap();
                std::fs::rename(vm.join("new"), path).unwrap();
            }),
            ("a snapshot", &|| std::fs::write(vm.join("a.vmsd"), "snapshot.numSnapshots = \"1\"\n").unwrap()),
            ("rights of the directory", &|| {
                std::fs::set_permissions(vm, std::fs::Permissions::from_mode(0o755)).unwrap();
            }),
            ("the directory moved", &|| std::fs::rename(vm, &other).unwrap()),
            ("and back", &|| {}),
            ("another name of the file", &|| std::fs::hard_link(path, vm.join("link")).unwrap()),
            ("written under that name", &|| std::fs::write(vm.join("link"), "x").unwrap()),
        ];
        for (what, change) in changes {
            if what == "and back" {
                std::fs::rename(&other, vm).unwrap();
            }
            assert!(look(&cache, &config), "{what}");
            assert!(cache.get(config.as_str()).is_some(), "{what}");
            change();
            assert_eq!(cache.get(config.as_str()).is_some(), what == "and back", "{what}");
        }
        std::fs::remove_file(path).unwrap();
        assert!(cache.look(&ctx().user, &config).is_err());
        assert!(cache.get(config.as_str()).is_none());
    }

    #[test]
    fn what_happens_beside_it_does_not_matter() {
        let (_directory, config) = machine("a.vmx");
        let vm = Path::new(config.as_str()).parent().unwrap();
        let cache = cache();
        assert!(look(&cache, &config));
        std::fs::write(vm.join("disk.vmdk"), "data").unwrap();
        std::fs::remove_file(vm.join("disk.vmdk")).unwrap();
        assert!(cache.get(config.as_str()).is_some());
    }

    #[test]
    fn a_path_through_a_link_is_looked_at_each_time() {
        let (directory, config) = machine("a.vmx");
        let link = std::fs::canonicalize(directory.path()).unwrap().join("link");
        std::os::unix::fs::symlink(Path::new(config.as_str()).parent().unwrap(), &link).unwrap();
        let through = ConfigPath::try_from(format!("{}/a.vmx", link.display())).unwrap();
        assert!(!look(&cache(), &through));
    }

    #[test]
    fn an_overflow_forgets_everything_and_then_goes_on() {
        let (_directory, config) = machine("a.vmx");
        let cache = cache();
        assert!(look(&cache, &config));
        cache.lock().forget_all();
        assert!(cache.get(config.as_str()).is_none());
        assert!(look(&cache, &config));
        assert_eq!(cache.lock().files.len(), 1);
    }

    #[test]
    fn nothing_is_left_of_what_is_forgotten() {
        let (_directory, config) = machine("a.vmx");
        let cache = cache();
        assert!(look(&cache, &config));
        cache.lock().forget(config.as_str());
        let inner = cache.lock();
        assert!(inner.kept.is_empty() && inner.files.is_empty());
        assert!(inner.directories.is_empty() && inner.names.is_empty());
    }
}
