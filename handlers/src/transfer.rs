//! `FileManager_FileCopy` and `FileManager_FileMove`: what is to be done, and whether at once.
//!
//! ```text
//!   request ─▶ plan: open every source, look at every target, add up ─▶ error: nothing has happened
//!                │
//!                ├─ small, one file system ─▶ do it now
//!                └─ large, or across ───────▶ a task: the plan goes along, nothing is looked up again
//! ```
//!
//! A plan holds sources and destination as open descriptors. All targets of one request are names in
//! one directory, and so is everything unfinished.

use std::os::fd::{AsFd, OwnedFd};

use ops::Error;
use ops::value::{HostPath, MAX_PATH};
use rustix::fs::{CWD, FileType, RenameFlags, Statx, renameat, renameat_with};
use rustix::io::Errno;

use crate::copy_tree::{Copier, Source, is_below, open_source};
use crate::partial::Hidden;
use crate::place::{Identity, Place, at, device, facts, facts_of, kind, open_directory_path, split};
use crate::remove;
use crate::tasks::{NewTask, Partial, Progress, Work};

/// A file of more bytes than these is copied in the background.
const LARGE: u64 = 10 * 1024 * 1024;

/// Where things go.
struct Destination {
    directory: OwnedFd,
    /// The directory's path.
    path: String,
    facts: Statx,
    /// The name in it, if the request gave one; otherwise each source keeps its own.
    name: Option<String>,
}

impl Destination {
    /// An existing directory, or a new name for the only source.
    fn open(path: &HostPath, sources: usize) -> Result<Self, Error> {
        let text = path.as_str();
        let (directory, above, name) = match open_directory_path(text) {
            Ok(directory) => (directory, text, None),
            Err(error) => {
                let missing =
                    [Some(Errno::NOENT), Some(Errno::NOTDIR)].contains(&Errno::from_io_error(&error));
                let (Some((above, name)), 1, true) = (split(text), sources, missing) else {
                    return Err(Error::file(text, &error));
                };
                if text.ends_with('/') && facts(CWD, text.trim_end_matches('/')).is_ok() {
                    return Err(Error::file(text, &error));
                }
                // What is missing may also be the directory above; that is the path to name then.
                let directory = open_directory_path(above).map_err(|_| Error::file(text, &error))?;
                (directory, above, Some(name.to_owned()))
            }
        };
        let facts = facts_of(&directory).map_err(at(text))?;
        let path = above.trim_end_matches('/').to_owned();
        Ok(Destination { directory, path, facts, name })
    }

    /// The name and path that a source will have.
    fn target(&self, source: &str) -> Result<(String, String), Error> {
        let name = match (&self.name, split(source)) {
            (Some(name), _) => name.clone(),
            (None, Some((_, name))) => name.to_owned(),
            (None, None) => {
                return Err(Error::invalid("files", format_args!("{source} ends in no name")));
            }
        };
        let path = format!("{}/{name}", self.path);
        if path.len() > MAX_PATH {
            return Err(Error::file(path, &Errno::NAMETOOLONG.into()));
        }
        Ok((name, path))
    }

    /// Looks at the target of a source before anything is done.
    fn check(&self, name: &str, path: &str, source: &Statx, overwrite: bool) -> Result<(), Error> {
        let refused = |errno: Errno| Err(Error::file(path, &errno.into()));
        let is_directory = kind(source) == FileType::Directory;
        match facts(&self.directory, name) {
            Ok(there) if Identity::of(&there) == Identity::of(source) => {
                Err(Error::invalid("destination", format_args!("{path} is the source")))
            }
            // A directory is never replaced, and never merged into another.
            Ok(there) if kind(&there) == FileType::Directory => {
                refused(if is_directory || !overwrite { Errno::EXIST } else { Errno::ISDIR })
            }
            Ok(_) if !overwrite => refused(Errno::EXIST),
            Ok(_) if is_directory => refused(Errno::NOTDIR),
            Err(error) if Errno::from_io_error(&error) != Some(Errno::NOENT) => {
                Err(Error::file(path, &error))
            }
            Ok(_) | Err(_) => self.check_outside(source, path),
        }
    }

