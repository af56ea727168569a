//! Copying whatever one name stands for: a file, a link, a pipe, or a directory with all in it.
//!
//! The copy is made under a hidden name, or under none, and gets its name when it is complete. Source
//! and copy are each walked from descriptor to descriptor, in step, and no link is followed.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ops::Error;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, Statx, Timestamps, Uid, chmodat, chownat, mkdirat, mkfifoat,
    openat, readlinkat, symlinkat, utimensat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use crate::copy_file::{Attributes, contents, stopped, times};
use crate::new_file::{self, NewFile};
use crate::partial::Hidden;
use crate::place::{
    Identity, at, descriptor_path, device, facts_of, kind, not_regular, open_path, reopen_for_reading,
};
use crate::remove;
use crate::tasks::Progress;
use crate::walk::{Chain, DIRECTORY, Walk};

/// Something to be copied, opened.
pub(crate) struct Source {
    /// A file or directory is open for reading, a link or pipe only for being looked at.
    descriptor: OwnedFd,
    /// What it is.
    pub(crate) facts: Statx,
}

/// What there is to copy below a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// Bytes in files, holes included.
    pub(crate) bytes: u64,
    /// Bytes of the largest file.
    pub(crate) largest: u64,
    /// Whether any of it is on another file system than the one asked about.
    pub(crate) elsewhere: bool,
}

impl Source {
    /// Opens a name in a directory, or a path. Devices and sockets cannot be copied, and are not
    /// touched.
    pub(crate) fn open(directory: impl AsFd, name: impl rustix::path::Arg, follow: bool) -> io::Result<Self> {
        let found = open_path(directory, name, follow)?;
        let facts = facts_of(&found)?;
        let descriptor = match kind(&facts) {
            FileType::RegularFile => reopen_for_reading(found.as_fd())?,
            FileType::Directory => openat(&found, c".", DIRECTORY, Mode::empty())?,
            FileType::Symlink | FileType::Fifo => found,
            _ => return Err(not_regular()),
        };
        Ok(Source { descriptor, facts })
    }

    /// Adds up what there is to copy; `on` is the file system of the copy.
    pub(crate) fn extent(&self, on: (u32, u32), shown: &str) -> Result<Extent, Error> {
        let mut extent = Extent { bytes: 0, largest: 0, elsewhere: device(&self.facts) != on };
        let mut add = |facts: &Statx| {
            extent.elsewhere |= device(facts) != on;
            if kind(facts) == FileType::RegularFile {
                extent.bytes = extent.bytes.saturating_add(facts.stx_size);
                extent.largest = extent.largest.max(facts.stx_size);
            }
        };
        add(&self.facts);
        if kind(&self.facts) != FileType::Directory {
            return Ok(extent);
        }
        let root = openat(&self.descriptor, c".", DIRECTORY, Mode::empty()).map_err(at(shown))?;
        let mut walk = Walk::new(root).map_err(at(shown))?;
        loop {
            let Some(one) = walk.next() else {
                match walk.leave().map_err(at(shown))? {
                    Some(_) => continue,
                    None => return Ok(extent),
                }
            };
            let result = crate::place::facts(walk.here(), one.name.as_c_str()).and_then(|facts| {
                add(&facts);
                if kind(&facts) == FileType::Directory { walk.enter(&one.name) } else { Ok(()) }
            });
            result.map_err(|error| Error::file(walk.path(shown, &one.name), &error))?;
        }
    }
}

/// How copies are made.
pub(crate) struct Copier<'a> {
    /// Where they shall be.
    pub(crate) directory: BorrowedFd<'a>,
    /// Names for what is not complete.
    pub(crate) hidden: &'a Hidden,
    /// Whether the copy gets the owner of the source, as far as the caller may give files away.
    pub(crate) keep_owner: bool,
    /// Counts, and says stop.
    pub(crate) progress: &'a Progress,
}

