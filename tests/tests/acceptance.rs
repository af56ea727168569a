//! Other people's guests through the server: GRUB on a VMDK with the whole life of a machine, and GRUB's
//! rescue CD with screen and keyboard. All over TCP, as users who are not root.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use tests::account::output;
use tests::guest::{DISK, Events, grub_disk, need_grub, need_kvm};
use tests::skip::{need_program, skipped};
use tests::{Account, Caller, Exec, Guest, Instance, Setup, need_root, process};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// A session of an account, over TCP with its password.
fn session(instance: &Instance, account: &Account) -> Exec {
    instance.tcp().login(account).server()
}

/// Whether every operation that tells of a machine's state says the same.
fn all_say(guest: &Guest, exec: &mut Exec, expected: &str) -> u32 {
    let path = guest.config.display().to_string();
    let (state, pid) = guest.state(exec);
    assert_eq!(state, expected);
    let up = matches!(expected, "on" | "stuck");
    assert_eq!(pid != 0, up, "{expected} with process {pid}");
    assert_eq!(up, pid != 0 && process::runs(pid));
    let list = exec.op("VM_List", &format!("<configs><config>{path}</config></configs>"));
    assert_eq!((list.all("powerState"), list.all("pid")), (vec![state], vec![pid.to_string()]));
    let connected = exec.op("VMServerd_GetConnectedVMList", "").all("vm");
    assert_eq!(connected.contains(&path), up, "{expected}: {connected:?}");
    let number = match expected {
        "on" => "1",
        "off" => "2",
        "suspended" => "3",
        _ => "4",
    };
    assert_eq!(guest.must(exec, "VM_GetState", "").out("state"), number);
    // Whoever holds the machine is listed, whatever its state.
    guest.must(exec, "VM_INFO", "<connect>1</connect>");
    assert!(guest.must(exec, "VM_Who", "").all("name").contains(&exec.user()));
    pid
}

