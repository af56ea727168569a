//! An IDE channel with one or two small disks. Two kinds of guests take turns: one that writes any register
//! at any time, and a driver that follows the protocol. Whatever the first one does, the channel asks only
//! for sectors that exist, its buffer stays small and its status makes sense; and what the driver has
//! written is what it reads.
#![no_main]

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use vmx::chips::ata::{Ata, Request, Unit};

const BSY: u8 = 0x80;
const DRQ: u8 = 0x08;
const ERR: u8 = 0x01;
const SECTOR: usize = 512;

/// The channel and what is plugged into it.
struct Bench {
    chip: Ata,
    disks: [Vec<u8>; 2],
    /// The next so many requests fail.
    failing: u8,
    reset: bool,
}

impl Bench {
    fn sectors(&self, unit: usize) -> u64 {
        (self.disks[unit].len() / SECTOR) as u64
    }

    fn range(&self, unit: usize, sector: u64, bytes: usize) -> std::ops::Range<usize> {
        let count = (bytes / SECTOR) as u64;
        assert!(count > 0 && sector + count <= self.sectors(unit), "sectors {sector} + {count} of {unit}");
        let from = sector as usize * SECTOR;
        from..from + bytes
    }

    /// Does what the channel waits for, as the board would.
    fn serve(&mut self) {
        while let Some(request) = self.chip.request().cloned() {
            assert!(self.chip.read_alternate() & BSY != 0 || self.reset, "a request while not busy");
            let result = match request {
                Request::Read { unit, sector, count } => {
                    assert!((1..=256).contains(&count));
                    let range = self.range(unit, sector, usize::from(count) * SECTOR);
                    Ok(self.disks[unit][range].to_vec())
                }
                Request::Write { unit, sector } => {
                    let bytes = self.chip.outgoing();
                    assert!(bytes.len().is_multiple_of(SECTOR) && bytes.len() <= 16 * SECTOR);
                    let range = self.range(unit, sector, bytes.len());
                    if self.failing == 0 {
                        self.disks[unit][range].copy_from_slice(self.chip.outgoing());
                    }
                    Ok(Vec::new())
                }
                Request::Flush { unit } => {
                    assert!(unit < 2);
                    Ok(Vec::new())
                }
                Request::ReadCd { .. } => panic!("a disk is no CD drive"),
            };
            let fails = self.failing > 0;
            self.failing = self.failing.saturating_sub(1);
            self.chip.finish(if fails { Err(()) } else { result });
        }
        let status = self.chip.read_alternate();
        assert!(status & BSY == 0 || self.reset, "nothing is under way");
        assert!(status & (BSY | DRQ) != BSY | DRQ && status & (DRQ | ERR) != DRQ | ERR, "status {status:#x}");
        assert_eq!(self.chip.read(7), status);
        assert!(!self.chip.irq(), "reading the status acknowledges");
        assert!(self.chip.outgoing().len() <= 16 * SECTOR);
    }

    fn write(&mut self, register: u16, value: u8) {
        self.chip.write(register, value);
        self.serve();
    }

    fn control(&mut self, value: u8) {
        self.chip.write_control(value);
        self.reset = value & 4 != 0;
        self.serve();
    }

    /// A driver brings the channel into a known state.
    fn settle(&mut self, unit: usize) {
        self.control(0);
        self.control(4);
        self.control(0);
        self.failing = 0;
        self.write(6, 0xe0 | (unit as u8) << 4);
    }

    /// Puts an address into the registers.
    fn address(&mut self, unit: usize, sector: u64, count: u16, extended: bool) {
        let bytes = sector.to_le_bytes();
        let [low_count, high_count] = count.to_le_bytes();
        if extended {
            for (register, value) in [(2, high_count), (3, bytes[3]), (4, bytes[4]), (5, bytes[5])] {
                self.write(register, value);
            }
        }
        for (register, value) in [(2, low_count), (3, bytes[0]), (4, bytes[1]), (5, bytes[2])] {
            self.write(register, value);
        }
        let head = if extended { 0 } else { bytes[3] & 0x0f };
        self.write(6, 0xe0 | (unit as u8) << 4 | head);
    }
}

