//! Which files belong to a machine: what deleting it would remove.
//!
//! A .vmx and a disk's descriptor can name any path, and whoever deletes a machine may have more
//! rights than whoever wrote them. So a name is not enough:
//!
//! * files other than disks belong to a machine only if they lie in its directory itself;
//! * a disk may lie elsewhere, but then it has to *be* one: a descriptor that can be read;
//! * extents lie in the directory of their descriptor;
//! * parents of a disk belong to the machine only if they lie in its directory: others have children
//!   of them too.
//!
//! CD and floppy images, serial files and devices belong to nobody here.

use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::text::VmxFile;
use crate::vmdk::{self, DiskFileRole, Opener};

/// Most entries of a directory that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// What a file is to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// The .vmx and what goes with it.
    Config,
    /// The memory of the clock chip.
    Nvram,
    /// A log.
    Log,
    /// A disk: descriptor or extent.
    Disk,
    /// Writes to a disk that were kept aside.
    Redo,
    /// The state of the suspended machine.
    Suspend,
    /// A snapshot.
    Snapshot,
}

impl FileKind {
    /// `config`, `nvram`, `log`, `disk`, `redo`, `suspend` or `snapshot`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            FileKind::Config => "config",
            FileKind::Nvram => "nvram",
            FileKind::Log => "log",
            FileKind::Disk => "disk",
            FileKind::Redo => "redo",
            FileKind::Suspend => "suspend",
            FileKind::Snapshot => "snapshot",
        }
    }
}

/// A file of a machine. It existed when the list was made; it is a regular file or a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MachineFile {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub kind: FileKind,
    /// Its length in bytes (of a link: that of the link).
    pub size: u64,
    /// Device and inode: the same for two names of one file.
    pub identity: (u64, u64),
    /// It lies in the directory of the machine, or below.
    pub inside: bool,
    /// For disks: 0 for the disk itself, 1 for its parent, and so on.
    pub depth: usize,
}

/// Lists the files of the machine whose configuration `vmx` is at `config` (an absolute path), the
/// .vmx first, the rest in the order in which they were found. Disks are opened through `opener`.
///
/// # Errors
/// When the directory of the machine cannot be read.
pub fn machine_files(opener: &dyn Opener, config: &Path, vmx: &VmxFile) -> io::Result<Vec<MachineFile>> {
    let directory = config.parent().unwrap_or(Path::new("/"));
    let mut list = List { directory, files: Vec::new(), seen: HashSet::new() };
    list.add(config, FileKind::Config, 0);
    let named = [
        ("extendedConfigFile", FileKind::Config),
        ("nvram", FileKind::Nvram),
        ("log.fileName", FileKind::Log),
        ("checkpoint.vmState", FileKind::Suspend),
    ];
    for (key, kind) in named {
        if let Some(name) = vmx.get_filled(key) {
            list.add_beside(&directory.join(name), kind);
        }
    }
    let mut disks = Vec::new();
    for drive in vmx.disks() {
        let path = directory.join(drive.file.unwrap_or_default());
        list.add_disk(opener, &path, FileKind::Disk);
        if let Some(redo) = drive.redo {
            list.add_disk(opener, &directory.join(redo), FileKind::Redo);
        }
        disks.extend(path.file_name().map(|name| format!("{}.REDO_", name.to_string_lossy())));
    }
    let stem = config.file_stem().unwrap_or_default().to_string_lossy();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)?.take(MAX_ENTRIES) {
        names.push(entry?.file_name());
    }
    names.sort();
    for name in names {
        let path = directory.join(&name);
        let name = name.to_string_lossy();
        if disks.iter().any(|disk| name.starts_with(disk.as_str())) {
            list.add_disk(opener, &path, FileKind::Redo);
        } else if let Some(kind) = kind_of(&name, &stem) {
            list.add_beside(&path, kind);
        }
    }
    Ok(list.files)
}

/// What a file in the directory of a machine is by its name alone; `stem` is the name of the .vmx
/// without its ending.
fn kind_of(name: &str, stem: &str) -> Option<FileKind> {
    let own = name.strip_prefix(stem);
    match name {
        "nvram" => return Some(FileKind::Nvram),
        "vmware.log" => return Some(FileKind::Log),
        _ => {}
    }
    let number = name.strip_prefix("vmware-").and_then(|rest| rest.strip_suffix(".log"));
    if number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())) {
        return Some(FileKind::Log);
    }
    match own? {
        ".vmxf" | ".vmx.sav" => Some(FileKind::Config),
        ".nvram" => Some(FileKind::Nvram),
        ".log" => Some(FileKind::Log),
        ".vmss" | ".std" => Some(FileKind::Suspend),
        ".vmsd" => Some(FileKind::Snapshot),
        rest if rest.ends_with(".vmsn") && is_snapshot(rest) => Some(FileKind::Snapshot),
        _ => None,
    }
}

