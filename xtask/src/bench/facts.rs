//! What a figure depends on besides the code: the machine, the kernel, the compiler, the day.

use std::process::Command;

use serde_json::{Value, json};

use crate::workspace::root;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// First line of what a program prints, or `unknown`.
fn says(command: &mut Command) -> String {
    let output = command.output().ok().filter(|output| output.status.success());
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let line = text.as_deref().and_then(|text| text.lines().next()).unwrap_or_default().trim().to_owned();
    if line.is_empty() { "unknown".to_owned() } else { line }
}

/// The compiler that builds this workspace.
pub fn rustc() -> String {
    says(
        Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
            .current_dir(root())
            .arg("--version"),
    )
}

/// The C library.
pub fn libc() -> String {
    says(Command::new("getconf").arg("GNU_LIBC_VERSION"))
}

/// Today, `2026-11-22`, by the clock of the machine.
pub fn date() -> String {
    says(Command::new("date").args(["-u", "+%Y-%m-%d"]))
}

/// The commit that was measured, with a mark when the tree had changes.
pub fn commit() -> String {
    says(Command::new("git").current_dir(root()).args(["describe", "--always", "--dirty", "--abbrev=12"]))
}

/// How busy the machine was in the last minute.
pub fn load() -> String {
    read("/proc/loadavg").split_whitespace().next().unwrap_or("?").to_owned()
}

/// The processor's name.
fn model() -> String {
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    model.unwrap_or("unknown").to_owned()
}

fn cpus() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

fn kernel() -> String {
    read("/proc/sys/kernel/osrelease").trim().to_owned()
}

/// One line for the start of a run.
pub fn line() -> String {
    format!("{} CPUs ({}), Linux {}, load before the run {}", cpus(), model(), kernel(), load())
}

/// All of it, for the record.
pub fn all() -> Value {
    let memory = read("/proc/meminfo");
    let memory = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    json!({
        "processor": model(),
        "cpus": cpus(),
        "memory_gib": memory.map(|kib| (kib as f64 / f64::from(1 << 20)).round()),
        "kernel": kernel(),
        "rustc": rustc(),
        "libc": libc(),
        "date": date(),
        "commit": commit(),
        "load_before": load(),
    })
}
