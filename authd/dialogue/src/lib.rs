//! What a caller may say to the gateway before the hand-over, and what is answered.
//!
//! ```text
//!   bytes ─▶ line: one line, bounded ─▶ dialogue: a state machine ─▶ reply: the complete list
//! ```
//!
//! Pure: no I/O, no clock, no TLS, no PAM. So the whole conversation with a stranger can be tested and
//! fuzzed in virtual time, and the fuzz targets build without the rest of the gateway.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod dialogue;
pub mod line;
pub mod reply;
