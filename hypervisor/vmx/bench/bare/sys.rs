//! The only unsafe code of this program: guest memory.

#![allow(unsafe_code)]

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, MemoryRegionAddress};

/// Shows the memory to the guest. It must be kept for as long as `vm`.
pub fn map(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), Box<dyn std::error::Error>> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let slot = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().raw_value(),
            memory_size: region.len(),
            userspace_addr: region.get_host_address(MemoryRegionAddress(0))? as u64,
        };
        // JUSTIFICATION: this is what makes memory guest memory.
        // SAFETY: the range is one mapping of exactly that length, and the caller keeps it.
        unsafe { vm.set_user_memory_region(slot) }?;
    }
    Ok(())
}
