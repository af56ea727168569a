//! `xtask fuzz --coverage`: which lines of the sources the corpora reach.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{build, corpus, figures};
use crate::Result;
use crate::workspace::root;

/// What is held to a floor, in percent of its lines: name, where it is, what is left out because no input ever
/// comes to it.
const HELD: &[(&str, &[&str], &[&str])] = &[
    ("operations: guard, envelope, arguments", &["ops/src/"], &["ops/src/docs.rs"]),
    ("grammar of authd's lines", &["authd/dialogue/src/line.rs"], &[]),
    ("disks", &["hypervisor/src/vmdk/", "hypervisor/src/vmdk.rs"], &[]),
];
const FLOOR: f64 = 90.0;

/// Also told, without a floor.
const TOLD: &[(&str, &[&str], &[&str])] = &[
    ("dialogue before the login", &["authd/dialogue/src/"], &["authd/dialogue/src/line.rs"]),
    (
        "messages, settings, lists",
        &["link/src/wire.rs", "link/src/product_config.rs", "link/src/vm_list.rs"],
        &[],
    ),
    (".vmx files, event logs", &["hypervisor/src/vmx_file", "hypervisor/src/event_log"], &[]),
    ("chips", &["hypervisor/vmx/src/chips/"], &[]),
    ("suspended machines", &["hypervisor/vmx/src/state_file.rs"], &[]),
];

/// Lines of a file: all, and those reached.
type Lines = BTreeMap<PathBuf, (u64, u64)>;

/// Runs the corpora once, prints a table and writes it into the page.
///
/// # Errors
/// When a target does not build or fails, or LLVM's tools are missing.
pub fn report(chosen: &[String]) -> Result<()> {
    let (merge, export) = (tool("llvm-profdata")?, tool("llvm-cov")?);
    build::build_counting()?;
    let directory = root().join("fuzz/target/coverage/profiles");
    let said = |error: std::io::Error| format!("cannot use {}: {error}", directory.display());
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).map_err(said)?;
    for name in chosen {
        count(name, &directory)?;
    }
    let merged = directory.join("all.profdata");
    let mut command = Command::new(merge);
    command.args(["merge", "--sparse", "-o"]).arg(&merged);
    command.args(chosen.iter().map(|name| directory.join(format!("{name}.profraw"))));
    crate::workspace::run(&mut command, "llvm-profdata")?;
    let mut command = Command::new(export);
    command.args(["export", "--summary-only", "--instr-profile"]).arg(&merged);
    for (name, place) in chosen.iter().zip(0..) {
        let binary = build::counting_binary(name);
        if place > 0 {
            command.arg("--object");
        }
        command.arg(binary);
    }
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot start llvm-cov: {error}"))?;
    if !output.status.success() {
        return Err(format!("llvm-cov failed ({})", output.status));
    }
    let lines = lines(&output.stdout, &root()).ok_or("llvm-cov said something unknown")?;
    let table = table(&lines);
    println!("{table}");
    figures::write("coverage", &table)
}

/// Runs everything a target knows, once.
fn count(name: &str, directory: &Path) -> Result<()> {
    let files = corpus::work(name).join("files");
    std::fs::create_dir_all(&files).map_err(|error| format!("cannot make {}: {error}", files.display()))?;
    let mut inputs = Vec::new();
    for directory in corpus::directories(name)? {
        let entries = std::fs::read_dir(&directory);
        let entries = entries.map_err(|error| format!("cannot read {}: {error}", directory.display()))?;
        inputs.extend(entries.flatten().map(|entry| entry.path()));
    }
    eprintln!("xtask: {name}: {} inputs", inputs.len());
    let log = corpus::work(name).join("coverage.log");
    let output =
        std::fs::File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let mut command = Command::new(build::counting_binary(name));
    command.current_dir(root().join("fuzz")).args(inputs).env("TMPDIR", &files);
    command.env("LLVM_PROFILE_FILE", directory.join(format!("{name}.profraw")));
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).status();
    let status = status.map_err(|error| format!("cannot start fuzz target {name}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("fuzz target {name} failed ({status}), see {}", log.display()))
    }
}

