//! The board: the one place where ports lead to chips, chips to interrupts, and IDE channels to disks.
//!
//! | ports | chip |
//! |---|---|
//! | 0x60, 0x64 | keyboard controller |
//! | 0x70, 0x71 | clock |
//! | 0x92 | fast A20 and reset |
//! | 0x170-0x177, 0x376 and 0x1f0-0x1f7, 0x3f6 | IDE |
//! | 0x1ce, 0x1cf, 0x3b0-0x3df | VGA |
//! | 0x2f8, 0x3e8, 0x2e8, 0x3f8 | serial ports |
//! | 0x402 | debug console |
//! | 0x510, 0x511 | fw_cfg |
//! | 0x600-0x60b | ACPI |
//! | 0xcf9 | reset |
//!
//! Interrupt controllers and timer are in the kernel. Ports where nothing is read as ones.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::chips::acpi_pm::{self, AcpiPm};
use crate::chips::ata::{Ata, Request, Unit};
use crate::chips::cmos::{BootDevice, Cmos};
use crate::chips::debug_port::{self, DebugPort};
use crate::chips::fw_cfg::{self, FwCfg};
use crate::chips::i8042::{self, I8042};
use crate::chips::serial::{self, SerialPort};
use crate::chips::vga::{self, Vga};
use crate::chips::{Effect, acpi_tables};
use crate::medium::Medium;
use crate::memory;

/// First port, control port and interrupt of the two IDE channels.
const IDE: [(u16, u16, u32); 2] = [(0x1f0, 0x3f6, 14), (0x170, 0x376, 15)];

/// Serial output to a file is written when so much is there, or a line ends.
const FILE_BUFFER: usize = 4096;

/// The interrupt lines into the kernel's controllers.
pub trait Lines: Send {
    /// Sets a line.
    fn set(&self, irq: u32, level: bool);
}

/// Why the processors must stop after an access.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// A chip wants it.
    Effect(Effect),
    /// A disk did not do what the guest wanted; the request stays until somebody decides:
    /// [`Board::retry`] or [`Board::give_up`].
    Fault {
        /// 0 or 1.
        channel: usize,
        /// 0 or 1.
        unit: usize,
        /// There is no room left.
        full: bool,
        /// What happened.
        text: String,
    },
}

/// What the firmware is told.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Bytes of RAM.
    pub memory: u64,
    /// Processors.
    pub cpus: u8,
    /// `uuid.bios`.
    pub uuid: [u8; 16],
    /// Boot order.
    pub boot: Vec<BootDevice>,
    /// The VGA BIOS.
    pub vga_bios: Vec<u8>,
    /// A floppy image.
    pub floppy: Option<Vec<u8>>,
}

/// One serial port with what is behind it.
struct Port {
    number: u32,
    chip: SerialPort,
    file: Option<File>,
    pending: Vec<u8>,
}

impl Port {
    /// Passes output on to the file.
    fn pass_on(&mut self, now: bool) {
        let fresh = self.chip.take_fresh();
        let Some(file) = &mut self.file else { return };
        self.pending.extend(fresh);
        if now || self.pending.len() >= FILE_BUFFER || self.pending.ends_with(b"\n") {
            // A file that takes no more loses output, as a printer without paper would.
            let _ = file.write_all(&self.pending);
            self.pending.clear();
        }
    }
}

/// The board.
pub struct Board {
    lines: Box<dyn Lines>,
    /// Levels of the lines, one bit each.
    levels: u32,
    cmos: Cmos,
    keyboard: I8042,
    ports: Vec<Port>,
    vga: Vga,
    fw_cfg: FwCfg,
    pm: AcpiPm,
    ide: [Ata; 2],
    media: [[Option<Medium>; 2]; 2],
    debug: DebugPort,
    fast_a20: u8,
    started: Instant,
    /// Time on the clock before `started`.
    before: Duration,
    /// Seconds that the clock is ahead of UTC.
    clock_offset: i64,
    facts: Facts,
    log: Arc<dyn Fn(&str) + Send + Sync>,
    /// Called when the guest has sent something to a serial port.
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

/// The chips as they are saved.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Saved {
    levels: u32,
    cmos: Cmos,
    keyboard: I8042,
    ports: Vec<(u32, serial::Saved)>,
    vga: Vga,
    fw_cfg: (u16, u32),
    pm: AcpiPm,
    ide: [Ata; 2],
    debug: DebugPort,
    fast_a20: u8,
    clock: Duration,
}

