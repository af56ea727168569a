//! Waiting for something to come true in another process, where no event can be had.

use std::time::{Duration, Instant};

/// Longest wait for anything that should happen soon; generous, so that a busy machine fails no test.
pub const SOON: Duration = Duration::from_secs(20);

/// Asks again and again until the answer is `Some`; panics with `what` after [`SOON`].
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(SOON, what, ask)
}

/// As [`eventually`], with a limit of its own.
pub fn within<T>(limit: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
