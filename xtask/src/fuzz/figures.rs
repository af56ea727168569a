//! What the runs have come to, and its place in `docs/fuzzing.md`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use link::product_config::replace_file;
use serde_json::{Value, json};

use super::TEXT;
use crate::Result;
use crate::workspace::root;

/// The page, from the root of the repository.
const PAGE: &str = "docs/fuzzing.md";

/// One run of one target.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Name of the target.
    pub target: String,
    /// When it began, Unix seconds.
    pub unix: u64,
    /// Processor time, in seconds.
    pub processor: f64,
    /// Inputs run.
    pub executions: u64,
    /// Edges of the control flow that were reached.
    pub edges: u64,
    /// The same told apart by how often.
    pub features: u64,
    /// Inputs found so far that reach something new.
    pub corpus: u64,
    /// It ended with a finding.
    pub failed: bool,
}

/// Where the figures of all runs on this machine are, a line each.
fn record() -> PathBuf {
    root().join("fuzz/target/runs.jsonl")
}

impl Row {
    /// Appends the row to the record.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn record(&self) -> Result<()> {
        let path = record();
        let row = json!({
            "target": self.target, "unix": self.unix, "processor": self.processor,
            "executions": self.executions, "edges": self.edges, "features": self.features,
            "corpus": self.corpus, "failed": self.failed,
        });
        let file = std::fs::File::options().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| writeln!(file, "{row}"));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn parse(line: &str) -> Option<Row> {
        let value: Value = serde_json::from_str(line).ok()?;
        let number = |name: &str| value.get(name).and_then(Value::as_u64);
        Some(Row {
            target: value.get("target")?.as_str()?.to_owned(),
            unix: number("unix")?,
            processor: value.get("processor")?.as_f64()?,
            executions: number("executions")?,
            edges: number("edges")?,
            features: number("features")?,
            corpus: number("corpus")?,
            failed: value.get("failed")?.as_bool()?,
        })
    }
}

/// Sums of many runs.
#[derive(Debug, Default)]
pub struct Figures {
    targets: BTreeMap<String, Sum>,
}

#[derive(Debug, Default)]
struct Sum {
    processor: f64,
    executions: u64,
    edges: u64,
    features: u64,
    corpus: u64,
    failures: u64,
}

impl Figures {
    /// Sums up: times and executions are added, of the rest the most that was reached counts.
    pub fn sum(rows: &[Row]) -> Self {
        let mut figures = Figures::default();
        for row in rows {
            let sum = figures.targets.entry(row.target.clone()).or_default();
            sum.processor += row.processor;
            sum.executions += row.executions;
            sum.edges = sum.edges.max(row.edges);
            sum.features = sum.features.max(row.features);
            sum.corpus = sum.corpus.max(row.corpus);
            sum.failures += u64::from(row.failed);
        }
        figures
    }

    /// The table, in Markdown.
    pub fn table(&self) -> String {
        let mut table = String::from(
            "| target | input | processor time | executions | a second | edges | features | found inputs | failed runs |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
        );
        let mut all = Sum::default();
        let mut line = |name: &str, kind: &str, sum: &Sum, reached: bool| {
            let rate = sum.executions as f64 / sum.processor.max(0.01);
            let reach = |number: u64| if reached { grouped(number) } else { String::new() };
            table += &format!(
                "| {name} | {kind} | {} | {} | {} | {} | {} | {} | {} |\n",
                duration(sum.processor),
                grouped(sum.executions),
                grouped(rate.round() as u64),
                reach(sum.edges),
                reach(sum.features),
                reach(sum.corpus),
                sum.failures,
            );
        };
        for (name, sum) in &self.targets {
            let kind = if TEXT.contains(&name.as_str()) { "text" } else { "state" };
            line(&format!("`{name}`"), kind, sum, true);
            all.processor += sum.processor;
            all.executions += sum.executions;
            all.failures += sum.failures;
        }
        line("all", "", &all, false);
        table
    }
}

/// `1 234 567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(" ")
}

/// `1 h 02 min`, `3 min 04 s`
fn duration(seconds: f64) -> String {
    let seconds = seconds.round() as u64;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
        (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
    }
}

/// Writes the sums of these files into the page.
///
/// # Errors
/// When a file cannot be read, has no figures, or the page cannot be written.
pub fn report(files: &[PathBuf]) -> Result<()> {
    let own = [record()];
    let files = if files.is_empty() { &own[..] } else { files };
    let mut rows = Vec::new();
    for path in files {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        for (line, number) in text.lines().zip(1..) {
            let row =
                Row::parse(line).ok_or_else(|| format!("{}:{number} has no figures", path.display()))?;
            rows.push(row);
        }
    }
    let table = Figures::sum(&rows).table();
    println!("{table}");
    write("figures", &table)
}

/// Puts a text between two marks of the page.
///
/// # Errors
/// When the page has no such marks, or cannot be written.
pub fn write(mark: &str, text: &str) -> Result<()> {
    let path = root().join(PAGE);
    let said = |error: std::io::Error| format!("cannot use {}: {error}", path.display());
    let page = std::fs::read_to_string(&path).map_err(said)?;
    let page = replaced(&page, mark, text).ok_or_else(|| format!("{PAGE} has no place for {mark}"))?;
    replace_file(Path::new(&path), page.as_bytes(), 0o644).map_err(|error| error.to_string())
}

fn replaced(page: &str, mark: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- {mark}: begin -->\n"), format!("<!-- {mark}: end -->"));
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(target: &str, processor: f64, executions: u64, edges: u64) -> Row {
        let target = target.to_owned();
        Row {
            target,
            unix: 1,
            processor,
            executions,
            edges,
            features: edges + 1,
            corpus: 3,
            failed: edges == 9,
        }
    }

    #[test]
    fn runs_are_summed_by_target() {
        let rows = [
            row("vmx_file", 10.0, 1000, 5),
            row("ata_disk", 3.0, 7, 9),
            row("vmx_file", 3650.0, 2_000_000, 4),
        ];
        let table = Figures::sum(&rows).table();
        let lines: Vec<&str> = table.lines().skip(2).collect();
        assert_eq!(
            lines,
            [
                "| `ata_disk` | state | 0 min 03 s | 7 | 2 | 9 | 10 | 3 | 1 |",
                "| `vmx_file` | text | 1 h 01 min | 2 001 000 | 547 | 5 | 6 | 3 | 0 |",
                "| all |  | 1 h 01 min | 2 001 007 | 546 |  |  |  | 1 |",
            ]
        );
    }

    #[test]
    fn a_row_is_read_as_it_was_written() {
        let line = r#"{"target":"a","unix":1,"processor":1.5,"executions":2,"edges":3,"features":4,"corpus":5,"failed":true,"more":1}"#;
        let row = Row::parse(line).unwrap();
        assert_eq!((row.processor, row.corpus, row.failed), (1.5, 5, true));
        assert_eq!(Row::parse("{\"target\":\"a\"}"), None);
    }

    #[test]
    fn a_text_replaces_what_is_between_its_marks() {
        let page = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n";
        let new = replaced(page, "x", "new\n").unwrap();
        assert_eq!(new, "a\n<!-- x: begin -->\n\nnew\n\n<!-- x: end -->\nb\n");
        assert_eq!(replaced(&new, "x", "new").unwrap(), new);
        assert_eq!(replaced(page, "y", ""), None);
    }
}