/// Why saved chips do not fit a board.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(pub String);

impl Board {
    /// A board with nothing plugged in.
    #[must_use]
    pub fn new(
        facts: Facts,
        lines: Box<dyn Lines>,
        log: Arc<dyn Fn(&str) + Send + Sync>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        Board {
            lines,
            levels: 0,
            cmos: cmos(&facts),
            keyboard: I8042::default(),
            ports: Vec::new(),
            vga: Vga::default(),
            fw_cfg: firmware_items(&facts),
            pm: AcpiPm::default(),
            ide: [Ata::new([None, None]), Ata::new([None, None])],
            media: Default::default(),
            debug: DebugPort::default(),
            fast_a20: 2,
            started: Instant::now(),
            before: Duration::ZERO,
            clock_offset: 0,
            facts,
            log,
            wake,
        }
    }

    /// Sets the clock so many seconds ahead of UTC.
    pub fn set_clock_offset(&mut self, seconds: i64) {
        self.clock_offset = seconds;
    }

    /// Plugs in serial port `number` (0 to 3), its output going to `file`, too.
    pub fn add_serial(&mut self, number: u32, file: Option<File>) {
        self.ports.push(Port { number, chip: SerialPort::default(), file, pending: Vec::new() });
    }

    /// Plugs in the drives of an IDE channel.
    pub fn set_channel(&mut self, channel: usize, units: [Option<Unit>; 2], media: [Option<Medium>; 2]) {
        if let (Some(chip), Some(slot)) = (self.ide.get_mut(channel), self.media.get_mut(channel)) {
            *chip = Ata::new(units);
            *slot = media;
        }
    }

    /// Changes the medium of a CD drive; `blocks` is its size.
    pub fn set_medium(&mut self, channel: usize, unit: usize, medium: Option<(Medium, u32)>) {
        let (medium, blocks) = medium.unzip();
        if let Some(slot) = self.media.get_mut(channel).and_then(|media| media.get_mut(unit)) {
            *slot = medium;
        }
        if let Some(chip) = self.ide.get_mut(channel) {
            chip.set_medium(unit, blocks);
        }
    }

    /// Changes the floppy image; the firmware reads it at the next reset.
    pub fn set_floppy(&mut self, image: Option<Vec<u8>>) {
        self.facts.floppy = image;
        let place = self.fw_cfg.place();
        self.fw_cfg = firmware_items(&self.facts);
        self.fw_cfg.set_place(place);
    }

    /// What is behind a unit, for snapshots.
    pub fn medium(&mut self, channel: usize, unit: usize) -> Option<&mut Option<Medium>> {
        self.media.get_mut(channel)?.get_mut(unit)
    }

    /// All chips as after power on. What the guest sent to serial ports is kept.
    pub fn reset(&mut self) {
        self.cmos = cmos(&self.facts);
        self.keyboard = I8042::default();
        self.vga = Vga::default();
        self.fw_cfg.select(0);
        self.pm = AcpiPm::default();
        self.fast_a20 = 2;
        for port in &mut self.ports {
            port.chip.reset();
        }
        for channel in &mut self.ide {
            *channel = Ata::new(channel.units().clone());
        }
        self.update_lines();
    }

    fn clock(&self) -> Duration {
        self.before.saturating_add(self.started.elapsed())
    }

