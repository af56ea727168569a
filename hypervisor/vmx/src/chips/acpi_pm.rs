//! ACPI power management: the fixed registers at 0x600.
//!
//! | port | width | register |
//! |---|---|---|
//! | 0x600 | 16 | PM1a status: power button (bit 8), write one to clear |
//! | 0x602 | 16 | PM1a enable |
//! | 0x604 | 16 | PM1a control: SCI_EN (bit 0, always set), SLP_TYP (10-12), SLP_EN (13) |
//! | 0x608 | 32 | timer, 24 bits, 3 579 545 Hz |
//!
//! The machine is in ACPI mode from the start: there is no SMI to switch it.

use serde::{Deserialize, Serialize};

use super::Effect;

/// First port.
pub const BASE: u16 = 0x600;
/// The interrupt of the power button.
pub const SCI: u32 = 9;
/// SLP_TYP of "soft off", as the DSDT says.
pub const SOFT_OFF: u16 = 0;

const POWER_BUTTON: u16 = 1 << 8;
const SCI_EN: u16 = 1;
const SLP_EN: u16 = 1 << 13;
const TIMER_HZ: u128 = 3_579_545;

/// The registers.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AcpiPm {
    status: u16,
    enable: u16,
    control: u16,
}

impl AcpiPm {
    /// Reads one byte at `offset` from [`BASE`]; `nanoseconds` is the time since power on.
    #[must_use]
    pub fn read(&self, offset: u16, nanoseconds: u64) -> u8 {
        let ticks = (u128::from(nanoseconds) * TIMER_HZ / 1_000_000_000) & 0x00ff_ffff;
        let registers = u128::from(self.status)
            | u128::from(self.enable) << 16
            | u128::from(self.control | SCI_EN) << 32
            | ticks << 64;
        registers.to_le_bytes().get(usize::from(offset)).copied().unwrap_or(0xff)
    }

    /// Writes `data`, one to four bytes, at `offset`.
    pub fn write(&mut self, offset: u16, data: &[u8]) -> Option<Effect> {
        let mut effect = None;
        for (place, &byte) in (offset..).zip(data) {
            let shift = 8 * (place & 1);
            let value = u16::from(byte) << shift;
            let keep = !(0xff << shift);
            match place & !1 {
                0 => self.status &= !value,
                2 => self.enable = self.enable & keep | value,
                4 => {
                    self.control = (self.control & keep | value) & !SLP_EN;
                    if value & SLP_EN != 0 && self.control >> 10 & 7 == SOFT_OFF {
                        effect = Some(Effect::PowerOff);
                    }
                }
                _ => {}
            }
        }
        effect
    }

    /// Somebody presses the power button.
    pub fn press_power_button(&mut self) {
        self.status |= POWER_BUTTON;
    }

    /// Whether the guest listens to the power button at all.
    #[must_use]
    pub fn wants_power_button(&self) -> bool {
        self.enable & POWER_BUTTON != 0
    }

    /// Level of [`SCI`].
    #[must_use]
    pub fn irq(&self) -> bool {
        self.status & self.enable != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn soft_off_is_sleep_enable_with_the_right_type() {
        let mut pm = AcpiPm::default();
        assert_eq!(pm.write(4, &[0, 0x04]), None, "type without enable");
        assert_eq!(pm.write(4, &[0, 0x24]), None, "another type");
        assert_eq!(pm.write(4, &[0, 0x20]), Some(Effect::PowerOff));
        assert_eq!(pm.read(4, 0), 1);
    }

    #[test]
    fn the_power_button_interrupts_until_it_is_acknowledged() {
        let mut pm = AcpiPm::default();
        pm.press_power_button();
        assert!(!pm.irq() && !pm.wants_power_button());
        pm.write(2, &[0, 1]);
        assert!(pm.irq() && pm.wants_power_button());
        pm.write(0, &[0, 1]);
        assert!(!pm.irq());
    }

    #[test]
    fn the_timer_counts_and_wraps() {
        let pm = AcpiPm::default();
        let at = |time| u32::from_le_bytes([8, 9, 10, 11].map(|offset| pm.read(offset, time)));
        assert_eq!(at(1_000_000_000), 3_579_545);
        assert_eq!(at(10_000_000_000), 35_795_450 & 0xff_ffff);
        assert_eq!(pm.read(16, 0), 0xff);
    }
}
