//! Tests of copies and moves through their handlers. A second file system is /dev/shm.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use ops::value::HostPath;
use ops::{Error, Fault};

use crate::context::tests::ctx;
use crate::tasks::Progress;
use crate::{Failure, transfer};

struct Base(tempfile::TempDir);

impl Base {
    fn new() -> Self {
        Base(tempfile::tempdir().unwrap())
    }

    /// On another file system, where there is one.
    fn elsewhere() -> Option<Self> {
        let there = tempfile::tempdir_in("/dev/shm").ok()?;
        let other = there.path().metadata().unwrap().dev() != std::env::temp_dir().metadata().unwrap().dev();
        if !other {
            eprintln!(
                "SKIPPED copies across file systems: /dev/shm is on the same one as the directory for temporary files"
            );
        }
        other.then_some(Base(there))
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn path(&self, name: &str) -> HostPath {
        host(&self.join(name))
    }

    fn names(&self) -> Vec<String> {
        let found = fs::read_dir(self.0.path()).unwrap().flatten();
        let mut names: Vec<_> = found.map(|entry| entry.file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn host(path: &Path) -> HostPath {
    HostPath::try_from(path.to_str().unwrap().to_owned()).unwrap()
}

fn told(failure: Failure) -> Error {
    match failure {
        Failure::Told(Fault::Refused(error)) => error,
        other => panic!("{other}"),
    }
}

/// A plan carried out at once, whatever its size.
fn copy(files: &[HostPath], to: &HostPath, overwrite: bool, recursive: bool) -> Result<Vec<String>, Error> {
    let attempt = transfer::plan_copy(files, to, overwrite, recursive)?.run();
    let done = attempt.done.iter().map(|path| path.as_str().to_owned()).collect();
    attempt.failed.map_or(Ok(done), Err)
}

#[test]
fn files_go_into_a_directory_or_get_a_name() {
    let base = Base::new();
    fs::write(base.join("a"), "a").unwrap();
    fs::write(base.join("b"), "b").unwrap();
    fs::set_permissions(base.join("a"), PermissionsExt::from_mode(0o640)).unwrap();
    fs::create_dir(base.join("d")).unwrap();
    let done = copy(&[base.path("a"), base.path("b")], &base.path("d"), false, false).unwrap();
    assert_eq!(done, [base.path("d/a").as_str(), base.path("d/b").as_str()]);
    copy(&[base.path("a")], &base.path("c"), false, false).unwrap();
    assert_eq!(fs::read(base.join("c")).unwrap(), b"a");
    assert_eq!(base.join("c").metadata().unwrap().mode() & 0o7777, 0o640);
    assert_eq!(base.names(), ["a", "b", "c", "d"]);
}

#[test]
fn what_cannot_be_copied_is_refused_before_anything_is_done() {
    let base = Base::new();
    for name in ["a", "b"] {
        fs::write(base.join(name), name).unwrap();
    }
    fs::create_dir_all(base.join("d/sub")).unwrap();
    fs::create_dir_all(base.join("e/d")).unwrap();
    fs::write(base.join("d/a"), "old").unwrap();
    symlink("a", base.join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, base.join("pipe"), rustix::fs::Mode::RUSR).unwrap();
    type Case<'a> = (&'a [&'a str], &'a str, bool, bool, i32, &'a str);
    let cases: [Case<'_>; 14] = [
        (&["b", "a"], "d", false, false, -999, "/d/a: File exists"),
        (&["b", "d"], "e", false, false, -999, "/d: Is a directory"),
        (&["b", "pipe"], "e", false, false, -999, "/pipe: Not a regular file"),
        (&["b", "d"], "e", true, true, -999, "/e/d: File exists"),
        (&["d"], "a", true, true, -999, "/a: Not a directory"),
        (&["d"], "d/sub", false, true, -3, "/d/sub/d is inside the source"),
        (&["d"], "d/sub/new", false, true, -3, "/d/sub/new is inside the source"),
        (&["a"], "a", true, false, -3, "/a is the source"),
        (&["link"], "a", true, false, -3, "/a is the source"),
        (&["a", "d/a"], "e", true, false, -3, "two of them would become"),
        (&["a", "b"], "new", false, false, -999, "/new: No such file or directory"),
        (&["a", "b"], "link", true, false, -999, "/link: Not a directory"),
        (&["b", "missing"], "e", false, false, -999, "/missing: No such file or directory"),
        (&["a"], "no/such", false, false, -999, "/no/such: No such file or directory"),
    ];
    for (files, to, overwrite, recursive, code, text) in cases {
        let files: Vec<_> = files.iter().map(|name| base.path(name)).collect();
        let error = copy(&files, &base.path(to), overwrite, recursive).unwrap_err();
        assert_eq!(error.code.number(), code, "{files:?} {to}: {error}");
        assert!(error.text.contains(text), "{files:?} {to}: {error}");
        assert!(!base.join("e/b").exists() && !base.join("new").exists());
    }
    let error = copy(&[host(Path::new("/tmp/.."))], &base.path("e"), false, true).unwrap_err();
    assert_eq!(error.code.number(), -3, "{error}");
    assert_eq!(fs::read(base.join("d/a")).unwrap(), b"old");
}

#[test]
fn a_tree_comes_over_with_links_holes_rights_and_times() {
    let base = Base::new();
    fs::create_dir_all(base.join("t/sub/closed")).unwrap();
    let sparse = File::create(base.join("t/sub/sparse")).unwrap();
    sparse.set_len(1 << 26).unwrap();
    sparse.write_all_at(&[1; 5000], 1 << 25).unwrap();
    sparse.sync_all().unwrap();
    symlink("/nowhere/at/all", base.join("t/dangling")).unwrap();
    symlink("..", base.join("t/sub/up")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, base.join("t/pipe"), rustix::fs::Mode::RUSR).unwrap();
    fs::write(base.join("t/set-uid"), "x").unwrap();
    fs::set_permissions(base.join("t/set-uid"), PermissionsExt::from_mode(0o4755)).unwrap();
    fs::set_permissions(base.join("t/sub/closed"), PermissionsExt::from_mode(0o500)).unwrap();
    let times = fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(9, 1));
    File::open(base.join("t/sub")).unwrap().set_times(times).unwrap();
    copy(&[base.path("t")], &base.path("u"), false, true).unwrap();
    let (from, to) = (|name: &str| base.join("t").join(name), |name: &str| base.join("u").join(name));
    to("sub/sparse").metadata().unwrap();
    File::open(to("sub/sparse")).unwrap().sync_all().unwrap();
    assert_eq!(
        to("sub/sparse").metadata().unwrap().blocks(),
        from("sub/sparse").metadata().unwrap().blocks()
    );
    assert_eq!(fs::read(to("sub/sparse")).unwrap(), fs::read(from("sub/sparse")).unwrap());
    assert_eq!(fs::read_link(to("dangling")).unwrap(), Path::new("/nowhere/at/all"));
    assert_eq!(fs::read_link(to("sub/up")).unwrap(), Path::new(".."));
    assert_eq!(to("pipe").symlink_metadata().unwrap().mode() & 0o7777, 0o400);
    assert_eq!(to("set-uid").metadata().unwrap().mode() & 0o7777, 0o755, "the copy is the caller's");
    assert_eq!(to("sub/closed").metadata().unwrap().mode() & 0o7777, 0o500);
    assert_eq!((to("sub").metadata().unwrap().mtime(), to("sub").metadata().unwrap().mtime_nsec()), (9, 1));
    assert_eq!(base.names(), ["t", "u"]);
}

#[test]
fn overwriting_replaces_a_file_or_link_and_nothing_else() {
    let base = Base::new();
    fs::write(base.join("new"), "new").unwrap();
    fs::write(base.join("old"), "old").unwrap();
    symlink("old", base.join("link")).unwrap();
    let reader = File::open(base.join("old")).unwrap();
    copy(&[base.path("new")], &base.path("link"), true, false).unwrap();
    assert_eq!(fs::read(base.join("old")).unwrap(), b"old", "the link was replaced, not its target");
    copy(&[base.path("new")], &base.path("old"), true, false).unwrap();
    let mut bytes = [0; 3];
    reader.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!((&bytes, fs::read(base.join("old")).unwrap().as_slice()), (b"old", b"new".as_slice()));
}

#[test]
fn what_was_finished_before_a_failure_is_told() {
    if rustix::process::geteuid().is_root() {
        // A file that can be opened but not read is hard to have; a directory in /proc will do.
        let base = Base::new();
        fs::write(base.join("a"), "a").unwrap();
        let mem = host(Path::new("/proc/self/mem"));
        let plan = transfer::plan_copy(&[base.path("a"), mem], &base.path(""), true, false);
        // The first is the source itself; use another directory.
        assert!(plan.is_err());
        fs::create_dir(base.join("d")).unwrap();
        let mem = host(Path::new("/proc/self/mem"));
        let attempt =
            transfer::plan_copy(&[base.path("a"), mem], &base.path("d"), false, false).unwrap().run();
        assert_eq!(attempt.done, [base.path("d/a")]);
        assert!(attempt.failed.is_some());
        assert_eq!(fs::read_dir(base.join("d")).unwrap().count(), 1, "nothing unfinished is left");
    }
}

/// A file that is one byte larger than what is copied at once.
fn large(path: &Path) -> u64 {
    let file = File::create(path).unwrap();
    file.set_len((10 << 20) + 1).unwrap();
    file.write_all_at(&[3; 1 << 20], 5 << 20).unwrap();
    (10 << 20) + 1
}

fn request(base: &Base, from: &str, to: &HostPath) -> ops::file_manager::FileCopy {
    let destination = to.clone();
    ops::file_manager::FileCopy {
        files: vec![base.path(from)],
        destination,
        overwrite: false,
        recursive: true,
    }
}

#[tokio::test]
async fn large_files_are_copied_in_the_background_and_leave_nothing_when_stopped() {
    let base = Base::new();
    let total = large(&base.join("large"));
    // The core of the tests runs a task at once.
    let reply = crate::file_manager::file_copy(&ctx(), request(&base, "large", &base.path("copy"))).await;
    let reply = reply.unwrap();
    assert_eq!((reply.task_id, reply.files), (7, None));
    assert_eq!(fs::read(base.join("copy")).unwrap(), fs::read(base.join("large")).unwrap());
    fs::remove_file(base.join("copy")).unwrap();
    let task = || {
        let plan = transfer::plan_copy(&[base.path("large")], &base.path("copy"), false, false).unwrap();
        assert!(plan.is_long());
        plan.into_task()
    };
    let (new, work) = task();
    assert_eq!((new.op, new.total), ("FileManager_FileCopy", total));
    let partial = new.partial.unwrap();
    assert_eq!(partial.directory, base.path("").as_str().trim_end_matches('/'));
    assert!(partial.prefix.len() >= 16);
    let progress = Progress::new(total);
    work(&progress).unwrap();
    assert_eq!(progress.done(), total);
    fs::remove_file(base.join("copy")).unwrap();
    // Stopped before the first piece, and given up by whoever should have started it.
    let progress = Progress::new(total);
    progress.stop();
    assert!(task().1(&progress).is_err());
    drop(task());
    assert_eq!(base.names(), ["large"]);
}

/// VMware Server 1.0.3 for Windows: `NewTask` did not exist.
#[tokio::test]
async fn historical_bug_file_copy_over_10_mb_has_no_new_task() {
    let base = Base::new();
    large(&base.join("large"));
    fs::write(base.join("small"), "small").unwrap();
    let mut ctx = ctx();
    ctx.historic_bugs = true;
    let copy = |from: &str| crate::file_manager::file_copy(&ctx, request(&base, from, &base.path("copy")));
    let error = told(copy("large").await.unwrap_err());
    assert_eq!(
        (error.code.number(), error.text.as_str()),
        (-999, "Undefined subroutine &VMware::VMServerd::NewTask")
    );
    assert_eq!(base.names(), ["large", "small"]);
    assert_eq!(copy("small").await.unwrap().task_id, 0);
    if let Some(there) = Base::elsewhere() {
        let error = crate::file_manager::file_copy(&ctx, request(&base, "small", &there.path("x"))).await;
        assert!(told(error.unwrap_err()).text.ends_with("NewTask"));
    }
    ctx.historic_bugs = false;
    assert_eq!(
        crate::file_manager::file_copy(&ctx, request(&base, "large", &base.path("big")))
            .await
            .unwrap()
            .task_id,
        7
    );
}

#[tokio::test]
async fn moves_are_renames_on_one_file_system_whatever_the_size() {
    let base = Base::new();
    large(&base.join("large"));
    fs::create_dir_all(base.join("d/sub")).unwrap();
    symlink("nowhere", base.join("link")).unwrap();
    fs::create_dir(base.join("to")).unwrap();
    let inode = base.join("large").metadata().unwrap().ino();
    let files = ["large", "d", "link"].map(|name| base.path(name)).to_vec();
    let request = ops::file_manager::FileMove { files, destination: base.path("to"), overwrite: false };
    let reply = crate::file_manager::file_move(&ctx(), request).await.unwrap();
    assert_eq!((reply.task_id, reply.files.unwrap().len()), (0, 3));
    assert_eq!(base.join("to/large").metadata().unwrap().ino(), inode);
    assert_eq!(base.names(), ["to"]);
    for (from, to, code) in [("to", "to/d/x", -3), ("to/large", "to/large", -3), ("to/missing", "to/x", -999)]
    {
        let request = ops::file_manager::FileMove {
            files: vec![base.path(from)],
            destination: base.path(to),
            overwrite: true,
        };
        let error = told(crate::file_manager::file_move(&ctx(), request).await.unwrap_err());
        assert_eq!(error.code.number(), code, "{error}");
    }
}

#[tokio::test]
async fn moves_across_file_systems_copy_and_remove() {
    let (base, Some(there)) = (Base::new(), Base::elsewhere()) else { return };
    fs::create_dir_all(base.join("d/sub")).unwrap();
    fs::write(base.join("d/sub/f"), "f").unwrap();
    fs::write(base.join("g"), "g").unwrap();
    fs::set_permissions(base.join("g"), PermissionsExt::from_mode(0o4711)).unwrap();
    symlink("nowhere", base.join("l")).unwrap();
    let files = ["d", "g", "l"].map(|name| base.path(name)).to_vec();
    let request = ops::file_manager::FileMove { files, destination: there.path(""), overwrite: false };
    let reply = crate::file_manager::file_move(&ctx(), request).await.unwrap();
    assert_eq!((reply.task_id, reply.files), (7, None));
    assert_eq!((base.names(), there.names()), (vec![], vec!["d".into(), "g".to_owned(), "l".into()]));
    assert_eq!(fs::read(there.join("d/sub/f")).unwrap(), b"f");
    assert_eq!(there.join("g").metadata().unwrap().mode() & 0o7777, 0o4711, "a moved file stays what it was");
    // Replaced in the meantime: what is there now is not removed.
    fs::write(base.join("x"), "old").unwrap();
    let attempt = transfer::begin_move(&[base.path("x")], &there.path("x"), false).unwrap();
    fs::rename(base.join("x"), base.join("y")).unwrap();
    fs::write(base.join("x"), "new").unwrap();
    let (_, work) = attempt.left.unwrap().into_task();
    assert!(work(&Progress::new(3)).is_err());
    assert_eq!(fs::read(base.join("x")).unwrap(), b"new");
}

#[test]
fn a_deep_tree_is_copied_with_few_descriptors() {
    let base = Base::new();
    fs::create_dir(base.join("t")).unwrap();
    crate::walk::tests::dig(&base.join("t"), 2500);
    let files = [base.path("t")];
    copy(&files, &base.path("u"), false, true).unwrap();
    let reply = crate::space::usage(base.path("u").as_str()).unwrap();
    assert_eq!(reply.directories, 2500);
    crate::remove::directory(base.path("t").as_str(), true).unwrap();
    crate::remove::directory(base.path("u").as_str(), true).unwrap();
}

#[test]
fn what_a_process_left_behind_is_removed_by_the_next() {
    let base = Base::new();
    fs::create_dir_all(base.join("t/sub")).unwrap();
    large(&base.join("t/large"));
    let plan = transfer::plan_copy(&[base.path("t")], &base.path("u"), false, true).unwrap();
    let (task, work) = plan.into_task();
    let partial = task.partial.unwrap();
    // As if the process had died: the directory is there under its hidden name.
    let hidden = base.join(&format!("{}0", partial.prefix));
    fs::create_dir_all(hidden.join("sub")).unwrap();
    fs::set_permissions(hidden.join("sub"), PermissionsExt::from_mode(0o0)).unwrap();
    partial.remove().unwrap();
    assert_eq!(base.names(), ["t"]);
    drop(work);
}
