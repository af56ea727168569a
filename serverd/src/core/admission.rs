//! How many sessions there may be: reservations, limits, and the end.
//!
//! ```text
//!             reserve ──▶ reserved ──admit──▶ live ──closed──▶ gone
//!                            │ cancel, 30 s, link lost
//!                            └──▶ gone
//! ```
//!
//! A reservation counts like a session, so what was promised to the gateway can be kept. It expires,
//! because a gateway that dies between asking and handing over will never say so.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

/// How long a reservation is kept.
pub const RESERVED_FOR: Duration = Duration::from_secs(30);

/// Why no session is admitted. The text goes to the gateway's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The server stops.
    #[error("the server is stopping")]
    Stopping,
    /// `serverd.sessions.max` is reached.
    #[error("{0} sessions, the limit serverd.sessions.max")]
    Sessions(u32),
    /// `serverd.sessions.perUser` is reached.
    #[error("{0} sessions of this user, the limit serverd.sessions.perUser")]
    User(u32),
    /// The server runs as an ordinary user and serves only that user.
    #[error("the server runs as uid {0} and serves nobody else")]
    NotOurs(u32),
}

/// The sessions of this server, by number only.
#[derive(Debug)]
pub struct Admission {
    max: u32,
    per_user: u32,
    /// The only uid that is served, when the server is not root.
    only: Option<u32>,
    stopping: bool,
    reserved: HashMap<u64, (u32, Instant)>,
    /// Reservations in the order of their expiry; also those that have become sessions since.
    expiry: VecDeque<(Instant, u64)>,
    /// Reservations and live sessions of each user.
    by_user: HashMap<u32, u32>,
    /// The sum of `by_user`.
    all: u32,
}

impl Admission {
    /// Admits at most `max` sessions in all and `per_user` of one uid; with `only`, of that uid only.
    #[must_use]
    pub fn new(max: u32, per_user: u32, only: Option<u32>) -> Self {
        Admission {
            max,
            per_user,
            only,
            stopping: false,
            reserved: HashMap::new(),
            expiry: VecDeque::new(),
            by_user: HashMap::new(),
            all: 0,
        }
    }

