//! The configuration of a machine: its .vmx file.
//!
//! ```text
//!   bytes ──text──▶ VmxFile ──▶ facts      name, memory, versions, identifiers
//!     ▲               │    └──▶ devices    drives, floppies, network adapters, serial ports
//!     └────store──────┘         files      what belongs to the machine on disk
//!                     ▲
//!                  builder      a new machine
//! ```
//!
//! The file is a list of `key = "value"` lines ([`link::product_config`]); this module knows what the
//! keys mean. Reading never fails over a value: what makes no sense has the default. Writing keeps the
//! order of lines, comments, keys that nobody here knows, the kind of line ends, and the bytes of files
//! that are not UTF-8.
//!
//! Keys and values are facts about the product's files (see the specification, 6.4); where a default
//! or a tolerance is ours, its documentation says so.

mod builder;
mod devices;
mod facts;
mod files;
mod guests;
mod identifiers;
mod store;
mod text;

pub use builder::{Network, NewDisk, NewMachine};
pub use devices::{
    Bus, Connection, DiskMode, Drive, DriveKind, Floppy, NetworkAdapter, ScsiController, SerialPort,
    SerialTarget,
};
pub use files::{FileKind, MachineFile, machine_files};
pub use guests::{Family, GUESTS, Guest, guest};
pub use identifiers::{Mac, Uuid};
pub use store::{Outcome, update};
pub use text::VmxFile;
pub(crate) use text::decode;

/// Values of a new machine, and what is assumed where nothing else is said. Ours, but for the two
/// versions, which are those of the product's files.
pub mod defaults {
    /// `config.version`.
    pub const CONFIG_VERSION: u32 = 8;
    /// `virtualHW.version`.
    pub const HARDWARE_VERSION: u32 = 4;
    /// Memory of a new machine in MiB.
    pub const MEMORY_MB: u32 = 256;
    /// Size of a new disk in MiB.
    pub const DISK_SIZE_MB: u64 = 4096;
    /// `guestOS` of a new machine.
    pub const GUEST_OS: &str = "other";
    /// Adapter of a new disk.
    pub const DISK_ADAPTER: crate::vmdk::Adapter = crate::vmdk::Adapter::Ide;
    /// SCSI adapter, where one is wanted.
    pub const SCSI_ADAPTER: crate::vmdk::Adapter = crate::vmdk::Adapter::LsiLogic;
    /// Network adapter.
    pub const NIC_TYPE: &str = "vlance";
    /// Network.
    pub const NETWORK: super::Network = super::Network::Bridged;
}
