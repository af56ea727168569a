//! Guests of our own, for machines whose work is known to the instruction: images in place of a BIOS.
//!
//! ```text
//!   reset ─▶ '!' to COM1, a byte to port 0xf4 ─▶ job
//! ```
//!
//! An image is 128 KiB, as a BIOS is; the processor starts at its last 16 bytes. Nothing else runs in such
//! a machine, so both sides of a comparison execute the same instructions. Port 0xf4 ends a QEMU that has
//! the device for it, and is nothing elsewhere.

use std::fs;
use std::path::Path;

use crate::Result;

/// What the guests say when they are up, behind the `!` of their first instructions.
pub const BANNER: &str = "HELLO FROM THE ROM";

/// Where the directory of the firmware has what else a machine needs.
const VGA_BIOS: &str = "vgabios-isavga.bin";

/// The image and where in it the code of a job begins: F000:0000.
const SIZE: usize = 128 * 1024;
const CODE: usize = 64 * 1024;
/// In that segment: the banner, a table of segments, and what loads it.
const TEXT: u16 = 0x8000;
const GDT: u16 = 0x8100;
const GDTR: u16 = 0x8120;

/// What a guest does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Says its banner and halts.
    Banner,
    /// Writes to every page from 1 MiB to so many bytes, says its banner, and repeats what it is sent.
    Memory(u32),
    /// Reads so many sectors of its first disk, a multiple of 128; `S` before and `E` after.
    Read(u32),
    /// Writes them and flushes.
    Write(u32),
}

/// Sectors of a command, and of one of its blocks.
const COMMAND: u8 = 128;
const BLOCK: u8 = 16;

/// Machine code that grows.
struct Code(Vec<u8>);

impl Code {
    fn put(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }
    fn here(&self) -> usize {
        self.0.len()
    }
    /// A short jump back: its opcode and where to.
    fn back(&mut self, opcode: u8, to: usize) -> &mut Self {
        let distance = (to as i64 - (self.here() as i64 + 2)) as i8;
        self.put(&[opcode, distance.cast_unsigned()])
    }
    /// `mov dx, port; mov al, value; out dx, al`
    fn out(&mut self, port: u16, value: u8) -> &mut Self {
        let [low, high] = port.to_le_bytes();
        self.put(&[0xba, low, high, 0xb0, value, 0xee])
    }
    /// Waits until the disk is not busy.
    fn ready(&mut self) -> &mut Self {
        self.put(&[0xba, 0xf7, 0x01]); // mov dx, 0x1f7
        let wait = self.here();
        self.put(&[0xec, 0xa8, 0x80]).back(0x75, wait) // in al, dx; test al, 0x80; jnz wait
    }
}

/// The image of a guest that does this.
pub fn image(job: Job) -> Vec<u8> {
    let mut rom = vec![0xf4; SIZE];
    let mut place = |at: usize, bytes: &[u8]| {
        if let Some(target) = rom.get_mut(at..at + bytes.len()) {
            target.copy_from_slice(bytes);
        }
    };
    let mut code = Code(vec![
        0xfa, 0xfc, // cli; cld
        0x8c, 0xc8, 0x8e, 0xd8, // mov ax, cs; mov ds, ax
    ]);
    match job {
        Job::Banner => banner(&mut code),
        Job::Memory(end) => memory(&mut code, end),
        Job::Read(sectors) => disk(&mut code, sectors, false),
        Job::Write(sectors) => disk(&mut code, sectors, true),
    }
    let halt = code.here();
    code.put(&[0xf4]).back(0xeb, halt); // hlt; jmp
    place(CODE, &code.0);
    place(CODE + usize::from(TEXT), BANNER.as_bytes());
    place(CODE + usize::from(TEXT) + BANNER.len(), &[0]);
    // Flat code and data, marked as used, because nobody can write here.
    let descriptor = |kind: u8| [0xff, 0xff, 0, 0, 0, kind, 0xcf, 0];
    place(CODE + usize::from(GDT), &[[0; 8], descriptor(0x9b), descriptor(0x93)].concat());
    let [low, high] = GDT.to_le_bytes();
    place(CODE + usize::from(GDTR), &[23, 0, low, high, 0x0f, 0]);
    // mov dx, 0x3f8; mov al, '!'; out dx, al; out 0xf4, al; jmp 0xf000:0
    place(SIZE - 16, &[0xba, 0xf8, 0x03, 0xb0, b'!', 0xee, 0xe6, 0xf4, 0xea, 0, 0, 0, 0xf0]);
    rom
}

fn banner(code: &mut Code) {
    let [low, high] = TEXT.to_le_bytes();
    code.put(&[0xba, 0xf8, 0x03, 0xbe, low, high]); // mov dx, 0x3f8; mov si, TEXT
    let next = code.here();
    code.put(&[0xac, 0x84, 0xc0, 0x74, 0x03, 0xee]).back(0xeb, next); // lodsb; test al, al; jz; out dx, al; jmp
}

