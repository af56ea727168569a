//! The program `vmx`, as the server core uses it.

mod common;
#[path = "common/core.rs"]
mod core;
#[path = "common/elf.rs"]
mod elf;

use std::os::unix::process::ExitStatusExt;

use common::{grub_disk, need, need_grub};
use core::{Core, changes, write_vmx};
use hypervisor::control::{Begin, FromVmx, PowerMode, State, ToVmx};
use hypervisor::vmx_file::VmxFile;

const SERIAL: &str =
    "serial0.present = \"TRUE\"\nserial0.fileType = \"file\"\nserial0.fileName = \"serial.txt\"\n";

/// A floppy whose boot sector prints `BOOTED`, and then one more dot for each byte that it receives.
fn floppy(directory: &std::path::Path) -> String {
    let code: &[u8] = &[
        0xfa, 0xba, 0xf8, 0x03, // cli; mov dx, 0x3f8
        0xb0, b'B', 0xee, 0xb0, b'O', 0xee, 0xb0, b'O', 0xee, 0xb0, b'T', 0xee, 0xb0, b'E', 0xee, 0xb0, b'D',
        0xee,
        // wait: mov dx, 0x3fd; in al, dx; test al, 1; jz wait; mov dx, 0x3f8; in al, dx; out dx, al; jmp wait
        0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf8, 0xba, 0xf8, 0x03, 0xec, 0xee, 0xeb, 0xf1,
    ];
    let mut image = code.to_vec();
    image.resize(510, 0);
    image.extend_from_slice(&[0x55, 0xaa]);
    image.resize(1440 * 1024, 0);
    std::fs::write(directory.join("boot.img"), image).unwrap();
    "floppy0.fileType = \"file\"\nfloppy0.fileName = \"boot.img\"\n".to_owned()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn requests_and_events_of_a_small_machine() {
    if need("requests_and_events_of_a_small_machine").is_none() {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let lines = floppy(directory.path()) + SERIAL + "ethernet0.present = \"TRUE\"\nguestinfo.Name = \"from file\"\n";
        let config = write_vmx(directory.path(), &lines);
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        assert_eq!(changes(&core.events), [(State::Off, State::On)]);
        let named = |event: &FromVmx| matches!(event, FromVmx::Notice { text, .. } if text.contains("ethernet0"));
        assert!(core.events.iter().any(named), "{:?}", core.events);
        let mut seen = 0;
        core.expect(&mut seen, "BOOTED").await;
        // A second start of the same machine, while it runs.
        let (second, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(&answer, FromVmx::Failed { code: -19, detail, .. } if detail.contains("another process")), "{answer:?}");
        drop(second);
        let status = core.status().await;
        assert_eq!((status.state, status.paused, status.memory_mb, status.cpus), (State::On, false, 64, 1));
        assert_eq!(status.connected, ["floppy0", "serial0"]);
        // Pause: what is sent is not answered until it goes on.
        core.must(|request| ToVmx::Pause { request }).await;
        core.must(|request| ToVmx::Pause { request }).await;
        assert!(core.status().await.paused);
        core.send("x").await;
        let silent = |request| ToVmx::SerialRead { request, port: 0, offset: seen, max: 9, wait: 50 };
        let answer = core.ask(silent).await;
        assert!(matches!(&answer, FromVmx::Output { bytes, .. } if bytes.is_empty()), "{answer:?}");
        core.must(|request| ToVmx::Resume { request }).await;
        core.expect(&mut seen, "x").await;
        // Soft without anybody to ask.
        let answer = core.ask(|request| ToVmx::Stop { request, mode: PowerMode::Soft }).await;
        assert!(matches!(&answer, FromVmx::Failed { code: -8, detail, .. } if detail.contains("Tools")), "{answer:?}");
        // The screen.
        let answer = core.ask(|request| ToVmx::Screenshot { request }).await;
        assert!(matches!(&answer, FromVmx::Picture { width: 720, height: 400, png, .. } if png.starts_with(b"\x89PNG")));
        // Guest variables.
        let get = |key: &str| { let key = key.to_owned(); move |request| ToVmx::GetGuestInfo { request, key } };
        let value = |answer: FromVmx| match answer { FromVmx::Value { value, .. } => value, other => panic!("{other:?}") };
        assert_eq!(value(core.ask(get("name")).await).as_deref(), Some("from file"));
        core.must(|request| ToVmx::SetGuestInfo { request, key: "IP".into(), value: "10.0.0.1".into() }).await;
        assert_eq!(value(core.ask(get("ip")).await).as_deref(), Some("10.0.0.1"));
        let answer = core.ask(|request| ToVmx::SetGuestInfo { request, key: "a".into(), value: "x".repeat(70_000) }).await;
        assert!(matches!(answer, FromVmx::Failed { code: -22, .. }));
        // Devices.
        let answer = core.ask(|request| ToVmx::Connect { request, device: "ide1:0".into(), connected: true }).await;
        assert!(matches!(answer, FromVmx::Failed { code: -10, .. }));
        core.must(|request| ToVmx::Connect { request, device: "floppy0".into(), connected: false }).await;
        assert_eq!(core.status().await.connected, ["serial0"]);
        core.must(|request| ToVmx::Connect { request, device: "floppy0".into(), connected: true }).await;
        core.must(|request| ToVmx::Keys { request, text: "Hello\n".into() }).await;
        let answer = core.ask(|request| ToVmx::Keys { request, text: "é".into() }).await;
        assert!(matches!(answer, FromVmx::Failed { code: -3, .. }));
        let answer = core.ask(|request| ToVmx::SerialRead { request, port: 3, offset: 0, max: 1, wait: 0 }).await;
        assert!(matches!(answer, FromVmx::Failed { code: -10, .. }));
        let answer = core.ask(|request| ToVmx::Answer { request, id: 1, choice: 0 }).await;
        assert!(matches!(answer, FromVmx::Failed { code: -8, .. }));
        core.must(|request| ToVmx::Reset { request, mode: PowerMode::Hard }).await;
        core.expect(&mut seen, "BOOTED").await;
        let events = core.stop().await;
        let last = events.iter().filter_map(|event| match event {
            FromVmx::Output { request: 0, port: 0, bytes, .. } => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        });
        assert_eq!(last.collect::<String>().matches("BOOTED").count(), 2);
        assert_eq!(changes(&events).last(), Some(&(State::On, State::Off)));
        assert_eq!(std::fs::read_to_string(directory.path().join("serial.txt")).unwrap().matches("BOOTED").count(), 2);
        assert!(!directory.path().join("acc.vmx.lck").exists());
        let log = std::fs::read_to_string(config.with_extension("log")).unwrap();
        assert!(log.contains("SeaBIOS"), "{log}");
    });
}