/// A driver writes and reads the same sectors; the multiple commands move blocks of `multiple`.
fn transfer(bench: &mut Bench, input: &mut Input<'_>) {
    let flags = input.byte();
    let unit = usize::from(flags & 1);
    if bench.disks[unit].is_empty() {
        return;
    }
    let extended = flags & 2 != 0;
    let multiple = (flags & 4 != 0).then_some(1u8 << (flags >> 3 & 7).min(4));
    let sector = u64::from(input.word()) % bench.sectors(unit);
    let count = 1 + u64::from(input.byte()) % (bench.sectors(unit) - sector).min(40);
    let (count, seed, width) = (count as u16, input.byte(), [1, 2, 4, 512][usize::from(flags >> 6)]);
    bench.settle(unit);
    if let Some(block) = multiple {
        bench.write(2, block);
        bench.write(7, 0xc6);
        assert_eq!(bench.chip.read(7) & ERR, 0, "a block of {block} is taken");
    }
    let block = usize::from(multiple.unwrap_or(1));
    let data: Vec<u8> = (0..usize::from(count) * SECTOR)
        .map(|place| (place as u8).wrapping_mul(seed | 1) ^ (place >> 8) as u8)
        .collect();
    bench.address(unit, sector, count, extended);
    bench.write(7, [0x30, 0x34, 0xc5, 0x39][usize::from(extended) + 2 * usize::from(multiple.is_some())]);
    for (number, bytes) in data.chunks(block * SECTOR).enumerate() {
        let status = bench.chip.read_alternate();
        assert_eq!(status & (BSY | DRQ | ERR), DRQ, "block {number} is asked for");
        for piece in bytes.chunks(width) {
            bench.chip.write_data(piece);
        }
        bench.serve();
    }
    assert_eq!(bench.chip.read_alternate() & (BSY | DRQ | ERR), 0, "all was written");
    let from = sector as usize * SECTOR;
    assert_eq!(bench.disks[unit][from..from + data.len()], data, "the disk has what was written");

    bench.address(unit, sector, count, extended);
    bench.write(7, [0x20, 0x24, 0xc4, 0x29][usize::from(extended) + 2 * usize::from(multiple.is_some())]);
    let mut back = vec![0; data.len()];
    for bytes in back.chunks_mut(block * SECTOR) {
        assert_eq!(bench.chip.read_alternate() & (BSY | DRQ | ERR), DRQ, "there is data");
        for piece in bytes.chunks_mut(width) {
            bench.chip.read_data(piece);
        }
        bench.serve();
    }
    assert_eq!(bench.chip.read_alternate() & (BSY | DRQ | ERR), 0, "all was read");
    assert_eq!(back, data, "what was written is read");
    bench.write(7, 0xe7);
    assert_eq!(bench.chip.read_alternate() & ERR, 0, "it is flushed");
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let sizes = [1 + usize::from(input.byte() & 0x3f), usize::from(input.byte() & 0x0f)];
    let disks = sizes.map(|sectors| vec![0x5a; sectors * SECTOR]);
    let geometry = (u16::from(input.byte()), input.byte(), input.byte());
    let units = sizes.map(|sectors| (sectors > 0).then(|| Unit::disk(sectors as u64, geometry, "1".into())));
    let mut bench = Bench { chip: Ata::new(units), disks, failing: 0, reset: false };
    while !input.is_empty() {
        let operation = input.byte();
        match operation & 7 {
            0 | 1 => bench.write(u16::from(operation >> 3 & 7).max(1), input.byte()),
            2 => drop(bench.chip.read(u16::from(operation >> 3 & 7).max(1))),
            3 => {
                let mut buffer = vec![0; 1 << (operation >> 3 & 15).min(13)];
                bench.chip.read_data(&mut buffer);
                bench.serve();
            }
            4 => {
                let buffer = vec![operation; 1 << (operation >> 3 & 15).min(13)];
                bench.chip.write_data(&buffer);
                bench.serve();
            }
            5 if operation & 8 != 0 => {
                let before = postcard::to_stdvec(&bench.chip).expect("it can be saved");
                assert!(before.len() < 17 * SECTOR + 512, "{} bytes", before.len());
                bench.chip = postcard::from_bytes(&before).expect("what was saved is read");
                assert_eq!(postcard::to_stdvec(&bench.chip).expect("it can be saved"), before);
            }
            5 => bench.control(input.byte()),
            6 => bench.failing = operation >> 6,
            _ => transfer(&mut bench, &mut input),
        }
    }
});
