//! What the core needs of root, and giving up the rest.
//!
//! The effective and permitted sets shrink to what supervising other users' processes takes. The
//! bounding set stays: a session process of root is root with all of root's rights, as root's shell
//! would be, and every session process starts as a copy of this program that has yet to become its
//! user. An attacker who runs code in the core could therefore start a process with all rights; what
//! the smaller sets stop is every mistake that needs a right the core does not use, such as opening
//! a file that root alone may not open.

use caps::{CapSet, Capability, CapsHashSet};

/// Become other users, give files to them, look at files they own, end their processes.
const KEPT: [Capability; 5] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_KILL,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

/// Gives up every capability but those that are used.
///
/// # Errors
/// As `capset(2)`.
pub fn reduce() -> Result<(), caps::errors::CapsError> {
    let has = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = KEPT.into_iter().filter(|capability| has.contains(capability)).collect();
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
