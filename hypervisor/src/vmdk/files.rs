//! Which files a disk consists of, without opening more than its descriptors: for deleting and
//! copying, where a damaged disk must not stand in the way.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::MAX_CHAIN;
use super::error::Error;
use super::layer::Found;
use super::storage::{Access, Opener};

/// What a file is to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskFileRole {
    /// It holds the descriptor, and in a one-file disk everything else too.
    Descriptor,
    /// It holds sectors.
    Extent,
}

/// A file of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskFile {
    /// Where it is: names in a descriptor have been joined to its directory.
    pub path: PathBuf,
    /// What it is.
    pub role: DiskFileRole,
    /// 0 for the disk itself, 1 for its parent, and so on.
    pub depth: usize,
}

/// Lists the files of a disk and of its parents, each once, whether they exist or not. A parent that
/// cannot be read ends the list (with its own path in it). CIDs are not compared.
///
/// # Errors
/// When the disk itself cannot be read.
pub fn files(opener: &dyn Opener, path: &Path) -> Result<Vec<DiskFile>, Error> {
    let mut files: Vec<DiskFile> = Vec::new();
    let mut known = HashSet::new();
    let mut add = |path: PathBuf, role, depth| {
        let new = known.insert(path.clone());
        if new {
            files.push(DiskFile { path, role, depth });
        }
        new
    };
    let mut next = Some(path.to_owned());
    for depth in 0..=MAX_CHAIN {
        let Some(path) = next.take() else {
            break;
        };
        // A path seen before is a loop.
        if !add(path.clone(), DiskFileRole::Descriptor, depth) {
            break;
        }
        let found = match Found::open(opener, &path, Access::Read) {
            Ok(found) => found,
            Err(error) if depth == 0 => return Err(error),
            Err(_) => break,
        };
        if found.embedded.is_none() {
            for file in found.descriptor.extents.iter().filter_map(|extent| extent.file.as_deref()) {
                add(found.beside(file), DiskFileRole::Extent, depth);
            }
        }
        next = found.parent().map(|(_, path)| path);
    }
    Ok(files)
}
