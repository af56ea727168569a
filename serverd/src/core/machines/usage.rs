//! How much of the host's processors a machine uses.

use std::time::Duration;

use tokio::time::Instant;

/// Two looks are at least so far apart.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Use of processors by a process.
#[derive(Debug)]
pub struct Usage {
    pid: u32,
    at: Instant,
    ticks: u64,
    percent: u32,
}

impl Usage {
    /// Of this process, from now on.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        Usage { pid, at: Instant::now(), ticks: ticks(pid), percent: 0 }
    }

    /// Percent of one processor, over a second or more.
    pub fn percent(&mut self) -> u32 {
        let elapsed = self.at.elapsed();
        if elapsed >= LOOK_EVERY {
            let ticks = ticks(self.pid);
            let used = ticks.saturating_sub(self.ticks).saturating_mul(100_000);
            let hertz = rustix::param::clock_ticks_per_second().max(1);
            let whole = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).saturating_mul(hertz);
            self.percent = u32::try_from(used / whole.max(1)).unwrap_or(u32::MAX);
            (self.at, self.ticks) = (Instant::now(), ticks);
        }
        self.percent
    }
}

/// Field of `/proc/PID/stat`, counted as in proc(5).
pub(super) fn stat_field(pid: u32, number: usize) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may contain anything; the third field follows its last parenthesis.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

fn ticks(pid: u32) -> u64 {
    stat_field(pid, 14).unwrap_or(0).saturating_add(stat_field(pid, 15).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_seen() {
        let me = std::process::id();
        let before = ticks(me);
        let start = std::time::Instant::now();
        while ticks(me) <= before {
            assert!(start.elapsed() < Duration::from_secs(20));
        }
        assert!(stat_field(me, 22).unwrap() > 0);
        assert_eq!(stat_field(u32::MAX, 22), None);
    }
}