    /// The guest reads `data.len()` bytes from `port`.
    pub fn read(&mut self, port: u16, data: &mut [u8]) -> Option<Stop> {
        let stop = match port {
            0x1f0 | 0x170 => {
                let channel = usize::from(port == 0x170);
                if let Some(chip) = self.ide.get_mut(channel) {
                    chip.read_data(data);
                }
                self.carry_out(channel)
            }
            fw_cfg::DATA => {
                data.fill_with(|| self.fw_cfg.read());
                None
            }
            0x1ce..=0x1cf => {
                copy(data, &self.vga.read_dispi(port).to_le_bytes());
                None
            }
            acpi_pm::BASE..=0x60b => {
                let nanoseconds = u64::try_from(self.clock().as_nanos()).unwrap_or(u64::MAX);
                for (offset, byte) in (port - acpi_pm::BASE..).zip(data) {
                    *byte = self.pm.read(offset, nanoseconds);
                }
                None
            }
            _ if self.serial_at(port).is_some() => {
                // A string instruction reads one register again and again.
                if let Some((chip, offset)) = self.serial_at(port) {
                    data.fill_with(|| chip.chip.read(offset));
                }
                None
            }
            _ => {
                for (port, byte) in (port..=u16::MAX).zip(data) {
                    *byte = self.read_byte(port);
                }
                None
            }
        };
        self.update_lines();
        stop
    }