#[test]
fn suspended_resumed_and_adopted() {
    if need("suspended_resumed_and_adopted").is_none() {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let config = write_vmx(directory.path(), &(floppy(directory.path()) + SERIAL));
        let socket = directory.path().join("control.sock");
        let listener = listen(&socket);
        let (mut core, _) = Core::start_with(&config, Begin::PowerOn, Some(listener)).await;
        let mut seen = 0;
        core.expect(&mut seen, "BOOTED").await;
        // The core goes; the machine stays, and a new core finds it.
        let new = link::Channel::connect(&socket).await.unwrap();
        let old = std::mem::replace(&mut core.channel, new);
        drop(old);
        let hello = core.receive().await;
        assert!(
            matches!(&hello, Some(FromVmx::Hello { config: path, .. }) if path == config.to_str().unwrap()),
            "{hello:?}"
        );
        core.send("y").await;
        core.expect(&mut seen, "y").await;
        core.must(|request| ToVmx::Suspend { request, mode: PowerMode::Hard }).await;
        let (status, events) = core.ended().await;
        assert!(status.success());
        assert_eq!(changes(&events), [(State::Off, State::On), (State::On, State::Suspended)]);
        let state = || VmxFile::load(&config).unwrap().suspend_state().map(str::to_owned);
        assert_eq!(state().as_deref(), Some("acc.vmss"));
        // Resumed in another process: what was sent before is still there, and the guest goes on.
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        assert_eq!(changes(&core.events), [(State::Suspended, State::On)]);
        assert_eq!(state(), None);
        assert!(!directory.path().join("acc.vmss").exists());
        core.send("z").await;
        core.expect(&mut seen, "z").await;
        core.must(|request| ToVmx::Suspend { request, mode: PowerMode::Hard }).await;
        core.ended().await;
        // A damaged state is a question.
        let file = directory.path().join("acc.vmss");
        let mut bytes = std::fs::read(&file).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(
            matches!(&answer, FromVmx::Failed { code: -16, detail, .. } if detail.contains("checksum")),
            "{answer:?}"
        );
        let status = core.status().await;
        assert_eq!(status.state, State::Stuck);
        let id = status.question.unwrap().id;
        let answer = core.ask(|request| ToVmx::Answer { request, id, choice: 7 }).await;
        assert!(matches!(answer, FromVmx::Failed { code: -3, .. }));
        core.must(|request| ToVmx::Answer { request, id, choice: 1 }).await;
        let mut seen = 0;
        while core.status().await.state != State::On {
            core.receive().await;
        }
        core.expect(&mut seen, "BOOTED").await;
        core.stop().await;
    });
}

