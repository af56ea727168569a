//! Making and listing directories through descriptors.
//!
//! A path that is only passed on is the kernel's business, links and `..` included: the process has
//! the caller's rights and no others. What we *walk* ourselves goes from descriptor to descriptor,
//! and from the first directory that we made on, no link is followed any more: somebody who replaces
//! a new directory by a link while we work below it makes us stop, not stray.
//!
//! Rights. A mode that the caller gives holds exactly; the umask must not take bits away, and there
//! must be no moment in which the directory exists with other rights. So the umask is lifted around
//! the one call that creates. The umask belongs to the whole process: whatever creates something in a
//! session process goes through this file, where one thread at a time does.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, Statx, StatxFlags, mkdirat, openat, statx};
use rustix::io::Errno;
use rustix::process::umask;

/// The umask of a session process, and what it takes from the rights that a caller leaves open.
pub(crate) const UMASK: u32 = 0o022;

/// Held while the umask is lifted.
static LIFTED: Mutex<()> = Mutex::new(());

/// `mkdirat` with exactly these rights.
fn make(at: impl AsFd, name: &str, mode: u32) -> rustix::io::Result<()> {
    let _lifted = LIFTED.lock().unwrap_or_else(PoisonError::into_inner);
    umask(Mode::empty());
    let made = mkdirat(at, name, Mode::from_raw_mode(mode));
    umask(Mode::from_raw_mode(UMASK));
    made
}

/// Makes one directory with exactly the rights `mode`. Its parent must exist, it must not.
pub(crate) fn make_directory(path: &str, mode: u32) -> io::Result<()> {
    Ok(make(CWD, path, mode)?)
}

/// Opens a directory for walking on, which needs no right on the directory itself.
fn step(at: impl AsFd, name: &str, links: OFlags) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | links, Mode::empty())
}

