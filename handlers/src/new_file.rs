//! A file that appears complete or not at all.
//!
//! ```text
//!   O_TMPFILE: no name, gone with the process ──┬─ nothing to replace ─▶ link(name)
//!                                               └─ to replace ─▶ link(hidden), rename(hidden, name)
//!   no O_TMPFILE here: hidden name, 0600, O_EXCL ─▶ rename(hidden, name), with or without replacing
//! ```
//!
//! Until it is published nobody but the caller can open it; rights and owner are set before.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;

use crate::partial::Hidden;
use crate::place::descriptor_path;

/// A file without its name.
pub(crate) struct NewFile<'a> {
    directory: BorrowedFd<'a>,
    hidden: &'a Hidden,
    file: OwnedFd,
    /// The hidden name, if it has one.
    name: Option<String>,
}

impl<'a> NewFile<'a> {
    /// An empty file, open for writing, that will be in this directory.
    pub(crate) fn create(directory: BorrowedFd<'a>, hidden: &'a Hidden) -> io::Result<Self> {
        let access = OFlags::RDWR | OFlags::CLOEXEC;
        match openat(directory, c".", access | OFlags::TMPFILE, Mode::RUSR | Mode::WUSR) {
            Ok(file) => return Ok(NewFile { directory, hidden, file, name: None }),
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        Self::named(directory, hidden)
    }

    /// The same for a file system without nameless files.
    fn named(directory: BorrowedFd<'a>, hidden: &'a Hidden) -> io::Result<Self> {
        let name = hidden.name();
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(directory, name.as_str(), flags, Mode::RUSR | Mode::WUSR)?;
        Ok(NewFile { directory, hidden, file, name: Some(name) })
    }

    /// The open file.
    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Gives it its name. With `overwrite` it takes the place of another file, otherwise that is an
    /// error; on any error there is nothing new.
    pub(crate) fn publish(mut self, name: &str, overwrite: bool) -> io::Result<()> {
        if self.name.is_none() {
            let link = |name: &str| {
                linkat(CWD, descriptor_path(self.file.as_fd()), self.directory, name, AtFlags::SYMLINK_FOLLOW)
            };
            if !overwrite {
                return Ok(link(name)?);
            }
            let hidden = self.hidden.name();
            link(&hidden)?;
            self.name = Some(hidden);
        }
        if let Some(hidden) = &self.name {
            rename(self.directory, hidden, name, overwrite)?;
            self.name = None;
        }
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = unlinkat(self.directory, name.as_str(), AtFlags::empty());
        }
    }
}

/// Gives something in a directory another name there; what has the name is replaced or is an error.
pub(crate) fn rename(directory: BorrowedFd<'_>, from: &str, to: &str, overwrite: bool) -> io::Result<()> {
    if overwrite {
        return Ok(renameat(directory, from, directory, to)?);
    }
    match renameat_with(directory, from, directory, to, RenameFlags::NOREPLACE) {
        // A file system that cannot promise it. A second name can be had only once as well, but
        // directories have one; for them a look has to do.
        Err(Errno::INVAL | Errno::NOSYS) => match linkat(directory, from, directory, to, AtFlags::empty()) {
            Ok(()) => Ok(unlinkat(directory, from, AtFlags::empty())?),
            Err(Errno::PERM | Errno::OPNOTSUPP | Errno::ISDIR) => match crate::place::facts(directory, to) {
                Ok(_) => Err(Errno::EXIST.into()),
                Err(_) => Ok(renameat(directory, from, directory, to)?),
            },
            Err(error) => Err(error.into()),
        },
        other => Ok(other?),
    }
}

/// Flushes the names of a directory to the disk, as far as the caller may open it.
pub(crate) fn flush_names(directory: BorrowedFd<'_>) -> io::Result<()> {
    match openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(directory) => match rustix::fs::fsync(&directory) {
            Ok(()) | Err(Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        },
        Err(Errno::ACCESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::open_directory_path;
    use std::fs::{read, read_dir, write};

    #[test]
    fn it_has_a_name_when_it_is_published_and_replaces_only_when_asked() {
        let base = tempfile::tempdir().unwrap();
        let directory = open_directory_path(base.path().to_str().unwrap()).unwrap();
        let hidden = Hidden::new().unwrap();
        for named in [false, true] {
            let make = || match named {
                true => NewFile::named(directory.as_fd(), &hidden).unwrap(),
                false => NewFile::create(directory.as_fd(), &hidden).unwrap(),
            };
            drop(make());
            for (overwrite, text) in [(false, "one"), (true, "two")] {
                let new = make();
                rustix::io::write(new.file(), text.as_bytes()).unwrap();
                new.publish("file", overwrite).unwrap();
                assert_eq!(read(base.path().join("file")).unwrap(), text.as_bytes());
            }
            let error = make().publish("file", false).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            std::fs::remove_file(base.path().join("file")).unwrap();
            assert_eq!(read_dir(base.path()).unwrap().count(), 0, "nothing hidden is left");
        }
    }

    #[test]
    fn a_link_in_the_place_is_replaced_and_not_followed() {
        let base = tempfile::tempdir().unwrap();
        write(base.path().join("kept"), "kept").unwrap();
        std::os::unix::fs::symlink("kept", base.path().join("link")).unwrap();
        let directory = open_directory_path(base.path().to_str().unwrap()).unwrap();
        let hidden = Hidden::new().unwrap();
        let new = |overwrite| NewFile::create(directory.as_fd(), &hidden).unwrap().publish("link", overwrite);
        assert_eq!(new(false).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        new(true).unwrap();
        assert_eq!(read(base.path().join("kept")).unwrap(), b"kept");
        assert_eq!(read(base.path().join("link")).unwrap(), b"");
        std::fs::create_dir(base.path().join("d")).unwrap();
        assert!(NewFile::create(directory.as_fd(), &hidden).unwrap().publish("d", true).is_err());
        assert_eq!(read_dir(base.path()).unwrap().count(), 3);
    }
}
