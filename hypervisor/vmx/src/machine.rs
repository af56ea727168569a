//! A machine: KVM, memory, board and processors put together; run, pause, reset, save, restore.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock};

use hypervisor::control::HostClass;
use kvm_bindings::{
    CpuId, KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_MAX_CPUID_ENTRIES,
    KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY, KVM_PIT_SPEAKER_DUMMY, Msrs, kvm_clock_data, kvm_debugregs,
    kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_pit_config, kvm_pit_state2, kvm_regs,
    kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap};

use crate::board::{self, Board, Facts, Lines};
use crate::boot;
use crate::firmware::Firmware;
use crate::screen::{Font, Text};
use crate::vcpu::{Event, Gate, Shared, Vcpus, lock};
use crate::{chips, memory, state_file, sys};

/// Pages for KVM's own use on processors that need them: below the firmware.
const TSS: usize = 0xfffb_d000;
const IDENTITY_MAP: u64 = 0xfffb_c000;

/// Why a machine cannot be made or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM or the host refuses.
    #[error("{what}: {source}")]
    Host {
        /// What was attempted.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// A state does not fit.
    #[error("{0}")]
    Unfit(String),
    /// A file with a state.
    #[error(transparent)]
    State(#[from] state_file::Error),
    /// A kernel for direct boot.
    #[error(transparent)]
    Boot(#[from] boot::Error),
}

/// For `map_err`: says what was attempted.
fn failed<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> Error {
    move |source| Error::Host { what, source: source.into() }
}

/// Who hears of what a machine does. All are called on its own threads and must not wait.
pub struct Listeners {
    /// Something that stopped the processors, or is worth knowing.
    pub events: Box<dyn Fn(Event) + Send + Sync>,
    /// Lines of the firmware's log.
    pub log: Arc<dyn Fn(&str) + Send + Sync>,
    /// The guest sent something to a serial port.
    pub wake: Arc<dyn Fn() + Send + Sync>,
    /// Called first on every processor's thread.
    pub enter: fn() -> io::Result<()>,
}

/// What is started.
#[derive(Debug, Clone)]
pub enum Boot {
    /// The firmware, which looks for a drive.
    Firmware,
    /// A kernel.
    Kernel(boot::Kernel),
}

struct KvmLines(Arc<VmFd>);

impl Lines for KvmLines {
    fn set(&self, irq: u32, level: bool) {
        // Cannot fail for lines that the kernel's controllers have.
        let _ = self.0.set_irq_line(irq, level);
    }
}

/// A machine. Dropping it ends it.
#[derive(Debug)]
pub struct Machine {
    // Fields are dropped in this order: threads, processors, memory.
    vcpus: Vcpus,
    shared: Arc<Shared>,
    vm: Arc<VmFd>,
    msrs: Vec<u32>,
    initial: KvmState,
    firmware: Firmware,
    boot: Boot,
    facts: (u64, u8),
    /// Missed ticks were forgotten, for the sake of keys.
    keys_first: Once,
}

/// The state that KVM keeps.
#[derive(Debug, Serialize, Deserialize)]
struct KvmState {
    irqchips: Vec<kvm_irqchip>,
    pit: kvm_pit_state2,
    clock: kvm_clock_data,
    vcpus: Vec<VcpuState>,
}

/// The state of a processor.
#[derive(Debug, Serialize, Deserialize)]
struct VcpuState {
    mp_state: kvm_mp_state,
    sregs: kvm_sregs,
    regs: kvm_regs,
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debugregs: kvm_debugregs,
    lapic: kvm_lapic_state,
    msrs: Vec<kvm_msr_entry>,
    events: kvm_vcpu_events,
}

/// A whole machine but for its memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    memory: u64,
    cpus: u8,
    kvm: KvmState,
    board: board::Saved,
    /// Seconds since power on.
    pub uptime: u64,
}

impl Machine {
    /// Builds a machine with nothing plugged in; it stands still, ready to be powered on.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(
        device: OwnedFd,
        facts: Facts,
        firmware: Firmware,
        boot: Boot,
        listeners: Listeners,
    ) -> Result<Self, Error> {
        let kvm = sys::kvm(device);
        if kvm.get_api_version() != 12 {
            let source = io::Error::other(format!("its version is {}, not 12", kvm.get_api_version()));
            return Err(Error::Host { what: "/dev/kvm", source });
        }
        let vm = Arc::new(kvm.create_vm().map_err(failed("cannot create a machine"))?);
        let memory = memory::reserve(facts.memory, firmware.bios.len())
            .map_err(failed("cannot have the memory of the machine"))?;
        // Before the timer: kernels put off what follows from its ports, and mapping would wait for that.
        map(&vm, &memory, 0).map_err(failed("cannot map memory"))?;
        vm.set_tss_address(TSS).map_err(failed("KVM_SET_TSS_ADDR"))?;
        vm.set_identity_map_address(IDENTITY_MAP).map_err(failed("KVM_SET_IDENTITY_MAP_ADDR"))?;
        vm.create_irq_chip().map_err(failed("cannot create interrupt controllers"))?;
        let pit = kvm_pit_config { flags: KVM_PIT_SPEAKER_DUMMY, ..Default::default() };
        vm.create_pit2(pit).map_err(failed("cannot create a timer"))?;
        let fds = processors(&kvm, &vm, facts.cpus).map_err(failed("cannot create processors"))?;
        let msrs = kvm.get_msr_index_list().map_err(failed("cannot list registers"))?.as_slice().to_vec();
        let (size, cpus) = (facts.memory, facts.cpus);
        let board = Board::new(facts, Box::new(KvmLines(Arc::clone(&vm))), listeners.log, listeners.wake);
        let shared = Arc::new(Shared {
            board: Mutex::new(board),
            gate: Gate::default(),
            memory,
            events: listeners.events,
            class: OnceLock::new(),
            filled: AtomicU64::new(0),
        });
        let initial = KvmState::save(&vm, fds.iter(), &msrs).map_err(failed("cannot read the state"))?;
        let vcpus = Vcpus::start(Arc::clone(&shared), fds, listeners.enter)
            .map_err(failed("cannot start a thread"))?;
        let machine = Machine {
            vcpus,
            shared,
            vm,
            msrs,
            initial,
            firmware,
            boot,
            facts: (size, cpus),
            keys_first: Once::new(),
        };
        machine.load()?;
        Ok(machine)
    }

    /// Puts into memory what the processors start with.
    fn load(&self) -> Result<(), Error> {
        let memory = &self.shared.memory;
        let bios = &self.firmware.bios;
        let top = (4u64 << 30) - bios.len() as u64;
        memory::write(memory, top, bios).map_err(failed("cannot load the firmware"))?;
        // Below 1 MiB there is room for 128 KiB of it: its end.
        let low = bios.get(bios.len().saturating_sub(128 << 10)..).unwrap_or_default();
        memory::write(memory, (1 << 20) - low.len() as u64, low)
            .map_err(failed("cannot load the firmware"))?;
        if let (Boot::Kernel(kernel), Some(first)) = (&self.boot, self.vcpus.fds.first()) {
            boot::load(kernel, memory, self.facts.0, &lock(first))?;
        }
        Ok(())
    }

    /// The board.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.shared.board)
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.shared.memory
    }

    /// Begins, or ends, to note which pages the guest writes to.
    ///
    /// # Errors
    /// [`Error::Host`].
    pub fn note_writes(&self, on: bool) -> Result<(), Error> {
        let flags = if on { KVM_MEM_LOG_DIRTY_PAGES } else { 0 };
        map(&self.vm, &self.shared.memory, flags).map_err(failed("cannot note which pages are written"))
    }

    /// Addresses of the pages, in order, that the guest has written to since noting began, or since the
    /// last call. What this process writes is not among them.
    ///
    /// # Errors
    /// [`Error::Host`], also when writes are not noted.
    pub fn written(&self) -> Result<Vec<u64>, Error> {
        let mut pages = Vec::new();
        for (slot, region) in (0..).zip(self.shared.memory.iter()).filter(|(_, region)| !is_rom(region)) {
            let size = usize::try_from(region.len()).unwrap_or(usize::MAX);
            let log = self.vm.get_dirty_log(slot, size).map_err(failed("KVM_GET_DIRTY_LOG"))?;
            let start = region.start_addr().raw_value();
            for (number, word) in (0u64..).zip(log) {
                let bits = (0..64).filter(|bit| word >> bit & 1 == 1);
                pages.extend(bits.map(|bit| start + (number * 64 + bit) * memory::PAGE as u64));
            }
        }
        Ok(pages)
    }

    /// Makes up for what is known to be lacking on a host of this class.
    pub fn adapt(&self, class: HostClass) {
        let _ = self.shared.class.set(class);
    }

    /// Types; false when the keyboard's queue has no room.
    #[must_use]
    pub fn press(&self, codes: &[u8]) -> bool {
        if self.shared.class.get() == Some(&HostClass::Emulated) {
            self.keys_first.call_once(|| self.forget_missed_ticks());
        }
        self.board().press(codes)
    }

    /// Ticks of the timer that are made up for go before keys, for ever, where the host emulates. The kernel
    /// takes up to 20 ms over this, during which the process cannot end; so it is not done before there are keys,
    /// and nobody waits for it.
    fn forget_missed_ticks(&self) {
        let vm = Arc::clone(&self.vm);
        let forget = move || {
            let _ = sys::forget_missed_ticks(&vm);
        };
        // Without a thread, ticks are made up for: keys are slower, and that is all.
        let _ = std::thread::Builder::new().name("ticks".to_owned()).spawn(forget);
    }

    /// Calls the first processor out of the guest for a moment: KVM looks for interrupts before it goes back.
    pub fn nudge(&self) {
        self.vcpus.nudge();
    }

    /// Instructions that were carried out here because KVM lacks them.
    #[must_use]
    pub fn filled(&self) -> u64 {
        self.shared.filled.load(Ordering::Relaxed)
    }

    /// Lets the processors run.
    pub fn run(&self) {
        self.vcpus.run();
    }

    /// Makes the processors stand still, and waits until they do.
    pub fn pause(&self) {
        self.vcpus.pause();
    }

    /// Resets processors and chips; the machine stands still afterwards.
    ///
    /// # Errors
    /// [`Error`]; the machine cannot go on then.
    pub fn reset(&self) -> Result<(), Error> {
        self.pause();
        self.board().reset();
        self.restore_kvm(&self.initial).map_err(failed("cannot reset the processors"))?;
        self.load()
    }

    /// Saves the machine, which must stand still, in the file at `path`, with its memory.
    ///
    /// # Errors
    /// [`Error`]; there is no file then.
    pub fn save(&self, path: &Path, uptime: u64) -> Result<(), Error> {
        let saved = self.saved(uptime)?;
        Ok(state_file::write(path, &saved, Some(&self.shared.memory))?)
    }

    /// The state of the machine, which must stand still, without its memory.
    ///
    /// # Errors
    /// [`Error`].
    pub fn saved(&self, uptime: u64) -> Result<Saved, Error> {
        let fds: Vec<_> = self.vcpus.fds.iter().map(|fd| lock(fd)).collect();
        let kvm = KvmState::save(&self.vm, fds.iter().map(|fd| &**fd), &self.msrs)
            .map_err(failed("cannot read the state of the processors"))?;
        let (memory, cpus) = self.facts;
        Ok(Saved { memory, cpus, kvm, board: self.board().save(), uptime })
    }

    /// Puts the state of the file at `path` into this machine, which must be new; returns its uptime.
    ///
    /// # Errors
    /// [`Error::Unfit`] when the machine is built differently, [`Error::State`] when the file is bad;
    /// the machine is then of no use.
    pub fn restore(&self, path: &Path) -> Result<u64, Error> {
        let (saved, reader) = state_file::open::<Saved>(path)?;
        let (memory, cpus) = self.facts;
        if (saved.memory, saved.cpus) != (memory, cpus) {
            return Err(Error::Unfit(format!(
                "the state is that of a machine with {} MB and {} processors; this one has {} MB and {cpus}",
                saved.memory >> 20,
                saved.cpus,
                memory >> 20
            )));
        }
        if saved.kvm.vcpus.len() != usize::from(cpus) {
            return Err(Error::Unfit("the state has another number of processors than it says".into()));
        }
        self.clear()?;
        reader.read_memory(&self.shared.memory)?;
        self.board().restore(saved.board).map_err(|error| Error::Unfit(error.to_string()))?;
        self.restore_kvm(&saved.kvm).map_err(failed("cannot set the state of the processors"))?;
        Ok(saved.uptime)
    }

    /// Zeros wherever a new machine has something else: where [`Machine::load`] has put it.
    fn clear(&self) -> Result<(), Error> {
        let memory = &self.shared.memory;
        let mut used = Vec::new();
        let listed = match &self.boot {
            Boot::Firmware => {
                let length = self.firmware.bios.len();
                let low = length.min(128 << 10);
                used.extend([((4 << 30) - length as u64, length), ((1 << 20) - low as u64, low)]);
                Ok(())
            }
            // Whoever loads kernels knows best where; this takes longer.
            Boot::Kernel(_) => memory::visit_used(memory, 1 << 20, &mut |address, bytes| {
                used.push((address, bytes.len()));
                Ok(())
            }),
        };
        let most = used.iter().map(|&(_, length)| length).max().unwrap_or(0);
        let zeros = vec![0; most];
        let cleared = listed.and_then(|()| {
            used.iter().try_for_each(|&(address, length)| {
                memory::write(memory, address, zeros.get(..length).unwrap_or_default())
            })
        });
        cleared.map_err(failed("cannot clear the memory"))
    }

    fn restore_kvm(&self, state: &KvmState) -> io::Result<()> {
        for chip in &state.irqchips {
            self.vm.set_irqchip(chip)?;
        }
        self.vm.set_pit2(&state.pit)?;
        self.vm.set_clock(&kvm_clock_data { clock: state.clock.clock, ..Default::default() })?;
        for (fd, vcpu) in self.vcpus.fds.iter().zip(&state.vcpus) {
            vcpu.restore(&lock(fd))?;
        }
        Ok(())
    }

    /// What the text screen shows, with the colours; None in a graphics mode.
    ///
    /// # Errors
    /// When the memory cannot be read.
    pub fn screen(&self) -> io::Result<Option<(Text, [[u8; 3]; 16])>> {
        let (mode, colours) = {
            let board = self.board();
            (board.vga().text_mode(), board.vga().colours())
        };
        let Some(mode) = mode else { return Ok(None) };
        let mut bytes = vec![0; chips::vga::TEXT_SIZE];
        memory::read(&self.shared.memory, chips::vga::TEXT, &mut bytes)?;
        Ok(Some((Text::of(&mode, &bytes), colours)))
    }

    /// The font of its adapter.
    #[must_use]
    pub fn font(&self) -> &Font {
        &self.firmware.font
    }
}

