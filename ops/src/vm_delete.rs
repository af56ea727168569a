//! `VMDeleteInfo_*` and `VMDeleteEdit_*`: what deleting a machine would take, and doing it.

use ops_derive::{Fragment, Op, Reply};

use crate::machine::State;
use crate::value::{ConfigPath, HostPath, Size};

crate::words! {
    /// What a file is to its machine.
    pub enum FileType {
        /// Configuration.
        Config = "config",
        /// Memory of the clock chip.
        Nvram = "nvram",
        /// A log.
        Log = "log",
        /// A disk or a piece of one.
        Disk = "disk",
        /// Changes to a disk that are not yet part of it.
        Redo = "redo",
        /// State of a suspended machine.
        Suspend = "suspend",
        /// A snapshot.
        Snapshot = "snapshot",
        /// Anything else.
        Other = "other",
    }
}

/// A file of a machine.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct VmFile {
    /// Its path.
    pub path: HostPath,
    /// What it is to the machine.
    #[field(name = "type")]
    pub kind: FileType,
    /// Bytes.
    pub size: Size,
    /// Whether another registered machine uses it, so that it would be kept.
    pub shared: bool,
}

/// Tells what deleting a machine would take.
///
/// Right on the .vmx: r. The machine need not be registered.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMDeleteInfo_DeleteVMInfo", handler = "VMDeleteInfo::DeleteVMInfo_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = DeleteInfoReply)]
pub struct DeleteInfo {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// What would go.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct DeleteInfoReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// The machine's name for people.
    #[field(name = "displayName")]
    pub display_name: String,
    /// Whether it is registered.
    pub registered: bool,
    /// Whether it runs.
    #[field(flat)]
    pub state: State,
    /// Whether the caller may delete it as it is now.
    #[field(name = "canDelete")]
    pub can_delete: bool,
    /// Its files.
    #[field(list = "files/file")]
    pub files: Vec<VmFile>,
    /// Directories that would be empty afterwards, and go too.
    #[field(list = "directories/directory")]
    pub directories: Vec<HostPath>,
}

/// Unregisters a machine and deletes its files.
///
/// Right on the .vmx: rwx. The machine must be off; a suspended one is deleted with `force` 1. Only files
/// inside the machine's directory, or that its .vmx refers to, can go. A disk that another registered
/// machine refers to is kept, which a warning says. The .vmx goes last, then the directory if it is
/// empty. When a file cannot be deleted the work stops; the machine stays unregistered.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMDeleteEdit_DeleteVM", handler = "VMDeleteEdit::DeleteVM_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = DeleteReply)]
pub struct Delete {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Which files to delete; all that are not shared when absent.
    #[field(list = "files/file")]
    pub files: Option<Vec<HostPath>>,
    /// Whether disks are among them.
    #[field(name = "deleteDisks", default = "1")]
    pub delete_disks: bool,
    /// Whether a suspended machine may be deleted.
    #[field(default = "0")]
    pub force: bool,
}

/// What was deleted.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct DeleteReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Files that are gone.
    #[field(list = "files/file")]
    pub files: Vec<HostPath>,
    /// What was kept, and why.
    #[field(warnings)]
    pub warnings: Vec<String>,
}