fn listen(path: &std::path::Path) -> std::os::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 8).unwrap();
    socket
}

#[test]
fn a_locked_disk_is_a_question_and_a_crash_leaves_no_lock() {
    if need("a_locked_disk_is_a_question").is_none() {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("a.vmdk");
        let options = hypervisor::vmdk::CreateOptions::new(hypervisor::vmdk::Kind::MonolithicSparse, 1 << 20);
        hypervisor::vmdk::create(&disk, &options).unwrap();
        let lines = floppy(directory.path()) + SERIAL + "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n";
        let config = write_vmx(directory.path(), &lines);
        let held = hypervisor::vmdk::Disk::open(&disk, hypervisor::vmdk::Mode::Write).unwrap();
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(&answer, FromVmx::Failed { code: -16, detail, .. } if detail.contains("in use")), "{answer:?}");
        drop(held);
        let id = core.status().await.question.unwrap().id;
        core.must(|request| ToVmx::Answer { request, id, choice: 0 }).await;
        while core.status().await.state != State::On {
            core.receive().await;
        }
        let mut seen = 0;
        core.expect(&mut seen, "BOOTED").await;
        core.child.kill().unwrap();
        let (status, _) = core.ended().await;
        assert_eq!(status.signal(), Some(9));
        let (core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        // Without a listening socket, a machine that nobody can reach is powered off.
        let Core { .. } = &core;
        let events = core.stop().await;
        assert_eq!(changes(&events).last(), Some(&(State::On, State::Off)));
        // What cannot run says why.
        std::fs::write(&config, "config.version = \"8\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n").unwrap();
        let (core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(&answer, FromVmx::Failed { code: -18, detail, .. } if detail.contains("scsi0:0")), "{answer:?}");
        core.ended().await;
    });
}

#[test]
fn grub_halts_and_reboots() {
    if !need_grub("grub_halts_and_reboots") || need("grub_halts_and_reboots").is_none() {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        grub_disk(directory.path());
        let lines = SERIAL.to_owned() + "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"acc.vmdk\"\n";
        let config = write_vmx(directory.path(), &lines);
        let (mut core, _) = Core::start(&config, Begin::PowerOn).await;
        let mut seen = 0;
        core.expect(&mut seen, "HV-GRUB-UP boots=zero").await;
        core.expect(&mut seen, "grub rescue>").await;
        core.send("set boots=once\r").await;
        core.expect(&mut seen, "grub rescue>").await;
        core.send("save_env -f (hd0,msdos1)/grubenv boots\r").await;
        core.expect(&mut seen, "grub rescue>").await;
        core.send("halt\r").await;
        let (status, events) = core.ended().await;
        assert!(status.success());
        let by_guest = |event: &FromVmx| matches!(event, FromVmx::Changed { to: State::Off, why, .. } if why.contains("by the guest"));
        assert!(events.iter().any(by_guest), "{events:?}");
        // The disk is in order, and has the write.
        let checked = std::process::Command::new("qemu-img").arg("check").arg(directory.path().join("acc.vmdk")).status().unwrap();
        assert!(checked.success());
        let (mut core, _) = Core::start(&config, Begin::PowerOn).await;
        let mut seen = 0;
        core.expect(&mut seen, "HV-GRUB-UP boots=once").await;
        core.expect(&mut seen, "grub rescue>").await;
        core.send("reboot\r").await;
        core.expect(&mut seen, "HV-GRUB-UP boots=once").await;
        core.expect(&mut seen, "grub rescue>").await;
        // The keyboard: behind a BIOS with room for 15 keys, which GRUB calls with interrupts off.
        let start = std::time::Instant::now();
        let line = "typed=0123456789_abcdefgh_ABCDEFGH";
        core.must(|request| ToVmx::Keys { request, text: format!("set {line}\nset\n") }).await;
        core.expect(&mut seen, &format!("set {line}")).await;
        core.expect(&mut seen, &format!("\r{line}")).await;
        println!("{} keys typed in {:?}", line.len() + 9, start.elapsed());
        core.stop().await;
    });
}

