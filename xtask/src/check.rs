//! `xtask check`: what can be said about the sources without running them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use crate::skip::skipped;
use crate::workspace::{DAEMONS, Runner, cargo, installed};
use crate::{Result, r#gen};

/// The fuzz targets are a workspace of their own.
const FUZZ: &str = "--manifest-path=fuzz/Cargo.toml";

/// Runs every check, and fails after the last one if any failed.
pub fn main() -> Result<()> {
    run(&Runner::in_front())
}

/// The same, wherever the commands shall run.
pub fn run(runner: &Runner) -> Result<()> {
    let mut failed = Vec::new();
    let mut step = |what: &str, arguments: &[&str]| failed.extend(runner.run(cargo(arguments), what).err());
    step("cargo fmt", &["fmt", "--all", "--check"]);
    step("cargo fmt (fuzz)", &["fmt", FUZZ, "--check"]);
    let lints = ["--all-targets", "--release", "--quiet", "--", "--deny", "warnings"];
    step("cargo clippy", &[&["clippy", "--workspace"], &lints[..]].concat());
    step("cargo clippy (fuzz)", &[&["clippy", FUZZ, "--target-dir=fuzz/target/lint"], &lints[..]].concat());
    if installed("cargo-deny") {
        step("cargo deny", &["deny", "--offline", "check", "licenses", "bans", "sources"]);
    } else {
        skipped("cargo deny", "cargo-deny is not installed (cargo install cargo-deny)");
    }
    failed.extend(r#gen::check().err());
    failed.extend(built_once().err());
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n       ")) }
}

/// Every library is built in the same way whether for the daemons, this program or the tests: with other features, or
/// another profile, it would be built again, and everything that uses it.
fn built_once() -> Result<()> {
    let tests = units(&["test", "--workspace", "--no-run"])?;
    let daemons: Vec<&str> = DAEMONS.iter().flat_map(|(package, _)| ["--package", package]).collect();
    for chosen in [&daemons[..], &["--package", "xtask"]] {
        let other = units(&[&["build"], chosen].concat())?;
        let again: Vec<&str> = other
            .iter()
            .filter(|(unit, _)| !tests.contains_key(*unit))
            .map(|(_, name)| name.as_str())
            .collect();
        if !again.is_empty() {
            return Err(format!(
                "{} and the tests of all members have other features or profiles, see Cargo.toml, so that these are \
                 built twice:\n{}",
                chosen.join(" "),
                again.join("\n")
            ));
        }
    }
    Ok(())
}

/// The libraries that cargo would build for these arguments, with their names: each a number that is another one
/// as soon as anything is built differently in it, or beneath it.
fn units(arguments: &[&str]) -> Result<BTreeMap<u64, String>> {
    let mut command = cargo(arguments);
    command.args(["--release", "--quiet", "-Zunstable-options", "--unit-graph"]).env("RUSTC_BOOTSTRAP", "1");
    let output = command.stderr(std::process::Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cannot run cargo: {error}"))?;
    if !output.status.success() {
        return Err(format!("cargo {} --unit-graph failed ({})", arguments.join(" "), output.status));
    }
    let graph: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("unit graph: {error}"))?;
    let units = graph.get("units").and_then(Value::as_array).ok_or("the unit graph has no units")?;
    let mut known = vec![None; units.len()];
    let mut libraries = BTreeMap::new();
    for (place, unit) in units.iter().enumerate() {
        let number = number(units, &mut known, place).ok_or("the unit graph has another form now")?;
        let program = unit.pointer("/target/kind/0").and_then(Value::as_str) == Some("bin");
        if !program && unit.get("mode").and_then(Value::as_str) == Some("build") && !is_c_library(unit) {
            let name = unit.get("pkg_id").and_then(Value::as_str).unwrap_or_default();
            libraries.insert(number, name.to_owned());
        }
    }
    Ok(libraries)
}

/// The C library is what no test links with.
fn is_c_library(unit: &Value) -> bool {
    unit.pointer("/target/kind/0").and_then(Value::as_str) == Some("cdylib")
}

/// The number of a unit, from what it is and the numbers of what it depends on.
fn number(units: &[Value], known: &mut Vec<Option<u64>>, place: usize) -> Option<u64> {
    if let Some(number) = *known.get(place)? {
        return Some(number);
    }
    let unit = units.get(place)?;
    let mut hasher = DefaultHasher::new();
    for field in ["pkg_id", "target", "profile", "features", "mode", "platform"] {
        unit.get(field).map(Value::to_string).hash(&mut hasher);
    }
    let mut beneath = Vec::new();
    for dependency in unit.get("dependencies")?.as_array()? {
        let index = usize::try_from(dependency.get("index")?.as_u64()?).ok()?;
        beneath.push(number(units, known, index)?);
    }
    beneath.sort_unstable();
    beneath.hash(&mut hasher);
    let number = hasher.finish();
    *known.get_mut(place)? = Some(number);
    Some(number)
}
