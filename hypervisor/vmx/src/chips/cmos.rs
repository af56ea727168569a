//! The clock chip with its memory (MC146818 and what PCs made of it): ports 0x70 and 0x71.
//!
//! The time is that of the host, in UTC unless somebody moves it ([`Cmos::set_ahead`]); a guest that sets
//! the clock is not heard. The memory tells the firmware how much RAM there is and what to boot from.

use serde::{Deserialize, Serialize};

/// Bytes of the chip's memory, clock included.
pub const SIZE: usize = 128;

const STATUS_A: u8 = 0x0a;
const STATUS_B: u8 = 0x0b;
const STATUS_C: u8 = 0x0c;
const STATUS_D: u8 = 0x0d;
const CENTURY: u8 = 0x32;

/// In which order drives are tried: numbers of the firmware.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum BootDevice {
    /// The first floppy drive.
    Floppy = 1,
    /// The first hard disk.
    HardDisk = 2,
    /// The first CD drive.
    Cd = 3,
}

/// The chip.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cmos {
    index: u8,
    memory: Vec<u8>,
    /// Seconds that the guest's clock is ahead of the host's.
    ahead: i64,
}

impl Cmos {
    /// A chip for a machine with `below_4g` and `above_4g` bytes of RAM.
    #[must_use]
    pub fn new(below_4g: u64, above_4g: u64, cpus: u8, boot: &[BootDevice]) -> Self {
        let mut cmos = Cmos { index: 0, memory: vec![0; SIZE], ahead: 0 };
        cmos.set(STATUS_A, 0x26);
        cmos.set(STATUS_B, 0x02);
        cmos.set(STATUS_D, 0x80);
        let [kilobyte, block] = [1u64 << 10, 64 << 10];
        let low16 = |value: u64| u16::try_from(value).unwrap_or(u16::MAX);
        cmos.set16(0x15, 640);
        let extended = low16(below_4g.saturating_sub(1 << 20) / kilobyte);
        cmos.set16(0x17, extended);
        cmos.set16(0x30, extended);
        cmos.set16(0x34, low16(below_4g.saturating_sub(16 << 20) / block));
        let high = (above_4g / block).to_le_bytes();
        for (place, byte) in (0x5b..=0x5d).zip(high) {
            cmos.set(place, byte);
        }
        cmos.set(0x5f, cpus.saturating_sub(1));
        // No check of the boot sector's signature for floppies: 0x38 bit 0; the third device above it.
        let device = |number: usize| boot.get(number).map_or(0, |&device| device as u8);
        cmos.set(0x38, device(2) << 4 | 1);
        cmos.set(0x3d, device(1) << 4 | device(0));
        cmos
    }

    /// Says which floppy drives there are, for guests that ask.
    pub fn set_floppies(&mut self, first: bool, second: bool) {
        self.set(0x10, u8::from(first) << 6 | u8::from(second) << 2);
    }

    fn set(&mut self, place: u8, value: u8) {
        if let Some(byte) = self.memory.get_mut(usize::from(place)) {
            *byte = value;
        }
    }

    fn set16(&mut self, place: u8, value: u16) {
        let [low, high] = value.to_le_bytes();
        self.set(place, low);
        self.set(place + 1, high);
    }

    fn get(&self, place: u8) -> u8 {
        self.memory.get(usize::from(place)).copied().unwrap_or(0xff)
    }

    /// Reads port 0x70 (`port` 0) or 0x71 (1); `now` is the host's time in Unix seconds.
    #[must_use]
    pub fn read(&self, port: u16, now: i64) -> u8 {
        if port == 0 {
            return 0xff;
        }
        let moment = Moment::of(now.saturating_add(self.ahead));
        let value = match self.index {
            0x00 => moment.second,
            0x02 => moment.minute,
            0x04 if self.get(STATUS_B) & 0x02 == 0 => {
                let half = if moment.hour.is_multiple_of(12) { 12 } else { moment.hour % 12 };
                return self.coded(half) | u8::from(moment.hour >= 12) << 7;
            }
            0x04 => moment.hour,
            0x06 => moment.weekday,
            0x07 => moment.day,
            0x08 => moment.month,
            0x09 => u8::try_from(moment.year.rem_euclid(100)).unwrap_or(0),
            CENTURY => u8::try_from(moment.year.div_euclid(100)).unwrap_or(0),
            STATUS_C => return 0,
            other => return self.get(other),
        };
        self.coded(value)
    }

    /// BCD, unless the guest chose binary.
    fn coded(&self, value: u8) -> u8 {
        if self.get(STATUS_B) & 0x04 != 0 { value } else { ((value / 10) << 4) | (value % 10) }
    }

