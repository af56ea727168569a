//! The commands of CD drives, and how the data of packets are handed over.

use super::identify::identify_cd;
use super::{ABORTED, Ata, COUNT, DRDY, DRQ, DSC, HIGH, MID, Phase, Request, Rest, Unit};
use crate::chips::atapi::{self, Reply, Sense};

impl Ata {
    pub(super) fn cd_command(&mut self, command: u8, unit: usize) {
        match command {
            0xa1 => {
                let Some(Some(Unit::Cd { serial, .. })) = self.units.get(unit) else { return };
                let identity = identify_cd(serial);
                self.packet_rest.clear();
                self.offer(identity);
            }
            // IDENTIFY and READ tell that this is no disk.
            0xec | 0x20 => {
                self.signature();
                self.fail(ABORTED);
            }
            0xa0 => {
                self.buffer.clear();
                self.phase = Phase::Packet;
                self.set_task(COUNT, 1);
                self.status = DRDY | DSC | DRQ;
                self.error = 0;
            }
            0x08 => {
                self.signature();
                self.phase = Phase::Idle;
                self.status = 0;
                self.error = 1;
            }
            0xef | 0xe0..=0xe3 | 0xe6 => self.done(),
            0xe5 => {
                self.set_task(COUNT, 0xff);
                self.done();
            }
            _ => self.fail(ABORTED),
        }
    }

    pub(super) fn set_sense(&mut self, unit: usize, new: Sense) {
        if let Some(Some(Unit::Cd { sense, .. })) = self.units.get_mut(unit) {
            *sense = new;
        }
    }

    /// The twelve bytes of a packet are there.
    pub(super) fn packet(&mut self) {
        let unit = self.selected();
        let packet = std::mem::take(&mut self.buffer);
        let Some(Some(Unit::Cd { blocks, sense, .. })) = self.units.get_mut(unit) else {
            return self.fail(ABORTED);
        };
        match atapi::command(&packet, *blocks, sense) {
            Reply::Nothing => self.packet_done(),
            Reply::Failed => self.packet_failed(),
            Reply::Data(bytes) => {
                self.packet_rest = bytes;
                self.packet_next();
            }
            Reply::Read { block, count } => self.read_cd(block, count),
        }
    }

    fn read_cd(&mut self, block: u32, count: u32) {
        let unit = self.selected();
        let now = count.min(atapi::BLOCKS_AT_ONCE);
        self.rest = Rest { sector: u64::from(block) + u64::from(now), count: count - now, block: 1 };
        self.wait(Request::ReadCd { unit, block, count: u16::try_from(now).unwrap_or(1) });
    }

    /// Offers the next part of the data of a packet command.
    pub(super) fn packet_next(&mut self) {
        if self.packet_rest.is_empty() {
            return match (u32::try_from(self.rest.sector), self.rest.count) {
                (Ok(block), 1..) => self.read_cd(block, self.rest.count),
                _ => self.packet_done(),
            };
        }
        // The guest says how much it takes at once; 0 and odd numbers mean the most.
        let limit = usize::from(self.task(MID)) | usize::from(self.task(HIGH)) << 8;
        let limit = if limit == 0 || limit == 0xffff { 0xfffe } else { limit };
        let limit = if limit < self.packet_rest.len() { (limit & !1).max(2) } else { limit };
        let later = self.packet_rest.split_off(limit.min(self.packet_rest.len()));
        let now = std::mem::replace(&mut self.packet_rest, later);
        let [low, high, ..] = now.len().to_le_bytes();
        self.set_task(MID, low);
        self.set_task(HIGH, high);
        self.set_task(COUNT, 2);
        self.offer(now);
    }

    fn packet_done(&mut self) {
        self.rest = Rest::default();
        self.set_task(COUNT, 3);
        self.done();
    }

    pub(super) fn packet_failed(&mut self) {
        self.rest = Rest::default();
        self.packet_rest.clear();
        let key = match self.unit() {
            Some(Unit::Cd { sense, .. }) => sense.key,
            _ => 0,
        };
        self.set_task(COUNT, 3);
        self.fail(key << 4 | ABORTED);
    }
}
