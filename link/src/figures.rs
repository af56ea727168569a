//! What the gateway counts and publishes: two pages, each with one writer.
//!
//! ```text
//!   net child ── Front ──▶ page ─┐
//!   monitor ──── Logins ─▶ page ─┴─▶ (descriptors that can only read, over the link) ─▶ core ─▶ metrics
//! ```
//!
//! No name, address or password is among them. All numbers count from the start of the gateway, but for
//! those that say what there is now.

/// Limits of the buckets of PAM times, in milliseconds; each includes its limit, and one more bucket is
/// beyond them.
pub const PAM_LIMITS_MS: [u64; 12] = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 60_000, 120_000];

/// How many buckets there are.
pub const PAM_BUCKETS: usize = PAM_LIMITS_MS.len() + 1;

/// What the network child knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Front {
    /// Connections accepted on TLS ports.
    pub accepted_tls: u64,
    /// The same on plain ports.
    pub accepted_plain: u64,
    /// The same on the unix socket.
    pub accepted_unix: u64,
    /// Connections turned away because there were too many.
    pub turned_away: u64,
    /// Connections now that have not been handed over.
    pub waiting: u64,
    /// TLS sessions that are relayed now.
    pub relays: u64,
}
crate::wire_fields!(Front { accepted_tls, accepted_plain, accepted_unix, turned_away, waiting, relays });

/// What became of tries to log in, in one way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tries {
    /// Logged in.
    pub ok: u64,
    /// Wrong password, or a local proof that did not hold.
    pub refused: u64,
    /// Nobody could say: PAM did not answer, or its process ended.
    pub failed: u64,
}
crate::wire_fields!(Tries { ok, refused, failed });

/// What the monitor knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Logins {
    /// `PASS`.
    pub pass: Tries,
    /// `LOCAL` over the unix socket.
    pub unix: Tries,
    /// `LOCAL` over loopback TCP.
    pub tcp: Tries,
    /// Times of password checks by bucket, [`PAM_BUCKETS`] numbers: from the password's arrival to PAM's
    /// answer, so waiting for a free helper is in it, and the delay of a wrong password is not.
    pub pam: Vec<u64>,
    /// These times together, in microseconds.
    pub pam_micros: u64,
    /// Password checks that wait or are under way.
    pub checking: u64,
    /// Sessions handed to the server.
    pub handed_over: u64,
}
crate::wire_fields!(Logins { pass, unix, tcp, pam, pam_micros, checking, handed_over });

impl Logins {
    /// Counts a password check that took so long.
    pub fn checked(&mut self, took: std::time::Duration) {
        self.pam.resize(PAM_BUCKETS, 0);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = PAM_LIMITS_MS.partition_point(|limit| limit * 1000 < micros);
        if let Some(count) = self.pam.get_mut(bucket) {
            *count += 1;
        }
        self.pam_micros = self.pam_micros.saturating_add(micros);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Wire;
    use std::time::Duration;

    #[test]
    fn a_time_is_in_the_bucket_whose_limit_it_does_not_exceed() {
        let mut logins = Logins::default();
        for (micros, bucket) in [(0, 0), (1_000, 0), (1_001, 1), (120_000_000, 11), (120_000_001, 12)] {
            logins.checked(Duration::from_micros(micros));
            assert_eq!(logins.pam.iter().rposition(|count| *count > 0), Some(bucket), "{micros}");
        }
        assert_eq!((logins.pam.len(), logins.pam.iter().sum::<u64>()), (PAM_BUCKETS, 5));
        let mut bytes = Vec::new();
        logins.put(&mut bytes);
        assert_eq!(Logins::take(&mut bytes.as_slice()), Ok(logins));
    }
}