    /// Writes port 0x70 or 0x71.
    pub fn write(&mut self, port: u16, value: u8) {
        if port == 0 {
            self.index = value & 0x7f;
            return;
        }
        match self.index {
            // The guest sets its clock: not kept. It is that of the host at the next look.
            0x00 | 0x02 | 0x04 | 0x06..=0x09 | CENTURY | STATUS_C | STATUS_D => {}
            STATUS_A => self.set(STATUS_A, value & 0x7f),
            index => self.set(index, value),
        }
    }

    /// Moves the clock ahead of the host's by so many seconds.
    pub fn set_ahead(&mut self, seconds: i64) {
        self.ahead = seconds;
    }
}

/// A moment as a calendar has it, UTC.
struct Moment {
    year: i64,
    month: u8,
    day: u8,
    /// Sunday is 1.
    weekday: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl Moment {
    /// From Unix seconds: days since 1 March of year 0, in eras of 400 years.
    fn of(unix: i64) -> Self {
        let small = |value: i64| u8::try_from(value).unwrap_or(0);
        let (days, rest) = (unix.div_euclid(86_400), unix.rem_euclid(86_400));
        let shifted = days + 719_468;
        let (era, in_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year = (in_era - in_era / 1460 + in_era / 36_524 - in_era / 146_096) / 365;
        let in_year = in_era - (365 * year + year / 4 - year / 100);
        let march = (5 * in_year + 2) / 153;
        let month = if march < 10 { march + 3 } else { march - 9 };
        Moment {
            year: era * 400 + year + i64::from(month <= 2),
            month: small(month),
            day: small(in_year - (153 * march + 2) / 5 + 1),
            weekday: small((days + 4).rem_euclid(7) + 1),
            hour: small(rest / 3600),
            minute: small(rest / 60 % 60),
            second: small(rest % 60),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(cmos: &mut Cmos, place: u8, now: i64) -> u8 {
        cmos.write(0, place);
        cmos.read(1, now)
    }

    #[test]
    fn the_time_is_the_hosts_in_bcd_or_binary() {
        let mut cmos = Cmos::new(64 << 20, 0, 1, &[BootDevice::HardDisk]);
        // 2024-02-29 23:59:58 UTC, a Thursday.
        let now = 1_709_251_198;
        let places = [0x32, 0x09, 0x08, 0x07, 0x06, 0x04, 0x02, 0x00];
        let read = |cmos: &mut Cmos| places.map(|place| at(cmos, place, now));
        assert_eq!(read(&mut cmos), [0x20, 0x24, 0x02, 0x29, 0x05, 0x23, 0x59, 0x58]);
        cmos.write(0, STATUS_B);
        cmos.write(1, 0x06);
        assert_eq!(read(&mut cmos), [20, 24, 2, 29, 5, 23, 59, 58]);
        cmos.write(0, STATUS_B);
        cmos.write(1, 0x00);
        assert_eq!(at(&mut cmos, 0x04, now), 0x91, "eleven in the evening");
        cmos.set_ahead(3);
        assert_eq!(at(&mut cmos, 0x08, now), 0x03, "the day after");
    }

    #[test]
    fn memory_and_boot_order() {
        let boot = [BootDevice::Cd, BootDevice::HardDisk, BootDevice::Floppy];
        let mut cmos = Cmos::new(3 << 30, 1 << 30, 2, &boot);
        let word = |cmos: &mut Cmos, place| u16::from_le_bytes([at(cmos, place, 0), at(cmos, place + 1, 0)]);
        assert_eq!(word(&mut cmos, 0x30), 0xffff);
        assert_eq!(word(&mut cmos, 0x34), (3 * 1024 - 16) * 16);
        assert_eq!(word(&mut cmos, 0x5b), 16_384);
        assert_eq!((at(&mut cmos, 0x3d, 0), at(&mut cmos, 0x38, 0)), (0x23, 0x11));
        assert_eq!(at(&mut cmos, 0x5f, 0), 1);
    }

    #[test]
    fn memory_is_kept_and_the_clock_is_not_written() {
        let mut cmos = Cmos::new(64 << 20, 0, 1, &[]);
        cmos.write(0, 0x80 | 0x40);
        cmos.write(1, 0xa5);
        assert_eq!(at(&mut cmos, 0x40, 0), 0xa5);
        cmos.write(0, 0x09);
        cmos.write(1, 0x99);
        assert_eq!(at(&mut cmos, 0x09, 0), 0x70);
    }
}