/// One of LLVM's tools, of the compiler's own version.
fn tool(name: &str) -> Result<PathBuf> {
    let output = Command::new("rustc").args(["--print", "sysroot"]).output();
    let output = output.map_err(|error| format!("cannot start rustc: {error}"))?;
    let sysroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let path = Path::new(&sysroot).join("lib/rustlib/x86_64-unknown-linux-gnu/bin").join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(format!("there is no {}: rustup component add llvm-tools", path.display()))
}

/// The files of the repository in what llvm-cov has to say.
fn lines(export: &[u8], root: &Path) -> Option<Lines> {
    let export: Value = serde_json::from_slice(export).ok()?;
    let files = export.get("data")?.get(0)?.get("files")?.as_array()?;
    let mut lines = Lines::new();
    for file in files {
        let path = Path::new(file.get("filename")?.as_str()?);
        let Ok(path) = path.strip_prefix(root) else {
            continue;
        };
        let counted = file.get("summary")?.get("lines")?;
        let number = |name: &str| counted.get(name).and_then(Value::as_u64);
        lines.insert(path.to_owned(), (number("count")?, number("covered")?));
    }
    Some(lines)
}

fn table(lines: &Lines) -> String {
    let mut table = String::from("| sources | lines | reached | floor |\n| --- | ---: | ---: | ---: |\n");
    let mut least = Vec::new();
    for (group, held) in HELD.iter().map(|row| (row, true)).chain(TOLD.iter().map(|row| (row, false))) {
        let (name, under, without) = group;
        let belongs = |path: &Path| {
            let path = path.to_string_lossy();
            under.iter().any(|start| path.starts_with(start))
                && !without.contains(&&*path)
                // Tests are not built here; their files would count for nothing.
                && !path.contains("/tests")
        };
        let of_group = lines.iter().filter(|(path, _)| belongs(path));
        let (mut all, mut reached) = (0, 0);
        for (path, (count, covered)) in of_group {
            (all, reached) = (all + count, reached + covered);
            if held && percent(*count, *covered) < FLOOR {
                least.push(format!("`{}` {:.0} %", path.display(), percent(*count, *covered)));
            }
        }
        let floor = if held { format!("{FLOOR:.0} %") } else { String::new() };
        table += &format!("| {name} | {all} | {:.1} % | {floor} |\n", percent(all, reached));
    }
    if !least.is_empty() {
        table += &format!("\nFiles below the floor: {}.\n", least.join(", "));
    }
    table
}

fn percent(all: u64, reached: u64) -> f64 {
    if all == 0 { 0.0 } else { reached as f64 * 100.0 / all as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_repository_counts() {
        let export = br#"{"data":[{"files":[
            {"filename":"/r/ops/src/guard.rs","summary":{"lines":{"count":10,"covered":9}}},
            {"filename":"/r/ops/src/docs.rs","summary":{"lines":{"count":100,"covered":0}}},
            {"filename":"/r/authd/dialogue/src/line.rs","summary":{"lines":{"count":4,"covered":1}}},
            {"filename":"/elsewhere/ops/src/x.rs","summary":{"lines":{"count":9,"covered":9}}}]}]}"#;
        let lines = lines(export, Path::new("/r")).unwrap();
        assert_eq!(lines.len(), 3);
        let table = table(&lines);
        assert!(table.contains("| operations: guard, envelope, arguments | 10 | 90.0 % | 90 % |"), "{table}");
        assert!(table.contains("Files below the floor: `authd/dialogue/src/line.rs` 25 %."), "{table}");
        assert!(super::lines(b"{}", Path::new("/r")).is_none());
    }
}
