//! SeaBIOS and GRUB from a VMDK: the whole life of a machine, without a server.

mod common;

use std::path::Path;
use std::time::Instant;

use common::{Rig, facts, grub_disk, need, need_grub};
use hypervisor::vmdk::{Disk, Mode};
use vmx::board::Stop;
use vmx::chips::Effect;
use vmx::chips::ata::Unit;
use vmx::machine::Boot;
use vmx::medium::Medium;
use vmx::vcpu::Event;

fn rig(disk: &Path) -> Option<Rig> {
    let (device, firmware) = need("GRUB from a VMDK")?;
    let mut facts = facts(64);
    facts.vga_bios = firmware.vga.clone();
    let rig = Rig::new(device, firmware, facts, Boot::Firmware);
    let disk = Disk::open(disk, Mode::Write).unwrap();
    let unit = Unit::disk(disk.capacity(), (32, 16, 63), "1".into());
    rig.machine.board().set_channel(0, [Some(unit), None], [Some(Medium::Disk(disk)), None]);
    Some(rig)
}

#[test]
fn the_life_of_a_machine() {
    if !need_grub("the_life_of_a_machine") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let disk = grub_disk(directory.path());
    let Some(mut rig) = rig(&disk) else { return };
    let start = Instant::now();
    rig.machine.run();
    rig.expect("HV-GRUB-UP boots=zero");
    println!("grub: prompt after {:?}", start.elapsed());
    rig.expect("grub rescue>");
    rig.send("cat /hello.txt\r");
    rig.expect("hello from a file");
    rig.expect("grub rescue>");
    rig.send("set mark=remembered\r");
    rig.expect("set mark=remembered");
    rig.expect("grub rescue>");
    assert!(rig.screen().iter().any(|line| line.starts_with("hello from a file")), "{:#?}", rig.screen());
    // Suspended to a file, and resumed in another machine.
    let file = directory.path().join("acc.vmss");
    let start = Instant::now();
    rig.machine.pause();
    rig.machine.board().flush().unwrap();
    rig.machine.save(&file, 7).unwrap();
    println!("grub: suspended in {:?}, {} bytes", start.elapsed(), std::fs::metadata(&file).unwrap().len());
    drop(rig);
    let Some(mut rig) = self::rig(&disk) else { return };
    let start = Instant::now();
    assert_eq!(rig.machine.restore(&file).unwrap(), 7);
    rig.machine.run();
    println!("grub: resumed in {:?}", start.elapsed());
    let end = rig.machine.board().serial(0).unwrap().kept().end();
    assert!(end > 100, "what was sent before is still there");
    rig.send("set\r");
    rig.expect("mark=remembered");
    rig.expect("grub rescue>");
    rig.send("set boots=once\r");
    rig.expect("set boots=once");
    rig.expect("grub rescue>");
    rig.send("save_env -f (hd0,msdos1)/grubenv boots\r");
    rig.expect("grub rescue>");
    rig.send("halt\r");
    assert_eq!(rig.event(), Event::Stop(Stop::Effect(Effect::PowerOff)));
    rig.machine.board().flush().unwrap();
    drop(rig);
    let Some(mut rig) = self::rig(&disk) else { return };
    rig.machine.run();
    rig.expect("HV-GRUB-UP boots=once");
    rig.expect("grub rescue>");
    rig.send("reboot\r");
    assert_eq!(rig.event(), Event::Stop(Stop::Effect(Effect::Reset)));
    rig.machine.reset().unwrap();
    rig.machine.run();
    rig.expect("HV-GRUB-UP boots=once");
}
