//! Copies in the background: what a task tells, and what is left when it ends before its time.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tests::Setup;
use tests::tasks::{
    begin, dense, element, field, half_way, in_the_middle, names, number, status, tree, wait,
};

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

#[test]
fn progress_goes_up_and_a_stop_leaves_nothing() {
    let instance = Setup::new().start();
    let place = tree(&instance);
    let mut exec = instance.exec();
    for from in ["tree", "tree/sub/disk"] {
        in_the_middle(&place, || {
            let task = begin(&mut exec, &place.join(from), &place.join("copy"));
            let Some(mut last) = half_way(&mut exec, &task) else { return false };
            // From another session of the same user.
            let mut other = instance.exec();
            for _ in 0..3 {
                let now = number(&status(&mut other, &task), "bytesDone");
                assert!(now >= last, "{now} after {last}");
                last = now;
            }
            let stopped = other.op("TaskManager_StopTask", &format!("<taskId>{task}</taskId>"));
            if field(&status(&mut other, &task), "state") == "done" {
                return false;
            }
            assert_eq!(field(&stopped, "state"), "stopped", "{}", stopped.text);
            assert_eq!(names(&place), ["tree"], "a stop leaves nothing");
            let end = wait(&mut exec, &task);
            assert!(number(&end, "bytesDone") < number(&end, "bytesTotal"), "{}", end.text);
            true
        });
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
    let (over, seen) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut seen = seen.lock().unwrap();
            while !over.load(Ordering::SeqCst) {
                seen.push(to.metadata().map(|facts| facts.len()).ok());
                seen.dedup();
            }
        });
        // However it ends, the reader ends too.
        let end = std::panic::catch_unwind(AssertUnwindSafe(|| field(&wait(&mut exec, &task), "state")));
        over.store(true, Ordering::SeqCst);
        assert_eq!(end.unwrap(), "done");
    });
    let mut seen = seen.into_inner().unwrap();
    seen.push(Some(to.metadata().unwrap().len()));
    seen.dedup();
    assert!(seen == [Some(3), Some(256 << 20)] || seen == [Some(256 << 20)], "{seen:?}");
    assert_eq!(names(&place), ["new", "old"]);
}