    /// A directory cannot be put inside itself.
    fn check_outside(&self, source: &Statx, path: &str) -> Result<(), Error> {
        if kind(source) == FileType::Directory
            && is_below(&self.directory, Identity::of(source)).map_err(at(path))?
        {
            return Err(Error::invalid("destination", format_args!("{path} is inside the source")));
        }
        Ok(())
    }
}

/// One source with its target.
struct Item {
    /// Path of the source, for people.
    shown: String,
    name: String,
    target: String,
    source: Source,
    /// Where to remove it when it has been moved.
    from: Option<Place>,
}

/// All that is to be done.
pub(crate) struct Plan {
    op: &'static str,
    destination: Destination,
    items: Vec<Item>,
    overwrite: bool,
    bytes: u64,
    /// Whether it is to be done in the background.
    long: bool,
    hidden: Hidden,
}

/// How far an attempt at a request went.
pub(crate) struct Attempt {
    /// Targets that are complete.
    pub(crate) done: Vec<HostPath>,
    /// What is left for a task.
    pub(crate) left: Option<Plan>,
    /// What ended it.
    pub(crate) failed: Option<Error>,
}

/// Every target's name may be given once.
fn check_twice(seen: &mut Vec<String>, name: &str, path: &str) -> Result<(), Error> {
    if seen.iter().any(|other| other == name) {
        return Err(Error::invalid("files", format_args!("two of them would become {path}")));
    }
    seen.push(name.to_owned());
    Ok(())
}

fn hidden(path: &str) -> Result<Hidden, Error> {
    Hidden::new().map_err(at(path))
}

/// Looks at a request to copy. Nothing is changed.
pub(crate) fn plan_copy(
    files: &[HostPath],
    destination: &HostPath,
    overwrite: bool,
    recursive: bool,
) -> Result<Plan, Error> {
    let destination = Destination::open(destination, files.len())?;
    let (mut items, mut seen, mut bytes, mut long) = (Vec::new(), Vec::new(), 0u64, false);
    for file in files {
        let shown = file.as_str();
        let source = open_source(shown, !recursive)?;
        match kind(&source.facts) {
            FileType::Directory if !recursive => return Err(Error::file(shown, &Errno::ISDIR.into())),
            FileType::Fifo if !recursive => return Err(Error::file(shown, &crate::place::not_regular())),
            _ => {}
        }
        let (name, target) = destination.target(shown)?;
        check_twice(&mut seen, &name, &target)?;
        destination.check(&name, &target, &source.facts, overwrite)?;
        let extent = source.extent(device(&destination.facts), shown)?;
        bytes = bytes.saturating_add(extent.bytes);
        long |= extent.elsewhere || extent.largest > LARGE;
        items.push(Item { shown: shown.to_owned(), name, target, source, from: None });
    }
    let hidden = hidden(&destination.path)?;
    Ok(Plan { op: "FileManager_FileCopy", destination, items, overwrite, bytes, long, hidden })
}

