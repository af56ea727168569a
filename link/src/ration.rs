//! Rationing the log: whoever can cause lines, a session process or a flood of callers, may have them written, but
//! not fill the disk with them.

use std::time::Instant;

/// How many lines may be logged: a burst, then a trickle.
#[derive(Debug)]
pub struct Ration {
    left: u32,
    since: Instant,
    dropped: u64,
}

impl Ration {
    /// Lines that may come at once.
    pub const BURST: u32 = 256;
    /// Lines per second after that.
    pub const PER_SECOND: u32 = 16;

    /// A full ration.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Ration { left: Self::BURST, since: now, dropped: 0 }
    }

    /// Whether a line may be written; if so, how many were dropped before it.
    pub fn allow(&mut self, now: Instant) -> Option<u64> {
        let seconds = (now - self.since).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(Self::PER_SECOND);
            self.left = self.left.saturating_add(more).min(Self::BURST);
            self.since = now;
        }
        if self.left == 0 {
            self.dropped += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.dropped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_talkative_process_is_rationed_and_told_on() {
        let start = Instant::now();
        let mut ration = Ration::new(start);
        let allowed = (0..1000).filter(|_| ration.allow(start).is_some()).count();
        assert_eq!(allowed, Ration::BURST as usize);
        let later = start + Duration::from_secs(1);
        assert_eq!(ration.allow(later), Some(1000 - u64::from(Ration::BURST)));
        assert_eq!(ration.allow(later), Some(0));
    }
}
