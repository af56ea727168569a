//! The parts of a `streamOptimized` file, made by hand; also for the fuzz target `vmdk_make_merge`.

/// Fills up to a whole sector.
pub fn pad(file: &mut Vec<u8>) {
    file.resize(file.len().next_multiple_of(512), 0);
}

/// A marker that announces `sectors` of metadata of a kind.
pub fn marker(file: &mut Vec<u8>, kind: u32, sectors: u64) {
    file.extend(sectors.to_le_bytes());
    file.extend(0_u32.to_le_bytes());
    file.extend(kind.to_le_bytes());
    pad(file);
}

/// The header of a disk of so many sectors, in grains of so many, whose grain directory is at a sector.
pub fn header(capacity: u64, grain: u64, directory: u64) -> Vec<u8> {
    let mut header = b"KDMV\x03\0\0\0\x01\0\x03\0".to_vec();
    for number in [capacity, grain, 1, 20] {
        header.extend(number.to_le_bytes());
    }
    header.extend(512_u32.to_le_bytes());
    for number in [0, directory, 128] {
        header.extend(number.to_le_bytes());
    }
    header.extend(b"\0\n \r\n\x01\0");
    pad(&mut header);
    header
}
