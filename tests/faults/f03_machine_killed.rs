//! F3: the process of a machine is killed, whatever the machine was doing: it is off, with an event, its lock is
//! gone, it starts again, and the other machines have not noticed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tests::figures::{full, most_ms};
use tests::guest::{Events, FLOPPY, counter, need_kvm};
use tests::{Account, Exec, Guest, Setup, eventually, need_root, process};

/// Off after its process was killed: the target, which a host that is busy with other tests cannot promise.
const TARGET_MS: f64 = 100.0;
/// And what even such a host must hold.
const OFF_WITHIN: Duration = Duration::from_secs(5);

/// The guest counts on: each digit follows on the one before.
fn counts_on(guest: &mut Guest, exec: &mut Exec) {
    let (before, mut text) = (guest.seen, String::new());
    while guest.seen < before + 3 {
        let (more, next) = guest.output(exec, guest.seen, 20);
        assert!(!more.is_empty(), "{} stands still", guest.config.display());
        (guest.seen, text) = (next, text + &more);
    }
    let digits: Vec<u32> = text.chars().filter_map(|character| character.to_digit(10)).collect();
    assert!(
        digits.len() == text.len() && digits.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 10),
        "{text:?}"
    );
}

#[test]
fn a_killed_machine_is_off_and_the_others_go_on() {
    const WHAT: &str = "killing the processes of machines";
    if !need_root(WHAT) || !need_kvm(WHAT) {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let base = instance.public_directory("vms");
    let mut exec = instance.tcp().login(&account).server();
    let mut guests: Vec<Guest> = ["witness", "on", "paused", "stuck"]
        .map(|name| {
            let guest = Guest::new(&base, name, &account, FLOPPY);
            guest.must(&mut exec, "VMRegister", "");
            guest
        })
        .into();
    for guest in &mut guests {
        if guest.config.ends_with("stuck.vmx") {
            // Without the image of its floppy a machine asks what to do.
            assert_eq!(guest.op(&mut exec, "VM_Start", "").code(), -16);
            continue;
        }
        guest.put("boot.img", &counter());
        guest.must(&mut exec, "VM_Start", "");
    }
    let (witness, victims) = guests.split_first_mut().unwrap();
    witness.expect(&mut exec, "0123");
    let mut waiting = instance.tcp().login(&account).server();
    let mut worst = Duration::ZERO;
    for round in 0..if full() { 10 } else { 1 } {
        for guest in victims.iter_mut() {
            let stuck = guest.config.ends_with("stuck.vmx");
            if round > 0 {
                assert_eq!(guest.op(&mut exec, "VM_Start", "").code(), if stuck { -16 } else { 0 });
            }
            if !stuck {
                guest.seen = 0;
                guest.expect(&mut exec, "0123");
            }
            if guest.config.ends_with("paused.vmx") {
                guest.must(&mut exec, "VM_Pause", "");
            }
            let (_, pid) = guest.state(&mut exec);
            let mut events = Events::new(&mut waiting);
            let config = guest.config.clone();
            let (way, told) = std::thread::scope(|scope| {
                let waits = scope.spawn(|| (events.reaches(&mut waiting, &config, "off"), Instant::now()));
                let killed = Instant::now();
                process::kill(pid);
                let (way, told) = waits.join().unwrap();
                (way, told.duration_since(killed))
            });
            assert_eq!(way, ["off"]);
            worst = worst.max(told);
            assert_eq!(guest.state(&mut exec), ("off".to_owned(), 0));
            let last = guest.events(&mut exec).pop().unwrap();
            assert!(last.contains("crashed") && last.contains(&pid.to_string()), "{last}");
            let lock = PathBuf::from(format!("{}.lck", guest.config.display()));
            eventually("the lock file is removed", || (!lock.exists()).then_some(()));
            counts_on(witness, &mut exec);
        }
    }
    assert!(worst < OFF_WITHIN, "{worst:?}");
    most_ms("F3", "until a client is told that the machine is off, worst", worst, TARGET_MS);
    // What was killed starts again.
    let on = &mut victims[0];
    on.must(&mut exec, "VM_Start", "");
    on.seen = 0;
    on.expect(&mut exec, "0123");
    for guest in [&guests[0], &guests[1]] {
        guest.must(&mut exec, "VM_Stop", "<mode>hard</mode>");
    }
}
