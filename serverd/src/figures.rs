//! Figures about requests, counted by session processes and added up by the core.
//!
//! ```text
//!   word 0          requests answered
//!   then, for each operation of the table and one more for requests that name none of them,
//!   for those that succeeded and those that failed:
//!       words 0..14     requests by the time they took; the limits are LIMITS, the last is beyond them
//!       word 14         the time of all of them together, in microseconds
//! ```
//!
//! The words are in a page file that both share (see [`crate::core::counter`]). Only one thread of the
//! session process writes, so it adds without locking the bus: three plain additions per request. A
//! request counts before any of its reply can be read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use handlers::running::{BUCKETS, LIMITS_US, OpFigures};

/// Operations, and one place for what is none.
const OPS: usize = ops::TABLE.len() + 1;

/// Place of requests that name no operation.
pub const NO_OP: usize = OPS - 1;

/// Words of one operation and result.
const CELL: usize = BUCKETS + 1;

/// Words in all.
pub const WORDS: usize = 1 + OPS * 2 * CELL;

/// The words of one session process, for the thread that answers.
#[derive(Debug, Clone, Copy)]
pub struct Figures(&'static [AtomicU64]);

impl Figures {
    /// Figures in words that nobody else writes to; there should be [`WORDS`].
    #[must_use]
    pub fn new(words: &'static [AtomicU64]) -> Self {
        Figures(words)
    }

    /// Counts an answered request: which operation ([`ops::table::OpId::index`] or [`NO_OP`]), whether it
    /// failed, and how long it took.
    pub fn count(&self, op: usize, failed: bool, took: Duration) {
        let cell = 1 + (op.min(NO_OP) * 2 + usize::from(failed)) * CELL;
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.add(cell + LIMITS_US.partition_point(|limit| *limit < micros), 1);
        self.add(cell + BUCKETS, micros);
        self.add(0, 1);
    }

    fn add(&self, word: usize, more: u64) {
        if let Some(word) = self.0.get(word) {
            word.store(word.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
        }
    }

    /// Requests counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.first().map_or(0, |word| word.load(Ordering::Relaxed))
    }
}

/// The operations that were asked for at all, out of [`WORDS`] words.
#[must_use]
pub fn read(words: &[u64]) -> Vec<OpFigures> {
    let cells = words.get(1..).unwrap_or_default().chunks_exact(CELL);
    let figures = cells.enumerate().filter_map(|(at, cell)| {
        let (micros, buckets) = cell.split_last()?;
        let op = u32::try_from(at / 2).ok()?;
        let asked = buckets.iter().any(|count| *count > 0);
        asked.then(|| OpFigures { op, failed: at % 2 == 1, buckets: buckets.to_vec(), micros: *micros })
    });
    figures.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_in_one_bucket_of_its_operation() {
        let words: &'static [AtomicU64] = Box::leak((0..WORDS).map(|_| AtomicU64::new(0)).collect());
        let figures = Figures::new(words);
        figures.count(3, false, Duration::from_micros(10));
        figures.count(3, false, Duration::from_micros(11));
        figures.count(3, true, Duration::from_secs(3600));
        figures.count(usize::MAX, true, Duration::ZERO);
        assert_eq!(figures.total(), 4);
        let words: Vec<u64> = words.iter().map(|word| word.load(Ordering::Relaxed)).collect();
        let found = read(&words);
        let [done, failed, none] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((done.op, done.failed, done.micros), (3, false, 21));
        assert_eq!(done.buckets[..3], [1, 1, 0]);
        assert_eq!((failed.op, failed.failed, failed.buckets[BUCKETS - 1]), (3, true, 1));
        assert_eq!((none.op as usize, none.failed, none.buckets[0]), (NO_OP, true, 1));
        assert_eq!(read(&[]), []);
    }
}
