//! Figures as a monitoring system reads them: through curl, and Prometheus' own parser.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::account::output;
use crate::skip::skipped;

/// Reads OpenMetrics text from standard input, and prints each sample as its name, its labels in order, and
/// its value.
const PARSER: &str = r#"
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    if not family.documentation:
        sys.exit("no HELP: " + family.name)
    for sample in family.samples:
        labels = ",".join('%s=%s' % pair for pair in sorted(sample.labels.items()))
        print("%s{%s}\t%r" % (sample.name, labels, float(sample.value)))
"#;

/// The interpreter that Debian's packages are for; another one may stand before it in the path.
const PYTHON: &str = "/usr/bin/python3";

/// Values by name and labels, such as `vmserverd_tasks{state=done}`.
pub type Samples = BTreeMap<String, f64>;

/// Whether what is needed to read figures is installed; if not, says that the test is left out.
#[must_use]
pub fn need_parser(what: &str) -> bool {
    let import = ["-c", "import prometheus_client.openmetrics.parser"];
    let found = Command::new(PYTHON).args(import).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    if !found {
        skipped(what, "python3-prometheus-client is not installed");
    }
    found && crate::skip::need_program(what, "curl")
}

/// Parses a text as Prometheus does.
///
/// # Panics
/// When it is no OpenMetrics.
#[must_use]
pub fn parse(text: &str) -> Samples {
    let mut command = Command::new(PYTHON);
    command.args(["-c", PARSER]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python3");
    child.stdin.take().expect("piped").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("a child");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}\n{text}");
    let samples = String::from_utf8(output.stdout).expect("text");
    let pairs = samples.lines().map(|line| {
        let (name, value) = line.split_once('\t').expect("a tab");
        (name.to_owned(), value.parse().expect("a number"))
    });
    pairs.collect()
}

/// What curl prints with these arguments: head and body.
#[must_use]
pub fn curl(arguments: &[&str]) -> String {
    output(Command::new("curl").args(["-sS", "-i", "--max-time", "10"]).args(arguments))
}

/// Reads the figures from a unix socket, and looks at what stands around them.
///
/// # Panics
/// When the answer is not as it should be.
#[must_use]
pub fn scrape(socket: &Path) -> String {
    let reply = curl(&["--unix-socket", &socket.to_string_lossy(), "http://localhost/metrics"]);
    body_of(&reply)
}

/// The text of a reply with figures.
///
/// # Panics
/// When it is another one.
#[must_use]
pub fn body_of(reply: &str) -> String {
    let (head, body) = reply.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    let kind = "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert!(head.to_ascii_lowercase().lines().any(|line| line == kind), "{head}");
    assert!(body.ends_with("# EOF\n"), "{body}");
    body.to_owned()
}
