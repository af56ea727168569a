//! SIGAR's VMware classes, as Debian builds them: the proof that a binary client takes the library.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tests::guest::kvm;
use tests::skip::{need_program, skipped};
use tests::{Account, Setup, account, need_root, programs};

use crate::c;
use crate::machines::machine;

const CLASSES: &str = "/usr/share/java/sigar.jar";

/// Whether Java and the classes are here; if not, says that the test is left out.
fn need_sigar(what: &str) -> bool {
    if !need_program(what, "java") {
        return false;
    }
    let there = Path::new(CLASSES).exists();
    if !there {
        skipped(what, "the package libhyperic-sigar-java is not installed");
    }
    there
}

/// Java with the classes; `VMCONTROL_DEBUG` makes it print each name that is missing.
fn java(classes: &str) -> Command {
    let mut command = Command::new("java");
    // Small and quick to start: a busy machine has two processors for all tests.
    command.args([
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-Xmx64m",
        "-Djava.library.path=/usr/lib/jni",
    ]);
    command.args(["-cp", classes]).env("VMCONTROL_DEBUG", "1").stdin(Stdio::null());
    command
}

/// What `VMControlLibrary` says about a file or a directory.
fn link(argument: &Path, directory: &Path) -> (String, String) {
    let mut command = java(CLASSES);
    command.current_dir(directory).arg("org.hyperic.sigar.vmware.VMControlLibrary").arg(argument);
    texts(&command.output().unwrap())
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

fn complains(stderr: &str) -> bool {
    stderr.contains("UNDEFINED") || stderr.contains("alias")
}

/// The library without the two newer snapshot names: their bytes in the string table are changed, so
/// that no name is found there.
fn without_newer_names(into: &Path) -> PathBuf {
    let mut bytes = std::fs::read(programs::library()).unwrap();
    for name in [&b"VMControl_VMRevertToSnapshot\0"[..], b"VMControl_VMRemoveAllSnapshots\0"] {
        let mut found = 0;
        for at in 0..bytes.len() - name.len() {
            if bytes[at..].starts_with(name) {
                bytes[at] = b'W';
                found += 1;
            }
        }
        assert!(found > 0);
    }
    let path = into.join("older.so");
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn the_classes_load_the_library() {
    if !need_sigar("SIGAR loads the library") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let library = c::library(at);
    let said = |path: &Path, loaded| format!("vmcontrol.shlib={} (loaded={loaded})\n", path.display());

    let path = library.join("libvmcontrol.so.1");
    let (stdout, stderr) = link(&path, at);
    assert_eq!(stdout, said(&path, true), "{stderr}");
    assert!(!complains(&stderr), "{stderr}");
    // A directory: the name that such clients build for themselves.
    let (stdout, stderr) = link(&library, at);
    assert!(stdout.ends_with("vmcontrol64.so (loaded=true)\n"), "{stdout}{stderr}");

    // Either Init may refuse.
    for name in ["VMControl_Init", "VMControl_VMInit"] {
        let source = at.join("refuses.c");
        std::fs::write(&source, format!("char {name}(void);\nchar {name}(void) {{ return 0; }}\n")).unwrap();
        let refuses = at.join(format!("{name}.so"));
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-o"]).arg(&refuses).arg(&source).arg("-Wl,--no-as-needed");
        command.arg("-L").arg(&library).arg("-lvmcontrol").arg(format!("-Wl,-rpath,{}", library.display()));
        account::output(&mut command);
        let (stdout, _) = link(&refuses, at);
        assert_eq!(stdout, said(&refuses, false));
    }

    let older = without_newer_names(at);
    let (stdout, stderr) = link(&older, at);
    assert_eq!(stdout, said(&older, true), "{stderr}");
    assert!(stderr.contains("alias") && !stderr.contains("UNDEFINED"), "{stderr}");
}

#[test]
fn java_drives_every_entry() {
    const WHAT: &str = "SIGAR against a live server";
    if !need_root(WHAT) || !need_sigar(WHAT) || !need_program(WHAT, "ecj") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let source = programs::repository().join("tests/tests/vmcontrol/java/Drive.java");
    let mut command = Command::new("ecj");
    command
        .args(["-source", "11", "-target", "11", "-nowarn", "-proc:none", "-cp", CLASSES, "-d"])
        .arg(at)
        .arg(source);
    account::output(&mut command);

    let account = Account::new();
    let instance = Setup::new().start();
    let path = machine(&instance, "java", &account);
    assert!(instance.exec().op("VMRegister", &format!("<config>{}</config>", path.display())).ok());
    let power = kvm();
    if let Err(why) = &power {
        skipped("a machine powered on from Java", why);
    }
    let picture = at.join("screen.png");
    let classes = format!("{CLASSES}:{}", at.display());
    for (library, complaints) in [(programs::library(), false), (without_newer_names(at), true)] {
        let mut shlib = std::ffi::OsString::from("-Dvmcontrol.shlib=");
        shlib.push(&library);
        let mut drive = java(&classes);
        // The C heap of the Java process checks what is released: twice, or never given, is the end.
        drive
            .env("LD_PRELOAD", "libc_malloc_debug.so.0")
            .env("MALLOC_CHECK_", "3")
            .env("MALLOC_PERTURB_", "90");
        drive.env("VMSERVERD_ROOT", instance.base.root()).arg(shlib).arg("Drive");
        drive.arg(&path).arg(path.with_file_name("unknown.vmx")).arg(&account.name).arg(&picture);
        drive.args(power.is_ok().then_some("on"));
        let output = drive.output().unwrap();
        let (stdout, stderr) = texts(&output);
        assert!(output.status.success() && stdout.ends_with("driven\n"), "{stdout}{stderr}");
        assert_eq!(complains(&stderr), complaints, "{stderr}");
    }
}
