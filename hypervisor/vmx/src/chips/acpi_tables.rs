//! The ACPI tables, and the script by which the firmware puts them into memory.
//!
//! The firmware decides where the tables lie: it reads the blob `etc/acpi/tables`, allocates room, and
//! follows the commands of `etc/table-loader` (allocate, add a pointer, add a checksum). So addresses
//! and checksums are left 0 here.
//!
//! Tables: FACS, DSDT (only `\_S5_`), FADT of revision 1, MADT (processors and the I/O APIC), RSDT.

use super::acpi_pm;

/// Where an I/O APIC is, as KVM has it.
const IO_APIC: u32 = 0xfec0_0000;
/// Where each processor sees its local APIC.
const LOCAL_APIC: u32 = 0xfee0_0000;

/// The three files for the firmware.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// `etc/acpi/tables`.
    pub tables: Vec<u8>,
    /// `etc/acpi/rsdp`.
    pub rsdp: Vec<u8>,
    /// `etc/table-loader`.
    pub loader: Vec<u8>,
}

const TABLES: &str = "etc/acpi/tables";
const RSDP: &str = "etc/acpi/rsdp";

/// `Name (\_S5_, Package (4) { 0, 0, 0, 0 })`: SLP_TYP 0 is soft off.
const S5: [u8; 12] = [0x08, b'_', b'S', b'5', b'_', 0x12, 0x06, 0x04, 0x00, 0x00, 0x00, 0x00];

/// Builds the tables for a machine with `cpus` processors.
#[must_use]
pub fn build(cpus: u8) -> Tables {
    let mut tables = Vec::new();
    let mut loader = Loader::default();
    loader.allocate(TABLES, 64, 1);
    loader.allocate(RSDP, 16, 2);

    let facs = tables.len();
    tables.extend_from_slice(b"FACS");
    tables.extend_from_slice(&64u32.to_le_bytes());
    tables.resize(facs + 64, 0);

    let dsdt = table(&mut tables, &mut loader, b"DSDT", 1, &S5);
    let fadt = table(&mut tables, &mut loader, b"FACP", 1, &fadt_body(facs, dsdt));
    loader.pointer(TABLES, TABLES, fadt + 36, 4);
    loader.pointer(TABLES, TABLES, fadt + 40, 4);
    let madt = table(&mut tables, &mut loader, b"APIC", 1, &madt_body(cpus));
    let mut entries = Vec::new();
    for entry in [fadt, madt] {
        entries.extend_from_slice(&low32(entry).to_le_bytes());
    }
    let rsdt = table(&mut tables, &mut loader, b"RSDT", 1, &entries);
    loader.pointer(TABLES, TABLES, rsdt + 36, 4);
    loader.pointer(TABLES, TABLES, rsdt + 40, 4);

    let mut rsdp = Vec::from(*b"RSD PTR \0VMSRVD\0");
    rsdp.extend_from_slice(&low32(rsdt).to_le_bytes());
    loader.pointer(RSDP, TABLES, 16, 4);
    loader.checksum(RSDP, 8, 0, 20);
    // Checksums last: pointers change what they cover.
    let Loader { mut commands, checksums } = loader;
    commands.extend(checksums);
    Tables { tables, rsdp, loader: commands }
}

fn low32(value: usize) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// Appends one table with its header; returns where it begins.
fn table(out: &mut Vec<u8>, loader: &mut Loader, signature: &[u8; 4], revision: u8, body: &[u8]) -> usize {
    let start = out.len();
    let length = 36 + body.len();
    out.extend_from_slice(signature);
    out.extend_from_slice(&low32(length).to_le_bytes());
    out.extend_from_slice(&[revision, 0]);
    out.extend_from_slice(b"VMSRVDMACHINE ");
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(b"VMSD");
    out.extend_from_slice(&1u32.to_le_bytes());
    out.extend_from_slice(body);
    loader.checksum(TABLES, start + 9, start, length);
    start
}

