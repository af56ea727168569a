//! `Directory_*`: one directory at a time, as the caller.

use ops_derive::{Op, Reply};

use crate::file_manager::{Entry, Modes};
use crate::value::{HostPath, Size};

/// Adds up the space that a directory takes.
///
/// Counts what is allocated below the directory, not what the files say their length is, and a file
/// with several names in it once. Links are not followed. A directory that the caller may not read
/// is left out and named in a warning.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Directory_GetSpaceUsage", handler = "Handlers::Directory_GetSpaceUsage_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetSpaceUsageReply)]
pub struct GetSpaceUsage {
    /// Path of the directory.
    #[field(alias = "path")]
    pub directory: HostPath,
}

/// What a directory takes.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetSpaceUsageReply {
    /// Path of the directory, as asked.
    pub directory: HostPath,
    /// Allocated bytes of everything below the directory, without the directory itself.
    pub size: Size,
    /// Names below it that are no directories.
    pub files: u64,
    /// Directories below it.
    pub directories: u64,
    /// Directories that could not be read.
    #[field(warnings)]
    pub warnings: Vec<String>,
}

/// Lists a directory with type, size, time, owner and rights of each entry.
///
/// Sorted by the bytes of the names; `.` and `..` are left out. Links are shown as links.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Directory_List", handler = "Handlers::Directory_List_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = ListReply)]
pub struct List {
    /// Path of the directory.
    #[field(alias = "path")]
    pub directory: HostPath,
}

/// The contents of a directory.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ListReply {
    /// Path of the directory, as asked.
    pub directory: HostPath,
    /// What is in it.
    #[field(list = "entries/entry")]
    pub entries: Vec<Entry>,
}

/// Makes a directory, with its parents when asked.
///
/// A directory that exists is an error with `makeParents` 0 and a success with 1; a file in its place
/// is always an error.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Directory_Make", handler = "Handlers::Directory_Make_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = MakeReply)]
pub struct Make {
    /// Path of the directory.
    #[field(alias = "path")]
    pub directory: HostPath,
    /// Rights of the new directories, parents included.
    #[field(flat)]
    pub modes: Modes,
    /// 1 makes missing parents with the same rights.
    #[field(name = "makeParents", default = "0")]
    pub make_parents: bool,
}

/// A directory that exists now.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct MakeReply {
    /// Path of the directory, as asked.
    pub directory: HostPath,
}

/// Removes a directory, with everything in it when asked.
///
/// Links are removed, never followed; that holds for the path itself too, unless it ends in a slash.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "Directory_Remove", handler = "Handlers::Directory_Remove_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = RemoveReply)]
pub struct Remove {
    /// Path of the directory.
    #[field(alias = "path")]
    pub directory: HostPath,
    /// 1 removes what is in it as well; with 0 a directory that is not empty is an error.
    #[field(default = "0")]
    pub recursive: bool,
}

/// A directory that is gone.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct RemoveReply {
    /// Path of the directory, as asked.
    pub directory: HostPath,
}
