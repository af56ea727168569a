//! Little-endian fields of headers and tables, without a way to read outside.

use super::SECTOR;

/// A 32-bit field; 0 where the bytes end before it.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |field| u32::from_le_bytes(*field))
}

/// A 64-bit field; 0 where the bytes end before it.
pub(crate) fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |field| u64::from_le_bytes(*field))
}

/// A 16-bit field; 0 where the bytes end before it.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    bytes.get(offset..).and_then(|rest| rest.first_chunk()).map_or(0, |field| u16::from_le_bytes(*field))
}

/// One byte; 0 where the bytes end before it.
pub(crate) fn u8_at(bytes: &[u8], offset: usize) -> u8 {
    bytes.get(offset).copied().unwrap_or(0)
}

/// Puts a field into a header under construction; what does not fit is left out.
pub(crate) fn put(bytes: &mut [u8], offset: usize, field: &[u8]) {
    let place = bytes.get_mut(offset..).and_then(|rest| rest.get_mut(..field.len()));
    if let Some(place) = place {
        place.copy_from_slice(field);
    }
}

/// The 32-bit numbers of a directory or table.
pub(crate) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u32> + '_ {
    bytes.as_chunks::<4>().0.iter().map(|chunk| u32::from_le_bytes(*chunk))
}

/// A directory or table as bytes.
pub(crate) fn from_numbers(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

/// Sectors as bytes. Sector numbers of an open disk stay below 2^33, so this cannot overflow.
pub(crate) fn to_bytes(sectors: u64) -> u64 {
    sectors.saturating_mul(SECTOR)
}

/// Sectors as a length in memory.
pub(crate) fn to_len(sectors: u64) -> usize {
    usize::try_from(to_bytes(sectors)).unwrap_or(usize::MAX)
}

/// The next multiple of `step` (not 0) from `number` on.
pub(crate) fn round_up(number: u64, step: u64) -> u64 {
    number.div_ceil(step).saturating_mul(step)
}
