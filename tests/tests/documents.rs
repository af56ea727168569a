//! The documents that promise something name files, fuzz targets and mechanisms that exist.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tests::programs::repository;

/// Where promises are tied to tests.
const DOCUMENTS: [&str; 5] = [
    "CONTRIBUTING.md",
    "SPECIFICATION.md",
    "docs/threat-model.md",
    "docs/cve-ledger.md",
    "docs/reliability.md",
];

fn read(document: &str) -> String {
    std::fs::read_to_string(repository().join(document)).unwrap_or_else(|error| panic!("{document}: {error}"))
}

/// The parts of a text between backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// Whether a text is meant as a path of the repository: a source file, or a directory.
fn is_path(text: &str) -> bool {
    let plain = text.chars().all(|one| one.is_ascii_alphanumeric() || "/._-".contains(one));
    plain && !text.starts_with('/') && [".rs", ".c", ".toml", "/"].iter().any(|end| text.ends_with(end))
}

/// Where a name of a line leads to: from the top, or from the directory of the name before it, or one above.
fn find(name: &str, before: &Path) -> Option<PathBuf> {
    let places = before.ancestors().chain([Path::new("")]);
    places.map(|place| place.join(name)).find(|path| repository().join(path).exists())
}

#[test]
fn what_a_promise_names_exists() {
    let (mut looked, mut missing) = (0, Vec::new());
    for document in DOCUMENTS {
        for line in read(document).lines() {
            let mut before = PathBuf::new();
            for name in quoted(line).filter(|name| is_path(name)) {
                looked += 1;
                match find(name, &before) {
                    Some(path) if path.extension().is_none() => before = path,
                    Some(path) => before = path.parent().unwrap_or(Path::new("")).to_owned(),
                    None => missing.push(format!("{document}: {name}")),
                }
            }
            let cells =
                line.split("fuzz target").skip(1).filter_map(|rest| rest.split(['|', ';', '.']).next());
            for target in cells.flat_map(quoted) {
                looked += 1;
                if !repository().join(format!("fuzz/fuzz_targets/{target}.rs")).exists() {
                    missing.push(format!("{document}: fuzz target {target}"));
                }
            }
        }
    }
    assert!(missing.is_empty(), "named and not there: {missing:#?}");
    assert!(looked > 100, "only {looked} names were found");
}

/// Each cell of actor by asset names a mechanism, and each mechanism has a row with its test.
#[test]
fn every_cell_of_the_threat_model_has_its_mechanism() {
    let text = read("docs/threat-model.md");
    let tables: Vec<Vec<&str>> = text
        .split("\n\n")
        .filter(|block| block.starts_with('|'))
        .map(|block| block.lines().skip(2).collect())
        .collect();
    let [cells, marks] = &tables[..] else { panic!("two tables") };
    let columns =
        |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
    let known: BTreeSet<String> = marks
        .iter()
        .map(|row| {
            let row = columns(row);
            assert!(row.len() == 4 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
            assert!(row[3].contains("test") || row[3].contains('`'), "no test: {row:?}");
            row[0].clone()
        })
        .collect();
    for row in cells {
        let row = columns(row);
        assert_eq!(row.len(), 7, "{row:?}");
        for cell in &row[1..] {
            let words = cell.split(|one: char| !one.is_ascii_alphanumeric());
            let is_mark = |word: &&str| {
                word.len() > 1
                    && word.starts_with(['A', 'O', 'S', 'V', 'C'])
                    && word[1..].bytes().all(|one| one.is_ascii_digit())
            };
            let named: Vec<&str> = words.filter(is_mark).collect();
            assert!(!named.is_empty(), "no mechanism: {} / {cell}", row[0]);
            assert!(named.iter().all(|mark| known.contains(*mark)), "no such mechanism: {named:?}");
        }
    }
}
