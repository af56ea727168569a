//! Changing owner, group and rights, of one file or of a tree. No link is followed.
//!
//! Each file is opened first, for being looked at only, and then changed through that descriptor, so
//! that it is one and the same file for all steps. What the caller may change is for the kernel to
//! say, and so is what happens to set-uid and set-gid bits when the owner changes: the rights are
//! looked at after that, and no bit that the kernel took comes back.

use std::io;
use std::os::fd::AsFd;

use ops::Error;
use ops::file_manager::Modes;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Uid, chmodat, chownat, openat};
use rustix::io::Errno;

use crate::place::{at, descriptor_path, facts_of, kind, open_path};
use crate::walk::{DIRECTORY, Walk};

/// What is to be changed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    /// New owner.
    pub(crate) owner: Option<u32>,
    /// New group.
    pub(crate) group: Option<u32>,
    /// New rights.
    pub(crate) modes: Modes,
}

impl Change {
    /// Changes one open file.
    fn apply(&self, file: impl AsFd) -> io::Result<()> {
        if self.owner.is_some() || self.group.is_some() {
            let (owner, group) = (self.owner.map(Uid::from_raw), self.group.map(Gid::from_raw));
            chownat(&file, c"", owner, group, AtFlags::EMPTY_PATH)?;
        }
        if self.modes == Modes::default() {
            return Ok(());
        }
        let facts = facts_of(&file)?;
        if kind(&facts) == FileType::Symlink {
            return Ok(());
        }
        let old = u32::from(facts.stx_mode) & 0o7777;
        let mode = Mode::from_raw_mode(self.modes.apply(old));
        Ok(chmodat(CWD, descriptor_path(file.as_fd()), mode, AtFlags::empty())?)
    }

    /// Whether the owner of a directory can still list and enter it afterwards.
    fn leaves_open(&self) -> bool {
        self.modes.owner_mode.is_none_or(|triad| triad.bits() & 5 == 5)
    }
}

/// Changes what a path names, and with `recursive` everything below it.
pub(crate) fn change(path: &str, change: &Change, recursive: bool) -> Result<(), Error> {
    let found = open_path(CWD, path, false).map_err(at(path))?;
    let is_directory = kind(&facts_of(&found).map_err(at(path))?) == FileType::Directory;
    if !recursive || !is_directory {
        return change.apply(&found).map_err(at(path));
    }
    // Rights that open a directory are given before it is entered, rights that close it afterwards.
    let before = change.leaves_open();
    if before {
        change.apply(&found).map_err(at(path))?;
    }
    let mut walk = openat(&found, c".", DIRECTORY, Mode::empty())
        .map_err(io::Error::from)
        .and_then(Walk::new)
        .map_err(at(path))?;
    loop {
        if let Some(one) = walk.next() {
            match one_name(&mut walk, &one.name, change, before) {
                Ok(()) => continue,
                Err(error) => return Err(Error::file(walk.path(path, &one.name), &error)),
            }
        }
        match walk.leave().map_err(at(path))? {
            Some(_) if before => {}
            Some((name, directory)) => {
                change.apply(directory).map_err(|error| Error::file(walk.path(path, &name), &error))?;
            }
            None if before => return Ok(()),
            None => return change.apply(&found).map_err(at(path)),
        }
    }
}

