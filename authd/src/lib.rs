//! The gateway on port 902: finds out who is calling, and hands the connection over.
//!
//! ```text
//!                 unprivileged, sandboxed                          root
//!  caller ──TCP/unix──▶ net child ──────ToMonitor──────▶ monitor ──▶ PAM helpers (one check each)
//!                       banner, TLS, ◀────FromMonitor─── identity      │
//!                       command lines                    delays        ▼
//!                            │                              │      name service, PAM modules
//!                            └── TLS relay ──(socket pair)──┼──▶ serverd   (link, SCM_RIGHTS)
//! ```
//!
//! Three kinds of process, one program:
//!
//! * [`net`] talks to callers. It runs as an unprivileged user without a file system, and every byte
//!   from the network is read here and nowhere else. It may ask the monitor four things: is this
//!   password right, who owns the other end of this socket, may this session go to the server, here
//!   it is.
//! * [`monitor`] runs as root. It binds each identity to the socket it was proven for, slows down
//!   guessing, and alone speaks to the server. It reads only fixed messages.
//! * [`pam`] helpers call PAM and the name service, which may sleep, crash or print; [`modules`] keeps what
//!   they load.
//!
//! Started by a super-server for one caller, the program is none of these: it hands that caller to the monitor
//! ([`inetd`]).
//!
//! What a caller may say and what is answered is [`dialogue`], a state machine without I/O, on top of
//! [`line`], the grammar of one line, and [`reply`], the complete list of answers. The wire protocol
//! is that of VMware Server 1.0 as far as it is publicly known; `docs/protocol.md` says which part
//! is history and which is our choice.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub use authd_dialogue::{dialogue, line, reply};

pub mod certificate;
pub mod inetd;
pub mod messages;
pub mod modules;
pub mod monitor;
pub mod net;
pub mod pam;
pub mod sandbox;
pub mod source;
mod sys;

/// The name in log lines, fixed by history.
pub const IDENT: &str = "vmware-authd";
