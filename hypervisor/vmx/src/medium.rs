//! What is behind a unit of an IDE channel: a virtual disk, or a CD image.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use hypervisor::vmdk::{self, Disk};

/// Bytes of a block of a CD.
pub const CD_BLOCK: usize = 2048;

/// A medium.
#[derive(Debug)]
pub enum Medium {
    /// A disk.
    Disk(Disk),
    /// A CD image.
    Cd(File),
}

/// Why a medium did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The disk's own code says so.
    #[error(transparent)]
    Disk(#[from] vmdk::Error),
    /// The CD image.
    #[error("the CD image: {0}")]
    Cd(io::Error),
    /// There is no such medium.
    #[error("there is no medium")]
    Missing,
}

impl Fault {
    /// Whether there is no room left: something that can be helped.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let Fault::Disk(error) = self else { return false };
        let kind = error.io_error().map(io::Error::kind);
        matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
        )
    }
}

impl Medium {
    /// Reads `count` sectors of a disk.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn read(&mut self, sector: u64, count: u16) -> Result<Vec<u8>, Fault> {
        let Medium::Disk(disk) = self else { return Err(Fault::Missing) };
        let mut bytes = vec![0; usize::from(count) * 512];
        disk.read_at(sector, &mut bytes)?;
        Ok(bytes)
    }

    /// Writes sectors to a disk.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn write(&mut self, sector: u64, data: &[u8]) -> Result<(), Fault> {
        let Medium::Disk(disk) = self else { return Err(Fault::Missing) };
        Ok(disk.write_at(sector, data)?)
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn flush(&mut self) -> Result<(), Fault> {
        match self {
            Medium::Disk(disk) => Ok(disk.flush()?),
            Medium::Cd(_) => Ok(()),
        }
    }

    /// Reads `count` blocks of a CD; the part of the last block that the image lacks is zeros.
    ///
    /// # Errors
    /// [`Fault`].
    pub fn read_cd(&mut self, block: u32, count: u16) -> Result<Vec<u8>, Fault> {
        let Medium::Cd(file) = self else { return Err(Fault::Missing) };
        let mut bytes = vec![0; usize::from(count) * CD_BLOCK];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            let at = u64::from(block) * CD_BLOCK as u64 + done as u64;
            match file.read_at(rest, at) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::Cd(error)),
            }
        }
        Ok(bytes)
    }
}

/// Number of blocks of a CD image of `bytes` bytes; None when there are none, or too many.
#[must_use]
pub fn cd_blocks(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(CD_BLOCK as u64)).ok().filter(|&blocks| blocks > 0)
}
