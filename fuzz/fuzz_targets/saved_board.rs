//! The whole board, with disk and CD drive: put into a state that was saved and then changed at any places,
//! and used by a guest that reads and writes any port in any width. It never panics and takes no memory
//! that nobody accounts for; an unchanged state comes back as it was.
#![no_main]

use std::fs::File;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use fuzz::Input;
use hypervisor::vmdk::memory::Memory;
use hypervisor::vmdk::{Disk, Mode};
use libfuzzer_sys::fuzz_target;
use vmx::board::{Board, Facts, Lines, Saved};
use vmx::chips::ata::Unit;
use vmx::chips::cmos::BootDevice;
use vmx::medium::Medium;

struct NoLines;

impl Lines for NoLines {
    fn set(&self, irq: u32, _: bool) {
        assert!(irq < 16);
    }
}

/// The first port of each chip, and how many ports from there on.
const PORTS: [(u16, u16); 14] = [
    (0x1f0, 8),
    (0x1f0, 8),
    (0x170, 8),
    (0x3f6, 1),
    (0x376, 1),
    (0x60, 5),
    (0x70, 2),
    (0x92, 1),
    (0x1ce, 2),
    (0x3b0, 48),
    (0x3f8, 8),
    (0x402, 1),
    (0x510, 2),
    (0x5ff, 14),
];

const SECTORS: u64 = 64;
const CD_BLOCKS: u32 = 8;

fn cd() -> &'static File {
    static CD: OnceLock<File> = OnceLock::new();
    CD.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("fuzz-cd-{}", std::process::id()));
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(&path).expect("a CD image");
        std::fs::remove_file(path).expect("it needs no name");
        file.set_len(u64::from(CD_BLOCKS) * 2048).expect("a CD image");
        file
    })
}

fn board() -> Board {
    let memory = Memory::new();
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
         RW {SECTORS} FLAT \"a-flat.vmdk\" 0\nddb.adapterType = \"ide\"\n"
    );
    memory.put("/m/a.vmdk", descriptor.as_bytes());
    memory.put("/m/a-flat.vmdk", &vec![0; SECTORS as usize * 512]);
    let disk = Disk::open_with(&memory, Path::new("/m/a.vmdk"), Mode::Write).expect("a disk");
    let facts = Facts {
        memory: 64 << 20,
        cpus: 2,
        uuid: [1; 16],
        boot: vec![BootDevice::HardDisk, BootDevice::Cd],
        vga_bios: vec![0x55, 0xaa],
        floppy: None,
    };
    let mut board = Board::new(facts, Box::new(NoLines), Arc::new(|_| {}), Arc::new(|| {}));
    board.add_serial(0, None);
    let units =
        [Some(Unit::disk(SECTORS, (1, 2, 32), "1".into())), Some(Unit::cd(Some(CD_BLOCKS), "2".into()))];
    let image = cd().try_clone().expect("the CD image again");
    board.set_channel(0, units, [Some(Medium::Disk(disk)), Some(Medium::Cd(image))]);
    board.set_channel(1, [Some(Unit::cd(None, "3".into())), None], [None, None]);
    board
}

/// A board after power on, saved.
fn fresh() -> &'static Vec<u8> {
    static FRESH: OnceLock<Vec<u8>> = OnceLock::new();
    FRESH.get_or_init(|| postcard::to_stdvec(&board().save()).expect("a board can be saved"))
}

/// As a guest would: a few accesses, each of one, two or four bytes, or of many by a string instruction.
fn poke(board: &mut Board, input: &mut Input<'_>, most: usize) {
    for _ in 0..most {
        if input.is_empty() {
            return;
        }
        let (operation, place) = (input.byte(), u16::from(input.byte()));
        let (first, count) = PORTS[usize::from(operation & 0x0f) % PORTS.len()];
        let port = first + place % count;
        let width = [1, 1, 2, 4, 4, 512, 2048, 4096][usize::from(operation >> 4 & 7)];
        let stop = if operation & 0x80 != 0 {
            board.read(port, &mut vec![0; width])
        } else {
            let value = input.byte();
            board.write(port, &vec![value; width])
        };
        if stop.is_some() && place & 1 != 0 {
            // What the driver does when somebody has answered the question about a disk.
            let _ = board.give_up(usize::from(place & 2 != 0));
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let mut bytes = match usize::from(input.byte() % 32) {
        0..16 => fresh().clone(),
        accesses => {
            let mut board = board();
            poke(&mut board, &mut input, accesses - 15);
            postcard::to_stdvec(&board.save()).expect("a board can be saved")
        }
    };
    assert!(bytes.len() < 512 << 10, "{} bytes", bytes.len());
    let changes = input.byte() % 16;
    for _ in 0..changes {
        let (place, value) = (usize::from(input.word()) % bytes.len(), input.byte());
        // Numbers are stored in seven bits a byte: 0x80 makes one longer, up to the largest.
        if value & 0x0f == 0x0f {
            let rest = bytes.split_off(place);
            bytes.extend_from_slice(&[0xff; 9][..usize::from(value >> 4).min(9)]);
            bytes.extend(rest);
        } else {
            bytes[place] ^= value;
        }
    }
    let Ok(changed) = postcard::from_bytes::<Saved>(&bytes) else {
        return;
    };
    let mut other = self::board();
    let restored = other.restore(changed);
    if changes == 0 {
        restored.expect("a saved board can be restored");
        let again = postcard::to_stdvec(&other.save()).expect("a board can be saved");
        // Only its clock goes on, which comes last.
        let same = again.iter().zip(&bytes).take_while(|(now, then)| now == then).count();
        assert!(same + 16 > bytes.len(), "it is as it was but for byte {same} of {}", bytes.len());
    }
    let _ =
        (other.vga().text_mode(), other.vga().colours(), other.send(0, b"input"), other.press(&[0x1e, 0x9e]));
    poke(&mut other, &mut input, 200);
    other.reset();
    poke(&mut other, &mut input, 10);
});