fn memory(code: &mut Code, end: u32) {
    let [low, high] = GDTR.to_le_bytes();
    code.put(&[0x66, 0x0f, 0x01, 0x16, low, high]); // lgdt [GDTR]
    code.put(&[0x0f, 0x20, 0xc0, 0x0c, 0x01, 0x0f, 0x22, 0xc0]); // mov eax, cr0; or al, 1; mov cr0, eax
    let [low, high] = (code.here() as u16 + 8).to_le_bytes();
    code.put(&[0x66, 0xea, low, high, 0x0f, 0, 0x08, 0]); // jmp 8:the next instruction, 32 bits from there on
    code.put(&[0x66, 0xb8, 0x10, 0, 0x8e, 0xd8, 0x8e, 0xc0]); // mov ax, 16; mov ds, ax; mov es, ax
    code.put(&[0xbf, 0, 0, 0x10, 0]); // mov edi, 1 MiB
    let page = code.here();
    code.put(&[0x89, 0x3f, 0x81, 0xc7, 0, 0x10, 0, 0]); // mov [edi], edi; add edi, 4096
    code.put(&[0x81, 0xff]).put(&end.to_le_bytes()).back(0x72, page); // cmp edi, end; jb
    let [low, high] = TEXT.to_le_bytes();
    code.put(&[0xbe, low, high, 0x0f, 0, 0x66, 0xba, 0xf8, 0x03]); // mov esi, TEXT; mov dx, 0x3f8
    let next = code.here();
    code.put(&[0xac, 0x84, 0xc0, 0x74, 0x03, 0xee]).back(0xeb, next);
    let echo = code.here();
    code.put(&[0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01]).back(0x74, echo); // wait for a byte
    code.put(&[0x66, 0xba, 0xf8, 0x03, 0xec, 0xee]).back(0xeb, echo); // in al, dx; out dx, al
}

fn disk(code: &mut Code, sectors: u32, write: bool) {
    // The buffer: 0x1000:0.
    code.put(&[0xb8, 0x00, 0x10, 0x8e, 0xd8, 0x8e, 0xc0]); // mov ax, 0x1000; mov ds, ax; mov es, ax
    code.out(0x1f6, 0xe0).out(0x1f2, BLOCK).out(0x1f7, 0xc6).ready(); // SET MULTIPLE
    code.out(0x3f8, b'S');
    code.put(&[0x66, 0x31, 0xdb]); // xor ebx, ebx
    let next = code.here();
    code.out(0x1f2, COMMAND);
    code.put(&[0x66, 0x89, 0xd8]); // mov eax, ebx
    code.put(&[0x42, 0xee]); // inc dx; out dx, al
    code.put(&[0x66, 0xc1, 0xe8, 8, 0x42, 0xee]); // shr eax, 8; inc dx; out dx, al
    code.put(&[0x66, 0xc1, 0xe8, 8, 0x42, 0xee]);
    code.put(&[0x66, 0xc1, 0xe8, 8, 0x0c, 0xe0, 0x42, 0xee]); // shr eax, 8; or al, 0xe0; inc dx; out dx, al
    code.out(0x1f7, if write { 0xc5 } else { 0xc4 });
    code.put(&[0xbd, COMMAND / BLOCK, 0]); // mov bp, blocks
    let block = code.here();
    code.put(&[0xba, 0xf7, 0x01]); // mov dx, 0x1f7
    let wait = code.here();
    code.put(&[0xec, 0xa8, 0x80]).back(0x75, wait).put(&[0xa8, 0x08]).back(0x74, wait); // until there is data
    let [low, high] = (u16::from(BLOCK) * 256).to_le_bytes();
    // mov dx, 0x1f0; xor si, si; xor di, di; mov cx, words
    code.put(&[0xba, 0xf0, 0x01, 0x31, 0xf6, 0x31, 0xff, 0xb9, low, high]);
    code.put(if write { &[0xf3, 0x6f] } else { &[0xf3, 0x6d] }); // rep outsw, rep insw
    code.put(&[0x4d]).back(0x75, block); // dec bp; jnz
    if write {
        code.ready();
    }
    code.put(&[0x66, 0x81, 0xc3]).put(&u32::from(COMMAND).to_le_bytes()); // add ebx, sectors of a command
    code.put(&[0x66, 0x81, 0xfb]).put(&sectors.to_le_bytes()); // cmp ebx, all
    code.back(0x72, next);
    if write {
        code.out(0x1f7, 0xe7).ready(); // FLUSH CACHE
    }
    code.out(0x3f8, b'E');
}

/// A directory that a server takes its firmware from; the image is in it under the name of a BIOS.
///
/// # Errors
/// When it cannot be written, or the VGA BIOS is not installed.
pub fn firmware(directory: &Path, job: Job) -> Result<()> {
    let said = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(said)?;
    fs::write(directory.join("bios.bin"), image(job)).map_err(said)?;
    let vga = Path::new("/usr/share/seabios").join(VGA_BIOS);
    let copied = fs::copy(&vga, directory.join(VGA_BIOS));
    copied.map(drop).map_err(|error| format!("{}: {error} (package seabios)", vga.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_starts_where_a_processor_does() {
        for job in [Job::Banner, Job::Memory(64 << 20), Job::Read(1024), Job::Write(1024)] {
            let rom = image(job);
            assert_eq!((rom.len(), &rom[SIZE - 8..SIZE - 3]), (SIZE, &[0xea, 0, 0, 0, 0xf0][..]));
            assert!(rom[CODE..].starts_with(&[0xfa, 0xfc]));
            assert_eq!(&rom[CODE + 0x8000..][..BANNER.len()], BANNER.as_bytes());
        }
    }

    #[test]
    fn jumps_lead_back_to_their_label() {
        let mut code = Code(vec![0x90; 5]);
        code.back(0xeb, 2);
        // From behind the jump, 7, back to 2.
        assert_eq!(code.0[5..], [0xeb, 0xfb]);
    }
}
