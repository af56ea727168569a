//! How long a wrong password takes.
//!
//! Failures are counted per source address and per user name for ten minutes. The first three cost
//! the base delay (3 s), then it doubles up to the limit (30 s). A right password is never delayed,
//! so nobody can lock somebody else out; and only the connection that guessed wrong waits. Both
//! tables are bounded: when one is full the longest quiet entry makes room.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use crate::source::Source;

/// Quiet time after which failures are forgotten.
pub const MEMORY: Duration = Duration::from_secs(600);
/// Most entries of one table.
pub const MOST: usize = 8192;
/// Failures that cost the base delay.
const PATIENCE: u32 = 3;

/// The counters.
#[derive(Debug)]
pub struct Delays {
    base: Duration,
    limit: Duration,
    sources: Table<Source>,
    names: Table<Vec<u8>>,
}

#[derive(Debug)]
struct Table<K> {
    entries: HashMap<K, (u32, Instant)>,
}

impl<K: Hash + Eq + Clone> Table<K> {
    fn new() -> Self {
        Table { entries: HashMap::new() }
    }

    /// Counts a failure and returns how many there are now.
    fn count(&mut self, key: K, now: Instant) -> u32 {
        if self.entries.len() >= MOST && !self.entries.contains_key(&key) {
            self.entries.retain(|_, (_, last)| now.saturating_duration_since(*last) < MEMORY);
            let oldest = self.entries.iter().min_by_key(|(_, (_, last))| *last).map(|(key, _)| key.clone());
            if let Some(oldest) = oldest.filter(|_| self.entries.len() >= MOST) {
                self.entries.remove(&oldest);
            }
        }
        let (failures, last) = self.entries.entry(key).or_insert((0, now));
        if now.saturating_duration_since(*last) >= MEMORY {
            *failures = 0;
        }
        *failures = failures.saturating_add(1);
        *last = now;
        *failures
    }
}

impl Delays {
    /// Counters with these delays.
    #[must_use]
    pub fn new(base: Duration, limit: Duration) -> Self {
        Delays { base, limit, sources: Table::new(), names: Table::new() }
    }

    /// Takes other delays, and keeps the counts.
    pub fn configure(&mut self, base: Duration, limit: Duration) {
        (self.base, self.limit) = (base, limit);
    }

    /// Counts a failed login and says how long after the password's arrival it is answered. `name` is
    /// absent for a failed `LOCAL`.
    pub fn failed(&mut self, source: Source, name: Option<&[u8]>, now: Instant) -> Duration {
        let by_source = self.sources.count(source, now);
        let by_name = name.map_or(0, |name| self.names.count(name.to_vec(), now));
        let doublings = by_source.max(by_name).saturating_sub(PATIENCE);
        let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delays() -> Delays {
        Delays::new(Duration::from_secs(3), Duration::from_secs(30))
    }

    fn address(n: u32) -> Source {
        Source::V4(n.into())
    }

    #[test]
    fn three_then_doubling_then_the_limit() {
        let (mut delays, now) = (delays(), Instant::now());
        let seconds: Vec<u64> = (0..9).map(|_| delays.failed(address(1), None, now).as_secs()).collect();
        assert_eq!(seconds, [3, 3, 3, 6, 12, 24, 30, 30, 30]);
        assert_eq!(delays.failed(address(2), None, now).as_secs(), 3);
    }

    #[test]
    fn a_name_is_slow_from_every_address() {
        let (mut delays, now) = (delays(), Instant::now());
        let seconds: Vec<u64> =
            (0..5).map(|n| delays.failed(address(n), Some(b"root"), now).as_secs()).collect();
        assert_eq!(seconds, [3, 3, 3, 6, 12]);
        assert_eq!(delays.failed(address(9), Some(b"bob"), now).as_secs(), 3);
    }

    #[test]
    fn ten_quiet_minutes_clear_the_count() {
        let (mut delays, now) = (delays(), Instant::now());
        for _ in 0..9 {
            delays.failed(address(1), None, now);
        }
        assert_eq!(delays.failed(address(1), None, now + MEMORY).as_secs(), 3);
        assert_eq!(delays.failed(address(1), None, now + MEMORY).as_secs(), 3);
    }

    #[test]
    fn the_tables_stay_bounded() {
        let (mut delays, now) = (delays(), Instant::now());
        for n in 0..20_000u32 {
            delays.failed(address(n), Some(&n.to_le_bytes()), now + Duration::from_millis(u64::from(n)));
        }
        assert_eq!((delays.sources.entries.len(), delays.names.entries.len()), (MOST, MOST));
        // The newest are still known.
        assert_eq!(delays.sources.count(address(19_999), now + Duration::from_secs(20)), 2);
    }

    #[test]
    fn huge_counts_do_not_overflow() {
        let (mut delays, now) = (delays(), Instant::now());
        for _ in 0..100 {
            assert!(delays.failed(address(1), None, now) <= Duration::from_secs(30));
        }
    }
}
