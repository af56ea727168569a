//! Keys for guests that hardly ever let an interrupt through.
//!
//! GRUB runs with interrupts off and opens a window of a few instructions before each call of the BIOS.
//! A processor with virtualization stops at that window by itself. A KVM that emulates system code may
//! run through it without looking: then the interrupt of a key waits until the guest happens to be
//! interrupted inside a window, where the timer's interrupt, which goes first, waits as well. So on such
//! a host, while a key waits, the first processor is called out of the guest thousands of times a second:
//! KVM looks for interrupts whenever it goes back, and now and then that is inside a window.

use std::sync::Weak;
use std::time::{Duration, Instant};

use hypervisor::control::HostClass;

use crate::machine::Machine;

/// Between two calls.
const PERIOD: Duration = Duration::from_micros(50);

/// How often it is looked whether the guest has read a key, where nobody needs to call.
const LOOK: Duration = Duration::from_millis(2);

/// After so long without a byte being read, no more calls: the guest may not be interested in the
/// keyboard's interrupt.
const GIVE_UP: Duration = Duration::from_secs(2);

/// Waits until the guest has read all codes of its keyboard, and helps it to; returns at once when the
/// machine has gone. For a thread that may wait.
pub fn until_read(machine: &Weak<Machine>, class: HostClass) {
    let (mut unread, mut since) = (usize::MAX, Instant::now());
    loop {
        let Some(machine) = machine.upgrade() else { return };
        let (now, pressing) = {
            let board = machine.board();
            (board.keys_unread(), board.keys_pressing() > 0)
        };
        if now == 0 {
            return;
        }
        if now < unread {
            (unread, since) = (now, Instant::now());
        }
        let calls = pressing && class == HostClass::Emulated && since.elapsed() < GIVE_UP;
        if calls {
            machine.nudge();
        }
        drop(machine);
        std::thread::sleep(if calls { PERIOD } else { LOOK });
    }
}