/// A hidden name that is removed with all in it, unless it has become something complete before.
struct Unfinished<'a> {
    directory: BorrowedFd<'a>,
    name: String,
    /// The directory that has the name, once it is made: where others may rename our names, it must not
    /// be another one that is removed.
    made: Option<Identity>,
    complete: bool,
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        if !self.complete
            && let Ok(name) = std::ffi::CString::new(self.name.as_str())
        {
            let _ = remove::leftover(self.directory, &name, self.made);
        }
    }
}

impl<'a> Copier<'a> {
    /// Makes a copy under `name`. `shown` is the path of the source, `target` that of the copy.
    /// Returns the bytes of a file.
    pub(crate) fn copy(
        &self,
        source: &Source,
        name: &str,
        overwrite: bool,
        shown: &str,
        target: &str,
    ) -> Result<u64, Error> {
        match kind(&source.facts) {
            FileType::RegularFile => {
                let new = NewFile::create(self.directory, self.hidden).map_err(at(target))?;
                let size = self.file(source, new.file()).map_err(at(target))?;
                new.publish(name, overwrite).map_err(at(target))?;
                Ok(size)
            }
            other => {
                let mut unfinished = Unfinished {
                    directory: self.directory,
                    name: self.hidden.name(),
                    made: None,
                    complete: false,
                };
                let is_directory = other == FileType::Directory;
                if is_directory {
                    self.tree(source, &mut unfinished, shown, target)?;
                } else {
                    self.special(source, self.directory, unfinished.name.as_str()).map_err(at(target))?;
                }
                let replace = overwrite && !is_directory;
                new_file::rename(self.directory, &unfinished.name, name, replace).map_err(at(target))?;
                unfinished.complete = true;
                Ok(0)
            }
        }
    }

    /// Contents and attributes of a file.
    fn file(&self, source: &Source, to: BorrowedFd<'_>) -> io::Result<u64> {
        // The size of now: since the plan was made it may have grown.
        let facts = facts_of(&source.descriptor)?;
        let size = contents(&source.descriptor, to, facts.stx_size, self.progress)?;
        Attributes::of(&facts, self.keep_owner).give(to)?;
        Ok(size)
    }

    /// A link or a pipe.
    fn special(
        &self,
        source: &Source,
        to: BorrowedFd<'_>,
        name: impl rustix::path::Arg + Copy,
    ) -> io::Result<()> {
        let facts = &source.facts;
        if kind(facts) == FileType::Symlink {
            let target = readlinkat(&source.descriptor, c"", Vec::new())?;
            symlinkat(target.as_c_str(), to, name)?;
        } else {
            mkfifoat(to, name, Mode::RUSR | Mode::WUSR)?;
        }
        // From here on through a descriptor, and only if it is what we have made: where others may
        // rename our names, they may have put something else there.
        let made = open_path(to, name, false)?;
        let is = facts_of(&made)?;
        if kind(&is) != kind(facts) || is.stx_uid != geteuid().as_raw() || is.stx_nlink != 1 {
            return Err(replaced());
        }
        if kind(facts) == FileType::Fifo {
            let mode = Mode::from_raw_mode(u32::from(facts.stx_mode) & 0o777);
            chmodat(CWD, descriptor_path(made.as_fd()), mode, AtFlags::empty())?;
        }
        if self.keep_owner {
            let (owner, group) = (Uid::from_raw(facts.stx_uid), Gid::from_raw(facts.stx_gid));
            let _ = chownat(&made, c"", Some(owner), Some(group), AtFlags::EMPTY_PATH);
        }
        let (last_access, last_modification) = times(facts);
        let times = Timestamps { last_access, last_modification };
        // Old kernels cannot, and nothing depends on it.
        let _ = utimensat(&made, c"", &times, AtFlags::EMPTY_PATH);
        Ok(())
    }

