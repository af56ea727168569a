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
//! Sources: ATA/ATAPI-6 (T13/1410D).

use serde::{Deserialize, Serialize};

use super::atapi::{self, Reply, Sense};

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

    fn cd_command(&mut self, command: u8, unit: usize) {
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

    fn set_sense(&mut self, unit: usize, new: Sense) {
        if let Some(Some(Unit::Cd { sense, .. })) = self.units.get_mut(unit) {
            *sense = new;
        }
    }

    /// The twelve bytes of a packet are there.
    fn packet(&mut self) {
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
    fn packet_next(&mut self) {
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

    fn packet_failed(&mut self) {
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

/// The 256 words of an answer to IDENTIFY.
struct Words([u16; 256]);

impl Words {
    fn set(&mut self, place: usize, value: u16) {
        if let Some(word) = self.0.get_mut(place) {
            *word = value;
        }
    }
    fn set32(&mut self, place: usize, value: u32) {
        let [a, b, c, d] = value.to_le_bytes();
        self.set(place, u16::from_le_bytes([a, b]));
        self.set(place + 1, u16::from_le_bytes([c, d]));
    }
    /// Text: two characters a word, the first one in the high byte, filled with spaces.
    fn text(&mut self, place: usize, words: usize, text: &str) {
        let mut characters = text.bytes().chain(std::iter::repeat(b' '));
        for word in place..place + words {
            let (Some(high), Some(low)) = (characters.next(), characters.next()) else { return };
            self.set(word, u16::from_be_bytes([high, low]));
        }
    }
    fn bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).collect()
    }
}

fn identify_disk(
    sectors: u64,
    (cylinders, heads, track): (u16, u8, u8),
    (chosen_heads, chosen_track): (u8, u8),
    multiple: u8,
    serial: &str,
) -> Vec<u8> {
    let mut words = Words([0; 256]);
    words.set(0, 0x0040);
    words.set(1, cylinders);
    words.set(3, u16::from(heads));
    words.set(6, u16::from(track));
    words.text(10, 10, serial);
    words.text(23, 4, "1.0");
    words.text(27, 20, "vmserverd virtual IDE disk");
    words.set(47, 0x8000 | u16::from(MULTIPLE));
    words.set(48, 1);
    words.set(49, 0x0200); // LBA, no DMA
    words.set(51, 0x0200);
    words.set(53, 0x0003);
    let per_cylinder = u64::from(chosen_heads) * u64::from(chosen_track);
    let chosen_cylinders = (sectors / per_cylinder.max(1)).min(16_383);
    words.set(54, u16::try_from(chosen_cylinders).unwrap_or(u16::MAX));
    words.set(55, u16::from(chosen_heads));
    words.set(56, u16::from(chosen_track));
    words.set32(57, u32::try_from(chosen_cylinders * per_cylinder).unwrap_or(u32::MAX));
    words.set(59, if multiple > 0 { 0x0100 | u16::from(multiple) } else { 0 });
    words.set32(60, u32::try_from(sectors).unwrap_or(u32::MAX).min(0x0fff_ffff));
    words.set(64, 0x0003); // PIO 3 and 4
    words.set(67, 120);
    words.set(68, 120);
    words.set(80, 0x007e); // ATA-1 to ATA-6
    words.set(82, 0x0020); // write cache
    words.set(83, 0x7400); // FLUSH, FLUSH EXT, 48 bits
    words.set(84, 0x4000);
    words.set(85, 0x0020);
    words.set(86, 0x3400);
    words.set(87, 0x4000);
    words.set32(100, u32::try_from(sectors & 0xffff_ffff).unwrap_or(u32::MAX));
    words.set32(102, u32::try_from(sectors >> 32).unwrap_or(0));
    words.bytes()
}

fn identify_cd(serial: &str) -> Vec<u8> {
    let mut words = Words([0; 256]);
    words.set(0, 0x8580); // ATAPI, CD, removable, 12-byte packets, DRQ within 50 us
    words.text(10, 10, serial);
    words.text(23, 4, "1.0");
    words.text(27, 20, "vmserverd virtual IDE CDROM");
    words.set(48, 1);
    words.set(49, 0x0200);
    words.set(51, 0x0200);
    words.set(53, 0x0002);
    words.set(64, 0x0003);
    words.set(80, 0x007e);
    words.set(82, 0x0010); // PACKET
    words.set(85, 0x0010);
    words.bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn channel() -> Ata {
        Ata::new([Some(Unit::disk(10_000, (9, 16, 63), "1".into())), Some(Unit::cd(Some(100), "2".into()))])
    }

    fn registers(ata: &mut Ata, device: u8, count: u8, lba: u32, command: u8) {
        ata.write(6, device | (lba >> 24) as u8 & 0x0f);
        for (register, value) in [(2, count), (3, lba as u8), (4, (lba >> 8) as u8), (5, (lba >> 16) as u8)] {
            ata.write(register, value);
        }
        ata.write(7, command);
    }

    fn data(ata: &mut Ata, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        for word in bytes.chunks_mut(2) {
            ata.read_data(word);
        }
        bytes
    }

    #[test]
    fn identify() {
        let mut ata = channel();
        ata.write(7, 0xec);
        assert!(ata.irq());
        assert_eq!(ata.read(7), DRDY | DSC | DRQ);
        assert!(!ata.irq());
        let bytes = data(&mut ata, 512);
        assert_eq!(u32::from_le_bytes(bytes[120..124].try_into().unwrap()), 10_000);
        assert_eq!(&bytes[54..58], b"mves");
        assert_eq!(ata.read(7), DRDY | DSC);
    }

    #[test]
    fn reading_asks_sector_by_sector() {
        let mut ata = channel();
        registers(&mut ata, 0xe0, 2, 9_998, 0x20);
        for sector in [9_998, 9_999] {
            assert_eq!(ata.request(), Some(&Request::Read { unit: 0, sector, count: 1 }));
            assert_eq!(ata.read(7) & BSY, BSY);
            ata.finish(Ok(vec![7; 512]));
            assert!(ata.irq());
            assert_eq!(data(&mut ata, 512), [7; 512]);
        }
        assert_eq!((ata.request().cloned(), ata.read(7)), (None, DRDY | DSC));
        registers(&mut ata, 0xe0, 3, 9_998, 0x20);
        assert_eq!((ata.request().cloned(), ata.read(7), ata.read(1)), (None, DRDY | DSC | ERR, NOT_FOUND));
    }

    #[test]
    fn cylinders_heads_and_sectors() {
        let mut ata = channel();
        registers(&mut ata, 0xa1, 1, 2 << 8 | 5, 0x20);
        assert_eq!(ata.request(), Some(&Request::Read { unit: 0, sector: (2 * 16 + 1) * 63 + 4, count: 1 }));
        ata.finish(Err(()));
        assert_eq!((ata.read(7) & ERR, ata.read(1)), (ERR, UNCORRECTABLE));
        registers(&mut ata, 0xa0, 1, 0, 0x20);
        assert_eq!(ata.read(1), NOT_FOUND, "sectors count from 1");
    }

    #[test]
    fn writing_in_blocks() {
        let mut ata = channel();
        registers(&mut ata, 0xe0, 4, 0, 0xc6);
        registers(&mut ata, 0xe0, 6, 100, 0xc5);
        assert!(!ata.irq(), "no interrupt before the first block");
        for (sector, count) in [(100, 4), (104, 2)] {
            ata.write_data(&vec![9; count * 512]);
            assert_eq!(ata.request(), Some(&Request::Write { unit: 0, sector }));
            assert_eq!(ata.outgoing().len(), count * 512);
            ata.finish(Ok(vec![]));
            assert!(ata.irq());
        }
        assert_eq!(ata.read(7), DRDY | DSC);
        ata.write(7, 0xe7);
        assert_eq!(ata.request(), Some(&Request::Flush { unit: 0 }));
        ata.finish(Ok(vec![]));
        assert_eq!(ata.read(7), DRDY | DSC);
    }

    #[test]
    fn forty_eight_bits() {
        let mut ata = Ata::new([Some(Unit::disk(1 << 33, (16_383, 16, 63), "1".into())), None]);
        ata.write(6, 0xe0);
        for (register, high, low) in [(2, 0, 2), (3, 1, 0x78), (4, 0, 0x56), (5, 0, 0x34)] {
            ata.write(register, high);
            ata.write(register, low);
        }
        ata.write(7, 0x24);
        assert_eq!(ata.request(), Some(&Request::Read { unit: 0, sector: 0x0134_5678, count: 1 }));
        ata.write_control(0x80);
        assert_eq!(ata.read(3), 1);
        ata.write_control(0x04);
        assert_eq!((ata.request(), ata.read_alternate() & BSY), (None, BSY));
        ata.write_control(0x00);
        assert_eq!(ata.read(7), DRDY | DSC);
        ata.write(6, 0x10);
        assert_eq!(ata.read(7), 0, "no second unit");
    }

    #[test]
    fn a_cd_is_read_by_packets() {
        let mut ata = channel();
        ata.write(6, 0x10);
        ata.write(7, 0xec);
        assert_eq!((ata.read(7) & ERR, ata.read(4), ata.read(5)), (ERR, 0x14, 0xeb));
        ata.write(4, 0x00);
        ata.write(5, 0x08);
        ata.write(7, 0xa0);
        ata.write_data(&[0x28, 0, 0, 0, 0, 16, 0, 0, 2, 0, 0, 0]);
        assert_eq!(ata.request(), Some(&Request::ReadCd { unit: 1, block: 16, count: 2 }));
        ata.finish(Ok(vec![5; 4096]));
        for _ in 0..2 {
            assert_eq!((ata.read(2), ata.read(4), ata.read(5)), (2, 0, 8));
            assert_eq!(data(&mut ata, 2048), [5; 2048]);
        }
        assert_eq!((ata.read(2), ata.read(7)), (3, DRDY | DSC));
        ata.set_medium(1, None);
        ata.write(7, 0xa0);
        ata.write_data(&[0; 12]);
        assert_eq!((ata.read(7) & ERR, ata.read(1) >> 4), (ERR, 2), "not ready");
    }

    proptest! {
        #[test]
        fn any_commands_ask_only_for_what_is_there(accesses: Vec<(u8, u8)>, fail: bool) {
            let mut ata = channel();
            for (register, value) in accesses {
                match register % 12 {
                    0 => ata.write_data(&[value; 64]),
                    8 => ata.write_control(value),
                    9 => ata.read_data(&mut [0; 700]),
                    10 => { ata.read(u16::from(value) % 8); }
                    11 => ata.set_medium(1, (value & 1 != 0).then_some(50)),
                    register => ata.write(u16::from(register), value),
                }
                match ata.request().cloned() {
                    Some(Request::Read { unit, sector, count }) => {
                        prop_assert!(unit == 0 && sector + u64::from(count) <= 10_000);
                        ata.finish(if fail { Err(()) } else { Ok(vec![0; usize::from(count) * 512]) });
                    }
                    Some(Request::Write { unit, sector }) => {
                        prop_assert!(unit == 0 && sector + ata.outgoing().len() as u64 / 512 <= 10_000);
                        ata.finish(if fail { Err(()) } else { Ok(vec![]) });
                    }
                    Some(Request::ReadCd { unit, block, count }) => {
                        prop_assert!(unit == 1 && block + u32::from(count) <= 100);
                        ata.finish(if fail { Err(()) } else { Ok(vec![0; usize::from(count) * 2048]) });
                    }
                    Some(Request::Flush { .. }) => ata.finish(Ok(vec![])),
                    None => {}
                }
            }
        }
    }
}
