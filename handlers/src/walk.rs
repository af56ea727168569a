//! Going through a tree of directories from descriptor to descriptor.
//!
//! A [`Walk`] never uses a path and never follows a link: a directory is opened by its name below the
//! descriptor of the one that it was listed in. Somebody who swaps directories for links while we
//! walk sends us nowhere.
//!
//! How deep a tree is, is decided by whoever made it. So nothing here calls itself, and of the
//! directories between the root and here only the lowest [`OPEN`] are held open:
//!
//! ```text
//!   root ─ a ─ b ─ c ─ d ─ e      held: c d e     closed, but remembered: root a b
//!                          └── leave() ... back at b: opened as `..` of c, and it must be the same b
//! ```
//!
//! `..` leads elsewhere when somebody has moved the directory in the meantime. That is found out by
//! device and inode, and ends the walk.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::replace;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags, RawDir, openat};

use crate::place::{Identity, facts_of};

/// Most directories that one chain holds open.
const OPEN: usize = 12;

/// Flags for a directory that is to be read: the name itself must not be a link.
pub(crate) const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC)
    .union(OFlags::NONBLOCK);

/// The directories from a root down to where we are.
pub(crate) struct Chain {
    here: OwnedFd,
    identity: Identity,
    above: Vec<(Option<OwnedFd>, Identity)>,
}

impl Chain {
    /// At the root of a tree, opened for reading.
    pub(crate) fn new(root: OwnedFd) -> io::Result<Self> {
        let identity = Identity::of(&facts_of(&root)?);
        Ok(Chain { here: root, identity, above: Vec::new() })
    }

    /// The directory where we are.
    pub(crate) fn here(&self) -> BorrowedFd<'_> {
        self.here.as_fd()
    }

    /// Which directory that is.
    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Goes down into a directory that was opened for reading below [`Chain::here`].
    pub(crate) fn enter(&mut self, child: OwnedFd) -> io::Result<()> {
        let identity = Identity::of(&facts_of(&child)?);
        let parent = replace(&mut self.here, child);
        self.above.push((Some(parent), replace(&mut self.identity, identity)));
        // The lowest OPEN stay open; the one above them was the last to be closed.
        if let Some(far) = self.above.len().checked_sub(OPEN)
            && let Some((descriptor, _)) = self.above.get_mut(far)
        {
            *descriptor = None;
        }
        Ok(())
    }

    /// Goes up and returns the directory that was left; `None` at the root, where it stays.
    pub(crate) fn leave(&mut self) -> io::Result<Option<OwnedFd>> {
        let Some((parent, identity)) = self.above.pop() else { return Ok(None) };
        let parent = match parent {
            Some(parent) => parent,
            None => {
                let parent = openat(&self.here, c"..", DIRECTORY, Mode::empty())?;
                if Identity::of(&facts_of(&parent)?) != identity {
                    return Err(io::Error::other("Directory was moved while it was worked on"));
                }
                parent
            }
        };
        self.identity = identity;
        Ok(Some(replace(&mut self.here, parent)))
    }
}

/// A name in a directory, and what the directory says it is, which may be nothing or out of date.
#[derive(Debug)]
pub(crate) struct Name {
    pub(crate) name: CString,
    pub(crate) kind: FileType,
}

/// A walk through a tree.
pub(crate) struct Walk {
    chain: Chain,
    rest: std::vec::IntoIter<Name>,
    /// For each directory above: what is still to do there, and the name of the one below it.
    above: Vec<(std::vec::IntoIter<Name>, CString)>,
}

impl Walk {
    /// At the root of a tree, opened for reading and not read yet.
    pub(crate) fn new(root: OwnedFd) -> io::Result<Self> {
        let rest = names(&root)?.into_iter();
        Ok(Walk { chain: Chain::new(root)?, rest, above: Vec::new() })
    }

    /// The next name in the directory where we are, in the order of the names' bytes.
    pub(crate) fn next(&mut self) -> Option<Name> {
        self.rest.next()
    }

