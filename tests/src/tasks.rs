//! Copies that run as tasks, over the wire.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::exec::{Exec, Reply};
use crate::{Instance, eventually};

/// An argument that is a path.
#[must_use]
pub fn element(name: &str, path: &Path) -> String {
    format!("<{name}>{}</{name}>", path.display())
}

/// What the server says of a task.
#[must_use]
pub fn status(exec: &mut Exec, task: &str) -> Reply {
    exec.op("TaskManager_StatusOfTask", &format!("<taskId>{task}</taskId>"))
}

/// A field of it.
#[must_use]
pub fn field(reply: &Reply, name: &str) -> String {
    reply.all(name).first().cloned().unwrap_or_else(|| panic!("no {name} in {}", reply.text))
}

/// A field of it that is a number.
#[must_use]
pub fn number(reply: &Reply, name: &str) -> u64 {
    field(reply, name).parse().unwrap_or_else(|_| panic!("{}", reply.text))
}

/// Starts a copy that must become a task; returns its id.
#[must_use]
pub fn begin(exec: &mut Exec, from: &Path, to: &Path) -> String {
    let arguments = element("file", from) + &element("destination", to) + "<recursive>1</recursive>";
    let task = exec.op("FileManager_FileCopy", &arguments).out("taskId");
    assert_ne!(task, "0");
    task
}

/// Waits for the end of a task; returns what is said of it then.
#[must_use]
pub fn wait(exec: &mut Exec, task: &str) -> Reply {
    eventually("the task ends", || {
        let now = status(exec, task);
        (!["running", "queued"].contains(&field(&now, "state").as_str())).then_some(now)
    })
}

/// Waits until some of a task is done, and not all of it; returns how many bytes. None when it was done before
/// anybody has seen it half way.
#[must_use]
pub fn half_way(exec: &mut Exec, task: &str) -> Option<u64> {
    eventually("the task is half way", || {
        let now = status(exec, task);
        match field(&now, "state").as_str() {
            "done" => Some(None),
            "queued" => None,
            "running" => Some(number(&now, "bytesDone")).filter(|done| *done > 0).map(Some),
            _ => panic!("{}", now.text),
        }
    })
}

/// Does something in the middle of a copy of a [`tree`], or of its disk, to `copy` beside it. A copy that was done
/// first, for which `work` is false, is made again with twice the data.
///
/// # Panics
/// When copies are too fast here however much there is to copy, as on a file system that shares blocks.
pub fn in_the_middle(place: &Path, mut work: impl FnMut() -> bool) {
    for doubled in 0..3 {
        if doubled > 0 {
            dense(&place.join(DISK), MEBIBYTES << doubled);
        }
        if work() {
            return;
        }
        let copy = place.join("copy");
        let _ = std::fs::remove_dir_all(&copy).or_else(|_| std::fs::remove_file(&copy));
    }
    panic!("copies in {} are too fast to be stopped", place.display());
}

/// The disk of a [`tree`], and what it has at first.
const DISK: &str = "tree/sub/disk";
const MEBIBYTES: u64 = 1024;

/// Writes a file of so many MiB of data.
///
/// # Panics
/// When there is no room.
pub fn dense(path: &Path, mebibytes: u64) {
    let file = File::create(path).expect("a directory of ours");
    let piece = vec![3; 1 << 20];
    for number in 0..mebibytes {
        file.write_all_at(&piece, number << 20).expect("room");
    }
}

/// The names in a directory, sorted.
#[must_use]
pub fn names(place: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(place).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A directory with a tree whose copy takes a while, in a place of its own.
#[must_use]
pub fn tree(instance: &Instance) -> PathBuf {
    let place = instance.public_directory("disks");
    std::fs::create_dir_all(place.join("tree/sub")).unwrap();
    dense(&place.join(DISK), MEBIBYTES);
    for number in 0..3 {
        std::fs::hard_link(place.join(DISK), place.join(format!("tree/again{number}"))).unwrap();
    }
    place
}
