//! `xtask bench --gate`: what must hold before a change lands, and `--record`.
//!
//! ```text
//!   P20 P21      instructions, beside the recorded ones     exact: part of the tests
//!   P1 P3 P8     relaxed lines, beside libvirt and cp       times: for a machine that does nothing else
//! ```
//!
//! See docs/decisions/0034: no test measures time.

use crate::Result;
use crate::bench::{Bench, calls, facts, files, instructions};
use crate::skip::skipped;

/// The relaxed lines: at least or at most so many times the peer.
const RELAXED: [(&str, f64); 3] = [("P1", 2.0), ("P3", 1.0), ("P8", 1.3)];

/// Figures that are counted, not timed.
const COUNTED: [&str; 2] = ["P20", "P21"];

/// Checks all gates, or those of some figures.
///
/// # Errors
/// When one is missed, or cannot be measured.
pub fn run(bench: &mut Bench, ids: &[String]) -> Result<()> {
    let wanted = |id: &str| ids.is_empty() || ids.iter().any(|name| name.eq_ignore_ascii_case(id));
    let mut missed = Vec::new();
    if COUNTED.iter().any(|id| wanted(id)) {
        match instructions::missing() {
            Some(why) => skipped("P20 and P21 in instructions", &why),
            None => {
                let (lines, well) = instructions::count(bench.bin_dir(), bench.scratch())?.gate()?;
                lines.iter().for_each(|line| println!("{line}"));
                if !well {
                    missed.push("instructions");
                }
            }
        }
    }
    let mut outcomes = Vec::new();
    if wanted("P1") || wanted("P3") {
        outcomes.extend(calls::local(bench)?);
    }
    if wanted("P8") {
        outcomes.extend(files::dense(bench)?);
    }
    for outcome in outcomes {
        let id = outcome.target.id;
        let Some((id, line)) = RELAXED.iter().copied().find(|(name, _)| *name == id && wanted(id)) else {
            continue;
        };
        let Some(ratio) = outcome.to_peer() else {
            skipped(id, "there is no peer");
            continue;
        };
        let good = if outcome.target.more { ratio >= line } else { ratio <= line };
        let (sign, verdict) =
            (if outcome.target.more { ">=" } else { "<=" }, if good { "PASS" } else { "MISS" });
        println!("{id} {ratio:.2} x peer, gate {sign} {line}: {verdict}");
        if !good {
            missed.push(id);
        }
    }
    if missed.is_empty() { Ok(()) } else { Err(format!("the gate is closed: {}", missed.join(" "))) }
}

/// Records what a request costs now.
///
/// # Errors
/// When it cannot be counted or written.
pub fn record(bench: &Bench, reason: &str) -> Result<()> {
    if let Some(why) = instructions::missing() {
        return Err(format!("nothing to record: {why}"));
    }
    if reason.trim().is_empty() {
        return Err("--record wants the reason why the cost has changed".to_owned());
    }
    let counts = instructions::count(bench.bin_dir(), bench.scratch())?;
    counts.record(reason.trim())?;
    println!("recorded with {}: {}", facts::rustc(), counts.describe());
    Ok(())
}
