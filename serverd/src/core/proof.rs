//! Does a session process really have the right on a machine that it claims for its user?
//!
//! The process opens the .vmx as its user and passes the descriptor. The descriptor proves what the
//! kernel allowed: reading, or reading and writing. What remains to be seen is that it is the file
//! of that path, and the execute bit. Looking means asking the file's file system, which may be the
//! user's own (FUSE) and never answer; so it happens on a thread that may wait for ever, one per
//! session process at a time, and never on the core's.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use handlers::machine::{self, Owned, Who};
use hypervisor::event_log::LogRights;
use ops::{Error, ErrorCode};
use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fgetxattr, fstat, stat};
use rustix::io::Errno;

use super::machines::launch::Launch;

/// What is to be proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// r: the caller may see the machine.
    See,
    /// rx: the caller may work with it. Root may when anybody may execute it.
    Operate,
    /// rw: the caller may change its configuration. Reading is enough of root, whose right to write is no
    /// property of the file.
    Configure,
    /// rwx: the caller may do everything with it.
    Administer,
    /// rwx, or, when the .vmx is gone, the right to change the nearest directory above it.
    Unregister,
}

/// What was found out besides the right.
#[derive(Debug, Default)]
pub struct Proven {
    /// Who may read the machine's event log; nobody is told of when the .vmx is gone.
    pub rights: Option<LogRights>,
    /// What starting it takes, where that was asked for.
    pub launch: Option<Launch>,
    /// Which file it was, and how it was then.
    pub file: Option<FileState>,
}

/// A file at one moment: device, inode, size, and time of the last change of its contents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState(u64, u64, i64, i64, u64);

impl FileState {
    /// Looks at an open file.
    #[must_use]
    pub fn of(fd: &OwnedFd) -> Option<Self> {
        let facts = fstat(fd).ok()?;
        let nanoseconds = facts.st_mtime_nsec;
        Some(FileState(facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime, nanoseconds))
    }
}

/// Whose right it is.
#[derive(Debug, Clone)]
pub struct Claimant {
    /// User id.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// All groups, the primary one included.
    pub groups: Vec<u32>,
}

/// Looks whether a descriptor proves a right on the machine `config`, and tells who may read its event
/// log; nobody is told of when the .vmx is gone. May wait for ever.
///
/// # Errors
/// -11 when it is no .vmx of that path, -4 when the right is missing.
pub fn prove(
    need: Need,
    claimant: &Claimant,
    config: &str,
    fd: &OwnedFd,
) -> Result<Option<LogRights>, Error> {
    let facts = fstat(fd).map_err(|_| Error::no_such_vm())?;
    match (FileType::from_raw_mode(facts.st_mode), need) {
        (FileType::RegularFile, _) => {
            of_file(need, claimant, config, fd, &facts)?;
            Ok(Some(LogRights::of(facts.st_uid, facts.st_gid, facts.st_mode)))
        }
        (FileType::Directory, Need::Unregister) => {
            of_directory(claimant, config, fd, &facts)?;
            Ok(None)
        }
        _ => Err(Error::no_such_vm()),
    }
}

fn of_file(need: Need, claimant: &Claimant, config: &str, fd: &OwnedFd, facts: &Stat) -> Result<(), Error> {
    same(facts, Path::new(config))?;
    let denied = || Error::no_access(config);
    let mode = fcntl_getfl(fd).map_err(|_| denied())? & OFlags::ACCMODE;
    let (reads, writes) = match mode {
        OFlags::RDWR => (true, true),
        OFlags::RDONLY => (true, false),
        _ => (false, false),
    };
    if !reads {
        return Err(denied());
    }
    if need == Need::Operate {
        let acl = acl(fd);
        let executes = if claimant.uid == 0 {
            facts.st_mode & 0o111 != 0 || acl.iter().any(|entry| entry.1 & 1 != 0)
        } else {
            may(claimant, facts, &acl, 1)
        };
        return if executes { Ok(()) } else { Err(denied()) };
    }
    if need == Need::See || claimant.uid == 0 {
        return Ok(());
    }
    if need == Need::Configure {
        // Opened for reading by somebody who may write: what was opened is looked at all the same.
        return if may(claimant, facts, &acl(fd), 2) { Ok(()) } else { Err(denied()) };
    }
    if writes && may(claimant, facts, &acl(fd), 1) { Ok(()) } else { Err(denied()) }
}

