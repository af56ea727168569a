//! Programs in C against a live instance with a machine.

use std::path::PathBuf;
use std::process::Command;

use tests::guest::{Guest, kvm};
use tests::skip::{need_program, skipped};
use tests::{Account, Instance, Setup, account, need_root, programs};

use crate::c;

/// The files of a machine that belongs to `account` and boots a floppy.
pub fn machine(instance: &Instance, name: &str, account: &Account) -> PathBuf {
    let more = format!("displayName = \"{name}\"\nguestOS = \"other\"\n");
    Guest::with_floppy(instance, name, (account.uid, account.gid), &more).config
}

#[test]
fn programs_in_c_do_everything() {
    const WHAT: &str = "the C library against a live server";
    if !need_root(WHAT) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let account = Account::new();
    let instance = Setup::new().start();
    let root = instance.base.root();
    let path = machine(&instance, "walk", &account);
    let unknown = path.with_file_name("unknown.vmx");
    let picture = at.join("screen.png");
    let walk = |mut command: Command, more: &[&str]| {
        command.arg(&path).arg(&unknown).arg(&account.name).arg(&picture).args(more);
        assert_eq!(account::output(command.env("VMSERVERD_ROOT", &root)), "walked\n");
    };
    let source = c::sources().join("walk.c");
    let address = c::compile(at, &source, "walk-address", &["-fsanitize=address,undefined"]);
    match kvm() {
        Ok(()) => walk(Command::new(&address), &["on"]),
        Err(why) => {
            skipped("a machine powered on through the C library", &why);
            walk(Command::new(&address), &[]);
        }
    }
    if need_program("the C library under valgrind", "valgrind") {
        let plain = c::compile(at, &source, "walk", &["-fstack-protector-all"]);
        let mut command = Command::new("valgrind");
        command.args([
            "--quiet",
            "--error-exitcode=9",
            "--leak-check=full",
            "--errors-for-leak-kinds=definite",
        ]);
        command.arg(plain);
        walk(command, &[]);
    }

    let mut exec = instance.exec();
    assert!(exec.op("VMRegister", &format!("<config>{}</config>", path.display())).ok());
    // Long and odd strings through every parameter.
    let strings =
        c::compile(at, &c::sources().join("strings.c"), "strings", &["-fsanitize=address,undefined"]);
    let mut command = Command::new(strings);
    assert_eq!(account::output(command.arg(&path).env("VMSERVERD_ROOT", &root)), "whole\n");

    // 64 threads, on objects of their own and on shared ones.
    let source = c::sources().join("threads.c");
    // Rust's locks are not seen by ThreadSanitizer, which is told to leave the library's own use of the
    // C heap alone: what it watches is the memory that goes through a program's hands.
    let suppressions = at.join("suppressions");
    std::fs::write(&suppressions, "called_from_lib:libvmcontrol\n").unwrap();
    for sanitizer in ["-fsanitize=address", "-fsanitize=thread"] {
        let program = c::compile(at, &source, "threads", &[sanitizer]);
        // ThreadSanitizer of this compiler knows no other layout of memory.
        let mut command = Command::new("setarch");
        command.args(["--addr-no-randomize"]).arg(program).arg(&path).arg("64");
        command
            .env("VMSERVERD_ROOT", &root)
            .env("TSAN_OPTIONS", format!("suppressions={}", suppressions.display()));
        assert_eq!(account::output(&mut command), "joined\n", "{sanitizer}");
    }

    // The example is what the manual shows.
    let example = programs::repository().join("vmcontrol/examples/inc.c");
    let example = c::compile(at, &example, "inc", &[]);
    assert_eq!(account::output(Command::new(example).env("VMSERVERD_ROOT", &root)), "42 + 1 = 43\n");
}
