//! The header of a hosted sparse extent: `KDMV`, one sector.
//!
//! ```text
//!  0 magic  4 version  8 flags  12 capacity  20 grain size  28 descriptor: sector  36 and sectors
//! 44 entries per table  48 redundant directory  56 directory  64 overhead  72 unclean shutdown
//! 73 four line-end characters  77 compression
//! ```
//!
//! Stored little-endian, lengths and places in sectors. The order in a file that we make:
//! header, descriptor, redundant directory, its tables, directory, its tables, grains.

use std::path::Path;

use super::bytes::{put, round_up, to_bytes, u8_at, u16_at, u32_at, u64_at};
use super::descriptor::MAX_DESCRIPTOR;
use super::error::Error;
use super::part::Part;
use super::{MAX_CAPACITY, SECTOR};

/// First bytes of the file.
pub(crate) const MAGIC: &[u8; 4] = b"KDMV";

/// Entries of a grain table; no other number is in use.
pub(crate) const ENTRIES: u64 = 512;

/// Sectors of a grain table.
const TABLE_SECTORS: u64 = 4;

/// Most grain tables of an extent: 2 TiB with grains of 32 KiB. Writers use 64 KiB.
const MAX_TABLES: u64 = 1 << 17;

/// Where the flag for an unclean shutdown is, in bytes.
pub(crate) const UNCLEAN: u64 = 72;

/// Grain sizes that are read, in sectors: 8 KiB to 1 MiB. Writers use 64 KiB.
const GRAINS: std::ops::RangeInclusive<u64> = 16..=2048;

const NEWLINE_TEST: u32 = 1;
const REDUNDANT: u32 = 1 << 1;
const ZEROED_GRAINS: u32 = 1 << 2;
const COMPRESSED: u32 = 1 << 16;
const MARKERS: u32 = 1 << 17;

/// Four characters that a transfer in text mode changes.
const LINE_ENDS: [u8; 4] = *b"\n \r\n";

/// In the header of a stream: the directory is named in the footer.
const AT_END: u64 = u64::MAX;

/// Markers of a stream: the kinds of what follows.
const MARKER_END: u32 = 0;
const MARKER_FOOTER: u32 = 3;

/// A checked header. All places and lengths in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) capacity: u64,
    pub(crate) grain: u64,
    /// Place and length of the embedded descriptor.
    pub(crate) descriptor: Option<(u64, u64)>,
    pub(crate) directory: u64,
    pub(crate) redundant: Option<u64>,
    pub(crate) overhead: u64,
    pub(crate) unclean: bool,
    /// Table entry 1 means: zeros, whatever the parent has.
    pub(crate) zeroed_grains: bool,
    /// Grains are compressed, each with a marker in front.
    pub(crate) compressed: bool,
}

impl Header {
    /// Reads and checks the header of an open file, or its footer where the header says so.
    ///
    /// # Errors
    /// When it is none, or one that cannot be right for a file of this length.
    pub(crate) fn read(part: &Part) -> Result<Self, Error> {
        let size = part.size()?;
        let mut sector = [0; SECTOR as usize];
        if size < SECTOR {
            return Err(Error::malformed(part.path(), "too short for the header of a sparse extent"));
        }
        part.read(0, &mut sector)?;
        let header = Self::decode(&sector, part.path())?;
        if header.directory != AT_END {
            header.check_against(size, part.path())?;
            return Ok(header);
        }
        let footer = Self::read_footer(part, size)?;
        let fits =
            (header.capacity, header.grain, true) == (footer.capacity, footer.grain, footer.compressed);
        if !fits || !header.compressed {
            return Err(Error::malformed(part.path(), "header and footer do not fit"));
        }
        // The footer repeats the header; what it adds is the place of the directory.
        let header = Header { directory: footer.directory, ..header };
        header.check_against(size, part.path())?;
        Ok(header)
    }

    /// A stream ends with a marker, the footer, and the marker of its end.
    fn read_footer(part: &Part, size: u64) -> Result<Self, Error> {
        let cut = || Error::malformed(part.path(), "the footer is missing: the file is not complete");
        let mut end = [0; 3 * SECTOR as usize];
        let start = size.checked_sub(3 * SECTOR).filter(|start| start % SECTOR == 0).ok_or_else(cut)?;
        part.read_bytes(start, &mut end)?;
        let (marker, rest) = end.split_at(SECTOR as usize);
        let (footer, last) = rest.split_at(SECTOR as usize);
        let is = |marker: &[u8], kind| u32_at(marker, 8) == 0 && u32_at(marker, 12) == kind;
        if !is(marker, MARKER_FOOTER) || !is(last, MARKER_END) || u64_at(last, 0) != 0 {
            return Err(cut());
        }
        let footer = Self::decode(footer, part.path())?;
        if footer.directory == AT_END {
            return Err(Error::malformed(part.path(), "the footer does not say where the directory is"));
        }
        Ok(footer)
    }

