//! What a fault test measured: a line for whoever reads along, and a JSON line for `cargo xtask faults`.
//!
//! A figure that depends on how busy the machine is fails no test; it carries its requirement along, and
//! the full run says whether it was met.

use std::io::Write;
use std::time::Duration;

use serde_json::json;

/// The environment variable that names the file for the JSON lines.
const FILE: &str = "VMSERVERD_FIGURES";

/// Whether the tests shall run at full length (`VMSERVERD_FAULTS=full`) and not as long as CI can wait.
#[must_use]
pub fn full() -> bool {
    std::env::var("VMSERVERD_FAULTS").is_ok_and(|value| value == "full")
}

/// A number from the environment, or one for the full length, or one for CI.
#[must_use]
pub fn length(variable: &str, full_length: usize, in_ci: usize) -> usize {
    let asked = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(if full() { full_length } else { in_ci })
}

/// Notes a figure without a requirement.
pub fn fact(fault: &str, what: &str, value: f64, unit: &str) {
    note(fault, what, value, unit, None);
}

/// Notes a figure that must not be above a limit.
pub fn most(fault: &str, what: &str, value: f64, unit: &str, limit: f64) {
    note(fault, what, value, unit, Some(limit));
}

/// Notes a duration, in milliseconds, that must not be above a limit of as many.
pub fn most_ms(fault: &str, what: &str, value: Duration, limit: f64) {
    most(fault, what, ms(value), "ms", limit);
}

fn note(fault: &str, what: &str, value: f64, unit: &str, limit: Option<f64>) {
    let value = (value * 100.0).round() / 100.0;
    let required = limit.map(|limit| format!(", at most {limit} {unit}")).unwrap_or_default();
    println!("{fault}: {what}: {value} {unit}{required}");
    let Some(path) = std::env::var_os(FILE) else { return };
    let line = json!({ "fault": fault, "what": what, "value": value, "unit": unit, "most": limit });
    let file = std::fs::File::options().append(true).create(true).open(path);
    file.and_then(|mut file| writeln!(file, "{line}")).expect("the file for the figures");
}

/// Milliseconds.
#[must_use]
pub fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The value below which so many of a hundred lie.
///
/// # Panics
/// Without any value.
#[must_use]
pub fn percentile(values: &[Duration], percent: usize) -> Duration {
    let mut values = values.to_vec();
    values.sort_unstable();
    values[(values.len() * percent / 100).min(values.len() - 1)]
}
