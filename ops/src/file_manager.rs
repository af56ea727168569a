//! `FileManager_*`: files and directories, as the caller.

use ops_derive::{Fragment, Op, Reply};

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

/// Tells the home directory of a user.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_GetHomeDir", handler = "FileManager::GetHomeDir_Handler",
     access = AuthUser, runs = Session, reply = GetHomeDirReply)]
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
     access = AuthUser, runs = Session, reply = GetParentDirReply)]
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
     access = AuthUser, runs = Session, reply = ListDirReply)]
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

/// Makes directories, with their parents when asked.
///
/// The elements of the request are those of VMware Server 1.0.3. All paths are checked first, then
/// the directories are made in the order given. At the first failure the work stops; the error names
/// the directory, and `out` lists those that were made.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "FileManager_MakeDir", handler = "FileManager::MakeDir_Handler",
     access = AuthUser, runs = Session, reply = MakeDirReply)]
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
