//! Where the grains of a sparse extent are: a directory of tables, a table of grains.
//!
//! ```text
//!   directory ──▶ table 0 ──▶ grain 0 … grain 511 (KDMV) or 4095 (COWD)
//!      (in memory)  (a cache     0: not here, ask the parent
//!                   of fixed     1: zeros, where the header says so
//!                   size)        n: at sector n of the file
//! ```
//!
//! Every number is checked before it is followed. On opening: the directory and every table lie
//! inside the file, and no two of them overlap (so no table is its own grain, and none serves twice).
//! On use: a grain lies inside the file and outside all tables. For writing a table is checked as a
//! whole when it is first loaded, against the length the file had when it was opened: an entry that
//! points behind the end must not become "valid" because the file grows over it.
//!
//! New entries stay in memory until [`GrainMap::commit`], which flushes the grains first.

use std::collections::HashMap;
use std::ops::Range;

use super::bytes::{from_numbers, numbers, to_bytes, to_len};
use super::error::Error;
use super::part::Part;
use super::storage::Access;
use super::{MAX_CAPACITY, SECTOR};

/// Most tables whose order is not the one in the file. Sorting them takes time, and only a file made
/// to take time has more: half a TiB written to at random, in grains of one sector.
const MAX_SCATTERED: usize = 1 << 18;

/// What a header tells about directory and tables. Places and lengths in sectors.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) capacity: u64,
    /// Sectors of a grain.
    pub(crate) grain: u64,
    /// Entries of a table.
    pub(crate) entries: u64,
    pub(crate) directory: u64,
    pub(crate) redundant: Option<u64>,
    /// Header and embedded descriptor end here.
    pub(crate) reserved: u64,
    /// Entry 1 means zeros.
    pub(crate) zeroed_grains: bool,
    /// The entries name compressed grains, whose length only their markers tell.
    pub(crate) compressed: bool,
    /// The file was not closed after its last writing.
    pub(crate) unclean: bool,
}

impl Shape {
    fn tables(&self) -> u64 {
        // capacity, entries and grain are bounded and not 0, see the headers
        self.capacity.div_ceil(self.entries.saturating_mul(self.grain))
    }

    fn table_sectors(&self) -> u64 {
        (self.entries * 4).div_ceil(SECTOR)
    }
}

/// A run of neighbouring grains that are found alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Span {
    /// In the file, one after the other from this sector on.
    Data { sector: u64, grains: u64 },
    /// Zeros, whatever the parent has.
    Zeros { grains: u64 },
    /// Not here.
    Absent { grains: u64 },
}

/// A table in memory.
struct Table {
    entries: Box<[u32]>,
    /// Has entries that the file does not have yet.
    dirty: bool,
    /// When it was last used, for the choice of the one to drop.
    used: u64,
}

/// Directory and tables of one extent.
pub(crate) struct GrainMap {
    shape: Shape,
    /// First sector of each table; 0 where there is none.
    directory: Vec<u32>,
    /// The same of the redundant tables; empty without, and when not open for writing.
    redundant: Vec<u32>,
    /// Where no grain can be.
    occupied: Occupied,
    /// Sectors of the file when it was opened.
    limit: u64,
    access: Access,
    /// One bit per table: checked as a whole (for writing only).
    checked: Vec<u64>,
    cache: HashMap<u64, Table>,
    /// Most tables in the cache.
    room: usize,
    clock: u64,
}

impl GrainMap {
    /// Reads and checks the directory.
    ///
    /// # Errors
    /// When a place in it cannot be right.
    pub(crate) fn open(part: &Part, shape: Shape, access: Access) -> Result<Self, Error> {
        let limit = part.size()? / SECTOR;
        let mut occupied = Occupied::new(shape.reserved, shape.table_sectors());
        let directory = read_directory(part, &shape, shape.directory, limit, &mut occupied)?;
        let redundant = match shape.redundant {
            Some(sector) if access == Access::Write => {
                read_directory(part, &shape, sector, limit, &mut occupied)?
            }
            _ => Vec::new(),
        };
        occupied.check(limit).map_err(|reason| Error::malformed(part.path(), reason))?;
        let checked = match access {
            Access::Read => Vec::new(),
            Access::Write => vec![0; directory.len().div_ceil(64)],
        };
        let cache = HashMap::new();
        Ok(GrainMap {
            shape,
            directory,
            redundant,
            occupied,
            limit,
            access,
            checked,
            cache,
            room: 1,
            clock: 0,
        })
    }

    /// Bytes of a table in the cache.
    pub(crate) fn table_bytes(&self) -> usize {
        to_len(self.shape.table_sectors())
    }

    /// Sets how many tables may be in the cache, at least 1.
    pub(crate) fn set_room(&mut self, tables: usize) {
        self.room = tables.max(1);
    }

