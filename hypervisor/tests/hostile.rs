//! Files made to hurt: cut off anywhere, with tables that lead back to themselves, with numbers that
//! no disk has. They are refused without a panic, in at most 50 ms each, or they are harmless.

mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Model, assert_same, child_of, make};
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{CreateOptions, Disk, Error, Kind, Mode};
use proptest::prelude::*;

/// What the specification allows for one file.
const LIMIT: Duration = Duration::from_millis(50);

/// Processor time of this thread: other work on the machine does not count.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Opens a disk and measures.
fn open(memory: &Memory, path: &Path, mode: Mode) -> Result<Disk, Error> {
    let start = cpu_time();
    let result = Disk::open_with(memory, path, mode);
    let took = cpu_time() - start;
    // The limit is for a build that somebody would run.
    assert!(took <= LIMIT || cfg!(debug_assertions), "{took:?} for {result:?}");
    result
}

/// A disk with something in its first grains, as files.
fn written(kind: Kind) -> (Memory, PathBuf, Model) {
    let memory = Memory::new();
    let path = make(&memory, "a.vmdk", &CreateOptions::new(kind, 40 << 20));
    let mut model = Model::default();
    let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
    disk.write_at(0, &model.write(0, 300)).unwrap();
    disk.write_at(70_000, &model.write(70_000, 300)).unwrap();
    disk.close().unwrap();
    (memory, path, model)
}

/// Paths and contents.
type Files = Vec<(PathBuf, Vec<u8>)>;

/// The files of such a disk that are cut, each with what a cut may leave readable.
fn files(kind: Kind) -> Vec<PathBuf> {
    let names: &[&str] = match kind {
        Kind::MonolithicSparse => &["a.vmdk"],
        Kind::TwoGbMaxExtentSparse => &["a.vmdk", "a-s001.vmdk"],
        Kind::VmfsSparse => &["a.vmdk", "a-delta.vmdk"],
        Kind::MonolithicFlat | Kind::Vmfs => &["a.vmdk", "a-flat.vmdk"],
        Kind::TwoGbMaxExtentFlat => &["a.vmdk", "a-f001.vmdk"],
    };
    names.iter().map(|name| Path::new("/m").join(name)).collect()
}

#[test]
fn cut_off_at_every_byte_of_the_first_64_kib() {
    for kind in Kind::ALL {
        let (memory, path, model) = written(kind);
        for file in files(kind) {
            let whole = memory.get(&file);
            for length in 0..whole.len().min(65_536) {
                memory.put(&file, &whole[..length]);
                let result = open(&memory, &path, Mode::Read);
                // Of a text the facts at its end can be missing; then all sectors are still there.
                if let Ok(mut disk) = result {
                    assert!(file == path && kind != Kind::MonolithicSparse, "{file:?} cut at {length}");
                    assert_eq!(disk.capacity() * 512, 40 << 20);
                    let mut buf = vec![0; 300 * 512];
                    disk.read_at(0, &mut buf).unwrap();
                    assert_same(&buf, &model.read(0, 300), "cut text");
                }
            }
            memory.put(&file, &whole);
        }
        assert!(open(&memory, &path, Mode::Write).is_ok());
    }
}

/// Puts 32-bit numbers into a file of a good disk, from an offset on.
fn changed(kind: Kind, file: &str, offset: usize, numbers: &[u32]) -> (Memory, PathBuf) {
    let (memory, path, _) = written(kind);
    let file = Path::new("/m").join(file);
    let mut bytes = memory.get(&file);
    for (index, number) in numbers.iter().enumerate() {
        bytes[offset + 4 * index..][..4].copy_from_slice(&number.to_le_bytes());
    }
    memory.put(&file, &bytes);
    (memory, path)
}

fn refused(kind: Kind, file: &str, offset: usize, numbers: &[u32], reason: &str) {
    let (memory, path) = changed(kind, file, offset, numbers);
    for mode in [Mode::Read, Mode::Write] {
        let error = open(&memory, &path, mode).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(reason), "{error:?} does not say {reason:?}");
    }
}

/// In the disk of `written`: redundant directory at 21, tables 22 and 26; directory at 30, tables 31
/// and 35; the first grain at 128.
const DIRECTORY: usize = 30 * 512;
const TABLE: u32 = 31;

