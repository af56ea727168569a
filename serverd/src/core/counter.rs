//! Counting requests across processes, exactly and without messages.
//!
//! ```text
//!   session process ── atomic add ──▶ page of a memfd ◀── pread ── core
//! ```
//!
//! A session process adds one before it writes a reply. Who has read all replies and then asks for
//! the count therefore finds every one of them, without any round trip per request. The core reads
//! the page instead of mapping it: a file that another process can damage must not be able to raise
//! SIGBUS here. The file is sealed, so that its size stays what the session process relies on.

use std::io;
use std::os::fd::OwnedFd;

use link::page::{read_only, sealed_memory};

use crate::figures::WORDS;

/// Size of the file.
const BYTES: usize = WORDS * 8;

/// Reads that must agree are repeated at most this often, should the process add all the time.
const TRIES: usize = 16;

/// The counter of one session process.
#[derive(Debug)]
pub struct Counter {
    page: OwnedFd,
}

impl Counter {
    /// A counter at zero.
    ///
    /// # Errors
    /// As `memfd_create(2)` and `fcntl(2)`.
    pub fn new() -> io::Result<Self> {
        Ok(Counter { page: sealed_memory("vmserverd-requests", BYTES as u64)? })
    }

    /// The counter behind a descriptor.
    #[must_use]
    pub fn of(page: OwnedFd) -> Self {
        Counter { page }
    }

    /// A descriptor with which the counter can only be read.
    ///
    /// # Errors
    /// As `open(2)`.
    pub fn reader(&self) -> io::Result<OwnedFd> {
        read_only(&self.page)
    }

    /// A descriptor for the session process.
    ///
    /// # Errors
    /// As `dup(2)`.
    pub fn share(&self) -> io::Result<OwnedFd> {
        self.page.try_clone()
    }

    /// How many requests the process has answered, by its own account.
    #[must_use]
    pub fn read(&self) -> u64 {
        // Copying eight bytes out of a page is not promised to be atomic: take a value seen twice.
        let mut last = self.read_once();
        for _ in 0..TRIES {
            let next = self.read_once();
            if next == last {
                break;
            }
            last = next;
        }
        last
    }

    /// All figures of the process, by its own account; see [`crate::figures`].
    fn read_all(&self) -> Vec<u64> {
        let mut bytes = vec![0; BYTES];
        let length = rustix::io::pread(&self.page, &mut bytes, 0).unwrap_or(0);
        let (words, _) = bytes.get(..length).unwrap_or_default().as_chunks::<8>();
        words.iter().map(|word| u64::from_ne_bytes(*word)).collect()
    }

    fn read_once(&self) -> u64 {
        let mut bytes = [0; 8];
        match rustix::io::pread(&self.page, &mut bytes, 0) {
            Ok(8) => u64::from_ne_bytes(bytes),
            _ => 0,
        }
    }
}

/// What all processes have answered: those that live, and those that have ended.
#[derive(Debug, Default)]
pub struct Tally {
    ended: u64,
    /// All figures.
    figures: Vec<u64>,
}

/// Adds figures to others. A hostile process may leave any numbers behind; adding must not overflow for it.
fn add(sum: &mut Vec<u64>, more: &[u64]) {
    sum.resize(sum.len().max(more.len()), 0);
    for (sum, more) in sum.iter_mut().zip(more) {
        *sum = sum.saturating_add(*more);
    }
}

impl Tally {
    /// Keeps the count of a process that has ended.
    pub fn keep(&mut self, counter: &Counter) {
        self.ended = self.ended.saturating_add(counter.read());
        add(&mut self.figures, &counter.read_all());
    }

    /// What was kept so far, in a file like that of a process, for somebody who goes on from there.
    ///
    /// # Errors
    /// As [`Counter::new`] and `pwrite(2)`.
    pub fn snapshot(&self) -> io::Result<OwnedFd> {
        let counter = Counter::new()?;
        let bytes: Vec<u8> = self.figures.iter().take(WORDS).flat_map(|word| word.to_ne_bytes()).collect();
        rustix::io::pwrite(&counter.page, &bytes, 0)?;
        counter.reader()
    }

    /// All figures of the processes that ended and the living ones, as [`crate::figures::read`] takes them.
    pub fn figures<'a>(&self, living: impl Iterator<Item = &'a Counter>) -> Vec<u64> {
        let mut sum = self.figures.clone();
        living.for_each(|counter| add(&mut sum, &counter.read_all()));
        sum
    }

    /// The sum over the processes that ended and the living ones.
    pub fn total<'a>(&self, living: impl Iterator<Item = &'a Counter>) -> u64 {
        living.fold(self.ended, |sum, counter| sum.saturating_add(counter.read()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{SealFlags, fcntl_add_seals, ftruncate};
    use std::sync::atomic::Ordering;

    #[test]
    fn the_count_of_an_ended_process_stays() {
        let mut tally = Tally::default();
        let first = Counter::new().unwrap();
        let second = Counter::new().unwrap();
        for (counter, count) in [(&first, 3), (&second, 4)] {
            let figures = figures_of(counter);
            (0..count).for_each(|_| figures.count(1, false, std::time::Duration::ZERO));
        }
        assert_eq!(tally.total([&first, &second].into_iter()), 7);
        tally.keep(&first);
        drop(first);
        assert_eq!(tally.total([&second].into_iter()), 7);
        let all = crate::figures::read(&tally.figures([&second].into_iter()));
        assert_eq!((all.len(), all[0].op, all[0].buckets[0]), (1, 1, 7));
    }

    fn figures_of(counter: &Counter) -> crate::figures::Figures {
        crate::figures::Figures::new(crate::sys::map_counter(&counter.share().unwrap(), WORDS).unwrap())
    }

    #[test]
    fn the_page_cannot_be_taken_away() {
        let counter = Counter::new().unwrap();
        let shared = counter.share().unwrap();
        assert!(ftruncate(&shared, 0).is_err());
        assert!(ftruncate(&shared, 1 << 20).is_err());
        assert!(fcntl_add_seals(&shared, SealFlags::WRITE).is_err());
    }

    #[test]
    fn a_forged_count_does_not_overflow_the_sum() {
        let counter = Counter::new().unwrap();
        let words = crate::sys::map_counter(&counter.share().unwrap(), WORDS).unwrap();
        words.iter().for_each(|word| word.store(u64::MAX, Ordering::Relaxed));
        let mut tally = Tally::default();
        tally.keep(&counter);
        assert_eq!(tally.total([&counter].into_iter()), u64::MAX);
        assert_eq!(tally.figures([&counter].into_iter())[5], u64::MAX);
    }
}
