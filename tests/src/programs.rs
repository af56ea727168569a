//! The binaries under test, built once per test program.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// The directory with `vmware-authd`, `vmserverd`, `vmx`, `vmware-cmd`, `xtask` and `libvmcontrol.so`.
///
/// `xtask test` names it in `VMSERVERD_BIN_DIR`; under a bare `cargo test` it is built here.
pub fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| match std::env::var_os("VMSERVERD_BIN_DIR") {
        Some(directory) => PathBuf::from(directory),
        None => build(),
    })
}

/// The C library, as cargo names it.
pub fn library() -> PathBuf {
    directory().join("libvmcontrol.so")
}

/// The root of the repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository")
}

fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(repository()).args(["build", "--release", "--quiet"]);
    for package in ["authd", "serverd", "vmcontrol", "vmware-cmd", "vmx", "xtask"] {
        command.args(["--package", package]);
    }
    command.arg("--message-format=json-render-diagnostics").stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("cargo starts");
    let output = BufReader::new(child.stdout.take().expect("piped"));
    let mut directory = None;
    for line in output.lines() {
        let message: serde_json::Value = serde_json::from_str(&line.expect("utf-8")).expect("json");
        let executable = message.get("executable").and_then(serde_json::Value::as_str);
        directory =
            executable.map(|path| PathBuf::from(path).parent().expect("absolute").into()).or(directory);
    }
    assert!(child.wait().expect("cargo ends").success(), "the daemons do not build");
    directory.expect("cargo names the binaries")
}

/// Copies a program to where it is started from.
///
/// By a process of its own: a file that this one has open for writing is passed on to whatever another thread starts
/// at that moment, and nobody can run it until that has closed it.
///
/// # Panics
/// When it cannot be copied.
pub fn copy(program: &Path, to: &Path) {
    let copied = Command::new("cp").arg(program).arg(to).status().expect("cp starts");
    assert!(copied.success(), "cp {} {}: {copied}", program.display(), to.display());
}