    /// Finds `grain` and the grains behind it that are found alike, at most `most` (at least 1) and
    /// never beyond the end of its table.
    ///
    /// # Errors
    /// When the table cannot be read, or names a place where no grain can be.
    pub(crate) fn span(&mut self, part: &Part, grain: u64, most: u64) -> Result<Span, Error> {
        let (number, slot) = (grain / self.shape.entries, grain % self.shape.entries);
        let most = most.min(self.shape.entries - slot).max(1);
        if !self.load(part, number)? {
            return Ok(Span::Absent { grains: most });
        }
        let entries = self.cache.get(&number).map_or(&[][..], |table| &table.entries);
        let from = usize::try_from(slot).unwrap_or(usize::MAX);
        let run = entries.get(from..).unwrap_or_default();
        let run = run.get(..usize::try_from(most).unwrap_or(usize::MAX)).unwrap_or(run);
        let alike = |wanted: u32| run.iter().take_while(|&&entry| entry == wanted).count() as u64;
        match run.first().copied().unwrap_or(0) {
            0 => Ok(Span::Absent { grains: alike(0).max(1) }),
            1 if self.shape.zeroed_grains => Ok(Span::Zeros { grains: alike(1) }),
            first => {
                let mut grains = 0;
                let together = if self.shape.compressed { 1 } else { run.len() };
                for &entry in run.iter().take(together) {
                    let follows = u64::from(entry) == u64::from(first) + grains * self.shape.grain;
                    // For writing, the whole table has been checked.
                    if !follows || (self.access == Access::Read && !self.is_good(entry, grain + grains)) {
                        break;
                    }
                    grains += 1;
                }
                if grains == 0 {
                    return Err(self.bad_entry(part, grain, first));
                }
                Ok(Span::Data { sector: first.into(), grains })
            }
        }
    }

    /// Notes that `grains` grains from `grain` on are in the file, one after the other from `sector`
    /// on. They are in one table, which [`GrainMap::span`] has just looked at.
    pub(crate) fn enter(&mut self, grain: u64, sector: u64, grains: u64) {
        let (number, slot) = (grain / self.shape.entries, grain % self.shape.entries);
        let Some(table) = self.cache.get_mut(&number) else {
            return;
        };
        let slots = table.entries.iter_mut().skip(slot as usize).take(grains as usize);
        for (entry, index) in slots.zip(0_u64..) {
            // The writer allocates below 2^32 only.
            *entry = (sector + index * self.shape.grain) as u32;
        }
        table.dirty = true;
    }

    /// Whether the table of `grain` exists.
    pub(crate) fn has_table(&self, grain: u64) -> bool {
        usize::try_from(grain / self.shape.entries)
            .ok()
            .and_then(|number| self.directory.get(number))
            .is_some_and(|&sector| sector != 0)
    }

    /// Makes the missing table of `grain`, and its redundant twin, from sector `free` on. Returns the
    /// sector behind them. The tables are durable before the directory names them.
    ///
    /// # Errors
    /// As the system calls, or when the file would exceed what 32-bit sector numbers reach.
    pub(crate) fn add_table(&mut self, part: &Part, grain: u64, free: u64) -> Result<u64, Error> {
        let number = grain / self.shape.entries;
        let length = self.shape.table_sectors();
        let copies = if self.redundant.is_empty() { 1 } else { 2 };
        let end = free + copies * length;
        if end > MAX_CAPACITY {
            return Err(full(part));
        }
        part.write(free, &vec![0; to_len(copies * length)])?;
        part.sync()?;
        let places = [(self.shape.redundant, free + length), (Some(self.shape.directory), free)];
        for (directory, place) in places.into_iter().skip(2 - copies as usize) {
            if let Some(directory) = directory {
                part.write_bytes(to_bytes(directory) + number * 4, &(place as u32).to_le_bytes())?;
            }
        }
        part.sync()?;
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(entry) = self.directory.get_mut(index) {
            *entry = free as u32;
        }
        if let Some(entry) = self.redundant.get_mut(index) {
            *entry = (free + length) as u32;
        }
        // Behind all others, so they stay sorted.
        self.occupied
            .tables
            .extend([free, free + length].iter().take(copies as usize).map(|&sector| sector as u32));
        Ok(end)
    }

    /// Flushes the grains written so far, then writes the table entries that name them, the redundant
    /// ones first. The entries themselves are durable after the next flush. Returns whether there
    /// were any.
    ///
    /// # Errors
    /// As the system calls; what was not written stays noted.
    pub(crate) fn commit(&mut self, part: &Part) -> Result<bool, Error> {
        let mut dirty: Vec<u64> =
            self.cache.iter().filter(|(_, table)| table.dirty).map(|(&number, _)| number).collect();
        if dirty.is_empty() {
            return Ok(false);
        }
        part.sync()?;
        dirty.sort_unstable();
        for number in dirty {
            let places =
                [self.table_sector(&self.redundant, number), self.table_sector(&self.directory, number)];
            if let Some(table) = self.cache.get_mut(&number) {
                let bytes = from_numbers(&table.entries);
                for place in places.into_iter().flatten() {
                    part.write(place, &bytes)?;
                }
                table.dirty = false;
            }
        }
        Ok(true)
    }

