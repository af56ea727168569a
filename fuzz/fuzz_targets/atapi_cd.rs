//! An IDE channel with a CD drive. Any packet at any time: the drive asks only for blocks that exist, a few
//! at once, and offers no more bytes than it announces; and a driver that reads blocks gets what is on the
//! medium, however few bytes it takes at a time.
#![no_main]

use std::ops::Range;

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use vmx::chips::ata::{Ata, Request, Unit};
use vmx::chips::atapi::BLOCKS_AT_ONCE;

const BSY: u8 = 0x80;
const DRQ: u8 = 0x08;
const ERR: u8 = 0x01;
const BLOCK: usize = 2048;
/// Where the drive is: the second unit, behind a disk that is never asked.
const CD: u8 = 0xb0;

struct Bench {
    chip: Ata,
    blocks: Option<u32>,
    failing: u8,
    reset: bool,
}

/// What is on the medium.
fn contents(blocks: Range<u32>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(blocks.len() * BLOCK);
    for block in blocks {
        let first = (block as u8).wrapping_mul(31);
        for page in 0..(BLOCK / 256) as u8 {
            let page: [u8; 256] = std::array::from_fn(|place| first ^ page ^ place as u8);
            bytes.extend_from_slice(&page);
        }
    }
    bytes
}

impl Bench {
    fn serve(&mut self) {
        while let Some(request) = self.chip.request().cloned() {
            let result = match request {
                Request::ReadCd { unit, block, count } => {
                    assert!(unit == 1 && (1..=BLOCKS_AT_ONCE).contains(&u32::from(count)));
                    let blocks = self.blocks.expect("a medium is there");
                    assert!(u64::from(block) + u64::from(count) <= u64::from(blocks));
                    Ok(contents(block..block + u32::from(count)))
                }
                Request::Read { unit: 0, sector, count } => {
                    assert!(sector + u64::from(count) <= 64);
                    Ok(vec![0; usize::from(count) * 512])
                }
                Request::Write { unit: 0, .. } | Request::Flush { unit: 0 } => Ok(Vec::new()),
                other => panic!("{other:?} of a CD drive"),
            };
            let fails = self.failing > 0;
            self.failing = self.failing.saturating_sub(1);
            self.chip.finish(if fails { Err(()) } else { result });
        }
        let status = self.chip.read_alternate();
        assert!(status & BSY == 0 || self.reset, "nothing is under way");
        assert!(status & (BSY | DRQ) != BSY | DRQ && status & (DRQ | ERR) != DRQ | ERR, "status {status:#x}");
        assert!(self.chip.outgoing().len() <= 65_536);
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

    /// Gives the drive a packet and takes what it answers, as a driver does; None when it fails.
    fn ask(&mut self, packet: &[u8; 12], limit: u16) -> Option<Vec<u8>> {
        let [low, high] = limit.to_le_bytes();
        for (register, value) in [(6, CD), (1, 0), (4, low), (5, high), (7, 0xa0)] {
            self.write(register, value);
        }
        assert_eq!(
            (self.chip.read_alternate() & (BSY | DRQ), self.chip.read(2)),
            (DRQ, 1),
            "it waits for a packet"
        );
        for piece in packet.chunks(2) {
            self.chip.write_data(piece);
        }
        self.serve();
        let mut answer = Vec::new();
        loop {
            let status = self.chip.read(7);
            if status & DRQ == 0 {
                assert_eq!(self.chip.read(2), 3, "the end of a command");
                return (status & ERR == 0).then_some(answer);
            }
            assert_eq!(self.chip.read(2), 2, "data for the guest");
            let count = usize::from(u16::from_le_bytes([self.chip.read(4), self.chip.read(5)]));
            assert!(
                count > 0 && (count <= usize::from(limit) || limit < 2),
                "{count} bytes of at most {limit}"
            );
            // Guests read words; a byte count that is odd ends with half of one.
            let mut words = vec![0; count.next_multiple_of(2)];
            for word in words.chunks_mut(2) {
                self.chip.read_data(word);
            }
            answer.extend_from_slice(&words[..count]);
            self.serve();
            assert!(answer.len() <= 64 * BLOCK, "it never ends");
        }
    }

    /// A driver resets, hears about a change of the medium, and reads.
    fn read(&mut self, input: &mut Input<'_>) {
        let (flags, limit) = (input.byte(), input.word());
        self.control(0);
        self.control(4);
        self.control(0);
        self.failing = 0;
        let limit = if flags & 1 != 0 { limit } else { limit % 4100 };
        self.ask(&[3, 0, 0, 0, 18, 0, 0, 0, 0, 0, 0, 0], 18).expect("REQUEST SENSE never fails");
        let Some(blocks) = self.blocks else {
            assert_eq!(self.ask(&[0; 12], limit), None, "there is no medium");
            return;
        };
        let first = u32::from(input.word()) % blocks;
        // Seldom more than the drive reads at once, and never much in tiny pieces.
        let most = if flags & 4 != 0 { 40 } else { 4 }.min(1 + u32::from(limit) / 64);
        let count = 1 + u32::from(input.byte()) % (blocks - first).min(most);
        let ([a, b, c, d], [_, _, g, h]) = (first.to_be_bytes(), count.to_be_bytes());
        let packet = match flags & 2 {
            0 => [0x28, 0, a, b, c, d, 0, g, h, 0, 0, 0],
            _ => [0xa8, 0, a, b, c, d, 0, 0, g, h, 0, 0],
        };
        let expected = contents(first..first + count);
        assert!(
            self.ask(&packet, limit) == Some(expected),
            "blocks {first} + {count}, {limit} bytes at once"
        );
    }
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let size = |input: &mut Input<'_>| (1 + u32::from(input.word())) << (input.byte() % 16);
    let blocks = match input.byte() % 4 {
        0 => None,
        _ => Some(size(&mut input)),
    };
    let units = [Some(Unit::disk(64, (1, 2, 32), "0".into())), Some(Unit::cd(blocks, "1".into()))];
    let mut bench = Bench { chip: Ata::new(units), blocks, failing: 0, reset: false };
    while !input.is_empty() {
        let operation = input.byte();
        match operation & 7 {
            0 => bench.write(u16::from(operation >> 3 & 7).max(1), input.byte()),
            1 => drop(bench.chip.read(u16::from(operation >> 3 & 7).max(1))),
            2 => {
                let mut buffer = vec![0; 1 << (operation >> 3 & 15)];
                bench.chip.read_data(&mut buffer);
                bench.serve();
            }
            3 => {
                // A packet with everything before it, left in whatever state it comes to.
                for (register, value) in [(6, CD), (4, input.byte()), (5, input.byte()), (7, 0xa0)] {
                    bench.write(register, value);
                }
                bench.chip.write_data(input.bytes(12));
                bench.serve();
            }
            4 => {
                // A medium is changed while nothing is under way, as the board does it.
                bench.control(0);
                bench.control(4);
                bench.control(0);
                bench.blocks = (operation & 8 != 0).then(|| size(&mut input));
                bench.chip.set_medium(1, bench.blocks);
            }
            5 if operation & 8 != 0 => {
                let before = postcard::to_stdvec(&bench.chip).expect("it can be saved");
                assert!(before.len() < (BLOCKS_AT_ONCE as usize + 1) * BLOCK, "{} bytes", before.len());
                bench.chip = postcard::from_bytes(&before).expect("what was saved is read");
                assert_eq!(postcard::to_stdvec(&bench.chip).expect("it can be saved"), before);
            }
            5 => bench.control(input.byte()),
            6 => bench.failing = operation >> 6,
            _ => bench.read(&mut input),
        }
    }
});
