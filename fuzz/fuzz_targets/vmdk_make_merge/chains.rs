//! Chains of disks in memory: written, cut off, merged.

use std::path::{Path, PathBuf};

use fuzz::Input;
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{
    Adapter, CreateOptions, Disk, DiskFileRole, Error, Geometry, Merge, Mode, files, plan,
};

use crate::model::{Model, SECTOR, adapter, capacity, kind, place, told};

/// A chain in memory: the root first.
struct Chain {
    memory: Memory,
    disks: Vec<PathBuf>,
    /// All files of each.
    files: Vec<Vec<PathBuf>>,
    model: Model,
    number: u32,
}

impl Chain {
    fn top(&self) -> &Path {
        self.disks.last().expect("a chain has a disk")
    }

    /// Puts another disk on top.
    fn make(&mut self, options: &CreateOptions) {
        self.number += 1;
        let name = format!("d{}.vmdk", self.number);
        let parent = self
            .disks
            .last()
            .map(|path| Disk::open_with(&self.memory, path, Mode::Read).expect("the parent can be opened"));
        let planned = plan(name.as_ref(), options, parent.as_ref()).expect("such a disk can be made");
        assert_eq!(planned.capacity, self.model.capacity);
        let directory = Path::new("/m");
        self.memory.put_disk(directory, &planned);
        self.files.push(planned.files.iter().map(|file| directory.join(&file.name)).collect());
        self.disks.push(directory.join(name));
        let listed = files(&self.memory, self.top()).expect("its files can be listed");
        let own: Vec<_> =
            listed.iter().filter(|file| file.depth == 0).map(|file| file.path.clone()).collect();
        assert_eq!(Some(&own), self.files.last());
        assert_eq!(listed.len(), self.files.iter().map(Vec::len).sum::<usize>());
        assert!(
            listed
                .iter()
                .all(|file| file.role == DiskFileRole::Descriptor || own.len() > 1 || file.depth > 0)
        );
    }

    fn open(&self, mode: Mode) -> Disk {
        Disk::open_with(&self.memory, self.top(), mode).expect("our own disk can be opened")
    }

    fn check(&self) {
        self.model.check_all(&mut self.open(Mode::Read));
    }

    /// Everything fails that changes a file of the top, or works again.
    fn set_broken(&self, broken: bool) {
        for path in self.files.iter().flatten() {
            self.memory.set_broken(path, broken);
        }
    }

    /// The process and the machine end at this moment.
    fn cut(&self, disk: Disk, input: &mut Input<'_>) {
        // A disk that is dropped would be closed; nothing reaches these files any more.
        self.set_broken(true);
        drop(disk);
        self.power_cut(input);
        self.set_broken(false);
    }

    fn power_cut(&self, input: &mut Input<'_>) {
        let mut bits = u64::from(input.word()) << 16 | u64::from(input.word());
        self.memory.power_cut(|| {
            bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(bits & 1);
            bits >> 40 & 1 == 1
        });
    }
}

pub(crate) fn in_memory(mut input: Input<'_>) {
    let capacity = capacity(&mut input);
    let root = kind(input.byte());
    let wanted = adapter(input.byte());
    let options = CreateOptions {
        adapter: wanted,
        ..CreateOptions::new(root, capacity * 512 - u64::from(input.byte()))
    };
    let (memory, model) = (Memory::new(), Model::new(capacity));
    let mut chain = Chain { memory, disks: Vec::new(), files: Vec::new(), model, number: 0 };
    chain.make(&options);
    let mut disk = chain.open(Mode::Write);
    let info = disk.info();
    let geometry = Geometry::of(wanted.unwrap_or(Adapter::Ide), capacity);
    assert_eq!((info.capacity, info.adapter), (capacity, Some(wanted.unwrap_or(Adapter::Ide))));
    // A disk of less than a cylinder has none to tell.
    assert_eq!(info.geometry, Some(geometry).filter(|geometry| geometry.cylinders > 0));
    assert_eq!(info.layers[0].create_type, root.name());
    assert_eq!(info.layers[0].extents.iter().map(|extent| extent.sectors).sum::<u64>(), capacity);
    let (mut steps, mut crashed) = (0, false);
    while !input.is_empty() && steps < 64 {
        steps += 1;
        match input.byte() % 16 {
            0..=4 => {
                let (sector, count) = place(&mut input, capacity);
                let data = chain.model.write(sector, count);
                disk.write_at(sector, &data).expect("it can be written");
            }
            5..=7 => {
                let (sector, count) = place(&mut input, capacity);
                chain.model.check(&mut disk, sector, count);
            }
            8 => {
                disk.flush().expect("it can be flushed");
                chain.model.flushed();
            }
            9 => {
                disk.close().expect("it can be closed");
                chain.model.flushed();
                disk = chain.open(Mode::Write);
                // After a crash until the extent is written to, which may be never.
                assert!(crashed || disk.info().layers[0].extents.iter().all(|extent| !extent.unclean));
            }
            10 | 11 => {
                let kind = kind(input.byte());
                if chain.disks.len() >= 5 || !kind.can_have_parent() {
                    continue;
                }
                disk.close().expect("it can be closed");
                chain.model.flushed();
                let parent = chain.top().file_name().map(PathBuf::from);
                let adapter = adapter(input.byte());
                chain.make(&CreateOptions { parent, adapter, ..CreateOptions::new(kind, 0) });
                disk = chain.open(Mode::Write);
                assert_eq!(disk.info().layers.len(), chain.disks.len());
                assert_eq!(disk.parents().len() + 1, chain.disks.len());
            }
            12 => {
                crashed = true;
                chain.cut(disk, &mut input);
                disk = chain.open(Mode::Write);
                chain.model.settle(&mut disk);
                chain.model.check_all(&mut disk);
            }
            13 => {
                crashed = true;
                disk = broken(&mut chain, disk, &mut input);
            }
            14 if chain.disks.len() > 1 => {
                disk.close().expect("it can be closed");
                chain.model.flushed();
                merged(&mut chain, &mut input);
                disk = chain.open(Mode::Write);
            }
            _ => refused(&mut disk, capacity),
        }
    }
    disk.close().expect("it can be closed");
    chain.check();
    stale(&chain);
}

