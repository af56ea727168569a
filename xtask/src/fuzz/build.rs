//! Building the targets, for searching and for coverage.

use std::path::PathBuf;

use crate::Result;
use crate::workspace::{Runner, cargo, root};

/// Flags for coverage feedback and AddressSanitizer, as libFuzzer wants them.
const SEARCHING: &[&str] = &[
    "--cfg=fuzzing",
    "-Zsanitizer=address",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

/// Flags that count how often each line is reached.
const COUNTING: &[&str] = &["--cfg=fuzzing", "-Cinstrument-coverage"];

/// Sanitizers need the target named, or they would be put into build scripts too.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the targets that search.
///
/// # Errors
/// When one does not build; cargo has then said why on standard error.
pub fn build(runner: &Runner) -> Result<()> {
    compile(runner, SEARCHING, &["--release"], "target", "building the fuzz targets (AddressSanitizer)")
}

/// Builds the targets that count lines.
///
/// # Errors
/// As [`build`].
pub fn build_counting() -> Result<()> {
    // Every input is run once: what builds faster is done sooner.
    compile(&Runner::in_front(), COUNTING, &[], "target/coverage", "building the fuzz targets (coverage)")
}

fn compile(runner: &Runner, flags: &[&str], profile: &[&str], directory: &str, what: &str) -> Result<()> {
    let fuzz = root().join("fuzz");
    let mut command = cargo(&["build", "--quiet", "--bins", "--target", TARGET]);
    command.args(profile).arg("--target-dir").arg(fuzz.join(directory)).current_dir(fuzz);
    // The encoded form keeps apart what a space would split; it replaces any RUSTFLAGS.
    command.env("RUSTC_BOOTSTRAP", "1").env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    runner.run(command, what)
}

/// Where a target that searches is.
pub fn binary(name: &str) -> PathBuf {
    root().join("fuzz/target").join(TARGET).join("release").join(name)
}

/// Where a target that counts lines is.
pub fn counting_binary(name: &str) -> PathBuf {
    root().join("fuzz/target/coverage").join(TARGET).join("debug").join(name)
}