    /// Checks all tables, for writing after an unclean shutdown, and makes the redundant ones alike.
    ///
    /// # Errors
    /// As the system calls, or when a table cannot be right.
    pub(crate) fn check_all(&mut self, part: &Part) -> Result<(), Error> {
        for number in 0..self.directory.len() as u64 {
            self.load(part, number)?;
        }
        Ok(())
    }

    /// Brings a table into the cache; false when there is none.
    fn load(&mut self, part: &Part, number: u64) -> Result<bool, Error> {
        self.clock += 1;
        if let Some(table) = self.cache.get_mut(&number) {
            table.used = self.clock;
            return Ok(true);
        }
        let Some(sector) = self.table_sector(&self.directory, number) else {
            return Ok(false);
        };
        let mut table = Table { entries: self.read_table(part, sector)?, dirty: false, used: self.clock };
        if self.access == Access::Write && !self.is_checked(number) {
            self.check_table(part, number, &mut table)?;
        }
        if self.cache.len() >= self.room {
            self.drop_oldest(part)?;
        }
        self.cache.insert(number, table);
        Ok(true)
    }

    fn read_table(&self, part: &Part, sector: u64) -> Result<Box<[u32]>, Error> {
        let mut bytes = vec![0; self.table_bytes()];
        part.read(sector, &mut bytes)?;
        Ok(numbers(&bytes).collect())
    }

    /// Checks a table that is about to be used for writing, once. After an unclean shutdown the
    /// redundant table helps out where an entry cannot be right, and both are made alike again.
    fn check_table(&mut self, part: &Part, number: u64, table: &mut Table) -> Result<(), Error> {
        let first = number * self.shape.entries;
        if self.shape.unclean
            && let Some(sector) = self.table_sector(&self.redundant, number)
        {
            let twin = self.read_table(part, sector)?;
            table.dirty = twin != table.entries;
            for ((entry, &other), grain) in table.entries.iter_mut().zip(&twin).zip(first..) {
                if !self.is_good(*entry, grain) && self.is_good(other, grain) {
                    *entry = other;
                }
            }
        }
        for (&entry, grain) in table.entries.iter().zip(first..) {
            if !self.is_good(entry, grain) {
                return Err(self.bad_entry(part, grain, entry));
            }
        }
        if let Some(word) = self.checked.get_mut((number / 64) as usize) {
            *word |= 1 << (number % 64);
        }
        Ok(())
    }

    fn is_checked(&self, number: u64) -> bool {
        self.checked.get((number / 64) as usize).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Whether an entry can be followed: it names nothing, or a grain inside the file as it was
    /// opened and outside of all tables. Entries behind the capacity are never followed.
    fn is_good(&self, entry: u32, grain: u64) -> bool {
        let start = grain.saturating_mul(self.shape.grain);
        if entry == 0 || (entry == 1 && self.shape.zeroed_grains) || start >= self.shape.capacity {
            return true;
        }
        // The last grain may be shorter, of a compressed one only the marker is known.
        let length = self.shape.grain.min(self.shape.capacity - start);
        let length = if self.shape.compressed { 1 } else { length };
        let place = u64::from(entry)..u64::from(entry) + length;
        if place.end > self.limit {
            return false;
        }
        self.occupied.is_free(&place)
    }

    fn bad_entry(&self, part: &Part, grain: u64, entry: u32) -> Error {
        let file = self.limit;
        let reason = format!("grain {grain} cannot be at sector {entry} of a file of {file} sectors");
        Error::malformed(part.path(), reason)
    }

    /// Makes room for one table.
    fn drop_oldest(&mut self, part: &Part) -> Result<(), Error> {
        let clean = self.cache.iter().filter(|(_, table)| !table.dirty);
        let oldest = clean.min_by_key(|(_, table)| table.used).map(|(&number, _)| number);
        let oldest = match oldest {
            Some(number) => Some(number),
            None => {
                self.commit(part)?;
                self.cache.iter().min_by_key(|(_, table)| table.used).map(|(&number, _)| number)
            }
        };
        if let Some(number) = oldest {
            self.cache.remove(&number);
        }
        Ok(())
    }

    fn table_sector(&self, directory: &[u32], number: u64) -> Option<u64> {
        let sector = directory.get(usize::try_from(number).ok()?)?;
        (*sector != 0).then_some(u64::from(*sector))
    }
}

/// A file that can take no more grains.
pub(crate) fn full(part: &Part) -> Error {
    let error = std::io::Error::new(
        std::io::ErrorKind::StorageFull,
        "the extent is full: its tables hold 32-bit sector numbers",
    );
    Error::io("extend", part.path(), error)
}

fn read_directory(
    part: &Part,
    shape: &Shape,
    sector: u64,
    limit: u64,
    occupied: &mut Occupied,
) -> Result<Vec<u32>, Error> {
    let count = shape.tables();
    let length = (count * 4).div_ceil(SECTOR);
    // First the place, then the memory.
    if sector == 0 || sector.checked_add(length).is_none_or(|end| end > limit) {
        let reason = format!("a grain directory of {length} sectors cannot be at sector {sector}");
        return Err(Error::malformed(part.path(), reason));
    }
    occupied.ranges.push(sector..sector + length);
    let count = usize::try_from(count).unwrap_or(0);
    let mut directory = Vec::with_capacity(count);
    let mut bytes = vec![0; 1 << 16];
    let mut offset = to_bytes(sector);
    while directory.len() < count {
        let wanted = bytes.len().min((count - directory.len()) * 4);
        let piece = bytes.get_mut(..wanted).unwrap_or_default();
        part.read_bytes(offset, piece)?;
        directory.extend(numbers(piece));
        offset += wanted as u64;
    }
    occupied.tables.extend(directory.iter().filter(|&&table| table != 0));
    Ok(directory)
}

/// The places of header, directories and tables, no two of which may overlap.
struct Occupied {
    /// Header and directories.
    ranges: Vec<Range<u64>>,
    /// First sectors of tables, sorted. There may be a million of them.
    tables: Vec<u32>,
    /// Sectors of a table.
    length: u64,
}

impl Occupied {
    fn new(reserved: u64, length: u64) -> Self {
        let header = 0..reserved;
        Occupied { ranges: vec![header], tables: Vec::new(), length }
    }

