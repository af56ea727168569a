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

/// What the thread needs that writes event logs, which belong to the owners of machines.
const WRITER: [Capability; 3] = [Capability::CAP_CHOWN, Capability::CAP_DAC_OVERRIDE, Capability::CAP_FOWNER];

/// Gives up every capability of this thread, and of those it starts, but those that the core uses.
///
/// # Errors
/// As `capset(2)`.
pub fn reduce() -> Result<(), caps::errors::CapsError> {
    reduce_to(&KEPT)
}

/// The same for the thread that writes.
///
/// # Errors
/// As `capset(2)`.
pub fn reduce_writer() -> Result<(), caps::errors::CapsError> {
    reduce_to(&WRITER)
}

fn reduce_to(kept: &[Capability]) -> Result<(), caps::errors::CapsError> {
    let has = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = kept.iter().copied().filter(|capability| has.contains(capability)).collect();
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    caps::set(None, CapSet::Permitted, &kept)
}
