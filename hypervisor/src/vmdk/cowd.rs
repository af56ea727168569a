//! The header of a COW extent: `COWD`, four sectors. The kind of ESX Server, with a text descriptor.
//!
//! ```text
//!    0 magic  4 version  8 flags  12 capacity  16 grain size  20 directory  24 its entries
//!   28 next free sector
//!   32 root: cylinders, heads, sectors     child: name of the parent (1024), 1056 its generation
//! 1060 generation  1064 name (60)  1124 description (512)  1636 saved generation  1648 unclean
//! ```
//!
//! Stored little-endian, 32 bits wide, places and lengths in sectors. The order in a file that we
//! make: header, directory, tables, grains of one sector each.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::bytes::{put, u32_at};
use super::error::Error;
use super::geometry::Geometry;
use super::part::Part;
use super::{MAX_CAPACITY, SECTOR};

/// First bytes of the file.
pub(crate) const MAGIC: &[u8; 4] = b"COWD";

/// Entries of a grain table.
pub(crate) const ENTRIES: u64 = 4096;

/// Sectors of a grain table.
const TABLE_SECTORS: u64 = 32;

/// Sectors of the header.
const HEADER_SECTORS: u64 = 4;

/// Where the next free sector is noted, in bytes.
pub(crate) const NEXT_FREE: u64 = 28;

/// Where the flag for an unclean shutdown is, in bytes.
pub(crate) const UNCLEAN: u64 = 1648;

/// Largest grain that is read, in sectors.
const MAX_GRAIN: u64 = 2048;

/// A checked header. All places and lengths in sectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) capacity: u64,
    pub(crate) grain: u64,
    pub(crate) directory: u64,
    pub(crate) next_free: u64,
    pub(crate) unclean: bool,
}

impl Header {
    /// Reads and checks the header of an open file.
    ///
    /// # Errors
    /// When it is none, or one that cannot be right for a file of this length.
    pub(crate) fn read(part: &Part) -> Result<Self, Error> {
        let bad = |reason: String| Err(Error::malformed(part.path(), reason));
        let size = part.size()?;
        let mut bytes = [0; (HEADER_SECTORS * SECTOR) as usize];
        if size < bytes.len() as u64 {
            return bad("too short for the header of a COW extent".to_owned());
        }
        part.read(0, &mut bytes)?;
        if !bytes.starts_with(MAGIC) {
            return bad("no header of a COW extent".to_owned());
        }
        let field = |offset| u64::from(u32_at(&bytes, offset));
        let version = field(4);
        if version != 1 {
            return Err(Error::unsupported(part.path(), format!("COW extents of version {version}")));
        }
        let header = Header {
            capacity: field(12),
            grain: field(16),
            directory: field(20),
            next_free: field(28),
            unclean: field(UNCLEAN as usize) != 0,
        };
        if !(1..=MAX_CAPACITY).contains(&header.capacity) {
            return bad(format!("a capacity of {} sectors", header.capacity));
        }
        if !header.grain.is_power_of_two() || header.grain > MAX_GRAIN {
            return bad(format!("grains of {} sectors", header.grain));
        }
        let needed = header.capacity.div_ceil(ENTRIES * header.grain);
        if field(24) < needed {
            return bad(format!("a directory of {} entries, {needed} are needed", field(24)));
        }
        if header.next_free > size.div_ceil(SECTOR) {
            let sectors = size / SECTOR;
            return bad(format!("cut short: {sectors} sectors, {} were in use", header.next_free));
        }
        Ok(header)
    }
}

/// The plan of a new extent of `capacity` sectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewCow<'a> {
    pub(crate) capacity: u64,
    pub(crate) geometry: Geometry,
    /// Name of the parent, for a child.
    pub(crate) parent: Option<&'a Path>,
    /// Name of the disk, cut to what fits.
    pub(crate) name: &'a [u8],
}

impl NewCow<'_> {
    fn tables(self) -> u64 {
        self.capacity.div_ceil(ENTRIES)
    }

    fn first_table(self) -> u64 {
        HEADER_SECTORS + (self.tables() * 4).div_ceil(SECTOR)
    }

    /// Length of the file without grains, in sectors; the tables are there, and all zeros.
    pub(crate) fn overhead(self) -> u64 {
        self.first_table() + self.tables() * TABLE_SECTORS
    }

    /// Header and directory: pieces to write into a file of zeros, each with its sector.
    pub(crate) fn pieces(self) -> Vec<(u64, Vec<u8>)> {
        let mut header = vec![0; (HEADER_SECTORS * SECTOR) as usize];
        put(&mut header, 0, MAGIC);
        // capacity and everything below it fit 32 bits: MAX_CAPACITY is the largest such number
        let fields = [1, 3, self.capacity, 1, HEADER_SECTORS, self.tables(), self.overhead()];
        for (index, field) in fields.into_iter().enumerate() {
            put(&mut header, 4 + 4 * index, &(field as u32).to_le_bytes());
        }
        match self.parent {
            Some(parent) => {
                let name = parent.as_os_str().as_bytes();
                // Cut if it does not fit: the name in the text descriptor is the one that counts.
                put(&mut header, 32, name.get(..1023).unwrap_or(name));
            }
            None => {
                let Geometry { cylinders, heads, sectors } = self.geometry;
                for (index, field) in [cylinders, heads, sectors].into_iter().enumerate() {
                    put(&mut header, 32 + 4 * index, &field.to_le_bytes());
                }
            }
        }
        put(&mut header, 1064, self.name.get(..59).unwrap_or(self.name));
        let first = self.first_table();
        let sectors = (0..self.tables()).map(|table| (first + table * TABLE_SECTORS) as u32);
        vec![(0, header), (HEADER_SECTORS, sectors.flat_map(u32::to_le_bytes).collect())]
    }
}