    /// What can be checked without the file.
    fn decode(sector: &[u8], path: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Err(Error::malformed(path, reason));
        if !sector.starts_with(MAGIC) {
            return bad("no header of a sparse extent".to_owned());
        }
        let version = u32_at(sector, 4);
        if !(1..=3).contains(&version) {
            return Err(Error::unsupported(path, format!("sparse extents of version {version}")));
        }
        let flags = u32_at(sector, 8);
        if flags & NEWLINE_TEST != 0 && sector.get(73..77) != Some(&LINE_ENDS[..]) {
            return bad("line ends were converted: the file was transferred as text".to_owned());
        }
        let capacity = u64_at(sector, 12);
        if !(1..=MAX_CAPACITY).contains(&capacity) {
            return bad(format!("a capacity of {capacity} sectors; a disk has 1 to {MAX_CAPACITY}"));
        }
        let grain = u64_at(sector, 20);
        if !grain.is_power_of_two() || !GRAINS.contains(&grain) {
            return bad(format!("grains of {grain} sectors"));
        }
        if capacity.div_ceil(grain * ENTRIES) > MAX_TABLES {
            return Err(Error::unsupported(path, format!("{capacity} sectors in grains of {grain}")));
        }
        let entries = u32_at(sector, 44);
        if u64::from(entries) != ENTRIES {
            return bad(format!("grain tables of {entries} entries"));
        }
        let compressed = flags & COMPRESSED != 0;
        let method = u16_at(sector, 77);
        if u16::from(compressed) != method || (compressed && flags & MARKERS == 0) {
            return Err(Error::unsupported(path, format!("compression {method}, flags {flags:#x}")));
        }
        let (place, length) = (u64_at(sector, 28), u64_at(sector, 36));
        let redundant = Some(u64_at(sector, 48)).filter(|&sector| flags & REDUNDANT != 0 && sector != 0);
        Ok(Header {
            version,
            capacity,
            grain,
            descriptor: (place != 0 && length != 0).then_some((place, length)),
            directory: u64_at(sector, 56),
            redundant,
            overhead: u64_at(sector, 64),
            unclean: u8_at(sector, 72) != 0,
            zeroed_grains: flags & ZEROED_GRAINS != 0,
            compressed,
        })
    }

    /// What the length of the file (bytes) tells: everything in front of the grains is there.
    fn check_against(&self, size: u64, path: &Path) -> Result<(), Error> {
        let sectors = size / SECTOR;
        if let Some((place, length)) = self.descriptor {
            let fits = place.checked_add(length).is_some_and(|end| end <= sectors);
            if !fits || to_bytes(length) > MAX_DESCRIPTOR {
                return Err(Error::malformed(path, format!("a descriptor of {length} sectors at {place}")));
            }
        }
        // A stream with a footer was written from front to end; its overhead says nothing.
        if self.overhead > sectors && (!self.compressed || self.directory < self.overhead) {
            let reason = format!("cut short: {sectors} sectors, {} before the first grain", self.overhead);
            return Err(Error::malformed(path, reason));
        }
        Ok(())
    }
}

/// The plan of a new extent. All in sectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewHosted {
    pub(crate) capacity: u64,
    /// Room for an embedded descriptor; 0 for an extent with a separate one.
    pub(crate) descriptor: u64,
}

/// Sectors of an embedded descriptor in a new file.
pub(crate) const DESCRIPTOR_SECTORS: u64 = 20;

/// Sectors of a grain in a new file: 64 KiB.
const NEW_GRAIN: u64 = 128;

impl NewHosted {
    fn tables(self) -> u64 {
        self.capacity.div_ceil(ENTRIES * NEW_GRAIN)
    }

    fn directory_sectors(self) -> u64 {
        to_sectors(self.tables() * 4)
    }

    /// Directory and tables together.
    fn metadata(self) -> u64 {
        self.directory_sectors() + self.tables() * TABLE_SECTORS
    }

