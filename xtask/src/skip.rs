//! What was not done, and why: said at once, and again at the end of `xtask test`.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

static SKIPPED: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Says that something is left out.
pub fn skipped(what: &str, why: &str) {
    let line = format!("SKIPPED {what}: {why}");
    eprintln!("{line}");
    SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).push(line);
}

/// Takes over the lines that tests wrote into a file; they have been said already.
pub fn adopt(path: &Path) {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).extend(text.lines().map(str::to_owned));
}

/// All lines, in the order in which they came.
pub fn all() -> Vec<String> {
    SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}
