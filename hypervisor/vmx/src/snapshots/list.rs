//! The list of a machine's snapshots, in `NAME.vmsd` beside its .vmx: text as in a .vmx.

use std::io;
use std::path::PathBuf;

use hypervisor::control::Snapshot;
use hypervisor::vmx_file::{self, VmxFile};

use super::{Error, file};
use crate::start::Session;

/// A snapshot with its files, relative to the directory of the .vmx.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What is told about it.
    pub about: Snapshot,
    /// The file with the memory.
    pub state: Option<String>,
    /// Drives (`ide0:0`) and their files.
    pub disks: Vec<(String, String)>,
}

/// The list of a machine's snapshots, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct List {
    /// The number of the newest one that there ever was.
    pub(super) last: u32,
    /// The snapshots.
    pub entries: Vec<Entry>,
    /// A removal of all snapshots that has begun and not ended.
    pub removal: Option<Removal>,
}

/// What is left to be done of a removal: names relative to the directory of the .vmx.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Removal {
    /// Drives (`ide0:0`), and the disk that each of them shall use in the end.
    pub targets: Vec<(String, String)>,
    /// Files that are of no use when no drive stands on them any more.
    pub files: Vec<String>,
}

fn list_path(session: &Session) -> PathBuf {
    session.config.with_extension("vmsd")
}

impl List {
    /// Reads the list; a machine without one has no snapshots.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn read(session: &Session) -> Result<Self, Error> {
        let path = list_path(session);
        match VmxFile::load(&path) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(List::default()),
            Err(error) => Err(file(&path)(error)),
        }
    }

    fn parse(text: &VmxFile) -> Self {
        let count = text.number("snapshot.numSnapshots").unwrap_or(0).min(1000);
        let mut list = List { last: text.number("snapshot.lastUID").unwrap_or(0), ..List::default() };
        for number in 0..count {
            let value = |key: &str| text.get(&format!("snapshot{number}.{key}")).map(str::to_owned);
            let Some(id) = value("uid").and_then(|id| id.parse().ok()) else { continue };
            let state = value("filename").filter(|name| !name.is_empty());
            let disks = (0..4).filter_map(|disk| {
                let drive = value(&format!("disk{disk}.node")).filter(|drive| !drive.is_empty())?;
                Some((drive, value(&format!("disk{disk}.fileName"))?))
            });
            let about = Snapshot {
                id,
                name: value("displayName").unwrap_or_default(),
                description: value("description").unwrap_or_default(),
                time: value("createTime").and_then(|time| time.parse().ok()).unwrap_or(0),
                memory: state.is_some(),
            };
            list.last = list.last.max(id);
            list.entries.push(Entry { about, state, disks: disks.collect() });
        }
        list.removal = Removal::parse(text);
        list
    }

    fn text(&self) -> VmxFile {
        let mut text = VmxFile::new();
        text.set("snapshot.lastUID", &self.last.to_string());
        text.set("snapshot.numSnapshots", &self.entries.len().to_string());
        for (number, entry) in self.entries.iter().enumerate() {
            let mut set = |key: &str, value: &str| text.set(&format!("snapshot{number}.{key}"), value);
            set("uid", &entry.about.id.to_string());
            set("displayName", &entry.about.name);
            set("description", &entry.about.description);
            set("createTime", &entry.about.time.to_string());
            set("filename", entry.state.as_deref().unwrap_or_default());
            for (disk, (drive, name)) in entry.disks.iter().enumerate() {
                set(&format!("disk{disk}.node"), drive);
                set(&format!("disk{disk}.fileName"), name);
            }
        }
        if let Some(removal) = &self.removal {
            text.set("removal.numDisks", &removal.targets.len().to_string());
            text.set("removal.numFiles", &removal.files.len().to_string());
            for (number, (drive, name)) in removal.targets.iter().enumerate() {
                text.set(&format!("removal.disk{number}.node"), drive);
                text.set(&format!("removal.disk{number}.fileName"), name);
            }
            for (number, name) in removal.files.iter().enumerate() {
                text.set(&format!("removal.file{number}"), name);
            }
        }
        text
    }

    pub(super) fn write(&self, session: &Session) -> Result<(), Error> {
        let path = list_path(session);
        let text = self.text();
        let failed = file(&path);
        match text.create(&path, 0o600) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let change = |old: &mut VmxFile| {
                    *old = text;
                    Ok::<(), io::Error>(())
                };
                vmx_file::update(&path, change).map(|_| ()).map_err(failed)
            }
            other => other.map_err(failed),
        }
    }
}

impl Removal {
    fn parse(text: &VmxFile) -> Option<Self> {
        let count = |key: &str| text.number(key).unwrap_or(0).min(1000);
        let value = |key: String| text.get_filled(&key).map(str::to_owned);
        let targets = (0..count("removal.numDisks")).filter_map(|number| {
            let drive = value(format!("removal.disk{number}.node"))?;
            Some((drive, value(format!("removal.disk{number}.fileName"))?))
        });
        let targets: Vec<_> = targets.collect();
        let files =
            (0..count("removal.numFiles")).filter_map(|number| value(format!("removal.file{number}")));
        let files: Vec<_> = files.collect();
        (!targets.is_empty() || !files.is_empty()).then_some(Removal { targets, files })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_comes_back() {
        let about =
            Snapshot { id: 3, name: "a \"b\"".into(), description: "x\ny".into(), time: 7, memory: true };
        let entry = Entry {
            about,
            state: Some("m-Snapshot3.vmsn".into()),
            disks: vec![("ide0:0".into(), "m.vmdk".into()), ("ide1:0".into(), "/d/n.vmdk".into())],
        };
        let removal = Removal {
            targets: vec![("ide0:1".into(), "base.vmdk".into())],
            files: vec!["base-000001.vmdk".into(), "base-000002.vmdk".into()],
        };
        let list = List { last: 5, entries: vec![entry], removal: Some(removal) };
        assert_eq!(List::parse(&VmxFile::parse(&list.text().to_bytes())), list);
        assert_eq!(List::parse(&VmxFile::parse(b"snapshot.numSnapshots = \"9\"")), List::default());
    }
}