#[test]
fn directories_that_lead_astray() {
    let kind = Kind::MonolithicSparse;
    let sparse = |offset, numbers: &[u32], reason| refused(kind, "a.vmdk", offset, numbers, reason);
    // A directory that is its own table; both tables the same; a table over the header.
    sparse(DIRECTORY, &[30], "overlap");
    sparse(DIRECTORY, &[TABLE, TABLE], "overlap");
    sparse(DIRECTORY, &[TABLE, TABLE + 3], "overlap");
    sparse(DIRECTORY, &[0xffff_ffff], "grain table at sector");
    sparse(56, &[0, 0], "cannot be at sector 0");
    sparse(56, &[0, 0x8000_0000], "cannot be at sector");
    sparse(56, &[0xffff_fffe, 0xffff_ffff], "cannot be at sector");
    // Capacity, grain size, entries, overhead, place of the descriptor.
    sparse(12, &[0, 0x8000_0000], "capacity");
    // A larger directory would reach into the tables; no more of it is read than the disk needs.
    let (memory, path) = changed(kind, "a.vmdk", 12, &[0xffff_ffff, 0]);
    let mut disk = open(&memory, &path, Mode::Read).unwrap();
    assert_eq!(disk.capacity() * 512, 40 << 20);
    disk.read_at(disk.capacity() - 1, &mut [0; 512]).unwrap();
    drop(disk);
    sparse(20, &[0, 0], "grains of 0");
    sparse(44, &[0], "entries");
    sparse(64, &[0xffff_ffff, 0xffff_ffff], "cut short");
    sparse(28, &[0xffff_ffff, 0xffff_ffff], "descriptor");
    sparse(36, &[0xffff_ffff, 0xffff_ffff], "descriptor");

    let cow =
        |offset, numbers: &[u32], reason| refused(Kind::VmfsSparse, "a-delta.vmdk", offset, numbers, reason);
    // Directory at 4, its first table at 5.
    cow(4 * 512, &[4], "overlap");
    cow(4 * 512, &[5, 5], "overlap");
    cow(4 * 512, &[0x7fff_ffff], "grain table at sector");
    cow(20, &[0], "cannot be at sector 0");
    cow(20, &[0xffff_ffff], "cannot be at sector");
    cow(12, &[0], "capacity");
    cow(12, &[0xffff_ffff], "directory of 20 entries");
    cow(16, &[3], "grains of 3");
    cow(24, &[1], "directory of 1 entries");
    cow(28, &[0xffff_ffff], "cut short");
    cow(4, &[2], "version 2");
}

#[test]
fn grains_that_are_tables() {
    for sector in [1, TABLE, TABLE - 1, 0x7fff_ffff, 0xffff_ffff] {
        let (memory, path) = changed(Kind::MonolithicSparse, "a.vmdk", TABLE as usize * 512, &[sector]);
        for mode in [Mode::Read, Mode::Write] {
            let mut disk = open(&memory, &path, mode).unwrap();
            let error = disk.read_at(0, &mut [0; 512]).unwrap_err().to_string();
            assert!(error.contains("grain 0 cannot be at sector"), "{error}");
            // What is not concerned can still be read, but a table is written as a whole or not.
            assert_eq!(disk.read_at(128, &mut [0; 512]).is_ok(), mode == Mode::Read);
            disk.read_at(70_000, &mut [0; 512]).unwrap();
            if mode == Mode::Write {
                assert!(disk.write_at(0, &[0; 512]).is_err());
                assert!(disk.write_at(128, &[0; 512]).is_err());
                disk.write_at(70_000, &[0; 512]).unwrap();
            }
        }
    }
}

#[test]
fn an_entry_behind_the_end_never_becomes_valid() {
    // The file ends at sector 128 + 7 x 128. Entry 9 points there, where the next grain will be put.
    let (memory, path) = changed(Kind::MonolithicSparse, "a.vmdk", TABLE as usize * 512 + 36, &[128 * 8]);
    let end = memory.get(&path).len();
    assert_eq!(end, 128 * 8 * 512);
    let mut disk = open(&memory, &path, Mode::Write).unwrap();
    disk.write_at(66_000, &[9; 512]).unwrap();
    assert!(memory.get(&path).len() > end);
    assert!(disk.read_at(9 * 128, &mut [0; 512]).is_err());
    assert!(disk.write_at(9 * 128, &[0; 512]).is_err());
}

