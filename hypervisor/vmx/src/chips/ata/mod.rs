//! One IDE channel with up to two units, by programmed I/O.
//!
//! The channel has no disks: it turns the guest's commands into [`Request`]s and is told their
//! results. While a request is out, it is busy.
//!
//! ```text
//!            command              finish              all bytes moved
//!   Idle ───────────────▶ Wait ───────────▶ In ─────────────────────────▶ Wait or Idle
//!     └── write command ────────────────────▶ Out ──▶ Wait ──▶ Out or Idle
//! ```
//!
//! `identify.rs` has the answers to IDENTIFY, `packet.rs` the commands of CD drives.
//!
//! Sources: ATA/ATAPI-6 (T13/1410D).

mod identify;
mod packet;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use super::atapi::{self, Sense};
use identify::identify_disk;

const BSY: u8 = 0x80;
const DRDY: u8 = 0x40;
const DSC: u8 = 0x10;
const DRQ: u8 = 0x08;
const ERR: u8 = 0x01;

const ABORTED: u8 = 0x04;
const NOT_FOUND: u8 = 0x10;
const UNCORRECTABLE: u8 = 0x40;

/// Most sectors of one block of READ MULTIPLE.
const MULTIPLE: u8 = 16;

/// What is at a unit of the channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    /// A disk.
    Disk {
        /// Size in sectors of 512 bytes.
        sectors: u64,
        /// Cylinders, heads, sectors as the BIOS sees them.
        geometry: (u16, u8, u8),
        /// Geometry that the guest chose: heads, sectors.
        chosen: (u8, u8),
        /// Sectors of a block of READ MULTIPLE; 0 before the guest has chosen.
        multiple: u8,
        /// Its serial number.
        serial: String,
    },
    /// A CD drive.
    Cd {
        /// Size of the medium in blocks of 2048 bytes; None without one.
        blocks: Option<u32>,
        /// What REQUEST SENSE will say.
        sense: Sense,
        /// Its serial number.
        serial: String,
    },
}

impl Unit {
    /// A disk.
    #[must_use]
    pub fn disk(sectors: u64, geometry: (u16, u8, u8), serial: String) -> Self {
        let (_, heads, track) = geometry;
        Unit::Disk { sectors, geometry, chosen: (heads, track), multiple: 0, serial }
    }

    /// A CD drive.
    #[must_use]
    pub fn cd(blocks: Option<u32>, serial: String) -> Self {
        Unit::Cd { blocks, sense: Sense::default(), serial }
    }
}

/// What the channel wants done with a medium.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Read so many sectors of a disk.
    Read {
        /// 0 or 1.
        unit: usize,
        /// First sector.
        sector: u64,
        /// How many, 1 to 256.
        count: u16,
    },
    /// Write these bytes to a disk: [`Ata::outgoing`].
    Write {
        /// 0 or 1.
        unit: usize,
        /// First sector.
        sector: u64,
    },
    /// Make everything written durable.
    Flush {
        /// 0 or 1.
        unit: usize,
    },
    /// Read blocks of 2048 bytes from a CD.
    ReadCd {
        /// 0 or 1.
        unit: usize,
        /// First block.
        block: u32,
        /// How many, 1 to 32.
        count: u16,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Idle,
    Wait,
    In,
    Out,
    /// The twelve bytes of a packet.
    Packet,
}

/// Sectors that are still to be moved by the command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Rest {
    sector: u64,
    count: u32,
    /// Sectors between two interrupts.
    block: u32,
}

/// The channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ata {
    units: [Option<Unit>; 2],
    feature: u8,
    /// Sector count, LBA low, mid, high: last written, and the one before (48-bit commands).
    task: [[u8; 2]; 4],
    device: u8,
    control: u8,
    status: u8,
    error: u8,
    phase: Phase,
    buffer: Vec<u8>,
    position: usize,
    rest: Rest,
    request: Option<Request>,
    /// Data of a packet command that do not fit one block.
    packet_rest: Vec<u8>,
    interrupt: bool,
}

const COUNT: usize = 0;
const LOW: usize = 1;
const MID: usize = 2;
const HIGH: usize = 3;

impl Ata {
    /// A channel with these units.
    #[must_use]
    pub fn new(units: [Option<Unit>; 2]) -> Self {
        let mut ata = Ata {
            units,
            feature: 0,
            task: [[0; 2]; 4],
            device: 0,
            control: 0,
            status: 0,
            error: 0,
            phase: Phase::Idle,
            buffer: Vec::new(),
            position: 0,
            rest: Rest::default(),
            request: None,
            packet_rest: Vec::new(),
            interrupt: false,
        };
        ata.reset();
        ata
    }

