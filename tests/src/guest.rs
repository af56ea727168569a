//! Registered machines with guests in them, over the wire only: started, typed on, and asked.

#[path = "../../hypervisor/vmx/tests/common/grub_disk.rs"]
mod grub_disk;
#[path = "../../hypervisor/vmx/tests/common/sector.rs"]
mod sector;

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine as _;

use crate::exec::{Exec, Reply};
use crate::{Account, Instance, skip};

/// How long a guest may take for anything: where `/dev/kvm` emulates, a busy host makes GRUB very slow.
const PATIENCE: Duration = Duration::from_secs(300);

/// Lines of a .vmx for a floppy drive with [`floppy`] in it, and a serial port.
pub const FLOPPY: &str = "memsize = \"16\"\nserial0.present = \"TRUE\"\nfloppy0.present = \"TRUE\"\n\
    floppy0.fileType = \"file\"\nfloppy0.fileName = \"boot.img\"\n";

/// Lines of a .vmx for the acceptance disk, and a serial port.
pub const DISK: &str = "memsize = \"64\"\nserial0.present = \"TRUE\"\nide0:0.present = \"TRUE\"\n\
    ide0:0.fileName = \"acc.vmdk\"\n";

/// Whether machines can run here, or why not.
///
/// # Errors
/// The reason.
pub fn kvm() -> Result<(), String> {
    let kvm = std::fs::File::options().read(true).write(true).open("/dev/kvm");
    kvm.map_err(|error| format!("/dev/kvm: {error}"))?;
    let bios = Path::new("/usr/share/seabios/bios.bin").exists();
    if bios { Ok(()) } else { Err("the package seabios is not installed".to_owned()) }
}

/// Whether machines can run here; if not, says that the test is left out.
#[must_use]
pub fn need_kvm(what: &str) -> bool {
    kvm().map_err(|why| skip::skipped(what, &why)).is_ok()
}

/// Whether the acceptance disk can be built here; if not, says that the test is left out.
#[must_use]
pub fn need_grub(what: &str) -> bool {
    let missing = grub_disk::missing();
    if !missing.is_empty() {
        skip::skipped(what, &format!("missing: {missing:?}"));
    }
    missing.is_empty()
}

/// Builds the acceptance disk, `acc.vmdk`, in a directory.
pub fn grub_disk(directory: &Path) -> PathBuf {
    grub_disk::disk(directory)
}

/// A floppy image with a boot sector that says `HELLO FROM SECTOR 0` on the first serial port, and then
/// repeats what it is sent.
#[must_use]
pub fn floppy() -> Vec<u8> {
    image(sector::boot_sector())
}

/// A floppy image with a boot sector that turns interrupts on, and says `0`, `1`, `2` … `9`, `0` …  on the
/// first serial port with every tick of the timer, and sleeps in between.
#[must_use]
pub fn counter() -> Vec<u8> {
    let code: &[u8] = &[
        0xfb, // sti
        0xb1, b'0', // mov cl, '0'
        // next:
        0xf4, // hlt
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xa1, 0x6c, 0x04, // mov ax, [0x46c]
        0x39, 0xd8, // cmp ax, bx
        0x74, 0xf4, // je next
        0x89, 0xc3, // mov bx, ax
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0x88, 0xc8, // mov al, cl
        0xee, // out dx, al
        0xfe, 0xc1, // inc cl
        0x80, 0xf9, 0x3a, // cmp cl, '9' + 1
        0x75, 0xe5, // jne next
        0xb1, b'0', // mov cl, '0'
        0xeb, 0xe1, // jmp next
    ];
    let mut sector = code.to_vec();
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    image(sector)
}