#[test]
fn the_largest_directories_in_the_worst_order() {
    // The most tables a KDMV file can have: 2 TiB in grains of 32 KiB, none next to another.
    let mut header = vec![0_u8; 512];
    let tables = 131_072_u32;
    let mut put = |offset: usize, bytes: &[u8]| header[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"KDMV\x01\0\0\0\x03\0\0\0");
    put(12, &0xffff_ffff_u64.to_le_bytes());
    put(20, &64_u64.to_le_bytes());
    put(28, &1_u64.to_le_bytes());
    put(36, &1_u64.to_le_bytes());
    put(44, &512_u32.to_le_bytes());
    put(48, &(2_u64 + 1024).to_le_bytes());
    put(56, &2_u64.to_le_bytes());
    put(73, b"\n \r\n");
    let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"monolithicSparse\"\n\
                RW 4294967295 SPARSE \"x\"\n#\n";
    header.extend_from_slice(text.as_bytes());
    header.resize(1024, 0);
    let scattered =
        |index: u32, copy: u32| 10_000 + 10 * (index.wrapping_mul(2_654_435_761) % tables) + 5 * copy;
    for copy in 0..2 {
        header.extend((0..tables).flat_map(|index| scattered(index, copy).to_le_bytes()));
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("worst.vmdk");
    std::fs::write(&path, &header).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    for mode in [Mode::Read, Mode::Write] {
        let start = cpu_time();
        let result = Disk::open(&path, mode);
        let took = cpu_time() - start;
        println!("{mode:?}: {took:?}");
        assert!(took <= LIMIT || cfg!(debug_assertions), "{took:?}");
        let mut disk = result.unwrap();
        disk.read_at(1 << 31, &mut [0; 512]).unwrap();
    }

    // And a COWD file: 2 TiB in grains of one sector. Few of them in no order, all in order, too many.
    for scattered in [1_u32 << 18, 0, (1 << 18) + 1] {
        let opens = scattered <= 1 << 18;
        largest_cow(directory.path(), scattered, opens);
    }
}

/// Two thousand extents of one sector, each of which claims to have the largest directory there is.
#[test]
fn many_large_directories() {
    const EXTENTS: u64 = 2000;
    let memory = Memory::new();
    let mut text = "version=1\nCID=1\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentSparse\"\n".to_owned();
    let mut header = vec![0_u8; 512];
    let mut put = |offset: usize, bytes: &[u8]| header[offset..offset + bytes.len()].copy_from_slice(bytes);
    put(0, b"KDMV\x01\0\0\0\x01\0\0\0");
    put(12, &0xffff_ffff_u64.to_le_bytes());
    put(20, &64_u64.to_le_bytes());
    put(44, &512_u32.to_le_bytes());
    put(56, &1_u64.to_le_bytes());
    put(73, b"\n \r\n");
    // One sector is all that is needed of it; the rest is not even there.
    header.resize(1024, 0);
    for number in 0..EXTENTS {
        memory.put(format!("/m/{number}"), &header);
        text.push_str(&format!("RW 1 SPARSE \"{number}\"\n"));
    }
    memory.put("/m/a.vmdk", (text + "#\n").as_bytes());
    let mut disk = open(&memory, Path::new("/m/a.vmdk"), Mode::Read).unwrap();
    assert_eq!(disk.capacity(), EXTENTS);
    disk.read_at(EXTENTS - 1, &mut [0; 512]).unwrap();
}

/// `scattered` tables in no order; or, with 0, a million of them in order.
fn largest_cow(directory: &Path, scattered: u32, opens: bool) {
    let path = directory.join("worst.vmdk");
    let tables = 1_u32 << 20;
    let mut header = b"COWD\x01\0\0\0\x03\0\0\0\xff\xff\xff\xff\x01\0\0\0\x04\0\0\0".to_vec();
    header.extend(tables.to_le_bytes());
    header.resize(4 * 512, 0);
    let place = |index: u32| match scattered {
        0 => 10_000 + 33 * index,
        _ if index >= scattered => 0,
        _ => 10_000 + 33 * (index.wrapping_mul(2_654_435_761) % tables),
    };
    header.extend((0..tables).flat_map(|index| place(index).to_le_bytes()));
    std::fs::write(&path, &header).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfsSparse\"\n\
                RW 4294967295 VMFSSPARSE \"worst.vmdk\"\n#\n";
    let path = directory.join("text.vmdk");
    std::fs::write(&path, text).unwrap();
    for mode in [Mode::Read, Mode::Write] {
        let start = cpu_time();
        let result = Disk::open(&path, mode);
        let took = cpu_time() - start;
        println!("{mode:?}: {took:?}");
        assert!(took <= LIMIT || cfg!(debug_assertions), "{took:?}");
        assert_eq!(result.is_ok(), opens);
        match result {
            Ok(mut disk) => disk.read_at(1 << 31, &mut [0; 512]).unwrap(),
            Err(error) => assert!(error.to_string().contains("in no order"), "{error}"),
        }
    }
}

#[test]
fn chains_that_never_end() {
    let memory = Memory::new();
    let text = |cid: u32, parent: u32, hint: &str| {
        format!(
            "# Disk DescriptorFile\nversion=1\nCID={cid:x}\nparentCID={parent:x}\ncreateType=\"x\"\n\
             parentFileNameHint=\"{hint}\"\nRW 8 ZERO\n#\n"
        )
    };
    // Itself; each other.
    memory.put("/m/self.vmdk", text(1, 1, "self.vmdk").as_bytes());
    memory.put("/m/one.vmdk", text(1, 2, "../m/./two.vmdk").as_bytes());
    memory.put("/m/../m/./two.vmdk", text(2, 1, "/m/one.vmdk").as_bytes());
    for name in ["/m/self.vmdk", "/m/one.vmdk"] {
        for mode in [Mode::Read, Mode::Write] {
            let error = open(&memory, Path::new(name), mode).unwrap_err().to_string();
            assert!(error.contains("leads back to itself"), "{error}");
        }
    }
    // Too long.
    for number in 0..40 {
        let hint = format!("{}.vmdk", number + 1);
        memory.put(format!("/m/{number}.vmdk"), text(7, 7, &hint).as_bytes());
    }
    let error = open(&memory, Path::new("/m/0.vmdk"), Mode::Read).unwrap_err().to_string();
    assert!(error.contains("more than 32 disks"), "{error}");
    // A child that claims an extent of its parent, through another name or the same.
    let (memory, _, _) = written(Kind::TwoGbMaxExtentSparse);
    let path = make(&memory, "child.vmdk", &child_of("a.vmdk", Kind::TwoGbMaxExtentSparse));
    let stolen = String::from_utf8(memory.get(&path)).unwrap().replace("child-s001", "a-s001");
    memory.put(&path, stolen.as_bytes());
    let error = open(&memory, &path, Mode::Write).unwrap_err().to_string();
    assert!(error.contains("belongs to another disk of the chain"), "{error}");
    // Two extents that are one file.
    let text = "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"x\"\n\
                RW 128 SPARSE \"a-s001.vmdk\"\nRW 128 SPARSE \"a-s001.vmdk\"\n#\n";
    memory.put("/m/twice.vmdk", text.as_bytes());
    let error = open(&memory, Path::new("/m/twice.vmdk"), Mode::Read).unwrap_err().to_string();
    assert!(error.contains("the same file"), "{error}");
}

#[test]
fn things_that_are_no_disk() {
    let memory = Memory::new();
    let reason = |bytes: &[u8]| {
        memory.put("/m/x", bytes);
        open(&memory, Path::new("/m/x"), Mode::Read).unwrap_err().to_string()
    };
    assert!(reason(b"").contains("too short"));
    assert!(reason(b"#!/usr/bin/vmware\nmemsize = \"32\"\n").contains("no descriptor"));
    assert!(reason(&[0; 4096]).contains("no descriptor"));
    assert!(reason(&vec![b'#'; 600 * 1024]).contains("neither"));
    // Extents alone are not disks.
    for (kind, extent) in [(Kind::VmfsSparse, "a-delta.vmdk"), (Kind::TwoGbMaxExtentSparse, "a-s001.vmdk")] {
        let (memory, _, _) = written(kind);
        let error = open(&memory, &Path::new("/m").join(extent), Mode::Read).unwrap_err().to_string();
        assert!(error.contains("an extent, not a disk"), "{error}");
    }
}

#[test]
fn only_regular_files_are_opened() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe.vmdk");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    for path in [pipe.as_path(), Path::new("/dev/zero"), directory.path()] {
        assert!(Disk::open(path, Mode::Read).unwrap_err().to_string().contains("not a regular file"));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Bytes changed anywhere in front of the grains: whatever opens can be read and written without a
    /// panic, and writing never harms what it does not concern.
    #[test]
    fn damaged_headers_and_tables(
        kind in prop::sample::select(vec![Kind::MonolithicSparse, Kind::TwoGbMaxExtentSparse, Kind::VmfsSparse]),
        changes in prop::collection::vec((0..70_000_usize, any::<u8>()), 1..4),
        early in prop::collection::vec((0..2100_usize, any::<u8>()), 0..3),
    ) {
        thread_local! {
            static DISKS: Vec<(Kind, Files)> = Kind::ALL.into_iter().map(|kind| {
                let (memory, _, _) = written(kind);
                (kind, files(kind).into_iter().map(|file| { let bytes = memory.get(&file); (file, bytes) }).collect())
            }).collect();
        }
        let memory = Memory::new();
        DISKS.with(|disks| {
            let (_, files) = disks.iter().find(|(other, _)| *other == kind).unwrap();
            for (file, bytes) in files {
                let mut bytes = bytes.clone();
                let changed = file == &files.last().unwrap().0;
                for (offset, byte) in changes.iter().chain(&early).filter(|_| changed) {
                    if let Some(place) = bytes.get_mut(*offset) {
                        *place = *byte;
                    }
                }
                memory.put(file, &bytes);
            }
        });
        if let Ok(mut disk) = open(&memory, Path::new("/m/a.vmdk"), Mode::Write) {
            let mut buf = vec![0; 600 * 512];
            for sector in [0, 69_900, 81_000] {
                let _ = disk.read_at(sector.min(disk.capacity().saturating_sub(600)), &mut buf);
                let _ = disk.write_at(sector.min(disk.capacity().saturating_sub(600)), &buf[..5 * 512]);
            }
            let _ = disk.close();
        }
    }
}
