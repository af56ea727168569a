//! The commands of a CD drive: what an answer to a packet is, without moving a byte.
//!
//! Sources: SFF-8020i, MMC-3. A data disc with one track.

use serde::{Deserialize, Serialize};

/// Bytes of a packet.
pub const PACKET: usize = 12;

/// Most blocks that are read from the medium at once.
pub const BLOCKS_AT_ONCE: u32 = 32;

/// What REQUEST SENSE says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sense {
    /// Sense key.
    pub key: u8,
    /// Additional sense code.
    pub code: u8,
}

impl Sense {
    /// There is no medium.
    pub const NO_MEDIUM: Sense = Sense { key: 2, code: 0x3a };
    /// Another medium.
    pub const MEDIUM_CHANGED: Sense = Sense { key: 6, code: 0x28 };
    /// A block cannot be read.
    pub const UNREADABLE: Sense = Sense { key: 3, code: 0x11 };
    const BAD_COMMAND: Sense = Sense { key: 5, code: 0x20 };
    const BAD_ADDRESS: Sense = Sense { key: 5, code: 0x21 };
    const BAD_FIELD: Sense = Sense { key: 5, code: 0x24 };
}

/// What the drive does about a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// Nothing to transfer.
    Nothing,
    /// An error; the sense is set.
    Failed,
    /// These bytes.
    Data(Vec<u8>),
    /// Blocks of the medium, at least one.
    Read {
        /// First block.
        block: u32,
        /// How many.
        count: u32,
    },
}

/// Carries out a packet; `blocks` is the size of the medium.
pub fn command(packet: &[u8], blocks: Option<u32>, sense: &mut Sense) -> Reply {
    let Some(packet) = packet.first_chunk::<PACKET>() else {
        return refuse(sense, Sense::BAD_FIELD);
    };
    let [op, flags, a, b, c, d, e, f, g, h, ..] = *packet;
    let allocation = usize::from(u16::from_be_bytes([f, g]));
    // Commands that tell of the drive, not of the medium.
    match op {
        0x03 => {
            let Sense { key, code } = std::mem::take(sense);
            let mut bytes = vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, code, 0, 0, 0, 0, 0];
            bytes.truncate(usize::from(c));
            return data(bytes);
        }
        0x12 => {
            let mut bytes = vec![0x05, 0x80, 0x00, 0x21, 31, 0, 0, 0];
            bytes.extend_from_slice(b"VMSRVD  virtual CDROM   1.0 ");
            bytes.truncate(usize::from(c));
            return data(bytes);
        }
        0x46 => {
            let profile: u16 = if blocks.is_some() { 0x0008 } else { 0 };
            let mut bytes = vec![0, 0, 0, 12, 0, 0];
            bytes.extend_from_slice(&profile.to_be_bytes());
            bytes.extend_from_slice(&[0, 0, 0x03, 4, 0x00, 0x08, u8::from(blocks.is_some()), 0]);
            bytes.truncate(allocation);
            return data(bytes);
        }
        0x4a => {
            if flags & 1 == 0 {
                return refuse(sense, Sense::BAD_FIELD);
            }
            let present = if blocks.is_some() { 2 } else { 0 };
            let mut bytes = vec![0, 6, 4, 0x10, 0, present, 0, 0];
            bytes.truncate(allocation);
            return data(bytes);
        }
        0x5a => return mode_sense(a & 0x3f, allocation, blocks.is_some(), sense),
        0x1b | 0x1e => return Reply::Nothing,
        _ => {}
    }
    // A changed medium is told once, by the first command that needs one.
    if *sense == Sense::MEDIUM_CHANGED && blocks.is_some() {
        return Reply::Failed;
    }
    let Some(blocks) = blocks else {
        let known = matches!(op, 0x00 | 0x25 | 0x28 | 0x2b | 0x43 | 0x51 | 0xa8);
        return refuse(sense, if known { Sense::NO_MEDIUM } else { Sense::BAD_COMMAND });
    };
    let address = u32::from_be_bytes([a, b, c, d]);
    match op {
        0x00 | 0x2b => Reply::Nothing,
        0x25 => {
            let mut bytes = blocks.saturating_sub(1).to_be_bytes().to_vec();
            bytes.extend_from_slice(&2048u32.to_be_bytes());
            data(bytes)
        }
        0x28 => read(address, u32::from(u16::from_be_bytes([f, g])), blocks, sense),
        0xa8 => read(address, u32::from_be_bytes([e, f, g, h]), blocks, sense),
        0x43 => contents(flags & 2 != 0, a & 0x0f | h >> 6, allocation, blocks, sense),
        0x51 => {
            let mut bytes = vec![0, 32, 0x0e, 1, 1, 1, 1, 0x20];
            bytes.resize(34, 0);
            bytes.truncate(allocation);
            data(bytes)
        }
        _ => refuse(sense, Sense::BAD_COMMAND),
    }
}

fn data(bytes: Vec<u8>) -> Reply {
    if bytes.is_empty() { Reply::Nothing } else { Reply::Data(bytes) }
}

