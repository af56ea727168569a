//! Makes new disks: all files of one, or none.
//!
//! ```text
//!   plan    what every file holds: header, directories, descriptor      (no system call)
//!   write   under temporary names in the same directory, flushed
//!   place   renamed one after the other, extents first, the descriptor last; directory flushed
//!           a failure on the way takes back what was placed, old files included
//! ```
//!
//! A file is made with `O_EXCL|O_NOFOLLOW`, and its name is taken by a rename that does not replace
//! (or, to overwrite, by one that swaps), relative to the open directory. Until the descriptor has
//! its name there is no disk.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode as FileMode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::bytes::to_bytes;
use super::cowd::NewCow;
use super::descriptor::{ExtentAccess, ExtentKind, ExtentLine, NewDescriptor};
use super::disk::{Disk, new_cid};
use super::error::Error;
use super::geometry::{Adapter, Geometry};
use super::hosted::{DESCRIPTOR_SECTORS, NewHosted};
use super::layer::beside;
use super::storage::{Access, FileOpener, Opener, Storage};
use super::{MAX_CAPACITY, SECTOR};

/// Sectors of an extent of the `twoGbMaxExtent` kinds, the last one excepted: 2047 MiB.
pub const TWO_GB_EXTENT: u64 = 4_192_256;

/// The kinds of disk that can be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One `KDMV` file with everything in it.
    MonolithicSparse,
    /// A descriptor and `KDMV` files `NAME-s001.vmdk`, ... of at most [`TWO_GB_EXTENT`] sectors.
    TwoGbMaxExtentSparse,
    /// A descriptor and a `COWD` file `NAME-delta.vmdk`.
    VmfsSparse,
    /// A descriptor and the sectors in `NAME-flat.vmdk` (a file with holes at first).
    MonolithicFlat,
    /// A descriptor and the sectors in `NAME-f001.vmdk`, ...
    TwoGbMaxExtentFlat,
    /// As `MonolithicFlat`, in the words of ESX Server: `vmfs`.
    Vmfs,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 6] = [
        Kind::MonolithicSparse,
        Kind::TwoGbMaxExtentSparse,
        Kind::VmfsSparse,
        Kind::MonolithicFlat,
        Kind::TwoGbMaxExtentFlat,
        Kind::Vmfs,
    ];

    /// `createType` in a descriptor.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::MonolithicSparse => "monolithicSparse",
            Kind::TwoGbMaxExtentSparse => "twoGbMaxExtentSparse",
            Kind::VmfsSparse => "vmfsSparse",
            Kind::MonolithicFlat => "monolithicFlat",
            Kind::TwoGbMaxExtentFlat => "twoGbMaxExtentFlat",
            Kind::Vmfs => "vmfs",
        }
    }

    /// The kind of a word, in any case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name))
    }

    /// Whether such a disk can leave sectors to a parent.
    #[must_use]
    pub fn can_have_parent(self) -> bool {
        matches!(self, Kind::MonolithicSparse | Kind::TwoGbMaxExtentSparse | Kind::VmfsSparse)
    }

    /// Kind of the extents, and what is added to the name for extent `number` (from 1).
    fn extent(self, number: u64) -> (ExtentKind, String) {
        match self {
            Kind::MonolithicSparse => (ExtentKind::Sparse, String::new()),
            Kind::TwoGbMaxExtentSparse => (ExtentKind::Sparse, format!("-s{number:03}")),
            Kind::VmfsSparse => (ExtentKind::VmfsSparse, "-delta".to_owned()),
            Kind::MonolithicFlat => (ExtentKind::Flat, "-flat".to_owned()),
            Kind::TwoGbMaxExtentFlat => (ExtentKind::Flat, format!("-f{number:03}")),
            Kind::Vmfs => (ExtentKind::Vmfs, "-flat".to_owned()),
        }
    }
}

/// What to make.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// The kind of disk.
    pub kind: Kind,
    /// Bytes, rounded up to whole sectors; at most 2 TiB - 512. Not looked at with a parent, whose
    /// size counts then.
    pub size: u64,
    /// The adapter it is for; without one that of the parent, else IDE.
    pub adapter: Option<Adapter>,
    /// Makes a child of this disk: a path, relative to the directory of the new disk. It is written
    /// into the child as it stands here.
    pub parent: Option<PathBuf>,
    /// Replaces files that exist. A disk in use and a file of the parent are never replaced.
    pub overwrite: bool,
    /// `ddb.virtualHWVersion`: 3 or 4 for the products of that time.
    pub hardware_version: u32,
    /// Permission bits of the files, less the umask.
    pub mode: u32,
}

