//! `FileManager_*`: files and directories, as the caller.

use ops_derive::{Fragment, Op, Reply};

pub use crate::dir_tree::{Branch, ListDirTreeReply};
use crate::value::{Encoding, HostPath, Size, Time, Triad, as_xml_text, to_base64};

crate::words! {
    /// What a directory entry is.
    pub enum EntryType {
        /// A regular file.
        File = "file",
        /// A directory.
        Directory = "directory",
        /// A symbolic link, not followed.
        Link = "link",
        /// A device, pipe or socket.
        Other = "other",
    }
}

/// Rights of owner, group and others, as in the request of VMware Server 1.0.3.
///
/// An absent element means the default of the umask when something is made, and no change
/// otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Fragment)]
#[fragment(request)]
pub struct Modes {
    /// Rights of the owner: any of `r`, `w`, `x` and `-`, in any order; empty for none.
    #[field(historical)]
    pub owner_mode: Option<Triad>,
    /// Rights of the group.
    #[field(historical)]
    pub group_mode: Option<Triad>,
    /// Rights of all others.
    #[field(historical)]
    pub other_mode: Option<Triad>,
}

impl Modes {
    /// All three, from the permission bits of a file mode.
    #[must_use]
    pub const fn from_mode(mode: u32) -> Self {
        Self {
            owner_mode: Some(Triad::from_bits(mode >> 6)),
            group_mode: Some(Triad::from_bits(mode >> 3)),
            other_mode: Some(Triad::from_bits(mode)),
        }
    }