#[test]
fn snapshots_with_and_without_memory() {
    if need("snapshots_with_and_without_memory").is_none() {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("a.vmdk");
        let options = hypervisor::vmdk::CreateOptions::new(hypervisor::vmdk::Kind::MonolithicSparse, 1 << 20);
        hypervisor::vmdk::create(&disk, &options).unwrap();
        let lines = floppy(directory.path()) + SERIAL + "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n";
        let config = write_vmx(directory.path(), &lines);
        let named = || VmxFile::load(&config).unwrap().get("ide0:0.fileName").unwrap().to_owned();
        let create = |memory| {
            move |request| ToVmx::CreateSnapshot { request, name: "one".into(), description: "d".into(), memory }
        };
        let (mut core, _) = Core::start(&config, Begin::PowerOn).await;
        let mut seen = 0;
        core.expect(&mut seen, "BOOTED").await;
        core.send("a").await;
        core.expect(&mut seen, "a").await;
        let end = seen;
        let answer = core.ask(create(true)).await;
        assert!(matches!(answer, FromVmx::SnapshotMade { id: 1, .. }), "{answer:?}");
        assert_eq!(named(), "a-000001.vmdk");
        assert!(core.status().await.has_snapshot);
        core.send("b").await;
        core.expect(&mut seen, "b").await;
        // Back: the guest is where it was, without the b.
        core.must(|request| ToVmx::RevertToSnapshot { request, id: None }).await;
        assert_eq!(named(), "a-000002.vmdk");
        assert!(!directory.path().join("a-000001.vmdk").exists());
        core.send("c").await;
        let mut seen = end;
        core.expect(&mut seen, "c").await;
        assert_eq!(seen, end + 1, "the c follows the a");
        core.stop().await;
        // Off: disks only.
        let (mut core, answer) = Core::start(&config, Begin::Maintenance).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        let answer = core.ask(create(true)).await;
        assert!(matches!(answer, FromVmx::SnapshotMade { id: 2, .. }), "{answer:?}");
        core.must(|request| ToVmx::RevertToSnapshot { request, id: Some(2) }).await;
        let answer = core.ask(|request| ToVmx::RevertToSnapshot { request, id: Some(9) }).await;
        assert!(matches!(&answer, FromVmx::Failed { code: -999, detail, .. } if detail == "No snapshot"));
        let first = core.ask(|request| ToVmx::ListSnapshots { request }).await;
        assert!(matches!(&first, FromVmx::OneSnapshot { snapshot, .. } if snapshot.id == 1 && snapshot.memory && snapshot.name == "one"));
        let second = core.receive().await.unwrap();
        assert!(matches!(&second, FromVmx::OneSnapshot { snapshot, .. } if snapshot.id == 2 && !snapshot.memory));
        assert!(matches!(core.receive().await, Some(FromVmx::Done { .. })));
        core.must(|request| ToVmx::RemoveAllSnapshots { request }).await;
        assert!(!core.status().await.has_snapshot);
        assert!(!directory.path().join("acc-Snapshot1.vmsn").exists());
        hypervisor::vmdk::Disk::open(&directory.path().join(named()), hypervisor::vmdk::Mode::Write).unwrap();
    });
}

