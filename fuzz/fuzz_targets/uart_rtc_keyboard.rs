//! Three chips by their ports, in any order of reads and writes. The serial port passes on what the guest
//! sends, and gives what it was sent, in order; the clock shows times that exist, and keeps its memory; the
//! keyboard controller's status tells the truth. All three come back from a saved state as they were, and
//! none grows without bound.
#![no_main]

use fuzz::Input;
use hypervisor::control::SERIAL_KEPT;
use libfuzzer_sys::fuzz_target;
use vmx::chips::cmos::{BootDevice, Cmos, SIZE};
use vmx::chips::i8042::I8042;
use vmx::chips::keys;
use vmx::chips::serial::SerialPort;

/// The most that a saved keyboard controller takes: its queues and a few registers.
const KEYBOARD_MAX: usize = 4096 + 256;

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    match input.byte() % 3 {
        0 => serial(input),
        1 => clock(input),
        _ => keyboard(input),
    }
});

fn saved<S: serde::Serialize>(state: &S) -> Vec<u8> {
    postcard::to_stdvec(state).expect("chips can be saved")
}

fn serial(mut input: Input<'_>) {
    const LOOPBACK: u8 = 0x10;
    let mut port = SerialPort::default();
    let (mut line, mut modem) = (0u8, 0u8);
    let (mut sent, mut waiting) = (Vec::new(), std::collections::VecDeque::new());
    // The chip loses what loops back while its buffer is full: from then on only bounds are checked.
    let mut looped = false;
    while !input.is_empty() {
        let operation = input.byte();
        let register = operation >> 4 & 7;
        match operation & 3 {
            0 => {
                let there = port.read(5) & 1 != 0;
                let value = port.read(register);
                if register == 0 && line & 0x80 == 0 && there && !looped {
                    assert_eq!(Some(value), waiting.pop_front(), "input comes in order");
                }
            }
            1 => {
                let value = input.byte();
                port.write(register, value);
                match register {
                    0 if line & 0x80 == 0 && modem & LOOPBACK == 0 => sent.push(value),
                    3 => line = value,
                    4 => modem = value,
                    _ => {}
                }
                looped |= modem & LOOPBACK != 0;
            }
            2 => {
                let count = usize::from(input.byte());
                let bytes = input.bytes(count);
                let taken = port.send(bytes);
                waiting.extend(bytes.iter().take(taken));
                assert!(waiting.len() <= 4096 + 64 || looped);
            }
            _ if operation & 0x80 != 0 => port.reset(),
            _ => {
                let before = saved(&port.save());
                let state = postcard::from_bytes(&before).expect("what was saved is read");
                port = SerialPort::restore(state).expect("a saved port can be restored");
                assert_eq!(saved(&port.save()), before);
            }
        }
        if operation & 3 == 3 && operation & 0x80 != 0 {
            // A reset chip has lost what was in its own buffer.
            (line, modem, looped) = (0, 0, true);
        }
        let _ = (port.take_interrupt(), port.take_fresh());
    }
    let kept = port.kept();
    assert_eq!(kept.end(), sent.len() as u64);
    let part = kept.part(0, usize::MAX);
    assert!(part.bytes.len() <= SERIAL_KEPT);
    assert_eq!(part.bytes, sent[sent.len() - part.bytes.len()..]);
    assert_eq!(part.lost, part.offset);
}

fn clock(mut input: Input<'_>) {
    let devices = [BootDevice::Floppy, BootDevice::HardDisk, BootDevice::Cd];
    let order: Vec<BootDevice> =
        (0..input.byte() % 5).map(|number| devices[usize::from(number) % 3]).collect();
    let size = |input: &mut Input<'_>| u64::from(input.word()) << (input.byte() % 48);
    let (low, high, cpus) = (size(&mut input), size(&mut input), input.byte());
    let mut chip = Cmos::new(low, high, cpus, &order);
    // From before the common era to long after every sun has gone out.
    let now = i64::from(input.word() as i16) << (input.byte() % 40);
    chip.set_ahead(i64::from(input.word() as i16) << (input.byte() % 63));
    let mut memory: [Option<u8>; SIZE] = [None; SIZE];
    let (mut index, mut status) = (0u8, 0x02u8);
    while !input.is_empty() {
        let (operation, value) = (input.byte(), input.byte());
        match operation & 3 {
            0 => {
                chip.write(0, value);
                index = value & 0x7f;
            }
            1 => {
                chip.write(1, value);
                match index {
                    0x00 | 0x02 | 0x04 | 0x06..=0x0a | 0x0c | 0x0d | 0x32 => {}
                    0x0b => status = value,
                    other => memory[usize::from(other)] = Some(value),
                }
            }
            2 => {
                let read = chip.read(1, now);
                if let Some(written) = memory[usize::from(index)] {
                    assert_eq!(read, written);
                }
                let number = |coded: u8| {
                    if status & 4 != 0 {
                        return coded;
                    }
                    assert!(coded & 0x0f <= 9 && coded >> 4 <= 9, "{coded:#x} is no BCD");
                    (coded >> 4) * 10 + (coded & 0x0f)
                };
                let range = match index {
                    0x00 | 0x02 => 0..=59,
                    0x04 if status & 2 != 0 => 0..=23,
                    0x04 => 1..=12,
                    0x06 => 1..=7,
                    0x07 => 1..=31,
                    0x08 => 1..=12,
                    0x09 => 0..=99,
                    _ => continue,
                };
                let afternoon = if index == 0x04 && status & 2 == 0 { 0x80 } else { 0 };
                let value = number(read & !afternoon);
                assert!(range.contains(&value), "register {index:#x} shows {value}");
            }
            _ => {
                let before = saved(&chip);
                chip = postcard::from_bytes(&before).expect("what was saved is read");
                assert_eq!(saved(&chip), before);
                assert_eq!(chip.read(0, now), 0xff);
            }
        }
    }
}

fn keyboard(mut input: Input<'_>) {
    let mut chip = I8042::default();
    while !input.is_empty() {
        let operation = input.byte();
        match operation & 7 {
            0 | 1 => {
                let full = chip.read(4) & 1 != 0;
                assert!(full || !chip.irq(), "an interrupt without a byte");
                let value = chip.read(0);
                assert_eq!(chip.read(4) & 1, 0, "the byte was read");
                assert_eq!(chip.read(0), value, "without a new byte there is the last one");
                chip.settle();
            }
            2 => {
                let _ = chip.write(0, input.byte());
                chip.settle();
            }
            3 | 4 => {
                let _ = chip.write(4, input.byte());
                chip.settle();
            }
            5 => {
                let before = chip.waiting();
                let codes = keys::codes(char::from(input.byte()));
                if let Ok(codes) = codes
                    && !chip.press(&codes)
                {
                    assert_eq!(chip.waiting(), before, "all of a key or nothing");
                }
            }
            6 => {
                let before = saved(&chip);
                assert!(before.len() <= KEYBOARD_MAX);
                chip = postcard::from_bytes(&before).expect("what was saved is read");
                assert_eq!(saved(&chip), before);
            }
            _ => assert_eq!(chip.read(4) & 0xe2, 0, "bits that are never set"),
        }
        assert!(chip.waiting() <= 4096);
    }
}
