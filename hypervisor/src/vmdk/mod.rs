//! VMDK: virtual disks of VMware's products, read and written.
//!
//! ```text
//!   Disk ── Layer 0 (the disk itself) ── Layer 1 (its parent) ── … ── the root
//!             │ one descriptor each: text in a file of its own, or inside the extent
//!             └ extents, side by side, each one file
//!                 Flat    bytes in order
//!                 Sparse  KDMV or COWD: grains found through tables        (GrainMap)
//!                 Stream  KDMV with compressed grains, reading only        (GrainMap)
//!                 Zero    nothing at all
//! ```
//!
//! A sector is looked for in the disk itself, then in its parent, and so on; what nobody has reads
//! as zeros. Writes go to the disk itself only: a grain (64 KiB, mostly) that it lacks is filled from
//! the parents, put at the end of the file, and entered in a table.
//!
//! **What a crash can do.** The data of a grain are on stable storage before a table names them: new
//! table entries stay in memory until the grains are flushed. So a table never points to garbage,
//! whatever moment the power fails, and a flush that returned success loses nothing. Between two
//! flushes the disk behaves like a drive with a write cache; whoever runs a machine should flush
//! every few seconds, for guests that never ask.
//!
//! **What a hostile file can do.** Nothing is allocated by a number from a header: directories are
//! read after their place in the file was checked (at most 2 MiB, COWD 4 MiB), tables go through a
//! cache of fixed size, and every entry is checked before it is followed. See `docs` of each module.
//!
//! Sources: Virtual Disk Format 1.1, the documentation of libvmdk, and the behaviour of `qemu-img`,
//! which is the oracle of the tests. A sector is 512 bytes everywhere.

mod bytes;
mod cowd;
mod create;
pub mod descriptor;
mod disk;
mod error;
mod extent;
mod files;
mod flat;
mod geometry;
mod grain_map;
mod hosted;
mod info;
mod layer;
pub mod memory;
mod merge;
mod part;
mod sparse;
pub mod storage;
mod stream;

pub use create::{CreateOptions, Created, Kind, Planned, create, create_with, plan};
pub use disk::{Disk, Mode};
pub use error::Error;
pub use files::{DiskFile, DiskFileRole, files};
pub use geometry::{Adapter, Geometry};
pub use info::{ExtentInfo, Info, LayerInfo};
pub use merge::Merge;
pub use storage::{Access, FileOpener, Opener, Storage};

/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// Largest disk, in sectors: 2 TiB - 512 bytes.
pub const MAX_CAPACITY: u64 = 0xffff_ffff;

/// Most disks in a chain: a disk, its parent, and so on.
pub const MAX_CHAIN: usize = 32;
