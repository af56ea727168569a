//! Published state: a page of memory that one process writes whole and others read, without a lock and
//! without a question.
//!
//! ```text
//!   writer ── one pwrite ──▶ sealed memfd ◀── pread, until two readings agree ── readers
//! ```
//!
//! Neither side maps the file, so neither can be hurt by the other through it: readers get a
//! descriptor that can only read, and the size is sealed. What a reader finds are bytes that the writer
//! wrote, which it decodes with the same suspicion as a message. A writer that is stopped, or gone,
//! leaves its last state behind.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags, SealFlags};

use crate::wire::{Wire, WireError};

/// Most bytes of a state.
pub const MAX_STATE: usize = 4096;

/// Readings that must agree are repeated at most this often, should the writer write all the time.
const TRIES: usize = 16;

/// The writer's end.
#[derive(Debug)]
pub struct Page {
    file: OwnedFd,
    /// Kept, so that publishing allocates nothing.
    buffer: Vec<u8>,
}

impl Page {
    /// A page with nothing published. `name` shows in `/proc`.
    ///
    /// # Errors
    /// As `memfd_create(2)` and `fcntl(2)`.
    pub fn new(name: &str) -> io::Result<Self> {
        Ok(Self::from_fd(sealed_memory(name, 4 + MAX_STATE as u64)?))
    }

    /// The page behind a descriptor that another process made with [`Page::new`].
    #[must_use]
    pub fn from_fd(file: OwnedFd) -> Self {
        Page { file, buffer: Vec::new() }
    }

    /// Publishes a state in the place of the last one. One longer than [`MAX_STATE`] is left out, as is
    /// one that cannot be written: publishing never holds up the work that it tells of.
    pub fn publish(&mut self, state: &impl Wire) {
        self.buffer.clear();
        self.buffer.extend([0; 4]);
        state.put(&mut self.buffer);
        let length = self.buffer.len() - 4;
        if length > MAX_STATE {
            return;
        }
        let count = u32::try_from(length).unwrap_or_default().to_le_bytes();
        if let Some(place) = self.buffer.get_mut(..4) {
            place.copy_from_slice(&count);
        }
        let _ = rustix::io::pwrite(&self.file, &self.buffer, 0);
    }

    /// A descriptor with which the page can be written, for the process that shall.
    ///
    /// # Errors
    /// As `dup(2)`.
    pub fn writer(&self) -> io::Result<OwnedFd> {
        self.file.try_clone()
    }

    /// A descriptor with which the page can only be read.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn reader(&self) -> io::Result<OwnedFd> {
        read_only(&self.file)
    }
}

/// Zeroed memory behind a descriptor, of a size that nobody can change any more.
///
/// # Errors
/// As `memfd_create(2)`, `ftruncate(2)` and `fcntl(2)`.
pub fn sealed_memory(name: &str, bytes: u64) -> io::Result<OwnedFd> {
    use rustix::fs::MemfdFlags;
    let file = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    rustix::fs::ftruncate(&file, bytes)?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

/// The same file through a descriptor that can only read.
///
/// # Errors
/// As `open(2)`.
pub fn read_only(file: impl AsFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The state that was published last; `None` when there is none yet, or what is there is none.
#[must_use]
pub fn read<T: Wire>(page: impl AsFd) -> Option<T> {
    let mut last = read_once(&page);
    for _ in 0..TRIES {
        let next = read_once(&page);
        if next == last {
            break;
        }
        last = next;
    }
    decode(&last?).ok()
}

fn read_once(page: impl AsFd) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4 + MAX_STATE];
    let length = rustix::io::pread(page, &mut bytes, 0).ok()?;
    bytes.truncate(length);
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    rest.get(..count).filter(|state| !state.is_empty()).map(<[u8]>::to_vec)
}

fn decode<T: Wire>(mut bytes: &[u8]) -> Result<T, WireError> {
    let state = T::take(&mut bytes)?;
    if bytes.is_empty() { Ok(state) } else { Err(WireError::Trailing(bytes.len())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_state_is_read_and_cannot_be_written_by_readers() {
        let mut page = Page::new("test").unwrap();
        let reader = page.reader().unwrap();
        assert_eq!(read::<Vec<u64>>(&reader), None);
        page.publish(&vec![1_u64, 2, 3]);
        page.publish(&vec![4_u64]);
        assert_eq!(read(&reader), Some(vec![4_u64]));
        assert!(rustix::io::pwrite(&reader, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(page.writer().unwrap(), 0).is_err());
        drop(page);
        assert_eq!(read(&reader), Some(vec![4_u64]), "a writer that is gone leaves its last state");
    }

    #[test]
    fn whatever_a_hostile_writer_leaves_is_a_state_or_none() {
        let page = Page::new("test").unwrap();
        let (writer, reader) = (page.writer().unwrap(), page.reader().unwrap());
        for bytes in [&[0xff; 4096][..], &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], &[5, 0, 0, 0, 0, 0, 0, 0, 7]]
        {
            rustix::io::pwrite(&writer, bytes, 0).unwrap();
            assert_eq!(read::<Vec<u64>>(&reader), None);
        }
        let mut huge = Page::from_fd(writer);
        huge.publish(&vec![0_u64; 4096]);
        assert_eq!(read::<Vec<u64>>(&reader), None, "one that is too long is not published");
    }
}
