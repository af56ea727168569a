//! A directory and a link change places at full speed while root works below: nobody gets out.
//!
//! The attacker owns the place where the work is done, and puts a link to somebody else's tree where a
//! directory has just been. Whatever the server does there, that tree must stay as it is.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use tests::{Setup, need_root};

/// What must not change: every name with its mode, owner, size and contents.
type Picture = BTreeMap<PathBuf, (u32, u32, u32, i64, Vec<u8>)>;

fn picture(tree: &Path) -> Picture {
    let mut found = Picture::new();
    let mut open = vec![tree.to_owned()];
    while let Some(path) = open.pop() {
        let facts = path.symlink_metadata().unwrap();
        let contents = if facts.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        if facts.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        found.insert(path, (facts.mode(), facts.uid(), facts.gid(), facts.mtime(), contents));
    }
    found
}

fn make_tree(at: &Path, secret: &str) {
    for name in ["a/b", "c"] {
        fs::create_dir_all(at.join(name)).unwrap();
        for file in 0..4 {
            fs::write(at.join(name).join(format!("f{file}")), secret).unwrap();
        }
    }
}

/// Swaps `place/tree/x` (a directory) with `place/link` until told to stop; renews the directory when
/// the server has removed it.
fn attack(place: &Path, canary: &Path, stop: &AtomicBool, swaps: &AtomicU64) {
    let (inside, link) = (place.join("tree/x"), place.join("link"));
    while !stop.load(Ordering::Relaxed) {
        if renameat_with(CWD, &inside, CWD, &link, RenameFlags::EXCHANGE).is_ok() {
            swaps.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        // Something is gone. Whatever is left of either place is renewed.
        let _ = fs::create_dir_all(inside.join("a/b"));
        for file in 0..4 {
            let _ = fs::write(inside.join(format!("a/b/f{file}")), "bait");
        }
        let _ = symlink(canary, &link);
    }
}

#[test]
fn nobody_gets_out_of_a_tree_that_changes_under_the_work() {
    if !need_root("symlink race with root as the victim") {
        return;
    }
    let seconds =
        std::env::var("VMSERVERD_RACE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let instance = Setup::new().start();
    let place = instance.public_directory("race");
    let canary = instance.base.path().join("canary");
    make_tree(&canary, "canary");
    let before = picture(&canary);
    let (stop, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    fs::create_dir(place.join("tree")).unwrap();
    let attacker = {
        let (place, canary, stop, swaps) =
            (place.clone(), canary.clone(), Arc::clone(&stop), Arc::clone(&swaps));
        std::thread::spawn(move || attack(&place, &canary, &stop, &swaps))
    };
    let mut exec = instance.exec();
    let path = |name: &str| place.join(name).display().to_string();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut done = BTreeMap::<&str, (u64, u64)>::new();
    let mut escapes = 0;
    while Instant::now() < end {
        let copy = path("copy");
        for (operation, arguments) in [
            (
                "FileManager_ChangeOwner",
                format!("<file>{}</file><owner>12345</owner><recursive>1</recursive>", path("tree")),
            ),
            (
                "FileManager_ChangeMode",
                format!(
                    "<file>{}</file><other_mode>rwx</other_mode><recursive>1</recursive>",
                    path("tree/x")
                ),
            ),
            (
                "FileManager_FileCopy",
                format!(
                    "<file>{}</file><destination>{copy}</destination><recursive>1</recursive>",
                    path("tree")
                ),
            ),
            (
                "FileManager_FileCopy",
                format!(
                    "<file>{}</file><destination>{copy}2</destination><recursive>1</recursive>",
                    path("tree/x")
                ),
            ),
            // First the whole tree, in which the swaps go on, then what the attacker has made anew.
            (
                "FileManager_RemoveDir",
                format!("<directory>{}</directory><recursive>1</recursive>", path("tree")),
            ),
            (
                "FileManager_RemoveDir",
                format!("<directory>{}</directory><recursive>1</recursive>", path("tree/x")),
            ),
        ] {
            let reply = exec.op(operation, &arguments);
            let counts = done.entry(operation).or_default();
            if reply.ok() { counts.0 += 1 } else { counts.1 += 1 }
        }
        // Nothing of the canary may have been carried out either.
        for copied in [place.join("copy"), place.join("copy2")] {
            if copied.symlink_metadata().is_ok_and(|facts| facts.is_dir()) {
                let taken = picture(&copied).values().filter(|(.., contents)| contents == b"canary").count();
                escapes += taken;
                fs::remove_dir_all(&copied).unwrap();
            } else {
                let _ = fs::remove_file(&copied);
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    attacker.join().unwrap();
    println!("{} swaps; done and refused: {done:?}", swaps.load(Ordering::Relaxed));
    assert_eq!(escapes, 0, "files of the canary were copied");
    assert_eq!(picture(&canary), before, "the canary has changed");
    assert!(swaps.load(Ordering::Relaxed) > 1000, "hardly anything was swapped");
    assert!(done.values().all(|(fine, _)| *fine > 0), "an operation never got through: {done:?}");
    let hidden = fs::read_dir(&place).unwrap().flatten();
    let hidden: Vec<_> = hidden
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with('.'))
        .collect();
    assert!(hidden.is_empty(), "left behind: {hidden:?}");
}
