//! Guests that do what no guest should (B10), and the gaps of an emulating KVM.

mod common;
#[path = "common/elf.rs"]
mod elf;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{PATIENCE, Rig, facts, in_path, need, run};
use elf::elf;
use hypervisor::control::HostClass;
use hypervisor::vmdk::{CreateOptions, Disk, Kind, Mode};
use vmx::boot::Kernel;
use vmx::chips::ata::Unit;
use vmx::machine::{Boot, Machine};
use vmx::medium::Medium;
use vmx::memory;
use vmx::vcpu::{Event, FILLS_TOLD};

/// State of the generator (32 bits), and how many accesses there were (32 bits).
const STATE: u64 = 0x30_0000;

/// Reads and writes ports and memory beyond 2 GiB by a xorshift generator: bytes, words and double words,
/// every second time in the first 2048 ports, where the chips are.
const CHAOS: &[u8] = &[
    // next:
    0xbf, 0x00, 0x00, 0x30, 0x00, // mov edi,0x300000
    0x8b, 0x07, // mov eax,dword [rdi]
    0x89, 0xc1, // mov ecx,eax
    0xc1, 0xe1, 0x0d, // shl ecx,0xd
    0x31, 0xc8, // xor eax,ecx
    0x89, 0xc1, // mov ecx,eax
    0xc1, 0xe9, 0x11, // shr ecx,0x11
    0x31, 0xc8, // xor eax,ecx
    0x89, 0xc1, // mov ecx,eax
    0xc1, 0xe1, 0x05, // shl ecx,0x5
    0x31, 0xc8, // xor eax,ecx
    0x89, 0x07, // mov dword [rdi],eax
    0xff, 0x47, 0x04, // inc dword [rdi+0x4]
    0x89, 0xc2, // mov edx,eax
    0xc1, 0xea, 0x10, // shr edx,0x10
    0xa8, 0x80, // test al,0x80
    0x74, 0x06, // je wide
    0x81, 0xe2, 0xff, 0x07, 0x00, 0x00, // and edx,0x7ff
    // wide:
    0x89, 0xc1, // mov ecx,eax
    0x83, 0xe1, 0x07, // and ecx,0x7
    0xff, 0xc9, // dec ecx
    0x78, 0x28, // js inb
    0xff, 0xc9, // dec ecx
    0x78, 0x27, // js inw
    0xff, 0xc9, // dec ecx
    0x78, 0x27, // js ind
    0xff, 0xc9, // dec ecx
    0x78, 0x26, // js outb
    0xff, 0xc9, // dec ecx
    0x78, 0x27, // js outw
    0xff, 0xc9, // dec ecx
    0x78, 0x27, // js outd
    0x89, 0xc6, // mov esi,eax
    0x81, 0xce, 0x00, 0x00, 0x00, 0x80, // or esi,0x80000000
    0xff, 0xc9, // dec ecx
    0x78, 0x04, // js load
    0x89, 0x06, // mov dword [rsi],eax
    0xeb, 0xa3, // jmp next
    // load:
    0x8b, 0x1e, // mov ebx,dword [rsi]
    0xeb, 0x9f, // jmp next
    // inb:
    0xec, // in al,dx
    0xeb, 0x9c, // jmp next
    // inw:
    0x66, 0xed, // in ax,dx
    0xeb, 0x98, // jmp next
    // ind:
    0xed, // in eax,dx
    0xeb, 0x95, // jmp next
    // outb:
    0x0f, 0xc8, // bswap eax
    0xee, // out dx,al
    0xeb, 0x90, // jmp next
    // outw:
    0x66, 0xef, // out dx,ax
    0xeb, 0x8c, // jmp next
    // outd:
    0xef, // out dx,eax
    0xeb, 0x89, // jmp next
];

/// `fwait` for ever, counting at [`STATE`].
const GAPS: &[u8] = &[
    0x9b, // fwait
    0xff, 0x04, 0x25, 0x00, 0x00, 0x30, 0x00, // inc dword [0x300000]
    0xeb, 0xf6, // jmp to the start
];

fn boot(directory: &Path, code: &[u8]) -> Boot {
    let path = directory.join("guest.elf");
    std::fs::write(&path, elf(&[(0x10_0000, code)])).unwrap();
    Boot::Kernel(Kernel::read(&path, None, "").unwrap())
}

fn number(machine: &Machine, address: u64) -> u32 {
    let mut bytes = [0; 4];
    memory::read(machine.memory(), address, &mut bytes).unwrap();
    u32::from_le_bytes(bytes)
}