    /// What is plugged in.
    #[must_use]
    pub fn units(&self) -> &[Option<Unit>; 2] {
        &self.units
    }

    /// Another medium is in the CD drive `unit`, or none.
    pub fn set_medium(&mut self, unit: usize, medium: Option<u32>) {
        if let Some(Some(Unit::Cd { blocks, sense, .. })) = self.units.get_mut(unit) {
            *blocks = medium;
            *sense = if medium.is_some() { Sense::MEDIUM_CHANGED } else { Sense::NO_MEDIUM };
        }
    }

    /// Power on, or a reset by the guest.
    pub fn reset(&mut self) {
        self.phase = Phase::Idle;
        self.request = None;
        self.buffer.clear();
        self.packet_rest.clear();
        self.rest = Rest::default();
        self.position = 0;
        self.interrupt = false;
        self.device = 0;
        self.signature();
        self.error = 1;
        self.status = DRDY | DSC;
    }

    /// The registers by which a guest tells disks from CD drives.
    fn signature(&mut self) {
        let (mid, high) = match self.unit() {
            Some(Unit::Cd { .. }) => (0x14, 0xeb),
            Some(Unit::Disk { .. }) => (0, 0),
            None => (0x7f, 0x7f),
        };
        self.task = [[1, 0], [1, 0], [mid, 0], [high, 0]];
    }

    fn selected(&self) -> usize {
        usize::from(self.device >> 4 & 1)
    }

    fn unit(&self) -> Option<&Unit> {
        self.units.get(self.selected()).and_then(Option::as_ref)
    }

    fn task(&self, register: usize) -> u8 {
        self.task.get(register).map_or(0, |[now, _]| *now)
    }

    fn previous(&self, register: usize) -> u8 {
        self.task.get(register).map_or(0, |[_, before]| *before)
    }

    fn set_task(&mut self, register: usize, value: u8) {
        if let Some([now, before]) = self.task.get_mut(register) {
            *before = *now;
            *now = value;
        }
    }

    /// What the channel waits for. It stays until [`Ata::finish`].
    #[must_use]
    pub fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// The bytes that a [`Request::Write`] writes.
    #[must_use]
    pub fn outgoing(&self) -> &[u8] {
        &self.buffer
    }

    /// Level of the interrupt line.
    #[must_use]
    pub fn irq(&self) -> bool {
        self.interrupt && self.control & 2 == 0
    }

    /// Reads register `offset` (1 to 7) of the command block; offset 0, the data, is [`Ata::read_data`].
    pub fn read(&mut self, offset: u16) -> u8 {
        if offset == 7 {
            self.interrupt = false;
        }
        if self.unit().is_none() {
            // Nobody pulls the lines; a status of 0 says that there is no drive.
            return if offset == 6 { self.device | 0xa0 } else { 0 };
        }
        let shown = |task: [u8; 2]| if self.control & 0x80 != 0 { task[1] } else { task[0] };
        match offset {
            1 => self.error,
            2..=5 => self.task.get(usize::from(offset) - 2).copied().map_or(0, shown),
            6 => self.device | 0xa0,
            7 => self.status,
            _ => 0xff,
        }
    }

    /// Reads the alternate status: as the status, without acknowledging the interrupt.
    #[must_use]
    pub fn read_alternate(&self) -> u8 {
        if self.unit().is_none() { 0 } else { self.status }
    }

    /// Writes the device control register.
    pub fn write_control(&mut self, value: u8) {
        let before = std::mem::replace(&mut self.control, value);
        if value & 4 != 0 && before & 4 == 0 {
            self.reset();
            self.status |= BSY;
        } else if value & 4 == 0 && before & 4 != 0 {
            self.status &= !BSY;
        }
    }

    /// Writes register `offset` (1 to 7) of the command block.
    pub fn write(&mut self, offset: u16, value: u8) {
        self.control &= !0x80;
        match offset {
            // While a command moves data, the registers are its own: another unit would be asked for the rest.
            1..=6 if self.status & (BSY | DRQ) != 0 => {}
            6 => {
                let before = self.selected();
                self.device = value;
                // The other unit answers for itself: it is at rest.
                if self.selected() != before && self.phase == Phase::Idle {
                    self.status = DRDY | DSC;
                    self.error = 0;
                }
            }
            _ if self.status & BSY != 0 => {}
            1 => self.feature = value,
            2..=5 => self.set_task(usize::from(offset) - 2, value),
            7 => self.command(value),
            _ => {}
        }
    }