    fn redundant(self) -> u64 {
        1 + self.descriptor
    }

    fn directory(self) -> u64 {
        self.redundant() + self.metadata()
    }

    /// Length of the file without grains; the tables are there, and all zeros.
    pub(crate) fn overhead(self) -> u64 {
        round_up(self.directory() + self.metadata(), NEW_GRAIN)
    }

    /// Header and directories: pieces to write into a file of zeros, each with its sector.
    pub(crate) fn pieces(self) -> Vec<(u64, Vec<u8>)> {
        let mut header = vec![0; SECTOR as usize];
        let descriptor = u64::from(self.descriptor > 0);
        put(&mut header, 0, MAGIC);
        put(&mut header, 4, &1_u32.to_le_bytes());
        put(&mut header, 8, &(NEWLINE_TEST | REDUNDANT).to_le_bytes());
        put(&mut header, 12, &self.capacity.to_le_bytes());
        put(&mut header, 20, &NEW_GRAIN.to_le_bytes());
        put(&mut header, 28, &descriptor.to_le_bytes());
        put(&mut header, 36, &self.descriptor.to_le_bytes());
        put(&mut header, 44, &(ENTRIES as u32).to_le_bytes());
        put(&mut header, 48, &self.redundant().to_le_bytes());
        put(&mut header, 56, &self.directory().to_le_bytes());
        put(&mut header, 64, &self.overhead().to_le_bytes());
        put(&mut header, 73, &LINE_ENDS);
        let directory = |start: u64| {
            let first = start + self.directory_sectors();
            let sectors = (0..self.tables()).map(|table| (first + table * TABLE_SECTORS) as u32);
            (start, sectors.flat_map(u32::to_le_bytes).collect())
        };
        vec![(0, header), directory(self.redundant()), directory(self.directory())]
    }
}

/// Bytes as sectors, the last one filled up.
fn to_sectors(bytes: u64) -> u64 {
    bytes.div_ceil(SECTOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_of_100_mib() {
        // The example of the specification: 4 tables; redundant directory at 21, its tables 22-37;
        // directory at 38, tables 39-54; grains from 128; the empty file has 65536 bytes.
        let new = NewHosted { capacity: (100 << 20) / 512, descriptor: DESCRIPTOR_SECTORS };
        assert_eq!((new.tables(), new.redundant(), new.directory(), new.overhead()), (4, 21, 38, 128));
        let pieces = new.pieces();
        let numbers = |index: usize| super::super::bytes::numbers(&pieces[index].1).collect::<Vec<_>>();
        assert_eq!((pieces[1].0, numbers(1)), (21, vec![22, 26, 30, 34]));
        assert_eq!((pieces[2].0, numbers(2)), (38, vec![39, 43, 47, 51]));
        let header = Header::decode(&pieces[0].1, Path::new("x")).unwrap();
        assert_eq!(header.descriptor, Some((1, 20)));
        assert_eq!((header.directory, header.redundant, header.overhead), (38, Some(21), 128));
        assert_eq!(&pieces[0].1[8..12], [3, 0, 0, 0]);
        assert!(header.check_against(65536, Path::new("x")).is_ok());
        assert!(header.check_against(65535, Path::new("x")).is_err());
    }

    #[test]
    fn headers_that_cannot_be_right() {
        let good = NewHosted { capacity: 1000, descriptor: 20 }.pieces().swap_remove(0).1;
        let with = |offset: usize, field: &[u8]| {
            let mut header = good.clone();
            put(&mut header, offset, field);
            Header::decode(&header, Path::new("x")).map_err(|error| error.to_string())
        };
        assert!(with(0, b"KDMV").is_ok());
        assert!(with(0, b"VMDK").is_err());
        assert!(with(4, &[4]).unwrap_err().contains("version 4"));
        assert!(with(73, b"\n \n\n").unwrap_err().contains("as text"));
        assert!(with(12, &(1_u64 << 63).to_le_bytes()).unwrap_err().contains("capacity"));
        assert!(with(12, &0_u64.to_le_bytes()).unwrap_err().contains("capacity"));
        for grain in [0_u64, 1, 8, 127, 4096, u64::MAX] {
            assert!(with(20, &grain.to_le_bytes()).unwrap_err().contains("grains"), "{grain}");
        }
        assert!(with(44, &[0, 0, 0, 1]).unwrap_err().contains("entries"));
        assert!(with(77, &[1]).unwrap_err().contains("compression"));
    }
}
