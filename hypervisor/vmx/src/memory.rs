//! The guest's memory: where it lies, and which pages of it are worth saving.
//!
//! ```text
//!   0 ………………………… 640 K   RAM
//!   640 K …………… 1 M      RAM, too: text screen, option ROMs, the copy of the firmware
//!   1 M …… up to 3 G      RAM
//!   4 G - ROM …… 4 G      the firmware
//!   4 G ……                the RAM beyond 3 G
//! ```

use std::io;

use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Bytes of a page.
pub const PAGE: usize = 4096;

/// The most RAM below the hole for devices.
pub const LOW_MAX: u64 = 3 << 30;

const FOUR_GIB: u64 = 4 << 30;

/// How `bytes` of RAM are divided: below the hole, and above 4 GiB.
#[must_use]
pub fn split(bytes: u64) -> (u64, u64) {
    let low = bytes.min(LOW_MAX);
    (low, bytes - low)
}

/// Reserves memory for a guest with `ram` bytes, and `rom` bytes (a multiple of [`PAGE`]) below 4 GiB.
///
/// # Errors
/// When the host does not give it.
pub fn reserve(ram: u64, rom: usize) -> io::Result<GuestMemoryMmap> {
    let (low, high) = split(ram);
    let size = |bytes: u64| usize::try_from(bytes).map_err(io::Error::other);
    let mut ranges = vec![(GuestAddress(0), size(low)?)];
    if rom > 0 {
        ranges.push((GuestAddress(FOUR_GIB - rom as u64), rom));
    }
    if high > 0 {
        ranges.push((GuestAddress(FOUR_GIB), size(high)?));
    }
    GuestMemoryMmap::from_ranges(&ranges).map_err(io::Error::other)
}

/// Fills `buf` from guest address `address` on.
///
/// # Errors
/// When the range is not RAM.
pub fn read(memory: &GuestMemoryMmap, address: u64, buf: &mut [u8]) -> io::Result<()> {
    memory.read_slice(buf, GuestAddress(address)).map_err(io::Error::other)
}

/// Writes `data` at guest address `address`.
///
/// # Errors
/// When the range is not RAM.
pub fn write(memory: &GuestMemoryMmap, address: u64, data: &[u8]) -> io::Result<()> {
    memory.write_slice(data, GuestAddress(address)).map_err(io::Error::other)
}

/// Calls `visit` with every run of pages that are not all zeros: address and bytes, at most `most`
/// bytes at once.
///
/// # Errors
/// What `visit` returns.
pub fn visit_used(
    memory: &GuestMemoryMmap,
    most: usize,
    visit: &mut dyn FnMut(u64, &[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut buffer = vec![0; most.max(PAGE) / PAGE * PAGE];
    for region in memory.iter() {
        let start = region.start_addr().0;
        let mut done = 0;
        while done < region.len() {
            let left = usize::try_from(region.len() - done).unwrap_or(usize::MAX);
            let Some(part) = buffer.get_mut(..left.min(most.max(PAGE) / PAGE * PAGE)) else { break };
            read(memory, start + done, part)?;
            let mut run: Option<(usize, usize)> = None;
            for (number, page) in part.chunks(PAGE).enumerate() {
                let at = number * PAGE;
                if is_zero(page) {
                    if let Some((from, to)) = run.take() {
                        visit(start + done + from as u64, part.get(from..to).unwrap_or_default())?;
                    }
                } else {
                    run = Some((run.map_or(at, |(from, _)| from), at + page.len()));
                }
            }
            if let Some((from, to)) = run {
                visit(start + done + from as u64, part.get(from..to).unwrap_or_default())?;
            }
            done += part.len() as u64;
        }
    }
    Ok(())
}

fn is_zero(page: &[u8]) -> bool {
    page.chunks(8).all(|chunk| chunk.iter().fold(0, |all, byte| all | byte) == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_used_pages_are_visited() {
        let memory = reserve(1 << 20, 2 * PAGE).unwrap();
        write(&memory, 5 * PAGE as u64 + 7, &[1; 4096]).unwrap();
        write(&memory, FOUR_GIB - 1, &[9]).unwrap();
        write(&memory, (1 << 20) - 1, &[2]).unwrap();
        let mut seen = Vec::new();
        visit_used(&memory, 64 * 1024, &mut |address, bytes| {
            seen.push((address, bytes.len()));
            Ok(())
        })
        .unwrap();
        let page = PAGE as u64;
        assert_eq!(seen, [(5 * page, 2 * PAGE), ((1 << 20) - page, PAGE), (FOUR_GIB - page, PAGE)]);
        assert!(write(&memory, 1 << 20, &[0]).is_err());
    }

    #[test]
    fn memory_beyond_the_hole_goes_above_4_gib() {
        assert_eq!(split(1 << 30), (1 << 30, 0));
        assert_eq!(split(5 << 30), (3 << 30, 2 << 30));
    }
}
