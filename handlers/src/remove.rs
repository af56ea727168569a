//! Removing directories, with what is in them when asked. No link is followed anywhere.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::{ffi::CString, io};

use ops::Error;
use rustix::fs::{AtFlags, CWD, FileType, Mode, chmodat, openat, unlinkat};
use rustix::io::Errno;

use crate::place::{Identity, Place, at, descriptor_path, facts_of, kind, open_path};
use crate::walk::{DIRECTORY, Walk};

/// How often a name may turn from a file into a directory and back while it is being removed.
const PATIENCE: usize = 16;

/// Removes the directory of a path, or the link that has the path.
pub(crate) fn directory(path: &str, recursive: bool) -> Result<(), Error> {
    let place = match Place::of(path) {
        Ok(place) => place,
        // `/`, `.` and `..` are no names to remove; the kernel knows the error for each.
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
            return unlinkat(CWD, path, AtFlags::REMOVEDIR).map_err(at(path));
        }
        Err(error) => return Err(Error::file(path, &error)),
    };
    match unlinkat(&place.directory, place.name.as_str(), AtFlags::REMOVEDIR) {
        Ok(()) => Ok(()),
        Err(Errno::NOTEMPTY | Errno::EXIST) if recursive => {
            let name =
                CString::new(place.name.as_str()).map_err(|_| Error::file(path, &Errno::INVAL.into()))?;
            below(&place.directory, &name, path, None)
        }
        Err(Errno::NOTDIR) if !place.slash && is_link(&place) => {
            unlinkat(&place.directory, place.name.as_str(), AtFlags::empty()).map_err(at(path))
        }
        Err(error) => Err(Error::file(path, &error.into())),
    }
}

fn is_link(place: &Place) -> bool {
    place.facts().is_ok_and(|facts| kind(&facts) == FileType::Symlink)
}

/// Removes the file or directory that was looked at before, if it still has its name.
pub(crate) fn moved_away(place: &Place, was: Identity, shown: &str) -> Result<(), Error> {
    let facts = place.facts().map_err(at(shown))?;
    if Identity::of(&facts) != was {
        return Err(Error::file(shown, &io::Error::other("Was replaced while it was moved")));
    }
    let name = CString::new(place.name.as_str()).map_err(|_| Error::file(shown, &Errno::INVAL.into()))?;
    if kind(&facts) == FileType::Directory {
        below(&place.directory, &name, shown, None)
    } else {
        unlinkat(&place.directory, &name, AtFlags::empty()).map_err(at(shown))
    }
}

/// Removes whatever has this name, as far as it can be removed, rights on our own directories or not.
/// With `made`, a directory is removed only if it is that one.
pub(crate) fn leftover(directory: impl AsFd, name: &CStr, made: Option<Identity>) -> Result<(), Error> {
    match unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => {
            let found = crate::place::facts(&directory, name).map_err(at("/"))?;
            if made.is_some_and(|made| made != Identity::of(&found)) {
                return Ok(());
            }
            below(directory, name, "", Some(Identity::of(&found)))
        }
        Err(error) => {
            Err(Error::file(Path::new(std::ffi::OsStr::from_bytes(name.to_bytes())), &error.into()))
        }
    }
}

/// Removes a directory with everything below it. With `ours` it must be that one, and directories that
/// forbid it to their owner are opened up first: those of an unfinished copy have the rights of their
/// source already.
fn below(directory: impl AsFd, name: &CStr, shown: &str, ours: Option<Identity>) -> Result<(), Error> {
    let force = ours.is_some();
    let mut opened = openat(&directory, name, DIRECTORY, Mode::empty());
    if force && opened.as_ref().is_err_and(|error| *error == Errno::ACCESS) {
        open_up(&directory, name);
        opened = openat(&directory, name, DIRECTORY, Mode::empty());
    }
    let root: OwnedFd = opened.map_err(at(shown))?;
    if let Some(ours) = ours {
        if Identity::of(&facts_of(&root).map_err(at(shown))?) != ours {
            return Ok(());
        }
        let _ = rustix::fs::fchmod(&root, Mode::RWXU);
    }
    let mut walk = Walk::new(root).map_err(at(shown))?;
    loop {
        if let Some(one) = walk.next() {
            let is_directory = !matches!(one.kind, FileType::RegularFile | FileType::Symlink);
            if let Err(error) = one_name(&mut walk, &one.name, is_directory, force) {
                return Err(Error::file(walk.path(shown, &one.name), &error));
            }
            continue;
        }
        match walk.leave() {
            Ok(None) => break,
            Ok(Some((name, _))) => match unlinkat(walk.here(), &name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::file(walk.path(shown, &name), &error.into())),
            },
            Err(error) => return Err(Error::file(shown, &error)),
        }
    }
    unlinkat(directory, name, AtFlags::REMOVEDIR).map_err(at(shown))
}