#[test]
fn a_full_disk_is_a_question_and_nothing_is_lost() {
    if !need_grub("a_full_disk_is_a_question") || need("a_full_disk_is_a_question").is_none() {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        grub_disk(directory.path());
        // A child of the acceptance disk, so that the first write needs room in a new file.
        let child = directory.path().join("child.vmdk");
        let options = hypervisor::vmdk::CreateOptions {
            parent: Some("acc.vmdk".into()),
            ..hypervisor::vmdk::CreateOptions::new(hypervisor::vmdk::Kind::MonolithicSparse, 0)
        };
        hypervisor::vmdk::create(&child, &options).unwrap();
        let lines = SERIAL.to_owned() + "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"child.vmdk\"\n";
        let config = write_vmx(directory.path(), &lines);
        let (mut core, _) = Core::start(&config, Begin::PowerOn).await;
        let mut seen = 0;
        core.expect(&mut seen, "grub rescue>").await;
        // No file of the process may grow any more: what a full disk is to it.
        let pid = core.child.id().to_string();
        let limit = |value: &str| {
            let status = std::process::Command::new("prlimit").args(["--pid", &pid, value]).status().unwrap();
            assert!(status.success());
        };
        limit("--fsize=4096:unlimited");
        core.send("set boots=full\r").await;
        core.expect(&mut seen, "grub rescue>").await;
        core.send("save_env -f (hd0,msdos1)/grubenv boots\r").await;
        while core.status().await.state != State::Stuck {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let question = core.status().await.question.unwrap();
        assert!(question.text.contains("no space left") && question.choices[0] == "Retry", "{question:?}");
        let answer = core.ask(|request| ToVmx::Suspend { request, mode: PowerMode::Hard }).await;
        assert!(matches!(answer, FromVmx::Failed { code: -16, .. }), "{answer:?}");
        // Still full: asked again.
        core.must(|request| ToVmx::Answer { request, id: question.id, choice: 0 }).await;
        let again = core.status().await.question.unwrap();
        assert_ne!(again.id, question.id);
        limit("--fsize=unlimited:unlimited");
        core.must(|request| ToVmx::Answer { request, id: again.id, choice: 0 }).await;
        assert_eq!(core.status().await.state, State::On);
        core.expect(&mut seen, "grub rescue>").await;
        core.send("reboot\r").await;
        core.expect(&mut seen, "HV-GRUB-UP boots=full").await;
        core.stop().await;
    });
}

#[test]
fn the_power_button_is_how_a_guest_is_asked_to_power_off() {
    if need("the_power_button").is_none() {
        return;
    }
    let code: &[u8] = &[
        0x66, 0xba, 0x02, 0x06, // mov dx, 0x602
        0x66, 0xb8, 0x00, 0x01, // mov ax, 0x100: the power button
        0x66, 0xef, // out dx, ax
        0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xb0, b'L', // mov al, 'L'
        0xee, // out dx, al
        // wait:
        0x66, 0xba, 0x00, 0x06, // mov dx, 0x600
        0x66, 0xed, // in ax, dx
        0xf6, 0xc4, 0x01, // test ah, 1
        0x74, 0xf5, // jz wait
        0x66, 0xba, 0x04, 0x06, // mov dx, 0x604
        0x66, 0xb8, 0x00, 0x20, // mov ax, 0x2000: soft off
        0x66, 0xef, // out dx, ax
        0xeb, 0xfe, // jmp here
    ];
    let off = |events: &[FromVmx], text: &str| {
        let said = |event: &FromVmx| matches!(event, FromVmx::Changed { to: State::Off, why, .. } if why.contains(text));
        assert!(events.iter().any(said), "{text}: {events:?}");
    };
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("guest.elf"), elf::elf(&[(0x10_0000, code)])).unwrap();
        let lines = "serial0.present = \"TRUE\"\nvmserverd.kernel = \"guest.elf\"\n";
        let config = write_vmx(directory.path(), lines);
        // By a request, and by the signal that comes when the host goes down.
        for asked in [true, false] {
            let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
            assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
            core.expect(&mut 0, "L").await;
            if asked {
                core.must(|request| ToVmx::Stop { request, mode: PowerMode::Soft }).await;
            } else {
                core.terminate();
            }
            let (status, events) = core.ended().await;
            assert!(status.success());
            off(&events, "by the guest");
        }
        // A guest that does not listen, and stands still.
        std::fs::write(directory.path().join("guest.elf"), elf::elf(&[(0x10_0000, &DEAF)])).unwrap();
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        core.expect(&mut 0, "L").await;
        core.must(|request| ToVmx::Pause { request }).await;
        core.terminate();
        let (status, events) = core.ended().await;
        assert!(status.success());
        off(&events, "The host is going down");
    });
}

/// Says that it runs, and nothing else.
const DEAF: [u8; 9] = [
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'L', // mov al, 'L'
    0xee, // out dx, al
    0xeb, 0xfe, // jmp here
];