impl CreateOptions {
    /// A disk of `size` bytes with everything else as usual: IDE, no parent, nothing overwritten,
    /// hardware version 4, files for the owner alone.
    #[must_use]
    pub fn new(kind: Kind, size: u64) -> Self {
        let (adapter, parent) = (None, None);
        CreateOptions { kind, size, adapter, parent, overwrite: false, hardware_version: 4, mode: 0o600 }
    }
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// Every file, the one with the descriptor first.
    pub files: Vec<PathBuf>,
    /// Its CID.
    pub cid: u32,
    /// Its size in bytes: what was asked for, rounded up to sectors, or that of the parent.
    pub size: u64,
}

/// One file of a new disk: zeros, but for the pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFile {
    /// Its name, without a directory.
    pub name: OsString,
    /// Its length in bytes.
    pub size: u64,
    /// Offset in bytes, and what is there.
    pub pieces: Vec<(u64, Vec<u8>)>,
}

/// A new disk, not yet written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Its files, the one with the descriptor first.
    pub files: Vec<PlannedFile>,
    /// Its CID, random.
    pub cid: u32,
    /// Sectors.
    pub capacity: u64,
}

/// Makes a disk at `path` with the rights of this process.
///
/// # Errors
/// When the options do not fit each other, the parent cannot be used, a file exists, or a system call
/// fails. Nothing is left behind then, and everything that was there before is there again.
pub fn create(path: &Path, options: &CreateOptions) -> Result<Created, Error> {
    create_with(&FileOpener, path, options)
}

/// As [`create`], with the parent opened through `opener`. The new files are made directly.
///
/// # Errors
/// As [`create`].
pub fn create_with(opener: &dyn Opener, path: &Path, options: &CreateOptions) -> Result<Created, Error> {
    // `Path` passes over a slash and a dot at the end; the kernel would not.
    let name = path.file_name().filter(|name| path.as_os_str().as_bytes().ends_with(name.as_bytes()));
    let name = name.ok_or_else(|| bad(format!("{} names no file", path.display())))?;
    // Kept open, and so locked, until the child is there: its CID must not change meanwhile.
    let parent = match &options.parent {
        Some(hint) => Some(
            Disk::open_quiet(opener, &beside(path, hint)).map_err(|error| Error::Parent(Box::new(error)))?,
        ),
        None => None,
    };
    let planned = plan(name, options, parent.as_ref())?;
    let directory = match path.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => directory,
        _ => Path::new("."),
    };
    let mut placing = Placing::open(directory, options)?;
    let old = placing.check_old_files(&planned, parent.as_ref())?;
    placing.write(&planned)?;
    placing.place()?;
    drop(old);
    let files = planned.files.iter().map(|file| path.with_file_name(&file.name)).collect();
    Ok(Created { files, cid: planned.cid, size: to_bytes(planned.capacity) })
}

fn bad(text: impl Into<String>) -> Error {
    Error::BadOption(text.into())
}

/// Plans a disk named `name` (no directory). `parent` must be the disk that `options.parent` names.
///
/// # Errors
/// When the options do not fit each other.
pub fn plan(name: &OsStr, options: &CreateOptions, parent: Option<&Disk>) -> Result<Planned, Error> {
    let kind = options.kind;
    check_name(name, "the name of a disk")?;
    if let Some(hint) = &options.parent {
        check_name(hint.as_os_str(), "the name of a parent")?;
        if !kind.can_have_parent() {
            return Err(bad(format!("a disk of type {} cannot have a parent", kind.name())));
        }
    }
    let capacity = parent.map_or(options.size.div_ceil(SECTOR), Disk::capacity);
    if !(1..=MAX_CAPACITY).contains(&capacity) {
        return Err(bad(format!(
            "a size of {} bytes; a disk has 1 to {}",
            options.size,
            to_bytes(MAX_CAPACITY)
        )));
    }
    let parent_info = parent.map(Disk::info);
    let adapter =
        options.adapter.or(parent_info.as_ref().and_then(|info| info.adapter)).unwrap_or(Adapter::Ide);
    let geometry = Geometry::of(adapter, capacity);
    let cid = new_cid(0);
    let parent_cid = parent_info.as_ref().and_then(|info| info.layers.first()).map(|layer| layer.cid);

    let most = match kind {
        Kind::TwoGbMaxExtentSparse | Kind::TwoGbMaxExtentFlat => TWO_GB_EXTENT,
        _ => capacity,
    };
    let stem = stem(name);
    let mut lines = Vec::new();
    let mut files = Vec::new();
    for number in 1..=capacity.div_ceil(most) {
        let sectors = most.min(capacity - (number - 1) * most);
        let (extent, suffix) = kind.extent(number);
        let file = match suffix.as_str() {
            "" => name.to_owned(),
            suffix => [stem, OsStr::new(suffix), OsStr::new(".vmdk")].into_iter().collect(),
        };
        let (pieces, length) = match extent {
            ExtentKind::Sparse => {
                let descriptor = if kind == Kind::MonolithicSparse { DESCRIPTOR_SECTORS } else { 0 };
                let new = NewHosted { capacity: sectors, descriptor };
                (new.pieces(), new.overhead())
            }
            ExtentKind::VmfsSparse => {
                let new = NewCow {
                    capacity: sectors,
                    geometry,
                    parent: options.parent.as_deref(),
                    name: stem.as_bytes(),
                };
                (new.pieces(), new.overhead())
            }
            _ => (Vec::new(), sectors),
        };
        let pieces = pieces.into_iter().map(|(sector, bytes)| (to_bytes(sector), bytes)).collect();
        files.push(PlannedFile { name: file.clone(), size: to_bytes(length), pieces });
        let file = Some(PathBuf::from(file));
        lines.push(ExtentLine { access: ExtentAccess::ReadWrite, sectors, kind: extent, file, offset: 0 });
    }
    let descriptor = NewDescriptor {
        create_type: kind.name(),
        cid,
        parent: parent_cid.zip(options.parent.as_deref()),
        extents: &lines,
        hardware_version: options.hardware_version,
        adapter,
        geometry,
    };
    let text = descriptor.text();
    match files.first_mut().filter(|_| kind == Kind::MonolithicSparse) {
        Some(only) if text.len() as u64 <= to_bytes(DESCRIPTOR_SECTORS) => only.pieces.push((SECTOR, text)),
        Some(_) => return Err(bad("the names are too long for an embedded descriptor")),
        None => {
            let size = text.len() as u64;
            files.insert(0, PlannedFile { name: name.to_owned(), size, pieces: vec![(0, text)] });
        }
    }
    Ok(Planned { files, cid, capacity })
}

