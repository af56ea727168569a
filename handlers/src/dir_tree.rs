//! `FileManager_ListDirTree`: what is below a directory, bounded in every direction.

use std::ffi::CStr;

use ops::Error;
use ops::file_manager::{Branch, EntryType, ListDirTreeReply};
use ops::value::{HostPath, MAX_PATH};
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;

use crate::entries::entry;
use crate::names::Names;
use crate::place::{at, facts};
use crate::space::Warnings;
use crate::walk::Walk;

/// Most entries of a reply.
const MOST: usize = 100_000;
/// Most bytes of names and paths in a reply: deep trees have long paths.
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// Lists a tree. Links are not followed.
pub(crate) fn list(
    directory: HostPath,
    depth: Option<u32>,
    directories_only: bool,
) -> Result<ListDirTreeReply, Error> {
    list_at_most(directory, depth, directories_only, MOST)
}

fn list_at_most(
    directory: HostPath,
    depth: Option<u32>,
    directories_only: bool,
    most: usize,
) -> Result<ListDirTreeReply, Error> {
    let depth = depth.map_or(usize::MAX, |depth| usize::try_from(depth).unwrap_or(usize::MAX));
    let shown = directory.as_str().to_owned();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let root = openat(CWD, shown.as_str(), flags, Mode::empty()).map_err(at(&shown))?;
    let mut walk = Walk::new(root).map_err(at(&shown))?;
    let (mut names, mut warnings) = (Names::default(), Warnings::default());
    let mut entries: Vec<Branch> = Vec::new();
    let mut bytes = 0;
    // The path of the directory where we are, with a slash at its end.
    let mut path = shown.trim_end_matches('/').as_bytes().to_vec();
    path.push(b'/');
    loop {
        let Some(one) = walk.next() else {
            match walk.leave().map_err(at(&shown))? {
                Some((name, _)) => path.truncate(path.len().saturating_sub(name.as_bytes().len() + 1)),
                None => break,
            }
            continue;
        };
        let facts = match facts(walk.here(), one.name.as_c_str()) {
            Ok(facts) => facts,
            // Gone since the directory was read.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => continue,
            Err(error) => return Err(Error::file(walk.path(&shown, &one.name), &error)),
        };
        let is_directory = crate::entries::kind(&facts) == EntryType::Directory;
        if directories_only && !is_directory {
            continue;
        }
        let above = path.len();
        path.extend_from_slice(one.name.as_bytes());
        bytes += path.len() + one.name.as_bytes().len();
        if entries.len() == most || bytes > MOST_BYTES {
            warnings.add("truncated".to_owned());
            break;
        }
        let level = walk.depth() + 1;
        let opened = is_directory
            && level < depth
            && path.len() + 2 <= MAX_PATH
            && enter(&mut walk, &one.name, &shown, &mut warnings)?;
        entries.push(Branch {
            depth: u32::try_from(level).unwrap_or(u32::MAX),
            entry: entry(one.name.as_bytes(), &path, &facts, &mut names),
            opened,
        });
        if opened {
            path.push(b'/');
        } else {
            path.truncate(above);
        }
    }
    Ok(ListDirTreeReply { directory, entries, warnings: warnings.into_texts() })
}

/// Enters a directory if the caller may; whether it was entered.
fn enter(walk: &mut Walk, name: &CStr, shown: &str, warnings: &mut Warnings) -> Result<bool, Error> {
    match walk.enter(name) {
        Ok(()) => Ok(true),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::ACCESS | Errno::PERM) => {
                warnings.unreadable(&walk.path(shown, name));
                Ok(false)
            }
            // No directory any more.
            Some(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(false),
            _ => Err(Error::file(walk.path(shown, name), &error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn path(base: &std::path::Path) -> HostPath {
        HostPath::try_from(base.to_str().unwrap().to_owned()).unwrap()
    }

    fn listed(reply: &ListDirTreeReply) -> Vec<(u32, String, bool)> {
        let one = |branch: &Branch| (branch.depth, branch.entry.name.clone(), branch.opened);
        reply.entries.iter().map(one).collect()
    }

    #[test]
    fn levels_links_and_directories_only() {
        let base = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(base.path().join("a/b/c")).unwrap();
        std::fs::write(base.path().join("a/b/f"), "").unwrap();
        std::fs::create_dir(base.path().join("z")).unwrap();
        symlink("/etc", base.path().join("a/link")).unwrap();
        let reply = list(path(base.path()), None, false).unwrap();
        let all = [
            (1, "a".to_owned(), true),
            (2, "b".to_owned(), true),
            (3, "c".to_owned(), true),
            (3, "f".to_owned(), false),
            (2, "link".to_owned(), false),
            (1, "z".to_owned(), true),
        ];
        assert_eq!(listed(&reply), all);
        let root = base.path().to_str().unwrap();
        assert_eq!(reply.entries[3].entry.path, format!("{root}/a/b/f"));
        assert_eq!(reply.entries[5].entry.path, format!("{root}/z"));
        let reply = list(path(base.path()), Some(2), true).unwrap();
        let some = [(1, "a".to_owned(), true), (2, "b".to_owned(), false), (1, "z".to_owned(), true)];
        assert_eq!(listed(&reply), some);
        assert!(list(path(&base.path().join("a/b/f")), None, false).is_err());
        assert!(list(path(&base.path().join("missing")), None, false).is_err());
    }

    #[test]
    fn a_listing_ends_with_a_warning() {
        let base = tempfile::tempdir().unwrap();
        for name in 0..10 {
            std::fs::create_dir(base.path().join(name.to_string())).unwrap();
        }
        let reply = list_at_most(path(base.path()), None, false, 7).unwrap();
        assert_eq!((reply.entries.len(), reply.warnings), (7, vec!["truncated".to_owned()]));
        let reply = list_at_most(path(base.path()), None, false, 10).unwrap();
        assert_eq!((reply.entries.len(), reply.warnings.len()), (10, 0));
    }

    #[test]
    fn a_tree_deeper_than_a_path_is_listed_as_far_as_paths_go() {
        let base = tempfile::tempdir().unwrap();
        crate::walk::tests::dig(base.path(), 4000);
        let reply = list(path(base.path()), None, false).unwrap();
        let last = reply.entries.last().unwrap();
        assert!(last.entry.path.len() <= MAX_PATH && last.entry.path.len() >= MAX_PATH - 2 && !last.opened);
        crate::remove::directory(base.path().to_str().unwrap(), true).unwrap();
    }
}
