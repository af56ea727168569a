//! A long-mode guest at user privilege: native speed, pausing, exact dirty pages, two processors.

mod common;
#[path = "common/counter.rs"]
mod counter;
#[path = "common/elf.rs"]
mod elf;

use std::time::{Duration, Instant};

use common::{PATIENCE, Rig, facts, need};
use counter::{COUNTERS, ORDER, counter, ordered};
use vmx::boot::Kernel;
use vmx::machine::{Boot, Machine};
use vmx::memory;

fn number(machine: &Machine, address: u64) -> u64 {
    let mut bytes = [0; 8];
    memory::read(machine.memory(), address, &mut bytes).unwrap();
    u64::from_le_bytes(bytes)
}

/// Waits until `done` says so.
fn wait(what: &str, rig: &Rig, mut done: impl FnMut(&Machine) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done(&rig.machine) {
        let events: Vec<_> = rig.events.try_iter().collect();
        assert!(events.is_empty(), "{what}: {events:?}");
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until every counter has moved by `steps`.
fn moved(what: &str, rig: &Rig, processors: usize, steps: u64) {
    let counters = &COUNTERS[..processors];
    let before: Vec<u64> = counters.iter().map(|&at| number(&rig.machine, at)).collect();
    wait(what, rig, |machine| {
        counters.iter().zip(&before).all(|(&at, before)| number(machine, at) >= before + steps)
    });
}

fn boot(directory: &std::path::Path, what: &str, processors: u8) -> Option<Rig> {
    let (device, firmware) = need(what)?;
    let kernel = Kernel::read(&counter(directory), None, "").unwrap();
    let mut facts = facts(16);
    facts.cpus = processors;
    Some(Rig::new(device, firmware, facts, Boot::Kernel(kernel)))
}

#[test]
fn counts_at_native_speed_and_its_writes_are_noted() {
    let directory = tempfile::tempdir().unwrap();
    let Some(rig) = boot(directory.path(), "counts_at_native_speed", 1) else { return };
    rig.machine.run();
    wait("the guest is up", &rig, |machine| number(machine, COUNTERS[0]) > 0);
    assert_eq!(number(&rig.machine, COUNTERS[0] + 8) & 3, 3, "it runs at user privilege");
    // Emulated, this many steps would take minutes.
    let start = Instant::now();
    moved("native speed", &rig, 1, 300_000_000);
    println!("300 M steps in {:?}", start.elapsed());
    // Standing still, not a step; then on from there.
    rig.machine.pause();
    let then = number(&rig.machine, COUNTERS[0]);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(number(&rig.machine, COUNTERS[0]), then);
    rig.machine.run();
    moved("goes on", &rig, 1, 1_000_000);
    // Which pages it writes.
    rig.machine.pause();
    assert!(rig.machine.written().is_err(), "not noted yet");
    rig.machine.note_writes(true).unwrap();
    assert_eq!(rig.machine.written().unwrap(), [0u64; 0]);
    rig.machine.run();
    moved("noted", &rig, 1, 1000);
    rig.machine.pause();
    assert_eq!(rig.machine.written().unwrap(), COUNTERS[..1]);
    assert_eq!(rig.machine.written().unwrap(), [0u64; 0], "each write is told once");
    for count in [1u32, 7, 200] {
        memory::write(rig.machine.memory(), ORDER, &count.to_le_bytes()).unwrap();
        rig.machine.run();
        wait("the order is carried out", &rig, |machine| number(machine, ORDER) & 0xffff_ffff == 0);
        rig.machine.pause();
        let expected = [COUNTERS[0], ORDER].into_iter().chain((0..u64::from(count)).map(ordered));
        assert_eq!(rig.machine.written().unwrap(), expected.collect::<Vec<_>>());
    }
    rig.machine.note_writes(false).unwrap();
    rig.machine.run();
    moved("no longer noted", &rig, 1, 1000);
    assert!(rig.machine.written().is_err());
}

#[test]
fn two_processors_stand_still_move_and_are_saved_together() {
    let directory = tempfile::tempdir().unwrap();
    let Some(rig) = boot(directory.path(), "two_processors", 2) else { return };
    let both = |machine: &Machine| COUNTERS.map(|at| number(machine, at));
    rig.machine.run();
    moved("both are up", &rig, 2, 10_000_000);
    assert_eq!(COUNTERS.map(|at| number(&rig.machine, at + 8) & 3), [3, 3]);
    rig.machine.pause();
    let then = both(&rig.machine);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(both(&rig.machine), then);
    // Saved, and restored in another machine: both go on from there.
    let file = directory.path().join("a.vmss");
    rig.machine.save(&file, 7).unwrap();
    let second = boot(directory.path(), "two_processors", 2).unwrap();
    assert_eq!(second.machine.restore(&file).unwrap(), 7);
    assert_eq!(both(&second.machine), then);
    second.machine.run();
    moved("both go on", &second, 2, 10_000_000);
    drop(second);
    // A machine with one processor is another one.
    let other = boot(directory.path(), "two_processors", 1).unwrap();
    assert!(other.machine.restore(&file).unwrap_err().to_string().contains("2 processors"));
    drop(other);
    // A reset starts them again, one after the other.
    rig.machine.run();
    moved("goes on", &rig, 2, 1000);
    rig.machine.reset().unwrap();
    for at in COUNTERS {
        memory::write(rig.machine.memory(), at, &[0xff; 16]).unwrap();
    }
    rig.machine.run();
    wait("counted anew", &rig, |machine| {
        both(machine).iter().all(|count| (1000..u64::MAX / 2).contains(count))
    });
    assert_eq!(COUNTERS.map(|at| number(&rig.machine, at + 8) & 3), [3, 3]);
}
