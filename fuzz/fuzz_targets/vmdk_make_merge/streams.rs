//! Compressed disks, as they travel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use fuzz::Input;
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{Disk, Mode};

use crate::model::{Model, SECTOR, told};
use crate::stream_parts::{header, marker, pad};

/// A disk of compressed grains, some of them damaged.
pub(crate) fn stream(mut input: Input<'_>) {
    let grain = 16_u64 << (input.byte() % 8).saturating_sub(4);
    let capacity = 1 + u64::from(input.word()) % (grain * 700);
    let mut model = Model::new(capacity);
    let mut grains = BTreeSet::new();
    for _ in 0..input.byte() % 6 {
        let at = u64::from(input.word()) % capacity.div_ceil(grain);
        grains.insert(at);
        let sector = at * grain;
        model.write(sector, (1 + u64::from(input.byte()) % grain).min(capacity - sector));
    }
    let footer = input.byte() & 1 == 0;
    let mut file = header(capacity, grain, u64::MAX);
    let text = format!(
        "# Disk DescriptorFile\nversion=1\nCID=0badcafe\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\
         RW {capacity} SPARSE \"s.vmdk\"\n\nddb.adapterType = \"ide\"\n"
    );
    file.extend(text.as_bytes());
    file.resize(128 * SECTOR, 0);
    let (mut directory, mut packed) = (Vec::new(), BTreeMap::new());
    for table in 0..capacity.div_ceil(512 * grain) {
        let mut entries = vec![0_u32; 512];
        for &at in grains.iter().filter(|&&at| at / 512 == table) {
            entries[(at % 512) as usize] = (file.len() / SECTOR) as u32;
            let from = file.len();
            let sectors = at * grain..(at * grain + grain).min(capacity);
            let mut plain = Vec::new();
            for sector in sectors {
                plain.extend_from_slice(&model.tag(sector).to_le_bytes().repeat(SECTOR / 8));
            }
            let data = miniz_oxide::deflate::compress_to_vec_zlib(&plain, 1);
            file.extend((at * grain).to_le_bytes());
            file.extend((data.len() as u32).to_le_bytes());
            file.extend(data);
            packed.insert(at, from..file.len());
            pad(&mut file);
        }
        marker(&mut file, 1, 4);
        directory.push((file.len() / SECTOR) as u32);
        file.extend(entries.into_iter().flat_map(u32::to_le_bytes));
    }
    marker(&mut file, 2, 1);
    let at = file.len() as u64 / SECTOR as u64;
    file.extend(directory.into_iter().flat_map(u32::to_le_bytes));
    pad(&mut file);
    if footer {
        marker(&mut file, 3, 1);
        file.extend(header(capacity, grain, at));
        marker(&mut file, 0, 0);
    } else {
        let header = header(capacity, grain, at);
        file[..SECTOR].copy_from_slice(&header);
    }
    // Damage in some grains leaves the others as they are. Whether it is noticed cannot be seen here: built
    // for fuzzing, the library does not look at checksums (`hypervisor/tests/stream.rs` does).
    let damage = input.byte();
    let (mut damaged, mut anywhere) = (BTreeSet::new(), false);
    for _ in 0..damage % 4 {
        let (choice, at, flip) = (input.byte(), usize::from(input.word()), input.byte());
        match packed.iter().nth(usize::from(choice) % (packed.len() + 1)) {
            Some((&number, range)) => {
                damaged.insert(number);
                file[range.start + at % range.len()] ^= flip;
            }
            None if damage & 0x80 != 0 => {
                anywhere = true;
                let length = file.len();
                file[at * 37 % length] ^= flip;
            }
            None => {}
        }
    }
    let memory = Memory::new();
    let path = Path::new("/m/s.vmdk");
    memory.put(path, &file);
    let error = Disk::open_with(&memory, path, Mode::Write).expect_err("a stream cannot be written");
    told(&error);
    let mut disk = match Disk::open_with(&memory, path, Mode::Read) {
        Ok(disk) => disk,
        Err(error) => {
            assert!(anywhere, "{error}");
            told(&error);
            return;
        }
    };
    if anywhere {
        let _ = (disk.info(), disk.read_at(0, &mut [0; SECTOR]));
        return;
    }
    assert!(disk.info().layers[0].extents[0].compressed);
    let mut places: Vec<u64> = grains.iter().flat_map(|at| [at * grain, at * grain + grain - 1]).collect();
    places.extend([0, capacity - 1]);
    for sector in places.into_iter().filter(|&sector| sector < capacity) {
        if !damaged.contains(&(sector / grain)) {
            model.check(&mut disk, sector, 1);
        } else if let Err(error) = disk.read_at(sector, &mut [0; SECTOR]) {
            told(&error);
        }
    }
}
