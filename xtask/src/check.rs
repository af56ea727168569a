//! `xtask check`: what can be said about the sources without running them.

use crate::skip::skipped;
use crate::workspace::{cargo, installed, run};
use crate::{Result, r#gen};

/// Runs every check, and fails after the last one if any failed.
pub fn main() -> Result<()> {
    let mut failed = Vec::new();
    let mut step = |what: &str, arguments: &[&str]| {
        eprintln!("xtask: {what}");
        if let Err(why) = run(&mut cargo(arguments), what) {
            failed.push(why);
        }
    };
    step("cargo fmt", &["fmt", "--all", "--check"]);
    let clippy =
        ["clippy", "--workspace", "--all-targets", "--release", "--quiet", "--", "--deny", "warnings"];
    step("cargo clippy", &clippy);
    if installed("cargo-deny") {
        step("cargo deny", &["deny", "--offline", "check", "licenses", "bans", "sources"]);
    } else {
        skipped("cargo deny", "cargo-deny is not installed (cargo install cargo-deny)");
    }
    eprintln!("xtask: generated files");
    failed.extend(r#gen::check().err());
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ")) }
}
