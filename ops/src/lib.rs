//! The contract of vmserverd: what can be asked for, how it is written down, and what comes back.
//!
//! ```text
//!   bytes ──▶ framing ──▶ guard ──▶ envelope ──▶ reader ──▶ value ──▶ a request type
//!             (Inbox)     (limits)  (which op)   (cursor)   (types)    of one operation
//!                                       │
//!                                     table ◀── one Row per operation, declared by #[derive(Op)]
//!                                       │
//!                       docs, log listing, introspection, fuzz dictionary
//!
//!   a reply type ──▶ writer ──▶ envelope ──▶ bytes
//! ```
//!
//! The operations themselves are declared in one file per module of the original server:
//! [`main_ops`], [`vmserverd`], [`file_manager`]. What they *do* is in the room `handlers`.
//!
//! This room does no input or output, knows no time and starts nothing: every function here is a
//! pure function of its arguments, which is what makes it testable and fuzzable.

#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

// The derives write `::ops::...`; inside this crate that name must exist too.
extern crate self as ops;

pub mod config_defaults;
pub mod dir_tree;
pub mod directory;
pub mod disk;
pub mod docs;
pub mod envelope;
pub mod error;
pub mod event_log;
pub mod file;
pub mod file_manager;
pub mod framing;
pub mod guard;
pub mod host;
pub mod host_info;
pub mod machine;
pub mod main_ops;
pub mod reader;
pub mod security;
pub mod server;
pub mod table;
pub mod task_manager;
pub mod value;
pub mod vm_config;
pub mod vm_console;
pub mod vm_delete;
pub mod vm_facts;
pub mod vm_guest;
pub mod vm_info;
pub mod vm_list;
pub mod vm_power;
pub mod vm_question;
pub mod vm_snapshot;
pub mod vmserverd;
pub mod writer;

pub use envelope::{Product, Request};
pub use error::{Error, ErrorCode, Fault};
pub use framing::Inbox;
pub use guard::{Document, Guard, Limits, Progress, Reason};
pub use ops_derive::{Fragment, Op, Reply};
pub use table::{Access, Effect, Field, HISTORICAL, OpId, Row, Runs, Shape, TABLE, lookup};
pub use writer::Out;

/// An operation: its declaration and its request type. Implemented by `#[derive(Op)]`.
pub trait Operation: Sized {
    /// Everything the table knows about it.
    const ROW: Row;

    /// What it answers.
    type Reply: Reply;

    /// Reads its arguments and the rest of the document.
    ///
    /// # Errors
    /// [`Fault::Malformed`] when the rest of the document is, otherwise the first wrong argument.
    fn read(input: reader::Input<'_>) -> Result<Self, Fault>;
}

/// The contents of `out`. Implemented by `#[derive(Reply)]`.
pub trait Reply {
    /// Its elements, in document order.
    const FIELDS: &'static [Field];

    /// Writes the elements, without `out` itself.
    fn write(&self, out: &mut Out<'_>);

    /// Remarks that never mean failure.
    fn warnings(&self) -> &[String] {
        &[]
    }
}

/// A group of fields, used as an element with children or in place. Implemented by
/// `#[derive(Fragment)]`.
pub trait Fragment {
    /// Its fields, in document order; attributes first.
    const FIELDS: &'static [Field];

    /// Writes the attributes into the start tag of the surrounding element.
    fn write_attributes(&self, out: &mut Out<'_>);

    /// Writes the children.
    fn write_fields(&self, out: &mut Out<'_>);
}

/// A group of fields that a request may contain in place, or as the items of a list. Implemented by
/// `#[derive(Fragment)]` with `#[fragment(request)]`.
pub trait FragmentInput: Sized {
    /// The fields while reading.
    type Slots: Default;

    /// Reads the parameter `name` if it is one of the group; false if it is not.
    ///
    /// # Errors
    /// [`Fault::Malformed`] only.
    fn accept(slots: &mut Self::Slots, name: &str, input: &mut reader::Input<'_>) -> Result<bool, Fault>;

    /// On a connection to one machine: takes it for a `config` of the group that was not named.
    fn own_machine(slots: &mut Self::Slots, input: &reader::Input<'_>);

    /// The group, after everything was read.
    ///
    /// # Errors
    /// A required field that is missing.
    fn build(slots: Self::Slots) -> Result<Self, Fault>;
}