/// A floppy image with a boot sector that says `>` on the first serial port, and then looks at the processor's
/// time stamp without a break. Sent `m`, it says the longest gap between two looks since it last said so; sent
/// anything else, the time: eight characters of four bits, `0` to `?`, and a line feed, in units of 1024 cycles.
#[must_use]
pub fn heartbeat() -> Vec<u8> {
    let code: &[u8] = &[
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xfa, // cli
        0x66, 0x31, 0xed, // xor ebp, ebp
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, 0x3e, // mov al, 0x3e
        0xee, // out dx, al
        // again:
        0x0f, 0x31, // rdtsc
        0x66, 0x0f, 0xac, 0xd0, 0x0a, // shrd eax, edx, 0xa
        0x66, 0x89, 0xc6, // mov esi, eax
        // next:
        0x0f, 0x31, // rdtsc
        0x66, 0x0f, 0xac, 0xd0, 0x0a, // shrd eax, edx, 0xa
        0x66, 0x89, 0xc3, // mov ebx, eax
        0x66, 0x29, 0xf0, // sub eax, esi
        0x66, 0x89, 0xde, // mov esi, ebx
        0x66, 0x39, 0xe8, // cmp eax, ebp
        0x76, 0x03, // jbe poll
        0x66, 0x89, 0xc5, // mov ebp, eax
        // poll:
        0xba, 0xfd, 0x03, // mov dx, 0x3fd
        0xec, // in al, dx
        0xa8, 0x01, // test al, 0x1
        0x74, 0xe0, // je next
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, // in al, dx
        0x3c, 0x6d, // cmp al, 0x6d
        0x66, 0x89, 0xd8, // mov eax, ebx
        0x75, 0x06, // jne print
        0x66, 0x89, 0xe8, // mov eax, ebp
        0x66, 0x31, 0xed, // xor ebp, ebp
        // print:
        0xb9, 0x08, 0x00, // mov cx, 0x8
        // digit:
        0x66, 0xc1, 0xc0, 0x04, // rol eax, 0x4
        0x50, // push ax
        0x24, 0x0f, // and al, 0xf
        0x04, 0x30, // add al, 0x30
        0xee, // out dx, al
        0x58, // pop ax
        0xe2, 0xf3, // loop digit
        0xb0, 0x0a, // mov al, 0xa
        0xee, // out dx, al
        0xeb, 0xb0, // jmp again
    ];
    let mut sector = code.to_vec();
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    image(sector)
}

