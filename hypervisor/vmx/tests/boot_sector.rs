//! A boot sector of our own, booted by a real BIOS from a floppy image.

mod common;
#[path = "common/sector.rs"]
mod sector;

use common::{Rig, facts, need};
use sector::boot_sector;
use vmx::machine::Boot;

#[test]
fn a_floppy_boots_and_speaks() {
    let Some((device, firmware)) = need("a_floppy_boots_and_speaks") else { return };
    let mut facts = facts(16);
    facts.vga_bios = firmware.vga.clone();
    let mut image = boot_sector();
    image.resize(1440 * 1024, 0);
    facts.floppy = Some(image);
    let start = std::time::Instant::now();
    let mut rig = Rig::new(device, firmware, facts, Boot::Firmware);
    rig.machine.run();
    rig.expect("HELLO FROM SECTOR 0\r\n");
    println!("floppy: first text after {:?}", start.elapsed());
    rig.send("x");
    rig.expect("x");
    // On the screen, too, and in the picture.
    assert!(rig.screen().iter().any(|line| line == "HELLO FROM SECTOR 0"), "{:#?}", rig.screen());
    let (text, colours) = rig.machine.screen().unwrap().unwrap();
    let (width, height, png) = text.png(rig.machine.font(), &colours).unwrap();
    assert_eq!((width, height), (720, 400));
    assert!(png.starts_with(b"\x89PNG"));
    // Standing still: no answer; going on: the answer comes.
    rig.machine.pause();
    rig.send("y");
    let before = rig.machine.board().serial(0).unwrap().kept().end();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(rig.machine.board().serial(0).unwrap().kept().end(), before);
    rig.machine.run();
    rig.expect("y");
    // A reset boots again.
    rig.machine.reset().unwrap();
    rig.machine.run();
    rig.expect("HELLO FROM SECTOR 0\r\n");
    let log = rig.log.lock().unwrap().join("\n");
    assert!(log.contains("SeaBIOS"), "{log}");
}

#[test]
fn the_keyboard_types_through_the_bios() {
    let Some((device, firmware)) = need("the_keyboard_types_through_the_bios") else { return };
    let mut facts = facts(16);
    facts.vga_bios = firmware.vga.clone();
    // sti; mov dx, 0x3f8; mov al, '>'; out dx, al; key: xor ah, ah; int 0x16; mov dx, 0x3f8; out dx, al; jmp key
    let mut image = vec![
        0xfb, 0xba, 0xf8, 0x03, 0xb0, b'>', 0xee, 0x30, 0xe4, 0xcd, 0x16, 0xba, 0xf8, 0x03, 0xee, 0xeb, 0xf6,
    ];
    image.resize(510, 0);
    image.extend_from_slice(&[0x55, 0xaa]);
    facts.floppy = Some(image);
    let mut rig = Rig::new(device, firmware, facts, Boot::Firmware);
    rig.machine.run();
    rig.expect(">");
    for character in "Hello, World!".chars() {
        assert!(rig.machine.board().press(&vmx::chips::keys::codes(character).unwrap()));
    }
    rig.expect("Hello, World!");
}

#[test]
fn a_second_processor_is_started_by_the_first() {
    let Some((device, firmware)) = need("a_second_processor_is_started_by_the_first") else { return };
    let mut facts = facts(16);
    facts.vga_bios = firmware.vga.clone();
    facts.cpus = 2;
    let mut image = boot_sector();
    image.resize(1440 * 1024, 0);
    facts.floppy = Some(image);
    let mut rig = Rig::new(device, firmware, facts, Boot::Firmware);
    rig.machine.run();
    rig.expect("HELLO FROM SECTOR 0\r\n");
    let log = rig.log.lock().unwrap().join("\n");
    assert!(log.contains("Found 2 cpu(s)"), "{log}");
    // Both stand still and go on; saved and restored with both.
    rig.machine.pause();
    rig.machine.run();
    rig.send("p");
    rig.expect("p");
}
