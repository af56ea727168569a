//! What a disk's files are opened and read through.
//!
//! A disk is spread over files that name each other: descriptor, extents, parents. Who may open them,
//! and how, is not this room's business: a session process opens paths as the caller, a running
//! machine is handed descriptors, a test has no files at all. So every path goes through an
//! [`Opener`], and everything that is open is a [`Storage`].

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, OFlags};
use rustix::io::Errno;

/// How long a lock is waited for.
const PATIENCE: Duration = Duration::from_millis(200);

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading.
    Read,
    /// Reading and writing.
    Write,
}

/// Which file it is, whatever its name: device and inode.
pub type Identity = (u64, u64);

/// An open file of a disk. Offsets and lengths are bytes.
pub trait Storage: Send + Sync {
    /// Fills `buf` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before; otherwise as `pread(2)`.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all of `buf` at `offset`; the file grows if needed.
    ///
    /// # Errors
    /// As `pwrite(2)`. A part may have been written.
    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Length of the file.
    ///
    /// # Errors
    /// As `fstat(2)`.
    fn size(&self) -> io::Result<u64>;

    /// Returns when everything written so far survives a power cut.
    ///
    /// # Errors
    /// As `fdatasync(2)`. What was written since the last success is then of unknown fate.
    fn sync(&self) -> io::Result<()>;

    /// Which file this is, to find loops.
    ///
    /// # Errors
    /// As `fstat(2)`.
    fn identity(&self) -> io::Result<Identity>;

    /// Locks the file until it is closed: alone for writing, shared for reading. `false` when
    /// somebody else holds a lock that forbids it. A file system without locks allows everything.
    ///
    /// # Errors
    /// As `flock(2)`, but for the answers that mean "no" and "not here".
    fn lock_for(&self, access: Access) -> io::Result<bool>;

    /// Gives up the lock.
    ///
    /// # Errors
    /// As `flock(2)`.
    fn unlock(&self) -> io::Result<()> {
        Ok(())
    }
}

impl Storage for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.read_exact_at(buf, offset)
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(buf, offset)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn identity(&self) -> io::Result<Identity> {
        let metadata = self.metadata()?;
        Ok((metadata.dev(), metadata.ino()))
    }

    fn lock_for(&self, access: Access) -> io::Result<bool> {
        let operation = match access {
            Access::Read => FlockOperation::NonBlockingLockShared,
            Access::Write => FlockOperation::NonBlockingLockExclusive,
        };
        let start = Instant::now();
        let mut locked = rustix::fs::flock(self, operation);
        // A program that is just being started by a thread of the last holder has the lock until it runs.
        while locked == Err(Errno::WOULDBLOCK) && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(5));
            locked = rustix::fs::flock(self, operation);
        }
        match locked {
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            // NFS asks for a descriptor open for writing before it grants a lock for writing.
            Err(Errno::BADF) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    fn unlock(&self) -> io::Result<()> {
        match rustix::fs::flock(self, FlockOperation::Unlock) {
            // A file system without locks.
            Ok(()) | Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Opens the files of a disk.
///
/// Names found in a descriptor have been joined to the directory of that descriptor already; an
/// absolute name is passed as it is. Whoever opens disks of somebody else decides here which paths
/// are acceptable: a descriptor can name any file.
pub trait Opener {
    /// Opens one file.
    ///
    /// # Errors
    /// As the caller sees fit; the disk adds the path.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Storage>>;
}

/// Opens paths with the rights of the process, following symbolic links (reading through a link
/// reaches nothing that the process could not reach anyway; files are *made* without following any).
///
/// Only regular files are opened: no pipe can hang us, no device is read by the way.
#[derive(Debug, Clone, Copy, Default)]
pub struct FileOpener;

impl Opener for FileOpener {
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn Storage>> {
        open_regular(path, access).map(|file| Box::new(file) as Box<dyn Storage>)
    }
}

/// Opens a regular file, never waiting and never taking a terminal.
pub(crate) fn open_regular(path: &Path, access: Access) -> io::Result<File> {
    let mode = match access {
        Access::Read => OFlags::RDONLY,
        Access::Write => OFlags::RDWR,
    };
    let flags = mode | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    Ok(file)
}
