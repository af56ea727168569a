//! The least that starting a machine can cost, for `cargo xtask bench`: `bare-kvm COUNT MEGABYTES ROM` makes that
//! many machines of one processor with bare KVM calls, one after the other, runs each until its guest
//! writes to a port, says so on standard output, and waits until its standard input is closed.

mod sys;

use std::io::{Read, Write};

use kvm_bindings::kvm_pit_config;
use kvm_ioctls::{Kvm, VcpuExit};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [count, megabytes, rom] = words.as_slice() else {
        return Err("usage: bare-kvm COUNT MEGABYTES ROM".into());
    };
    let (count, megabytes): (usize, usize) = (count.parse()?, megabytes.parse()?);
    let rom = std::fs::read(rom)?;
    let kvm = Kvm::new()?;
    let machines: Vec<_> = (0..count).map(|_| machine(&kvm, megabytes << 20, &rom)).collect::<Result<_>>()?;
    println!("{}", machines.len());
    std::io::stdout().flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Makes a machine and runs it to its first write.
fn machine(kvm: &Kvm, size: usize, rom: &[u8]) -> Result<impl Sized> {
    let vm = kvm.create_vm()?;
    let top = GuestAddress((4 << 30) - rom.len() as u64);
    let memory: GuestMemoryMmap = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size), (top, rom.len())])?;
    memory.write_slice(rom, top)?;
    // In this order: a timer's ports would have the mapping wait.
    sys::map(&vm, &memory)?;
    vm.create_irq_chip()?;
    vm.create_pit2(kvm_pit_config::default())?;
    let mut vcpu = vm.create_vcpu(0)?;
    loop {
        if let VcpuExit::IoOut(..) = vcpu.run()? {
            break;
        }
    }
    Ok((vcpu, vm, memory))
}
