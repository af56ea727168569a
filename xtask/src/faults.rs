//! `cargo xtask faults [F1 F3 …]`: the fault tests at full length, and the page of their figures.
//!
//! ```text
//!   tests/faults/f03_….rs ── VMSERVERD_FAULTS=full ──▶ JSON lines in target/faults/F3.jsonl
//!                                                            │
//!      one line per id on standard output  ◀─────────────────┼──▶ docs/reliability.md, between the marks
//! ```
//!
//! A row of the page is what its last run measured; faults that were not asked for keep theirs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Instant;

use crate::Result;
use crate::workspace::{Binaries, build_release, cargo, root};

/// The faults, and what each must show in a few words.
const FAULTS: [(&str, &str); 12] = [
    ("F1", "SIGKILL of the core under registrations"),
    ("F2", "SIGKILL of the gateway"),
    ("F3", "SIGKILL of a machine"),
    ("F4", "SIGKILL of a session process in a copy"),
    ("F5", "restart of the core under running machines"),
    ("F6", "no space, EIO, no descriptors, no memory, read-only"),
    ("F7", "power cut at every flush"),
    ("F8", "clock that jumps"),
    ("F9", "PAM modules that sleep, crash or print"),
    ("F10", "flood of connections"),
    ("F11", "soak"),
    ("F12", "new programs over a live system"),
];

/// Where the generated part of the page begins and ends.
const MARKS: [&str; 2] = ["<!-- figures: begin -->", "<!-- figures: end -->"];

/// Arguments of `xtask faults`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Faults to run, F1 to F12 [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// How long the soak (F11) lasts
    #[arg(long, value_name = "N", default_value_t = 60, conflicts_with = "hours")]
    minutes: u64,
    /// The same in hours
    #[arg(long, value_name = "N")]
    hours: Option<u64>,
    /// As long as in CI, without writing the page
    #[arg(long)]
    short: bool,
}

/// A line that a test has written.
#[derive(serde::Deserialize)]
struct Figure {
    what: String,
    value: f64,
    unit: String,
    /// Not above this.
    most: Option<f64>,
}

impl Figure {
    fn held(&self) -> bool {
        self.most.is_none_or(|most| self.value <= most)
    }

    fn text(&self) -> String {
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        match self.most {
            Some(most) => format!("{}: {}{unit} (at most {most})", self.what, self.value),
            None => format!("{}: {}{unit}", self.what, self.value),
        }
    }
}

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    let known = |id: &String| FAULTS.iter().any(|(one, _)| one.eq_ignore_ascii_case(id));
    if let Some(unknown) = arguments.ids.iter().find(|id| !known(id)) {
        return Err(format!("there is no fault {unknown}; there are F1 to F12"));
    }
    let asked =
        |id: &str| arguments.ids.is_empty() || arguments.ids.iter().any(|one| one.eq_ignore_ascii_case(id));
    let binaries = Binaries::build()?;
    build_release(&["xtask", "vmcontrol"])?;
    let bin_dir = binaries.authd.parent().unwrap_or(Path::new("."));
    let (mut failed, mut left_out) = (Vec::new(), Vec::new());
    let mut rows = BTreeMap::new();
    for (number, (id, what)) in FAULTS.iter().enumerate().filter(|(_, (id, _))| asked(id)) {
        let start = Instant::now();
        let (passed, figures) = run(number + 1, id, bin_dir, arguments)?;
        let verdict = Verdict::of(passed, &figures);
        let texts: Vec<String> = figures.iter().map(Figure::text).collect();
        println!(
            "{id:<4} {:<8} {what} ({:.0} s): {}",
            verdict.word(),
            start.elapsed().as_secs_f64(),
            texts.join("; ")
        );
        match verdict {
            Verdict::Held => {}
            Verdict::LeftOut => left_out.push(*id),
            Verdict::Failed | Verdict::Missed => failed.push(*id),
        }
        if !figures.is_empty() {
            rows.insert(number, format!("| {id} | {what} | {} | {} |", texts.join("<br>"), verdict.word()));
        }
    }
    if !arguments.short {
        write_page(&rows)?;
    }
    let said = [("not held", failed), ("left out, nothing was measured", left_out)];
    let said = said.iter().filter(|(_, ids)| !ids.is_empty());
    let said: Vec<String> = said.map(|(what, ids)| format!("{what}: {}", ids.join(", "))).collect();
    if said.is_empty() { Ok(()) } else { Err(said.join("; ")) }
}

/// How a fault came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Held,
    /// A figure is above what is required.
    Missed,
    Failed,
    /// The tests passed and measured nothing: what they need is not here. That is no success, and the page keeps the
    /// row that it has.
    LeftOut,
}

impl Verdict {
    fn of(passed: bool, figures: &[Figure]) -> Self {
        match (passed, figures) {
            (false, _) => Verdict::Failed,
            (true, []) => Verdict::LeftOut,
            (true, figures) if figures.iter().all(Figure::held) => Verdict::Held,
            (true, _) => Verdict::Missed,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Verdict::Held => "held",
            Verdict::Missed => "MISSED",
            Verdict::Failed => "FAILED",
            Verdict::LeftOut => "LEFT OUT",
        }
    }
}

