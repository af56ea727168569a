//! How the host runs guests: a small guest counts, and the time it takes tells.
//!
//! A processor with virtualization counts billions of times a second. A KVM that emulates system code
//! (as the module `kvm_pvm` does) counts a few million times. Nothing lies between.
//!
//! The time is that of the processor, not of the wall: a busy host changes nothing, so that one short try
//! is enough. Every machine that is powered on asks, and many may be at once.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use hypervisor::control::HostClass;
use kvm_ioctls::{Kvm, VcpuExit};
use rustix::time::{ClockId, clock_gettime};

use crate::{memory, sys};

/// Iterations of the loop: emulated 2.5 ms.
const COUNT: u32 = 5_000;

/// Slower than this is emulated. Entering a guest and leaving it takes a tenth of it.
const LIMIT: Duration = Duration::from_millis(1);

/// Real-mode code: `mov ecx, COUNT; dec ecx; jnz; out 0x80, al`.
fn code() -> Vec<u8> {
    let mut code = vec![0x66, 0xb9];
    code.extend_from_slice(&COUNT.to_le_bytes());
    code.extend_from_slice(&[0x66, 0x49, 0x75, 0xfc, 0xe6, 0x80]);
    code
}

/// Finds out, on an open `/dev/kvm`.
///
/// # Errors
/// When the device does not do what a KVM does; whoever asks may take that as [`HostClass::None`].
pub fn class(device: OwnedFd) -> io::Result<HostClass> {
    let kvm = sys::kvm(device);
    if kvm.get_api_version() != 12 {
        return Ok(HostClass::None);
    }
    Ok(if time(&kvm)? < LIMIT { HostClass::Native } else { HostClass::Emulated })
}

/// Processor time of this thread, its guest's included.
fn spent() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

fn time(kvm: &Kvm) -> io::Result<Duration> {
    use vm_memory::GuestMemoryBackend;
    let vm = kvm.create_vm()?;
    let memory = memory::reserve(64 * 1024, 0)?;
    memory::write(&memory, 0x1000, &code())?;
    for region in memory.iter() {
        sys::map_region(&vm, &memory, 0, region, 0)?;
    }
    let mut vcpu = vm.create_vcpu(0)?;
    let mut sregs = vcpu.get_sregs()?;
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    vcpu.set_sregs(&sregs)?;
    let mut regs = vcpu.get_regs()?;
    regs.rip = 0x1000;
    regs.rflags = 2;
    vcpu.set_regs(&regs)?;
    let start = spent();
    match vcpu.run()? {
        VcpuExit::IoOut(0x80, _) => Ok(spent().saturating_sub(start)),
        other => Err(io::Error::other(format!("the probe ended with {other:?}"))),
    }
}