    /// The permission bits: given classes replace those of `base`.
    #[must_use]
    pub fn apply(self, base: u32) -> u32 {
        [(self.owner_mode, 6), (self.group_mode, 3), (self.other_mode, 0)]
            .into_iter()
            .filter_map(|(triad, shift)| triad.map(|t| (t.bits() << shift, 0o7 << shift)))
            .fold(base, |mode, (bits, mask)| mode & !mask | bits)
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Entry {
    /// `base64` when the name is no valid XML text; `name` and `path` are base64 then. Absent
    /// otherwise.
    #[field(name = "nameEncoding")]
    pub name_encoding: Option<Encoding>,
    /// Name in the directory.
    pub name: String,
    /// Path of the entry.
    pub path: String,
    /// What it is: `file`, `directory`, `link` or `other`.
    #[field(name = "type")]
    pub kind: EntryType,
    /// Bytes.
    pub size: Size,
    /// Last change of the contents.
    pub mtime: Time,
    /// Name of the owner, or the number where there is no name.
    pub owner: String,
    /// Name of the group, or the number where there is no name.
    pub group: String,
    /// Permission bits.
    #[field(flat)]
    pub modes: Modes,
}

impl Entry {
    /// Writes the name and path of an entry as text where XML can carry them, else as base64.
    #[must_use]
    pub fn names(name: &[u8], path: &[u8]) -> (Option<Encoding>, String, String) {
        match (as_xml_text(name), as_xml_text(path)) {
            (Some(name), Some(path)) => (None, name.to_owned(), path.to_owned()),
            _ => (Some(Encoding::Base64), to_base64(name), to_base64(path)),
        }
    }
}

/// Changes owner, group and rights of files, all in one step for each file.
///
/// What the request leaves open stays as it is. The kernel decides what the caller may, and clears
/// set-uid and set-gid bits as it does for `chown`; other than that they are not changed. Links are
/// never followed: a link gets the owner and group itself, and has no rights to change.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_ChangeAttribs", handler = "FileManager::ChangeAttribs_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = ChangeReply)]
pub struct ChangeAttribs {
    /// Paths of files or directories.
    #[field(list = "files/file", alias = "path")]
    pub files: Vec<HostPath>,
    /// Name or number of the new owner.
    pub owner: Option<String>,
    /// Name or number of the new group.
    pub group: Option<String>,
    /// New rights.
    #[field(flat)]
    pub modes: Modes,
    /// 1 changes everything below directories as well.
    #[field(default = "0")]
    pub recursive: bool,
}

/// What was changed.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ChangeReply {
    /// Paths of the request that are done, in its order.
    #[field(list = "files/file")]
    pub files: Vec<HostPath>,
}

/// Changes the group of files.
///
/// The kernel decides what the caller may: a user can give own files to groups that he is a member
/// of. A link gets the group itself.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_ChangeGroup", handler = "FileManager::ChangeGroup_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = ChangeReply)]
pub struct ChangeGroup {
    /// Paths of files or directories.
    #[field(list = "files/file", alias = "path")]
    pub files: Vec<HostPath>,
    /// Name or number of the new group.
    pub group: String,
    /// 1 changes everything below directories as well.
    #[field(default = "0")]
    pub recursive: bool,
}

/// Changes the rights of files.
///
/// Classes that the request leaves out, and set-uid, set-gid and sticky bits, stay as they are. Links
/// are skipped.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_ChangeMode", handler = "FileManager::ChangeMode_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = ChangeReply)]
pub struct ChangeMode {
    /// Paths of files or directories.
    #[field(list = "files/file", alias = "path")]
    pub files: Vec<HostPath>,
    /// New rights.
    #[field(flat)]
    pub modes: Modes,
    /// 1 changes everything below directories as well.
    #[field(default = "0")]
    pub recursive: bool,
}

/// Gives files to another owner.
///
/// Only uid 0 can give files away. Set-uid and set-gid bits are cleared by the kernel as it does for
/// `chown`. A link is given away itself.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_ChangeOwner", handler = "FileManager::ChangeOwner_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = ChangeReply)]
pub struct ChangeOwner {
    /// Paths of files or directories.
    #[field(list = "files/file", alias = "path")]
    pub files: Vec<HostPath>,
    /// Name or number of the new owner.
    pub owner: String,
    /// 1 changes everything below directories as well.
    #[field(default = "0")]
    pub recursive: bool,
}

/// Copies files and directories, at once or in the background.
///
/// In the background, as a task, when a source is on another file system than the destination or a
/// file is larger than 10485760 bytes. Each file, and each directory with all that is in it, appears
/// complete or not at all; holes, rights and times are kept, shared blocks are used where the file
/// system has them. Without `recursive` the target of a link is copied, with it the link. A directory
/// is never merged into another one.
///
/// VMware Server 1.0.3 for Windows failed in the cases that are tasks here, with the text
/// `Undefined subroutine &VMware::VMServerd::NewTask`.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_FileCopy", handler = "FileManager::FileCopy_Handler",
     access = AuthUser, runs = Task, effect = Changes, reply = TransferReply)]
pub struct FileCopy {
    /// Paths of the sources.
    #[field(list = "files/file", alias = "path", alias = "source", alias = "src")]
    pub files: Vec<HostPath>,
    /// Path of an existing directory, or of the copy when there is exactly one source.
    #[field(alias = "target", alias = "dst")]
    pub destination: HostPath,
    /// 1 replaces existing files; with 0 they are an error.
    #[field(default = "0")]
    pub overwrite: bool,
    /// 1 copies directories too; with 0 they are an error.
    #[field(default = "0")]
    pub recursive: bool,
}

/// A copy or move, done or begun.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct TransferReply {
    /// 0 when all is done; otherwise the number of the task that does it.
    #[field(name = "taskId")]
    pub task_id: u64,
    /// Paths that were written, one for each source that is done. Absent when a task does all of it.
    #[field(list = "files/file")]
    pub files: Option<Vec<HostPath>>,
}

/// Tells for each of several names whether there is something.
///
/// Directories count, and links that point nowhere.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_FileExists", handler = "FileManager::FileExists_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = FileExistsReply)]
pub struct FileExists {
    /// Paths to look for.
    #[field(list = "files/file", alias = "path")]
    pub files: Vec<HostPath>,
}

/// What is there.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct FileExistsReply {
    /// One element for each path, in the order asked.
    #[field(list = "files/file")]
    pub files: Vec<Existence>,
}

