//! A .vmx file and the line of an event log: any bytes are read, every fact stays within its bounds,
//! and writing loses nothing. A value that is set is read again and never becomes a line of its own.
#![no_main]

use hypervisor::event_log::Event;
use hypervisor::vmx_file::VmxFile;
use libfuzzer_sys::fuzz_target;

fn without_line_ends(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect()
}

fuzz_target!(|input: &[u8]| {
    let mut vmx = VmxFile::parse(input);
    assert!(vmx.memory_mb() >= 4 && vmx.memory_mb().is_multiple_of(4));
    assert!((1..=64).contains(&vmx.cpus()));
    let _ = (vmx.is_usable(), vmx.display_name(), vmx.guest(), vmx.uuid_location(), vmx.suspend_state());
    assert!(vmx.drives().len() <= 4 + 4 * 15);
    let _ = (vmx.floppies(), vmx.network_adapters(), vmx.serial_ports());

    let written = vmx.to_bytes();
    assert_eq!(without_line_ends(&written), without_line_ends(input));
    assert_eq!(VmxFile::parse(&written).to_bytes(), written);

    let lines = written.iter().filter(|&&byte| byte == b'\n').count();
    let value = String::from_utf8_lossy(input.get(..40).unwrap_or(input));
    // Characters that the encoding of the file lacks are written as a question mark.
    if std::str::from_utf8(input).is_ok() {
        vmx.set("fuzz.key", &value);
        let again = VmxFile::parse(&vmx.to_bytes());
        assert_eq!(again.get("fuzz.key"), Some(value.as_ref()));
        let now = again.to_bytes().iter().filter(|&&byte| byte == b'\n').count();
        assert!(now <= lines + 1);
    }

    for line in input.split(|&byte| byte == b'\n') {
        if let Some(event) = Event::parse_line(line) {
            let line = event.to_line();
            assert_eq!(line.matches('\n').count(), 1);
            let again = Event::parse_line(line.trim_end().as_bytes()).expect("what we write is read");
            assert_eq!((again.kind, again.time), (event.kind, event.time));
        }
    }
});
