//! A sparse extent that can be written: `KDMV` or `COWD`, which differ in their headers only.
//!
//! A write to a grain that is here goes to its place. A grain that is not here is put at the end of
//! the file as a whole: what the write does not cover comes from the parents (or is zeros). Its table
//! entry follows later, see [`GrainMap::commit`]; until then the file looks as if the grain had never
//! been written, which is what a crash may leave.

use super::bytes::{round_up, to_len};
use super::error::Error;
use super::grain_map::{GrainMap, Shape, Span, full};
use super::part::Part;
use super::storage::Access;
use super::{MAX_CAPACITY, SECTOR, cowd, hosted};

/// Fills a buffer with the sectors below this extent, from a sector of the extent (or of the disk) on.
pub(crate) type Below<'a> = &'a mut dyn FnMut(u64, &mut [u8]) -> Result<(), Error>;

/// Which header the extent has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Hosted,
    Cow,
}

/// An open sparse extent.
pub(crate) struct SparseExtent {
    part: Part,
    map: GrainMap,
    format: Format,
    capacity: u64,
    grain: u64,
    unclean: bool,
    /// The next free sector of the file.
    free: u64,
    /// The header says that the file is being written.
    marked: bool,
}

impl SparseExtent {
    /// Opens a `KDMV` extent, not compressed.
    ///
    /// # Errors
    /// When header or directory cannot be right.
    pub(crate) fn open_hosted(part: &Part, header: &hosted::Header, access: Access) -> Result<Self, Error> {
        if header.version == 3 && access == Access::Write {
            // Version 3 adds change tracking, which a writer has to keep.
            return Err(Error::unsupported(part.path(), "writing to a sparse extent of version 3"));
        }
        let shape = hosted_shape(header);
        let map = GrainMap::open(part, shape, access)?;
        Self::new(part, map, Format::Hosted, &shape, 0)
    }

    /// Opens a `COWD` extent.
    ///
    /// # Errors
    /// When the directory cannot be right.
    pub(crate) fn open_cow(part: &Part, header: &cowd::Header, access: Access) -> Result<Self, Error> {
        let shape = Shape {
            capacity: header.capacity,
            grain: header.grain,
            entries: cowd::ENTRIES,
            directory: header.directory,
            redundant: None,
            reserved: 4,
            zeroed_grains: false,
            compressed: false,
            unclean: header.unclean,
        };
        let map = GrainMap::open(part, shape, access)?;
        Self::new(part, map, Format::Cow, &shape, header.next_free)
    }

    fn new(part: &Part, map: GrainMap, format: Format, shape: &Shape, free: u64) -> Result<Self, Error> {
        let mut extent = SparseExtent {
            part: part.clone(),
            map,
            format,
            capacity: shape.capacity,
            grain: shape.grain,
            unclean: shape.unclean,
            free: 0,
            marked: false,
        };
        extent.free = extent.align(part.size()?.div_ceil(SECTOR).max(free));
        Ok(extent)
    }

    /// Hosted extents have their grains at multiples of the grain size, COW extents have them packed.
    fn align(&self, sector: u64) -> u64 {
        if self.format == Format::Hosted { round_up(sector, self.grain) } else { sector }
    }

    pub(crate) fn part(&self) -> &Part {
        &self.part
    }

    pub(crate) fn map_mut(&mut self) -> &mut GrainMap {
        &mut self.map
    }

    pub(crate) fn grain(&self) -> u64 {
        self.grain
    }

    /// Whether the file was not closed after its last writing, and has not been checked since.
    pub(crate) fn is_unclean(&self) -> bool {
        self.unclean
    }

    /// Finds the run of grains that begins with the one of `sector`, for `wanted` sectors. Returns it
    /// with the number of sectors, counted from `sector`, that it answers for.
    fn find(&mut self, sector: u64, wanted: u64) -> Result<(Span, u64), Error> {
        let within = sector % self.grain;
        let span = self.map.span(&self.part, sector / self.grain, (within + wanted).div_ceil(self.grain))?;
        let (Span::Data { grains, .. } | Span::Zeros { grains } | Span::Absent { grains }) = span;
        Ok((span, wanted.min(grains * self.grain - within)))
    }

    /// Reads into the beginning of `buf`. Returns how many sectors it answers for, and whether they
    /// are here; those that are not are left to the parents.
    ///
    /// # Errors
    /// As the system calls, or when a table cannot be right.
    pub(crate) fn read(&mut self, sector: u64, buf: &mut [u8]) -> Result<(u64, bool), Error> {
        let (span, count) = self.find(sector, buf.len() as u64 / SECTOR)?;
        let head = buf.get_mut(..to_len(count)).unwrap_or_default();
        match span {
            Span::Data { sector: place, .. } => self.part.read(place + sector % self.grain, head)?,
            Span::Zeros { .. } => head.fill(0),
            Span::Absent { .. } => return Ok((count, false)),
        }
        Ok((count, true))
    }

