//! Programs for direct boot: 64-bit code that is entered at 1 MiB, with the lower 4 GiB mapped.

/// An ELF file of these parts, by address. It is entered at 0x100000.
pub fn elf(parts: &[(u64, &[u8])]) -> Vec<u8> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    elf.extend(0x10_0000u64.to_le_bytes()); // entry
    elf.extend(64u64.to_le_bytes()); // program headers
    elf.extend([0; 12]); // no sections, no flags
    for word in [64u16, 56, u16::try_from(parts.len()).unwrap(), 0, 0, 0] {
        elf.extend(word.to_le_bytes());
    }
    let mut place = 64 + 56 * parts.len() as u64;
    for &(address, bytes) in parts {
        elf.extend(1u32.to_le_bytes());
        elf.extend(7u32.to_le_bytes());
        for word in [place, address, address, bytes.len() as u64, bytes.len() as u64, 1] {
            elf.extend(word.to_le_bytes());
        }
        place += bytes.len() as u64;
    }
    for &(_, bytes) in parts {
        elf.extend_from_slice(bytes);
    }
    elf
}
