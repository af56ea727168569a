//! `CreateCOWDisk`: new virtual disks.

use ops_derive::{Op, Reply};

use crate::value::{HostPath, Size};

crate::words! {
    /// The adapter a disk is made for.
    pub enum AdapterType {
        /// IDE.
        Ide = "ide",
        /// SCSI, BusLogic.
        BusLogic = "buslogic",
        /// SCSI, LSI Logic.
        LsiLogic = "lsilogic",
    }
}

crate::words! {
    /// How a disk keeps its sectors; all of these grow as they are written to.
    pub enum DiskType {
        /// One file with everything in it.
        MonolithicSparse = "monolithicSparse",
        /// A descriptor and pieces of at most 2047 MiB.
        TwoGbMaxExtentSparse = "twoGbMaxExtentSparse",
        /// A descriptor and a COWD file, as ESX Server uses them.
        VmfsSparse = "vmfsSparse",
    }
}

/// Bytes of a disk whose size nobody gives: 8 GiB.
pub const DEFAULT_SIZE: u64 = 8 << 30;

/// Makes a virtual disk, alone or as the child of another disk.
///
/// The disk is there as a whole or not at all. A child keeps what is written to it and reads everything
/// else from its parent, which is never changed, and which nobody may write to any more: a child is
/// valid only as long as its parent stays as it was.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "CreateCOWDisk", handler = "Disk::CreateCOWDisk_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = CreateCowDiskReply)]
pub struct CreateCowDisk {
    /// Path of the disk: its descriptor, or its only file.
    #[field(alias = "path")]
    pub file: HostPath,
    /// Size, at most 2 TiB less 512 bytes; rounded up to whole sectors of 512 bytes. 8 GiB when nothing
    /// is said. Ignored with `parent`, whose size counts.
    pub size: Option<Size>,
    /// The size in MiB, instead of `size`.
    #[field(name = "sizeMb")]
    pub size_mb: Option<Size>,
    /// The adapter it is for: `ide`, `buslogic` or `lsilogic`; when absent that of the parent, else
    /// `ide`.
    #[field(name = "adapterType")]
    pub adapter: Option<AdapterType>,
    /// How it keeps its sectors: `monolithicSparse`, `twoGbMaxExtentSparse` or `vmfsSparse`.
    #[field(name = "type", default = "monolithicSparse")]
    pub kind: DiskType,
    /// Makes a child of this disk. A relative name starts at the directory of `file`, and is written into
    /// the child as it stands here.
    pub parent: Option<String>,
    /// Whether files that exist are replaced. A disk in use, and a file of the parent, never is.
    #[field(default = "0")]
    pub overwrite: bool,
}

/// The disk that was made.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct CreateCowDiskReply {
    /// Path of the disk, as asked.
    pub file: HostPath,
    /// Its size.
    pub size: Size,
    /// How it keeps its sectors.
    #[field(name = "type")]
    pub kind: DiskType,
    /// Its content id, eight hexadecimal digits: changes when it is written to.
    pub cid: String,
    /// Every file written, the one with the descriptor first.
    #[field(list = "files/file")]
    pub files: Vec<HostPath>,
    /// What was not done as asked.
    #[field(warnings)]
    pub warnings: Vec<String>,
}