    fn read_byte(&mut self, port: u16) -> u8 {
        match port {
            0x60 => self.keyboard.read(0),
            0x64 => self.keyboard.read(4),
            0x70 | 0x71 => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let now = i64::try_from(now.as_secs()).unwrap_or(0);
                self.cmos.read(port - 0x70, now.saturating_add(self.clock_offset).max(0))
            }
            0x92 => self.fast_a20,
            vga::FIRST..=vga::LAST => self.vga.read(port),
            debug_port::PORT => debug_port::PRESENT,
            _ => match self.ide_at(port) {
                Some((chip, Register::Command(offset))) => chip.read(offset),
                Some((chip, Register::Control)) => chip.read_alternate(),
                None => 0xff,
            },
        }
    }

    /// The guest writes `data` to `port`.
    pub fn write(&mut self, port: u16, data: &[u8]) -> Option<Stop> {
        let stop = match port {
            0x1f0 | 0x170 => {
                let channel = usize::from(port == 0x170);
                if let Some(chip) = self.ide.get_mut(channel) {
                    chip.write_data(data);
                }
                self.carry_out(channel)
            }
            fw_cfg::SELECT => {
                self.fw_cfg.select(word(data));
                None
            }
            0x1ce..=0x1cf => {
                self.vga.write_dispi(port, word(data));
                None
            }
            debug_port::PORT => {
                for &byte in data {
                    if let Some(line) = self.debug.write(byte) {
                        (self.log)(&line);
                    }
                }
                None
            }
            // Four bytes at once are an address of PCI, which is not there, and not the reset port.
            0xcf8 if data.len() == 4 => None,
            acpi_pm::BASE..=0x60b => self.pm.write(port - acpi_pm::BASE, data).map(Stop::Effect),
            _ if self.serial_at(port).is_some() => {
                if let Some((chip, offset)) = self.serial_at(port) {
                    for &byte in data {
                        chip.chip.write(offset, byte);
                    }
                    chip.pass_on(false);
                }
                if data.len() > 1 || self.serial_at(port).is_some_and(|(_, offset)| offset == 0) {
                    (self.wake)();
                }
                None
            }
            _ => {
                let mut stop = None;
                for (port, &byte) in (port..=u16::MAX).zip(data) {
                    stop = stop.or(self.write_byte(port, byte));
                }
                stop
            }
        };
        self.update_lines();
        stop
    }

    fn write_byte(&mut self, port: u16, value: u8) -> Option<Stop> {
        match port {
            0x60 | 0x64 => self.keyboard.write(port - 0x60, value).map(Stop::Effect),
            0x70 | 0x71 => {
                self.cmos.write(port - 0x70, value);
                None
            }
            0x92 => {
                self.fast_a20 = value & !1;
                (value & 1 != 0).then_some(Stop::Effect(Effect::Reset))
            }
            // Bit 2 resets, when it rises; bit 1 says how hard.
            0xcf9 => (value & 4 != 0).then_some(Stop::Effect(Effect::Reset)),
            vga::FIRST..=vga::LAST => {
                self.vga.write(port, value);
                None
            }
            _ => {
                match self.ide_at(port)? {
                    (chip, Register::Command(offset)) => chip.write(offset, value),
                    (chip, Register::Control) => chip.write_control(value),
                }
                self.carry_out(usize::from(port & 0x80 == 0))
            }
        }
    }

    fn serial_at(&mut self, port: u16) -> Option<(&mut Port, u8)> {
        let number = serial::PORTS.iter().position(|&(first, _)| port & !7 == first)?;
        let chip = self.ports.iter_mut().find(|chip| chip.number as usize == number)?;
        Some((chip, u8::try_from(port & 7).unwrap_or(0)))
    }

    fn ide_at(&mut self, port: u16) -> Option<(&mut Ata, Register)> {
        for (chip, (first, control, _)) in self.ide.iter_mut().zip(IDE) {
            if port == control {
                return Some((chip, Register::Control));
            }
            if port > first && port < first + 8 {
                return Some((chip, Register::Command(port - first)));
            }
        }
        None
    }

    /// Does what an IDE channel waits for, as often as it takes.
    fn carry_out(&mut self, channel: usize) -> Option<Stop> {
        let chip = self.ide.get_mut(channel)?;
        let media = self.media.get_mut(channel)?;
        while let Some(request) = chip.request().cloned() {
            let unit = match request {
                Request::Read { unit, .. }
                | Request::Write { unit, .. }
                | Request::Flush { unit }
                | Request::ReadCd { unit, .. } => unit,
            };
            let Some(medium) = media.get_mut(unit).and_then(Option::as_mut) else {
                chip.finish(Err(()));
                continue;
            };
            let result = match request {
                Request::Read { sector, count, .. } => medium.read(sector, count),
                Request::Write { sector, .. } => medium.write(sector, chip.outgoing()).map(|()| Vec::new()),
                Request::Flush { .. } => medium.flush().map(|()| Vec::new()),
                Request::ReadCd { block, count, .. } => medium.read_cd(block, count),
            };
            match result {
                Ok(bytes) => chip.finish(Ok(bytes)),
                Err(fault) => {
                    let (full, text) = (fault.is_full(), fault.to_string());
                    return Some(Stop::Fault { channel, unit, full, text });
                }
            }
        }
        None
    }

    /// Tries again what a disk did not do.
    pub fn retry(&mut self, channel: usize) -> Option<Stop> {
        let stop = self.carry_out(channel);
        self.update_lines();
        stop
    }

    /// Tells the guest that its disk failed.
    pub fn give_up(&mut self, channel: usize) -> Option<Stop> {
        if let Some(chip) = self.ide.get_mut(channel) {
            chip.finish(Err(()));
        }
        self.retry(channel)
    }

    fn update_lines(&mut self) {
        let [first, second] = &self.ide;
        let levels = u32::from(self.keyboard.irq()) << i8042::IRQ
            | u32::from(self.pm.irq()) << acpi_pm::SCI
            | u32::from(first.irq()) << 14
            | u32::from(second.irq()) << 15;
        self.set_lines(levels);
        // A byte that the keyboard had waiting comes with a rising edge of its own.
        self.keyboard.settle();
        self.set_lines(levels & !(1 << i8042::IRQ) | u32::from(self.keyboard.irq()) << i8042::IRQ);
        for port in &mut self.ports {
            let irq = serial::PORTS.get(port.number as usize).map(|&(_, irq)| irq);
            if let (true, Some(irq)) = (port.chip.take_interrupt(), irq) {
                self.lines.set(irq, true);
                self.lines.set(irq, false);
            }
        }
    }

    fn set_lines(&mut self, levels: u32) {
        let changed = self.levels ^ levels;
        for irq in (0..16).filter(|irq| changed >> irq & 1 != 0) {
            self.lines.set(irq, levels >> irq & 1 != 0);
        }
        self.levels = levels;
    }

    /// Flushes every disk.
    ///
    /// # Errors
    /// What the first failing disk says.
    pub fn flush(&mut self) -> Result<(), crate::medium::Fault> {
        for port in &mut self.ports {
            port.pass_on(true);
        }
        self.media.iter_mut().flatten().flatten().try_for_each(Medium::flush)
    }

    /// Passes on serial output that waits for the end of a line.
    pub fn tick(&mut self) {
        for port in &mut self.ports {
            port.pass_on(true);
        }
    }

    /// A serial port.
    pub fn serial(&mut self, number: u32) -> Option<&mut SerialPort> {
        self.ports.iter_mut().find(|port| port.number == number).map(|port| &mut port.chip)
    }

    /// Numbers of the serial ports.
    #[must_use]
    pub fn serial_numbers(&self) -> Vec<u32> {
        self.ports.iter().map(|port| port.number).collect()
    }

    /// Sends to the guest; returns how many bytes were taken, None without such a port.
    pub fn send(&mut self, number: u32, bytes: &[u8]) -> Option<usize> {
        let count = self.serial(number)?.send(bytes);
        self.update_lines();
        Some(count)
    }

    /// Types; false when the keyboard's queue has no room.
    pub fn press(&mut self, codes: &[u8]) -> bool {
        let taken = self.keyboard.press(codes);
        self.update_lines();
        taken
    }

    /// Codes of keys that the guest has not read.
    #[must_use]
    pub fn keys_unread(&self) -> usize {
        self.keyboard.waiting()
    }

    /// As [`Board::keys_unread`], if the keyboard interrupts the guest for them; otherwise 0.
    #[must_use]
    pub fn keys_pressing(&self) -> usize {
        if self.keyboard.irq() { self.keyboard.waiting() } else { 0 }
    }

    /// Presses the power button; false when the guest does not listen to it.
    pub fn press_power_button(&mut self) -> bool {
        let wanted = self.pm.wants_power_button();
        self.pm.press_power_button();
        self.update_lines();
        wanted
    }

    /// The VGA.
    #[must_use]
    pub fn vga(&self) -> &Vga {
        &self.vga
    }

    /// The chips as they are saved.
    #[must_use]
    pub fn save(&self) -> Saved {
        Saved {
            levels: self.levels,
            cmos: self.cmos.clone(),
            keyboard: self.keyboard.clone(),
            ports: self.ports.iter().map(|port| (port.number, port.chip.save())).collect(),
            vga: self.vga.clone(),
            fw_cfg: self.fw_cfg.place(),
            pm: self.pm.clone(),
            ide: self.ide.clone(),
            debug: self.debug.clone(),
            fast_a20: self.fast_a20,
            clock: self.clock(),
        }
    }

    /// Puts saved chips in place. CD drives may have another medium since; all else must be as it was.
    ///
    /// # Errors
    /// [`Unfit`], saying what is different; the board is then as it was.
    pub fn restore(&mut self, saved: Saved) -> Result<(), Unfit> {
        for (channel, (now, then)) in self.ide.iter().zip(&saved.ide).enumerate() {
            for (unit, (now, then)) in now.units().iter().zip(then.units()).enumerate() {
                let same = match (now, then) {
                    (None, None) | (Some(Unit::Cd { .. }), Some(Unit::Cd { .. })) => true,
                    (Some(Unit::Disk { sectors: now, .. }), Some(Unit::Disk { sectors: then, .. })) => {
                        now == then
                    }
                    _ => false,
                };
                if !same {
                    return Err(Unfit(format!("ide{channel}:{unit} is not the drive that was there")));
                }
            }
        }
        let mut chips = Vec::new();
        for port in &self.ports {
            let then = saved.ports.iter().find(|(number, _)| *number == port.number);
            let chip = then.and_then(|(_, then)| SerialPort::restore(then.clone()));
            let missing = || Unfit(format!("serial{} was not there, or not like that", port.number));
            chips.push(chip.ok_or_else(missing)?);
        }
        if saved.ports.len() != self.ports.len() {
            return Err(Unfit("a serial port is missing that was there".into()));
        }
        let media: Vec<(usize, usize, Option<u32>)> = self.cd_media();
        for (port, chip) in self.ports.iter_mut().zip(chips) {
            port.chip = chip;
        }
        self.levels = saved.levels;
        self.cmos = saved.cmos;
        self.keyboard = saved.keyboard;
        self.vga = saved.vga;
        self.fw_cfg.set_place(saved.fw_cfg);
        self.pm = saved.pm;
        let before: Vec<(usize, usize, Option<u32>)> = std::mem::replace(&mut self.ide, saved.ide)
            .iter()
            .enumerate()
            .flat_map(|(channel, chip)| cds(channel, chip))
            .collect();
        debug_assert_eq!(before, media);
        for (channel, unit, blocks) in before {
            let then = self.ide.get(channel).map(|chip| cds(channel, chip)).unwrap_or_default();
            if let (Some(chip), false) = (self.ide.get_mut(channel), then.contains(&(channel, unit, blocks)))
            {
                chip.set_medium(unit, blocks);
            }
        }
        self.debug = saved.debug;
        self.fast_a20 = saved.fast_a20;
        self.before = saved.clock;
        self.started = Instant::now();
        Ok(())
    }

    fn cd_media(&self) -> Vec<(usize, usize, Option<u32>)> {
        self.ide.iter().enumerate().flat_map(|(channel, chip)| cds(channel, chip)).collect()
    }
}