    /// The directory where we are.
    pub(crate) fn here(&self) -> BorrowedFd<'_> {
        self.chain.here()
    }

    /// How far below the root we are.
    pub(crate) fn depth(&self) -> usize {
        self.above.len()
    }

    /// Goes down into the directory of this name; fails with `ENOTDIR` or `ELOOP` when it is none.
    pub(crate) fn enter(&mut self, name: &CStr) -> io::Result<()> {
        let child = openat(self.here(), name, DIRECTORY, Mode::empty())?;
        self.enter_opened(name, child)
    }

    /// Goes down into a directory that was opened for reading and is known by this name here.
    pub(crate) fn enter_opened(&mut self, name: &CStr, child: OwnedFd) -> io::Result<()> {
        let inside = names(&child)?.into_iter();
        self.chain.enter(child)?;
        self.above.push((replace(&mut self.rest, inside), name.to_owned()));
        Ok(())
    }

    /// Goes up and returns name and descriptor of the directory that was left; `None` at the root.
    pub(crate) fn leave(&mut self) -> io::Result<Option<(CString, OwnedFd)>> {
        let Some(child) = self.chain.leave()? else { return Ok(None) };
        Ok(self.above.pop().map(|(rest, name)| {
            self.rest = rest;
            (name, child)
        }))
    }

    /// The path of a name here, for people: below `root`, which is the path of the walk's root.
    pub(crate) fn path(&self, root: &str, name: &CStr) -> PathBuf {
        let names = self.above.iter().map(|(_, name)| name.as_c_str()).chain([name]);
        let mut path = PathBuf::from(root);
        path.extend(names.map(|name| OsStr::from_bytes(name.to_bytes())));
        path
    }
}

/// All names in a directory but `.` and `..`, in the order of their bytes.
pub(crate) fn names(directory: impl AsFd) -> io::Result<Vec<Name>> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(Name { name: entry.file_name().to_owned(), kind: entry.file_type() });
        }
    }
    names.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(names)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rustix::fs::{CWD, mkdirat};

    /// Makes a chain of directories of any depth and returns how many names it has.
    pub fn dig(base: &std::path::Path, depth: usize) {
        let mut here = openat(CWD, base, DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..depth {
            mkdirat(&here, "d", Mode::from_raw_mode(0o700)).unwrap();
            here = openat(&here, "d", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    fn open(path: &std::path::Path) -> OwnedFd {
        openat(CWD, path, DIRECTORY, Mode::empty()).unwrap()
    }

    fn descriptors() -> usize {
        std::fs::read_dir("/proc/self/fd").unwrap().count()
    }

    /// Goes through everything; returns names with their depth, and most levels held open.
    fn go(walk: &mut Walk) -> io::Result<(usize, usize)> {
        let (mut seen, mut held) = (0, 0);
        loop {
            if let Some(one) = walk.next() {
                seen += 1;
                if one.kind == FileType::Directory {
                    walk.enter(&one.name)?;
                    held = held.max(walk.chain.above.iter().filter(|(fd, _)| fd.is_some()).count());
                }
            } else if walk.leave()?.is_none() {
                return Ok((seen, held));
            }
        }
    }

    #[test]
    fn a_deep_tree_holds_few_descriptors() {
        let base = tempfile::tempdir().unwrap();
        dig(base.path(), 3000);
        let mut walk = Walk::new(open(base.path())).unwrap();
        let (seen, held) = go(&mut walk).unwrap();
        assert_eq!(seen, 3000);
        assert!(held < OPEN, "{held} held open");
        assert_eq!(walk.depth(), 0);
        drop(walk);
        crate::remove::tree(open(base.path().parent().unwrap()), base.path()).unwrap();
        assert!(!base.path().exists() && descriptors() < 500);
    }

    #[test]
    fn a_directory_that_was_moved_ends_the_walk() {
        let base = tempfile::tempdir().unwrap();
        dig(base.path(), 40);
        std::fs::create_dir(base.path().join("elsewhere")).unwrap();
        let mut walk = Walk::new(open(base.path())).unwrap();
        let mut entered = 0;
        while let Some(one) = walk.next() {
            if one.name.as_bytes() == b"d" {
                walk.enter(&one.name).unwrap();
                entered += 1;
            }
        }
        assert_eq!(entered, 40);
        // Far enough above to be closed by now.
        std::fs::rename(base.path().join("d/d"), base.path().join("elsewhere/d")).unwrap();
        let error = go(&mut walk).unwrap_err();
        assert_eq!(error.to_string(), "Directory was moved while it was worked on");
    }

    #[test]
    fn links_are_not_entered_and_names_are_sorted() {
        let base = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc", base.path().join("a")).unwrap();
        std::fs::write(base.path().join("b"), "").unwrap();
        let mut walk = Walk::new(open(base.path())).unwrap();
        let names: Vec<_> = std::iter::from_fn(|| walk.next()).collect();
        assert_eq!(names.iter().map(|one| one.name.to_str().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(names.iter().all(|one| walk.enter(&one.name).is_err()));
        assert_eq!(walk.path("/x", c"y"), PathBuf::from("/x/y"));
    }
}
