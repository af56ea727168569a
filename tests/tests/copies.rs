//! Copies in the background: what a task tells, and what is left when it ends before its time.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use tests::exec::{Exec, Reply};
use tests::{Instance, Setup, eventually, need_root, process};

fn element(name: &str, path: &Path) -> String {
    format!("<{name}>{}</{name}>", path.display())
}

fn status(exec: &mut Exec, task: &str) -> Reply {
    exec.op("TaskManager_StatusOfTask", &format!("<taskId>{task}</taskId>"))
}

fn field(reply: &Reply, name: &str) -> String {
    reply.all(name).first().cloned().unwrap_or_else(|| panic!("no {name} in {}", reply.text))
}

fn number(reply: &Reply, name: &str) -> u64 {
    field(reply, name).parse().unwrap_or_else(|_| panic!("{}", reply.text))
}

/// Starts a copy that must become a task.
fn begin(exec: &mut Exec, from: &Path, to: &Path) -> String {
    let arguments = element("file", from) + &element("destination", to) + "<recursive>1</recursive>";
    let task = exec.op("FileManager_FileCopy", &arguments).out("taskId");
    assert_ne!(task, "0");
    task
}

fn wait(exec: &mut Exec, task: &str) -> Reply {
    eventually("the task ends", || {
        let now = status(exec, task);
        (field(&now, "state") != "running").then_some(now)
    })
}

/// 4 GiB with 64 MiB of data scattered over it.
fn sparse(path: &Path) {
    let file = fs::File::create(path).unwrap();
    file.set_len(4 << 30).unwrap();
    let piece = vec![7; 1 << 20];
    for number in 0..64u64 {
        file.write_all_at(&piece, number * (64 << 20)).unwrap();
    }
    file.sync_all().unwrap();
}

/// A file of so many MiB of data.
fn dense(path: &Path, mebibytes: u64) {
    let file = fs::File::create(path).unwrap();
    let piece = vec![3; 1 << 20];
    for number in 0..mebibytes {
        file.write_all_at(&piece, number << 20).unwrap();
    }
}

#[test]
fn a_sparse_disk_is_copied_with_its_holes() {
    let instance = Setup::new().start();
    let place = instance.public_directory("disks");
    let (from, to, peer) = (place.join("disk"), place.join("copy"), place.join("peer"));
    sparse(&from);
    let mut exec = instance.exec();
    let task = begin(&mut exec, &from, &to);
    let end = wait(&mut exec, &task);
    assert_eq!(field(&end, "state"), "done", "{}", end.text);
    assert_eq!(
        (number(&end, "bytesDone"), number(&end, "bytesTotal"), number(&end, "percent")),
        (4 << 30, 4 << 30, 100)
    );
    let copied = Command::new("cp").arg(&from).arg(&peer).status().unwrap();
    assert!(copied.success());
    for path in [&to, &peer] {
        fs::File::open(path).unwrap().sync_all().unwrap();
    }
    let facts = |path: &Path| path.metadata().unwrap();
    assert_eq!((facts(&to).len(), facts(&to).blocks()), (4 << 30, facts(&peer).blocks()));
    assert_eq!(facts(&to).mtime(), facts(&from).mtime());
    let mut piece = vec![0; (1 << 20) + 2];
    fs::File::open(&to).unwrap().read_exact_at(&mut piece, (63 << 26) - 1).unwrap();
    assert!(piece[0] == 0 && piece[1] == 7 && piece[1 << 20] == 7 && piece[(1 << 20) + 1] == 0);
}

/// Waits until some of a task is done, and not all of it.
fn half_way(exec: &mut Exec, task: &str) -> u64 {
    eventually("the task is half way", || {
        let now = status(exec, task);
        assert_eq!(field(&now, "state"), "running", "too fast to be stopped: {}", now.text);
        let done = number(&now, "bytesDone");
        (done > 0).then_some(done)
    })
}

fn names(place: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(place)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A tree that takes a while, in a place of its own.
fn tree(instance: &Instance) -> std::path::PathBuf {
    let place = instance.public_directory("disks");
    fs::create_dir_all(place.join("tree/sub")).unwrap();
    dense(&place.join("tree/sub/disk"), 1024);
    for number in 0..3 {
        fs::hard_link(place.join("tree/sub/disk"), place.join(format!("tree/again{number}"))).unwrap();
    }
    place
}

#[test]
fn progress_goes_up_and_a_stop_leaves_nothing() {
    let instance = Setup::new().start();
    let place = tree(&instance);
    let mut exec = instance.exec();
    for from in ["tree", "tree/sub/disk"] {
        let task = begin(&mut exec, &place.join(from), &place.join("copy"));
        let mut last = half_way(&mut exec, &task);
        // From another session of the same user.
        let mut other = instance.exec();
        for _ in 0..3 {
            let now = number(&status(&mut other, &task), "bytesDone");
            assert!(now >= last, "{now} after {last}");
            last = now;
        }
        let stopped = other.op("TaskManager_StopTask", &format!("<taskId>{task}</taskId>"));
        assert_eq!(field(&stopped, "state"), "stopped", "{}", stopped.text);
        assert_eq!(names(&place), ["tree"], "a stop leaves nothing");
        let end = wait(&mut exec, &task);
        assert!(number(&end, "bytesDone") < number(&end, "bytesTotal"), "{}", end.text);
    }
}

/// F4: the process that copies is killed.
#[test]
fn a_killed_session_process_leaves_nothing_and_a_failed_task() {
    if !need_root("killing the session process of a user") {
        return;
    }
    let instance = Setup::new().start();
    let place = tree(&instance);
    for from in ["tree", "tree/sub/disk"] {
        let mut exec = instance.exec();
        let task = begin(&mut exec, &place.join(from), &place.join("copy"));
        let _ = half_way(&mut exec, &task);
        process::kill(instance.session_of(0));
        // The user's next operation works, and the task has failed.
        let mut exec = instance.exec();
        assert_eq!(exec.inc(1), 2);
        let end = wait(&mut exec, &task);
        assert_eq!(field(&end, "state"), "failed", "{}", end.text);
        eventually("what was half written is gone", || (names(&place) == ["tree"]).then_some(()));
    }
}

#[test]
fn a_reader_sees_the_old_file_until_the_new_one_is_complete() {
    let instance = Setup::new().start();
    let place = instance.public_directory("disks");
    let (from, to) = (place.join("new"), place.join("old"));
    dense(&from, 256);
    fs::write(&to, "old").unwrap();
    let mut exec = instance.exec();
    let arguments = element("file", &from) + &element("destination", &to) + "<overwrite>1</overwrite>";
    let task = exec.op("FileManager_FileCopy", &arguments).out("taskId");
    let mut seen = Vec::new();
    while seen.last() != Some(&(256 << 20)) {
        seen.push(to.metadata().unwrap().len());
        seen.dedup();
    }
    assert!(seen == [3, 256 << 20] || seen == [256 << 20], "{seen:?}");
    assert_eq!(field(&wait(&mut exec, &task), "state"), "done");
    assert_eq!(names(&place), ["new", "old"]);
}