/// Whether a region is the firmware's.
fn is_rom(region: &GuestRegionMmap) -> bool {
    let start = region.start_addr().raw_value();
    start > memory::LOW_MAX && start < 1 << 32
}

/// Shows the memory to the guest, RAM with these flags.
fn map(vm: &VmFd, memory: &GuestMemoryMmap, flags: u32) -> io::Result<()> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let flags = if is_rom(region) { KVM_MEM_READONLY } else { flags };
        sys::map_region(vm, memory, slot, region, flags)?;
    }
    Ok(())
}

/// Creates the processors and tells them what they are.
fn processors(kvm: &Kvm, vm: &VmFd, count: u8) -> io::Result<Vec<VcpuFd>> {
    let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?;
    let mut fds = Vec::new();
    for number in 0..count {
        let fd = vm.create_vcpu(u64::from(number))?;
        fd.set_cpuid2(&cpuid(supported.clone(), number, count))?;
        fds.push(fd);
    }
    Ok(fds)
}

/// What CPUID says on processor `number`: what the host offers, with numbers of this machine.
fn cpuid(mut cpuid: CpuId, number: u8, count: u8) -> CpuId {
    for entry in cpuid.as_mut_slice() {
        match entry.function {
            1 => {
                entry.ebx = entry.ebx & 0xffff | u32::from(count) << 16 | u32::from(number) << 24;
                // There is a hypervisor; more than one processor counts as threads of a package.
                entry.ecx |= 1 << 31;
                entry.edx = if count > 1 { entry.edx | 1 << 28 } else { entry.edx & !(1 << 28) };
            }
            0xb | 0x1f => entry.edx = u32::from(number),
            _ => {}
        }
    }
    cpuid
}