    /// A directory with all in it, under a hidden name.
    fn tree(
        &self,
        source: &Source,
        unfinished: &mut Unfinished<'_>,
        shown: &str,
        target: &str,
    ) -> Result<(), Error> {
        let root = openat(&source.descriptor, c".", DIRECTORY, Mode::empty()).map_err(at(shown))?;
        let mut walk = Walk::new(root).map_err(at(shown))?;
        let mut copy = new_directory(self.directory, unfinished.name.as_str())
            .and_then(Chain::new)
            .map_err(at(target))?;
        let made = copy.identity();
        unfinished.made = Some(made);
        let mut attributes = vec![Attributes::of(&source.facts, self.keep_owner)];
        loop {
            if self.progress.is_stopped() {
                return Err(Error::file(shown, &stopped()));
            }
            if let Some(one) = walk.next() {
                match self.entry(&mut walk, &mut copy, &one.name, made) {
                    Ok(None) => {}
                    Ok(Some(entered)) => attributes.push(entered),
                    Err(error) => return Err(Error::file(walk.path(shown, &one.name), &error)),
                }
                continue;
            }
            let left = walk.leave().map_err(at(shown))?;
            let made = copy.leave().map_err(at(target))?;
            let Some(wanted) = attributes.pop() else { return Ok(()) };
            match (left, made) {
                (Some(_), Some(made)) => wanted.give(made).map_err(at(target))?,
                _ => return wanted.give(copy.here()).map_err(at(target)),
            }
        }
    }

    /// One name of a directory. Goes down into both directories if it is one, and returns what the
    /// copy has to be given on leaving it. `root` is the copy's own directory.
    fn entry(
        &self,
        walk: &mut Walk,
        copy: &mut Chain,
        name: &CStr,
        root: Identity,
    ) -> io::Result<Option<Attributes>> {
        let source = Source::open(walk.here(), name, false)?;
        if Identity::of(&source.facts) == root {
            return Err(io::Error::other("Is the copy itself"));
        }
        match kind(&source.facts) {
            FileType::Directory => {
                let made = new_directory(copy.here(), name)?;
                let attributes = Attributes::of(&source.facts, self.keep_owner);
                walk.enter_opened(name, source.descriptor)?;
                copy.enter(made)?;
                Ok(Some(attributes))
            }
            FileType::RegularFile => {
                let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
                let to = openat(copy.here(), name, flags, Mode::RUSR | Mode::WUSR)?;
                self.file(&source, to.as_fd()).map(|_| None)
            }
            _ => self.special(&source, copy.here(), name).map(|()| None),
        }
    }
}

/// Makes a directory that nobody else may enter yet, and opens it: that one and no other.
fn new_directory(at: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> io::Result<OwnedFd> {
    mkdirat(at, name, Mode::RWXU)?;
    let made = openat(at, name, DIRECTORY, Mode::empty())?;
    let facts = facts_of(&made)?;
    // Where others may rename our names, they may have put a directory of theirs there.
    if facts.stx_uid != geteuid().as_raw() || facts.stx_mode & 0o077 != 0 {
        return Err(replaced());
    }
    Ok(made)
}

/// Something else has the name of what we have just made.
fn replaced() -> io::Error {
    io::Error::other("Was replaced while it was made")
}

/// Whether `directory` is `inside` or below it, looked up from descriptor to descriptor.
pub(crate) fn is_below(directory: impl AsFd, inside: Identity) -> io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut here = openat(directory, c".", flags, Mode::empty())?;
    let mut identity = Identity::of(&facts_of(&here)?);
    loop {
        if identity == inside {
            return Ok(true);
        }
        let above = match openat(&here, c"..", flags, Mode::empty()) {
            Ok(above) => above,
            // Nothing that the caller could copy is up there; should it be, the copy finds itself.
            Err(Errno::ACCESS) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let next = Identity::of(&facts_of(&above)?);
        if next == identity {
            return Ok(false);
        }
        (here, identity) = (above, next);
    }
}

/// Opens a path for copying.
pub(crate) fn open_source(path: &str, follow: bool) -> Result<Source, Error> {
    Source::open(CWD, path, follow).map_err(at(Path::new(path)))
}