    /// Fills `out` from the data register; bytes that are not there are 0xff.
    pub fn read_data(&mut self, out: &mut [u8]) {
        out.fill(0xff);
        if self.phase != Phase::In {
            return;
        }
        let left = self.buffer.get(self.position..).unwrap_or_default();
        let count = left.len().min(out.len());
        for (to, from) in out.iter_mut().zip(left) {
            *to = *from;
        }
        self.position += count;
        if self.position >= self.buffer.len() {
            self.block_read();
        }
    }

    /// Takes bytes written to the data register.
    pub fn write_data(&mut self, data: &[u8]) {
        let wanted = match self.phase {
            Phase::Out => self.position,
            Phase::Packet => atapi::PACKET,
            _ => return,
        };
        let room = wanted.saturating_sub(self.buffer.len());
        self.buffer.extend(data.iter().take(room));
        if self.buffer.len() < wanted {
            return;
        }
        match self.phase {
            Phase::Packet => self.packet(),
            _ => {
                let unit = self.selected();
                self.wait(Request::Write { unit, sector: self.rest.sector });
            }
        }
    }

    fn wait(&mut self, request: Request) {
        self.request = Some(request);
        self.phase = Phase::Wait;
        self.status = BSY | DRDY | DSC;
    }

    fn done(&mut self) {
        self.phase = Phase::Idle;
        self.status = DRDY | DSC;
        self.error = 0;
        self.interrupt = true;
    }

    fn fail(&mut self, error: u8) {
        self.phase = Phase::Idle;
        self.request = None;
        self.status = DRDY | DSC | ERR;
        self.error = error;
        self.interrupt = true;
    }

    fn offer(&mut self, bytes: Vec<u8>) {
        self.buffer = bytes;
        self.position = 0;
        self.phase = Phase::In;
        self.status = DRDY | DSC | DRQ;
        self.error = 0;
        self.interrupt = true;
    }

    /// The guest has read the whole buffer.
    fn block_read(&mut self) {
        self.buffer.clear();
        self.position = 0;
        if matches!(self.unit(), Some(Unit::Cd { .. })) {
            self.packet_next();
        } else if self.rest.count > 0 {
            self.read_next();
        } else {
            self.phase = Phase::Idle;
            self.status = DRDY | DSC;
        }
    }

    fn read_next(&mut self) {
        let count = self.rest.count.min(self.rest.block.max(1));
        let unit = self.selected();
        let sector = self.rest.sector;
        self.wait(Request::Read { unit, sector, count: u16::try_from(count).unwrap_or(1) });
    }

    fn write_next(&mut self) {
        let count = self.rest.count.min(self.rest.block.max(1));
        self.buffer.clear();
        self.position = usize::try_from(count).unwrap_or(1) * 512;
        self.phase = Phase::Out;
        self.status = DRDY | DSC | DRQ;
        self.error = 0;
    }

    /// The result of the request: the bytes read (empty for others), or that it failed.
    pub fn finish(&mut self, result: Result<Vec<u8>, ()>) {
        let Some(request) = self.request.take() else {
            return;
        };
        match (request, result) {
            (Request::ReadCd { .. }, Ok(bytes)) => {
                self.packet_rest = bytes;
                self.packet_next();
            }
            (Request::ReadCd { unit, .. }, Err(())) => {
                self.set_sense(unit, Sense::UNREADABLE);
                self.packet_failed();
            }
            (Request::Read { count, .. }, Ok(bytes)) => {
                self.advance(u32::from(count));
                self.offer(bytes);
            }
            (Request::Write { .. }, Ok(_)) => {
                let written = u32::try_from(self.buffer.len() / 512).unwrap_or(0);
                self.advance(written);
                if self.rest.count > 0 {
                    self.write_next();
                    self.interrupt = true;
                } else {
                    self.buffer.clear();
                    self.done();
                }
            }
            (Request::Flush { .. }, Ok(_)) => self.done(),
            (Request::Flush { .. } | Request::Write { .. }, Err(())) => self.fail(ABORTED),
            (Request::Read { .. }, Err(())) => self.fail(UNCORRECTABLE),
        }
    }

    fn advance(&mut self, count: u32) {
        self.rest.sector = self.rest.sector.saturating_add(u64::from(count));
        self.rest.count = self.rest.count.saturating_sub(count);
    }