    /// Writes `data`, whole sectors inside the extent.
    ///
    /// # Errors
    /// As the system calls, or when a table cannot be right. A part may have been written.
    pub(crate) fn write(&mut self, mut sector: u64, mut data: &[u8], below: Below<'_>) -> Result<(), Error> {
        self.mark()?;
        while !data.is_empty() {
            let (span, count) = self.find(sector, data.len() as u64 / SECTOR)?;
            let (now, later) = data.split_at_checked(to_len(count)).unwrap_or((data, &[]));
            match span {
                Span::Data { sector: place, .. } => self.part.write(place + sector % self.grain, now)?,
                Span::Zeros { .. } => self.add_grains(sector, now, &mut |_, buf| {
                    buf.fill(0);
                    Ok(())
                })?,
                Span::Absent { .. } => {
                    if self.map.has_table(sector / self.grain) {
                        self.add_grains(sector, now, below)?;
                    } else {
                        let free = self.map.add_table(&self.part, sector / self.grain, self.free)?;
                        self.free = self.align(free);
                        // Look again: the table can be loaded now.
                        continue;
                    }
                }
            }
            sector += count;
            data = later;
        }
        Ok(())
    }

    /// Puts grains that are not here at the end of the file, all in one table.
    fn add_grains(&mut self, sector: u64, data: &[u8], below: Below<'_>) -> Result<(), Error> {
        let grain = sector / self.grain;
        let within = sector % self.grain;
        let sectors = data.len() as u64 / SECTOR;
        let grains = (within + sectors).div_ceil(self.grain);
        let place = self.free;
        let end = place + grains * self.grain;
        if end > MAX_CAPACITY {
            return Err(full(&self.part));
        }
        // Where the data do not fill their first and last grain, the rest comes from below.
        if within > 0 {
            let mut head = vec![0; to_len(within)];
            below(grain * self.grain, &mut head)?;
            self.part.write(place, &head)?;
        }
        self.part.write(place + within, data)?;
        let rest = grains * self.grain - within - sectors;
        if rest > 0 {
            let mut tail = vec![0; to_len(rest)];
            // Behind the end of the extent there is nothing to ask for; those sectors stay zeros.
            let real = rest.min(self.capacity.saturating_sub(sector + sectors));
            below(sector + sectors, tail.get_mut(..to_len(real)).unwrap_or_default())?;
            self.part.write(place + within + sectors, &tail)?;
        }
        self.map.enter(grain, place, grains);
        self.free = end;
        Ok(())
    }

    /// Says in the header that the file is being written, before anything else is written. If it says
    /// so already, the last writer did not finish: then all tables are checked first.
    fn mark(&mut self) -> Result<(), Error> {
        if !self.marked {
            if self.unclean {
                self.map.check_all(&self.part)?;
                self.unclean = false;
            }
            self.set_unclean(true)?;
            self.marked = true;
        }
        Ok(())
    }

    fn set_unclean(&mut self, unclean: bool) -> Result<(), Error> {
        match self.format {
            Format::Hosted => self.part.write_bytes(hosted::UNCLEAN, &[u8::from(unclean)])?,
            Format::Cow => self.part.write_bytes(cowd::UNCLEAN, &u32::from(unclean).to_le_bytes())?,
        }
        self.part.sync()
    }

    /// Makes everything written so far durable, tables included.
    ///
    /// # Errors
    /// As the system calls.
    pub(crate) fn flush(&mut self) -> Result<(), Error> {
        if self.map.commit(&self.part)? && self.format == Format::Cow {
            // After the grains, like the tables: the header must never be ahead of the file.
            self.part.write_bytes(cowd::NEXT_FREE, &(self.free as u32).to_le_bytes())?;
        }
        self.part.sync()
    }

    /// Flushes, then says in the header that nothing is missing.
    ///
    /// # Errors
    /// As the system calls.
    pub(crate) fn close(&mut self) -> Result<(), Error> {
        self.flush()?;
        if self.marked {
            self.set_unclean(false)?;
            self.marked = false;
        }
        Ok(())
    }
}

/// The shape of a `KDMV` extent.
pub(crate) fn hosted_shape(header: &hosted::Header) -> Shape {
    let descriptor_end = header.descriptor.map_or(1, |(place, length)| place.saturating_add(length));
    Shape {
        capacity: header.capacity,
        grain: header.grain,
        entries: hosted::ENTRIES,
        directory: header.directory,
        redundant: header.redundant,
        reserved: descriptor_end,
        zeroed_grains: header.zeroed_grains,
        compressed: header.compressed,
        unclean: header.unclean,
    }
}
