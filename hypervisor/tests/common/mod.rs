//! What the tests of disks share: a model to compare with, and recognisable sectors.

#![allow(dead_code)] // every test file uses its own part

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{CreateOptions, Disk, Kind, Mode, plan};

pub const SECTOR: usize = 512;

/// The contents of one sector: the same number over and over, so that a sector read from the wrong
/// place, or torn, is noticed.
pub fn sector_of(tag: u64) -> Vec<u8> {
    tag.to_le_bytes().repeat(SECTOR / 8)
}

/// The number in a sector; None for a torn one.
pub fn tag_of(sector: &[u8]) -> Option<u64> {
    let tag = u64::from_le_bytes(sector[..8].try_into().unwrap());
    (sector == sector_of(tag)).then_some(tag)
}

/// What should be on a disk: the number in each sector that is not zeros.
#[derive(Clone, Default)]
pub struct Model {
    tags: BTreeMap<u64, u64>,
    next: u64,
}

impl Model {
    /// New contents for `count` sectors from `sector` on.
    pub fn write(&mut self, sector: u64, count: u64) -> Vec<u8> {
        let mut data = Vec::new();
        for number in sector..sector + count {
            self.next += 1;
            self.tags.insert(number, self.next);
            data.extend(sector_of(self.next));
        }
        data
    }

    pub fn read(&self, sector: u64, count: u64) -> Vec<u8> {
        let mut bytes = vec![0; count as usize * SECTOR];
        for (number, tag) in self.tags.range(sector..sector + count) {
            bytes[(number - sector) as usize * SECTOR..][..SECTOR].copy_from_slice(&sector_of(*tag));
        }
        bytes
    }

    pub fn tag(&self, sector: u64) -> u64 {
        self.tags.get(&sector).copied().unwrap_or(0)
    }

    pub fn set(&mut self, sector: u64, tag: u64) {
        self.tags.insert(sector, tag);
    }

    /// The sectors that were ever written.
    pub fn written(&self) -> Vec<u64> {
        self.tags.keys().copied().collect()
    }
}

/// Compares with `==`, and tells the first sector that differs instead of printing megabytes.
#[track_caller]
pub fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    if found == expected {
        return;
    }
    assert_eq!(found.len(), expected.len(), "{what}: lengths");
    let first = found.chunks(SECTOR).zip(expected.chunks(SECTOR)).position(|(a, b)| a != b).unwrap();
    let tags = |bytes: &[u8]| bytes.chunks(SECTOR).skip(first).take(4).map(tag_of).collect::<Vec<_>>();
    panic!("{what}: sector {first} differs: {:?}, expected {:?}", tags(found), tags(expected));
}

/// Makes a disk in memory.
pub fn make(memory: &Memory, name: &str, options: &CreateOptions) -> PathBuf {
    let path = Path::new("/m").join(name);
    let parent = options
        .parent
        .as_ref()
        .map(|parent| Disk::open_with(memory, &Path::new("/m").join(parent), Mode::Read).unwrap());
    let planned = plan(name.as_ref(), options, parent.as_ref()).unwrap();
    memory.put_disk(Path::new("/m"), &planned);
    path
}

/// The options for a child of `parent`, a name.
pub fn child_of(parent: &str, kind: Kind) -> CreateOptions {
    CreateOptions { parent: Some(parent.into()), ..CreateOptions::new(kind, 0) }
}

/// Whether a program is installed; if not, says so where nobody can miss it.
pub fn have(what: &str, program: &str) -> bool {
    if Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return true;
    }
    let line = format!("SKIPPED {what}: {program} is not installed (Debian package qemu-utils)\n");
    // Past the capture of the test runner, and into the list that `xtask test` prints at its end.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("VMSERVERD_SKIPPED") {
        let file = std::fs::File::options().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
    false
}
