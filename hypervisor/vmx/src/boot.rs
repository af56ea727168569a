//! Starting a kernel without firmware: `vmserverd.kernel`, `.initrd`, `.cmdline`.
//!
//! The Linux boot protocol: a bzImage (memtest86+ is one, too) or an uncompressed ELF kernel is loaded by
//! `linux-loader`; a "zero page" tells it about memory, command line and initial file system. A kernel
//! that takes 64-bit code is entered there, with the lower 4 GiB mapped to themselves; any other in
//! 32-bit protected mode.

use std::fs::File;
use std::io;
use std::path::Path;

use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use crate::memory;

const GDT: u64 = 0x500;
const ZERO_PAGE: u64 = 0x7000;
const PAGE_TABLES: u64 = 0x9000;
const COMMAND_LINE: u64 = 0x2_0000;
const COMMAND_LINE_MAX: usize = 2048;
const LOAD: u64 = 1 << 20;
const STACK: u64 = 0x8_0000;

/// Largest initial file system, in bytes.
const INITRD_MAX: u64 = 1 << 30;

/// A kernel, read from its files.
#[derive(Debug, Clone)]
pub struct Kernel {
    kernel: Vec<u8>,
    initrd: Option<Vec<u8>>,
    cmdline: String,
}

/// Why a kernel cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("{key}: cannot read {path}: {source}")]
    Read {
        /// The key of the .vmx.
        key: &'static str,
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is no kernel, or does not fit.
    #[error("{key}: {why}")]
    Unusable {
        /// The key of the .vmx.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// The processor's state cannot be set.
    #[error("cannot start the kernel: {0}")]
    Host(#[from] io::Error),
}

const KERNEL: &str = "vmserverd.kernel";
const INITRD: &str = "vmserverd.initrd";
const CMDLINE: &str = "vmserverd.cmdline";

fn unusable(key: &'static str, why: impl Into<String>) -> Error {
    Error::Unusable { key, why: why.into() }
}

impl Kernel {
    /// Reads the files.
    ///
    /// # Errors
    /// [`Error`], naming the key.
    pub fn read(kernel: &Path, initrd: Option<&Path>, cmdline: &str) -> Result<Self, Error> {
        if cmdline.len() >= COMMAND_LINE_MAX || cmdline.contains('\0') {
            return Err(unusable(CMDLINE, format!("at most {} bytes, none of them 0", COMMAND_LINE_MAX - 1)));
        }
        let initrd = initrd.map(|path| read(INITRD, path)).transpose()?;
        Ok(Kernel { kernel: read(KERNEL, kernel)?, initrd, cmdline: cmdline.to_owned() })
    }
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, Error> {
    use io::Read;
    let failed = |source| Error::Read { key, path: path.display().to_string(), source };
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mut bytes = Vec::new();
    file.take(INITRD_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > INITRD_MAX {
        return Err(unusable(key, format!("{} is larger than 1 GiB", path.display())));
    }
    Ok(bytes)
}

/// Puts a kernel into memory and the processor at its entry.
pub(crate) fn load(kernel: &Kernel, memory: &GuestMemoryMmap, ram: u64, vcpu: &VcpuFd) -> Result<(), Error> {
    let mut image = io::Cursor::new(kernel.kernel.as_slice());
    let elf = kernel.kernel.starts_with(b"\x7fELF");
    let high = Some(GuestAddress(LOAD));
    let loaded = if elf {
        Elf::load(memory, None, &mut image, high)
    } else {
        BzImage::load(memory, Some(GuestAddress(LOAD)), &mut image, high)
    };
    let loaded = loaded.map_err(|error| unusable(KERNEL, error.to_string()))?;
    let mut params = boot_params::default();
    match loaded.setup_header {
        Some(header) => params.hdr = header,
        None => {
            params.hdr.boot_flag = 0xaa55;
            params.hdr.header = 0x5372_6448;
            params.hdr.kernel_alignment = 0x100_0000;
        }
    }
    params.hdr.type_of_loader = 0xff;
    params.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    params.hdr.cmdline_size = kernel.cmdline.len() as u32;
    let mut line = kernel.cmdline.clone().into_bytes();
    line.push(0);
    memory::write(memory, COMMAND_LINE, &line)?;
    let (low, above) = memory::split(ram);
    if let Some(initrd) = &kernel.initrd {
        let end = low.min(0x3800_0000);
        let start = end.checked_sub(initrd.len() as u64).map(|start| start & !0xfff);
        let start = start.filter(|&start| start > loaded.kernel_end);
        let start =
            start.ok_or_else(|| unusable(INITRD, "it does not fit into the memory of the machine"))?;
        memory::write(memory, start, initrd)?;
        params.hdr.ramdisk_image = start as u32;
        params.hdr.ramdisk_size = initrd.len() as u32;
    }
    let mut ranges = vec![(0, 0x9_fc00), (LOAD, low - LOAD)];
    if above > 0 {
        ranges.push((4 << 30, above));
    }
    for (entry, (addr, size)) in params.e820_table.iter_mut().zip(&ranges) {
        *entry = boot_e820_entry { addr: *addr, size: *size, r#type: 1 };
    }
    params.e820_entries = ranges.len() as u8;
    // 80 by 25 characters, colour.
    params.screen_info.orig_video_mode = 3;
    params.screen_info.orig_video_cols = 80;
    params.screen_info.orig_video_lines = 25;
    params.screen_info.orig_video_isVGA = 1;
    params.screen_info.orig_video_points = 16;
    let params = BootParams::new(&params, GuestAddress(ZERO_PAGE));
    LinuxBootConfigurator::write_bootparams(&params, memory)
        .map_err(|error| unusable(KERNEL, error.to_string()))?;
    let long = elf || loaded.setup_header.is_some_and(|header| header.xloadflags & 1 != 0);
    let entry = if elf {
        loaded.kernel_load.0
    } else if long {
        loaded.kernel_load.0 + 0x200
    } else {
        loaded.kernel_load.0
    };
    enter(memory, vcpu, entry, long)
}

/// Segments, control registers, page tables and general registers at the entry of a kernel.
fn enter(memory: &GuestMemoryMmap, vcpu: &VcpuFd, entry: u64, long: bool) -> Result<(), Error> {
    let code: u64 = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    let data: u64 = 0x00cf_9300_0000_ffff;
    // The protocol wants code at 0x10 and data at 0x18.
    for (number, descriptor) in [0, 0, code, data].into_iter().enumerate() {
        memory::write(memory, GDT + 8 * number as u64, &descriptor.to_le_bytes())?;
    }
    let segment = |selector, kind, long: bool| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: u8::from(!long),
        s: 1,
        l: u8::from(long),
        g: 1,
        ..Default::default()
    };
    let mut sregs = vcpu.get_sregs().map_err(io::Error::from)?;
    sregs.cs = segment(0x10, 0xb, long);
    for data in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *data = segment(0x18, 0x3, false);
    }
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 31;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    sregs.cr0 |= 1;
    if long {
        identity_tables(memory)?;
        sregs.cr3 = PAGE_TABLES;
        sregs.cr4 |= 1 << 5;
        sregs.cr0 |= 1 << 31;
        sregs.efer |= 1 << 8 | 1 << 10;
    }
    vcpu.set_sregs(&sregs).map_err(io::Error::from)?;
    let regs = kvm_regs { rip: entry, rsi: ZERO_PAGE, rsp: STACK, rflags: 2, ..Default::default() };
    vcpu.set_regs(&regs).map_err(io::Error::from)?;
    Ok(())
}

/// The lower 4 GiB at their own addresses, in pages of 2 MiB.
fn identity_tables(memory: &GuestMemoryMmap) -> io::Result<()> {
    let table = |number: u64| PAGE_TABLES + number * 0x1000;
    memory::write(memory, table(0), &(table(1) | 3).to_le_bytes())?;
    for gigabyte in 0..4 {
        memory::write(memory, table(1) + 8 * gigabyte, &(table(2 + gigabyte) | 3).to_le_bytes())?;
        for page in 0..512 {
            let entry = gigabyte << 30 | page << 21 | 0x83;
            memory::write(memory, table(2 + gigabyte) + 8 * page, &entry.to_le_bytes())?;
        }
    }
    Ok(())
}