    /// Sorts the tables and finds what cannot be in a file of `limit` sectors.
    fn check(&mut self, limit: u64) -> Result<(), String> {
        if !self.tables.is_sorted() {
            if self.tables.len() > MAX_SCATTERED {
                return Err(format!("{} grain tables in no order", self.tables.len()));
            }
            radix_sort(&mut self.tables);
        }
        if let Some(&last) = self.tables.last()
            && u64::from(last) + self.length > limit
        {
            return Err(format!("a grain table at sector {last} of a file of {limit} sectors"));
        }
        let close = |pair: &&[u32]| match pair {
            [one, next] => u64::from(*one) + self.length > u64::from(*next),
            _ => false,
        };
        let table =
            self.tables.windows(2).find(close).and_then(|pair| pair.last()).map(|&sector| sector.into());
        let range = self.ranges.iter().enumerate().find(|(index, range)| {
            let mut others = self.ranges.iter().take(*index);
            others.any(|other| other.start < range.end && range.start < other.end) || self.has_table_in(range)
        });
        match table.or(range.map(|(_, range)| range.start)) {
            Some(sector) => Err(format!("two tables overlap at sector {sector}")),
            None => Ok(()),
        }
    }

    /// Whether a place is free of all of them.
    fn is_free(&self, place: &Range<u64>) -> bool {
        let taken = self.ranges.iter().any(|range| range.start < place.end && place.start < range.end);
        !taken && !self.has_table_in(place)
    }

    fn has_table_in(&self, place: &Range<u64>) -> bool {
        let first = self.tables.partition_point(|&table| u64::from(table) + self.length <= place.start);
        self.tables.get(first).is_some_and(|&table| u64::from(table) < place.end)
    }
}

/// Sorts in a time that nobody's choice of numbers makes longer: three passes of 11 bits each.
fn radix_sort(numbers: &mut Vec<u32>) {
    let mut sorted = vec![0; numbers.len()];
    for shift in [0, 11, 22] {
        let digit = |number: u32| (number >> shift & 0x7ff) as usize;
        let mut places = [0_u32; 0x800];
        for &number in numbers.iter() {
            if let Some(count) = places.get_mut(digit(number)) {
                *count += 1;
            }
        }
        let mut next = 0;
        for place in &mut places {
            next += std::mem::replace(place, next);
        }
        for &number in numbers.iter() {
            if let Some(place) = places.get_mut(digit(number)) {
                if let Some(slot) = sorted.get_mut(*place as usize) {
                    *slot = number;
                }
                *place += 1;
            }
        }
        std::mem::swap(numbers, &mut sorted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn radix_sort_sorts(mut numbers in proptest::collection::vec(any::<u32>(), 0..500)) {
            let mut expected = numbers.clone();
            expected.sort_unstable();
            radix_sort(&mut numbers);
            prop_assert_eq!(numbers, expected);
        }
    }
}