/// `.vmsn` or `-Snapshot7.vmsn`, but not the snapshot of another machine whose name begins alike.
fn is_snapshot(rest: &str) -> bool {
    rest == ".vmsn" || rest.starts_with("-Snapshot")
}

struct List<'a> {
    directory: &'a Path,
    files: Vec<MachineFile>,
    seen: HashSet<PathBuf>,
}

impl List<'_> {
    /// Adds a file that must lie in the directory of the machine itself.
    fn add_beside(&mut self, path: &Path, kind: FileKind) {
        if lies_in(path, self.directory) {
            self.add(path, kind, 0);
        }
    }

    /// Adds a disk with its extents, and the parents that lie in the directory.
    fn add_disk(&mut self, opener: &dyn Opener, path: &Path, kind: FileKind) {
        let Ok(files) = vmdk::files(opener, path) else {
            // Damaged, or no disk at all: then it belongs here only by its place.
            self.add_beside(path, kind);
            return;
        };
        let mut descriptor = path.to_owned();
        for file in files {
            let belongs = match file.role {
                DiskFileRole::Descriptor => {
                    descriptor.clone_from(&file.path);
                    file.depth == 0 || lies_in(&file.path, self.directory)
                }
                DiskFileRole::Extent => {
                    let mine = file.depth == 0 || lies_in(&descriptor, self.directory);
                    mine && descriptor.parent().is_some_and(|directory| lies_in(&file.path, directory))
                }
            };
            if belongs {
                let kind = if file.depth == 0 { kind } else { FileKind::Disk };
                self.add(&file.path, kind, file.depth);
            }
        }
    }

    fn add(&mut self, path: &Path, kind: FileKind, depth: usize) {
        // Without `.` parts; `..` stays, since only the system knows what it means.
        let path: PathBuf = path.components().collect();
        let Ok(metadata) = std::fs::symlink_metadata(&path) else {
            return;
        };
        if !(metadata.is_file() || metadata.is_symlink()) || !self.seen.insert(path.clone()) {
            return;
        }
        let below = path.strip_prefix(self.directory).ok();
        let inside = below.is_some_and(|rest| rest.components().all(|part| part.as_os_str() != ".."));
        let identity = (metadata.dev(), metadata.ino());
        self.files.push(MachineFile { path, kind, size: metadata.len(), identity, inside, depth });
    }
}

