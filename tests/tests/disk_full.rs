//! F6: no space, no right to write, no descriptors: an error reply, nothing half written, and the next
//! request works.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Resource, Rlimit, prlimit};
use tests::exec::{Exec, request};
use tests::skip::skipped;
use tests::{Instance, Setup, need_root, process};

/// A small file system of its own; ends with the value.
struct Mounted(PathBuf);

impl Mounted {
    /// Mounts one below the instance's directory; `None`, said loudly, where that is not possible.
    fn new(instance: &Instance, what: &str, options: &str) -> Option<Self> {
        if !need_root(what) {
            return None;
        }
        let path = instance.public_directory("small");
        let mut command = Command::new("mount");
        command.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path);
        let output = command.output().expect("mount starts");
        if !output.status.success() {
            skipped(
                what,
                &format!("cannot mount a tmpfs: {}", String::from_utf8_lossy(&output.stderr).trim()),
            );
            return None;
        }
        Some(Mounted(path))
    }

    fn names(&self) -> Vec<String> {
        let found = fs::read_dir(&self.0).unwrap().flatten();
        let mut names: Vec<_> = found.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The session process may still be closing the last file.
        for _ in 0..200 {
            if Command::new("umount").arg(&self.0).status().is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn element(name: &str, path: &Path) -> String {
    format!("<{name}>{}</{name}>", path.display())
}

/// Waits for a task's end and returns its state and error.
fn ended(exec: &mut Exec, task: &str) -> (String, String) {
    tests::eventually("the task ends", || {
        let status = exec.op("TaskManager_StatusOfTask", &format!("<taskId>{task}</taskId>"));
        let state = status.all("state").first().cloned().unwrap_or_default();
        (state != "running" && state != "queued").then_some((state, status.text))
    })
}

#[test]
fn a_full_disk_refuses_and_keeps_nothing() {
    let instance = Setup::new().start();
    let Some(small) = Mounted::new(&instance, "a full disk", "size=4m") else { return };
    let mut exec = instance.exec();
    let big = instance.public_directory("big").join("file");
    let file = fs::File::create(&big).unwrap();
    file.write_all_at(&vec![1; 6 << 20], 0).unwrap();
    fs::write(small.0.join("old"), "old").unwrap();
    let to = element("destination", &small.0.join("new"));
    let old = element("destination", &small.0.join("old")) + "<overwrite>1</overwrite>";
    for destination in [&to, &old] {
        let reply = exec.op("File_Copy", &(element("source", &big) + destination));
        let (code, text) = reply.error().unwrap();
        assert!(code == -22 && text.ends_with("No space left on device"), "{}", reply.text);
        // Across file systems: a task, which ends the same way.
        let reply = exec.op("FileManager_FileCopy", &(element("file", &big) + destination));
        let (state, text) = ended(&mut exec, &reply.out("taskId"));
        assert!(state == "failed" && text.contains("No space left on device"), "{text}");
        assert_eq!(small.names(), ["old"]);
        assert_eq!(fs::read(small.0.join("old")).unwrap(), b"old");
    }
    // A tree that does not fit either.
    let tree = instance.public_directory("tree");
    for name in 0..8 {
        fs::write(tree.join(name.to_string()), vec![1; 1 << 20]).unwrap();
    }
    let arguments = element("file", &tree) + &to + "<recursive>1</recursive>";
    let task = exec.op("FileManager_FileCopy", &arguments).out("taskId");
    assert_eq!(ended(&mut exec, &task).0, "failed");
    assert_eq!(small.names(), ["old"]);
    // Moving keeps the source.
    let task = exec.op("FileManager_FileMove", &(element("file", &tree) + &to)).out("taskId");
    assert_eq!(ended(&mut exec, &task).0, "failed");
    assert_eq!((small.names(), fs::read_dir(&tree).unwrap().count()), (vec!["old".to_owned()], 8));
    // Contents of a new file, with the last block taken.
    let rest = "x".repeat(1 << 20);
    let mut made = 0;
    let refused = loop {
        let file = element("file", &small.0.join(format!("new{made}")));
        let reply = exec.ask(request("File_Create", &format!("{file}<contents>{rest}</contents>")));
        match reply.ok() {
            true => made += 1,
            false => break reply,
        }
    };
    assert!(made > 0 && refused.code() == -22, "{}", refused.text);
    assert_eq!(small.names().len(), made + 1);
    // And as soon as there is room again, it works.
    fs::remove_file(small.0.join("new0")).unwrap();
    let file = element("file", &small.0.join("again"));
    assert!(exec.op("File_Create", &format!("{file}<contents>x</contents>")).ok());
    drop(exec);
}

#[test]
fn a_read_only_file_system_refuses_everything_that_changes_it() {
    let instance = Setup::new().start();
    let Some(small) = Mounted::new(&instance, "a read-only file system", "size=1m") else { return };
    fs::create_dir(small.0.join("d")).unwrap();
    fs::write(small.0.join("d/f"), "x").unwrap();
    let mut command = Command::new("mount");
    let status = command.args(["-o", "remount,ro"]).arg(&small.0).status().unwrap();
    assert!(status.success());
    let mut exec = instance.exec();
    let (file, directory, new) = (small.0.join("d/f"), small.0.join("d"), small.0.join("new"));
    let to = element("destination", &new);
    for (operation, arguments) in [
        ("File_Create", element("file", &new)),
        ("File_Delete", element("file", &file)),
        ("File_Copy", element("source", &file) + &to),
        ("FileManager_FileCopy", element("file", &file) + &to),
        ("FileManager_FileMove", element("file", &file) + &to),
        ("FileManager_FileRemove", element("file", &file)),
        ("FileManager_FileMakeLink", element("source", &file) + &element("link", &new)),
        ("FileManager_ChangeMode", element("file", &file) + "<other_mode>rwx</other_mode>"),
        ("FileManager_ChangeOwner", element("file", &file) + "<owner>1</owner><recursive>1</recursive>"),
        ("FileManager_MakeDir", element("directory", &new)),
        ("FileManager_RemoveDir", element("directory", &directory) + "<recursive>1</recursive>"),
        ("Directory_Make", element("directory", &new)),
        ("Directory_Remove", element("directory", &directory) + "<recursive>1</recursive>"),
    ] {
        let reply = exec.op(operation, &arguments);
        assert_eq!(reply.code(), -4, "{operation}: {}", reply.text);
    }
    assert_eq!(exec.op("File_Read", &element("file", &file)).out("contents"), "x");
    drop(exec);
}

#[test]
fn without_descriptors_requests_fail_and_later_ones_do_not() {
    let instance = Setup::new().start();
    let place = instance.public_directory("files");
    for number in 0..200 {
        fs::write(place.join(format!("f{number}")), "x").unwrap();
    }
    fs::create_dir(place.join("to")).unwrap();
    fs::create_dir_all(place.join("deep").join("d/".repeat(300))).unwrap();
    let mut exec = instance.exec();
    assert_eq!(exec.inc(1), 2);
    let session = instance.session_of(rustix::process::getuid().as_raw());
    let few = Rlimit { current: Some(64), maximum: Some(64) };
    prlimit(Some(process::pid(session)), Resource::Nofile, few).expect("a process of ours");
    // Each source of a copy is held open.
    let files: String = (0..200).map(|number| element("file", &place.join(format!("f{number}")))).collect();
    let copy = |files: &str| format!("<files>{files}</files>{}", element("destination", &place.join("to")));
    let reply = exec.op("FileManager_FileCopy", &copy(&files));
    let (code, text) = reply.error().unwrap();
    assert!(code == -22 && text.ends_with("Too many open files"), "{}", reply.text);
    assert_eq!(fs::read_dir(place.join("to")).unwrap().count(), 0);
    // A deep tree needs few, and nothing is short afterwards.
    let deep = element("file", &place.join("deep")) + &element("destination", &place.join("copy"));
    let reply = exec.op("FileManager_FileCopy", &(deep + "<recursive>1</recursive>"));
    assert_eq!(reply.code(), 0, "{}", reply.text);
    let reply = exec.op("FileManager_FileCopy", &copy(&element("file", &place.join("f1"))));
    assert_eq!(reply.code(), 0, "{}", reply.text);
    let usage = exec.op("Directory_GetSpaceUsage", &element("directory", &place.join("copy")));
    assert_eq!(usage.out("directories"), "300");
}
