//! A VGA in text mode: its registers, and where on the screen what is.
//!
//! The registers are kept as written; the text lies in ordinary memory at 0xB8000, so that nothing
//! here costs the guest an exit. Graphics modes are not drawn.

use serde::{Deserialize, Serialize};

/// First port of the VGA proper.
pub const FIRST: u16 = 0x3b0;
/// Last port.
pub const LAST: u16 = 0x3df;
/// The ports by which the firmware asks for the Bochs extensions.
pub const DISPI: std::ops::RangeInclusive<u16> = 0x1ce..=0x1cf;
/// Where the text lies.
pub const TEXT: u64 = 0xb8000;
/// Bytes of the window at [`TEXT`].
pub const TEXT_SIZE: usize = 0x8000;

/// The chip.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Vga {
    miscellaneous: u8,
    sequencer: Bank,
    graphics: Bank,
    attribute: Bank,
    /// The next write to 0x3c0 is data.
    attribute_data: bool,
    crtc: Bank,
    /// Red, green, blue, 6 bits each, for 256 colours.
    palette: Vec<u8>,
    palette_mask: u8,
    palette_read: u16,
    palette_write: u16,
    retrace: bool,
    dispi: u16,
}

/// Registers behind an index.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Bank {
    index: u8,
    registers: Vec<u8>,
}

impl Bank {
    fn of(registers: &[u8]) -> Self {
        let mut registers = registers.to_vec();
        registers.resize(64, 0);
        Bank { index: 0, registers }
    }
    fn get(&self, number: u8) -> u8 {
        self.registers.get(usize::from(number)).copied().unwrap_or(0)
    }
    fn read(&self) -> u8 {
        self.get(self.index)
    }
    fn write(&mut self, value: u8) {
        if let Some(register) = self.registers.get_mut(usize::from(self.index)) {
            *register = value;
        }
    }
}

/// What the screen shows in text mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextMode {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
    /// Lines of pixels of a character.
    pub height: usize,
    /// First byte of the text, from [`TEXT`] on.
    pub start: usize,
    /// Place of the cursor in characters from the beginning of the memory, if it is shown.
    pub cursor: Option<usize>,
}

impl Default for Vga {
    /// As a BIOS leaves it: 80 by 25 characters, 16 colours.
    fn default() -> Self {
        let crtc = [
            0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0x00, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c, 0x8e,
            0x8f, 0x28, 0x1f, 0x96, 0xb9, 0xa3, 0xff,
        ];
        let attribute =
            [0, 1, 2, 3, 4, 5, 0x14, 7, 0x38, 0x39, 0x3a, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x0c, 0, 0x0f, 0x08];
        Vga {
            miscellaneous: 0x67,
            sequencer: Bank::of(&[3, 0, 3, 0, 2]),
            graphics: Bank::of(&[0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff]),
            attribute: Bank::of(&attribute),
            attribute_data: false,
            crtc: Bank::of(&crtc),
            palette: default_palette(),
            palette_mask: 0xff,
            palette_read: 0,
            palette_write: 0,
            retrace: false,
            dispi: 0,
        }
    }
}

/// The first 64 colours by their bits, as the EGA had them: two bits for each of red, green and blue.
fn default_palette() -> Vec<u8> {
    let mut palette = Vec::with_capacity(768);
    for number in 0..256u16 {
        for (strong, weak) in [(4, 32), (2, 16), (1, 8)] {
            let level = u8::from(number & strong != 0) * 42 + u8::from(number & weak != 0) * 21;
            palette.push(if number < 64 { level } else { 0 });
        }
    }
    palette
}

impl Vga {
    /// Reads one byte from a port between [`FIRST`] and [`LAST`].
    pub fn read(&mut self, port: u16) -> u8 {
        match port {
            0x3c0 => self.attribute.index,
            0x3c1 => self.attribute.read(),
            0x3c2 => 0x10,
            0x3c4 => self.sequencer.index,
            0x3c5 => self.sequencer.read(),
            0x3c6 => self.palette_mask,
            0x3c7 => 3,
            0x3c8 => u8::try_from(self.palette_write / 3).unwrap_or(0),
            0x3c9 => {
                let value = self.palette.get(usize::from(self.palette_read)).copied().unwrap_or(0);
                self.palette_read = self.palette_read.wrapping_add(1) % 768;
                value
            }
            0x3cc => self.miscellaneous,
            0x3ce => self.graphics.index,
            0x3cf => self.graphics.read(),
            0x3b4 | 0x3d4 => self.crtc.index,
            0x3b5 | 0x3d5 => self.crtc.read(),
            0x3ba | 0x3da => {
                self.attribute_data = false;
                self.retrace = !self.retrace;
                if self.retrace { 0x09 } else { 0x00 }
            }
            _ => 0xff,
        }
    }

