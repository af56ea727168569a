//! Keys for guests that hardly ever let an interrupt through.
//!
//! GRUB runs with interrupts off and opens a window of a few instructions before each call of the BIOS.
//! A processor with virtualization stops at that window by itself. A KVM that emulates system code may
//! run through it without looking: then the interrupt of a key waits until the guest happens to be
//! interrupted inside a window, where the timer's interrupt, which goes first, waits as well. So on such
//! a host the first processor is single-stepped while a key waits: KVM looks before every instruction.

use std::sync::atomic::{AtomicBool, Ordering};

use kvm_bindings::{KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_SINGLESTEP, kvm_guest_debug};
use kvm_ioctls::VcpuFd;

/// Steps without a byte being read, after which this is given up: a second or so. The guest may not be
/// interested in the keyboard's interrupt.
const STEPS: u32 = 50_000;

/// What the first processor's thread and the others share.
#[derive(Debug, Default)]
pub struct Wish {
    /// The host is one of those.
    pub wanted: AtomicBool,
    /// Keys were typed, and the thread has not seen it.
    pub typed: AtomicBool,
}

/// The state of the first processor's thread.
#[derive(Debug, Default)]
pub struct Stepper {
    on: bool,
    left: u32,
    /// Codes that waited when it was last looked.
    waiting: usize,
}

impl Stepper {
    /// To be called before the guest goes on: `waiting` is the number of codes that it has not read, 0
    /// when the keyboard does not interrupt.
    pub fn look(&mut self, fd: &VcpuFd, wish: &Wish, waiting: usize) {
        if wish.typed.swap(false, Ordering::AcqRel) || waiting < self.waiting {
            self.left = STEPS;
        }
        self.waiting = waiting;
        let on = waiting > 0 && self.left > 0 && wish.wanted.load(Ordering::Acquire);
        self.left = self.left.saturating_sub(u32::from(on));
        self.set(fd, on);
    }

    /// Lets the guest run as usual.
    pub fn end(&mut self, fd: &VcpuFd) {
        self.set(fd, false);
    }

    fn set(&mut self, fd: &VcpuFd, on: bool) {
        if self.on == on {
            return;
        }
        let control = if on { KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP } else { 0 };
        let debug = kvm_guest_debug { control, ..Default::default() };
        // A KVM that cannot do it delivers keys when it pleases.
        if fd.set_guest_debug(&debug).is_ok() {
            self.on = on;
        } else {
            self.left = 0;
        }
    }
}
