//! `docs/performance/README.md`: the table and the plots between two marks, from `figures.json`; the prose around
//! them is written by hand and stays.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::Result;
use crate::bench::report::{number, two};
use crate::bench::store::{Store, directory};
use crate::bench::{ids, plots};

/// What is between these lines is made here.
const BEGIN: &str = "<!-- begin: written by `cargo xtask bench --page` -->\n";
const END: &str = "<!-- end -->\n";

/// Writes the page's table and the plots.
///
/// # Errors
/// When a file cannot be read or written, or the page has lost its marks.
pub fn write(store: &Store) -> Result<()> {
    let said = |path: &std::path::Path, error: std::io::Error| format!("{}: {error}", path.display());
    let path = directory().join("README.md");
    let page = std::fs::read_to_string(&path).map_err(|error| said(&path, error))?;
    let files = [
        ("README.md", insert(&page, &tables(store))?),
        ("lines.svg", plots::lines(store)),
        ("sides.svg", plots::sides(store)),
    ];
    for (name, text) in files {
        let path = directory().join(name);
        std::fs::write(&path, text).map_err(|error| said(&path, error))?;
    }
    Ok(())
}

/// The page with other tables.
fn insert(page: &str, tables: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or_else(|| format!("README.md lacks the lines {BEGIN:?} and {END:?}"))?;
    Ok(format!("{before}{BEGIN}\n{tables}\n{END}{after}"))
}

/// The plots, the results, and where they were measured.
fn tables(store: &Store) -> String {
    let mut text = String::from(
        "![each figure beside its pass line](lines.svg)\n\n![peer and bound beside ours](sides.svg)\n\n\
         | id | what | ours | peer | bound | compared | verdict | run |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    let mut runs: BTreeMap<String, usize> = BTreeMap::new();
    for id in ids() {
        let Some(figure) = store.get(id) else {
            text += &format!("| {id} | | not measured | | | | | |\n");
            continue;
        };
        let run = run_of(figure);
        let next = runs.len() + 1;
        let run = *runs.entry(run).or_insert(next);
        let unit = field(figure, "unit");
        let compared: Vec<String> =
            lines_of(figure).iter().filter_map(|line| compared(line, figure)).collect();
        text += &format!(
            "| {id} | {} | {} {unit} | {} | {} | {} | {} | {run} |\n",
            field(figure, "what"),
            side(figure, "ours"),
            side(figure, "peer"),
            side(figure, "bound"),
            compared.join("; "),
            field(figure, "verdict"),
        );
    }
    text += "\nA ratio is that of the medians; behind it are the lowest and highest of a single round.\n\n";
    let mut runs: Vec<(String, usize)> = runs.into_iter().collect();
    runs.sort_by_key(|(_, number)| *number);
    for (run, number) in runs {
        text += &format!("* Run {number}: {run}.\n");
    }
    text += "\nNotes of the bench itself:\n\n";
    for id in ids() {
        let notes = store.get(id).and_then(|figure| figure.get("notes")?.as_array());
        let notes: Vec<&str> = notes.into_iter().flatten().filter_map(Value::as_str).collect();
        if !notes.is_empty() {
            text += &format!("* {id}: {}.\n", notes.join("; "));
        }
    }
    text
}

/// A field that is a text.
pub fn field<'a>(figure: &'a Value, name: &str) -> &'a str {
    figure.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// The median of a side.
pub fn median(figure: &Value, name: &str) -> Option<f64> {
    figure.get(name)?.get("median")?.as_f64()
}

/// What the figure is compared with.
pub fn lines_of(figure: &Value) -> &[Value] {
    figure.get("lines").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn digits(figure: &Value) -> usize {
    figure.get("digits").and_then(Value::as_u64).and_then(|digits| digits.try_into().ok()).unwrap_or(0)
}

fn side(figure: &Value, name: &str) -> String {
    match median(figure, name) {
        Some(median) => number(median, digits(figure)),
        None if figure.get(name).is_some_and(|side| side.get("skipped").is_some()) => {
            "not measured".to_owned()
        }
        None => "-".to_owned(),
    }
}

/// `5.75 x peer (5.49 to 6.21), line 4, stretch 5.5`
fn compared(line: &Value, figure: &Value) -> Option<String> {
    let get = |name: &str| line.get(name).and_then(Value::as_f64);
    let (against, ratio) = (field(line, "against"), get("ratio")?);
    let limit = |limit: f64| if against == "number" { number(limit, digits(figure)) } else { two(limit) };
    let mut parts = Vec::new();
    if against != "number" {
        parts.push(format!("{ratio:.2} x {against} ({:.2} to {:.2})", get("low")?, get("high")?));
    }
    parts.extend(get("pass").map(|pass| format!("line {}", limit(pass))));
    parts.extend(get("stretch").map(|stretch| format!("stretch {}", limit(stretch))));
    Some(parts.join(", "))
}

/// Day, machine and length of a run, as a text.
fn run_of(figure: &Value) -> String {
    let run = figure.get("run").unwrap_or(&Value::Null);
    let machine = run.get("machine").unwrap_or(&Value::Null);
    let count = |value: &Value, name: &str| value.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    format!(
        "{}, commit {}, {} CPUs ({}), {} GiB, Linux {}, {}, {}; {} rounds, phases of {} s; load before it {}",
        field(machine, "date"),
        field(machine, "commit"),
        count(machine, "cpus"),
        field(machine, "processor"),
        count(machine, "memory_gib"),
        field(machine, "kernel"),
        field(machine, "rustc"),
        field(machine, "libc"),
        count(run, "rounds"),
        count(run, "seconds"),
        field(machine, "load_before"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let page = format!("before\n{BEGIN}old\n{END}after\n");
        assert_eq!(insert(&page, "new").unwrap(), format!("before\n{BEGIN}\nnew\n{END}after\n"));
        assert!(insert("no marks", "new").is_err());
    }

    #[test]
    fn the_page_in_the_tree_shows_the_figures_in_the_tree() {
        let store = Store::load().unwrap();
        let path = directory().join("README.md");
        let page = std::fs::read_to_string(path).unwrap();
        assert_eq!(insert(&page, &tables(&store)).unwrap(), page, "run cargo xtask bench --page");
        for (name, text) in [("lines.svg", plots::lines(&store)), ("sides.svg", plots::sides(&store))] {
            let written = std::fs::read_to_string(directory().join(name)).unwrap();
            assert!(written == text, "{name} is an old one: run cargo xtask bench --page");
        }
    }
}