/// Whether a path names something in a directory itself, by its text alone.
fn lies_in(path: &Path, directory: &Path) -> bool {
    path.file_name().is_some()
        && path.parent().is_some_and(|parent| parent.components().eq(directory.components()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vmdk::{CreateOptions, FileOpener, Kind, create};

    fn names(files: &[MachineFile], root: &Path) -> Vec<(String, &'static str)> {
        let name = |file: &MachineFile| {
            (file.path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), file.kind.name())
        };
        files.iter().map(name).collect()
    }

    fn disk(path: &Path, kind: Kind, parent: Option<&str>) {
        let options =
            CreateOptions { parent: parent.map(PathBuf::from), ..CreateOptions::new(kind, 1 << 20) };
        create(path, &options).unwrap();
    }

    #[test]
    fn what_belongs_to_a_machine() {
        let root = tempfile::tempdir().unwrap();
        let vm = root.path().join("vm");
        std::fs::create_dir_all(vm.join("sub")).unwrap();
        std::fs::create_dir(root.path().join("other")).unwrap();
        disk(&vm.join("base.vmdk"), Kind::TwoGbMaxExtentSparse, None);
        disk(&vm.join("child.vmdk"), Kind::MonolithicSparse, Some("base.vmdk"));
        disk(&root.path().join("other/template.vmdk"), Kind::MonolithicFlat, None);
        disk(&root.path().join("other/clone.vmdk"), Kind::VmfsSparse, Some("template.vmdk"));
        disk(&vm.join("sub/data.vmdk"), Kind::MonolithicFlat, None);
        disk(&vm.join("child.vmdk.REDO_a1b2c3"), Kind::MonolithicSparse, Some("child.vmdk"));
        for name in [
            "a.vmx",
            "a.vmxf",
            "a.vmx.sav",
            "nvram",
            "vmware.log",
            "vmware-0.log",
            "vmware-x.log",
            "a.log",
            "a.vmss",
            "a-Snapshot1.vmsn",
            "ab.vmsn",
            "ab.log",
            "readme.txt",
            "cd.iso",
            "ab.vmdk",
        ] {
            std::fs::write(vm.join(name), name).unwrap();
        }
        let config = vm.join("a.vmx");
        let vmx = VmxFile::parse(
            b"nvram = \"nvram\"\nide0:0.present = \"TRUE\"\nide0:0.fileName = \"./child.vmdk\"\n\
              ide0:1.present = \"TRUE\"\nide0:1.fileName = \"sub/data.vmdk\"\n\
              ide1:0.present = \"TRUE\"\nide1:0.fileName = \"cd.iso\"\n\
              ide1:1.present = \"TRUE\"\nide1:1.fileName = \"../other/clone.vmdk\"\n",
        );
        let files = machine_files(&FileOpener, &config, &vmx).unwrap();
        assert_eq!(
            names(&files, root.path()),
            [
                ("vm/a.vmx", "config"),
                ("vm/nvram", "nvram"),
                ("vm/child.vmdk", "disk"),
                ("vm/base.vmdk", "disk"),
                ("vm/base-s001.vmdk", "disk"),
                ("vm/sub/data.vmdk", "disk"),
                ("vm/sub/data-flat.vmdk", "disk"),
                ("vm/../other/clone.vmdk", "disk"),
                ("vm/../other/clone-delta.vmdk", "disk"),
                ("vm/a-Snapshot1.vmsn", "snapshot"),
                ("vm/a.log", "log"),
                ("vm/a.vmss", "suspend"),
                ("vm/a.vmx.sav", "config"),
                ("vm/a.vmxf", "config"),
                ("vm/child.vmdk.REDO_a1b2c3", "redo"),
                ("vm/vmware-0.log", "log"),
                ("vm/vmware.log", "log"),
            ]
            .map(|(name, kind)| (name.to_owned(), kind))
        );
        let outside: Vec<bool> = files.iter().map(|file| file.inside).collect();
        assert_eq!(outside.iter().filter(|inside| !**inside).count(), 2);
        assert_eq!(files[3].depth, 1);
    }

    #[test]
    fn what_does_not_belong_to_it_whatever_it_says() {
        let root = tempfile::tempdir().unwrap();
        let vm = root.path().join("vm");
        let etc = root.path().join("etc");
        std::fs::create_dir(&vm).unwrap();
        std::fs::create_dir(&etc).unwrap();
        std::fs::write(etc.join("shadow"), "precious").unwrap();
        std::os::unix::fs::symlink("../etc", vm.join("link")).unwrap();
        let descriptor = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=2\ncreateType=\"x\"\n\
            parentFileNameHint=\"../etc/shadow\"\nRW 1 FLAT \"../etc/shadow\" 0\nRW 1 FLAT \"link/shadow\" 0\n\
            RW 1 FLAT \"/dev/zero\" 0\n#\n";
        std::fs::write(vm.join("evil.vmdk"), descriptor).unwrap();
        let config = vm.join("a.vmx");
        let mut text = String::new();
        for (key, value) in [
            ("nvram", "../etc/shadow"),
            ("checkpoint.vmState", "link/shadow"),
            ("log.fileName", "/dev/null"),
            ("extendedConfigFile", ".."),
            ("ide0:0.present", "TRUE"),
            ("ide0:0.fileName", "../etc/shadow"),
            ("ide0:0.redo", "link/shadow"),
            ("ide0:1.present", "TRUE"),
            ("ide0:1.fileName", "evil.vmdk"),
            ("ide1:0.present", "TRUE"),
            ("ide1:0.fileName", "link/shadow"),
        ] {
            text.push_str(&format!("{key} = \"{value}\"\n"));
        }
        std::fs::write(&config, &text).unwrap();
        let files = machine_files(&FileOpener, &config, &VmxFile::parse(text.as_bytes())).unwrap();
        let expected = [("vm/a.vmx".to_owned(), "config"), ("vm/evil.vmdk".to_owned(), "disk")];
        assert_eq!(names(&files, root.path()), expected);
    }
}
