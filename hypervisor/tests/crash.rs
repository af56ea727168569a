//! Power cuts at random moments, keeping a random part of what was not flushed: the disk opens, every
//! sector holds something that was once written to it, and nothing flushed is lost.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{Model, child_of, make, tag_of};
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{CreateOptions, Disk, Kind, Mode};
use proptest::prelude::*;

/// Sectors of the disks: two grain tables of KDMV, and an odd last grain.
const CAPACITY: u64 = 70_001;

#[derive(Debug, Clone)]
enum Step {
    Write {
        sector: u64,
        count: u64,
    },
    Flush,
    /// Cuts the power; the bits say what survives, over and over.
    Cut {
        keep: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    // Few places, so that grains are written again and shared by several writes.
    let sector = prop_oneof![0..600_u64, 65_400..65_600_u64, CAPACITY - 200..CAPACITY];
    prop_oneof![
        8 => (sector, prop_oneof![1..5_u64, 1..200_u64])
            .prop_map(|(sector, count)| Step::Write { sector, count: count.min(CAPACITY - sector) }),
        2 => Just(Step::Flush),
        1 => any::<u64>().prop_map(|keep| Step::Cut { keep }),
    ]
}

/// What each sector may hold after a cut.
#[derive(Default)]
struct Allowed(BTreeMap<u64, BTreeSet<u64>>);

impl Allowed {
    fn flushed(&mut self, model: &Model) {
        self.0.clear();
        for sector in model.written() {
            self.0.insert(sector, BTreeSet::from([model.tag(sector)]));
        }
    }

    fn written(&mut self, model: &Model, sector: u64, count: u64) {
        for number in sector..sector + count {
            self.0.entry(number).or_insert_with(|| BTreeSet::from([0])).insert(model.tag(number));
        }
    }