/// Runs the tests of one fault; returns whether they passed, and what they measured.
fn run(number: usize, id: &str, bin_dir: &Path, arguments: &Arguments) -> Result<(bool, Vec<Figure>)> {
    let directory = root().join("target/faults");
    let said = |error: std::io::Error| format!("cannot use {}: {error}", directory.display());
    std::fs::create_dir_all(&directory).map_err(said)?;
    let (lines, log) = (directory.join(format!("{id}.jsonl")), directory.join(format!("{id}.log")));
    let _ = std::fs::remove_file(&lines);
    let output = std::fs::File::create(&log).map_err(said)?;
    let module = format!("f{number:02}_");
    let mut command =
        cargo(&["test", "--release", "--quiet", "--package", "tests", "--test", "faults", "--"]);
    command.args([module.as_str(), "--test-threads=1", "--nocapture"]);
    command.env("VMSERVERD_BIN_DIR", bin_dir).env("VMSERVERD_FIGURES", &lines);
    if !arguments.short {
        let minutes = arguments.hours.map_or(arguments.minutes, |hours| hours * 60);
        command.env("VMSERVERD_FAULTS", "full").env("VMSERVERD_SOAK_SECONDS", (minutes * 60).to_string());
    }
    let errors = output.try_clone().map_err(said)?;
    let status = command.stdin(Stdio::null()).stdout(output).stderr(errors).status();
    let status = status.map_err(|error| format!("cannot run cargo test: {error}"))?;
    if !status.success() {
        eprintln!("xtask: {id} failed; what was said is in {}", log.display());
    }
    let text = std::fs::read_to_string(&lines).unwrap_or_default();
    let figures: serde_json::Result<Vec<Figure>> = text.lines().map(serde_json::from_str).collect();
    Ok((status.success(), figures.map_err(|error| format!("{}: {error}", lines.display()))?))
}

/// Puts rows into the page, in the place of what it had of the same faults.
fn write_page(rows: &BTreeMap<usize, String>) -> Result<()> {
    let path = root().join("docs/reliability.md");
    let said = |error: std::io::Error| format!("cannot use {}: {error}", path.display());
    let page = std::fs::read_to_string(&path).map_err(said)?;
    let page = with_rows(&page, rows).ok_or_else(|| format!("{} has lost its marks", path.display()))?;
    std::fs::write(&path, page).map_err(said)
}

fn with_rows(page: &str, rows: &BTreeMap<usize, String>) -> Option<String> {
    let [begin, end] = MARKS;
    let (head, rest) = page.split_once(begin)?;
    let (old, tail) = rest.split_once(end)?;
    let mut table = String::from("\n| id | fault | measured | verdict |\n| --- | --- | --- | --- |\n");
    for (number, (id, _)) in FAULTS.iter().enumerate() {
        let kept = old.lines().find(|line| line.starts_with(&format!("| {id} |")));
        if let Some(row) = rows.get(&number).map(String::as_str).or(kept) {
            let _ = writeln!(table, "{row}");
        }
    }
    Some(format!("{head}{begin}\n{table}\n{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_a_run_replace_their_own_and_no_others() {
        let page = format!("head\n{}\n{}\ntail\n", MARKS[0], MARKS[1]);
        let row =
            |number: usize, text: &str| (number, format!("| {} | x | {text} | held |", FAULTS[number].0));
        let first = with_rows(&page, &BTreeMap::from([row(2, "old"), row(9, "kept")])).unwrap();
        let second = with_rows(&first, &BTreeMap::from([row(2, "new"), row(0, "first")])).unwrap();
        assert!(second.starts_with("head\n") && second.ends_with("\ntail\n"), "{second}");
        let places: Vec<_> = ["first", "new", "kept"].iter().map(|text| second.find(text).unwrap()).collect();
        assert!(places.is_sorted() && !second.contains("old"), "{second}");
        assert!(with_rows("no marks", &BTreeMap::new()).is_none());
    }

    #[test]
    fn what_measured_nothing_has_not_held() {
        let figure = |value| Figure { what: "x".into(), value, unit: String::new(), most: Some(1.0) };
        assert_eq!(Verdict::of(true, &[]), Verdict::LeftOut);
        assert_eq!(Verdict::of(true, &[figure(1.0)]), Verdict::Held);
        assert_eq!(Verdict::of(true, &[figure(1.0), figure(2.0)]), Verdict::Missed);
        assert_eq!(Verdict::of(false, &[figure(1.0)]), Verdict::Failed);
    }

    #[test]
    fn the_page_has_its_marks() {
        let page = std::fs::read_to_string(root().join("docs/reliability.md")).unwrap();
        assert!(with_rows(&page, &BTreeMap::new()).is_some());
    }
}
