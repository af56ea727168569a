//! A .vmx file on disk: read, changed and written without losing anything on the way.
//!
//! ```text
//!   lock the file ─▶ still the one with this name? ─▶ read ─▶ change ─▶ write beside it, with owner,
//!        ▲                  no │                                        group, mode and ACL of the old
//!        └─────────────────────┘                                        ─▶ rename ─▶ flush
//!                                                                       or, where that is not
//!                                                                       allowed, in place
//! ```

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Gid, Mode, OFlags, RenameFlags, Uid, XattrFlags};
use rustix::io::Errno;

use super::text::VmxFile;
use crate::vmdk::Access;
use crate::vmdk::storage::open_regular;

/// How long a lock is waited for. Only other writers of this project take it, and briefly; but anybody
/// who can read the file could hold it.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Where the access control list of a file is kept.
const ACL: &str = "system.posix_acl_access";

/// How a file was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// By a new file in its place: a reader sees the old contents or the new.
    Replaced,
    /// In place, since the caller may write the file but not replace it.
    Rewritten,
    /// Not at all: nothing changed.
    Unchanged,
}

impl VmxFile {
    /// Reads the file at `path`.
    ///
    /// # Errors
    /// As the system calls; when it is no regular file, or larger than [`VmxFile::MAX_SIZE`].
    pub fn load(path: &Path) -> io::Result<Self> {
        Self::read(&open_regular(path, Access::Read)?)
    }

    /// Reads an open file from its beginning, wherever it stands.
    ///
    /// # Errors
    /// As [`VmxFile::load`].
    pub fn read(file: &File) -> io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        if metadata.len() > Self::MAX_SIZE {
            let text =
                format!("a configuration of {} bytes; at most {} are read", metadata.len(), Self::MAX_SIZE);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
        }
        let mut bytes = vec![0; usize::try_from(metadata.len()).unwrap_or(0)];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::parse(&bytes))
    }

    /// Makes a new file at `path`, complete from its first moment on, and durable. Its permission bits
    /// are `mode`, less the umask.
    ///
    /// # Errors
    /// `AlreadyExists` when there is something; otherwise as the system calls. Nothing is left then.
    pub fn create(&self, path: &Path, mode: u32) -> io::Result<()> {
        let place = Place::of(path)?;
        let temporary = place.write_beside(&self.to_bytes(), Mode::from_raw_mode(mode), |_| Ok(()))?;
        let from = (&place.directory, temporary.as_os_str());
        let renamed =
            rustix::fs::renameat_with(from.0, from.1, &place.directory, &place.name, RenameFlags::NOREPLACE)
                .or_else(|error| match error {
                    // Network file systems without this kind of rename.
                    Errno::INVAL | Errno::NOSYS => {
                        rustix::fs::linkat(from.0, from.1, &place.directory, &place.name, AtFlags::empty())?;
                        rustix::fs::unlinkat(from.0, from.1, AtFlags::empty())
                    }
                    error => Err(error),
                });
        if let Err(error) = renamed {
            let _ = rustix::fs::unlinkat(from.0, from.1, AtFlags::empty());
            return Err(error.into());
        }
        Ok(rustix::fs::fsync(&place.directory)?)
    }
}

/// Changes the file at `path`: reads it, lets `change` work on it, and writes it, durably, all under a
/// lock, so that two changes at once are both made. A link is followed; it stays.
///
/// Order of lines, comments, unknown keys, owner, group, mode and access control list are kept. Where
/// the caller may write the file but not replace it (no right on the directory, or another owner), it
/// is rewritten in place.
///
/// # Errors
/// What `change` returns, then nothing is written. As the system calls; `WouldBlock` when somebody
/// holds the lock for long. The old contents are then still there.
pub fn update<E: From<io::Error>>(
    path: &Path,
    change: impl FnOnce(&mut VmxFile) -> Result<(), E>,
) -> Result<Outcome, E> {
    let path = std::fs::canonicalize(path)?;
    let locked = lock(&path)?;
    let old = VmxFile::read(&locked)?;
    let mut new = old.clone();
    change(&mut new)?;
    if new == old {
        return Ok(Outcome::Unchanged);
    }
    Ok(write(&path, &locked.metadata()?, &new.to_bytes())?)
}

