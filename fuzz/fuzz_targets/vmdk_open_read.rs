//! Disks out of up to three files: whatever the bytes, opening, reading and writing neither panic nor
//! take memory that the files do not account for; and what was written last and closed properly is
//! there when the disk is opened again.
#![no_main]

use std::path::Path;

use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{Disk, Mode, files};
use libfuzzer_sys::fuzz_target;

const NAMES: [&str; 3] = ["/m/a.vmdk", "/m/b.vmdk", "/m/c.vmdk"];

/// Sectors to look at: the ends, and where grains and tables meet.
fn places(capacity: u64) -> impl Iterator<Item = u64> {
    let places = [0, 15, 127, 2047, 4095, 8191, 65_535, 1 << 31, capacity.saturating_sub(2)];
    places.into_iter().filter(move |&sector| sector + 2 <= capacity)
}

fuzz_target!(|input: &[u8]| {
    // One byte says for what the disk is opened; then the lengths of the second and the third file.
    let Some((head, files_bytes)) = input.split_at_checked(5) else {
        return;
    };
    let write = head[0] & 1 == 1;
    let [b, c] = [1, 3].map(|at| usize::from(u16::from_le_bytes([head[at], head[at + 1]])));
    let c_start = files_bytes.len().saturating_sub(c);
    let b_start = c_start.saturating_sub(b);
    let memory = Memory::new();
    let parts = [&files_bytes[..b_start], &files_bytes[b_start..c_start], &files_bytes[c_start..]];
    for (name, bytes) in NAMES.iter().zip(parts) {
        memory.put(*name, bytes);
    }
    let path = Path::new(NAMES[0]);
    let _ = files(&memory, path);
    let mode = if write { Mode::Write } else { Mode::Read };
    let Ok(mut disk) = Disk::open_with(&memory, path, mode) else {
        return;
    };
    let _ = disk.info();
    let capacity = disk.capacity();
    let mut buf = vec![0; 1024];
    for sector in places(capacity) {
        let _ = disk.read_at(sector, &mut buf);
    }
    if !write {
        return;
    }
    let mut last = None;
    for sector in places(capacity) {
        if disk.write_at(sector, &[sector as u8 | 1; 1024]).is_ok() {
            last = Some(sector);
        }
    }
    let flushed = disk.flush();
    if let (Some(sector), Ok(()), Ok(())) = (last, flushed, disk.close()) {
        let mut disk =
            Disk::open_with(&memory, path, Mode::Read).expect("a disk closed properly opens again");
        disk.read_at(sector, &mut buf).expect("what was written can be read");
        assert_eq!(buf, [sector as u8 | 1; 1024]);
    }
});