/// Whether something of one name is there.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Existence {
    /// Path, as asked.
    pub path: HostPath,
    /// 1 when there is something.
    pub exists: bool,
    /// What it is; absent when there is nothing.
    #[field(name = "type")]
    pub kind: Option<EntryType>,
}

/// Makes a link to a file.
///
/// A symbolic link may point nowhere. An existing `link` is an error.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_FileMakeLink", handler = "FileManager::FileMakeLink_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = FileMakeLinkReply)]
pub struct FileMakeLink {
    /// Path that the link points to.
    #[field(alias = "src")]
    pub source: HostPath,
    /// Path of the link.
    pub link: HostPath,
    /// 1 for a symbolic link, 0 for another name of the same file.
    #[field(default = "1")]
    pub symbolic: bool,
}

/// A link that was made.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct FileMakeLinkReply {
    /// Path of the link, as asked.
    pub link: HostPath,
}

/// Moves files and directories, at once or in the background.
///
/// On one file system this is a rename, at once, whatever the size. Across file systems a task copies
/// each source, with its owner where the caller may give files away, and then removes it.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_FileMove", handler = "FileManager::FileMove_Handler",
     access = AuthUser, runs = Task, effect = Changes, reply = TransferReply)]
pub struct FileMove {
    /// Paths of the sources. Links are moved themselves.
    #[field(list = "files/file", alias = "path", alias = "source", alias = "src")]
    pub files: Vec<HostPath>,
    /// Path of an existing directory, or the new path when there is exactly one source.
    #[field(alias = "target", alias = "dst")]
    pub destination: HostPath,
    /// 1 replaces existing files; with 0 they are an error.
    #[field(default = "0")]
    pub overwrite: bool,
}

/// Removes files.
///
/// Links are removed themselves. A directory is an error.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_FileRemove", handler = "FileManager::FileRemove_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = FileRemoveReply)]
pub struct FileRemove {
    /// Paths of the files.
    #[field(list = "files/file", alias = "path")]
    pub files: Vec<HostPath>,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct FileRemoveReply {
    /// Files that are gone, in the order of the request.
    #[field(list = "files/file")]
    pub files: Vec<HostPath>,
}

/// Tells the home directory of a user.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_GetHomeDir", handler = "FileManager::GetHomeDir_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetHomeDirReply)]
pub struct GetHomeDir {
    /// Name of the user; the caller when absent.
    pub user: Option<String>,
}

/// A home directory.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetHomeDirReply {
    /// Path of the directory, which need not exist.
    pub directory: String,
}

/// Tells the directory above another one.
///
/// By text alone, without looking at the disk: trailing slashes are ignored, and the root is its own
/// parent.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_GetParentDir", handler = "FileManager::GetParentDir_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetParentDirReply)]
pub struct GetParentDir {
    /// Path whose parent is wanted.
    #[field(alias = "path")]
    pub directory: HostPath,
}

/// A parent directory.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetParentDirReply {
    /// Path of the parent.
    pub directory: HostPath,
}

/// Lists a directory with type, size, time, owner and rights of each entry.
///
/// Sorted by the bytes of the names; `.` and `..` are left out. Links are shown as links.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_ListDir", handler = "FileManager::ListDir_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = ListDirReply)]
pub struct ListDir {
    /// Path of the directory.
    #[field(alias = "path")]
    pub directory: HostPath,
    /// Whether entries whose name starts with a dot are listed.
    #[field(name = "showHidden", default = "1")]
    pub show_hidden: bool,
}

/// The contents of a directory.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ListDirReply {
    /// Path of the directory, as asked.
    pub directory: HostPath,
    /// Path of its parent.
    pub parent: HostPath,
    /// What is in it.
    #[field(list = "entries/entry")]
    pub entries: Vec<Entry>,
}