    /// Keeps a place for a session of `uid`, or says why there is none.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn reserve(&mut self, session: u64, uid: u32, now: Instant) -> Result<(), Refusal> {
        self.expire(now);
        self.take(uid)?;
        if let Some((earlier, _)) = self.reserved.insert(session, (uid, now)) {
            // The gateway reused a number that was still open; the new owner has the place.
            self.give_back(earlier);
        }
        self.expiry.push_back((now + RESERVED_FOR, session));
        Ok(())
    }

    /// The reserved session will not come.
    pub fn cancel(&mut self, session: u64) {
        if let Some((uid, _)) = self.reserved.remove(&session) {
            self.give_back(uid);
        }
    }

    /// Turns a reservation into a live session. One that has expired, or was for another uid, is
    /// worth nothing: the limits are asked again.
    ///
    /// # Errors
    /// [`Refusal`]
    pub fn admit(&mut self, session: u64, uid: u32) -> Result<(), Refusal> {
        if self.reserved.get(&session).is_some_and(|(owner, _)| *owner == uid) {
            // A promise holds, also in a server that stops.
            self.reserved.remove(&session);
            return Ok(());
        }
        self.cancel(session);
        self.take(uid)
    }

    /// Whether somebody was promised a place and has not come yet.
    pub fn awaits(&mut self, now: Instant) -> bool {
        self.expire(now);
        !self.reserved.is_empty()
    }

    /// `count` live sessions of `uid` have ended.
    pub fn closed(&mut self, uid: u32, count: u32) {
        for _ in 0..count {
            self.give_back(uid);
        }
    }

    /// The gateway has gone, and with it the numbers of its reservations.
    pub fn link_lost(&mut self) {
        for (uid, _) in std::mem::take(&mut self.reserved).into_values() {
            self.give_back(uid);
        }
        self.expiry.clear();
    }

    /// Promises nothing from now on.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    fn take(&mut self, uid: u32) -> Result<(), Refusal> {
        if self.stopping {
            return Err(Refusal::Stopping);
        }
        match self.only {
            Some(only) if only != uid => return Err(Refusal::NotOurs(only)),
            _ => {}
        }
        if self.all >= self.max {
            return Err(Refusal::Sessions(self.max));
        }
        let of_user = self.by_user.entry(uid).or_insert(0);
        if *of_user >= self.per_user {
            return Err(Refusal::User(self.per_user));
        }
        *of_user += 1;
        self.all += 1;
        Ok(())
    }

    fn give_back(&mut self, uid: u32) {
        if let Some(of_user) = self.by_user.get_mut(&uid) {
            *of_user -= 1;
            self.all -= 1;
            if *of_user == 0 {
                self.by_user.remove(&uid);
            }
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.expiry.front().is_some_and(|(when, _)| *when <= now) {
            let Some((when, session)) = self.expiry.pop_front() else { return };
            // The number may since belong to a younger reservation, which has its own entry.
            if self.reserved.get(&session).is_some_and(|(_, since)| *since + RESERVED_FOR <= when) {
                self.cancel(session);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn limits_count_reservations_and_sessions() {
        let mut admission = Admission::new(3, 2, None);
        admission.reserve(1, 1000, now()).unwrap();
        admission.admit(1, 1000).unwrap();
        admission.reserve(2, 1000, now()).unwrap();
        assert_eq!(admission.reserve(3, 1000, now()), Err(Refusal::User(2)));
        admission.reserve(3, 1001, now()).unwrap();
        assert_eq!(admission.reserve(4, 1002, now()), Err(Refusal::Sessions(3)));
        admission.cancel(3);
        admission.cancel(3);
        admission.reserve(4, 1002, now()).unwrap();
        admission.closed(1000, 1);
        admission.reserve(5, 1000, now()).unwrap();
        assert_eq!(admission.all, 3);
    }

    #[test]
    fn a_reservation_expires_and_its_session_must_ask_again() {
        let mut admission = Admission::new(1, 1, None);
        let start = now();
        admission.reserve(1, 1000, start).unwrap();
        assert_eq!(admission.reserve(2, 1001, start + RESERVED_FOR / 2), Err(Refusal::Sessions(1)));
        admission.reserve(2, 1001, start + RESERVED_FOR).unwrap();
        assert_eq!(admission.admit(1, 1000), Err(Refusal::Sessions(1)));
        admission.admit(2, 1001).unwrap();
        // Nothing of the first reservation is left that could expire a second time.
        assert!(admission.reserve(3, 1001, start + RESERVED_FOR * 3).is_err());
        assert_eq!(admission.all, 1);
    }

    #[test]
    fn a_lost_link_takes_its_reservations_and_leaves_the_sessions() {
        let mut admission = Admission::new(9, 9, None);
        admission.reserve(1, 1000, now()).unwrap();
        admission.admit(1, 1000).unwrap();
        admission.reserve(2, 1000, now()).unwrap();
        admission.link_lost();
        assert_eq!(admission.all, 1);
        // The next link starts its numbers again.
        admission.reserve(2, 1000, now()).unwrap();
        assert_eq!(admission.all, 2);
    }

    #[test]
    fn a_session_of_another_user_than_reserved_has_no_place() {
        let mut admission = Admission::new(1, 1, None);
        admission.reserve(1, 1000, now()).unwrap();
        admission.admit(1, 0).unwrap();
        assert_eq!(admission.by_user.get(&1000), None);
        assert_eq!(admission.by_user.get(&0), Some(&1));
    }

    #[test]
    fn an_ordinary_users_server_serves_that_user() {
        let mut admission = Admission::new(9, 9, Some(1000));
        assert_eq!(admission.reserve(1, 0, now()), Err(Refusal::NotOurs(1000)));
        admission.reserve(1, 1000, now()).unwrap();
        admission.stop();
        // A promise holds.
        assert_eq!(admission.admit(1, 1000), Ok(()));
        assert_eq!(admission.admit(2, 1000), Err(Refusal::Stopping));
    }
}
