//! The reader of suspended machines. Any bytes, with and without right checksums, are read or refused with
//! an error that names the file; memory comes only from what the file really holds; and a file that our
//! writer made is read as it was written.
#![no_main]

use fuzz::Input;
use libfuzzer_sys::fuzz_target;
use vmx::machine::Saved;
use vmx::{memory, state_file};

/// Bytes of the guest's memory.
const RAM: u64 = 64 << 10;

fn checked(out: &mut Vec<u8>, parts: &[&[u8]]) {
    let start = out.len();
    parts.iter().for_each(|part| out.extend_from_slice(part));
    let sum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&sum.to_le_bytes());
}

/// A file whose checksums are right, of whatever parts the input has; None in place of the memory when a
/// part of it does not fit.
fn compose(input: &mut Input<'_>) -> (Vec<u8>, Vec<u8>, Option<Vec<u8>>) {
    let flags = input.byte();
    let length = usize::from(input.byte());
    let state = postcard::to_stdvec(input.bytes(length)).expect("bytes");
    let claimed = if flags & 1 != 0 { u32::from(input.word()) << 16 } else { state.len() as u32 };
    let version = if flags & 2 != 0 { u32::from(input.byte()) } else { state_file::VERSION };
    let mut good = claimed as usize == state.len() && version == state_file::VERSION;
    let mut file = Vec::new();
    checked(&mut file, &[b"VMSRVDST", &version.to_le_bytes(), &claimed.to_le_bytes()]);
    checked(&mut file, &[&state]);
    let mut ram = vec![0; RAM as usize];
    let mut runs = 0u32;
    while !input.is_empty() && runs < 40 {
        let place = input.byte();
        let address = u64::from(input.word()) << if place & 0x80 != 0 { place & 0x3f } else { 0 };
        let length = usize::from(place & 0x3f) * 16;
        let bytes: Vec<u8> = (0..length).map(|number| place ^ number as u8).collect();
        let claimed = if place & 0x40 != 0 { u32::from(input.word()) << 12 } else { length as u32 };
        checked(&mut file, &[&address.to_le_bytes(), &claimed.to_le_bytes(), &bytes]);
        let target =
            usize::try_from(address).ok().and_then(|from| ram.get_mut(from..from.checked_add(length)?));
        match target {
            Some(target) if claimed as usize == length => target.copy_from_slice(&bytes),
            // Nothing at any address is no memory that the machine lacks, or is: either answer will do.
            _ => good = false,
        }
        runs += 1;
    }
    let count = if flags & 4 != 0 { u32::from(input.byte()) } else { runs };
    good &= count == runs;
    checked(&mut file, &[&u64::MAX.to_le_bytes(), &0u32.to_le_bytes(), &count.to_le_bytes()]);
    (file, state, good.then_some(ram))
}

fuzz_target!(|input: &[u8]| {
    let mut input = Input(input);
    let ram = || memory::reserve(RAM, 0).expect("a little memory");
    if input.byte() & 1 == 0 {
        // As it comes, as a whole machine and as a few bytes.
        if let Err(error) = state_file::read_state::<Saved, _>("a.vmss".into(), input.0) {
            assert!(error.to_string().starts_with("a.vmss: "));
        }
        if let Ok((_, reader)) = state_file::read_state::<Vec<u8>, _>("a.vmss".into(), input.0) {
            let _ = reader.read_memory(&ram());
        }
        return;
    }
    let (file, state, expected) = compose(&mut input);
    let read = || -> Result<(Vec<u8>, Vec<u8>), state_file::Error> {
        let (state, reader) = state_file::read_state::<Vec<u8>, _>("a.vmss".into(), file.as_slice())?;
        let (ram, mut bytes) = (ram(), vec![0; RAM as usize]);
        reader.read_memory(&ram)?;
        memory::read(&ram, 0, &mut bytes).expect("the memory is there");
        Ok((state, bytes))
    };
    match (read(), expected) {
        (Ok((read, bytes)), Some(expected)) => {
            assert_eq!(postcard::to_stdvec(&read).expect("bytes"), state);
            assert!(bytes == expected, "the memory is that of the file");
        }
        (Ok(_), None) => {}
        (Err(error), Some(_)) => panic!("a good file is refused: {error}"),
        (Err(error), None) => assert!(error.to_string().starts_with("a.vmss: ")),
    }
});