/// One name of a directory; goes down if it is one.
fn one_name(walk: &mut Walk, name: &std::ffi::CStr, change: &Change, before: bool) -> io::Result<()> {
    let found = match open_path(walk.here(), name, false) {
        Ok(found) => found,
        // Gone since the directory was read.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    };
    let is_directory = kind(&facts_of(&found)?) == FileType::Directory;
    if before || !is_directory {
        change.apply(&found)?;
    }
    if is_directory {
        let opened = openat(&found, c".", DIRECTORY, Mode::empty())?;
        walk.enter_opened(name, opened)?;
    }
    Ok(())
}

/// The number of a user by name, or by number where there is no such name.
pub(crate) fn user(name: &str) -> Result<u32, Error> {
    let name = name.trim_ascii();
    let found = uzers::get_user_by_name(name).map(|user| user.uid());
    found
        .or_else(|| number(name))
        .ok_or_else(|| Error::invalid("owner", format_args!("no user of that name: {name}")))
}

/// The number of a group by name, or by number where there is no such name.
pub(crate) fn group(name: &str) -> Result<u32, Error> {
    let name = name.trim_ascii();
    let found = uzers::get_group_by_name(name).map(|group| group.gid());
    found
        .or_else(|| number(name))
        .ok_or_else(|| Error::invalid("group", format_args!("no group of that name: {name}")))
}

/// The largest number means "no change" to the kernel, and is no user's.
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|number| *number != u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ops::value::Triad;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    fn mode(path: &Path) -> u32 {
        std::fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    fn modes(bits: u32) -> Change {
        Change { modes: Modes::from_mode(bits), ..Change::default() }
    }

    #[test]
    fn rights_change_and_special_bits_and_links_do_not() {
        let base = tempfile::tempdir().unwrap();
        let (file, link) = (base.path().join("f"), base.path().join("l"));
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o4711)).unwrap();
        symlink("f", &link).unwrap();
        change(file.to_str().unwrap(), &modes(0o640), false).unwrap();
        assert_eq!(mode(&file), 0o4640);
        change(link.to_str().unwrap(), &modes(0o777), false).unwrap();
        assert_eq!(mode(&file), 0o4640);
        let group = Modes { group_mode: Some(Triad::from_bits(7)), ..Modes::default() };
        change(file.to_str().unwrap(), &Change { modes: group, ..Change::default() }, false).unwrap();
        assert_eq!(mode(&file), 0o4670);
        let missing = base.path().join("missing");
        assert!(change(missing.to_str().unwrap(), &modes(0o777), false).is_err());
    }

    #[test]
    fn a_tree_can_be_closed_and_opened_again() {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("t");
        std::fs::create_dir_all(tree.join("a/b")).unwrap();
        std::fs::write(tree.join("a/b/f"), "").unwrap();
        std::fs::write(base.path().join("outside"), "").unwrap();
        symlink("../outside", tree.join("a/link")).unwrap();
        let outside = mode(&base.path().join("outside"));
        for bits in [0o000, 0o755, 0o400, 0o700] {
            change(tree.to_str().unwrap(), &modes(bits), true).unwrap();
            assert_eq!(mode(&tree), bits);
            if rustix::process::geteuid().is_root() || bits & 0o500 == 0o500 {
                assert_eq!(mode(&tree.join("a/b/f")), bits);
                assert_eq!(mode(&tree.join("a")), bits);
            }
        }
        assert_eq!(mode(&base.path().join("outside")), outside);
    }

    #[test]
    fn set_uid_is_lost_with_the_owner_as_by_chown() {
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("f");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o6755)).unwrap();
        let own = Change { group: Some(rustix::process::getgid().as_raw()), ..modes(0o755) };
        change(file.to_str().unwrap(), &own, false).unwrap();
        let ours = mode(&file);
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o6755)).unwrap();
        let chown = std::process::Command::new("chown");
        let status = { chown }.arg(format!(":{}", rustix::process::getgid().as_raw())).arg(&file).status();
        assert!(status.unwrap().success());
        assert_eq!(ours, mode(&file));
    }

    #[test]
    fn owners_and_groups_by_name_and_number() {
        assert_eq!(user("root").unwrap(), 0);
        assert_eq!(group(" root\n").unwrap(), 0);
        assert_eq!(user("3999999999").unwrap(), 3_999_999_999);
        for name in ["", "no-such-name-here", "-1", "+1", "4294967295", "4294967296", "0x10"] {
            for error in [user(name).unwrap_err(), group(name).unwrap_err()] {
                assert_eq!(error.code.number(), -3, "{name}");
            }
        }
    }

    #[test]
    fn deep_trees_are_no_problem() {
        let base = tempfile::tempdir().unwrap();
        crate::walk::tests::dig(base.path(), 3000);
        change(base.path().to_str().unwrap(), &modes(0o500), true).unwrap();
        change(base.path().to_str().unwrap(), &modes(0o700), true).unwrap();
        crate::remove::directory(base.path().to_str().unwrap(), true).unwrap();
    }
}
