//! Machines whose files are bad, missing, in use, or on a full disk: a clear error or a question, and
//! nothing is lost.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tests::account::output;
use tests::guest::{FLOPPY, floppy, need_kvm, vandal, writer};
use tests::skip::{need_program, skipped};
use tests::{Account, Exec, Guest, Instance, Setup, eventually, need_root};

const HARD: &str = "<mode>hard</mode>";

/// Lines of a .vmx for a disk.
fn disk(path: &Path) -> String {
    format!("{FLOPPY}ide0:0.present = \"TRUE\"\nide0:0.fileName = \"{}\"\n", path.display())
}

struct Stage<'a> {
    instance: &'a Instance,
    account: &'a Account,
    base: &'a Path,
}

impl Stage<'_> {
    fn session(&self) -> Exec {
        self.instance.tcp().login(self.account).server()
    }

    /// A registered machine with a floppy image in its drive.
    fn guest(&self, exec: &mut Exec, name: &str, lines: &str) -> Guest {
        let guest = Guest::new(self.base, name, self.account, lines);
        guest.put("boot.img", &floppy());
        guest.must(exec, "VMRegister", "");
        guest
    }

    /// Makes an empty disk, `disk.vmdk`.
    fn disk(&self, directory: &Path) -> std::path::PathBuf {
        let path = directory.join("disk.vmdk");
        output(Command::new("qemu-img").args(["create", "-q", "-f", "vmdk"]).arg(&path).arg("64M"));
        std::os::unix::fs::chown(&path, Some(self.account.uid), Some(self.account.gid)).unwrap();
        path
    }
}

/// Starts a machine, which asks; returns number and text of the question.
fn starts_with_a_question(guest: &Guest, exec: &mut Exec) -> (String, String) {
    let (code, text) = guest.op(exec, "VM_Start", "").error().expect("a question");
    assert_eq!(code, -16, "{text}");
    question(guest, exec)
}

/// The question of a machine that is stuck.
fn question(guest: &Guest, exec: &mut Exec) -> (String, String) {
    assert_eq!(guest.state(exec).0, "stuck");
    let question = guest.must(exec, "VM_GetQuestion", "");
    (question.all("id")[0].clone(), question.all("text")[0].clone())
}

fn answer(guest: &Guest, exec: &mut Exec, id: &str, choice: u32) {
    guest.must(exec, "VM_AnswerQuestion", &format!("<id>{id}</id><choice>{choice}</choice>"));
}

fn becomes(guest: &Guest, exec: &mut Exec, state: &str) {
    eventually(state, || (guest.state(exec).0 == state).then_some(()));
}

#[test]
fn bad_files_are_errors_or_questions_and_nothing_is_lost() {
    const WHAT: &str = "machines with bad files";
    if !need_root(WHAT) || !need_kvm(WHAT) || !need_program(WHAT, "qemu-img") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let base = instance.public_directory("vms");
    let stage = Stage { instance: &instance, account: &account, base: &base };
    std::thread::scope(|scope| {
        for part in [bad_vmx, bad_disk, one_disk_for_two, bad_suspended_state, full_disk, vandal_guest] {
            let stage = &stage;
            scope.spawn(move || part(stage));
        }
    });
}

/// A .vmx that makes no sense: refused, with what is wrong.
fn bad_vmx(stage: &Stage<'_>) {
    let mut exec = stage.session();
    let guest = stage.guest(&mut exec, "bad", FLOPPY);
    let cases = [
        ("memsize = \"lots\"\n", "memsize"),
        ("memsize = \"999999999\"\n", "memsize"),
        ("numvcpus = \"64\"\n", "numvcpus"),
        ("scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n", "scsi0:0"),
    ];
    for (lines, named) in cases {
        guest.write_vmx(lines);
        let (code, text) = guest.op(&mut exec, "VM_Start", "").error().expect(lines);
        assert!(code == -18 && text.contains(named), "{lines:?}: {code} {text}");
        assert_eq!(guest.state(&mut exec), ("off".to_owned(), 0));
        assert_eq!(guest.events(&mut exec).last().unwrap(), "Virtual machine could not be started.");
    }
    // Not even a .vmx.
    guest.put("bad.vmx", &[0xff; 4096]);
    guest.mode(0o755);
    let (code, text) = guest.op(&mut exec, "VM_Start", "").error().expect("garbage");
    assert!(code == -18 && !text.is_empty(), "{code} {text}");
    guest.write_vmx(FLOPPY);
    guest.must(&mut exec, "VM_Start", "");
    guest.must(&mut exec, "VM_Stop", HARD);
}

