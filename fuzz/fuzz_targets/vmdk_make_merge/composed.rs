//! Disks whose descriptor was written by somebody else.

use std::path::Path;

use fuzz::Input;
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{
    Adapter, CreateOptions, Disk, DiskFileRole, Error, Geometry, Kind, Mode, files, plan,
};

use crate::model::{Model, SECTOR, place, tags, told};

/// One extent of a composed disk.
struct Piece {
    start: u64,
    sectors: u64,
    readable: bool,
    writable: bool,
}

/// A disk of extents of every kind and access side by side, with a descriptor written as others do.
pub(crate) fn composed(mut input: Input<'_>) {
    let memory = Memory::new();
    let style = input.byte();
    let end = if style & 1 != 0 { "\r\n" } else { "\n" };
    let word = |word: &str| if style & 2 != 0 { word.to_lowercase() } else { word.to_owned() };
    let cid = if style & 4 != 0 { "abc" } else { "00000abc" };
    let mark = if style & 8 != 0 { "\u{feff}" } else { "" };
    let mut text = format!("{mark}# Disk DescriptorFile{end}version = 1{end}{}={cid}{end}", word("CID"));
    text += &format!("  parentCID=ffffffff{end}encoding=\"UTF-8\"{end}createType=\"custom\"{end}{end}");
    let mut pieces: Vec<Piece> = Vec::new();
    let mut model = Model::new(0);
    for number in 0..1 + input.byte() % 5 {
        let (kind, more) = (input.byte(), input.byte());
        let sectors = 1 + u64::from(input.word()) % 700;
        let start = model.capacity;
        let access = ["RW", "RW", "RW", "RDONLY", "NOACCESS"][usize::from(more) % 5];
        let file = format!("e{number}.vmdk");
        let (written, offset) = (format!("{} {sectors}", word(access)), u64::from(more >> 4));
        let mut fixed = false;
        match kind % 5 {
            flat @ (0 | 1) => {
                let mut bytes = vec![0xaa; offset as usize * SECTOR];
                for sector in start..start + sectors {
                    model.last += 1;
                    model.now.insert(sector, model.last);
                    bytes.extend_from_slice(&model.last.to_le_bytes().repeat(SECTOR / 8));
                }
                memory.put(Path::new("/m").join(&file), &bytes);
                let kind = word(if flat == 0 { "FLAT" } else { "VMFS" });
                text += &format!("{written} {kind} \"{file}\" {offset}{end}");
            }
            2 => {
                fixed = true;
                text += &format!("{written}  {}{end}", word("ZERO"));
            }
            sparse => {
                let hosted = sparse == 3;
                let kind = if hosted { Kind::TwoGbMaxExtentSparse } else { Kind::VmfsSparse };
                // The extent may be larger than what the descriptor takes of it.
                let options = CreateOptions::new(kind, (sectors + offset * 100) * 512);
                let planned = plan(file.as_ref(), &options, None).expect("such a disk can be made");
                memory.put_disk(Path::new("/m"), &planned);
                let name = planned.files[1].name.display();
                let kind = word(if hosted { "SPARSE" } else { "VMFSSPARSE" });
                text += &format!("{written} {kind} \"{name}\"{end}");
            }
        }
        model.capacity += sectors;
        pieces.push(Piece {
            start,
            sectors,
            readable: access != "NOACCESS",
            writable: access == "RW" && !fixed,
        });
    }
    let adapter = Adapter::ALL[usize::from(style >> 4) % 4];
    text += &format!("{end}ddb.adapterType = \"{}\"{end}", word(adapter.name()));
    text += &format!(
        "ddb.geometry.cylinders = \"5\"{end}ddb.geometry.heads=16{end}ddb.geometry.sectors = \"63\"{end}"
    );
    let path = Path::new("/m/d.vmdk");
    memory.put(path, text.as_bytes());
    assert_eq!(files(&memory, path).expect("its files can be listed")[0].role, DiskFileRole::Descriptor);
    let mut disk = Disk::open_with(&memory, path, Mode::Write).expect("it can be opened");
    let info = disk.info();
    assert_eq!((info.capacity, info.adapter), (model.capacity, Some(adapter)));
    assert_eq!(info.geometry, Some(Geometry { cylinders: 5, heads: 16, sectors: 63 }));
    let mut steps = 0;
    while !input.is_empty() && steps < 48 {
        steps += 1;
        let operation = input.byte();
        let (sector, count) = place(&mut input, model.capacity);
        let touched: Vec<_> = pieces
            .iter()
            .filter(|piece| piece.start < sector + count && sector < piece.start + piece.sectors)
            .collect();
        let readable = touched.iter().all(|piece| piece.readable);
        if operation & 1 == 0 {
            match tags(&mut disk, sector, count) {
                Ok(found) => {
                    assert!(readable);
                    assert!(found.iter().zip(sector..).all(|(tag, sector)| *tag == model.tag(sector)));
                }
                Err(error) => {
                    assert!(!readable, "{error}");
                    told(&error);
                }
            }
            continue;
        }
        // What stands in front of the first extent that cannot be written may have been written.
        let until = touched.iter().find(|piece| !piece.writable).map(|piece| piece.start.max(sector));
        let data = model.write(sector, until.unwrap_or(sector + count) - sector);
        let rest = until.map_or(0, |until| sector + count - until) as usize * SECTOR;
        match disk.write_at(sector, &[data, vec![0xbb; rest]].concat()) {
            Ok(()) => assert_eq!(until, None),
            Err(error) => {
                assert!(until.is_some(), "{error}");
                assert!(matches!(error, Error::ReadOnly { .. }));
                told(&error);
            }
        }
    }
    disk.close().expect("it can be closed");
    let mut disk = Disk::open_with(&memory, path, Mode::Read).expect("it can be opened again");
    for piece in pieces.iter().filter(|piece| piece.readable) {
        model.check(&mut disk, piece.start, piece.sectors);
    }
    let error = disk.write_at(0, &[0; SECTOR]).expect_err("for reading");
    told(&error);
}