/// Opens and locks the file that has this name when the lock is granted.
fn lock(path: &Path) -> io::Result<File> {
    let start = Instant::now();
    loop {
        let file = open_regular(path, Access::Read)?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::BADF) => {
                let (mine, now) = (file.metadata()?, std::fs::metadata(path)?);
                if (mine.dev(), mine.ino()) == (now.dev(), now.ino()) {
                    return Ok(file);
                }
                // Replaced while it was being locked: the next one.
            }
            Err(Errno::WOULDBLOCK) if start.elapsed() < LOCK_WAIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Replaces a locked file, or rewrites it.
fn write(path: &Path, old: &Metadata, bytes: &[u8]) -> io::Result<Outcome> {
    let original = open_regular(path, Access::Write)?;
    let place = Place::of(path)?;
    match place.write_beside(bytes, Mode::RUSR | Mode::WUSR, |file| copy_rights(&original, old, file)) {
        Ok(temporary) => {
            let renamed = rustix::fs::renameat(&place.directory, &temporary, &place.directory, &place.name);
            if let Err(error) = renamed {
                let _ = rustix::fs::unlinkat(&place.directory, &temporary, AtFlags::empty());
                // In a sticky directory a file of somebody else cannot be replaced.
                return if may_not(error) { rewrite(&original, bytes) } else { Err(error.into()) };
            }
            rustix::fs::fsync(&place.directory)?;
            Ok(Outcome::Replaced)
        }
        Err(error) if Errno::from_io_error(&error).is_some_and(may_not) => rewrite(&original, bytes),
        Err(error) => Err(error),
    }
}

fn may_not(error: Errno) -> bool {
    matches!(error, Errno::ACCESS | Errno::PERM)
}

/// Gives a new file owner, group, mode and access control list of the old one.
fn copy_rights(old: &File, metadata: &Metadata, new: &File) -> io::Result<()> {
    let mine = new.metadata()?;
    if (mine.uid(), mine.gid()) != (metadata.uid(), metadata.gid()) {
        let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
        rustix::fs::fchown(new, Some(uid), Some(gid))?;
    }
    rustix::fs::fchmod(new, Mode::from_raw_mode(metadata.mode() & 0o7777))?;
    let mut acl = vec![0; 65536];
    match rustix::fs::fgetxattr(old, ACL, &mut *acl) {
        Ok(length) => {
            let acl = acl.get(..length).unwrap_or_default();
            Ok(rustix::fs::fsetxattr(new, ACL, acl, XattrFlags::empty())?)
        }
        // None there, or none anywhere on this file system.
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Writes new contents over the old ones. The space is taken first, so that a full disk is noticed
/// while nothing is lost; should writing fail all the same, the old contents are put back.
fn rewrite(file: &File, bytes: &[u8]) -> io::Result<Outcome> {
    let length = file.metadata()?.len();
    if bytes.len() as u64 > length {
        match rustix::fs::fallocate(file, FallocateFlags::KEEP_SIZE, 0, bytes.len() as u64) {
            Ok(()) | Err(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut old = vec![0; usize::try_from(length).unwrap_or(0)];
    file.read_exact_at(&mut old, 0)?;
    let put = |bytes: &[u8]| -> io::Result<()> {
        file.write_all_at(bytes, 0)?;
        file.set_len(bytes.len() as u64)?;
        file.sync_all()
    };
    match put(bytes) {
        Ok(()) => Ok(Outcome::Rewritten),
        Err(error) => {
            let _ = put(&old);
            Err(error)
        }
    }
}

/// A directory and a name in it.
struct Place {
    directory: OwnedFd,
    name: OsString,
}

impl Place {
    fn of(path: &Path) -> io::Result<Self> {
        let name = path
            .file_name()
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no file is named"))?;
        let directory = match path.parent() {
            Some(directory) if !directory.as_os_str().is_empty() => directory,
            _ => Path::new("."),
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(directory, flags, Mode::empty())?;
        Ok(Place { directory, name: name.to_owned() })
    }

    /// Writes a file under a temporary name, lets `prepare` set its rights, and flushes it. Returns the
    /// name. After a failure it is gone.
    fn write_beside(
        &self,
        bytes: &[u8],
        mode: Mode,
        prepare: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<OsString> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut random = [0; 8];
        rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
        let name = OsString::from(format!(".vmx-{:016x}.tmp", u64::from_ne_bytes(random)));
        let file = File::from(rustix::fs::openat(&self.directory, &name, flags, mode)?);
        let written =
            file.write_all_at(bytes, 0).and_then(|()| prepare(&file)).and_then(|()| file.sync_all());
        if let Err(error) = written {
            let _ = rustix::fs::unlinkat(&self.directory, OsStr::new(&name), AtFlags::empty());
            return Err(error);
        }
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_place_longer_and_shorter() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.vmx");
        std::fs::write(&path, "old contents").unwrap();
        let file = open_regular(&path, Access::Write).unwrap();
        for contents in ["much longer contents than the old ones", "short", ""] {
            assert_eq!(rewrite(&file, contents.as_bytes()).unwrap(), Outcome::Rewritten);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), contents);
        }
    }
}