fn of_directory(claimant: &Claimant, config: &str, fd: &OwnedFd, facts: &Stat) -> Result<(), Error> {
    let config = Path::new(config);
    match rustix::fs::lstat(config) {
        Err(Errno::NOENT) => {}
        // There is a file: it is the one to prove a right on.
        _ => return Err(Error::no_access(config.display())),
    }
    let there = |path: &&Path| !matches!(stat(*path), Err(Errno::NOENT));
    same(facts, config.ancestors().skip(1).find(there).ok_or_else(Error::no_such_vm)?)?;
    if claimant.uid == 0 || may(claimant, facts, &acl(fd), 2) {
        return Ok(());
    }
    Err(Error::no_access(config.display()))
}

/// The descriptor is what the path names.
fn same(facts: &Stat, path: &Path) -> Result<(), Error> {
    match stat(path) {
        Ok(there) if (there.st_dev, there.st_ino) == (facts.st_dev, facts.st_ino) => Ok(()),
        _ => Err(Error::new(ErrorCode::NoSuchVm)),
    }
}

/// An entry of an access control list: tag, rights, id.
type AclEntry = (u16, u32, u32);

const ACL_USER: u16 = 0x02;
const ACL_GROUP_OWNER: u16 = 0x04;
const ACL_GROUP: u16 = 0x08;
const ACL_MASK: u16 = 0x10;

/// The access control list of a file; empty when there is none.
fn acl(fd: &OwnedFd) -> Vec<AclEntry> {
    let mut bytes = [0; 8192];
    let length = match fgetxattr(fd, c"system.posix_acl_access", &mut bytes) {
        Ok(length) => length,
        Err(error) => {
            if error != Errno::NODATA && error != Errno::NOTSUP {
                tracing::debug!("no access control list: {}", io::Error::from(error));
            }
            return Vec::new();
        }
    };
    // A version of four bytes, then entries of eight, little-endian.
    let entries = bytes.get(4..length).unwrap_or_default().chunks_exact(8);
    let entry = |bytes: &[u8]| match *bytes {
        [a, b, c, d, e, f, g, h] => Some((
            u16::from_le_bytes([a, b]),
            u32::from(u16::from_le_bytes([c, d])),
            u32::from_le_bytes([e, f, g, h]),
        )),
        _ => None,
    };
    entries.filter_map(entry).collect()
}