/// The acceptance script of the specification.
#[test]
fn grub_from_a_vmdk_lives_a_whole_life() {
    const WHAT: &str = "GRUB from a VMDK, through the server";
    if !need_root(WHAT) || !need_kvm(WHAT) || !need_grub(WHAT) {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let mut guest = Guest::new(&instance.public_directory("vms"), "acc", &account, DISK);
    let disk = grub_disk(guest.directory());
    guest.give(&disk);
    let mut exec = session(&instance, &account);
    // The same user by its socket, without a password, looks on; a third connection waits for events.
    let mut local = Caller::new(CALLER, &instance, &account).tcp().local().server();
    assert_eq!((exec.user(), local.user()), (account.name.clone(), account.name.clone()));
    let mut waiting = session(&instance, &account);
    guest.must(&mut exec, "VMRegister", "");
    let mut events = Events::new(&mut waiting);
    all_say(&guest, &mut local, "off");

    let start = Instant::now();
    guest.must(&mut exec, "VM_Start", "");
    let first = all_say(&guest, &mut local, "on");
    assert_eq!(process::uids(first), [account.uid; 4]);
    assert_eq!(events.reaches(&mut waiting, &guest.config, "on"), ["on"]);
    guest.expect(&mut exec, "HV-GRUB-UP boots=zero");
    println!("GRUB is up {:?} after the start", start.elapsed());
    guest.expect(&mut exec, "grub rescue>");
    assert!(guest.grub(&mut exec, "cat /hello.txt").contains("hello from a file"));
    guest.grub(&mut exec, "set x=1");

    // Suspended, and resumed by another process: the variable is still there, and so is what was sent.
    let start = Instant::now();
    guest.must(&mut exec, "VM_Suspend", "<mode>hard</mode>");
    println!("suspended within {:?}", start.elapsed());
    all_say(&guest, &mut local, "suspended");
    assert!(guest.directory().join("acc.vmss").exists());
    let start = Instant::now();
    guest.must(&mut exec, "VM_Start", "");
    println!("resumed within {:?}", start.elapsed());
    let second = all_say(&guest, &mut local, "on");
    assert_ne!(first, second);
    assert!(guest.output(&mut exec, 0, 0).0.contains("hello from a file"));
    assert!(guest.grub(&mut exec, "set").contains("x=1"));
    assert_eq!(events.reaches(&mut waiting, &guest.config, "on"), ["suspended", "on"]);

    // A write, and the end by ACPI.
    guest.grub(&mut exec, "set boots=once");
    guest.grub(&mut exec, "save_env -f (hd0,msdos1)/grubenv boots");
    guest.send(&mut exec, "halt\r");
    assert_eq!(events.reaches(&mut waiting, &guest.config, "off"), ["off"]);
    // At once, while the machine's process may still be there, and later.
    assert!(guest.output(&mut exec, guest.seen, 0).0.contains("halt"), "kept at power off");
    all_say(&guest, &mut local, "off");
    let log = guest.events(&mut local);
    assert_eq!(log.last().map(String::as_str), Some("Virtual machine was powered off by the guest."));
    assert!(guest.output(&mut exec, guest.seen, 0).0.contains("halt"), "kept after power off");
    others_read(&disk);

    // The next boot sees the write.
    guest.seen = 0;
    guest.must(&mut exec, "VM_Start", "");
    let third = all_say(&guest, &mut local, "on");
    guest.expect(&mut exec, "HV-GRUB-UP boots=once");
    guest.expect(&mut exec, "grub rescue>");
    guest.send(&mut exec, "reboot\r");
    tests::eventually("an event of the reset", || {
        (guest.events(&mut local).last()? == "Virtual machine was reset.").then_some(())
    });
    assert_eq!(all_say(&guest, &mut local, "on"), third, "the same process");
    guest.must(&mut exec, "VM_Stop", "<mode>hard</mode>");
    all_say(&guest, &mut local, "off");
    let told = [
        "registered",
        "powered on",
        "suspended",
        "resumed",
        "powered off by the guest",
        "powered on",
        "reset",
        "powered off",
    ];
    let log = guest.events(&mut local);
    let mut rest = log.iter();
    for word in told {
        assert!(rest.any(|subject| subject.contains(word)), "no {word:?} in its place in {log:#?}");
    }
}

/// qemu-img, mtools and QEMU itself read the disk that the guest wrote.
fn others_read(disk: &Path) {
    let copy = tempfile::tempdir().unwrap();
    let (raw, environment) = (copy.path().join("acc.img"), copy.path().join("grubenv"));
    output(Command::new("qemu-img").arg("check").arg(disk));
    output(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(disk).arg(&raw));
    let image = format!("{}@@1M", raw.display());
    output(Command::new("mcopy").args(["-i", &image, "::grubenv"]).arg(&environment));
    let text = std::fs::read_to_string(environment).unwrap();
    assert!(text.contains("boots=once"), "{text}");
    if !need_program("the same disk boots in QEMU", "qemu-system-x86_64") {
        return;
    }
    let drive = format!("file={},format=vmdk,if=ide,snapshot=on", disk.display());
    let mut command = Command::new("qemu-system-x86_64");
    command.args(["-accel", "tcg", "-M", "pc", "-m", "64", "-nodefaults", "-display", "none"]);
    command.args(["-serial", "stdio", "-drive", &drive]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut qemu = command.spawn().unwrap();
    let (mut said, mut buffer) = (String::new(), [0; 4096]);
    let mut stdout = qemu.stdout.take().unwrap();
    let start = Instant::now();
    while !said.contains("grub rescue>") {
        let length = std::io::Read::read(&mut stdout, &mut buffer).unwrap();
        assert!(length > 0, "QEMU has ended: {said}");
        said.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    println!("the same disk is up in QEMU after {:?}", start.elapsed());
    qemu.kill().unwrap();
    qemu.wait().unwrap();
    assert!(said.contains("HV-GRUB-UP boots=once"), "{said}");
}

/// A CD that a user has not made, with a menu: seen on the picture, and typed at.
#[test]
fn grubs_cd_is_seen_and_typed_at() {
    const ISO: &str = "/usr/lib/grub-rescue/grub-rescue-cdrom.iso";
    const WHAT: &str = "GRUB's rescue CD, through the server";
    if !need_root(WHAT) || !need_kvm(WHAT) {
        return;
    }
    if !Path::new(ISO).is_file() {
        return skipped(WHAT, "the package grub-rescue-pc is not installed");
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let lines = format!(
        "memsize = \"64\"\nide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-image\"\n\
         ide1:0.fileName = \"{ISO}\"\n"
    );
    let guest = Guest::new(&instance.public_directory("vms"), "cd", &account, &lines);
    let mut exec = session(&instance, &account);
    guest.must(&mut exec, "VMRegister", "");
    let start = Instant::now();
    guest.must(&mut exec, "VM_Start", "");
    let screen = guest.see(&mut exec, "GNU GRUB  version");
    println!("the menu is on the screen after {:?}:\n{}", start.elapsed(), screen.join("\n"));
    // Keys: `c` leaves the menu for a prompt, where a line longer than the BIOS's buffer is typed.
    let start = Instant::now();
    guest.must(&mut exec, "VM_SendKeys", "<text>c</text>");
    guest.see(&mut exec, "grub>");
    guest.must(&mut exec, "VM_SendKeys", "<text>echo Typed_BY, keys-0123456789!\n</text>");
    let screen = guest.see(&mut exec, "\nTyped_BY, keys-0123456789!");
    println!("a line is typed after {:?}:\n{}", start.elapsed(), screen.join("\n"));
    guest.must(&mut exec, "VM_Stop", "<mode>hard</mode>");
    assert_eq!(guest.op(&mut exec, "VM_SaveScreenshot", "").code(), -8);
}