/// A floppy image with a boot sector that says `>` on the first serial port, and for every byte that it is
/// sent writes itself to the first hard disk, at sector 0, 128, 256 …, and says `W`, or `E` for an error.
#[must_use]
pub fn writer() -> Vec<u8> {
    let code: &[u8] = &[
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0x8e, 0xc0, // mov es, ax
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'>', // mov al, '>'
        0xee, // out dx, al
        // wait:
        0xba, 0xfd, 0x03, // mov dx, 0x3fd
        0xec, // in al, dx
        0xa8, 0x01, // test al, 1
        0x74, 0xf8, // jz wait
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xec, // in al, dx
        0xbe, 0x00, 0x7d, // mov si, 0x7d00
        0xb8, 0x00, 0x43, // mov ax, 0x4300
        0xb2, 0x80, // mov dl, 0x80
        0xcd, 0x13, // int 0x13
        0xb0, b'W', // mov al, 'W'
        0x73, 0x02, // jnc said
        0xb0, b'E', // mov al, 'E'
        // said:
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0x81, 0x06, 0x08, 0x7d, 0x80, 0x00, // add word [0x7d08], 128
        0xeb, 0xd8, // jmp wait
    ];
    let mut sector = code.to_vec();
    sector.resize(0x100, 0);
    // What to write: one sector, from 0000:7c00, to sector 0 at first.
    sector.extend_from_slice(&[0x10, 0, 1, 0, 0x00, 0x7c, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    image(sector)
}

/// A floppy image with a boot sector that says `>` on the first serial port, and then writes and reads
/// all ports at random, and writes to memory of adapters, for ever.
#[must_use]
pub fn vandal(seed: u32) -> Vec<u8> {
    let [a, b, c, d] = seed.to_le_bytes();
    let code: &[u8] = &[
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'>', // mov al, '>'
        0xee, // out dx, al
        0x66, 0xbe, a, b, c, d, // mov esi, seed
        // again:
        0x66, 0x69, 0xf6, 0x0d, 0x66, 0x19, 0x00, // imul esi, esi, 1664525
        0x66, 0x81, 0xc6, 0x5f, 0xf3, 0x6e, 0x3c, // add esi, 1013904223
        0x66, 0x89, 0xf2, // mov edx, esi
        0x66, 0xc1, 0xea, 0x0c, // shr edx, 12
        0x66, 0x89, 0xf0, // mov eax, esi
        0xee, // out dx, al
        0x66, 0xef, // out dx, eax
        0xec, // in al, dx
        0x66, 0xed, // in eax, dx
        0x80, 0xce, 0xa0, // or dh, 0xa0
        0x8e, 0xc2, // mov es, dx
        0x26, 0x88, 0x07, // mov es:[bx], al
        0xeb, 0xd8, // jmp again
    ];
    let mut sector = code.to_vec();
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    image(sector)
}

fn image(mut sector: Vec<u8>) -> Vec<u8> {
    sector.resize(1440 * 1024, 0);
    sector
}

/// A machine of an account.
#[derive(Debug)]
pub struct Guest {
    /// Its .vmx.
    pub config: PathBuf,
    owner: (u32, u32),
    /// Serial output up to here was looked at.
    pub seen: u64,
}

impl Guest {
    /// Makes the directory and the .vmx of a machine below `base`. It is not registered.
    #[must_use]
    pub fn new(base: &Path, name: &str, account: &Account, lines: &str) -> Self {
        Guest::of(base, name, (account.uid, account.gid), lines)
    }

    /// The same for any owner: uid and gid.
    #[must_use]
    pub fn of(base: &Path, name: &str, owner: (u32, u32), lines: &str) -> Self {
        let directory = base.join(name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let config = directory.join(format!("{name}.vmx"));
        let guest = Guest { config, owner, seen: 0 };
        guest.give(&directory);
        guest.write_vmx(lines);
        guest
    }

    /// A machine of an instance that boots [`floppy`], for any owner; `more` goes into its .vmx.
    #[must_use]
    pub fn with_floppy(instance: &Instance, name: &str, owner: (u32, u32), more: &str) -> Self {
        let lines = format!("{FLOPPY}{more}");
        let guest = Guest::of(&instance.base.path().join("vms"), name, owner, &lines);
        guest.put("boot.img", &floppy());
        guest
    }

    /// The directory of the machine.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.config.parent().expect("it is in a directory")
    }

    /// Writes the .vmx.
    pub fn write_vmx(&self, lines: &str) {
        let text = format!("config.version = \"8\"\nvirtualHW.version = \"4\"\n{lines}");
        let name = self.config.file_name().and_then(|name| name.to_str()).expect("a name");
        self.put(name, text.as_bytes());
        self.mode(0o755);
    }

    /// Sets the mode of the .vmx.
    pub fn mode(&self, mode: u32) {
        std::fs::set_permissions(&self.config, PermissionsExt::from_mode(mode)).expect("root may");
    }

    /// Writes a file of the machine.
    pub fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.directory().join(name);
        std::fs::write(&path, bytes).expect("room");
        self.give(&path);
        path
    }

    /// Gives a file to the owner of the machine.
    pub fn give(&self, path: &Path) {
        chown(path, Some(self.owner.0), Some(self.owner.1)).expect("root may");
    }

    /// Asks an operation on the machine, with more arguments than its path.
    pub fn op(&self, exec: &mut Exec, op: &str, more: &str) -> Reply {
        exec.op(op, &format!("<config>{}</config>{more}", self.config.display()))
    }

    /// As [`Guest::op`]; it must succeed.
    pub fn must(&self, exec: &mut Exec, op: &str, more: &str) -> Reply {
        let reply = self.op(exec, op, more);
        assert!(reply.ok(), "{op} {more} of {}: {:?}", self.config.display(), reply.error());
        reply
    }

    /// State and process id, from `VM_INFO`.
    pub fn state(&self, exec: &mut Exec) -> (String, u32) {
        let info = self.must(exec, "VM_INFO", "");
        (info.all("powerState")[0].clone(), info.all("pid")[0].parse().expect("a number"))
    }

    /// Serial output from a byte on, and where it goes on; waits up to so many seconds for a first byte.
    pub fn output(&self, exec: &mut Exec, from: u64, wait: u32) -> (String, u64) {
        let more = format!("<offset>{from}</offset><wait>{wait}</wait>");
        let reply = self.must(exec, "VM_SerialRead", &more);
        assert_eq!(reply.out("lost"), "0");
        let contents = reply.out("contents");
        let text = match reply.out("encoding").as_str() {
            "text" => contents,
            _ => String::from_utf8_lossy(&decode(&contents)).into_owned(),
        };
        (text, reply.out("nextOffset").parse().expect("a number"))
    }

    /// Waits until the guest has sent `text` on its first serial port since the last call; returns what it
    /// sent up to there.
    pub fn expect(&mut self, exec: &mut Exec, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let (start, mut next, mut all) = (self.seen, self.seen, String::new());
        loop {
            let (more, offset) = self.output(exec, next, 5);
            next = offset;
            all.push_str(&more);
            if let Some(place) = all.find(text) {
                let length = place + text.len();
                self.seen = start + length as u64;
                all.truncate(length);
                return all;
            }
            if Instant::now() > end {
                let events = self.events(exec);
                panic!(
                    "no {text:?} on the serial port of {}, but {all:?}; {events:?}",
                    self.config.display()
                );
            }
        }
    }

    /// Types on the first serial port.
    pub fn send(&self, exec: &mut Exec, text: &str) {
        let bytes = base64::prelude::BASE64_STANDARD.encode(text);
        let more = format!("<encoding>base64</encoding><contents>{bytes}</contents>");
        let written = self.must(exec, "VM_SerialWrite", &more).out("written");
        assert_eq!(written, text.len().to_string());
    }

    /// Types a line at GRUB's prompt on the serial port, and waits for the next prompt; returns what came.
    pub fn grub(&mut self, exec: &mut Exec, line: &str) -> String {
        self.send(exec, &format!("{line}\r"));
        self.expect(exec, line);
        self.expect(exec, "grub rescue>")
    }

    /// What the screen shows, read from the screenshot.
    pub fn screen(&self, exec: &mut Exec) -> Vec<String> {
        let reply = self.must(exec, "VM_SaveScreenshot", "<format>PNG</format>");
        crate::screen::read(&decode(&reply.out("contents")))
    }

    /// Waits until the screen, its lines joined by line feeds, contains a text; returns the lines.
    pub fn see(&self, exec: &mut Exec, text: &str) -> Vec<String> {
        let end = Instant::now() + PATIENCE;
        loop {
            let screen = self.screen(exec);
            if screen.join("\n").contains(text) {
                return screen;
            }
            assert!(Instant::now() < end, "no {text:?} on the screen:\n{}", screen.join("\n"));
            // A screen tells nobody that it changes.
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The subjects of its event log, oldest first.
    pub fn events(&self, exec: &mut Exec) -> Vec<String> {
        let mut subjects = self.must(exec, "VM_GetLastNEvents", "<n>100</n>").all("subject");
        subjects.reverse();
        subjects
    }
}

fn decode(base64: &str) -> Vec<u8> {
    let text: String = base64.split_whitespace().collect();
    base64::prelude::BASE64_STANDARD.decode(text).expect("base64")
}

/// The events of the server, from a moment on.
#[derive(Debug)]
pub struct Events {
    epoch: String,
    next: String,
}

impl Events {
    /// From now on.
    #[must_use]
    pub fn new(exec: &mut Exec) -> Self {
        let reply = exec.op("VMServerd_WaitForEvents", "");
        Events { epoch: reply.out("epoch"), next: reply.out("next") }
    }

    /// Waits for the next events; each as its document.
    pub fn next(&mut self, exec: &mut Exec) -> Vec<String> {
        let Events { epoch, next } = self;
        let arguments = format!("<epoch>{epoch}</epoch><since>{next}</since><timeout>30</timeout>");
        let reply = exec.op("VMServerd_WaitForEvents", &arguments);
        assert_eq!(reply.out("lost"), "0", "{}", reply.text);
        self.next = reply.out("next");
        let pieces = reply.text.split("<event ").skip(1);
        pieces.map(|piece| piece.split("</event>").next().unwrap_or_default().to_owned()).collect()
    }

    /// Waits for the event that a machine has reached a state; returns the states that it had on the way.
    pub fn reaches(&mut self, exec: &mut Exec, config: &Path, state: &str) -> Vec<String> {
        let (mut way, end) = (Vec::new(), Instant::now() + PATIENCE);
        let config = format!("<config>{}</config>", config.display());
        loop {
            for event in self.next(exec) {
                if !event.contains(&config) || !event.contains("vm.state") {
                    continue;
                }
                let to = event.split("<to>").nth(1).and_then(|rest| rest.split('<').next());
                way.extend(to.map(str::to_owned));
            }
            if way.iter().any(|one| one == state) {
                return way;
            }
            assert!(Instant::now() < end, "{config} does not reach {state}: {way:?}");
        }
    }
}
