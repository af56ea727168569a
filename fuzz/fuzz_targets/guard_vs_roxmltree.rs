//! The guard against readers that others wrote: what it accepts is the same document to our cursor,
//! to quick-xml and to roxmltree, and never a document that takes roxmltree long.
#![no_main]

#[path = "../../ops/tests/readers/mod.rs"]
mod readers;

use libfuzzer_sys::fuzz_target;
use ops::{Document, Limits, guard};
use rustix::time::{ClockId, clock_gettime};

/// Any root, so that the search is not held up by one word.
static ANY_ROOT: Limits = Limits { root: None, ..guard::EXEC };

/// CPU time of this thread in milliseconds: other processes do not count.
fn cpu() -> i64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Ok(document) = Document::check_with(text, &ANY_ROOT) else {
        return;
    };
    let start = cpu();
    let parsed = roxmltree::Document::parse(document.as_str()).is_ok();
    // The target is 5 ms; the sanitizer makes everything about ten times slower.
    assert!(cpu() - start <= 50, "{} ms", cpu() - start);
    assert!(parsed, "roxmltree refuses it");
    if let Err(difference) = readers::compare(document) {
        panic!("{difference}");
    }
});
