//! How the firmware asks what it runs on: the "fw_cfg" ports 0x510 (which item) and 0x511 (its bytes).
//!
//! Items are numbered; those from 0x20 on are files with names, listed by item 0x19. Only reading.

/// Port that selects an item, 16 bits.
pub const SELECT: u16 = 0x510;
/// Port that reads its bytes one by one.
pub const DATA: u16 = 0x511;

const FIRST_FILE: u16 = 0x20;
const DIRECTORY: u16 = 0x19;

/// The items, and which one is being read. Only the latter is saved with a machine: the items are made
/// anew from its configuration.
#[derive(Debug, Clone, Default)]
pub struct FwCfg {
    items: Vec<(u16, Vec<u8>)>,
    files: Vec<String>,
    selected: u16,
    position: u32,
}

impl FwCfg {
    /// The items that every machine has.
    #[must_use]
    pub fn new(memory: u64, cpus: u16, uuid: [u8; 16]) -> Self {
        let mut cfg = FwCfg::default();
        cfg.items.push((0x00, b"QEMU".to_vec()));
        cfg.items.push((0x01, 1u32.to_le_bytes().to_vec()));
        cfg.items.push((0x02, uuid.to_vec()));
        cfg.items.push((0x03, memory.to_le_bytes().to_vec()));
        cfg.items.push((0x05, cpus.to_le_bytes().to_vec()));
        cfg.items.push((0x0f, cpus.to_le_bytes().to_vec()));
        cfg
    }

    /// Adds a file; names are cut after 55 bytes.
    pub fn add(&mut self, name: &str, contents: Vec<u8>) {
        let number = FIRST_FILE.saturating_add(u16::try_from(self.files.len()).unwrap_or(u16::MAX));
        self.items.push((number, contents));
        self.files.push(name.to_owned());
        let mut directory = u32::try_from(self.files.len()).unwrap_or(0).to_be_bytes().to_vec();
        for (number, name) in (FIRST_FILE..).zip(&self.files) {
            let length = self.item(number).map_or(0, <[u8]>::len);
            directory.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
            directory.extend_from_slice(&number.to_be_bytes());
            directory.extend_from_slice(&[0, 0]);
            let mut bytes: Vec<u8> = name.bytes().take(55).collect();
            bytes.resize(56, 0);
            directory.extend(bytes);
        }
        self.items.retain(|(number, _)| *number != DIRECTORY);
        self.items.push((DIRECTORY, directory));
    }

    fn item(&self, number: u16) -> Option<&[u8]> {
        self.items.iter().find(|(item, _)| *item == number).map(|(_, bytes)| bytes.as_slice())
    }

    /// Selects an item.
    pub fn select(&mut self, number: u16) {
        self.selected = number;
        self.position = 0;
    }

    /// The next byte of the item; zeros behind its end, and for items that do not exist.
    pub fn read(&mut self) -> u8 {
        let byte = self.item(self.selected).and_then(|bytes| bytes.get(self.position as usize)).copied();
        self.position = self.position.saturating_add(1);
        byte.unwrap_or(0)
    }

    /// Where reading stands, for a machine that goes on elsewhere.
    #[must_use]
    pub fn place(&self) -> (u16, u32) {
        (self.selected, self.position)
    }

    /// Goes on where another one stood.
    pub fn set_place(&mut self, (selected, position): (u16, u32)) {
        self.selected = selected;
        self.position = position;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(cfg: &mut FwCfg, count: usize) -> Vec<u8> {
        (0..count).map(|_| cfg.read()).collect()
    }

    #[test]
    fn items_and_files() {
        let mut cfg = FwCfg::new(64 << 20, 2, [7; 16]);
        cfg.add("etc/one", vec![1, 2, 3]);
        cfg.add("etc/two", vec![9]);
        cfg.select(0);
        assert_eq!(bytes(&mut cfg, 6), b"QEMU\0\0");
        cfg.select(0x19);
        assert_eq!(bytes(&mut cfg, 4), [0, 0, 0, 2]);
        let first = bytes(&mut cfg, 64);
        assert_eq!((&first[..8], &first[8..15]), (&[0, 0, 0, 3, 0, 0x20, 0, 0][..], &b"etc/one"[..]));
        cfg.select(0x21);
        assert_eq!(bytes(&mut cfg, 2), [9, 0]);
        cfg.select(0x4000);
        assert_eq!(bytes(&mut cfg, 2), [0, 0]);
        let place = cfg.place();
        cfg.select(5);
        cfg.set_place(place);
        assert_eq!(cfg.place(), (0x4000, 2));
    }
}
