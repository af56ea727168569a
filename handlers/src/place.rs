//! Where something is: its directory, opened once, and its name in it.
//!
//! What makes, replaces or removes a name looks the path up once and goes on from the directory's
//! descriptor. Whoever swaps a directory above for a link later on changes nothing any more.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use ops::Error;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Statx, StatxFlags, openat, statx};
use rustix::io::Errno;

/// A name in an opened directory.
pub(crate) struct Place {
    /// The directory, opened for looking up names only.
    pub(crate) directory: OwnedFd,
    /// The name; never empty, `.` or `..`, and without slashes.
    pub(crate) name: String,
    /// Whether the path ended in a slash, which means that the name is that of a directory.
    pub(crate) slash: bool,
}

impl Place {
    /// Opens the directory above the last name. `EINVAL` when that is none: `/`, `.` or `..`.
    pub(crate) fn of(path: &str) -> io::Result<Self> {
        let (above, name) = split(path).ok_or(Errno::INVAL)?;
        let directory = open_directory_path(above)?;
        let slash = path.ends_with('/');
        Ok(Place { directory, name: name.to_owned(), slash })
    }

    /// What is there now; a link is not followed.
    pub(crate) fn facts(&self) -> io::Result<Statx> {
        facts(&self.directory, self.name.as_str())
    }
}

/// The text above the last name, and that name; `None` when there is no name that could be made.
pub(crate) fn split(path: &str) -> Option<(&str, &str)> {
    let trimmed = path.trim_end_matches('/');
    let at = trimmed.rfind('/')?;
    let (above, name) = trimmed.split_at_checked(at + 1)?;
    (!matches!(name, "" | "." | "..")).then_some((above, name))
}

/// Opens a directory for looking up names in it, which needs no right on the directory itself. Links
/// are followed, as the kernel does with any path that it is given.
pub(crate) fn open_directory_path(path: &str) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Opens something for telling what it is, whatever it is, without touching it.
pub(crate) fn open_path(at: impl AsFd, name: impl rustix::path::Arg, follow: bool) -> io::Result<OwnedFd> {
    let links = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
    Ok(openat(at, name, OFlags::PATH | OFlags::CLOEXEC | links, Mode::empty())?)
}

/// What the file system knows of a name; a link is not followed.
pub(crate) fn facts(at: impl AsFd, name: impl rustix::path::Arg) -> io::Result<Statx> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    Ok(statx(at, name, flags, StatxFlags::BASIC_STATS)?)
}

/// What the file system knows of an open descriptor.
pub(crate) fn facts_of(fd: impl AsFd) -> io::Result<Statx> {
    Ok(statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?)
}

/// What kind of thing these facts are of.
pub(crate) fn kind(facts: &Statx) -> FileType {
    FileType::from_raw_mode(u32::from(facts.stx_mode))
}

/// What tells one file from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    device: (u32, u32),
    inode: u64,
}

impl Identity {
    /// Of the file that these facts are of.
    pub(crate) fn of(facts: &Statx) -> Self {
        Identity { device: device(facts), inode: facts.stx_ino }
    }
}

/// The file system that a file is on.
pub(crate) fn device(facts: &Statx) -> (u32, u32) {
    (facts.stx_dev_major, facts.stx_dev_minor)
}

/// The name under which the kernel lets an open descriptor be used as a path. It leads to exactly the
/// file that was opened, wherever its name has gone.
pub(crate) fn descriptor_path(fd: BorrowedFd<'_>) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// Opens for reading what was opened with [`open_path`] and found to be a regular file.
pub(crate) fn reopen_for_reading(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(openat(CWD, descriptor_path(fd), flags, Mode::empty())?)
}

/// Opens a regular file for reading; anything else is an error, and is not touched.
pub(crate) fn open_regular(path: &str) -> io::Result<(OwnedFd, Statx)> {
    let found = open_path(CWD, path, true)?;
    match kind(&facts_of(&found)?) {
        FileType::RegularFile => {}
        FileType::Directory => return Err(Errno::ISDIR.into()),
        _ => return Err(not_regular()),
    }
    let file = reopen_for_reading(found.as_fd())?;
    let facts = facts_of(&file)?;
    Ok((file, facts))
}

/// A device, pipe or socket where a file is wanted.
pub(crate) fn not_regular() -> io::Error {
    io::Error::other("Not a regular file")
}

/// The error of a system call for the path that it was about.
pub(crate) fn at<E: Into<io::Error>>(path: impl AsRef<Path>) -> impl FnOnce(E) -> Error {
    move |error| Error::file(path, &error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_before_their_last_name() {
        for (path, parts) in [
            ("/a", Some(("/", "a"))),
            ("/a/b", Some(("/a/", "b"))),
            ("/a//b//", Some(("/a//", "b"))),
            ("//a", Some(("//", "a"))),
            ("/a/../b", Some(("/a/../", "b"))),
            ("/", None),
            ("//", None),
            ("/a/.", None),
            ("/a/..", None),
            ("/a/../", None),
            ("/a/...", Some(("/a/", "..."))),
        ] {
            assert_eq!(split(path), parts, "{path}");
        }
    }

    #[test]
    fn only_regular_files_are_opened() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("file"), "abc").unwrap();
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        rustix::fs::mkfifoat(CWD, path("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        assert_eq!(open_regular(&path("link")).unwrap().1.stx_size, 3);
        assert_eq!(open_regular(&path("")).unwrap_err().raw_os_error(), Some(Errno::ISDIR.raw_os_error()));
        // Opening the pipe would wait for a writer.
        assert_eq!(open_regular(&path("pipe")).unwrap_err().to_string(), "Not a regular file");
    }

    #[test]
    fn a_place_stays_where_it_was_found() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("d")).unwrap();
        std::fs::write(base.path().join("d/f"), "abc").unwrap();
        let place = Place::of(base.path().join("d/f").to_str().unwrap()).unwrap();
        std::fs::rename(base.path().join("d"), base.path().join("e")).unwrap();
        std::os::unix::fs::symlink("/etc", base.path().join("d")).unwrap();
        assert_eq!(place.facts().unwrap().stx_size, 3);
        assert!(Place::of("/").is_err() && Place::of("/tmp/..").is_err());
    }
}
