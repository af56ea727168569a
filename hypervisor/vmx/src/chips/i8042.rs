//! The keyboard controller with a keyboard: ports 0x60 and 0x64.
//!
//! The keyboard speaks in codes of set 1, that is, as the controller translates them; a guest that
//! switches the translation off gets the same codes. There is no mouse: commands to it are not answered.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Effect;

/// The interrupt of the keyboard.
pub const IRQ: u32 = 1;

/// Key codes that wait at most: beyond that, keys are refused.
const QUEUE: usize = 4096;

const OUTPUT_FULL: u8 = 0x01;
const SYSTEM: u8 = 0x04;
const COMMAND: u8 = 0x08;
const UNLOCKED: u8 = 0x10;

const CONFIG_INTERRUPT: u8 = 0x01;
const CONFIG_DISABLED: u8 = 0x10;

/// What the next byte at port 0x60 is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Expect {
    /// A command to the keyboard.
    Keyboard,
    /// The parameter of a keyboard command: taken and acknowledged.
    KeyboardParameter,
    /// Which set of codes; 0 asks.
    Set,
    /// The controller's configuration.
    Config,
    /// The output port.
    OutputPort,
    /// To be given back as if the keyboard had sent it.
    Echo,
    /// For a mouse that is not there.
    Nobody,
}

/// The controller and the keyboard.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct I8042 {
    config: u8,
    expect: Expect,
    last_was_command: bool,
    set: u8,
    scanning: bool,
    /// Answers of controller and keyboard; they go before keys.
    answers: VecDeque<u8>,
    keys: VecDeque<u8>,
    /// The byte in the output register.
    output: Option<u8>,
    last: u8,
}

impl Default for I8042 {
    fn default() -> Self {
        I8042 {
            config: 0x45,
            expect: Expect::Keyboard,
            last_was_command: false,
            set: 2,
            scanning: true,
            answers: VecDeque::new(),
            keys: VecDeque::new(),
            output: None,
            last: 0,
        }
    }
}

impl I8042 {
    /// Types: puts codes into the keyboard's queue; all of them or, when there is no room, none.
    pub fn press(&mut self, codes: &[u8]) -> bool {
        if self.keys.len() + codes.len() > QUEUE {
            return false;
        }
        self.keys.extend(codes);
        self.refill();
        true
    }