    /// Writes one byte.
    pub fn write(&mut self, port: u16, value: u8) {
        match port {
            0x3c0 if self.attribute_data => {
                self.attribute.write(value);
                self.attribute_data = false;
            }
            0x3c0 => {
                self.attribute.index = value & 0x1f;
                self.attribute_data = true;
            }
            0x3c2 => self.miscellaneous = value,
            0x3c4 => self.sequencer.index = value & 0x07,
            0x3c5 => self.sequencer.write(value),
            0x3c6 => self.palette_mask = value,
            0x3c7 => self.palette_read = u16::from(value) * 3,
            0x3c8 => self.palette_write = u16::from(value) * 3,
            0x3c9 => {
                if let Some(level) = self.palette.get_mut(usize::from(self.palette_write)) {
                    *level = value & 0x3f;
                }
                self.palette_write = self.palette_write.wrapping_add(1) % 768;
            }
            0x3ce => self.graphics.index = value & 0x0f,
            0x3cf => self.graphics.write(value),
            0x3b4 | 0x3d4 => self.crtc.index = value & 0x3f,
            0x3b5 | 0x3d5 => self.crtc.write(value),
            _ => {}
        }
    }

    /// Reads a 16-bit register of the Bochs extensions: only their version is there.
    #[must_use]
    pub fn read_dispi(&self, port: u16) -> u16 {
        match (port, self.dispi) {
            (0x1ce, index) => index,
            (_, 0) => 0xb0c0,
            _ => 0,
        }
    }

    /// Selects such a register.
    pub fn write_dispi(&mut self, port: u16, value: u16) {
        if port == 0x1ce {
            self.dispi = value;
        }
    }

    /// What the screen shows, unless it is in a graphics mode.
    #[must_use]
    pub fn text_mode(&self) -> Option<TextMode> {
        if self.graphics.get(6) & 1 != 0 {
            return None;
        }
        let word = |high, low| usize::from(u16::from_be_bytes([self.crtc.get(high), self.crtc.get(low)]));
        let overflow = usize::from(self.crtc.get(7));
        let lines = (usize::from(self.crtc.get(0x12)) | (overflow & 0x02) << 7 | (overflow & 0x40) << 3) + 1;
        let height = usize::from(self.crtc.get(9) & 0x1f) + 1;
        let columns = usize::from(self.crtc.get(1)) + 1;
        let visible = self.crtc.get(0x0a) & 0x20 == 0;
        Some(TextMode {
            columns: columns.clamp(1, 160),
            rows: (lines / height).clamp(1, 100),
            height: height.min(16),
            start: word(0x0c, 0x0d) * 2 % TEXT_SIZE,
            cursor: visible.then(|| word(0x0e, 0x0f)),
        })
    }

    /// Red, green and blue, 8 bits each, of the 16 colours of text.
    #[must_use]
    pub fn colours(&self) -> [[u8; 3]; 16] {
        let mut colours = [[0; 3]; 16];
        for (number, colour) in (0u8..).zip(&mut colours) {
            let entry = usize::from(self.attribute.get(number) & 0x3f & self.palette_mask) * 3;
            for (place, level) in (entry..).zip(colour) {
                let value = self.palette.get(place).copied().unwrap_or(0) & 0x3f;
                *level = value << 2 | value >> 4;
            }
        }
        colours
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_usual_text_mode() {
        let vga = Vga::default();
        let mode = TextMode { columns: 80, rows: 25, height: 16, start: 0, cursor: Some(0) };
        assert_eq!(vga.text_mode(), Some(mode));
        let colours = vga.colours();
        assert_eq!((colours[0], colours[7], colours[15]), ([0; 3], [170; 3], [255; 3]));
        assert_eq!(colours[6], [170, 85, 0], "brown, not dark yellow");
    }

    #[test]
    fn registers_behind_their_indexes() {
        let mut vga = Vga::default();
        vga.read(0x3da);
        vga.write(0x3c0, 0x21);
        vga.write(0x3c0, 0x3f);
        assert_eq!(vga.colours()[1], [255; 3]);
        vga.write(0x3d4, 0x0e);
        vga.write(0x3d5, 0x01);
        assert_eq!(vga.text_mode().unwrap().cursor, Some(0x100));
        vga.write(0x3c8, 0);
        for level in [63, 0, 63] {
            vga.write(0x3c9, level);
        }
        assert_eq!(vga.colours()[0], [255, 0, 255]);
        vga.write(0x3ce, 6);
        vga.write(0x3cf, 5);
        assert_eq!(vga.text_mode(), None);
        vga.write_dispi(0x1ce, 0);
        assert_eq!(vga.read_dispi(0x1cf), 0xb0c0);
    }

    proptest! {
        #[test]
        fn any_accesses_leave_a_screen_that_can_be_drawn(accesses: Vec<(bool, u16, u8)>) {
            let mut vga = Vga::default();
            for (write, port, value) in accesses {
                let port = FIRST + port % 0x30;
                if write { vga.write(port, value); } else { vga.read(port); }
            }
            if let Some(mode) = vga.text_mode() {
                prop_assert!(mode.columns <= 160 && mode.rows <= 100 && mode.height <= 16);
            }
            let _ = vga.colours();
        }
    }
}
