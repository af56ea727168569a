//! What the tests of machines share: a machine without a server, and waiting for what it does.

#![allow(dead_code)] // every test file uses its own part

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

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {error}");
}

/// Where GRUB's parts for a BIOS are, and the programs that are needed with them.
const GRUB: &str = "/usr/lib/grub/i386-pc";

/// Whether the acceptance disk can be built; if not, says that the test is left out.
pub fn need_grub(what: &str) -> bool {
    let programs = ["grub-mkimage", "grub-editenv", "mformat", "mcopy", "qemu-img"];
    let missing: Vec<&str> = programs.into_iter().filter(|program| !in_path(program)).collect();
    let grub = Path::new(GRUB).join("boot.img").is_file();
    if !missing.is_empty() || !grub {
        skipped(
            what,
            &format!("missing: {missing:?}{}", if grub { "" } else { ", the package grub-pc-bin" }),
        );
    }
    missing.is_empty() && grub
}

/// Whether a program is installed.
pub fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Builds the acceptance disk in `directory`: GRUB, a FAT file system, and a file that GRUB can write.
/// Returns its path: a monolithicSparse VMDK.
pub fn grub_disk(directory: &Path) -> std::path::PathBuf {
    use std::ffi::OsStr;
    let file = |name: &str| directory.join(name);
    std::fs::write(
        file("acc.cfg"),
        "serial --unit=0 --speed=115200\nterminal_input serial console\nterminal_output serial console\n\
         set root=(hd0,msdos1)\nload_env -f (hd0,msdos1)/grubenv\necho HV-GRUB-UP boots=$boots\n",
    )
    .unwrap();
    let (config, core) = (file("acc.cfg"), file("core.img"));
    let mut arguments: Vec<&OsStr> =
        ["-d", GRUB, "-O", "i386-pc", "-p", "(hd0,msdos1)/grub", "-c"].map(OsStr::new).into();
    arguments.extend([config.as_os_str(), OsStr::new("-o"), core.as_os_str()]);
    let modules =
        ["biosdisk", "part_msdos", "fat", "serial", "terminal", "echo", "reboot", "halt", "loadenv", "cat"];
    arguments.extend(modules.map(OsStr::new));
    run("grub-mkimage", &arguments);
    let environment = file("grubenv");
    run("grub-editenv", &[environment.as_os_str(), OsStr::new("create")]);
    run("grub-editenv", &[environment.as_os_str(), OsStr::new("set"), OsStr::new("boots=zero")]);
    std::fs::write(file("hello.txt"), "hello from a file\n").unwrap();
    // A disk of 16 MiB with one FAT16 partition from sector 2048 on.
    const SECTORS: u32 = 16 << 11;
    let mut disk = vec![0u8; SECTORS as usize * 512];
    let boot = std::fs::read(Path::new(GRUB).join("boot.img")).unwrap();
    disk[..440].copy_from_slice(&boot[..440]);
    let core = std::fs::read(core).unwrap();
    disk[512..512 + core.len()].copy_from_slice(&core);
    let mut entry = vec![0x80, 0xfe, 0xff, 0xff, 0x0e, 0xfe, 0xff, 0xff];
    entry.extend_from_slice(&2048u32.to_le_bytes());
    entry.extend_from_slice(&(SECTORS - 2048).to_le_bytes());
    disk[446..462].copy_from_slice(&entry);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let raw = file("acc.img");
    std::fs::write(&raw, disk).unwrap();
    let mut partition = raw.as_os_str().to_owned();
    partition.push("@@1M");
    let sectors = (SECTORS - 2048).to_string();
    run(
        "mformat",
        &[
            "-i".as_ref(),
            &partition,
            "-T".as_ref(),
            sectors.as_ref(),
            "-h".as_ref(),
            "16".as_ref(),
            "-s".as_ref(),
            "63".as_ref(),
            "-H".as_ref(),
            "2048".as_ref(),
            "::".as_ref(),
        ],
    );
    for name in ["grubenv", "hello.txt"] {
        run("mcopy", &["-i".as_ref(), &partition, file(name).as_os_str(), "::".as_ref()]);
    }
    let vmdk = file("acc.vmdk");
    let options = ["convert", "-O", "vmdk", "-o", "subformat=monolithicSparse"].map(OsStr::new);
    run("qemu-img", &[&options[..], &[raw.as_os_str(), vmdk.as_os_str()]].concat());
    vmdk
}