fn refuse(sense: &mut Sense, why: Sense) -> Reply {
    *sense = why;
    Reply::Failed
}

fn read(block: u32, count: u32, blocks: u32, sense: &mut Sense) -> Reply {
    match block.checked_add(count) {
        Some(end) if end <= blocks => {
            if count == 0 {
                Reply::Nothing
            } else {
                Reply::Read { block, count }
            }
        }
        _ => refuse(sense, Sense::BAD_ADDRESS),
    }
}

/// MODE SENSE: the page of capabilities, or none.
fn mode_sense(page: u8, allocation: usize, medium: bool, sense: &mut Sense) -> Reply {
    let mut bytes = vec![0, 0, if medium { 0x01 } else { 0x70 }, 0, 0, 0, 0, 0];
    match page {
        0x2a | 0x3f => {
            bytes.extend_from_slice(&[0x2a, 18, 0, 0, 0x01, 0, 0x29, 0, 0x02, 0xc2, 0, 2, 0, 0, 0x02, 0xc2]);
            bytes.extend_from_slice(&[0; 4]);
        }
        0x01 => bytes.extend_from_slice(&[0x01, 6, 0, 5, 0, 0, 0, 0]),
        _ => return refuse(sense, Sense::BAD_FIELD),
    }
    let length = u8::try_from(bytes.len() - 2).unwrap_or(0);
    if let Some(byte) = bytes.get_mut(1) {
        *byte = length;
    }
    bytes.truncate(allocation);
    data(bytes)
}

/// READ TOC: one data track, and where it ends.
fn contents(minutes: bool, format: u8, allocation: usize, blocks: u32, sense: &mut Sense) -> Reply {
    let place = |block: u32| {
        if minutes {
            let frames = block.saturating_add(150);
            [0, (frames / 4500).min(255) as u8, (frames / 75 % 60) as u8, (frames % 75) as u8]
        } else {
            block.to_be_bytes()
        }
    };
    let mut bytes = match format & 3 {
        0 => {
            let mut bytes = vec![0, 18, 1, 1, 0, 0x14, 1, 0];
            bytes.extend_from_slice(&place(0));
            bytes.extend_from_slice(&[0, 0x14, 0xaa, 0]);
            bytes.extend_from_slice(&place(blocks));
            bytes
        }
        1 => {
            let mut bytes = vec![0, 10, 1, 1, 0, 0x14, 1, 0];
            bytes.extend_from_slice(&place(0));
            bytes
        }
        _ => return refuse(sense, Sense::BAD_FIELD),
    };
    bytes.truncate(allocation);
    data(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(op: u8, rest: &[u8], blocks: Option<u32>, sense: &mut Sense) -> Reply {
        let mut packet = vec![op];
        packet.extend_from_slice(rest);
        packet.resize(PACKET, 0);
        command(&packet, blocks, sense)
    }

    #[test]
    fn a_changed_medium_is_told_once() {
        let mut sense = Sense::MEDIUM_CHANGED;
        assert_eq!(ask(0, &[], Some(9), &mut sense), Reply::Failed);
        let Reply::Data(bytes) = ask(3, &[0, 0, 0, 18], Some(9), &mut sense) else { panic!() };
        assert_eq!((bytes[2], bytes[12]), (6, 0x28));
        assert_eq!(ask(0, &[], Some(9), &mut sense), Reply::Nothing);
        assert_eq!(ask(0, &[], None, &mut sense), Reply::Failed);
        assert_eq!(sense, Sense::NO_MEDIUM);
    }

    #[test]
    fn size_and_reading() {
        let mut sense = Sense::default();
        assert_eq!(ask(0x25, &[], Some(2481), &mut sense), Reply::Data(vec![0, 0, 9, 0xb0, 0, 0, 8, 0]));
        let read = |rest: &[u8], sense: &mut Sense| ask(0x28, rest, Some(20), sense);
        assert_eq!(read(&[0, 0, 0, 0, 18, 0, 0, 2], &mut sense), Reply::Read { block: 18, count: 2 });
        assert_eq!(read(&[0, 0, 0, 0, 18, 0, 0, 3], &mut sense), Reply::Failed);
        assert_eq!(sense, Sense::BAD_ADDRESS);
        let long = [0, 0, 0, 0, 1, 0, 0, 0, 19];
        assert_eq!(ask(0xa8, &long, Some(20), &mut sense), Reply::Read { block: 1, count: 19 });
        let Reply::Data(toc) = ask(0x43, &[2, 0, 0, 0, 0, 0, 0, 64], Some(300), &mut sense) else { panic!() };
        assert_eq!(&toc[16..20], [0, 0, 6, 0]);
    }

    proptest! {
        #[test]
        fn any_packet(packet: Vec<u8>, blocks: Option<u32>) {
            let mut sense = Sense::default();
            if let Reply::Read { block, count } = command(&packet, blocks, &mut sense) {
                prop_assert!(count > 0 && u64::from(block) + u64::from(count) <= u64::from(blocks.unwrap()));
            }
        }
    }
}
