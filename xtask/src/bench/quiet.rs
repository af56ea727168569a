//! Other people on the machine: a phase they disturbed is measured again.
//!
//! ```text
//!   wait until nobody else runs ─▶ phase ─▶ what did the machine do that we did not?
//!              ▲                                │ over 5 %, and there are tries left
//!              └────────────────────────────────┘
//! ```
//!
//! All sides are treated alike, so this selects quiet moments, not good figures. Of a phase that is
//! disturbed every time, the quietest try counts, and the report says how quiet that was.

use std::time::{Duration, Instant};

use crate::Result;

/// Share of the machine's processor time that others may use during a phase.
const TOLERATED: f64 = 0.05;
/// Tries of one phase.
const TRIES: usize = 4;
/// How long a quiet moment is.
const MOMENT: Duration = Duration::from_millis(300);
/// Clock ticks per second in `/proc`: the kernel promises this number to programs.
const TICKS: f64 = 100.0;

/// Watches the machine during the phases of a bench.
#[derive(Debug)]
pub struct Quiet {
    patience: Duration,
    repeated: usize,
    worst: f64,
}

impl Quiet {
    /// Waits up to `patience` for a quiet moment before each try.
    pub fn new(patience: Duration) -> Self {
        Quiet { patience, repeated: 0, worst: 0.0 }
    }

    /// Measures one phase, again if others disturbed it.
    ///
    /// # Errors
    /// As the phase.
    pub fn phase<T>(&mut self, mut phase: impl FnMut() -> Result<T>) -> Result<T> {
        let mut best: Option<(f64, T)> = None;
        for attempt in 0..TRIES {
            wait(self.patience);
            self.repeated += usize::from(attempt > 0);
            let watch = Watch::start();
            let value = phase()?;
            let foreign = watch.foreign();
            if best.as_ref().is_none_or(|(least, _)| foreign < *least) {
                best = Some((foreign, value));
            }
            if foreign <= TOLERATED {
                break;
            }
        }
        let (foreign, value) = best.ok_or("no phase was measured")?;
        self.worst = self.worst.max(foreign);
        Ok(value)
    }

    /// For the reader: how quiet it was.
    pub fn describe(&self) -> String {
        let Quiet { repeated, worst, .. } = self;
        format!(
            "others used at most {:.0} % of the machine during a phase; {repeated} phases repeated",
            worst * 100.0
        )
    }
}

/// Waits until nobody else runs, but not for ever.
fn wait(patience: Duration) {
    let limit = Instant::now() + patience;
    while Instant::now() < limit {
        let watch = Watch::start();
        std::thread::sleep(MOMENT);
        if watch.foreign() <= TOLERATED {
            return;
        }
    }
}

/// The state of the clocks at the start of a phase.
struct Watch {
    since: Instant,
    machine: f64,
    own: f64,
}

impl Watch {
    fn start() -> Self {
        Watch { since: Instant::now(), machine: machine(), own: own() }
    }

    /// Share of the machine that was used by neither us nor what we started.
    fn foreign(&self) -> f64 {
        let all = self.since.elapsed().as_secs_f64()
            * std::thread::available_parallelism().map_or(1, usize::from) as f64;
        ((machine() - self.machine) - (own() - self.own)).max(0.0) / all
    }
}

/// Seconds that the machine's processors have spent in user and system mode.
fn machine() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    // user, nice, system
    line.split_whitespace().skip(1).take(3).filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / TICKS
}

/// Seconds that we, our descendants, and those of them that have ended have spent.
fn own() -> f64 {
    let mut wanted = vec![std::process::id()];
    let mut ticks = 0.0;
    while let Some(pid) = wanted.pop() {
        wanted.extend(super::process::children(pid));
        let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The name, in parentheses, may contain anything; the fields after it start with the third.
        let fields = text.rsplit_once(')').map_or("", |(_, fields)| fields);
        ticks += fields
            .split_whitespace()
            .skip(11)
            .take(4)
            .filter_map(|field| field.parse::<f64>().ok())
            .sum::<f64>();
    }
    ticks / TICKS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_work_is_not_foreign() {
        let before = own();
        let limit = Instant::now() + Duration::from_secs(60);
        while own() - before < 0.05 {
            assert!(Instant::now() < limit, "this loop is not counted");
        }
        assert!(machine() > own());
    }

    #[test]
    fn a_phase_that_fails_is_not_tried_again() {
        let mut calls = 0;
        let result: Result<()> = Quiet::new(Duration::ZERO).phase(|| {
            calls += 1;
            Err("broken".to_owned())
        });
        assert_eq!((result, calls), (Err("broken".to_owned()), 1));
    }
}
