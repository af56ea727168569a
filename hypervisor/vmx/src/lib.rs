//! One running machine, in a process of its own.
//!
//! ```text
//!   server core ──control channel──▶ driver    one task owns the state; queue says what may be done now
//!                                      │
//!                                   machine    KVM, memory, vCPU threads; run, pause, save, restore
//!                                      │
//!                   vCPU threads ──▶ board     the one place where ports lead to chips, chips to disks
//!                                      │
//!                                    chips     pure state machines: clock, keyboard, serial, VGA, IDE, …
//! ```
//!
//! * [`plan`]: from the .vmx to what is built, and what is left out with a notice.
//! * [`state_file`]: suspended machines and snapshots on disk, with version and checksum.
//! * [`snapshots`]: disks and memory at a moment, and back.
//! * [`redo`]: where the writes to undoable and nonpersistent disks go.
//! * [`screen`]: the text screen as a PNG.
//! * [`probe`]: how the host runs guests: natively, emulated, not at all.
//!
//! The process runs as the owner of the .vmx. It is handed `/dev/kvm`, its log and its control socket;
//! disks and images it opens itself, with the rights of that user.

#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod board;
pub mod boot;
pub mod chips;
pub mod driver;
pub mod drives;
pub mod failure;
pub mod firmware;
pub mod machine;
pub mod medium;
pub mod memory;
pub mod plan;
pub mod probe;
pub mod queue;
pub mod redo;
pub mod sandbox;
pub mod screen;
pub mod snapshots;
pub mod start;
pub mod state_file;
pub mod sys;
pub mod typist;
pub mod vcpu;
pub mod windows;
