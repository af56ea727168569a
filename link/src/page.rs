//! Published state: a page of memory that one process writes whole and others read, without a lock and
//! without a question.
//!
//! ```text
//!   writer ── pwrite ──▶ sealed memfd ◀── pread ── readers
//!
//!   ┌────────┬───────────────────────────┬───────────────────────────┐
//!   │ number │ number │ length │ state   │ number │ length │ state   │
//!   └────────┴───────────────────────────┴───────────────────────────┘
//!     the last    even numbers                odd numbers
//! ```
//!
//! A state is written into the place that the last one does not have, and then its number in front. A
//! reader that finds the same number in front, in the place, and in front again has a whole state: the
//! place is written to again only after the next number. That two readings of one place are equal would
//! not tell: a writer may be held up in the middle of one write.
//!
//! Neither side maps the file, so neither can be hurt by the other through it: readers get a
//! descriptor that can only read, and the size is sealed. What a reader finds are bytes that the writer
//! wrote, which it decodes with the same suspicion as a message. A writer that is stopped, or gone,
//! leaves its last state behind.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{Ordering, fence};

use rustix::fs::{Mode, OFlags, SealFlags};

use crate::wire::{Wire, WireError};

/// Most bytes of a state.
pub const MAX_STATE: usize = 4096;

/// A reading is tried at most this often, should the writer write all the time.
const TRIES: usize = 16;

/// Bytes of a number.
const NUMBER: usize = 8;

/// Bytes of a place: number, length, state.
const PLACE: usize = NUMBER + 4 + MAX_STATE;

/// The writer's end.
#[derive(Debug)]
pub struct Page {
    file: OwnedFd,
    /// Of the state that was published last.
    number: u64,
    /// Kept, so that publishing allocates nothing.
    buffer: Vec<u8>,
}

impl Page {
    /// A page with nothing published. `name` shows in `/proc`.
    ///
    /// # Errors
    /// As `memfd_create(2)` and `fcntl(2)`.
    pub fn new(name: &str) -> io::Result<Self> {
        Ok(Self::from_fd(sealed_memory(name, (NUMBER + 2 * PLACE) as u64)?))
    }

    /// The page behind a descriptor that another process made with [`Page::new`], to go on from what a writer
    /// before this one has published.
    #[must_use]
    pub fn from_fd(file: OwnedFd) -> Self {
        let number = number_in_front(&file).unwrap_or_default();
        Page { file, number, buffer: Vec::new() }
    }

    /// Publishes a state in the place of the last one. One longer than [`MAX_STATE`] is left out, as is
    /// one that cannot be written: publishing never holds up the work that it tells of.
    pub fn publish(&mut self, state: &impl Wire) {
        let number = self.number.wrapping_add(1);
        self.buffer.clear();
        self.buffer.extend(number.to_le_bytes());
        self.buffer.extend([0; 4]);
        state.put(&mut self.buffer);
        let length = self.buffer.len() - NUMBER - 4;
        if length > MAX_STATE {
            return;
        }
        let count = u32::try_from(length).unwrap_or_default().to_le_bytes();
        if let Some(place) = self.buffer.get_mut(NUMBER..NUMBER + 4) {
            place.copy_from_slice(&count);
        }
        let written = rustix::io::pwrite(&self.file, &self.buffer, place_of(number));
        // Nobody may see the number before the state.
        fence(Ordering::SeqCst);
        if written == Ok(self.buffer.len()) {
            let _ = rustix::io::pwrite(&self.file, &number.to_le_bytes(), 0);
            fence(Ordering::SeqCst);
            self.number = number;
        }
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
    (0..TRIES).find_map(|_| read_once(&page)).and_then(|state| decode(&state).ok())
}

/// The bytes of the state; `None` when they were being written.
fn read_once(page: impl AsFd) -> Option<Vec<u8>> {
    let before = number_in_front(&page)?;
    fence(Ordering::SeqCst);
    let mut bytes = vec![0; PLACE];
    let length = rustix::io::pread(&page, &mut bytes, place_of(before)).ok()?;
    fence(Ordering::SeqCst);
    let after = number_in_front(&page)?;
    bytes.truncate(length);
    let (number, rest) = bytes.split_first_chunk::<NUMBER>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let state = rest.get(..count).filter(|state| !state.is_empty())?;
    let whole = before == after && before == u64::from_le_bytes(*number);
    whole.then(|| state.to_vec())
}

fn number_in_front(page: impl AsFd) -> Option<u64> {
    let mut bytes = [0; NUMBER];
    let length = rustix::io::pread(page, &mut bytes, 0).ok()?;
    (length == NUMBER).then(|| u64::from_le_bytes(bytes))
}

/// Where the state with a number is.
fn place_of(number: u64) -> u64 {
    NUMBER as u64 + (number % 2) * PLACE as u64
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
    fn a_writer_that_is_held_up_leaves_the_last_state_whole() {
        let mut page = Page::new("test").unwrap();
        let (writer, reader) = (page.writer().unwrap(), page.reader().unwrap());
        for number in 1..=5_u64 {
            page.publish(&vec![number; 100]);
            // Half of the next state, as a reader may find it for as long as the writer does not get to run.
            rustix::io::pwrite(&writer, &[0xee; 200], place_of(number + 1)).unwrap();
            assert_eq!(read(&reader), Some(vec![number; 100]));
        }
        // The next writer goes on behind it.
        let mut next = Page::from_fd(writer);
        next.publish(&vec![7_u64]);
        assert_eq!((next.number, read(&reader)), (6, Some(vec![7_u64])));
    }

    #[test]
    fn whatever_a_hostile_writer_leaves_is_a_state_or_none() {
        let page = Page::new("test").unwrap();
        let (writer, reader) = (page.writer().unwrap(), page.reader().unwrap());
        let after = |number: u64, rest: &[u8]| {
            let place = [&number.to_le_bytes(), rest].concat();
            rustix::io::pwrite(&writer, &place, place_of(number)).unwrap();
            rustix::io::pwrite(&writer, &number.to_le_bytes(), 0).unwrap();
            read::<Vec<u64>>(&reader)
        };
        assert_eq!(after(1, &[4, 0, 0, 0, 0, 0, 0, 0]), Some(Vec::new()));
        for bytes in [&[0xff; 4096][..], &[4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], &[5, 0, 0, 0, 0, 0, 0, 0, 7]]
        {
            assert_eq!(after(u64::MAX, bytes), None);
        }
        rustix::io::pwrite(&writer, &[0xff; 64], 0).unwrap();
        assert_eq!(read::<Vec<u64>>(&reader), None);
        let mut huge = Page::from_fd(writer);
        huge.publish(&vec![0_u64; 4096]);
        assert_eq!(read::<Vec<u64>>(&reader), None, "one that is too long is not published");
    }
}
