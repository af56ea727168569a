//! What the tests of machines share: a machine without a server, and waiting for what it does.

#![allow(dead_code)] // every test file uses its own part

#[path = "grub_disk.rs"]
mod grub;

#[allow(unused_imports)] // as above
pub use grub::{in_path, run};

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use hypervisor::control::HostClass;
use vmx::board::Facts;
use vmx::chips::cmos::BootDevice;
use vmx::firmware::{DIRECTORY, Firmware};
use vmx::machine::{Boot, Listeners, Machine};
use vmx::vcpu::Event;

/// Says that a test is left out, past the capture of the test runner, and in the file that
/// `xtask test` prints again at its end.
pub fn skipped(what: &str, why: &str) {
    let line = format!("SKIPPED {what}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("VMSERVERD_SKIPPED") {
        let file = File::options().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// An open `/dev/kvm`, and firmware; or None, having said why.
pub fn need(what: &str) -> Option<(OwnedFd, Firmware)> {
    let device = match File::options().read(true).write(true).open("/dev/kvm") {
        Ok(device) => device,
        Err(error) => {
            skipped(what, &format!("/dev/kvm: {error}"));
            return None;
        }
    };
    match Firmware::load(Path::new(DIRECTORY)) {
        Ok(firmware) => Some((device.into(), firmware)),
        Err(error) => {
            skipped(what, &error.to_string());
            None
        }
    }
}

/// How long anything may take: emulated hosts are slow, and busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A machine, and what it says.
pub struct Rig {
    pub machine: Machine,
    pub events: Receiver<Event>,
    pub log: Arc<Mutex<Vec<String>>>,
    woken: Arc<(Mutex<()>, Condvar)>,
    /// Serial output up to here was looked at.
    seen: u64,
}

impl Rig {
    pub fn new(device: OwnedFd, firmware: Firmware, facts: Facts, boot: Boot) -> Self {
        let class = vmx::probe::class(device.try_clone().unwrap()).unwrap();
        Self::of_class(device, firmware, facts, boot, class)
    }

    /// A machine that believes that its host is of this class.
    pub fn of_class(device: OwnedFd, firmware: Firmware, facts: Facts, boot: Boot, class: HostClass) -> Self {
        let (sender, events) = channel();
        let sender = Mutex::new(sender);
        let log = Arc::new(Mutex::new(Vec::new()));
        let woken = Arc::new((Mutex::new(()), Condvar::new()));
        let (lines, bell) = (Arc::clone(&log), Arc::clone(&woken));
        let listeners = Listeners {
            events: Box::new(move |event| {
                let _ = sender.lock().unwrap().send(event);
            }),
            log: Arc::new(move |line| lines.lock().unwrap().push(line.to_owned())),
            // Without the lock: the caller holds that of the board.
            wake: Arc::new(move || bell.1.notify_all()),
            enter: || Ok(()),
        };
        let machine = Machine::new(device, facts, firmware, boot, listeners).unwrap();
        machine.adapt(class);
        machine.board().add_serial(0, None);
        Rig { machine, events, log, woken, seen: 0 }
    }

    /// Waits until the guest has sent `text` on its serial port; returns everything up to there since
    /// the last call.
    pub fn expect(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let part = self.machine.board().serial(0).unwrap().kept().part(self.seen, usize::MAX);
            let output = String::from_utf8_lossy(&part.bytes).into_owned();
            if let Some(place) = output.find(text) {
                let end = place + text.len();
                self.seen = part.offset + end as u64;
                return output[..end].to_owned();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let events: Vec<_> = self.events.try_iter().collect();
                let log = self.log.lock().unwrap().join("\n");
                panic!("no {text:?} on the serial port, but:\n{output}\nevents: {events:?}\nlog:\n{log}");
            }
            // The bell may ring between looking and waiting: look again after a while.
            let guard = self.woken.0.lock().unwrap();
            drop(self.woken.1.wait_timeout(guard, left.min(Duration::from_millis(50))).unwrap());
        }
    }

    /// Types on the serial port.
    pub fn send(&mut self, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let count = self.machine.board().send(0, rest).unwrap();
            rest = &rest[count..];
        }
    }

    /// The next event that stopped the machine.
    pub fn event(&self) -> Event {
        loop {
            match self.events.recv_timeout(PATIENCE).expect("no event") {
                Event::Filled(_) => {}
                event => return event,
            }
        }
    }

    /// The lines of the text screen.
    pub fn screen(&self) -> Vec<String> {
        self.machine.screen().unwrap().expect("a text mode").0.lines()
    }
}

pub fn facts(memory_mb: u64) -> Facts {
    Facts {
        memory: memory_mb << 20,
        cpus: 1,
        uuid: [0x56; 16],
        boot: vec![BootDevice::Floppy, BootDevice::HardDisk, BootDevice::Cd],
        vga_bios: Vec::new(),
        floppy: None,
    }
}

/// Whether the acceptance disk can be built; if not, says that the test is left out.
pub fn need_grub(what: &str) -> bool {
    let missing = grub::missing();
    if !missing.is_empty() {
        skipped(what, &format!("missing: {missing:?}"));
    }
    missing.is_empty()
}

/// Builds the acceptance disk in `directory`. Returns its path: a monolithicSparse VMDK.
pub fn grub_disk(directory: &Path) -> std::path::PathBuf {
    grub::disk(directory)
}
