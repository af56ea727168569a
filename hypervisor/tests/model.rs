//! Random writes to disks of every kind, alone and as chains three deep, against a model.

mod common;

use common::{Model, assert_same, child_of, make};
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{CreateOptions, Disk, Kind, Mode};
use proptest::prelude::*;

/// What is done to a disk. Places are given in parts so that boundaries are met often: of extents, of
/// tables, of grains, and a few sectors to either side.
#[derive(Debug, Clone)]
enum Step {
    Write {
        place: Place,
        count: u64,
    },
    Read {
        place: Place,
        count: u64,
    },
    Flush,
    Reopen,
    /// Makes a child and goes on with that.
    Child(Kind),
}

#[derive(Debug, Clone)]
struct Place {
    extent: u64,
    table: u64,
    grain: u64,
    off: i64,
}

/// Sectors of an extent of the twoGb kinds, of a grain table of COWD, of a grain of KDMV.
const STEPS: [u64; 3] = [4_192_256, 4096, 128];

impl Place {
    fn sector(&self, capacity: u64) -> u64 {
        let [extent, table, grain] = STEPS;
        let sector = self.extent * extent + self.table * table + self.grain * grain;
        sector.saturating_add_signed(self.off) % capacity
    }
}

fn place() -> impl Strategy<Value = Place> {
    let table = prop_oneof![3 => 0..3_u64, 1 => 15..18_u64];
    (0..2_u64, table, 0..4_u64, prop_oneof![Just(0), -3..4_i64])
        .prop_map(|(extent, table, grain, off)| Place { extent, table, grain, off })
}

fn sparse_kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::MonolithicSparse), Just(Kind::TwoGbMaxExtentSparse), Just(Kind::VmfsSparse)]
}

fn step() -> impl Strategy<Value = Step> {
    let count = prop_oneof![1..4_u64, Just(128), 120..300_u64];
    let count_read = prop_oneof![1..4_u64, Just(5000)];
    prop_oneof![
        8 => (place(), count).prop_map(|(place, count)| Step::Write { place, count }),
        4 => (place(), count_read).prop_map(|(place, count)| Step::Read { place, count }),
        1 => Just(Step::Flush),
        1 => Just(Step::Reopen),
        1 => sparse_kind().prop_map(Step::Child),
    ]
}

/// Capacities with an odd last grain; the first needs two extents in the twoGb kinds.
fn capacity() -> impl Strategy<Value = u64> {
    prop_oneof![Just(STEPS[0] + 70_001), 1..300_u64, Just(65_536), Just(70_000)]
}

fn any_kind() -> impl Strategy<Value = Kind> {
    prop::sample::select(&Kind::ALL[..])
}

/// Runs the steps; every read is compared, and at the end everything that was ever written.
fn run(kind: Kind, capacity: u64, steps: &[Step]) {
    let memory = Memory::new();
    let mut model = Model::default();
    let mut name = "disk0.vmdk".to_owned();
    let mut path = make(&memory, &name, &CreateOptions::new(kind, capacity * 512));
    let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
    let mut children = 0;
    for step in steps {
        match step {
            Step::Write { place, count } => {
                let sector = place.sector(capacity);
                let count = (*count).min(capacity - sector);
                disk.write_at(sector, &model.write(sector, count)).unwrap();
            }
            Step::Read { place, count } => {
                let sector = place.sector(capacity);
                let count = (*count).min(capacity - sector);
                check(&mut disk, &model, sector, count);
            }
            Step::Flush => disk.flush().unwrap(),
            Step::Reopen => {
                disk.close().unwrap();
                disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
            }
            Step::Child(kind) => {
                disk.close().unwrap();
                if children < 3 {
                    children += 1;
                    let parent = std::mem::replace(&mut name, format!("disk{children}.vmdk"));
                    path = make(&memory, &name, &child_of(&parent, *kind));
                }
                disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
            }
        }
    }
    disk.close().unwrap();
    let mut disk = Disk::open_with(&memory, &path, Mode::Read).unwrap();
    assert_eq!(disk.info().layers.len(), children + 1);
    for sector in model.written() {
        check(&mut disk, &model, sector, 1);
    }
}

fn check(disk: &mut Disk, model: &Model, sector: u64, count: u64) {
    let mut buf = vec![0xee; count as usize * 512];
    disk.read_at(sector, &mut buf).unwrap();
    assert_same(&buf, &model.read(sector, count), &format!("{count} sectors from {sector}"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_writes_are_read_back(
        kind in any_kind(), capacity in capacity(), steps in prop::collection::vec(step(), 1..40)
    ) {
        run(kind, capacity, &steps);
    }
}

#[test]
fn chains_three_deep_of_every_mixture() {
    let kinds = [Kind::MonolithicSparse, Kind::TwoGbMaxExtentSparse, Kind::VmfsSparse];
    let at = |grain, off| Place { extent: 0, table: 0, grain, off };
    for root in Kind::ALL {
        for (first, second) in kinds.iter().flat_map(|a| kinds.iter().map(move |b| (*a, *b))) {
            let steps = [
                Step::Write { place: at(0, 0), count: 700 },
                Step::Child(first),
                Step::Write { place: at(1, 5), count: 3 },
                Step::Write { place: at(3, 60), count: 200 },
                Step::Read { place: at(0, 0), count: 1000 },
                Step::Child(second),
                Step::Write { place: at(1, 6), count: 1 },
                Step::Write { place: at(4, 0), count: 1 },
                Step::Read { place: at(0, 0), count: 1000 },
                Step::Child(first),
                Step::Write { place: at(1, 7), count: 2 },
                Step::Reopen,
                Step::Read { place: at(0, 0), count: 1000 },
            ];
            run(root, 1000, &steps);
        }
    }
}

#[test]
fn more_tables_than_the_cache_holds() {
    // 1200 tables of 16 KiB each are more than twice what a disk keeps in memory.
    let memory = Memory::new();
    let tables = 1200;
    let path = make(&memory, "a.vmdk", &CreateOptions::new(Kind::VmfsSparse, tables * 4096 * 512));
    let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
    let mut model = Model::default();
    // Forth and back, so that tables come again after they were dropped.
    for table in (0..tables).chain((0..tables).rev()) {
        let sector = table * 4096 + table % 4096;
        disk.write_at(sector, &model.write(sector, 2)).unwrap();
    }
    for sector in model.written() {
        check(&mut disk, &model, sector, 1);
    }
    disk.close().unwrap();
    let mut disk = Disk::open_with(&memory, &path, Mode::Read).unwrap();
    for sector in model.written() {
        check(&mut disk, &model, sector, 1);
    }
}

#[test]
fn a_disk_of_the_largest_size() {
    let memory = Memory::new();
    let last = hypervisor::vmdk::MAX_CAPACITY - 1;
    for kind in [Kind::MonolithicSparse, Kind::TwoGbMaxExtentSparse, Kind::MonolithicFlat] {
        let path = make(&memory, "big.vmdk", &CreateOptions::new(kind, (last + 1) * 512));
        let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
        let mut model = Model::default();
        disk.write_at(last, &model.write(last, 1)).unwrap();
        disk.write_at(0, &model.write(0, 1)).unwrap();
        disk.close().unwrap();
        let mut disk = Disk::open_with(&memory, &path, Mode::Read).unwrap();
        check(&mut disk, &model, last - 300, 301);
        check(&mut disk, &model, 0, 300);
        assert!(disk.read_at(last, &mut [0; 1024]).is_err());
    }
}
