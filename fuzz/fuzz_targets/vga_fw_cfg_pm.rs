//! Three more chips by their ports. Whatever a VGA was told, its text screen has a size that can be drawn,
//! and is drawn; fw_cfg gives the items of a model, byte by byte; the ACPI registers end a machine only by the
//! two bits that mean it.
#![no_main]

use std::collections::BTreeMap;

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use vmx::chips::Effect;
use vmx::chips::acpi_pm::AcpiPm;
use vmx::chips::debug_port::DebugPort;
use vmx::chips::fw_cfg::FwCfg;
use vmx::chips::vga::{FIRST, LAST, TEXT_SIZE, Vga};
use vmx::screen::Text;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    match input.byte() % 4 {
        0 => vga(input),
        1 => fw_cfg(input),
        2 => power(input),
        _ => debug(input),
    }
});

fn saved<S: serde::Serialize>(state: &S) -> Vec<u8> {
    postcard::to_stdvec(state).expect("chips can be saved")
}

fn vga(mut input: Input<'_>) {
    let mut chip = Vga::default();
    while !input.is_empty() {
        let operation = input.byte();
        let port = FIRST + u16::from(operation >> 2) % (LAST - FIRST + 1);
        match operation & 3 {
            0 => drop(chip.read(port)),
            1 | 2 => chip.write(port, input.byte()),
            _ => {
                let value = input.word();
                chip.write_dispi(0x1ce, value);
                assert_eq!(chip.read_dispi(0x1ce), value);
                let before = saved(&chip);
                chip = postcard::from_bytes(&before).expect("what was saved is read");
                assert_eq!(saved(&chip), before);
            }
        }
    }
    let _ = chip.colours();
    let Some(mode) = chip.text_mode() else {
        return;
    };
    assert!((1..=160).contains(&mode.columns) && (1..=100).contains(&mode.rows) && mode.height <= 16);
    assert!(mode.start < TEXT_SIZE);
    let text = Text::of(&mode, &[0x41; 64]);
    assert_eq!(text.cells.len(), mode.columns * mode.rows);
    assert!(text.cells.iter().all(|&cell| cell == (0x41, 0x41)));
    assert!(text.cursor.is_none_or(|cell| cell < text.cells.len()));
    assert_eq!(text.lines().len(), mode.rows);
}

fn fw_cfg(mut input: Input<'_>) {
    let mut chip = FwCfg::new(1 << 27, 2, [7; 16]);
    let mut model: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    for number in 0..u16::from(input.byte() % 8) {
        let length = usize::from(input.byte());
        let name = String::from_utf8_lossy(input.bytes(length)).into_owned();
        let length = usize::from(input.byte());
        let contents = input.bytes(length).to_vec();
        chip.add(&name, contents.clone());
        model.insert(0x20 + number, contents);
    }
    while !input.is_empty() {
        let (operation, item) = (input.byte(), input.word());
        chip.select(item);
        let mut wanted = model.get(&item).cloned();
        for place in 0..usize::from(operation) {
            let byte = chip.read();
            if let Some(wanted) = &mut wanted {
                assert_eq!(byte, wanted.get(place).copied().unwrap_or(0));
            }
            if place == 9 {
                let there = chip.place();
                assert_eq!(there, (item, 10));
                chip.select(0);
                chip.set_place(there);
            }
        }
    }
    chip.set_place((0x19, u32::MAX));
    assert_eq!((chip.read(), chip.read()), (0, 0), "far behind its end");
    chip.select(0x19);
    let count = u32::from_be_bytes(std::array::from_fn(|_| chip.read()));
    assert_eq!(count as usize, model.len());
}

fn power(mut input: Input<'_>) {
    let mut chip = AcpiPm::default();
    let mut control = 0u16;
    while !input.is_empty() {
        let operation = input.byte();
        let offset = u16::from(operation >> 4);
        match operation & 3 {
            0 => {
                let nanoseconds = u64::from(input.word()) << (input.byte() % 49);
                let byte = chip.read(offset, nanoseconds);
                assert!(offset < 0x0b || byte == 0 || byte == 0xff, "a timer of 24 bits");
            }
            1 | 2 => {
                let data = input.bytes(1 + usize::from(operation >> 2 & 3));
                let mut off = false;
                for (place, &byte) in (offset..).zip(data) {
                    match place {
                        4 => control = control & 0xff00 | u16::from(byte),
                        5 => {
                            control = control & 0xff | u16::from(byte & 0xdf) << 8;
                            off |= byte & 0x20 != 0 && byte >> 2 & 7 == 0;
                        }
                        _ => {}
                    }
                }
                let effect = chip.write(offset, data);
                assert_eq!(effect == Some(Effect::PowerOff), off);
            }
            _ => {
                chip.press_power_button();
                assert_eq!(chip.irq(), chip.wants_power_button());
                let before = saved(&chip);
                chip = postcard::from_bytes(&before).expect("what was saved is read");
                assert_eq!(saved(&chip), before);
            }
        }
    }
}

fn debug(mut input: Input<'_>) {
    let mut chip = DebugPort::default();
    while !input.is_empty() {
        if let Some(line) = chip.write(input.byte()) {
            assert!(
                line.len() <= 512 && !line.contains(|character: char| character < ' ' && character != '\t')
            );
        }
    }
}
