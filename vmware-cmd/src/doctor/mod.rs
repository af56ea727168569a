//! `doctor`: looks at everything that the server needs on this machine, says what is wrong, and prints
//! the command that repairs it.
//!
//! ```text
//!   ok     certificate   valid until 2036-11-19T09:21:10Z
//!   warn   descriptors   vmserverd may open 1024 files: one per session and several per machine
//!                        repair: systemctl edit vmserverd   and there LimitNOFILE=65536
//!   fail   firmware      /usr/share/seabios/bios.bin is missing: no machine can start
//!                        repair: apt-get install seabios
//! ```
//!
//! Nothing is changed. The status is 1 when a check fails; a warning is no failure. With `-H` only what
//! can be seen from here is checked: that the other machine answers.

mod checks;
mod host;

use serde_json::json;

use crate::failure::Failure;
use crate::grammar::Options;
use crate::output::Output;
use crate::text::harmless;

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Ok,
    /// It works, but not as well as it could.
    Warn,
    /// Something will not work.
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Ok => "ok",
            Verdict::Warn => "warn",
            Verdict::Fail => "fail",
        }
    }
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: &'static str,
    verdict: Verdict,
    text: String,
    /// The command that repairs it.
    repair: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, text: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Ok, text: text.into(), repair: None }
    }

    fn warn(check: &'static str, text: impl Into<String>, repair: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Warn, text: text.into(), repair: Some(repair.into()) }
    }

    fn fail(check: &'static str, text: impl Into<String>, repair: impl Into<String>) -> Self {
        Finding { check, verdict: Verdict::Fail, text: text.into(), repair: Some(repair.into()) }
    }
}

/// Checks everything. False when a check has failed.
pub(crate) fn run(options: &Options, words: &[String], output: &mut Output) -> Result<bool, Failure> {
    if !words.is_empty() {
        return Err(Failure::usage("doctor takes no argument"));
    }
    let findings = match &options.host {
        Some(_) => checks::connection(options)?,
        None => {
            let host = host::Host::look(options)?;
            let mut findings = checks::all(&host);
            findings.extend(checks::connection(options)?);
            findings
        }
    };
    let good = findings.iter().all(|finding| finding.verdict != Verdict::Fail);
    if output.json {
        let all = findings.iter().map(|finding| {
            let Finding { check, verdict, text, repair } = finding;
            json!({ "check": check, "verdict": verdict.word(), "text": text, "repair": repair })
        });
        output.document(&json!({ "ok": good, "checks": all.collect::<Vec<_>>() }));
        return Ok(good);
    }
    for Finding { check, verdict, text, repair } in &findings {
        output.line(&format!("{:<5}  {check:<12}  {}", verdict.word(), harmless(text)));
        if let Some(repair) = repair {
            output.line(&format!("{:21}repair: {}", "", harmless(repair)));
        }
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    output.line(&format!(
        "{} checks: {} failed, {} warnings",
        findings.len(),
        count(Verdict::Fail),
        count(Verdict::Warn)
    ));
    Ok(good)
}