/// Lists a directory and the directories below it.
///
/// Each directory ends with its own `entries`, sorted by the bytes of the names. Links are not
/// followed. A directory that was not looked into has no `entries`: it lies at `depth`, its contents
/// have paths over 4095 bytes, or the caller may not read it, which a warning says. After 100000
/// entries the listing ends, with the warning `truncated`.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_ListDirTree", handler = "FileManager::ListDirTree_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = ListDirTreeReply)]
pub struct ListDirTree {
    /// Path of the directory.
    #[field(alias = "path")]
    pub directory: HostPath,
    /// How many levels are listed, 1 for the directory's own entries; all when absent.
    #[field(min = 1, max = 4_294_967_295)]
    pub depth: Option<u32>,
    /// 1 lists directories only.
    #[field(name = "directoriesOnly", default = "0")]
    pub directories_only: bool,
}

/// Makes directories, with their parents when asked.
///
/// The elements of the request are those of VMware Server 1.0.3. All paths are checked first, then
/// the directories are made in the order given. At the first failure the work stops; the error names
/// the directory, and `out` lists those that were made.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_MakeDir", handler = "FileManager::MakeDir_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = MakeDirReply)]
pub struct MakeDir {
    /// Paths of the directories.
    #[field(list = "directories/directory", alias = "path", historical)]
    pub directories: Vec<HostPath>,
    /// Rights of the new directories, parents included.
    #[field(flat)]
    pub modes: Modes,
    /// 1 makes missing parents with the same rights, and keeps directories that exist. With 0 a
    /// directory that exists and a parent that is missing are errors.
    #[field(name = "makeParents", default = "0", historical)]
    pub make_parents: bool,
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct MakeDirReply {
    /// Directories that were made, missing parents included, in the order of making.
    #[field(list = "directories/directory")]
    pub directories: Vec<HostPath>,
}

/// Removes directories, with everything in them when asked.
///
/// Links are removed, never followed; that holds for the paths themselves too, unless they end in a
/// slash.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_RemoveDir", handler = "FileManager::RemoveDir_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = RemoveDirReply)]
pub struct RemoveDir {
    /// Paths of the directories.
    #[field(list = "directories/directory", alias = "path")]
    pub directories: Vec<HostPath>,
    /// 1 removes what is in them as well; with 0 a directory that is not empty is an error.
    #[field(default = "0")]
    pub recursive: bool,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct RemoveDirReply {
    /// Directories that are gone, in the order of the request.
    #[field(list = "directories/directory")]
    pub directories: Vec<HostPath>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Element;

    #[test]
    fn modes_replace_only_the_classes_that_are_given() {
        let only_group = Modes { group_mode: Some(Triad::from_bits(5)), ..Modes::default() };
        assert_eq!(only_group.apply(0o4702), 0o4752, "set-uid is kept");
        assert_eq!(Modes::from_mode(0o100_754).apply(0), 0o754);
        assert_eq!(Modes::default().apply(0o644), 0o644);
    }

    #[test]
    fn an_entry_is_written_in_the_order_of_the_specification() {
        let (name_encoding, name, path) = Entry::names(b"a&b", b"/srv/a&b");
        let entry = Entry {
            name_encoding,
            name,
            path,
            kind: EntryType::File,
            size: Size(3),
            mtime: Time(1_700_000_000),
            owner: "root".into(),
            group: "0".into(),
            modes: Modes::from_mode(0o640),
        };
        let mut bytes = Vec::new();
        entry.write_element("entry", &mut crate::Out::new(&mut bytes));
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "<entry><name>a&amp;b</name><path>/srv/a&amp;b</path><type>file</type><size>3</size>\
             <mtime>1700000000</mtime><owner>root</owner><group>0</group><owner_mode>rw-</owner_mode>\
             <group_mode>r--</group_mode><other_mode>---</other_mode></entry>"
        );
    }

    #[test]
    fn names_that_are_no_text_travel_as_base64() {
        assert_eq!(
            Entry::names(b"\xFF", b"/\xFF"),
            (Some(Encoding::Base64), "/w==".to_owned(), "L/8=".to_owned())
        );
        assert_eq!(Entry::names(b"\x01", b"/\x01").0, Some(Encoding::Base64));
        assert_eq!(Entry::names("ä".as_bytes(), "/ä".as_bytes()), (None, "ä".to_owned(), "/ä".to_owned()));
    }
}