/// A disk that is cut off or missing is asked about; once it is right, the start goes on.
fn bad_disk(stage: &Stage<'_>) {
    let mut exec = stage.session();
    let mut guest = stage.guest(&mut exec, "disk", &disk(Path::new("disk.vmdk")));
    let (id, text) = starts_with_a_question(&guest, &mut exec);
    assert!(text.contains("disk.vmdk") && text.contains("ide0:0"), "{text}");
    // Nothing else is possible meanwhile, and another number or choice is no answer.
    assert_eq!(guest.op(&mut exec, "VM_Start", "").code(), -16);
    assert_eq!(guest.op(&mut exec, "VM_Suspend", HARD).code(), -16);
    for wrong in [format!("<id>{id}</id><choice>9</choice>"), "<id>4711</id><choice>0</choice>".to_owned()] {
        assert_eq!(guest.op(&mut exec, "VM_AnswerQuestion", &wrong).code(), -3);
    }
    answer(&guest, &mut exec, &id, 1);
    becomes(&guest, &mut exec, "off");
    assert_eq!(guest.op(&mut exec, "VM_AnswerQuestion", "<id>1</id><choice>0</choice>").code(), -8);
    let path = stage.disk(guest.directory());
    let whole = fs::read(&path).unwrap();
    for length in [0, 511, 4096, whole.len() / 2] {
        fs::write(&path, &whole[..length]).unwrap();
        let (id, text) = starts_with_a_question(&guest, &mut exec);
        assert!(text.contains("disk.vmdk"), "{length}: {text}");
        answer(&guest, &mut exec, &id, 1);
        becomes(&guest, &mut exec, "off");
        assert_eq!(fs::read(&path).unwrap(), &whole[..length], "it is left as it is");
    }
    fs::remove_file(&path).unwrap();
    let (id, _) = starts_with_a_question(&guest, &mut exec);
    fs::write(&path, &whole).unwrap();
    guest.give(&path);
    answer(&guest, &mut exec, &id, 0);
    becomes(&guest, &mut exec, "on");
    guest.expect(&mut exec, "HELLO FROM SECTOR 0");
    guest.must(&mut exec, "VM_Stop", HARD);
    output(Command::new("qemu-img").arg("check").arg(&path));
}

/// Two machines never write one disk.
fn one_disk_for_two(stage: &Stage<'_>) {
    let mut exec = stage.session();
    let first = stage.guest(&mut exec, "first", &disk(Path::new("disk.vmdk")));
    let path = stage.disk(first.directory());
    let second = stage.guest(&mut exec, "second", &disk(&path));
    first.must(&mut exec, "VM_Start", "");
    let (id, text) = starts_with_a_question(&second, &mut exec);
    assert!(text.contains("in use") && text.contains("disk.vmdk"), "{text}");
    answer(&second, &mut exec, &id, 0);
    let again = eventually("it asks again", || {
        let question = second.must(&mut exec, "VM_GetQuestion", "");
        question.all("id").first().filter(|now| **now != id).cloned()
    });
    // The one that has it is killed: the disk is free.
    tests::process::kill(first.state(&mut exec).1);
    becomes(&first, &mut exec, "off");
    answer(&second, &mut exec, &again, 0);
    becomes(&second, &mut exec, "on");
    second.must(&mut exec, "VM_Stop", HARD);
}

