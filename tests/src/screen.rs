//! Reads what a screenshot shows, character by character, with the font of the VGA BIOS.

use std::path::Path;

/// Size of a character on the screen, and lines of a glyph.
const WIDTH: usize = 9;
const HEIGHT: usize = 16;

/// The text of a picture of a text screen, line by line, without the spaces at the ends. What is no
/// character of ASCII is `#`.
///
/// # Panics
/// When it is no such picture, or the package seabios is not installed.
#[must_use]
pub fn read(png: &[u8]) -> Vec<String> {
    let rom = std::fs::read(Path::new("/usr/share/seabios/vgabios-isavga.bin")).expect("the VGA BIOS");
    let glyphs = font(&rom);
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    // Colours instead of numbers of a palette.
    decoder.set_transformations(png::Transformations::EXPAND);
    let mut reader = decoder.read_info().expect("a PNG");
    let mut pixels = vec![0; reader.output_buffer_size().expect("a size")];
    let frame = reader.next_frame(&mut pixels).expect("a picture");
    let (width, height) = (frame.width as usize, frame.height as usize);
    let samples = frame.color_type.samples();
    assert_eq!((width % WIDTH, height % HEIGHT), (0, 0), "no text screen: {width} by {height}");
    let pixel = |x: usize, y: usize| &pixels[(y * width + x) * samples..][..samples];
    let character = |column: usize, row: usize| {
        let (left, top) = (column * WIDTH, row * HEIGHT);
        // The ninth column of a letter is the background.
        let back = pixel(left + 8, top);
        let line =
            |y: usize| (0..8).fold(0u8, |bits, x| bits << 1 | u8::from(pixel(left + x, top + y) != back));
        let shape: Vec<u8> = (0..HEIGHT).map(line).collect();
        // The cursor is in the lowest lines.
        let alike = |glyph: &[u8]| glyph == shape || glyph[..13] == shape[..13] && shape[13..15] == [0xff; 2];
        let found = (0x20..0x7f).find(|&code| alike(&glyphs[usize::from(code) * HEIGHT..][..HEIGHT]));
        found.map_or('#', |code: u8| char::from(code))
    };
    let line = |row| (0..width / WIDTH).map(|column| character(column, row)).collect::<String>();
    (0..height / HEIGHT).map(|row| line(row).trim_end().to_owned()).collect()
}

/// The font of 8 by 16 in a VGA BIOS: where the space is empty, the full block is full, and `I`, `-` and
/// `_` are what they look like.
fn font(rom: &[u8]) -> &[u8] {
    let is_font = |glyphs: &[u8]| {
        let glyph = |code: u8| &glyphs[usize::from(code) * HEIGHT..][..HEIGHT];
        let lit = |code: u8| glyph(code).iter().filter(|line| **line != 0).count();
        glyph(b' ') == [0; HEIGHT]
            && glyph(0xdb) == [0xff; HEIGHT]
            && lit(b'-') == 1
            && lit(b'_') == 1
            && lit(b'I') == 10
    };
    rom.windows(256 * HEIGHT).find(|window| is_font(window)).expect("a font of 8 by 16")
}