impl KvmState {
    fn save<'a>(vm: &VmFd, fds: impl Iterator<Item = &'a VcpuFd>, msrs: &[u32]) -> io::Result<Self> {
        let mut irqchips = Vec::new();
        for chip_id in [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC] {
            let mut chip = kvm_irqchip { chip_id, ..Default::default() };
            vm.get_irqchip(&mut chip)?;
            irqchips.push(chip);
        }
        let vcpus = fds.map(|fd| VcpuState::save(fd, msrs)).collect::<io::Result<_>>()?;
        Ok(KvmState { irqchips, pit: vm.get_pit2()?, clock: vm.get_clock()?, vcpus })
    }
}

impl VcpuState {
    fn save(fd: &VcpuFd, msrs: &[u32]) -> io::Result<Self> {
        // Pending events first: asking for the others may deliver them.
        let mp_state = fd.get_mp_state()?;
        Ok(VcpuState {
            mp_state,
            regs: fd.get_regs()?,
            sregs: fd.get_sregs()?,
            xsave: fd.get_xsave()?,
            xcrs: fd.get_xcrs()?,
            debugregs: fd.get_debug_regs()?,
            lapic: fd.get_lapic()?,
            msrs: save_msrs(fd, msrs)?,
            events: fd.get_vcpu_events()?,
        })
    }