/// What leaves the disk, or is no whole sector, is refused and changes nothing.
fn refused(disk: &mut Disk, capacity: u64) {
    for (sector, bytes) in [(capacity, 512), (capacity - 1, 1024), (u64::MAX, 512), (0, 511)] {
        let error = disk.read_at(sector, &mut vec![0; bytes]).expect_err("outside");
        told(&error);
        let error = disk.write_at(sector, &vec![1; bytes]).expect_err("outside");
        assert!(matches!(error, Error::OutOfRange { .. }));
        told(&error);
    }
    disk.write_at(0, &[]).expect("nothing can be written");
    let shown = format!("{disk:?}");
    assert!(shown.contains("d") && shown.contains("Write"));
}

/// Storage that fails: the write fails or does not, a flush fails; opened again, each sector holds one of the
/// things that were written.
fn broken(chain: &mut Chain, mut disk: Disk, input: &mut Input<'_>) -> Disk {
    chain.set_broken(true);
    let (sector, count) = place(input, chain.model.capacity);
    let data = chain.model.write(sector, count);
    let written = disk.write_at(sector, &data);
    let flushed = disk.flush();
    for error in [written.as_ref().err(), flushed.as_ref().err()].into_iter().flatten() {
        told(error);
    }
    assert!(written.is_err(), "nothing can be written");
    if flushed.is_err() {
        let error = disk.write_at(sector, &data).expect_err("after a failed flush");
        assert!(matches!(error, Error::FlushFailed { .. }));
        told(&error);
        assert!(disk.flush().is_err());
    }
    drop(disk);
    chain.set_broken(false);
    let mut disk = chain.open(Mode::Write);
    let unsure: Vec<u64> = chain.model.since.keys().copied().collect();
    chain.model.settle(&mut disk);
    chain.model.check_all(&mut disk);
    // What is there is not there for good: a flush is about what was written since the disk was opened.
    for sector in unsure {
        disk.write_at(sector, &chain.model.write(sector, 1)).expect("it can be written again");
    }
    disk.flush().expect("it can be flushed again");
    chain.model.flushed();
    disk
}

/// Merges the top into one of its parents, in as many attempts as it takes.
fn merged(chain: &mut Chain, input: &mut Input<'_>) {
    let choice = input.byte();
    let into = usize::from(choice) % (chain.disks.len() - 1);
    let (top, target) = (chain.top().to_owned(), chain.disks[into].clone());
    let mut merge = Merge::open_with(&chain.memory, &top, &target).expect("it can be merged");
    let _ = merge.is_unnoticed();
    assert!(format!("{merge:?}").contains("Merge"));
    let walk = chain.model.capacity.div_ceil(2048);
    let stop = u64::from(input.byte()) % (walk + 1);
    if choice & 0x80 != 0 {
        // Cut short, by whoever asked, by storage that fails, or by the power.
        let mut done = 0;
        let fails = choice & 0x40 != 0;
        let memory = &chain.memory;
        let ended = merge.run(&mut |sector, all| {
            assert!(sector < all && all == chain.model.capacity);
            done += 1;
            if fails && done > stop {
                chain.files[into].iter().for_each(|path| memory.set_broken(path, true));
            }
            fails || done <= stop
        });
        match ended {
            Ok(whole) => assert!(fails || whole == (stop >= walk)),
            Err(error) => {
                assert!(fails);
                told(&error);
            }
        }
        chain.set_broken(true);
        drop(merge);
        if choice & 0x20 != 0 {
            chain.power_cut(input);
        }
        chain.set_broken(false);
        chain.check();
        merge = Merge::open_with(&chain.memory, &top, &target).expect("it can be merged again");
    }
    assert!(merge.run(&mut |_, _| true).expect("it can be merged"));
    if choice & 0x10 != 0 {
        assert!(merge.run_top(&mut |_, _| true).expect("once more changes nothing"));
    }
    chain.power_cut(input);
    chain.check();
    merge.seal().expect("it can be sealed");
    let error = Disk::open_with(&chain.memory, &top, Mode::Read).expect_err("the old child does not fit");
    assert!(matches!(error, Error::ParentChanged { .. }));
    told(&error);
    chain.disks.truncate(into + 1);
    chain.files.truncate(into + 1);
    chain.check();
}

/// A parent that is written to makes its child stale.
fn stale(chain: &Chain) {
    let Some(parent) = chain.disks.len().checked_sub(2).and_then(|place| chain.disks.get(place)) else {
        let error = Merge::open_with(&chain.memory, chain.top(), chain.top()).expect_err("it has no parent");
        told(&error);
        return;
    };
    let mut disk = Disk::open_with(&chain.memory, parent, Mode::Write).expect("the parent is a disk");
    disk.write_at(0, &[7; SECTOR]).expect("it can be written");
    disk.close().expect("it can be closed");
    let error = Disk::open_with(&chain.memory, chain.top(), Mode::Write).expect_err("stale");
    assert!(matches!(error, Error::ParentChanged { .. }));
    told(&error);
    let error = Merge::open_with(&chain.memory, chain.top(), parent).expect_err("stale");
    told(&error);
}
