//! What drives say about themselves.

use super::MULTIPLE;

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

/// Answer of a disk.
pub(super) fn identify_disk(
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

/// Answer of a CD drive.
pub(super) fn identify_cd(serial: &str) -> Vec<u8> {
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
