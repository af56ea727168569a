//! Tests that cannot run here say so where nobody can miss it.

use std::io::Write;

/// Says that a test is left out: on standard error, past the capture of the test runner, and in the
/// file that `xtask test` prints again at its end.
pub fn skipped(what: &str, why: &str) {
    let line = format!("SKIPPED {what}: {why}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("VMSERVERD_SKIPPED") {
        let file = std::fs::File::options().append(true).create(true).open(path);
        let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
    }
}

/// Whether this process is root; if not, says that the test is left out.
///
/// ```no_run
/// if !tests::need_root("a right password logs in") {
///     return;
/// }
/// ```
#[must_use]
pub fn need_root(what: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        skipped(what, "needs root (accounts, PAM, callers of several users)");
    }
    root
}

/// Whether a program is installed; if not, says that the test is left out.
#[must_use]
pub fn need_program(what: &str, program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|directory| directory.join(program).is_file());
    if !found {
        skipped(what, &format!("{program} is not installed"));
    }
    found
}