/// How a guest with this seed ends: by itself, or after many accesses.
fn rage(seed: u32, directory: &Path) -> Option<String> {
    const ACCESSES: u32 = 12_000;
    let (device, firmware) = need("random_accesses")?;
    let disk = directory.join("a.vmdk");
    let _ = std::fs::remove_file(&disk);
    hypervisor::vmdk::create(&disk, &CreateOptions::new(Kind::MonolithicSparse, 4 << 20)).unwrap();
    let rig = Rig::new(device, firmware, facts(16), boot(directory, CHAOS));
    let cd = std::fs::File::open(directory.join("cd.iso")).unwrap();
    let units = [Some(Unit::disk(8192, (8, 16, 63), "1".into())), Some(Unit::cd(Some(64), "2".into()))];
    let media = [Some(Medium::Disk(Disk::open(&disk, Mode::Write).unwrap())), Some(Medium::Cd(cd))];
    rig.machine.board().set_channel(0, units, media);
    memory::write(rig.machine.memory(), STATE, &seed.to_le_bytes()).unwrap();
    rig.machine.run();
    let deadline = Instant::now() + PATIENCE;
    let mut end = None;
    while end.is_none() && number(&rig.machine, STATE + 4) < ACCESSES {
        assert!(Instant::now() < deadline, "seed {seed}: stands at {}", number(&rig.machine, STATE + 4));
        match rig.events.recv_timeout(Duration::from_millis(5)) {
            // Switched off, reset or crashed: on again, from where the generator is.
            Ok(Event::Stop(_) | Event::TripleFault) => {
                rig.machine.reset().unwrap();
                rig.machine.run();
            }
            Ok(Event::Broken(text)) => end = Some(text),
            Ok(Event::Filled(_)) | Err(_) => {}
        }
    }
    // It can be stopped, saved, and what it wrote is a disk in order.
    rig.machine.pause();
    rig.machine.save(&directory.join("a.vmss"), 0).unwrap();
    let mut board = rig.machine.board();
    board.flush().unwrap();
    let Some(Some(Medium::Disk(open))) = board.medium(0, 0).map(Option::take) else { panic!("no disk") };
    open.close().unwrap();
    if in_path("qemu-img") {
        run("qemu-img", &["check".as_ref(), "-q".as_ref(), disk.as_os_str()]);
    }
    Some(end.unwrap_or_else(|| "many accesses".into()))
}

#[test]
fn random_accesses_to_ports_and_memory() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("cd.iso"), vec![7; 64 * 2048]).unwrap();
    for seed in [1, 0xdead_beef, 0x1234_5678] {
        let Some(end) = rage(seed, directory.path()) else { return };
        println!("seed {seed:#x}: {end}");
    }
    assert_eq!(std::fs::read(directory.path().join("cd.iso")).unwrap(), vec![7; 64 * 2048]);
}

#[test]
fn gaps_are_filled_on_emulated_hosts_only() {
    let Some((device, firmware)) = need("gaps_are_filled_on_emulated_hosts_only") else { return };
    if vmx::probe::class(device.try_clone().unwrap()).unwrap() != HostClass::Emulated {
        return common::skipped("gaps_are_filled_on_emulated_hosts_only", "this host has no gaps");
    }
    let directory = tempfile::tempdir().unwrap();
    let rig = Rig::new(device.try_clone().unwrap(), firmware, facts(16), boot(directory.path(), GAPS));
    rig.machine.run();
    let deadline = Instant::now() + PATIENCE;
    while number(&rig.machine, STATE) < 500 {
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(5));
    }
    rig.machine.pause();
    assert!(rig.machine.filled() >= 500);
    let told: Vec<Event> = rig.events.try_iter().collect();
    assert_eq!(told.len() as u64, FILLS_TOLD, "not more than that");
    assert!(told.iter().all(|event| *event == Event::Filled("fwait at 0x100000".into())), "{:?}", told[0]);
    drop(rig);
    // Where the host is said to have none, the same instruction is the end.
    let (_, firmware) = need("gaps_are_filled_on_emulated_hosts_only").unwrap();
    let rig = Rig::of_class(device, firmware, facts(16), boot(directory.path(), GAPS), HostClass::Native);
    rig.machine.run();
    let Event::Broken(text) = rig.event() else { panic!("filled") };
    assert!(text.contains("0x100000") && text.contains("9b"), "{text}");
    assert_eq!(rig.machine.filled(), 0);
}