/// Removes a file, or enters a directory; what it is may change under our hands.
fn one_name(walk: &mut Walk, name: &CStr, mut is_directory: bool, force: bool) -> io::Result<()> {
    let mut opened_up = !force;
    for _ in 0..PATIENCE {
        if is_directory {
            match walk.enter(name) {
                Ok(()) => {
                    if force {
                        let _ = rustix::fs::fchmod(walk.here(), Mode::RWXU);
                    }
                    return Ok(());
                }
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::NOENT) => return Ok(()),
                    Some(Errno::NOTDIR | Errno::LOOP) => is_directory = false,
                    Some(Errno::ACCESS) if !opened_up => {
                        opened_up = true;
                        open_up(walk.here(), name);
                    }
                    _ => return Err(error),
                },
            }
        } else {
            match unlinkat(walk.here(), name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                Err(Errno::ISDIR) => is_directory = true,
                Err(error) => return Err(error.into()),
            }
        }
    }
    Err(io::Error::other("Was replaced again and again while it was removed"))
}

/// Gives a directory of ours all rights of its owner. Nothing else is touched.
fn open_up(at: impl AsFd, name: &CStr) {
    let Ok(found) = open_path(at, name, false) else { return };
    if facts_of(&found).is_ok_and(|facts| kind(&facts) == FileType::Directory) {
        let _ = chmodat(CWD, descriptor_path(found.as_fd()), Mode::RWXU, AtFlags::empty());
    }
}

/// Removes a whole tree, for tests: `path` is in `directory`.
#[cfg(test)]
pub(crate) fn tree(directory: OwnedFd, path: &Path) -> Result<(), Error> {
    let name = CString::new(path.file_name().unwrap().as_bytes()).unwrap();
    below(directory, &name, path.to_str().unwrap(), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::tests::dig;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Base(tempfile::TempDir);

    impl Base {
        fn new() -> Self {
            Base(tempfile::tempdir().unwrap())
        }
        fn path(&self, name: &str) -> String {
            self.0.path().join(name).to_str().unwrap().to_owned()
        }
    }

    #[test]
    fn what_is_not_empty_goes_only_when_asked_and_links_are_not_followed() {
        let base = Base::new();
        std::fs::create_dir_all(base.path("d/sub")).unwrap();
        std::fs::create_dir(base.path("kept")).unwrap();
        std::fs::write(base.path("kept/file"), "x").unwrap();
        std::fs::write(base.path("d/sub/file"), "x").unwrap();
        symlink(base.path("kept"), base.path("d/sub/link")).unwrap();
        let error = directory(&base.path("d"), false).unwrap_err();
        assert_eq!(
            (error.code.number(), error.text.ends_with("/d: Directory not empty")),
            (-999, true),
            "{error}"
        );
        directory(&base.path("d"), true).unwrap();
        assert!(!Path::new(&base.path("d")).exists());
        assert!(Path::new(&base.path("kept/file")).exists());
    }

    #[test]
    fn a_link_goes_itself_and_a_file_does_not_go() {
        let base = Base::new();
        std::fs::create_dir(base.path("d")).unwrap();
        std::fs::write(base.path("d/file"), "x").unwrap();
        for recursive in [false, true] {
            symlink("d", base.path("link")).unwrap();
            let error = directory(&base.path("link/"), recursive).unwrap_err();
            assert!(error.text.ends_with("Not a directory"), "{error}");
            directory(&base.path("link"), recursive).unwrap();
            assert!(std::fs::symlink_metadata(base.path("link")).is_err());
            let error = directory(&base.path("d/file"), recursive).unwrap_err();
            assert!(error.text.ends_with("Not a directory"), "{error}");
            for path in ["/", "/tmp/.", "/tmp/..", &base.path("gone"), &base.path("gone/x")] {
                assert!(directory(path, recursive).is_err(), "{path}");
            }
        }
        assert!(Path::new(&base.path("d/file")).exists());
    }

    #[test]
    fn a_tree_deeper_than_any_path_goes() {
        let base = Base::new();
        std::fs::create_dir(base.path("t")).unwrap();
        dig(Path::new(&base.path("t")), 5000);
        directory(&base.path("t"), true).unwrap();
        assert!(!Path::new(&base.path("t")).exists());
    }

    #[test]
    fn leftovers_go_whatever_their_rights() {
        let base = Base::new();
        std::fs::create_dir_all(base.path("p/a/b")).unwrap();
        std::fs::write(base.path("p/a/b/file"), "x").unwrap();
        for path in ["p/a/b", "p/a", "p"] {
            std::fs::set_permissions(base.path(path), PermissionsExt::from_mode(0o400)).unwrap();
        }
        let place = Place::of(&base.path("p")).unwrap();
        leftover(&place.directory, c"p", None).unwrap();
        leftover(&place.directory, c"p", None).unwrap();
        assert!(!Path::new(&base.path("p")).exists());
    }
}