/// The CD drives of a channel, and the size of what is in them.
fn cds(channel: usize, chip: &Ata) -> Vec<(usize, usize, Option<u32>)> {
    let units = chip.units().iter().enumerate();
    units
        .filter_map(|(number, unit)| match unit {
            Some(Unit::Cd { blocks, .. }) => Some((channel, number, *blocks)),
            _ => None,
        })
        .collect()
}

enum Register {
    Command(u16),
    Control,
}

fn word(data: &[u8]) -> u16 {
    match *data {
        [low, high, ..] => u16::from_le_bytes([low, high]),
        [low] => u16::from(low),
        [] => 0,
    }
}

fn copy(to: &mut [u8], from: &[u8]) {
    to.fill(0);
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

fn cmos(facts: &Facts) -> Cmos {
    let (low, high) = memory::split(facts.memory);
    let mut cmos = Cmos::new(low, high, facts.cpus, &facts.boot);
    cmos.set_floppies(false, false);
    cmos
}

/// Sizes of floppies that the firmware knows, in KiB.
const FLOPPIES: [usize; 8] = [160, 180, 320, 360, 720, 1200, 1440, 2880];

fn firmware_items(facts: &Facts) -> FwCfg {
    let mut cfg = FwCfg::new(facts.memory, u16::from(facts.cpus), facts.uuid);
    cfg.add("etc/show-boot-menu", 0u64.to_le_bytes().to_vec());
    cfg.add("vgaroms/vgabios.bin", facts.vga_bios.clone());
    let tables = acpi_tables::build(facts.cpus);
    cfg.add("etc/acpi/tables", tables.tables);
    cfg.add("etc/acpi/rsdp", tables.rsdp);
    cfg.add("etc/table-loader", tables.loader);
    if let Some(floppy) = &facts.floppy {
        let mut image = floppy.clone();
        let size = FLOPPIES.iter().map(|size| size * 1024).find(|&size| size >= image.len());
        image.resize(size.unwrap_or(image.len()), 0);
        cfg.add("floppyimg/floppy0", image);
    }
    cfg
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Recorded(Arc<Mutex<Vec<(u32, bool)>>>);

    impl Lines for Recorded {
        fn set(&self, irq: u32, level: bool) {
            self.0.lock().unwrap().push((irq, level));
        }
    }

    fn board() -> (Board, Recorded) {
        let lines = Recorded::default();
        let facts = Facts {
            memory: 64 << 20,
            cpus: 1,
            uuid: [0; 16],
            boot: vec![BootDevice::HardDisk],
            vga_bios: vec![0x55, 0xaa],
            floppy: Some(vec![1; 512]),
        };
        let mut board = Board::new(facts, Box::new(lines.clone()), Arc::new(|_| ()), Arc::new(|| ()));
        board.add_serial(0, None);
        let units = [Some(Unit::disk(100, (1, 16, 63), "x".into())), Some(Unit::cd(None, "y".into()))];
        board.set_channel(0, units, [None, None]);
        (board, lines)
    }

    #[test]
    fn ports_lead_to_chips() {
        let (mut board, lines) = board();
        board.write(0x3f8, b"hi");
        assert_eq!(board.serial(0).unwrap().kept().part(0, 9).bytes, b"hi");
        let mut word = [0; 2];
        board.read(0xcf8, &mut word);
        assert_eq!(word, [0xff; 2]);
        assert_eq!(board.write(0xcf8, &[0xff; 4]), None, "an address of PCI, no reset");
        assert_eq!(board.write(0x604, &[0, 0x20]), Some(Stop::Effect(Effect::PowerOff)));
        assert_eq!(board.write(0xcf9, &[6]), Some(Stop::Effect(Effect::Reset)));
        assert_eq!(board.write(0x92, &[1]), Some(Stop::Effect(Effect::Reset)));
        board.press(&[0x1e, 0x9e]);
        let mut key = [0];
        board.read(0x60, &mut key);
        assert_eq!(key, [0x1e]);
        assert_eq!(*lines.0.lock().unwrap(), [(1, true), (1, false), (1, true)]);
        // Identify, a word at a time.
        board.write(0x1f7, &[0xec]);
        let mut sector = [0; 512];
        board.read(0x1f0, &mut sector);
        assert_eq!(&sector[120..124], [100, 0, 0, 0]);
    }

    #[test]
    fn the_power_button_interrupts_a_guest_that_listens() {
        let (mut board, lines) = board();
        let sci = || {
            let mut lines = lines.0.lock().unwrap();
            lines
                .drain(..)
                .filter(|(irq, _)| *irq == acpi_pm::SCI)
                .map(|(_, level)| level)
                .collect::<Vec<_>>()
        };
        assert!(!board.press_power_button(), "nobody listens");
        assert_eq!(sci(), [false; 0]);
        // PM1a: what came before is cleared, the button enabled.
        board.write(0x600, &[0, 1]);
        board.write(0x602, &[0, 1]);
        assert_eq!(sci(), [false; 0]);
        assert!(board.press_power_button());
        assert_eq!(sci(), [true]);
        let mut status = [0; 2];
        board.read(0x600, &mut status);
        assert_eq!(status, [0, 1]);
        board.write(0x600, &status);
        assert_eq!(sci(), [false], "acknowledged");
        board.read(0x600, &mut status);
        assert_eq!(status, [0, 0]);
    }

    #[test]
    fn the_clock_may_be_ahead_of_utc() {
        let (mut board, _) = board();
        let mut century = |years: i64| {
            board.set_clock_offset(years * 366 * 86_400);
            board.write(0x70, &[0x32]);
            let mut byte = [0];
            board.read(0x71, &mut byte);
            byte[0]
        };
        assert_eq!((century(0), century(80)), (0x20, 0x21));
        assert_eq!(century(-400), 0x19, "not before 1970");
    }

    #[test]
    fn saved_and_restored() {
        let (mut one, _) = board();
        one.write(0x3f8, b"x");
        one.write(0x70, &[0x40]);
        one.write(0x71, &[7]);
        let saved = postcard::to_stdvec(&one.save()).unwrap();
        let (mut other, _) = board();
        other.restore(postcard::from_bytes(&saved).unwrap()).unwrap();
        let mut byte = [0];
        other.read(0x71, &mut byte);
        assert_eq!(byte, [7]);
        other.set_channel(0, [None, None], [None, None]);
        let text = other.restore(postcard::from_bytes(&saved).unwrap()).unwrap_err().to_string();
        assert!(text.contains("ide0:0"), "{text}");
    }

    proptest! {
        #[test]
        fn any_accesses(accesses: Vec<(bool, u16, Vec<u8>)>) {
            let (mut board, _) = board();
            for (write, port, mut data) in accesses {
                // Most ports lead nowhere: look where chips are.
                let port = if port & 1 == 0 { port } else { [0x60, 0x64, 0x71, 0x1f0, 0x1f7, 0x3c0, 0x3f8, 0x511, 0x604][usize::from(port >> 1) % 9] };
                data.truncate(16);
                if write { board.write(port, &data); } else { board.read(port, &mut data); }
            }
        }
    }
}