    fn restore(&self, fd: &VcpuFd) -> io::Result<()> {
        fd.set_mp_state(self.mp_state)?;
        fd.set_sregs(&self.sregs)?;
        fd.set_regs(&self.regs)?;
        sys::set_xsave(fd, &self.xsave)?;
        fd.set_xcrs(&self.xcrs)?;
        fd.set_debug_regs(&self.debugregs)?;
        fd.set_lapic(&self.lapic)?;
        // A host that lacks a register that another one had keeps its own value.
        let mut rest = self.msrs.as_slice();
        while !rest.is_empty() {
            let list = Msrs::from_entries(rest).map_err(io::Error::other)?;
            let done = fd.set_msrs(&list)?;
            rest = rest.get(done + 1..).unwrap_or_default();
        }
        fd.set_vcpu_events(&self.events)?;
        Ok(())
    }
}

/// Reads registers; those that cannot be read are left out.
fn save_msrs(fd: &VcpuFd, msrs: &[u32]) -> io::Result<Vec<kvm_msr_entry>> {
    let entries: Vec<_> = msrs.iter().map(|&index| kvm_msr_entry { index, ..Default::default() }).collect();
    let mut saved = Vec::new();
    let mut rest = entries.as_slice();
    while !rest.is_empty() {
        let mut list = Msrs::from_entries(rest).map_err(io::Error::other)?;
        let done = fd.get_msrs(&mut list)?;
        saved.extend_from_slice(list.as_slice().get(..done).unwrap_or_default());
        rest = rest.get(done + 1..).unwrap_or_default();
    }
    Ok(saved)
}
