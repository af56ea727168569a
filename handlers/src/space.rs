//! The space that a directory takes.

use std::collections::HashSet;
use std::path::Path;

use ops::Error;
use rustix::fs::{CWD, FileType, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::place::{Identity, at, facts, kind};
use crate::walk::Walk;

/// Warnings, not more than anybody would read.
#[derive(Debug, Default)]
pub(crate) struct Warnings {
    texts: Vec<String>,
    more: u64,
}

impl Warnings {
    /// Most warnings that are spelled out.
    const MOST: usize = 100;

    /// Adds one.
    pub(crate) fn add(&mut self, text: String) {
        if self.texts.len() < Self::MOST {
            self.texts.push(text);
        } else {
            self.more += 1;
        }
    }

    /// Adds that a directory was left out.
    pub(crate) fn unreadable(&mut self, path: &Path) {
        self.add(format!("{}: Permission denied", path.display()));
    }

    /// The texts, the last of which counts those that are missing.
    pub(crate) fn into_texts(mut self) -> Vec<String> {
        if self.more > 0 {
            self.texts.push(format!("and {} more", self.more));
        }
        self.texts
    }
}

/// What is below a directory.
#[derive(Debug, Default)]
pub(crate) struct Space {
    /// Allocated bytes, a file with several names counted once.
    pub(crate) bytes: u64,
    /// Names that are no directories.
    pub(crate) files: u64,
    /// Directories.
    pub(crate) directories: u64,
    /// Directories that could not be read.
    pub(crate) warnings: Warnings,
}

/// Adds up what is below a directory. Links are not followed.
pub(crate) fn usage(path: &str) -> Result<Space, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = openat(CWD, path, flags, Mode::empty()).map_err(at(path))?;
    let mut walk = Walk::new(root).map_err(at(path))?;
    let mut space = Space::default();
    let mut counted = HashSet::new();
    loop {
        let Some(one) = walk.next() else {
            match walk.leave().map_err(at(path))? {
                Some(_) => continue,
                None => return Ok(space),
            }
        };
        let facts = match facts(walk.here(), one.name.as_c_str()) {
            Ok(facts) => facts,
            // Gone since the directory was read.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => continue,
            // May be listed, but not entered.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::ACCESS) => {
                space.warnings.unreadable(&walk.path(path, &one.name));
                continue;
            }
            Err(error) => return Err(Error::file(walk.path(path, &one.name), &error)),
        };
        let is_directory = kind(&facts) == FileType::Directory;
        if is_directory || facts.stx_nlink < 2 || counted.insert(Identity::of(&facts)) {
            // The kernel counts in 512 bytes whatever the file system's blocks are.
            space.bytes = space.bytes.saturating_add(facts.stx_blocks.saturating_mul(512));
        }
        if !is_directory {
            space.files += 1;
            continue;
        }
        space.directories += 1;
        if let Err(error) = walk.enter(&one.name) {
            match Errno::from_io_error(&error) {
                Some(Errno::ACCESS | Errno::PERM) => {
                    space.warnings.unreadable(&walk.path(path, &one.name));
                }
                Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                _ => return Err(Error::file(walk.path(path, &one.name), &error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, symlink};

    #[test]
    fn allocated_bytes_each_file_once_and_no_links() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir(base.path().join("d")).unwrap();
        let sparse = std::fs::File::create(base.path().join("d/sparse")).unwrap();
        sparse.set_len(1 << 30).unwrap();
        sparse.write_all_at(&[1; 10_000], 0).unwrap();
        sparse.sync_all().unwrap();
        std::fs::hard_link(base.path().join("d/sparse"), base.path().join("again")).unwrap();
        symlink("/usr", base.path().join("link")).unwrap();
        let space = usage(base.path().to_str().unwrap()).unwrap();
        assert_eq!((space.files, space.directories), (3, 1));
        let du = std::process::Command::new("du").args(["-s", "-B1"]).arg(base.path()).output().unwrap();
        let text = String::from_utf8(du.stdout).unwrap();
        let total: u64 = text.split_whitespace().next().unwrap().parse().unwrap();
        use std::os::unix::fs::MetadataExt;
        let own = base.path().metadata().unwrap().blocks() * 512;
        assert_eq!(space.bytes, total - own);
    }

    #[test]
    fn warnings_are_bounded() {
        let mut warnings = Warnings::default();
        for number in 0..250 {
            warnings.add(number.to_string());
        }
        let texts = warnings.into_texts();
        assert_eq!((texts.len(), texts.last().unwrap().as_str()), (101, "and 150 more"));
    }
}
