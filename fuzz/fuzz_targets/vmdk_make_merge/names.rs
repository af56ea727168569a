//! Names of disks and of their parents.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use fuzz::Input;
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{CreateOptions, Disk, Kind, Mode, plan};

use crate::model::{Model, kind, told};

/// Any name for a disk and for its parent: both are found again as they were given, or refused.
pub(crate) fn names(mut input: Input<'_>) {
    let memory = Memory::new();
    let kind = kind(input.byte());
    let length = usize::from(input.byte());
    let (name, hint) = (input.bytes(length).to_vec(), input.0);
    let name = OsStr::from_bytes(&name);
    // Who plans a disk has taken the directory off.
    if !name.is_empty() && Path::new(name).file_name() != Some(name) {
        return;
    }
    let hint = PathBuf::from(OsStr::from_bytes(hint));
    let root = CreateOptions::new(Kind::MonolithicSparse, 600 * 512);
    let planned = plan("root.vmdk".as_ref(), &root, None).expect("such a disk can be made");
    memory.put_disk(Path::new("/p"), &planned);
    let at = Path::new("/m").join(&hint);
    memory.put(&at, &memory.get(Path::new("/p/root.vmdk")));
    let parent = Disk::open_with(&memory, &at, Mode::Read).expect("renamed, a disk of one file is still one");
    let options = CreateOptions { parent: Some(hint.clone()), ..CreateOptions::new(kind, 0) };
    let allowed = |name: &OsStr| {
        !name.is_empty() && !name.as_bytes().iter().any(|&byte| byte < 0x20 || byte == b'"' || byte == 0x7f)
    };
    let planned = match plan(name, &options, Some(&parent)) {
        Ok(planned) => planned,
        Err(error) => {
            told(&error);
            let good = allowed(name) && allowed(hint.as_os_str()) && kind.can_have_parent();
            assert!(!good || name.len() + hint.as_os_str().len() > 8000, "{error}");
            return;
        }
    };
    assert!(allowed(name) && allowed(hint.as_os_str()) && kind.can_have_parent());
    assert_eq!(Kind::from_name(&kind.name().to_uppercase()), Some(kind));
    let directory = Path::new("/m");
    // A name that is the parent's, or leads elsewhere, is for those who make files to refuse.
    let own: Vec<PathBuf> = planned.files.iter().map(|file| directory.join(&file.name)).collect();
    if own.contains(&at) || own.iter().collect::<BTreeSet<_>>().len() < own.len() {
        return;
    }
    memory.put_disk(directory, &planned);
    let path = directory.join(name);
    let mut disk = Disk::open_with(&memory, &path, Mode::Write).expect("what was planned is a disk");
    assert_eq!(disk.parents(), [at]);
    assert_eq!(disk.capacity(), 600);
    let mut model = Model::new(600);
    disk.write_at(3, &model.write(3, 9)).expect("it can be written");
    disk.close().expect("it can be closed");
    model.check(&mut Disk::open_with(&memory, &path, Mode::Read).expect("it opens again"), 0, 600);
}
