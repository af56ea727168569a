//! `xtask gen`: files that are walks over the operation table.
//!
//! `docs/operations/` and the fuzz dictionary are checked in, so that they can be read without
//! building anything, and `gen --check` keeps them true. The results and examples beside the pages are
//! not made here: the test `all_operations` makes them from the answers of a server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::workspace::root;
use crate::{Result, workspace};

/// Where the reference pages are.
const PAGES: &str = "docs/operations";

/// Arguments of `xtask gen`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Change nothing; fail and name the files that are stale
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    if arguments.check { check() } else { write(&workspace::root()) }
}

/// Fails and names every file that differs from what the table says.
pub fn check() -> Result<()> {
    let stale = stale(&root())?;
    if stale.is_empty() {
        Ok(())
    } else {
        Err(format!("stale files, write them anew with `cargo xtask gen`: {}", stale.join(", ")))
    }
}

/// Every generated file by its path in the repository.
fn files() -> BTreeMap<PathBuf, String> {
    let pages = Path::new(PAGES);
    let mut files = BTreeMap::from([
        (pages.join("README.md"), ops::docs::index()),
        (PathBuf::from("fuzz/dictionaries/exec.dict"), ops::docs::dictionary()),
    ]);
    for row in ops::TABLE {
        files.insert(pages.join(format!("{}.md", row.name)), ops::docs::page(row));
    }
    files
}

/// Files in the directory of pages that no row asks for any more.
fn left_over(root: &Path, wanted: &BTreeMap<PathBuf, String>) -> Result<Vec<PathBuf>> {
    let directory = root.join(PAGES);
    let entries = match std::fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("cannot read {}: {error}", directory.display())),
    };
    let names = entries.flatten().map(|entry| Path::new(PAGES).join(entry.file_name()));
    let of_the_test = [ops::docs::RESULTS, ops::docs::EXAMPLES].map(|name| Path::new(PAGES).join(name));
    Ok(names.filter(|path| !wanted.contains_key(path) && !of_the_test.contains(path)).collect())
}

fn stale(root: &Path) -> Result<Vec<String>> {
    let wanted = files();
    let differs = |(path, text): &(&PathBuf, &String)| {
        std::fs::read_to_string(root.join(path)).map_or(true, |found| found != **text)
    };
    let mut stale: Vec<PathBuf> = wanted.iter().filter(differs).map(|(path, _)| path.clone()).collect();
    stale.extend(left_over(root, &wanted)?);
    Ok(stale.iter().map(|path| path.display().to_string()).collect())
}

fn write(root: &Path) -> Result<()> {
    let wanted = files();
    for (path, text) in &wanted {
        let path = root.join(path);
        let directory = path.parent().unwrap_or(root);
        let written = std::fs::create_dir_all(directory).and_then(|()| std::fs::write(&path, text));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    for path in left_over(root, &wanted)? {
        let path = root.join(path);
        std::fs::remove_file(&path).map_err(|error| format!("cannot remove {}: {error}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_fresh_and_what_is_changed_is_stale() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path();
        assert_eq!(stale(root).unwrap().len(), files().len());
        write(root).unwrap();
        let examples = root.join(PAGES).join(ops::docs::EXAMPLES);
        std::fs::create_dir(&examples).unwrap();
        assert_eq!(stale(root), Ok(Vec::new()));
        std::fs::write(root.join(PAGES).join("inc.md"), "by hand").unwrap();
        std::fs::write(root.join(PAGES).join("Gone.md"), "a row that was removed").unwrap();
        let expected = ["inc.md", "Gone.md"].map(|name| format!("{PAGES}/{name}"));
        assert_eq!(stale(root).unwrap(), expected);
        write(root).unwrap();
        assert_eq!(stale(root), Ok(Vec::new()));
        assert!(examples.exists());
    }
}