    fn command(&mut self, command: u8) {
        self.interrupt = false;
        // What an earlier command had still to do is forgotten.
        self.rest = Rest::default();
        self.packet_rest.clear();
        if matches!(self.phase, Phase::In | Phase::Out | Phase::Packet) {
            self.phase = Phase::Idle;
            self.buffer.clear();
        }
        if command == 0x90 {
            // Diagnostic: for both units, answered by the first.
            self.device &= !0x10;
            self.signature();
            self.done();
            self.error = 1;
            return;
        }
        let unit = self.selected();
        match self.unit() {
            None => {}
            Some(Unit::Disk { .. }) => self.disk_command(command),
            Some(Unit::Cd { .. }) => self.cd_command(command, unit),
        }
    }

    fn disk_command(&mut self, command: u8) {
        let unit = self.selected();
        let Some(Some(Unit::Disk { sectors, geometry, chosen, multiple, serial })) = self.units.get(unit)
        else {
            return;
        };
        let (sectors, chosen, multiple) = (*sectors, *chosen, *multiple);
        match command {
            0xec => {
                let identity = identify_disk(sectors, *geometry, chosen, multiple, serial);
                self.rest = Rest::default();
                self.offer(identity);
            }
            0x20 | 0x21 => self.transfer(false, false, 1),
            0x24 => self.transfer(false, true, 1),
            0x30 | 0x31 | 0x3c => self.transfer(true, false, 1),
            0x34 => self.transfer(true, true, 1),
            0xc4 | 0xc5 | 0x29 | 0x39 if multiple == 0 => self.fail(ABORTED),
            0xc4 => self.transfer(false, false, multiple),
            0x29 => self.transfer(false, true, multiple),
            0xc5 => self.transfer(true, false, multiple),
            0x39 => self.transfer(true, true, multiple),
            0x40..=0x42 => match self.address(command == 0x42) {
                Some(_) => self.done(),
                None => self.fail(NOT_FOUND),
            },
            0xe7 | 0xea => self.wait(Request::Flush { unit }),
            0x91 => {
                let (heads, track) = ((self.device & 0x0f) + 1, self.task(COUNT));
                if let Some(Some(Unit::Disk { chosen, .. })) = self.units.get_mut(unit) {
                    *chosen = (heads, track.max(1));
                }
                self.done();
            }
            0xc6 => {
                let count = self.task(COUNT);
                if count > MULTIPLE || !(count == 0 || count.is_power_of_two()) {
                    return self.fail(ABORTED);
                }
                if let Some(Some(Unit::Disk { multiple, .. })) = self.units.get_mut(unit) {
                    *multiple = count;
                }
                self.done();
            }
            // Transfer modes other than PIO are refused; the write cache may be switched.
            0xef => match (self.feature, self.task(COUNT) >> 3) {
                (0x03, 0 | 1) | (0x02 | 0x82 | 0xaa | 0x55 | 0x66 | 0xcc, _) => self.done(),
                _ => self.fail(ABORTED),
            },
            0x10..=0x1f | 0x70..=0x7f | 0xe0..=0xe3 | 0xe6 => self.done(),
            0xe5 => {
                self.set_task(COUNT, 0xff);
                self.done();
            }
            _ => self.fail(ABORTED),
        }
    }

    /// First sector and number of sectors of the command, if the disk has them.
    fn address(&self, extended: bool) -> Option<(u64, u32)> {
        let Some(Unit::Disk { sectors, chosen: (heads, track), .. }) = self.unit() else {
            return None;
        };
        let [low, mid, high] = [LOW, MID, HIGH].map(|register| u64::from(self.task(register)));
        let (sector, count) = if extended {
            let [low2, mid2, high2] = [LOW, MID, HIGH].map(|register| u64::from(self.previous(register)));
            let count = u32::from(self.previous(COUNT)) << 8 | u32::from(self.task(COUNT));
            let sector = low | mid << 8 | high << 16 | low2 << 24 | mid2 << 32 | high2 << 40;
            (sector, if count == 0 { 65_536 } else { count })
        } else {
            let head = u64::from(self.device & 0x0f);
            let sector = if self.device & 0x40 != 0 {
                low | mid << 8 | high << 16 | head << 24
            } else {
                let cylinder = mid | high << 8;
                let (heads, track) = (u64::from(*heads), u64::from(*track));
                if low == 0 || low > track || head >= heads {
                    return None;
                }
                (cylinder * heads + head) * track + low - 1
            };
            let count = u32::from(self.task(COUNT));
            (sector, if count == 0 { 256 } else { count })
        };
        (sector.checked_add(u64::from(count))? <= *sectors).then_some((sector, count))
    }

    fn transfer(&mut self, write: bool, extended: bool, block: u8) {
        let Some((sector, count)) = self.address(extended) else {
            return self.fail(NOT_FOUND);
        };
        self.rest = Rest { sector, count, block: u32::from(block) };
        if write { self.write_next() } else { self.read_next() }
    }
}