    /// Codes that the guest has not read.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.keys.len() + usize::from(self.output.is_some())
    }

    /// Moves the next byte into the output register, if that is empty.
    fn refill(&mut self) {
        if self.output.is_none() {
            self.output = self.answers.pop_front().or_else(|| {
                let open = self.scanning && self.config & CONFIG_DISABLED == 0;
                if open { self.keys.pop_front() } else { None }
            });
        }
    }

    fn answer(&mut self, bytes: &[u8]) {
        // A guest that only writes must not fill our memory.
        if self.answers.len() < 64 {
            self.answers.extend(bytes);
        }
    }

    /// Reads port 0x60 (`port` 0) or 0x64 (4).
    pub fn read(&mut self, port: u16) -> u8 {
        if port == 4 {
            let full = if self.output.is_some() { OUTPUT_FULL } else { 0 };
            let command = if self.last_was_command { COMMAND } else { 0 };
            return full | command | SYSTEM | UNLOCKED;
        }
        if let Some(byte) = self.output.take() {
            self.last = byte;
        }
        // The next byte follows when the interrupt line has been seen low: see `irq`.
        self.last
    }

    /// To be called after an access, when the interrupt line has been set: lets the next byte through.
    pub fn settle(&mut self) {
        self.refill();
    }

    /// Writes port 0x60 or 0x64.
    pub fn write(&mut self, port: u16, value: u8) -> Option<Effect> {
        self.last_was_command = port == 4;
        if port == 4 {
            return self.command(value);
        }
        match std::mem::replace(&mut self.expect, Expect::Keyboard) {
            Expect::Keyboard => self.keyboard(value),
            Expect::KeyboardParameter => self.answer(&[0xfa]),
            Expect::Set => {
                self.answer(&[0xfa]);
                match value {
                    0 => self.answer(&[if self.set == 1 { 0x43 } else { 0x41 }]),
                    set => self.set = set,
                }
            }
            Expect::Config => self.config = value,
            Expect::OutputPort if value & 1 == 0 => return Some(Effect::Reset),
            Expect::OutputPort | Expect::Nobody => {}
            Expect::Echo => self.answer(&[value]),
        }
        None
    }

    fn command(&mut self, value: u8) -> Option<Effect> {
        self.expect = Expect::Keyboard;
        match value {
            0x20 => self.answer(&[self.config]),
            0x60 => self.expect = Expect::Config,
            0xa7 => self.config |= 0x20,
            0xa8 => self.config &= !0x20,
            0xa9 => self.answer(&[0x01]), // mouse test: clock stuck low, that is, no mouse
            0xaa => {
                self.output = None;
                self.answers.clear();
                self.answer(&[0x55]);
            }
            0xab => self.answer(&[0x00]),
            0xad => self.config |= CONFIG_DISABLED,
            0xae => self.config &= !CONFIG_DISABLED,
            0xc0 => self.answer(&[0x80]),
            0xd0 => self.answer(&[0x03]),
            0xd1 => self.expect = Expect::OutputPort,
            0xd2 => self.expect = Expect::Echo,
            0xd3 | 0xd4 => self.expect = Expect::Nobody,
            // Pulse the output port: bit 0 is the reset line.
            0xf0..=0xff if value & 1 == 0 => return Some(Effect::Reset),
            _ => {}
        }
        None
    }

    fn keyboard(&mut self, value: u8) {
        // A byte to the keyboard opens its line again.
        self.config &= !CONFIG_DISABLED;
        match value {
            0xed | 0xf3 => {
                self.expect = Expect::KeyboardParameter;
                self.answer(&[0xfa]);
            }
            0xf0 => {
                self.expect = Expect::Set;
                self.answer(&[0xfa]);
            }
            0xee => self.answer(&[0xee]),
            0xf2 => self.answer(&[0xfa, 0xab, 0x41]),
            0xf4 => {
                self.scanning = true;
                self.answer(&[0xfa]);
            }
            0xf5 | 0xf6 => {
                self.scanning = value == 0xf6;
                self.set = 2;
                self.answer(&[0xfa]);
            }
            0xff => {
                self.scanning = true;
                self.set = 2;
                self.keys.clear();
                self.answer(&[0xfa, 0xaa]);
            }
            _ => self.answer(&[0xfe]),
        }
    }

    /// Level of [`IRQ`].
    #[must_use]
    pub fn irq(&self) -> bool {
        self.output.is_some() && self.config & CONFIG_INTERRUPT != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ask(chip: &mut I8042, port: u16, value: u8) -> Vec<u8> {
        assert_eq!(chip.write(port, value), None);
        let mut bytes = Vec::new();
        chip.settle();
        while chip.read(4) & OUTPUT_FULL != 0 {
            bytes.push(chip.read(0));
            chip.settle();
        }
        bytes
    }

    #[test]
    fn what_a_bios_does_first() {
        let mut chip = I8042::default();
        assert_eq!(ask(&mut chip, 4, 0xaa), [0x55]);
        assert_eq!(ask(&mut chip, 4, 0xab), [0x00]);
        assert_eq!(ask(&mut chip, 0, 0xff), [0xfa, 0xaa]);
        assert_eq!(ask(&mut chip, 0, 0xf5), [0xfa]);
        assert_eq!(ask(&mut chip, 0, 0xf0), [0xfa]);
        assert_eq!(ask(&mut chip, 0, 0x02), [0xfa]);
        assert!(ask(&mut chip, 4, 0x60).is_empty());
        assert!(ask(&mut chip, 0, 0x61).is_empty());
        assert_eq!(ask(&mut chip, 4, 0x20), [0x61]);
        assert_eq!(ask(&mut chip, 0, 0xf4), [0xfa]);
    }

    #[test]
    fn keys_come_one_by_one_with_an_interrupt_each() {
        let mut chip = I8042::default();
        assert!(chip.press(&[0x1e, 0x9e]));
        assert!(chip.irq());
        assert_eq!(chip.read(0), 0x1e);
        assert!(!chip.irq(), "the line falls between two bytes");
        chip.settle();
        assert!(chip.irq());
        assert_eq!(chip.read(0), 0x9e);
        chip.settle();
        assert!(!chip.irq());
        assert_eq!(chip.read(0), 0x9e, "the last byte stays readable");
        chip.write(0, 0xf5);
        ask(&mut chip, 0, 0xf5);
        chip.press(&[1]);
        assert!(!chip.irq(), "keys wait while scanning is off");
        assert!(!chip.press(&[0; QUEUE]));
    }

    #[test]
    fn three_ways_to_reset() {
        let mut chip = I8042::default();
        assert_eq!(chip.write(4, 0xfe), Some(Effect::Reset));
        chip.write(4, 0xd1);
        assert_eq!(chip.write(0, 0x02), Some(Effect::Reset));
        chip.write(4, 0xd1);
        assert_eq!(chip.write(0, 0x03), None);
    }

    proptest! {
        #[test]
        fn any_accesses_leave_it_bounded(accesses: Vec<(bool, bool, u8)>) {
            let mut chip = I8042::default();
            for (write, command, value) in accesses {
                let port = if command { 4 } else { 0 };
                if write { chip.write(port, value); } else { chip.read(port); }
                chip.settle();
                prop_assert!(chip.answers.len() <= 64 + 3);
            }
        }
    }
}
