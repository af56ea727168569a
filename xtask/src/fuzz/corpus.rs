//! What a target begins with: the saved corpus, seeds from the operation table, what earlier runs found, and a
//! dictionary.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::build;
use crate::Result;
use crate::workspace::root;

/// Where a target works.
pub fn work(name: &str) -> PathBuf {
    root().join("fuzz/target/work").join(name)
}

/// What runs have found.
pub fn found(name: &str) -> PathBuf {
    work(name).join("corpus")
}

/// What is in the repository.
pub fn saved(name: &str) -> PathBuf {
    root().join("fuzz/corpus").join(name)
}

/// How many files a directory has.
pub fn count(directory: &Path) -> u64 {
    std::fs::read_dir(directory).map_or(0, |entries| entries.flatten().count() as u64)
}

/// The directories of a target's inputs: first the one that findings go into, then those that are only read.
///
/// # Errors
/// When the seeds cannot be written.
pub fn directories(name: &str) -> Result<Vec<PathBuf>> {
    let (found, seeded) = (found(name), work(name).join("seeds"));
    let said = |error: std::io::Error| format!("cannot write below {}: {error}", work(name).display());
    // Always anew: an operation that is gone leaves no seed behind.
    let _ = std::fs::remove_dir_all(&seeded);
    for directory in [&found, &seeded] {
        std::fs::create_dir_all(directory).map_err(said)?;
    }
    for (file, bytes) in seeds(name) {
        std::fs::write(seeded.join(file), bytes).map_err(said)?;
    }
    Ok([found, saved(name), seeded].into_iter().filter(|directory| directory.is_dir()).collect())
}

/// A request of every operation, in the form that this target reads.
fn seeds(name: &str) -> Vec<(&'static str, Vec<u8>)> {
    let requests =
        ops::TABLE.iter().enumerate().map(|(place, row)| (place, row.name, ops::docs::sample(row)));
    match name {
        // A byte chooses the operation; the rest is what stands in `in`.
        "exec_typed" => requests
            .map(|(place, name, request)| {
                let inside = request.split_once("<in>").and_then(|(_, rest)| rest.split_once("</in>"));
                let inside = inside.map_or("", |(inside, _)| inside);
                let choice = u8::try_from(place).unwrap_or(u8::MAX);
                (name, [&[choice], inside.as_bytes()].concat())
            })
            .collect(),
        // Two bytes say where the stream is cut.
        "exec_envelope" => {
            requests.map(|(_, name, request)| (name, [b"\x10\x10", request.as_bytes()].concat())).collect()
        }
        "guard_vs_roxmltree" => requests.map(|(_, name, request)| (name, request.into_bytes())).collect(),
        _ => Vec::new(),
    }
}

/// The dictionary of a target: one of its own, else the one of what it attacks.
pub fn dictionary(name: &str) -> Option<PathBuf> {
    let room = match name.split('_').next().unwrap_or(name) {
        // The guard stands in front of the same documents.
        "guard" => "exec",
        room => room,
    };
    let directory = root().join("fuzz/dictionaries");
    [name, room].iter().map(|stem| directory.join(format!("{stem}.dict"))).find(|path| path.is_file())
}

/// Adds to the saved corpus of a target the fewest inputs that reach every edge which earlier runs have
/// reached, and takes out those that are no longer needed. Inputs that people gave a name stay.
///
/// # Errors
/// When the target fails, or a file cannot be written.
pub fn minimise(name: &str) -> Result<()> {
    let saved = saved(name);
    let smallest = work(name).join("smallest");
    let said = |error: std::io::Error| format!("cannot write {}: {error}", saved.display());
    let _ = std::fs::remove_dir_all(&smallest);
    for directory in [&saved, &smallest] {
        std::fs::create_dir_all(directory).map_err(said)?;
    }
    let entries = std::fs::read_dir(&saved).map_err(said)?.flatten();
    let (named, hashed): (Vec<_>, Vec<_>) =
        entries.map(|entry| entry.path()).partition(|path| !is_hash(path));
    // What has a name comes in first, so that nothing found repeats it.
    for path in &named {
        if let Some(file) = path.file_name() {
            std::fs::copy(path, smallest.join(file)).map_err(said)?;
        }
    }
    let log = work(name).join("merge.log");
    let output =
        std::fs::File::create(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
    let files = work(name).join("files");
    std::fs::create_dir_all(&files).map_err(said)?;
    let mut command = Command::new(build::binary(name));
    // How often an edge is reached does not matter here, only whether.
    command.current_dir(root().join("fuzz")).args([
        "-set_cover_merge=1",
        "-use_counters=0",
        "-rss_limit_mb=2048",
    ]);
    command.arg(&smallest).args(directories(name)?).env("TMPDIR", &files);
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(output).status();
    let status = status.map_err(|error| format!("cannot start fuzz target {name}: {error}"))?;
    if !status.success() {
        return Err(format!("the corpus of {name} cannot be merged ({status}), see {}", log.display()));
    }
    for path in hashed {
        std::fs::remove_file(path).map_err(said)?;
    }
    for entry in std::fs::read_dir(&smallest).map_err(said)?.flatten() {
        std::fs::copy(entry.path(), saved.join(entry.file_name())).map_err(said)?;
    }
    eprintln!("xtask: {name}: {} inputs saved", count(&saved));
    Ok(())
}

/// Whether a file has the kind of name that libFuzzer gives.
fn is_hash(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.len() == 40 && name.iter().all(u8::is_ascii_hexdigit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_a_seed() {
        for name in ["exec_typed", "exec_envelope", "guard_vs_roxmltree"] {
            assert_eq!(seeds(name).len(), ops::TABLE.len(), "{name}");
        }
        let typed = seeds("exec_typed");
        let (place, inc) = typed.iter().enumerate().find(|(_, (name, _))| *name == "inc").unwrap();
        assert_eq!(inc.1.split_first(), Some((&(place as u8), b"<number>42</number>".as_slice())));
        assert!(seeds("ata_disk").is_empty());
    }

    #[test]
    fn named_inputs_are_told_from_found_ones() {
        assert!(is_hash(Path::new("/a/5b0a6e9c8c33d51026e8ecb03dfcc463eb05710c")));
        assert!(!is_hash(Path::new("/a/two_extents")));
    }
}
