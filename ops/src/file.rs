//! `File_*`: one file at a time, as the caller.
//!
//! XML cannot carry every byte. Contents travel as text where they are valid XML text in UTF-8, and
//! as base64 otherwise; `encoding` says which.

use ops_derive::{Op, Reply};

use crate::file_manager::{EntryType, Modes};
use crate::value::{Encoding, HostPath, Size};

/// Most bytes that [`Read`] sends in one reply, and most that [`ReadLastN`] looks at.
pub const MAX_PIECE: u32 = 1_048_576;

/// Copies a file.
///
/// The copy has the rights and times of the source, and its holes. It appears complete or not at all:
/// whoever opens `destination` meanwhile reads the old file, or none. Where the file system can share
/// blocks between files, it does. `FileManager_FileCopy` copies in the background.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "File_Copy", handler = "Handlers::File_Copy_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = CopyReply)]
pub struct Copy {
    /// Path of a regular file.
    #[field(alias = "src")]
    pub source: HostPath,
    /// Path of the copy.
    #[field(alias = "target", alias = "dst")]
    pub destination: HostPath,
    /// 1 replaces an existing file; with 0 it is an error.
    #[field(default = "0")]
    pub overwrite: bool,
}

/// A copy that was made.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct CopyReply {
    /// Path of the source, as asked.
    pub source: HostPath,
    /// Path of the copy, as asked.
    pub destination: HostPath,
    /// Bytes in the copy, holes included.
    pub size: Size,
}

/// Creates a file with the contents given.
///
/// The file appears complete or not at all, and its contents are on the disk before the reply is
/// sent. A file that is replaced keeps its rights where the request gives none, and its owner where
/// the caller may give files away.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "File_Create", handler = "Handlers::File_Create_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = CreateReply)]
pub struct Create {
    /// Path of the file.
    #[field(alias = "path")]
    pub file: HostPath,
    /// What it shall contain; nothing when absent.
    #[field(large = 1_048_576, alias = "content", alias = "data")]
    pub contents: Option<String>,
    /// How `contents` is to be read: `text` or `base64`.
    #[field(default = "text")]
    pub encoding: Encoding,
    /// Rights of the file.
    #[field(flat)]
    pub modes: Modes,
    /// 1 replaces an existing file; with 0 it is an error.
    #[field(default = "0")]
    pub overwrite: bool,
}

/// A file that was created.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct CreateReply {
    /// Path of the file, as asked.
    pub file: HostPath,
    /// Bytes in it.
    pub size: Size,
}

/// Deletes a file.
///
/// A link is deleted itself. A directory is an error.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "File_Delete", handler = "Handlers::File_Delete_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = DeleteReply)]
pub struct Delete {
    /// Path of the file.
    #[field(alias = "path")]
    pub file: HostPath,
}

/// A file that is gone.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct DeleteReply {
    /// Path of the file, as asked.
    pub file: HostPath,
}

/// Tells whether there is something of a name.
///
/// Directories count, and links that point nowhere. When the caller may not search the directory
/// above, that is an error and not a no.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "File_Exists", handler = "Handlers::File_Exists_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = ExistsReply)]
pub struct Exists {
    /// Path to look for.
    #[field(alias = "path")]
    pub file: HostPath,
}

/// Whether it is there.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ExistsReply {
    /// Path, as asked.
    pub file: HostPath,
    /// 1 when there is something.
    pub exists: bool,
    /// What it is; absent when there is nothing.
    #[field(name = "type")]
    pub kind: Option<EntryType>,
}

/// Reads a piece of a file.
///
/// Regular files only. A piece of text never ends inside a character: the reply is up to 3 bytes
/// shorter instead, and `length` says how many bytes of the file it covers.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "File_Read", handler = "Handlers::File_Read_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = ReadReply)]
pub struct Read {
    /// Path of the file.
    #[field(alias = "path")]
    pub file: HostPath,
    /// First byte wanted, from 0.
    #[field(default = "0")]
    pub offset: Size,
    /// Most bytes wanted.
    #[field(default = "1048576", min = 0, max = 1_048_576)]
    pub length: u32,
}

/// A piece of a file.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ReadReply {
    /// Path of the file, as asked.
    pub file: HostPath,
    /// Bytes in the whole file.
    pub size: Size,
    /// First byte of the piece.
    pub offset: Size,
    /// Bytes of the file in the piece.
    pub length: u64,
    /// 1 when the file ends with the piece, or before it.
    pub eof: bool,
    /// How `contents` is to be read: `text` or `base64`.
    pub encoding: Encoding,
    /// The bytes.
    pub contents: String,
}

/// Reads the last lines of a file.
///
/// The file is read from its end, and at most its last MiB is looked at; a warning says so when that
/// was not enough. Whether the original counted lines is unknown.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "File_ReadLastN", handler = "Handlers::File_ReadLastN_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = ReadLastNReply)]
pub struct ReadLastN {
    /// Path of the file.
    #[field(alias = "path")]
    pub file: HostPath,
    /// Most lines wanted.
    #[field(default = "25", min = 1, max = 10_000, alias = "count", alias = "lines")]
    pub n: u32,
}

/// The last lines of a file.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ReadLastNReply {
    /// Path of the file, as asked.
    pub file: HostPath,
    /// Lines in the reply.
    pub n: u64,
    /// `base64` when a line is no valid XML text; every `line` is base64 then. Absent otherwise.
    pub encoding: Option<Encoding>,
    /// The lines without their line feeds, oldest first.
    #[field(list = "lines/line")]
    pub lines: Vec<String>,
    /// Said when the file was not looked at far enough.
    #[field(warnings)]
    pub warnings: Vec<String>,
}
