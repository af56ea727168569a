//! Other people's guests: GRUB's rescue CD from the ATAPI drive, memtest86+ without firmware.

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::{PATIENCE, Rig, facts, need, skipped};
use vmx::boot::Kernel;
use vmx::chips::ata::Unit;
use vmx::chips::cmos::BootDevice;
use vmx::drives::open_cd;
use vmx::machine::Boot;

/// Waits until a line of the screen contains `text`.
fn see(rig: &Rig, text: &str) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let screen = rig.screen();
        if screen.iter().any(|line| line.contains(text)) {
            return screen;
        }
        assert!(
            Instant::now() < deadline,
            "no {text:?} on the screen:\n{}\nevents: {:?}, log:\n{}",
            screen.join("\n"),
            rig.events.try_iter().take(20).collect::<Vec<_>>(),
            rig.log.lock().unwrap().join("\n")
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_menu_of_a_cd_is_on_the_screen() {
    const ISO: &str = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso";
    let what = "the_menu_of_a_cd_is_on_the_screen";
    if !Path::new(ISO).is_file() {
        return skipped(what, "the package grub-rescue-pc is not installed");
    }
    let Some((device, firmware)) = need(what) else { return };
    let mut facts = facts(64);
    facts.vga_bios = firmware.vga.clone();
    facts.boot = vec![BootDevice::Cd, BootDevice::HardDisk];
    let rig = Rig::new(device, firmware, facts, Boot::Firmware);
    let (medium, blocks) = open_cd("ide1:0", Path::new(ISO)).unwrap();
    rig.machine.board().set_channel(
        1,
        [Some(Unit::cd(Some(blocks), "2".into())), None],
        [Some(medium), None],
    );
    let start = Instant::now();
    rig.machine.run();
    let screen = see(&rig, "GNU GRUB");
    println!("cd: menu after {:?}\n{}", start.elapsed(), screen.join("\n"));
    // The picture shows what the text says: cut it into characters, and look each up in the font.
    rig.machine.pause();
    let (text, colours) = rig.machine.screen().unwrap().unwrap();
    let (width, _, png) = text.png(rig.machine.font(), &colours).unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(&png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let lit: Vec<usize> = (0..text.rows)
        .map(|row| {
            let line = &pixels[row * 16 * width as usize..][..16 * width as usize];
            line.iter().filter(|&&pixel| pixel != line[0]).count()
        })
        .collect();
    let title = text.lines().iter().position(|line| line.contains("GNU GRUB")).unwrap();
    assert!(lit[title] > 100, "{lit:?}");
}

#[test]
fn memtest_moves() {
    const MEMTEST: &str = "/boot/memtest86+x64.bin";
    if !Path::new(MEMTEST).is_file() {
        return skipped("memtest_moves", "the package memtest86+ is not installed");
    }
    let Some((device, firmware)) = need("memtest_moves") else { return };
    let kernel = Kernel::read(Path::new(MEMTEST), None, "console=ttyS0,115200").unwrap();
    let start = Instant::now();
    let rig = Rig::new(device, firmware, facts(16), Boot::Kernel(kernel));
    rig.machine.run();
    let first = see(&rig, "Memtest86+");
    println!("memtest: screen after {:?}", start.elapsed());
    let deadline = Instant::now() + PATIENCE;
    while rig.screen() == first {
        assert!(Instant::now() < deadline, "nothing moves:\n{}", first.join("\n"));
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("{}", rig.screen().join("\n"));
}
