//! What the operations do: one function each, in one file per module of the original server.
//!
//! ```text
//!   ops::TABLE ──── rows, in order ──────┐
//!                                        ├─▶ link() ─▶ Linked: one Run per row, by OpId
//!   #[handler] fn ── Registration (op) ──┘        └─▶ or the list of what does not fit
//! ```
//!
//! Everything here runs in the session process, which *is* the caller: same uid, gid and groups. So a
//! handler opens what it was asked to open and lets the kernel decide; there is no check to forget
//! and no right to fall back to. What all users share is asked of the server's core through [`Core`].
//!
//! A handler knows neither sockets nor XML. It takes the caller's [`Ctx`] and a typed request and
//! returns a typed reply or an error; an error that the caller should read is an [`ops::Error`], a
//! fault of ours is a [`Failure::Internal`], whose cause goes to the log only.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod attributes;
mod config_defaults;
pub mod connect;
mod context;
mod copy_file;
mod copy_tree;
mod dir_tree;
mod directory;
mod disk;
mod entries;
mod event_log;
mod file;
mod file_manager;
mod host;
mod host_info;
mod known;
mod linking;
pub mod machine;
mod main_ops;
pub mod metrics;
mod names;
mod networks;
mod new_file;
mod partial;
mod pieces;
mod place;
mod product;
pub mod registered;
mod remove;
pub mod run;
pub mod running;
mod security;
mod server;
mod space;
mod task_manager;
pub mod tasks;
mod transfer;
#[cfg(test)]
mod transfer_tests;
mod tree;
mod vm_all;
mod vm_config;
mod vm_console;
mod vm_create;
mod vm_delete;
mod vm_facts;
mod vm_guest;
mod vm_info;
mod vm_list;
mod vm_power;
mod vm_question;
mod vm_snapshot;
mod vmserverd;
mod walk;
mod watching;

pub use context::{Answer, Caller, ConnectedUser, Core, Ctx, Failure, User, current_session, in_session};
pub use linking::{Linked, Mismatch, Registration, link};
pub use run::{Job, Later, Run};
pub use vm_delete::files_used_by;
