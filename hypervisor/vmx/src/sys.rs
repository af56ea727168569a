//! The only unsafe code of this room: what the KVM wrappers leave to their caller.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use kvm_bindings::{kvm_userspace_memory_region, kvm_xsave};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap, MemoryRegionAddress};

/// Makes a [`Kvm`] of an open `/dev/kvm`.
pub(crate) fn kvm(device: OwnedFd) -> Kvm {
    // JUSTIFICATION: the machine's process may not open /dev/kvm itself; it is handed over open.
    // SAFETY: the descriptor is open and owned; ownership moves into the Kvm.
    unsafe { Kvm::from_raw_fd(device.into_raw_fd()) }
}

/// Shows `region` to the guest as memory slot `slot`, with `flags` of KVM.
///
/// `memory` must be the memory that the region belongs to: whoever keeps `vm` keeps that, too.
pub(crate) fn map_region(
    vm: &VmFd,
    memory: &GuestMemoryMmap,
    slot: u32,
    region: &GuestRegionMmap,
    flags: u32,
) -> io::Result<()> {
    use vm_memory::{Address, GuestMemoryBackend};
    debug_assert!(memory.find_region(region.start_addr()).is_some());
    let host = region.get_host_address(MemoryRegionAddress(0)).map_err(io::Error::other)?;
    let slot = kvm_userspace_memory_region {
        slot,
        flags,
        guest_phys_addr: region.start_addr().raw_value(),
        memory_size: region.len(),
        userspace_addr: host as u64,
    };
    // JUSTIFICATION: this is what makes memory guest memory.
    // SAFETY: the range is one mapping of exactly that length; the machine drops it after the vCPUs.
    unsafe { vm.set_user_memory_region(slot) }.map_err(io::Error::from)
}

/// Sets the state of the floating-point and vector registers.
pub(crate) fn set_xsave(vcpu: &VcpuFd, xsave: &kvm_xsave) -> io::Result<()> {
    // JUSTIFICATION: part of restoring a processor.
    // SAFETY: unsafe only for features that make the area larger than the structure, which have to be
    // asked for with arch_prctl; this process never does.
    unsafe { vcpu.set_xsave(xsave) }.map_err(io::Error::from)
}

/// The "suberror" of a `KVM_EXIT_INTERNAL_ERROR` that was just returned.
pub(crate) fn internal_suberror(vcpu: &mut VcpuFd) -> u32 {
    // JUSTIFICATION: it tells an instruction that KVM cannot emulate from everything else.
    // SAFETY: every bit pattern of this union member is a number; the caller has seen the exit reason.
    unsafe { vcpu.get_kvm_run().__bindgen_anon_1.internal.suberror }
}

/// Lets ticks of the timer that the guest has missed be lost; otherwise they come one after the other.
pub(crate) fn forget_missed_ticks(vm: &VmFd) -> io::Result<()> {
    /// `KVM_REINJECT_CONTROL`, which the wrappers lack.
    const CONTROL: libc::Ioctl = 0xae71;
    let control = [0u8; 32];
    // JUSTIFICATION: there is no wrapper.
    // SAFETY: the call reads a structure of 32 bytes, of which the first one says yes or no.
    let result = unsafe { libc::ioctl(vm.as_raw_fd(), CONTROL, control.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes descriptor 0, the control channel. To be called once, at the start of the process.
pub fn take_control_descriptor() -> OwnedFd {
    // JUSTIFICATION: descriptors that a parent leaves to its child have no owner until taken.
    // SAFETY: nothing in this process has taken descriptor 0: the program calls this once, first.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Closes every descriptor from `first` on. To be called at the very start of a process only.
///
/// # Errors
/// As `close_range(2)`.
pub fn close_from(first: u32) -> io::Result<()> {
    // JUSTIFICATION: a machine must hold nothing that its parent forgot.
    // SAFETY: called before anything in this process has opened a descriptor, so nobody owns them.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
