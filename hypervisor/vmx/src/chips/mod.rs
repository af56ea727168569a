//! The chips of the machine, each a state machine without I/O of its own.
//!
//! A chip knows its registers and nothing else: no memory, no files, no threads. What it wants from
//! the world (a sector, an interrupt, a reset) it says in a return value or a public method, and
//! [`crate::board`] does it. So a chip can be tested and fuzzed alone, and saving it is serializing it.

pub mod acpi_pm;
pub mod acpi_tables;
pub mod ata;
pub mod atapi;
pub mod cmos;
pub mod debug_port;
pub mod fw_cfg;
pub mod i8042;
pub mod keys;
pub mod serial;
pub mod vga;

/// What a chip asks for beside its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The processors and chips shall be reset.
    Reset,
    /// The machine shall be switched off.
    PowerOff,
}
