//! `VmPerl`: the Perl modules of `vmcontrol/perl`, with their own tests, against a live instance.
//!
//! The test programs are Perl (`vmcontrol/perl/t`), run by `prove` as a real account; what they are
//! told of the instance is in `t/lib/Live.pm`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::guest::{Guest, need_kvm};
use tests::skip::{need_program, skipped};
use tests::{Account, Instance, Setup, need_root, programs};

/// The Perl room in the repository.
fn room() -> PathBuf {
    programs::repository().join("vmcontrol/perl")
}

/// Whether this Perl has a module.
fn has(module: &str) -> bool {
    let mut command = Command::new("perl");
    command.arg(format!("-M{module}")).args(["-e", "1"]).stdin(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// Whether `prove` and what the tests are written with are there; if not, says that the test is left out.
fn need_perl(what: &str) -> bool {
    if !need_program(what, "perl") || !need_program(what, "prove") {
        return false;
    }
    let missing = ["Test::More", "Pod::Checker", "ExtUtils::MakeMaker"].into_iter().find(|name| !has(name));
    if let Some(module) = missing {
        skipped(what, &format!("the Perl module {module} is not installed (Debian: perl)"));
    }
    missing.is_none()
}

/// Runs a command that must succeed, and returns all it printed.
fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

/// Copies the room to where every user may read it.
fn copied(to: &Path) -> PathBuf {
    run(Command::new("cp").arg("-r").arg(room()).arg(to));
    let copy = to.join("perl");
    run(Command::new("chmod").args(["-R", "a+rX"]).arg(&copy));
    copy
}

/// Runs test programs of a room; each must have run, none been left out.
fn prove(command: &mut Command, programs: &[&str]) {
    let text = run(command.args(["-Ilib"]).args(programs).stderr(Stdio::piped()));
    for program in programs {
        let line = text.lines().find(|line| line.starts_with(program)).unwrap_or_default();
        assert!(line.ends_with(" ok"), "{program} did not run to its end:\n{text}");
    }
}

#[test]
fn names_numbers_replies_and_gateways_that_misbehave() {
    if !need_perl("VmPerl without a server") {
        return;
    }
    let mut command = Command::new("prove");
    prove(command.current_dir(room()), &["t/00-interface.t", "t/10-reply.t", "t/20-gateway.t"]);
}

#[test]
fn error_numbers_and_texts_are_those_of_the_server() {
    if !need_perl("VmPerl's errors") {
        return;
    }
    let script = r#"for my $name (@VMware::VmPerl::Constants::NAMES) {
        my ($error) = $name =~ /^VM_E_(.*)/ or next;
        my $number = $VMware::VmPerl::Constants::VALUE{$name};
        print join("\t", $number, $error, VMware::VmPerl::Constants::base_text($number)), "\n" if $number;
    }"#;
    let mut command = Command::new("perl");
    let printed = run(command.current_dir(room()).args(["-Ilib", "-MVMware::VmPerl", "-e", script]));
    let expected: String = ops::ErrorCode::ALL
        .iter()
        .map(|code| format!("{}\t{}\t{}\n", code.number(), code.name(), code.base_text()))
        .collect();
    assert_eq!(printed, expected);
}

#[test]
fn it_installs() {
    if !need_perl("VmPerl installs") || !need_program("VmPerl installs", "make") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let copy = copied(directory.path());
    let to = directory.path().join("to");
    run(Command::new("perl")
        .current_dir(&copy)
        .arg("Makefile.PL")
        .arg(format!("INSTALL_BASE={}", to.display())));
    // Not the flags of a make that runs this test.
    run(Command::new("make")
        .current_dir(&copy)
        .arg("install")
        .env_remove("MAKEFLAGS")
        .env_remove("MAKELEVEL"));
    // What the manifest names is what is there, but for what was just built.
    let manifest = std::fs::read_to_string(copy.join("MANIFEST")).unwrap();
    let mut listed: Vec<&str> = manifest.lines().collect();
    let found = run(Command::new("find").current_dir(room()).args([".", "-type", "f", "-printf", "%P\n"]));
    let built = |name: &&str| {
        ["blib/", "pm_to_blib", "MYMETA.", ".gitignore"].iter().any(|start| name.starts_with(start))
            || ["Makefile", "Makefile.old"].contains(name)
    };
    let mut found: Vec<&str> = found.lines().filter(|name| !built(name)).collect();
    listed.sort_unstable();
    found.sort_unstable();
    assert_eq!(listed, found, "MANIFEST");
    let library = to.join("lib/perl5");
    let mut command = Command::new("perl");
    command.current_dir("/").arg("-I").arg(&library);
    let script = "print $INC{'VMware/Control/VM.pm'}, VMware::VmPerl::version()";
    let printed = run(command.args(["-MVMware::VmPerl", "-MVMware::Control", "-e", script]));
    assert!(printed.starts_with(library.to_str().unwrap()), "{printed}");
    assert!(to.join("man/man3/VMware::VmPerl.3pm").exists() || to.join("man/man3/VMware::VmPerl.3").exists());
}

/// A machine that boots our own sector from a floppy image; without an owner, one that nobody but us reads.
fn machine(instance: &Instance, name: &str, owner: Option<&Account>) -> PathBuf {
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let ids = owner.map_or(me, |account| (account.uid, account.gid));
    let guest = Guest::with_floppy(instance, name, ids, "displayName = \"Perl test\"\n");
    if owner.is_none() {
        guest.mode(0o700);
    }
    guest.config
}

/// An instance, an account, and the Perl room where the account can read it.
struct Stage {
    instance: Instance,
    account: Account,
    room: PathBuf,
}

impl Stage {
    fn set() -> Self {
        let account = Account::new();
        let instance = Setup::new().tls().plain().hasty().start();
        let room = copied(instance.base.path());
        Stage { instance, account, room }
    }

    /// `prove` as the account, with nothing in its environment but what it needs.
    fn prove(&self) -> Command {
        let mut command = Command::new("prove");
        command.current_dir(&self.room).uid(self.account.uid).gid(self.account.gid).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", &self.account.home);
        command.env("VMPERL_ROOT", self.instance.layout.root());
        command.env("VMPERL_TLS_PORT", self.instance.tls.to_string());
        command.env("VMPERL_PLAIN_PORT", self.instance.plain.to_string());
        command.env("VMPERL_USER", &self.account.name);
        // The account's real password has a bare `%`; the modules escape it.
        command.env("VMPERL_PASSWORD", self.account.password.replace("%25", "%"));
        command
    }
}

#[test]
fn every_way_in_and_every_method_on_a_machine_that_is_off() {
    const WHAT: &str = "VmPerl against a live instance";
    if !need_root(WHAT) || !need_perl(WHAT) {
        return;
    }
    if !has("IO::Socket::SSL") {
        skipped("VmPerl over TLS", "libio-socket-ssl-perl is not installed");
    }
    let stage = Stage::set();
    let hidden = machine(&stage.instance, "hidden", None);
    let register = format!("<config>{}</config>", hidden.display());
    assert!(stage.instance.exec().op("VMRegister", &register).ok());
    let mut command = stage.prove();
    command.env("VMPERL_OFF", machine(&stage.instance, "off", Some(&stage.account)));
    prove(command.env("VMPERL_HIDDEN", hidden), &["t/30-live.t"]);
}

#[test]
fn every_method_on_a_machine_that_runs_and_the_published_scripts() {
    const WHAT: &str = "VmPerl and a machine that runs";
    if !need_root(WHAT) || !need_perl(WHAT) || !need_kvm(WHAT) {
        return;
    }
    let stage = Stage::set();
    let mut command = stage.prove();
    command.env("VMPERL_MACHINE", machine(&stage.instance, "runs", Some(&stage.account)));
    prove(&mut command, &["t/40-machine.t", "t/50-scripts.t"]);
}