/// FADT of revision 1, behind its header.
fn fadt_body(facs: usize, dsdt: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(80);
    body.extend_from_slice(&low32(facs).to_le_bytes());
    body.extend_from_slice(&low32(dsdt).to_le_bytes());
    body.extend_from_slice(&[1, 0]); // dual PIC
    body.extend_from_slice(&9u16.to_le_bytes()); // SCI
    body.extend_from_slice(&0u32.to_le_bytes()); // no SMI port: always in ACPI mode
    body.extend_from_slice(&[0, 0, 0, 0]);
    let port = |offset: u16| u32::from(acpi_pm::BASE + offset).to_le_bytes();
    let none = 0u32.to_le_bytes();
    for block in [port(0), none, port(4), none, none, port(8), none, none] {
        body.extend_from_slice(&block);
    }
    body.extend_from_slice(&[4, 2, 0, 4, 0, 0, 0, 0]); // lengths of those blocks
    body.extend_from_slice(&0xffffu16.to_le_bytes()); // no C2
    body.extend_from_slice(&0xffffu16.to_le_bytes()); // no C3
    body.extend_from_slice(&[0; 4]); // no cache flush needed
    body.extend_from_slice(&[0, 0]); // duty
    body.extend_from_slice(&[0, 0, 0x32]); // no alarm registers; century byte of the clock
    body.extend_from_slice(&[0, 0, 0]);
    // WBINVD works, C1 works, no sleep button, fixed power button.
    body.extend_from_slice(&(1u32 | 1 << 2 | 1 << 5).to_le_bytes());
    body
}

/// MADT behind its header: processors, the I/O APIC, and the timer's interrupt, which is on pin 2.
fn madt_body(cpus: u8) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&LOCAL_APIC.to_le_bytes());
    body.extend_from_slice(&1u32.to_le_bytes()); // there are PICs, too
    for cpu in 0..cpus {
        body.extend_from_slice(&[0, 8, cpu, cpu, 1, 0, 0, 0]);
    }
    body.extend_from_slice(&[1, 12, 0, 0]);
    body.extend_from_slice(&IO_APIC.to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes());
    body.extend_from_slice(&[2, 10, 0, 0, 2, 0, 0, 0, 0, 0]); // IRQ 0 is pin 2
    body.extend_from_slice(&[2, 10, 0, 9, 9, 0, 0, 0, 0x0d, 0]); // SCI: level, active high
    body
}

/// Writes `etc/table-loader`: commands of 128 bytes.
#[derive(Default)]
struct Loader {
    commands: Vec<u8>,
    checksums: Vec<u8>,
}

impl Loader {
    fn allocate(&mut self, file: &str, alignment: u32, zone: u8) {
        let mut fields = name(file);
        fields.extend_from_slice(&alignment.to_le_bytes());
        fields.push(zone);
        command(&mut self.commands, 1, &fields);
    }

    /// At `offset` of `file` there is an offset into `target`: make it an address.
    fn pointer(&mut self, file: &str, target: &str, offset: usize, size: u8) {
        let mut fields = name(file);
        fields.extend(name(target));
        fields.extend_from_slice(&low32(offset).to_le_bytes());
        fields.push(size);
        command(&mut self.commands, 2, &fields);
    }

    fn checksum(&mut self, file: &str, offset: usize, start: usize, length: usize) {
        let mut fields = name(file);
        for number in [offset, start, length] {
            fields.extend_from_slice(&low32(number).to_le_bytes());
        }
        command(&mut self.checksums, 3, &fields);
    }
}

fn name(file: &str) -> Vec<u8> {
    let mut bytes = file.as_bytes().to_vec();
    bytes.resize(56, 0);
    bytes
}

fn command(out: &mut Vec<u8>, number: u32, fields: &[u8]) {
    let end = out.len() + 128;
    out.extend_from_slice(&number.to_le_bytes());
    out.extend_from_slice(fields);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_hang_together() {
        let Tables { tables, rsdp, loader } = build(2);
        assert_eq!(loader.len() % 128, 0);
        let find = |signature: &[u8; 4]| tables.windows(4).position(|window| window == signature).unwrap();
        let word = |at: usize| u32::from_le_bytes(tables[at..at + 4].try_into().unwrap()) as usize;
        let (facs, dsdt, fadt) = (find(b"FACS"), find(b"DSDT"), find(b"FACP"));
        assert_eq!((word(fadt + 36), word(fadt + 40)), (facs, dsdt));
        assert_eq!(word(fadt + 4), 116, "length of a revision 1 FADT");
        assert_eq!((word(fadt + 56), word(fadt + 64), word(fadt + 76)), (0x600, 0x604, 0x608));
        assert_eq!((tables[fadt + 88], tables[fadt + 89], tables[fadt + 91]), (4, 2, 4));
        let rsdt = u32::from_le_bytes(rsdp[16..20].try_into().unwrap()) as usize;
        assert_eq!(&tables[rsdt..rsdt + 4], b"RSDT");
        assert_eq!((word(rsdt + 36), word(rsdt + 40)), (fadt, find(b"APIC")));
        assert_eq!(word(facs + 4), 64);
        assert!(tables.windows(12).any(|window| window == S5));
        // 2 allocations, 5 pointers, 5 checksums.
        assert_eq!(loader.len() / 128, 12);
    }
}