/// The kernel's rule for one right (4 read, 2 write, 1 execute) of somebody who is not root. What mode
/// bits say is decided where handlers decide it; an access control list can be asked of the kernel there,
/// and only be read here.
fn may(claimant: &Claimant, facts: &Stat, acl: &[AclEntry], right: u32) -> bool {
    let has = |rights: u32| rights & right != 0;
    if acl.is_empty() {
        let who = Who { uid: claimant.uid, gid: claimant.gid, groups: &claimant.groups };
        let owned = Owned { uid: facts.st_uid, gid: facts.st_gid, mode: facts.st_mode };
        return has(machine::rights(who, owned).bits());
    }
    if claimant.uid == facts.st_uid {
        return has(facts.st_mode >> 6);
    }
    let mask = acl.iter().find(|entry| entry.0 == ACL_MASK).map_or(7, |entry| entry.1);
    if let Some(user) = acl.iter().find(|entry| entry.0 == ACL_USER && entry.2 == claimant.uid) {
        return has(user.1 & mask);
    }
    let in_group = claimant.groups.contains(&facts.st_gid);
    let mut groups = Vec::new();
    if in_group {
        let owner = acl.iter().find(|entry| entry.0 == ACL_GROUP_OWNER);
        groups.push(owner.map_or(facts.st_mode >> 3, |entry| entry.1));
    }
    let named = acl.iter().filter(|entry| entry.0 == ACL_GROUP && claimant.groups.contains(&entry.2));
    groups.extend(named.map(|entry| entry.1));
    if groups.is_empty() { has(facts.st_mode) } else { groups.iter().any(|rights| has(rights & mask)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{File, OpenOptions, Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    fn claimant(uid: u32) -> Claimant {
        Claimant { uid, gid: 4242, groups: vec![4242] }
    }

    /// The stat of a file, as if it belonged to somebody else.
    fn facts(mode: u32, uid: u32, gid: u32) -> Stat {
        let mut facts = fstat(tempfile::tempfile().unwrap()).unwrap();
        (facts.st_mode, facts.st_uid, facts.st_gid) = (mode, uid, gid);
        facts
    }

    #[test]
    fn classes_are_those_of_the_kernel() {
        let may = |mode, uid, gid, right| may(&claimant(1000), &facts(mode, uid, gid), &[], right);
        assert!(may(0o100, 1000, 1, 1));
        assert!(!may(0o077, 1000, 4242, 1), "the owner's bits are the owner's");
        assert!(may(0o010, 1, 4242, 1));
        assert!(!may(0o101, 1, 4242, 1), "a member has no other bits");
        assert!(may(0o001, 1, 1, 1) && !may(0o110, 1, 1, 1));
    }

    #[test]
    fn an_access_control_list_is_heard() {
        let acl = [
            (0x01, 7, u32::MAX),
            (ACL_USER, 7, 1000),
            (ACL_GROUP_OWNER, 0, u32::MAX),
            (ACL_GROUP, 1, 4242),
            (ACL_MASK, 5, u32::MAX),
            (0x20, 0, u32::MAX),
        ];
        let facts = facts(0o750, 1, 1);
        assert!(may(&claimant(1000), &facts, &acl, 1) && !may(&claimant(1000), &facts, &acl, 2));
        assert!(may(&claimant(1001), &facts, &acl, 1), "by the named group");
        assert!(
            !may(&Claimant { uid: 1001, gid: 1, groups: vec![1] }, &facts, &acl, 1),
            "by the owning group"
        );
    }

    #[test]
    fn the_descriptor_must_be_the_file_of_the_path_and_allow_enough() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.vmx");
        let other = directory.path().join("b.vmx");
        let me = rustix::process::getuid().as_raw();
        for file in [&path, &other] {
            std::fs::write(file, "").unwrap();
            set_permissions(file, Permissions::from_mode(0o700)).unwrap();
        }
        let config = path.to_str().unwrap();
        let both = || OpenOptions::new().read(true).write(true).open(&path).unwrap().into();
        let read = || File::open(&path).unwrap().into();
        let code = |result: Result<_, Error>| result.map(drop).map_err(|error| error.code.number());
        // Somebody whose uid is not root's, and who owns the file when the test is not root.
        let who = if me == 0 { Claimant { uid: 12345, gid: 0, groups: vec![0] } } else { claimant(me) };
        assert_eq!(code(prove(Need::See, &who, config, &read())), Ok(()));
        assert_eq!(code(prove(Need::Administer, &who, config, &read())), Err(-4));
        if me == 0 {
            assert_eq!(code(prove(Need::Administer, &who, config, &both())), Err(-4), "no execute bit");
            set_permissions(&path, Permissions::from_mode(0o710)).unwrap();
        }
        assert_eq!(code(prove(Need::Administer, &who, config, &both())), Ok(()));
        assert_eq!(code(prove(Need::Operate, &who, config, &read())), Ok(()));
        assert_eq!(code(prove(Need::Operate, &claimant(0), config, &read())), Ok(()));
        set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(code(prove(Need::Operate, &who, config, &read())), Err(-4));
        assert_eq!(code(prove(Need::Operate, &claimant(0), config, &read())), Err(-4));
        set_permissions(&path, Permissions::from_mode(0o710)).unwrap();
        assert_eq!(code(prove(Need::Administer, &claimant(0), config, &read())), Ok(()));
        let other: OwnedFd = File::open(&other).unwrap().into();
        assert_eq!(code(prove(Need::See, &who, config, &other)), Err(-11));
        let of_directory: OwnedFd = File::open(directory.path()).unwrap().into();
        assert_eq!(code(prove(Need::Unregister, &who, config, &of_directory)), Err(-4), "the file is there");
        std::fs::remove_file(&path).unwrap();
        let who = Claimant { uid: fstat(&of_directory).unwrap().st_uid, gid: 4242, groups: Vec::new() };
        assert_eq!(code(prove(Need::Unregister, &who, config, &of_directory)), Ok(()));
        assert_eq!(code(prove(Need::Administer, &who, config, &of_directory)), Err(-11));
        if me == 0 {
            assert_eq!(code(prove(Need::Unregister, &claimant(777), config, &of_directory)), Err(-4));
        }
    }
}