    /// Reads the whole disk, compares, and makes what was found the truth.
    fn check(&mut self, disk: &mut Disk, model: &mut Model) {
        let mut buf = vec![0; CAPACITY as usize * 512];
        disk.read_at(0, &mut buf).unwrap();
        for (sector, bytes) in (0..).zip(buf.chunks(512)) {
            let tag = tag_of(bytes).unwrap_or_else(|| panic!("sector {sector} is torn"));
            let allowed = self.0.get(&sector).map_or(tag == 0, |allowed| allowed.contains(&tag));
            assert!(allowed, "sector {sector} holds {tag}, allowed {:?}", self.0.get(&sector));
            if tag != 0 || model.tag(sector) != 0 {
                model.set(sector, tag);
            }
        }
    }
}

fn run(kind: Kind, parent: bool, steps: &[Step]) {
    let memory = Memory::new();
    let mut model = Model::default();
    let mut allowed = Allowed::default();
    let root = CreateOptions::new(Kind::MonolithicSparse, CAPACITY * 512);
    let path = if parent {
        let path = make(&memory, "root.vmdk", &root);
        let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
        // Something below everything, so that a grain that loses its data is noticed.
        disk.write_at(0, &model.write(0, 700)).unwrap();
        disk.write_at(CAPACITY - 300, &model.write(CAPACITY - 300, 300)).unwrap();
        disk.close().unwrap();
        make(&memory, "disk.vmdk", &child_of("root.vmdk", kind))
    } else {
        make(&memory, "disk.vmdk", &CreateOptions::new(kind, CAPACITY * 512))
    };
    allowed.flushed(&model);
    let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
    for step in steps {
        match *step {
            Step::Write { sector, count } => {
                let data = model.write(sector, count);
                allowed.written(&model, sector, count);
                disk.write_at(sector, &data).unwrap();
            }
            Step::Flush => {
                disk.flush().unwrap();
                allowed.flushed(&model);
            }
            Step::Cut { keep } => {
                let mut bits = keep;
                memory.power_cut(|| {
                    bits = bits.rotate_left(1);
                    bits & 1 == 1
                });
                // What the old process would still write is gone with it.
                std::mem::forget(disk);
                disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
                allowed.check(&mut disk, &mut model);
                allowed.flushed(&model);
            }
        }
    }
    // Only a writer takes the flag of an unclean shutdown away.
    disk.write_at(0, &model.write(0, 1)).unwrap();
    disk.close().unwrap();
    allowed.flushed(&model);
    let mut disk = Disk::open_with(&memory, &path, Mode::Read).unwrap();
    assert!(disk.info().layers[0].extents.iter().all(|extent| !extent.unclean));
    allowed.check(&mut disk, &mut model);
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![Just(Kind::MonolithicSparse), Just(Kind::TwoGbMaxExtentSparse), Just(Kind::VmfsSparse)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_leaves_no_garbage_and_loses_nothing_flushed(
        kind in kind(), parent in any::<bool>(), steps in prop::collection::vec(step(), 1..30)
    ) {
        run(kind, parent, &steps);
    }
}

#[test]
fn the_unclean_flag_is_set_while_written_and_only_then() {
    let memory = Memory::new();
    for kind in [Kind::MonolithicSparse, Kind::VmfsSparse] {
        let path = make(&memory, "a.vmdk", &CreateOptions::new(kind, 1 << 20));
        let unclean = || {
            let disk = Disk::open_with(&memory, &path, Mode::Read).unwrap();
            disk.info().layers[0].extents[0].unclean
        };
        let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
        assert!(!unclean());
        disk.write_at(0, &[1; 512]).unwrap();
        assert!(unclean());
        disk.flush().unwrap();
        assert!(unclean(), "still open");
        disk.close().unwrap();
        assert!(!unclean());
    }
}

#[test]
fn a_flush_is_also_for_what_a_process_that_died_has_written() {
    for kind in Kind::ALL {
        let memory = Memory::new();
        let path = make(&memory, "a.vmdk", &CreateOptions::new(kind, 1 << 20));
        let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
        disk.write_at(7, &[1; 512]).unwrap();
        disk.flush().unwrap();
        disk.write_at(7, &[2; 512]).unwrap();
        // Killed: what it has written is in the file, and not on the disk.
        std::mem::forget(disk);
        let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
        let mut sector = [0; 512];
        disk.read_at(7, &mut sector).unwrap();
        assert_eq!(sector, [2; 512], "{kind:?}");
        disk.flush().unwrap();
        memory.power_cut(|| false);
        std::mem::forget(disk);
        let mut disk = Disk::open_with(&memory, &path, Mode::Read).unwrap();
        disk.read_at(7, &mut sector).unwrap();
        assert_eq!(sector, [2; 512], "{kind:?}");
    }
}

#[test]
fn redundant_tables_are_made_alike_after_a_crash() {
    let memory = Memory::new();
    let path = make(&memory, "a.vmdk", &CreateOptions::new(Kind::MonolithicSparse, 100 << 20));
    let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
    disk.write_at(0, &[1; 512]).unwrap();
    disk.write_at(65_536, &[2; 512]).unwrap();
    disk.close().unwrap();
    // Tables at sectors 22 and 26, redundant; 39 and 43. Damage one entry in either, flag it.
    let mut bytes = memory.get(&path);
    assert_eq!(bytes[22 * 512..38 * 512], bytes[39 * 512..55 * 512]);
    let whole = bytes.clone();
    bytes[72] = 1;
    bytes[22 * 512..22 * 512 + 4].fill(0); // the redundant entry was not written any more
    bytes[43 * 512..43 * 512 + 4].fill(0xee); // the entry itself is garbage
    memory.put(&path, &bytes);
    let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
    let mut sector = [0; 512];
    disk.read_at(65_536, &mut sector).unwrap();
    assert_eq!(sector, [2; 512]);
    disk.write_at(3, &[3; 512]).unwrap();
    disk.close().unwrap();
    let repaired = memory.get(&path);
    assert_eq!(repaired[22 * 512..38 * 512], repaired[39 * 512..55 * 512]);
    assert_eq!(repaired[39 * 512..55 * 512], whole[39 * 512..55 * 512]);
    assert_eq!(repaired[72], 0);
}

#[test]
fn after_a_failed_flush_nothing_is_written_any_more() {
    let memory = Memory::new();
    let path = make(&memory, "a.vmdk", &CreateOptions::new(Kind::MonolithicSparse, 1 << 20));
    let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
    disk.write_at(0, &[1; 512]).unwrap();
    disk.flush().unwrap();
    disk.write_at(1, &[2; 512]).unwrap();
    memory.set_broken(&path, true);
    assert!(disk.flush().is_err());
    memory.set_broken(&path, false);
    for result in [disk.flush(), disk.write_at(2, &[3; 512])] {
        assert!(result.unwrap_err().to_string().contains("an earlier flush failed"));
    }
    drop(disk);
    let mut disk = Disk::open_with(&memory, &path, Mode::Read).unwrap();
    let mut sector = [0; 512];
    disk.read_at(0, &mut sector).unwrap();
    assert_eq!(sector, [1; 512]);
}

#[test]
fn a_failed_write_can_be_repeated() {
    let memory = Memory::new();
    let path = make(&memory, "a.vmdk", &CreateOptions::new(Kind::MonolithicSparse, 1 << 20));
    let mut disk = Disk::open_with(&memory, &path, Mode::Write).unwrap();
    disk.write_at(0, &[1; 512]).unwrap();
    memory.set_broken(&path, true);
    assert!(disk.write_at(300, &[2; 512]).is_err());
    memory.set_broken(&path, false);
    disk.write_at(300, &[2; 512]).unwrap();
    disk.close().unwrap();
    let mut disk = Disk::open_with(&memory, &path, Mode::Read).unwrap();
    let mut sector = [0; 512];
    disk.read_at(300, &mut sector).unwrap();
    assert_eq!(sector, [2; 512]);
}