/// A descriptor has no escapes: what would end a name or a line cannot be in one.
fn check_name(name: &OsStr, what: &str) -> Result<(), Error> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.iter().any(|byte| matches!(byte, b'"' | 0..=0x1f | 0x7f)) {
        return Err(bad(format!("{what} is empty, or has quotes or control characters: {}", name.display())));
    }
    Ok(())
}

/// The name without `.vmdk`, to which extents add their own endings.
fn stem(name: &OsStr) -> &OsStr {
    let bytes = name.as_bytes();
    let (stem, ending) = bytes.split_at(bytes.len().saturating_sub(5));
    if ending.eq_ignore_ascii_case(b".vmdk") && !stem.is_empty() { OsStr::from_bytes(stem) } else { name }
}

/// The way of new files to their names.
struct Placing<'a> {
    directory: OwnedFd,
    path: &'a Path,
    options: &'a CreateOptions,
    /// In the order in which they were written: the descriptor first.
    files: Vec<Way>,
    done: bool,
}

/// How far one file has come.
struct Way {
    temporary: OsString,
    name: OsString,
    step: Step,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Under its temporary name.
    Written,
    /// Under its own name, which was free.
    Placed,
    /// Under its own name; the file that had it is under the temporary name.
    Swapped,
}

impl<'a> Placing<'a> {
    fn open(path: &'a Path, options: &'a CreateOptions) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, FileMode::empty())
            .map_err(|error| Error::io("open", path, error.into()))?;
        Ok(Placing { directory, path, options, files: Vec::new(), done: false })
    }

    fn error(&self, action: &'static str, name: &OsStr, error: Errno) -> Error {
        let path = self.path.join(name);
        match error {
            Errno::EXIST => Error::Exists { path },
            error => Error::io(action, &path, error.into()),
        }
    }

    /// Looks at the files that have the names now. To be overwritten they must be files, not be in
    /// use, and not belong to the parent. Returns them locked.
    fn check_old_files(&self, planned: &Planned, parent: Option<&Disk>) -> Result<Vec<std::fs::File>, Error> {
        let mut family = Vec::new();
        for layer in parent.map(Disk::layers).unwrap_or_default() {
            family.extend(layer.identities()?);
        }
        let mut old = Vec::new();
        for file in &planned.files {
            let name = &file.name;
            let stat = match rustix::fs::statat(&self.directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(self.error("examine", name, error)),
                Ok(stat) => stat,
            };
            let path = self.path.join(name);
            let replaceable =
                matches!(FileType::from_raw_mode(stat.st_mode), FileType::RegularFile | FileType::Symlink);
            if !self.options.overwrite || !replaceable {
                return Err(Error::Exists { path });
            }
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            // Through a link too: a child must not take the name under which it finds its parent.
            let Ok(fd) = rustix::fs::openat(&self.directory, name, flags, FileMode::empty()) else {
                // Not readable, or a link to nowhere: no disk of ours uses it under this name.
                continue;
            };
            let opened = std::fs::File::from(fd);
            let identity = opened.identity().map_err(|error| Error::io("examine", &path, error))?;
            if family.contains(&identity) {
                return Err(bad(format!("{} belongs to the parent", path.display())));
            }
            match opened.lock_for(Access::Write) {
                Ok(true) => old.push(opened),
                Ok(false) => return Err(Error::Busy { path }),
                Err(error) => return Err(Error::io("lock", &path, error)),
            }
        }
        Ok(old)
    }

    /// Writes all files under temporary names and flushes them.
    fn write(&mut self, planned: &Planned) -> Result<(), Error> {
        for file in &planned.files {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let temporary = OsString::from(format!(".vmdk-{:08x}{:08x}.tmp", new_cid(0), new_cid(0)));
            let mode = FileMode::from_raw_mode(self.options.mode);
            let fd = rustix::fs::openat(&self.directory, &temporary, flags, mode)
                .map_err(|error| self.error("create", &file.name, error))?;
            self.files.push(Way { temporary, name: file.name.clone(), step: Step::Written });
            let opened = std::fs::File::from(fd);
            let written = || -> std::io::Result<()> {
                opened.set_len(file.size)?;
                for (offset, bytes) in &file.pieces {
                    opened.write_all_at(bytes, *offset)?;
                }
                opened.sync_all()
            };
            written().map_err(|error| Error::io("write", &self.path.join(&file.name), error))?;
        }
        Ok(())
    }

    /// Gives all files their names, the descriptor last.
    fn place(&mut self) -> Result<(), Error> {
        for index in (0..self.files.len()).rev() {
            let Some(way) = self.files.get(index) else {
                break;
            };
            let step = self.place_one(way).map_err(|error| self.error("create", &way.name, error))?;
            if let Some(way) = self.files.get_mut(index) {
                way.step = step;
            }
        }
        rustix::fs::fsync(&self.directory).map_err(|error| self.error("flush", OsStr::new(""), error))?;
        // From here on the disk is there. What cannot be removed now stays, as a hidden file.
        self.done = true;
        for way in &self.files {
            if way.step == Step::Swapped {
                let _ = rustix::fs::unlinkat(&self.directory, &way.temporary, AtFlags::empty());
            }
        }
        Ok(())
    }

    fn place_one(&self, way: &Way) -> Result<Step, Errno> {
        let rename = |flags| {
            rustix::fs::renameat_with(&self.directory, &way.temporary, &self.directory, &way.name, flags)
        };
        if self.options.overwrite {
            match rename(RenameFlags::EXCHANGE) {
                Ok(()) => return Ok(Step::Swapped),
                Err(Errno::NOENT) => {}
                // No such rename here (some network file systems): the old file is gone then.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    rustix::fs::renameat(&self.directory, &way.temporary, &self.directory, &way.name)?;
                    return Ok(Step::Placed);
                }
                Err(error) => return Err(error),
            }
        }
        match rename(RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS) => {
                let flags = AtFlags::empty();
                rustix::fs::linkat(&self.directory, &way.temporary, &self.directory, &way.name, flags)?;
                let _ = rustix::fs::unlinkat(&self.directory, &way.temporary, flags);
            }
            result => result?,
        }
        Ok(Step::Placed)
    }
}

