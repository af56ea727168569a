//! The load generator: one thread per connection, blocking sockets, a clock around each call.
//!
//! ```text
//!   caller 1 ─ thread ─┐            call call call …│
//!   caller 2 ─ thread ─┼─ barrier ─ call call …     │ ──▶ sort ──▶ rate, p50, p99
//!   caller N ─ thread ─┘            call call call …│
//!                                   `seconds` later ┘
//! ```
//!
//! The peer's client (`libvirt_load.c`) has the same design, and its times are counted here too.

use std::io;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::Result;

/// Something that can be asked again and again.
pub trait Caller: Send {
    /// One question with its answer. The clock is around this.
    ///
    /// # Errors
    /// When the answer is not the expected one, or there is none.
    fn call(&mut self) -> io::Result<()>;
}

/// What one phase of load gave.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Calls on all connections.
    pub calls: usize,
    /// Calls per second.
    pub rate: f64,
    /// Median duration of a call, in milliseconds.
    pub p50: f64,
    /// 99th percentile, in milliseconds.
    pub p99: f64,
    /// The slowest call, in milliseconds.
    pub slowest: f64,
}

impl Sample {
    /// Counts the durations, in nanoseconds, of calls that took `elapsed` together.
    ///
    /// # Errors
    /// When there was no call.
    pub fn of(mut took: Vec<u32>, elapsed: Duration) -> Result<Self> {
        took.sort_unstable();
        let at = |share: f64| {
            let index = (took.len() as f64 * share) as usize;
            took.get(index.min(took.len().saturating_sub(1))).map(|nanos| f64::from(*nanos) / 1e6)
        };
        match (at(0.5), at(0.99), at(1.0)) {
            (Some(p50), Some(p99), Some(slowest)) => {
                let calls = took.len();
                Ok(Sample { calls, rate: calls as f64 / elapsed.as_secs_f64(), p50, p99, slowest })
            }
            _ => Err("there was not a single call".to_owned()),
        }
    }
}

/// Puts all callers to work at once, for `length`.
///
/// # Errors
/// The first call that fails.
pub fn run<C: Caller>(callers: &mut [C], length: Duration) -> Result<Sample> {
    let barrier = Barrier::new(callers.len() + 1);
    let barrier = &barrier;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            callers.iter_mut().map(|caller| scope.spawn(move || work(caller, barrier, length))).collect();
        barrier.wait();
        let began = Instant::now();
        let (mut took, mut ended) = (Vec::new(), began);
        for thread in threads {
            let done = thread.join().map_err(|_| "a caller panicked".to_owned())?;
            let (calls, end) = done.map_err(|error| format!("a call failed: {error}"))?;
            took.extend(calls);
            ended = ended.max(end);
        }
        Sample::of(took, ended - began)
    })
}

/// One caller's thread: durations in nanoseconds, and when the last call ended.
fn work<C: Caller>(caller: &mut C, barrier: &Barrier, length: Duration) -> io::Result<(Vec<u32>, Instant)> {
    let mut took = Vec::with_capacity(1 << 16);
    // The first call is for caches and for whatever the server makes when it is first needed.
    let warm = caller.call();
    barrier.wait();
    warm?;
    let mut before = Instant::now();
    let end = before + length;
    while before < end {
        caller.call()?;
        let after = Instant::now();
        took.push(u32::try_from((after - before).as_nanos()).unwrap_or(u32::MAX));
        before = after;
    }
    Ok((took, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_by_rank() {
        let took = (1..=1000u32).rev().map(|n| n * 1_000_000).collect();
        let sample = Sample::of(took, Duration::from_secs(4)).unwrap();
        assert_eq!((sample.rate, sample.p50, sample.p99, sample.slowest), (250.0, 501.0, 991.0, 1000.0));
        assert!(Sample::of(Vec::new(), Duration::from_secs(1)).is_err());
    }

    #[test]
    fn a_failing_caller_ends_the_run_and_is_reported() {
        struct Third(u32);
        impl Caller for Third {
            fn call(&mut self) -> io::Result<()> {
                self.0 += 1;
                if self.0 < 3 { Ok(()) } else { Err(io::Error::other("third")) }
            }
        }
        let error = run(&mut [Third(0), Third(1)], Duration::from_secs(60)).unwrap_err();
        assert_eq!(error, "a call failed: third");
    }
}
