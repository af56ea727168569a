//! What stands behind a handle: a body, its last error, and a lock around both.
//!
//! Each object has a lock of its own and there is no other, so calls on different objects never wait
//! for each other. A call that is interrupted by a panic ends with -999, and what the body was doing is
//! given up.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vmcontrol_client::{Error, ErrorCode};

/// What an object does.
pub trait Body {
    /// Gives up whatever is under way, without waiting: after a panic, and before the object goes.
    fn abandon(&mut self);
}

/// A body, its last error, and the lock.
#[derive(Debug, Default)]
pub struct Object<B> {
    state: Mutex<State<B>>,
}

#[derive(Debug, Default)]
struct State<B> {
    body: B,
    /// The failure of the last call; None after one that succeeded.
    last: Option<Error>,
    /// Destroyed while somebody was waiting for the lock.
    gone: bool,
}

impl<B: Body> Object<B> {
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // What a panic left behind is dealt with where it was caught.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a call and keeps how it ended. None after a failure.
    pub fn run<R>(&self, call: impl FnOnce(&mut B) -> Result<R, Error>) -> Option<R> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.gone {
            return None;
        }
        let body = &mut state.body;
        match catch_unwind(AssertUnwindSafe(|| call(body))) {
            Ok(Ok(result)) => {
                state.last = None;
                Some(result)
            }
            Ok(Err(error)) => {
                state.last = Some(error);
                None
            }
            Err(payload) => {
                // Dropping it could panic again.
                std::mem::forget(payload);
                state.body.abandon();
                state.last = Some(Error::with(ErrorCode::Unspecified, "a fault inside the library"));
                None
            }
        }
    }

    /// Looks at the body without touching the last error.
    pub fn look<R>(&self, look: impl FnOnce(&B) -> R) -> R {
        look(&self.lock().body)
    }

    /// Number and text of the last error; 0 and nothing after a call that succeeded.
    pub fn last_error(&self) -> (i32, Option<String>) {
        let state = self.lock();
        state.last.as_ref().map_or((0, None), |error| (error.code.number(), Some(error.text.clone())))
    }

    /// Waits for a call that is under way, then ends the object: calls that still wait behind it fail.
    pub fn destroy(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.body.abandon();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counter {
        calls: u32,
        abandoned: bool,
    }

    impl Body for Counter {
        fn abandon(&mut self) {
            self.abandoned = true;
        }
    }

    #[test]
    fn success_clears_the_last_error() {
        let object = Object::<Counter>::default();
        assert_eq!(object.last_error(), (0, None));
        let failed: Option<()> = object.run(|_| Err(Error::new(ErrorCode::NotConnected)));
        assert_eq!(failed, None);
        assert_eq!(object.last_error(), (-5, Some("Not connected".to_owned())));
        assert_eq!(object.last_error().0, -5, "asking changes nothing");
        assert_eq!(object.run(|body| Ok(std::mem::replace(&mut body.calls, 7))), Some(0));
        assert_eq!(object.last_error(), (0, None));
    }

    #[test]
    fn a_panic_is_an_error_and_the_object_lives() {
        let object = Object::<Counter>::default();
        assert_eq!(object.run(|_| -> Result<(), Error> { panic!("on purpose") }), None);
        let (number, text) = object.last_error();
        assert_eq!(number, -999);
        assert!(text.unwrap().starts_with("Unknown error"));
        assert!(object.look(|body| body.abandoned));
        assert_eq!(object.run(|_| Ok(1)), Some(1));
    }

    #[test]
    fn who_waits_for_a_destroyed_object_gets_a_failure() {
        let object = Object::<Counter>::default();
        object.destroy();
        assert_eq!(object.run(|_| Ok(1)), None);
    }
}
