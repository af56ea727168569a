//! The text screen as a picture, and as text.
//!
//! The font is that of the machine's own VGA BIOS, read from its image: what an adapter would show.

use std::io;

use crate::chips::vga::TextMode;

/// Lines of pixels of a character.
pub const HEIGHT: usize = 16;
/// Columns of pixels of a character: the ninth is what separates characters.
pub const WIDTH: usize = 9;

/// The letter A as IBM drew it for VGA, and everybody after.
const LETTER_A: [u8; HEIGHT] = [0, 0, 0x10, 0x38, 0x6c, 0xc6, 0xc6, 0xfe, 0xc6, 0xc6, 0xc6, 0xc6, 0, 0, 0, 0];

/// A font of 256 characters of 8 by 16 pixels, one byte a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Font {
    glyphs: Vec<u8>,
}

impl Font {
    /// Finds the font in the image of a VGA BIOS, by the shape of a letter.
    #[must_use]
    pub fn in_rom(rom: &[u8]) -> Option<Self> {
        let letter = rom.windows(HEIGHT).position(|lines| lines == LETTER_A)?;
        let start = letter.checked_sub(usize::from(b'A') * HEIGHT)?;
        let glyphs = rom.get(start..start + 256 * HEIGHT)?.to_vec();
        // The space is empty, the full block is full.
        let line = |character: usize, line: usize| glyphs.get(character * HEIGHT + line).copied();
        let right =
            (0..HEIGHT).all(|number| line(0x20, number) == Some(0) && line(0xdb, number) == Some(0xff));
        right.then_some(Font { glyphs })
    }

    fn line(&self, character: u8, line: usize) -> u8 {
        self.glyphs.get(usize::from(character) * HEIGHT + line).copied().unwrap_or(0)
    }
}

/// What is on a text screen: characters and attributes, line by line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
    /// `columns * rows` characters (code page 437) with their attributes.
    pub cells: Vec<(u8, u8)>,
    /// Which cell the cursor is in, if it is shown.
    pub cursor: Option<usize>,
}

impl Text {
    /// Takes the screen out of the text memory.
    #[must_use]
    pub fn of(mode: &TextMode, memory: &[u8]) -> Self {
        let count = mode.columns * mode.rows;
        let bytes = memory.iter().copied().cycle().skip(mode.start).take(count * 2);
        let mut bytes: Vec<u8> = bytes.collect();
        bytes.resize(count * 2, 0);
        let cells = bytes.chunks_exact(2).map(|cell| match cell {
            [character, attribute] => (*character, *attribute),
            _ => (0, 0),
        });
        let cursor =
            mode.cursor.and_then(|place| place.checked_sub(mode.start / 2)).filter(|&cell| cell < count);
        Text { columns: mode.columns, rows: mode.rows, cells: cells.collect(), cursor }
    }

    /// The lines as text, trailing blanks left out; what is not ASCII is shown as `#`.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let character = |&(character, _): &(u8, u8)| match character {
            0 => ' ',
            0x20..=0x7e => char::from(character),
            _ => '#',
        };
        let line = |row: &[(u8, u8)]| row.iter().map(character).collect::<String>().trim_end().to_owned();
        self.cells.chunks(self.columns.max(1)).map(line).collect()
    }

    /// Draws the screen as a PNG: width, height, file.
    ///
    /// # Errors
    /// When the encoder refuses.
    pub fn png(&self, font: &Font, colours: &[[u8; 3]; 16]) -> io::Result<(u32, u32, Vec<u8>)> {
        let (width, height) = (self.columns * WIDTH, self.rows * HEIGHT);
        let mut pixels = Vec::with_capacity(width * height);
        for (row, cells) in self.cells.chunks(self.columns.max(1)).enumerate() {
            for line in 0..HEIGHT {
                for (column, &(character, attribute)) in cells.iter().enumerate() {
                    let cursor = self.cursor == Some(row * self.columns + column)
                        && (HEIGHT - 3..HEIGHT - 1).contains(&line);
                    let bits = if cursor { 0xff } else { font.line(character, line) };
                    let (front, back) = (attribute & 0x0f, attribute >> 4 & 0x07);
                    pixels.extend((0..8).map(|bit| if bits << bit & 0x80 != 0 { front } else { back }));
                    // Line graphics go through the gap between two characters.
                    let joined = cursor || (0xc0..=0xdf).contains(&character);
                    pixels.push(if joined && bits & 1 != 0 { front } else { back });
                }
            }
        }
        let to_u32 = |value: usize| u32::try_from(value).map_err(io::Error::other);
        let (width, height) = (to_u32(width)?, to_u32(height)?);
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_color(png::ColorType::Indexed);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_palette(colours.concat());
        let mut writer = encoder.write_header().map_err(io::Error::other)?;
        writer.write_image_data(&pixels).map_err(io::Error::other)?;
        writer.finish().map_err(io::Error::other)?;
        Ok((width, height, file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chips::vga::Vga;

    fn font() -> (Vec<u8>, Font) {
        let mut rom = vec![0x55, 0xaa, 3];
        for character in 0..256usize {
            let full = [0xff; HEIGHT];
            rom.extend_from_slice(match character {
                0x41 => &LETTER_A,
                0xdb => &full,
                _ => &[0; HEIGHT],
            });
        }
        let font = Font::in_rom(&rom).unwrap();
        (rom, font)
    }

    #[test]
    fn the_font_is_found_or_refused() {
        let (mut rom, font) = font();
        assert_eq!(font.line(b'A', 3), 0x38);
        rom.truncate(3000);
        assert_eq!(Font::in_rom(&rom), None);
        assert_eq!(Font::in_rom(&LETTER_A), None);
    }

    #[test]
    fn a_screen_is_drawn_and_read() {
        let (_, font) = font();
        let vga = Vga::default();
        let mut memory = vec![0; 0x8000];
        memory[160..164].copy_from_slice(&[b'A', 0x1f, 0xb3, 0x07]);
        let text = Text::of(&vga.text_mode().unwrap(), &memory);
        assert_eq!((text.lines()[1].as_str(), text.lines().len()), ("A#", 25));
        let (width, height, file) = text.png(&font, &vga.colours()).unwrap();
        assert_eq!((width, height), (720, 400));
        let mut reader = png::Decoder::new(io::Cursor::new(&file)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        let row: Vec<u8> = pixels[(16 + 3) * 720..][..9].to_vec();
        assert_eq!(row, [1, 1, 15, 15, 15, 1, 1, 1, 1]);
    }
}