/// Moves what a rename can move, in order, and plans the rest.
pub(crate) fn begin_move(
    files: &[HostPath],
    destination: &HostPath,
    overwrite: bool,
) -> Result<Attempt, Error> {
    let destination = Destination::open(destination, files.len())?;
    let mut seen = Vec::new();
    let mut items = Vec::new();
    for file in files {
        let shown = file.as_str();
        let from = Place::of(shown).map_err(at(shown))?;
        let facts = from.facts().map_err(at(shown))?;
        if from.slash && kind(&facts) != FileType::Directory {
            return Err(Error::file(shown, &Errno::NOTDIR.into()));
        }
        let (name, target) = destination.target(shown)?;
        check_twice(&mut seen, &name, &target)?;
        destination.check(&name, &target, &facts, overwrite)?;
        items.push((shown.to_owned(), from, facts, name, target));
    }
    let mut attempt = Attempt { done: Vec::new(), left: None, failed: None };
    let mut far = Vec::new();
    let mut bytes = 0u64;
    for (shown, from, was, name, target) in items {
        match rename(&from, &destination.directory, &name, overwrite) {
            Ok(()) => attempt.done.extend(HostPath::try_from(target)),
            Err(Errno::XDEV) => {
                let opened = Source::open(&from.directory, from.name.as_str(), false).map_err(at(&shown));
                let result = opened.and_then(|source| {
                    if Identity::of(&source.facts) != Identity::of(&was) {
                        return Err(Error::file(&shown, &Errno::NOENT.into()));
                    }
                    bytes = bytes.saturating_add(source.extent(device(&destination.facts), &shown)?.bytes);
                    Ok(source)
                });
                match result {
                    Ok(source) => far.push(Item { shown, name, target, source, from: Some(from) }),
                    Err(error) => {
                        attempt.failed = Some(error);
                        return Ok(attempt);
                    }
                }
            }
            Err(error) => {
                // The error of a rename does not say which of the two names is meant.
                let path = if error == Errno::EXIST { target } else { shown };
                attempt.failed = Some(Error::file(path, &error.into()));
                return Ok(attempt);
            }
        }
    }
    if !far.is_empty() {
        let hidden = hidden(&destination.path)?;
        let op = "FileManager_FileMove";
        attempt.left = Some(Plan { op, destination, items: far, overwrite, bytes, long: true, hidden });
    }
    Ok(attempt)
}

fn rename(from: &Place, to: &OwnedFd, name: &str, overwrite: bool) -> Result<(), Errno> {
    let old = from.name.as_str();
    if overwrite {
        return renameat(&from.directory, old, to, name);
    }
    match renameat_with(&from.directory, old, to, name, RenameFlags::NOREPLACE) {
        // A file system that cannot promise it: a look has to do.
        Err(Errno::INVAL | Errno::NOSYS) if facts(to, name).is_err() => {
            renameat(&from.directory, old, to, name)
        }
        other => other,
    }
}

impl Plan {
    /// Whether it is to be done in the background.
    pub(crate) fn is_long(&self) -> bool {
        self.long
    }

    /// Does it now.
    pub(crate) fn run(self) -> Attempt {
        let progress = Progress::new(self.bytes);
        let (done, result) = self.go(&progress);
        Attempt { done, left: None, failed: result.err() }
    }

    /// Makes a task of it.
    pub(crate) fn into_task(self) -> (NewTask, Work) {
        let directory = if self.destination.path.is_empty() { "/" } else { &self.destination.path };
        let partial = Partial { directory: directory.to_owned(), prefix: self.hidden.prefix().to_owned() };
        let task = NewTask { op: self.op, total: self.bytes, partial: Some(partial) };
        (task, Box::new(move |progress| self.go(progress).1))
    }

    fn go(self, progress: &Progress) -> (Vec<HostPath>, Result<(), Error>) {
        let mut done = Vec::new();
        for item in &self.items {
            match self.item(item, progress) {
                Ok(()) => done.extend(HostPath::try_from(item.target.clone())),
                Err(error) => return (done, Err(error)),
            }
        }
        (done, Ok(()))
    }

    fn item(&self, item: &Item, progress: &Progress) -> Result<(), Error> {
        let copier = Copier {
            directory: self.destination.directory.as_fd(),
            hidden: &self.hidden,
            keep_owner: item.from.is_some(),
            progress,
        };
        copier.copy(&item.source, &item.name, self.overwrite, &item.shown, &item.target)?;
        match &item.from {
            Some(from) => remove::moved_away(from, Identity::of(&item.source.facts), &item.shown),
            None => Ok(()),
        }
    }
}
