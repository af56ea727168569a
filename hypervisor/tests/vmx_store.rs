//! A .vmx file on a real file system: whoever changes it, nothing else about it changes.

use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use hypervisor::vmx_file::{NewMachine, Outcome, VmxFile, update};

const FILE: &str =
    "#!/usr/bin/vmware\n# by hand\nmemsize = \"64\"\nunknown.key = \"kept\"\n\ndisplayName=a\n";

fn set(path: &Path, key: &str, value: &str) -> io::Result<Outcome> {
    update(path, |vmx| {
        vmx.set(key, value);
        Ok::<(), io::Error>(())
    })
}

fn names(directory: &Path) -> usize {
    std::fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_change_keeps_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vmx");
    std::fs::write(&path, FILE).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o751)).unwrap();
    let root = rustix::process::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&path, Some(12_345), Some(23_456)).unwrap();
    }
    let before = std::fs::metadata(&path).unwrap();
    assert_eq!(set(&path, "MEMSIZE", "128").unwrap(), Outcome::Replaced);
    let after = std::fs::metadata(&path).unwrap();
    assert_eq!(
        std::fs::read_to_string(&path).unwrap(),
        FILE.replace("memsize = \"64\"", "MEMSIZE = \"128\"")
    );
    assert_eq!((after.uid(), after.gid(), after.mode()), (before.uid(), before.gid(), before.mode()));
    assert_ne!(after.ino(), before.ino());
    assert_eq!(set(&path, "memsize", "128").unwrap(), Outcome::Replaced, "the key is spelled anew");
    assert_eq!(set(&path, "memsize", "128").unwrap(), Outcome::Unchanged);
    assert_eq!(names(directory.path()), 1);
}

#[test]
fn an_access_control_list_is_kept() {
    const ACL: &str = "system.posix_acl_access";
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vmx");
    std::fs::write(&path, FILE).unwrap();
    // Version 2; owner rw-, user 65534 r--, group ---, mask r--, others ---: tag, rights, id.
    let entries =
        [(1_u16, 6_u16, u32::MAX), (2, 4, 65_534), (4, 0, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut acl = 2_u32.to_le_bytes().to_vec();
    for (tag, rights, id) in entries {
        acl.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        acl.extend(id.to_le_bytes());
    }
    if let Err(error) = rustix::fs::setxattr(&path, ACL, &acl, rustix::fs::XattrFlags::empty()) {
        let line = format!("SKIPPED access control list of a .vmx: no such lists here ({error})\n");
        let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
        return;
    }
    assert_eq!(set(&path, "numvcpus", "2").unwrap(), Outcome::Replaced);
    let mut kept = vec![0; 4096];
    let length = rustix::fs::getxattr(&path, ACL, &mut *kept).unwrap();
    assert_eq!(kept[..length], acl);
}

#[test]
fn a_change_that_fails_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vmx");
    std::fs::write(&path, FILE).unwrap();
    let result: io::Result<Outcome> = update(&path, |vmx| {
        vmx.set("memsize", "128");
        Err(io::Error::other("no"))
    });
    assert_eq!(result.unwrap_err().to_string(), "no");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), FILE);
    assert_eq!(set(&directory.path().join("b.vmx"), "a", "b").unwrap_err().kind(), io::ErrorKind::NotFound);
    assert!(set(directory.path(), "a", "b").is_err());
    std::fs::write(&path, vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(set(&path, "a", "b").unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    assert_eq!(names(directory.path()), 1);
}

#[test]
fn a_link_stays_a_link() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("vm")).unwrap();
    std::fs::write(directory.path().join("vm/a.vmx"), FILE).unwrap();
    let link = directory.path().join("link.vmx");
    symlink("vm/a.vmx", &link).unwrap();
    assert_eq!(set(&link, "numvcpus", "2").unwrap(), Outcome::Replaced);
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(VmxFile::load(&directory.path().join("vm/a.vmx")).unwrap().cpus(), 2);
}

#[test]
fn changes_at_once_are_all_made() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vmx");
    std::fs::write(&path, FILE).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let path = &path;
            scope.spawn(move || {
                for number in 0..10 {
                    set(path, &format!("key{thread}.{number}"), "x").unwrap();
                }
            });
        }
    });
    let vmx = VmxFile::load(&path).unwrap();
    for thread in 0..4 {
        for number in 0..10 {
            assert_eq!(vmx.get(&format!("key{thread}.{number}")), Some("x"));
        }
    }
}

#[test]
fn a_new_file_replaces_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.vmx");
    let vmx = NewMachine::new("a", "linux").unwrap().build();
    vmx.create(&path, 0o600).unwrap();
    assert_eq!(VmxFile::load(&path).unwrap(), vmx);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
    let again = NewMachine::new("b", "linux").unwrap().build();
    assert_eq!(again.create(&path, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(VmxFile::load(&path).unwrap(), vmx);
    assert_eq!(names(directory.path()), 1);
}

/// Run in a process of its own by the next test; does nothing by itself.
#[test]
fn helper_changes_the_file_of_somebody_else() {
    if let Some(path) = std::env::var_os("VMX_STORE_PATH") {
        let outcome = set(Path::new(&path), "annotation", "written by another user, with a longer text");
        assert_eq!(format!("{outcome:?}"), std::env::var("VMX_STORE_EXPECTED").unwrap());
    }
}

#[test]
fn who_may_write_but_not_replace_writes_in_place() {
    let directory = tempfile::tempdir().unwrap();
    let own = directory.path().join("own");
    let shared = directory.path().join("shared");
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // The directory belongs to somebody else; the directory is shared but the file is somebody else's.
    for (vm, mode) in [(&own, 0o755), (&shared, 0o777)] {
        std::fs::create_dir(vm).unwrap();
        std::fs::write(vm.join("a.vmx"), FILE).unwrap();
        std::fs::set_permissions(vm.join("a.vmx"), std::fs::Permissions::from_mode(0o666)).unwrap();
        std::fs::set_permissions(vm, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    // Another program than this one's own copy: the directory it was built in may be closed to others.
    let program = directory.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    if !rustix::process::geteuid().is_root() {
        let line = "SKIPPED rewriting a .vmx in place: needs root, to become another user\n";
        let _ = io::Write::write_all(&mut io::stderr(), line.as_bytes());
        return;
    }
    for vm in [own, shared] {
        let path = vm.join("a.vmx");
        let before = std::fs::metadata(&path).unwrap();
        let mut command = Command::new(&program);
        command.args(["--exact", "helper_changes_the_file_of_somebody_else"]).uid(65_534).gid(65_534);
        command.env("VMX_STORE_PATH", &path).env("VMX_STORE_EXPECTED", "Ok(Rewritten)");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let after = std::fs::metadata(&path).unwrap();
        assert_eq!((after.ino(), after.uid(), after.mode()), (before.ino(), before.uid(), before.mode()));
        let vmx = VmxFile::load(&path).unwrap();
        assert_eq!(vmx.annotation(), "written by another user, with a longer text");
        assert!(vmx.to_bytes().starts_with(FILE.as_bytes()));
        assert_eq!(names(&vm), 1);
    }
}
