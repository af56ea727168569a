//! Merging a chain into one of its disks: the same contents, whatever kinds, and whenever it is cut short.

mod common;

use std::path::{Path, PathBuf};

use common::{Model, assert_same, child_of, make};
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{self, CreateOptions, Disk, Error, Kind, Merge, Mode};
use proptest::prelude::*;

/// Two grain tables, and an odd last grain.
const CAPACITY: u64 = 70_001;

const SPARSE: [Kind; 3] = [Kind::MonolithicSparse, Kind::TwoGbMaxExtentSparse, Kind::VmfsSparse];

fn read(memory: &Memory, path: &Path) -> Vec<u8> {
    let mut disk = Disk::open_with(memory, path, Mode::Read).unwrap();
    let mut bytes = vec![0; CAPACITY as usize * 512];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

/// Writes, and remembers.
fn write(memory: &Memory, path: &Path, model: &mut Model, places: &[(u64, u64)]) {
    let mut disk = Disk::open_with(memory, path, Mode::Write).unwrap();
    for &(sector, count) in places {
        let count = count.min(CAPACITY - sector);
        disk.write_at(sector, &model.write(sector, count)).unwrap();
    }
    disk.close().unwrap();
}

/// A chain of these kinds, the root first, each written to.
fn chain(kinds: &[Kind], places: &[Vec<(u64, u64)>]) -> (Memory, Vec<PathBuf>, Model) {
    let memory = Memory::new();
    let mut model = Model::default();
    let mut paths: Vec<PathBuf> = Vec::new();
    for (number, (kind, places)) in kinds.iter().zip(places).enumerate() {
        let options = match number {
            0 => CreateOptions::new(*kind, CAPACITY * 512),
            _ => child_of(&format!("d{}.vmdk", number - 1), *kind),
        };
        let path = make(&memory, &format!("d{number}.vmdk"), &options);
        write(&memory, &path, &mut model, places);
        paths.push(path);
    }
    (memory, paths, model)
}

fn places() -> impl Strategy<Value = Vec<(u64, u64)>> {
    let sector = prop_oneof![0..600_u64, 65_400..65_600_u64, CAPACITY - 200..CAPACITY];
    prop::collection::vec((sector, prop_oneof![1..5_u64, 1..300_u64]), 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_chain_into_any_of_its_disks(
        root in prop::sample::select(Kind::ALL.to_vec()),
        children in prop::collection::vec(prop::sample::select(SPARSE.to_vec()), 1..4),
        places in prop::collection::vec(places(), 4),
        into in 0..4_usize,
        stop in 0..40_u64,
        keep: u64,
    ) {
        let mut kinds = vec![root];
        kinds.extend(children);
        let (memory, paths, model) = chain(&kinds, &places);
        let expected = model.read(0, CAPACITY);
        let (top, target) = (paths.last().unwrap(), &paths[into % (paths.len() - 1)]);
        // Once cut short, and the power cut: nothing has changed for who reads through the top.
        let mut merge = Merge::open_with(&memory, top, target).unwrap();
        let mut steps = 0;
        let done = merge.run(&mut |_, _| { steps += 1; steps <= stop }).unwrap();
        prop_assert_eq!(done, stop >= 35);
        std::mem::forget(merge);
        let mut bits = keep;
        memory.power_cut(|| { bits = bits.rotate_left(1); bits & 1 == 1 });
        assert_same(&read(&memory, top), &expected, "through the top, cut short");
        // Once more, to its end.
        let mut merge = Merge::open_with(&memory, top, target).unwrap();
        prop_assert!(merge.run(&mut |_, _| true).unwrap());
        memory.power_cut(|| false);
        assert_same(&read(&memory, top), &expected, "through the top, merged");
        assert_same(&read(&memory, target), &expected, "the target, merged");
        merge.seal().unwrap();
        assert_same(&read(&memory, target), &expected, "the target, sealed");
        let stale = Disk::open_with(&memory, top, Mode::Read);
        let stale = matches!(stale, Err(Error::ParentChanged { .. }));
        prop_assert!(stale, "the old child does not fit any more");
    }
}

#[test]
fn who_reads_through_the_top_meanwhile_notices_nothing() {
    let mut places =
        vec![vec![(0, 600), (65_000, 700)], vec![(100, 300), (65_500, 5)], vec![(0, 3), (69_000, 900)]];
    let kinds = [Kind::MonolithicSparse; 3];
    let (memory, paths, mut model) = chain(&kinds, &places);
    // The guest's writes go to a child that was made for the time of the merge.
    let current = make(&memory, "current.vmdk", &child_of("d2.vmdk", Kind::MonolithicSparse));
    let mut guest = Disk::open_with(&memory, &current, Mode::Write).unwrap();
    let mut merge = Merge::open_with(&memory, &paths[2], &paths[0]).unwrap();
    assert!(merge.is_unnoticed());
    let mut buf = vec![0; CAPACITY as usize * 512];
    let mut step = 0;
    let mut check = |model: &mut Model, guest: &mut Disk| {
        step += 1;
        guest.write_at(step * 1000, &model.write(step * 1000, 7)).unwrap();
        guest.read_at(0, &mut buf).unwrap();
        assert_same(&buf, &model.read(0, CAPACITY), "during the merge");
    };
    assert!(
        merge
            .run(&mut |_, _| {
                check(&mut model, &mut guest);
                true
            })
            .unwrap()
    );
    drop(merge);
    guest.close().unwrap();
    // The rest, with the guest standing still.
    let mut merge = Merge::open_with(&memory, &current, &paths[0]).unwrap();
    assert!(merge.run(&mut |_, _| true).unwrap());
    merge.seal().unwrap();
    assert_same(&read(&memory, &paths[0]), &model.read(0, CAPACITY), "the target");
    // Grains of different sizes: the tables of the target would change under the reader.
    places.truncate(2);
    let (memory, paths, _) = chain(&[Kind::MonolithicSparse, Kind::VmfsSparse], &places);
    assert!(!Merge::open_with(&memory, &paths[1], &paths[0]).unwrap().is_unnoticed());
    let (memory, paths, _) = chain(&[Kind::MonolithicFlat, Kind::VmfsSparse], &places);
    assert!(Merge::open_with(&memory, &paths[1], &paths[0]).unwrap().is_unnoticed());
}

#[test]
fn what_cannot_be_merged_is_refused() {
    let places = vec![vec![(0, 10)], vec![(5, 10)]];
    let (memory, paths, _) = chain(&[Kind::MonolithicSparse; 2], &places);
    let other = make(&memory, "other.vmdk", &CreateOptions::new(Kind::MonolithicSparse, CAPACITY * 512));
    let before = memory.get(&paths[0]);
    for (top, target) in [(&paths[1], &other), (&paths[1], &paths[1]), (&paths[0], &paths[1])] {
        let error = Merge::open_with(&memory, top, target).unwrap_err().to_string();
        assert!(error.contains("is no parent of it"), "{error}");
    }
    assert_eq!(memory.get(&paths[0]), before);
}

#[test]
fn a_parent_in_use_is_locked_until_it_is_lent() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let [root, child, current] = ["a.vmdk", "b.vmdk", "c.vmdk"].map(path);
    vmdk::create(&root, &CreateOptions::new(Kind::MonolithicSparse, 1 << 20)).unwrap();
    vmdk::create(&child, &child_of("a.vmdk", Kind::MonolithicSparse)).unwrap();
    vmdk::create(&current, &child_of("b.vmdk", Kind::MonolithicSparse)).unwrap();
    let guest = Disk::open(&current, Mode::Write).unwrap();
    assert!(matches!(Merge::open(&child, &root), Err(Error::Busy { .. })));
    assert!(guest.lend(&root).unwrap());
    assert!(!guest.lend(&current).unwrap(), "the disk itself is not lent");
    let mut merge = Merge::open(&child, &root).unwrap();
    assert!(matches!(guest.take_back(&root), Err(Error::Busy { .. })), "the merge has it");
    assert!(matches!(Disk::open(&root, Mode::Write), Err(Error::Busy { .. })));
    assert!(merge.run(&mut |_, _| true).unwrap());
    drop(merge);
    guest.take_back(&root).unwrap();
    assert!(matches!(Disk::open(&root, Mode::Write), Err(Error::Busy { .. })));
}
