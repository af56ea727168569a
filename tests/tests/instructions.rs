//! What a request costs the session process, in instructions, may not grow unseen.
//!
//! Counted by callgrind, of the programs that are installed, so it does not matter what else the machine does.
//! How it is counted, and how a figure is recorded anew: xtask/src/bench/instructions.rs.

use std::process::{Command, Stdio};

use tests::programs;

/// P20 and P21 against docs/performance/instructions.json.
#[test]
fn a_request_costs_what_is_recorded() {
    // Without optimisation it costs several times as much, and says nothing.
    if !programs::directory().ends_with("release") {
        tests::skip::skipped("instructions per request", "the binaries are no release build");
        return;
    }
    let mut gate = Command::new(programs::directory().join("xtask"));
    gate.args(["bench", "--gate", "P20", "P21", "--bin-dir"]).arg(programs::directory());
    gate.env("CARGO_MANIFEST_DIR", programs::repository().join("xtask")).stdin(Stdio::null());
    let output = gate.output().unwrap();
    let (said, why) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr).into_owned());
    assert!(output.status.success(), "{said}{why}");
    // What cannot be counted here has been said so; the list of it is this process's.
    for line in why.lines().filter_map(|line| line.strip_prefix("SKIPPED ")) {
        if let Some((what, reason)) = line.split_once(": ").filter(|(what, _)| *what != "the peer") {
            tests::skip::skipped(what, reason);
        }
    }
    assert!(said.matches(": PASS").count() == 3 || why.contains("SKIPPED P20"), "{said}{why}");
}