/// A suspended state that is damaged or cut off is asked about, and kept until somebody decides.
fn bad_suspended_state(stage: &Stage<'_>) {
    let mut exec = stage.session();
    let mut guest = stage.guest(&mut exec, "sleeper", FLOPPY);
    guest.must(&mut exec, "VM_Start", "");
    guest.expect(&mut exec, "HELLO FROM SECTOR 0");
    guest.send(&mut exec, "remembered");
    guest.expect(&mut exec, "remembered");
    guest.must(&mut exec, "VM_Suspend", HARD);
    let file = guest.directory().join("sleeper.vmss");
    let whole = fs::read(&file).unwrap();
    let mut wrong = whole.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    for (bytes, word) in [(&wrong[..], "checksum"), (&whole[..whole.len() - 1], ""), (&whole[..100], "")] {
        fs::write(&file, bytes).unwrap();
        let (id, text) = starts_with_a_question(&guest, &mut exec);
        assert!(text.contains("suspended state") && text.contains(word), "{text}");
        // Keep it.
        answer(&guest, &mut exec, &id, 0);
        becomes(&guest, &mut exec, "suspended");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
    // Another machine's memory.
    fs::write(&file, &whole).unwrap();
    let vmx = fs::read_to_string(&guest.config).unwrap();
    fs::write(&guest.config, vmx.replace("memsize = \"16\"", "memsize = \"32\"")).unwrap();
    let (id, text) = starts_with_a_question(&guest, &mut exec);
    assert!(text.contains("16 MB") && text.contains("32 MB"), "{text}");
    answer(&guest, &mut exec, &id, 0);
    becomes(&guest, &mut exec, "suspended");
    fs::write(&guest.config, vmx).unwrap();
    // The right one: it goes on where it was.
    guest.must(&mut exec, "VM_Start", "");
    assert!(guest.output(&mut exec, 0, 0).0.contains("remembered"));
    guest.send(&mut exec, "!");
    guest.expect(&mut exec, "!");
    guest.must(&mut exec, "VM_Stop", HARD);
}

/// No room for what the guest writes: it waits, and its writes arrive when there is room.
fn full_disk(stage: &Stage<'_>) {
    const WHAT: &str = "a disk that is full while the guest writes";
    let mut exec = stage.session();
    let small = stage.base.join("small");
    fs::create_dir(&small).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m,mode=1777", "tmpfs"]).arg(&small);
    let mounted = mount.output().unwrap();
    if !mounted.status.success() {
        return skipped(WHAT, String::from_utf8_lossy(&mounted.stderr).trim());
    }
    fs::set_permissions(&small, PermissionsExt::from_mode(0o1777)).unwrap();
    let path = stage.disk(&small);
    let mut guest = stage.guest(&mut exec, "writer", &disk(&path));
    guest.put("boot.img", &writer());
    guest.must(&mut exec, "VM_Start", "");
    guest.expect(&mut exec, ">");
    guest.send(&mut exec, "x");
    guest.expect(&mut exec, "W");
    // Every write is in another grain, and takes 64 KiB: sooner or later there is no room.
    let written = (1..64).find(|_| {
        guest.send(&mut exec, "x");
        eventually("the guest has written, or is stuck", || {
            if guest.state(&mut exec).0 == "stuck" {
                return Some(true);
            }
            let (more, next) = guest.output(&mut exec, guest.seen, 0);
            assert!(!more.contains('E'), "the guest was told of an error");
            guest.seen = next;
            more.contains('W').then_some(false)
        })
    });
    let written = written.expect("1 MiB is full");
    println!("{written} grains fit");
    let (id, text) = question(&guest, &mut exec);
    assert!(text.contains("no space left") && text.contains("disk.vmdk"), "{text}");
    assert_eq!(guest.op(&mut exec, "VM_Suspend", HARD).code(), -16);
    // Still full: asked again.
    answer(&guest, &mut exec, &id, 0);
    let again = eventually("it asks again", || {
        let question = guest.must(&mut exec, "VM_GetQuestion", "");
        question.all("id").first().filter(|now| **now != id).cloned()
    });
    output(Command::new("mount").args(["-o", "remount,size=8m"]).arg(&small));
    answer(&guest, &mut exec, &again, 0);
    guest.expect(&mut exec, "W");
    assert_eq!(guest.state(&mut exec).0, "on");
    guest.send(&mut exec, "x");
    guest.expect(&mut exec, "W");
    guest.must(&mut exec, "VM_Stop", HARD);
    // All of it is there.
    output(Command::new("qemu-img").arg("check").arg(&path));
    let raw = guest.directory().join("raw");
    output(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&path).arg(&raw));
    let bytes = fs::read(raw).unwrap();
    for grain in 0..=written + 1 {
        // The sector, but for the place in it that says where it goes to.
        assert_eq!(bytes[grain * 65_536..][..256], writer()[..256], "grain {grain} of {written}");
    }
    eventually("nobody uses the disk", || {
        Command::new("umount").arg(&small).status().is_ok_and(|status| status.success()).then_some(())
    });
}

/// B10: a guest that writes to every port may end its machine, but nothing else.
fn vandal_guest(stage: &Stage<'_>) {
    let mut exec = stage.session();
    let core = stage.instance.core();
    let guest = stage.guest(&mut exec, "vandal", FLOPPY);
    for seed in [1, 4711] {
        guest.put("boot.img", &vandal(seed));
        guest.must(&mut exec, "VM_Start", "");
        let (state, process) = guest.state(&mut exec);
        assert_eq!(state, "on");
        // Its firmware takes some of that; the rest is vandalism.
        let enough = std::time::Duration::from_secs(4);
        tests::within(std::time::Duration::from_secs(120), "it has worked, or is off", || {
            let over = !tests::process::runs(process) || tests::process::processor_time(process) > enough;
            assert_eq!(exec.inc(1), 2);
            over.then_some(())
        });
        let reply = guest.op(&mut exec, "VM_Stop", HARD);
        assert!(reply.ok() || reply.code() == -8, "{:?}", reply.error());
        becomes(&guest, &mut exec, "off");
        println!("seed {seed}: {:?}", guest.events(&mut exec).last());
        assert_eq!(stage.instance.core(), core, "the server has ended");
    }
}
