//! `streamOptimized` as it travels: directory and footer at the end, tables between the grains. Made
//! by hand here, since `qemu-img` writes another variety; it reads this one, which keeps us honest.

mod common;
#[path = "common/stream_parts.rs"]
mod stream_parts;

use std::path::Path;
use std::process::Command;

use common::{Model, assert_same, have};
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{Disk, Error, Mode};
use stream_parts::{header, marker, pad};

/// An odd last grain, and a second table.
const CAPACITY: u64 = 66_001;
const GRAIN: u64 = 128;

/// The stream of a disk in which only some grains hold something.
fn stream(model: &Model, grains: &[u64]) -> Vec<u8> {
    let mut file = header(CAPACITY, GRAIN, u64::MAX);
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=0badcafe\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\
         RW {CAPACITY} SPARSE \"s.vmdk\"\n\nddb.adapterType = \"lsilogic\"\n"
    );
    file.extend(text.as_bytes());
    file.resize(128 * 512, 0);
    let mut directory = Vec::new();
    for table in 0..CAPACITY.div_ceil(512 * GRAIN) {
        let mut entries = vec![0_u32; 512];
        for &grain in grains.iter().filter(|&&grain| grain / 512 == table) {
            entries[(grain % 512) as usize] = (file.len() / 512) as u32;
            let sectors = GRAIN.min(CAPACITY - grain * GRAIN);
            let packed = miniz_oxide::deflate::compress_to_vec_zlib(&model.read(grain * GRAIN, sectors), 6);
            file.extend((grain * GRAIN).to_le_bytes());
            file.extend((packed.len() as u32).to_le_bytes());
            file.extend(packed);
            pad(&mut file);
        }
        marker(&mut file, 1, 4);
        directory.push((file.len() / 512) as u32);
        file.extend(entries.into_iter().flat_map(u32::to_le_bytes));
    }
    marker(&mut file, 2, 1);
    let place = file.len() as u64 / 512;
    file.extend(directory.into_iter().flat_map(u32::to_le_bytes));
    pad(&mut file);
    marker(&mut file, 3, 1);
    file.extend(header(CAPACITY, GRAIN, place));
    marker(&mut file, 0, 0);
    file
}

/// A disk with a few grains, the last one among them.
fn example() -> (Model, Vec<u8>) {
    let mut model = Model::default();
    let grains = [0, 1, 7, 511, 512, CAPACITY / GRAIN];
    for grain in grains {
        let sector = grain * GRAIN;
        model.write(sector, 60.min(CAPACITY - sector));
    }
    let bytes = stream(&model, &grains);
    (model, bytes)
}

fn open(bytes: &[u8], mode: Mode) -> Result<Disk, Error> {
    let memory = Memory::new();
    memory.put("/m/s.vmdk", bytes);
    Disk::open_with(&memory, Path::new("/m/s.vmdk"), mode)
}

#[test]
fn a_stream_is_read() {
    let (model, bytes) = example();
    let mut disk = open(&bytes, Mode::Read).unwrap();
    assert!(disk.info().layers[0].extents[0].compressed);
    let mut whole = vec![0xee; CAPACITY as usize * 512];
    disk.read_at(0, &mut whole).unwrap();
    assert_same(&whole, &model.read(0, CAPACITY), "whole");
    // One sector at a time, backwards, over the border of two grains.
    for sector in (100..200).rev() {
        let mut buf = [0xee; 512];
        disk.read_at(sector, &mut buf).unwrap();
        assert_same(&buf, &model.read(sector, 1), "one sector");
    }
    let error = open(&bytes, Mode::Write).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
}

#[test]
fn qemu_reads_the_same() {
    if !have("a stream made by hand", "qemu-img") {
        return;
    }
    let (model, bytes) = example();
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("s.vmdk"), bytes).unwrap();
    let arguments = ["convert", "-f", "vmdk", "-O", "raw", "s.vmdk", "s.raw"];
    let output = Command::new("qemu-img").args(arguments).current_dir(directory.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let raw = std::fs::read(directory.path().join("s.raw")).unwrap();
    assert_same(&raw, &model.read(0, CAPACITY), "qemu");
}

#[test]
fn a_stream_that_is_cut_off_is_refused() {
    let (_, bytes) = example();
    for length in (0..65_536.min(bytes.len())).chain(bytes.len() - 2000..bytes.len()) {
        assert!(open(&bytes[..length], Mode::Read).is_err(), "{length} of {} bytes", bytes.len());
    }
}

#[test]
fn damaged_grains_are_noticed() {
    let (_, bytes) = example();
    let read = |bytes: &[u8], sector: u64| {
        let mut disk = open(bytes, Mode::Read).unwrap();
        disk.read_at(sector, &mut [0; 512])
    };
    assert!(read(&bytes, 0).is_ok());
    // The first grain is at sector 128: eight bytes of sector number, four of length, data.
    let damages: [(usize, &[u8]); 5] = [
        (0, &[1]),
        (8, &[0, 0, 0, 0]),
        (8, &[0xff, 0xff, 0xff, 0x7f]),
        (12, &[0]),
        (20, &[0xff, 0xff, 0xff]),
    ];
    for (offset, change) in damages {
        let mut damaged = bytes.clone();
        damaged[128 * 512 + offset..][..change.len()].copy_from_slice(change);
        let error = read(&damaged, 5).unwrap_err().to_string();
        assert!(error.contains("grain 0 is damaged"), "{error}");
        assert!(read(&damaged, 130).is_ok());
    }
    // A grain that unpacks to less, and one that unpacks to more than a grain.
    for (size, good) in [(127 * 512, false), (129 * 512, false), (128 * 512, true)] {
        let packed = miniz_oxide::deflate::compress_to_vec_zlib(&vec![0; size], 6);
        let mut changed = bytes.clone();
        changed[128 * 512 + 8..][..4].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        changed[128 * 512 + 12..][..packed.len()].copy_from_slice(&packed);
        assert_eq!(read(&changed, 5).is_ok(), good, "{size}");
    }
}
