//! What a disk should hold, and where to look.

use std::collections::{BTreeMap, BTreeSet};

use fuzz::Input;
use hypervisor::vmdk::{Adapter, Disk, Error, Kind};

/// Bytes of a sector.
pub(crate) const SECTOR: usize = 512;

/// Sectors of an extent of the `twoGbMaxExtent` kinds.
const TWO_GB: u64 = 4_192_256;

/// The numbers in the sectors of a disk. A sector holds its number over and over, or zeros.
pub(crate) struct Model {
    pub(crate) capacity: u64,
    pub(crate) now: BTreeMap<u64, u64>,
    /// Everything that a sector held since the last flush, where it was written to.
    pub(crate) since: BTreeMap<u64, BTreeSet<u64>>,
    pub(crate) last: u64,
}

impl Model {
    pub(crate) fn new(capacity: u64) -> Self {
        Model { capacity, now: BTreeMap::new(), since: BTreeMap::new(), last: 0 }
    }

    pub(crate) fn tag(&self, sector: u64) -> u64 {
        self.now.get(&sector).copied().unwrap_or(0)
    }

    /// New contents for sectors.
    pub(crate) fn write(&mut self, sector: u64, count: u64) -> Vec<u8> {
        let mut data = Vec::new();
        for number in sector..sector + count {
            let before = self.tag(number);
            self.last += 1;
            self.now.insert(number, self.last);
            self.since.entry(number).or_default().extend([before, self.last]);
            data.extend_from_slice(&self.last.to_le_bytes().repeat(SECTOR / 8));
        }
        data
    }

    pub(crate) fn flushed(&mut self) {
        self.since.clear();
    }

    /// The disk has exactly this in a range.
    pub(crate) fn check(&self, disk: &mut Disk, sector: u64, count: u64) {
        let found = tags(disk, sector, count).expect("sectors of the disk can be read");
        for (number, found) in (sector..).zip(found) {
            assert_eq!(found, self.tag(number), "sector {number}");
        }
    }

    /// The disk has this around everything that was ever written.
    pub(crate) fn check_all(&self, disk: &mut Disk) {
        let mut next = 0;
        for &sector in self.now.keys() {
            let from = sector.saturating_sub(1).max(next);
            next = (sector + 2).min(self.capacity);
            if from < next {
                self.check(disk, from, next - from);
            }
        }
    }

    /// What was written since the last flush may be there or not: the disk says what is.
    pub(crate) fn settle(&mut self, disk: &mut Disk) {
        for (sector, allowed) in std::mem::take(&mut self.since) {
            let found = tags(disk, sector, 1).expect("sectors of the disk can be read")[0];
            assert!(allowed.contains(&found), "sector {sector} holds {found}, of {allowed:?}");
            self.now.insert(sector, found);
        }
    }
}

/// The numbers in sectors; a torn sector has none.
pub(crate) fn tags(disk: &mut Disk, sector: u64, count: u64) -> Result<Vec<u64>, Error> {
    let mut bytes = vec![0xee; count as usize * SECTOR];
    disk.read_at(sector, &mut bytes)?;
    let (sectors, _) = bytes.as_chunks::<SECTOR>();
    let tag = |bytes: &[u8; SECTOR]| {
        let (numbers, _) = bytes.as_chunks::<8>();
        assert!(numbers.iter().all(|number| *number == numbers[0]), "a torn sector");
        u64::from_le_bytes(numbers[0])
    };
    Ok(sectors.iter().map(tag).collect())
}

/// A place on a disk: near the borders of grains, tables and extents more often than elsewhere.
pub(crate) fn place(input: &mut Input<'_>, capacity: u64) -> (u64, u64) {
    let (choice, far, count) = (input.byte(), u64::from(input.word()), input.byte());
    let near = u64::from(choice >> 4);
    let sector = match choice & 15 {
        0..=3 => far,
        4 => capacity.saturating_sub(1 + far % 300),
        5 | 6 => (far % 80) * 4096 + near,
        7 => ((far % 80) * 4096).saturating_sub(near),
        8 => (far % 300) * 128 + near,
        9 => ((far % 300) * 128).saturating_sub(near),
        10 => TWO_GB.saturating_sub(near),
        11 => TWO_GB + near,
        12 => (far % 40) * 65_536 + near,
        13 => ((far % 40) * 65_536).saturating_sub(near),
        _ => far * near,
    };
    let sector = sector % capacity;
    let count = if count < 240 { u64::from(count % 8) + 1 } else { u64::from(count - 239) * 24 };
    (sector, count.min(capacity - sector))
}

pub(crate) fn capacity(input: &mut Input<'_>) -> u64 {
    let (choice, number) = (input.byte(), u64::from(input.word()));
    match choice % 8 {
        0 => 1 + number % 300,
        1 => 1 + number,
        2 => 4096 * (1 + number % 5),
        3 => 65_536 + number % 100,
        4 => 70_001,
        // Merging the large ones takes its time.
        5 if choice >= 0xe0 => TWO_GB + number % 5000,
        6 if choice >= 0xf0 => TWO_GB,
        _ => 128 * (1 + number % 20),
    }
}

pub(crate) fn kind(byte: u8) -> Kind {
    Kind::ALL[usize::from(byte) % Kind::ALL.len()]
}

pub(crate) fn adapter(byte: u8) -> Option<Adapter> {
    Adapter::ALL.get(usize::from(byte) % 6).copied()
}

/// An error is told in words, and names a file unless it is about what was asked for.
pub(crate) fn told(error: &Error) {
    let text = error.to_string();
    let general = matches!(error, Error::BadOption(_));
    assert!(general || text.contains('/') || text.contains("vmdk"), "{text}");
    let of_system = match error {
        Error::Parent(inner) => matches!(**inner, Error::Io { .. }),
        other => matches!(other, Error::Io { .. }),
    };
    assert_eq!(error.io_error().is_some(), of_system);
}
