//! One open file of a disk, with its name for the error texts and its need of a flush.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bytes::to_bytes;
use super::error::Error;
use super::storage::{Access, Identity, Opener, Storage};

/// A file of a disk. Clones are the same file: in a one-file disk the descriptor and the extent
/// share it, and one flush serves both.
#[derive(Clone)]
pub(crate) struct Part {
    path: Arc<Path>,
    storage: Arc<dyn Storage>,
    /// Written to since the last flush. That of a file that is opened for writing counts as well: a process that has
    /// died may have written what was never flushed, and what is read of it must not be lost once a flush was asked for.
    touched: Arc<AtomicBool>,
}

impl Part {
    pub(crate) fn open(opener: &dyn Opener, path: &Path, access: Access) -> Result<Self, Error> {
        let storage = opener.open(path, access).map_err(|error| Error::io("open", path, error))?;
        let touched = Arc::new(AtomicBool::new(access == Access::Write));
        Ok(Part { path: path.into(), storage: storage.into(), touched })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Length in bytes.
    pub(crate) fn size(&self) -> Result<u64, Error> {
        self.storage.size().map_err(|error| Error::io("examine", &self.path, error))
    }

    pub(crate) fn identity(&self) -> Result<Identity, Error> {
        self.storage.identity().map_err(|error| Error::io("examine", &self.path, error))
    }

    /// Locks the file until the last clone is dropped.
    pub(crate) fn lock(&self, access: Access) -> Result<(), Error> {
        match self.storage.lock_for(access) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Busy { path: self.path.to_path_buf() }),
            Err(error) => Err(Error::io("lock", &self.path, error)),
        }
    }

    /// Gives up the lock.
    pub(crate) fn unlock(&self) -> Result<(), Error> {
        self.storage.unlock().map_err(|error| Error::io("unlock", &self.path, error))
    }

    /// Reads bytes; the end of the file before the end of `buf` is a damage.
    pub(crate) fn read_bytes(&self, offset: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.storage.read_at(buf, offset).map_err(|error| Error::io("read", &self.path, error))
    }

    /// Reads whole sectors.
    pub(crate) fn read(&self, sector: u64, buf: &mut [u8]) -> Result<(), Error> {
        self.read_bytes(to_bytes(sector), buf)
    }

    pub(crate) fn write_bytes(&self, offset: u64, data: &[u8]) -> Result<(), Error> {
        self.touched.store(true, Ordering::Relaxed);
        self.storage.write_at(data, offset).map_err(|error| Error::io("write", &self.path, error))
    }

    /// Writes whole sectors.
    pub(crate) fn write(&self, sector: u64, data: &[u8]) -> Result<(), Error> {
        self.write_bytes(to_bytes(sector), data)
    }

    /// Flushes the file if anything may have been written to it. After a failure it still counts as written.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        if self.touched.load(Ordering::Relaxed) {
            self.storage.sync().map_err(|error| Error::io("flush", &self.path, error))?;
            self.touched.store(false, Ordering::Relaxed);
        }
        Ok(())
    }
}
