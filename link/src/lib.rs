//! What crosses a privilege boundary, and where an instance keeps its things.
//!
//! vmserverd is several processes that do not trust each other: the unprivileged network half of
//! the gateway, its root half, the server core, one session process per user. This room holds what
//! two of them must agree on, and nothing else:
//!
//! ```text
//!   net child ──ToMonitor──▶ monitor ──ToServerd──▶ core ──…──▶ session
//!             ◀──FromMonitor─        ◀──ToAuthd────
//!                      each arrow: one SOCK_SEQPACKET socket, one enum per direction
//! ```
//!
//! * [`wire`] turns an enum into bytes and back: one tag byte, fixed-width integers, counted bytes.
//!   No general serializer crosses privileges.
//! * [`channel`] carries such enums over a socket; descriptors travel only where a variant says so.
//!   [`reactor`] waits for a socket without being woken for nothing.
//! * [`identity`] is who a caller was proven to be.
//! * [`gateway`] is the conversation between the gateway and the server core, [`security`] the part of it
//!   that an administrator causes.
//! * [`vm_list`] is the list of registered machines as text.
//! * [`layout`], [`settings`] and [`product_config`] say where files are and what they mean.
//! * [`logfile`] writes lines in the products' log form, [`audit`] the record of who did what.
//! * [`page`] is published state, read without a question; [`figures`] is what the gateway publishes so.
//! * [`confine`] makes the walls around a process that reads what strangers send.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod audit;
pub mod channel;
pub mod confine;
pub mod figures;
pub mod gateway;
pub mod identity;
pub mod layout;
pub mod logfile;
pub mod page;
pub mod product_config;
pub mod ration;
pub mod reactor;
pub mod security;
pub mod settings;
pub mod vm_list;
pub mod wire;

pub use channel::{Channel, Outbox};
pub use identity::{Identity, Proof};
pub use layout::Layout;
pub use settings::Settings;