impl Drop for Placing<'_> {
    /// Takes everything back, unless all of it was done.
    fn drop(&mut self) {
        if self.done {
            return;
        }
        for way in &self.files {
            if way.step == Step::Swapped {
                let flags = RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(
                    &self.directory,
                    &way.temporary,
                    &self.directory,
                    &way.name,
                    flags,
                );
            }
            let leftover = if way.step == Step::Placed { &way.name } else { &way.temporary };
            let _ = rustix::fs::unlinkat(&self.directory, leftover, AtFlags::empty());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Places a disk of three files, the last of which (the descriptor) cannot get its name.
    fn fail_late(directory: &Path, overwrite: bool) {
        let options = CreateOptions { overwrite, ..CreateOptions::new(Kind::TwoGbMaxExtentSparse, 3 << 30) };
        let mut planned = plan("d.vmdk".as_ref(), &options, None).unwrap();
        planned.files[0].name = "absent/d.vmdk".into();
        let mut placing = Placing::open(directory, &options).unwrap();
        placing.write(&planned).unwrap();
        assert!(placing.place().is_err());
        let placed = if overwrite { Step::Swapped } else { Step::Placed };
        assert_eq!(placing.files.iter().filter(|way| way.step == placed).count(), 2);
    }

    #[test]
    fn what_was_placed_is_taken_back() {
        let directory = tempfile::tempdir().unwrap();
        fail_late(directory.path(), false);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_was_replaced_comes_back() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["d-s001.vmdk", "d-s002.vmdk"] {
            std::fs::write(directory.path().join(name), name).unwrap();
        }
        fail_late(directory.path(), true);
        for name in ["d-s001.vmdk", "d-s002.vmdk"] {
            assert_eq!(std::fs::read_to_string(directory.path().join(name)).unwrap(), name);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