/// Makes a directory and its missing parents, all with the rights `mode`; keeps those that exist.
///
/// Calls `made` with the path of each directory that was made, in order; also when a later one fails.
pub(crate) fn make_with_parents(path: &str, mode: u32, mut made: impl FnMut(&str)) -> io::Result<()> {
    let mut directory = step(CWD, "/", OFlags::empty())?;
    let mut ours = false;
    let mut steps = steps(path).peekable();
    while let Some((name, end)) = steps.next() {
        let last = steps.peek().is_none();
        let links = if ours { OFlags::NOFOLLOW } else { OFlags::empty() };
        match step(&directory, name, links) {
            Ok(next) => {
                directory = next;
                continue;
            }
            Err(Errno::NOENT) => {}
            // A file where the directory should be. Above the last name the kernel's word is right.
            Err(Errno::NOTDIR) if last => return Err(Errno::EXIST.into()),
            Err(error) => return Err(error.into()),
        }
        match make(&directory, name, mode) {
            Ok(()) => made(path.get(..end).unwrap_or(path)),
            // Somebody else was faster, or it is a link to nowhere: the next step will tell.
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        ours = true;
        directory = match step(&directory, name, OFlags::NOFOLLOW) {
            Err(Errno::NOTDIR) => return Err(Errno::EXIST.into()),
            other => other?,
        };
    }
    Ok(())
}

/// The names in an absolute path, each with the position behind it.
fn steps(path: &str) -> impl Iterator<Item = (&str, usize)> {
    let mut end = 0;
    path.split_inclusive('/').filter_map(move |part| {
        let name = part.strip_suffix('/').unwrap_or(part);
        let behind = end + name.len();
        end += part.len();
        (!name.is_empty()).then_some((name, behind))
    })
}

/// What VMware Server 1.0.3 for Windows did instead: the separators between the names are lost, and
/// every prefix is made under the root. For comparison tests only.
pub(crate) fn make_glued(path: &str, mode: u32, mut made: impl FnMut(&str)) -> io::Result<()> {
    for glued in glued(path) {
        match make(CWD, &glued, mode) {
            Ok(()) => made(&glued),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// `/a/b/c` as `/a`, `/ab`, `/abc`.
fn glued(path: &str) -> Vec<String> {
    let mut glued = String::from("/");
    let grow = |(name, _): (&str, usize)| {
        glued.push_str(name);
        glued.clone()
    };
    steps(path).map(grow).collect()
}

/// One name in a directory with what the file system knows about it.
pub(crate) struct Found {
    pub(crate) name: CString,
    pub(crate) facts: Statx,
}

/// Reads a directory without `.` and `..`, in the order of the names' bytes. Links are not followed.
///
/// A name that disappears while we look is left out.
pub(crate) fn read(path: &str, hidden: bool) -> io::Result<Vec<Found>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let directory = openat(CWD, path, flags, Mode::empty())?;
    let wanted = StatxFlags::TYPE
        | StatxFlags::MODE
        | StatxFlags::UID
        | StatxFlags::GID
        | StatxFlags::MTIME
        | StatxFlags::SIZE;
    let mut found = Vec::new();
    for entry in Dir::read_from(&directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let bytes = name.to_bytes();
        if bytes == b"." || bytes == b".." || (!hidden && bytes.first() == Some(&b'.')) {
            continue;
        }
        match statx(&directory, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, wanted) {
            Ok(facts) => found.push(Found { name: name.to_owned(), facts }),
            Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    found.sort_unstable_by(|a, b| a.name.as_bytes().cmp(b.name.as_bytes()));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, symlink};

    fn mode(path: &str) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    fn with_parents(path: &str, mode: u32) -> (Vec<String>, io::Result<()>) {
        let mut made = Vec::new();
        let result = make_with_parents(path, mode, |path| made.push(path.to_owned()));
        (made, result)
    }

    #[test]
    fn names_and_their_ends() {
        let of = |path| steps(path).collect::<Vec<_>>();
        assert_eq!(of("/a/bc"), [("a", 2), ("bc", 5)]);
        assert_eq!(of("//a///b/"), [("a", 3), ("b", 7)]);
        assert_eq!(of("/"), []);
    }

    #[test]
    fn given_rights_hold_exactly_whatever_the_umask() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().to_str().unwrap();
        for (name, bits) in [("a", 0o777), ("b", 0o701), ("c", 0o070)] {
            make_directory(&format!("{base}/{name}"), bits).unwrap();
            assert_eq!(mode(&format!("{base}/{name}")), bits);
        }
    }

    #[test]
    fn missing_parents_are_made_and_existing_ones_kept() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().to_str().unwrap();
        let (made, result) = with_parents(&format!("{base}//x/y/./z/"), 0o775);
        result.unwrap();
        assert_eq!(made, [format!("{base}//x"), format!("{base}//x/y"), format!("{base}//x/y/./z")]);
        assert_eq!(mode(&format!("{base}/x/y")), 0o775);
        assert_eq!(with_parents(&format!("{base}/x/y/z"), 0o700).0, Vec::<String>::new());
        assert_eq!(mode(&format!("{base}/x/y/z")), 0o775);
        // ".." goes where the kernel goes.
        let (made, result) = with_parents(&format!("{base}/x/../w"), 0o700);
        result.unwrap();
        assert_eq!(made.len(), 1);
        assert!(directory.path().join("w").is_dir());
    }

    #[test]
    fn what_is_in_the_way_is_named_by_the_right_error() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().to_str().unwrap();
        std::fs::write(directory.path().join("file"), "").unwrap();
        symlink("/nowhere/at/all", directory.path().join("dangling")).unwrap();
        let kind = |path: &str| with_parents(&format!("{base}/{path}"), 0o755).1.unwrap_err().raw_os_error();
        assert_eq!(kind("file"), Some(Errno::EXIST.raw_os_error()));
        assert_eq!(kind("file/below"), Some(Errno::NOTDIR.raw_os_error()));
        assert_eq!(kind("dangling"), Some(Errno::EXIST.raw_os_error()));
        assert_eq!(kind(&"n".repeat(300)), Some(Errno::NAMETOOLONG.raw_os_error()));
    }

    #[test]
    fn an_existing_link_to_a_directory_is_a_parent_like_any_other() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().to_str().unwrap();
        std::fs::create_dir(directory.path().join("real")).unwrap();
        symlink("real", directory.path().join("link")).unwrap();
        with_parents(&format!("{base}/link/new/er"), 0o755).1.unwrap();
        assert!(directory.path().join("real/new/er").is_dir());
    }

    #[test]
    fn the_historical_way_loses_the_separators() {
        assert_eq!(glued("/test1/test2/test3"), ["/test1", "/test1test2", "/test1test2test3"]);
        assert_eq!(glued("/"), Vec::<String>::new());
    }

    #[test]
    fn a_listing_is_sorted_and_follows_no_link() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["b", "a", ".hidden"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        symlink("/", directory.path().join("c")).unwrap();
        let names = |hidden| {
            let found = read(directory.path().to_str().unwrap(), hidden).unwrap();
            found.into_iter().map(|one| one.name.into_string().unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(names(false), ["a", "b", "c"]);
        assert_eq!(names(true), [".hidden", "a", "b", "c"]);
    }
}
