//! Disks under a guest that writes, through the program `vmx`: what becomes of the writes in each mode, and
//! when snapshots are removed.

mod common;
#[path = "common/core.rs"]
mod core;
#[path = "common/elf.rs"]
mod elf;
#[path = "common/writer.rs"]
mod writer;

use std::path::Path;

use common::{in_path, need, run, skipped};
use core::{Core, changes, write_vmx};
use hypervisor::control::{Begin, FromVmx, PowerMode, State, ToVmx};
use hypervisor::vmdk::{self, CreateOptions, Disk, Kind, Mode};
use hypervisor::vmx_file::VmxFile;
use writer::writer;

fn needed(what: &str) -> bool {
    if !in_path("qemu-img") {
        skipped(what, "qemu-img is not installed (Debian package qemu-utils)");
        return false;
    }
    need(what).is_some()
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// The letter in the first sector of a disk, as qemu-img reads it.
fn letter(path: &Path) -> char {
    let raw = path.with_extension("raw");
    let arguments = ["convert".as_ref(), "-O".as_ref(), "raw".as_ref(), path.as_os_str(), raw.as_os_str()];
    run("qemu-img", &arguments);
    let bytes = std::fs::read(&raw).unwrap();
    std::fs::remove_file(&raw).unwrap();
    assert!(bytes[..512].iter().all(|&byte| byte == bytes[0]), "torn");
    char::from(bytes[0])
}

async fn write(core: &mut Core, seen: &mut u64, letter: &str) {
    core.send(letter).await;
    core.expect(seen, letter).await;
}

/// What the guest reads.
async fn reads(core: &mut Core, seen: &mut u64, letter: &str) {
    core.send("r").await;
    core.expect(seen, letter).await;
}

async fn snapshot(core: &mut Core, memory: bool) {
    let make =
        |request| ToVmx::CreateSnapshot { request, name: String::new(), description: String::new(), memory };
    let answer = core.ask(make).await;
    assert!(matches!(answer, FromVmx::SnapshotMade { .. }), "{answer:?}");
}

/// Disk files in a directory.
fn disks(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
    names.retain(|name| name.contains(".vmdk") || name.ends_with(".vmsn"));
    names.sort();
    names
}

fn key(config: &Path, key: &str) -> String {
    VmxFile::load(config).unwrap().get(key).unwrap_or_default().to_owned()
}

#[test]
fn snapshots_are_removed_by_merging_running_and_off() {
    if !needed("snapshots_are_removed_by_merging") {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        vmdk::create(&path("a.vmdk"), &CreateOptions::new(Kind::MonolithicSparse, 4 << 20)).unwrap();
        let config = write_vmx(directory.path(), &writer(directory.path()));
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        let mut seen = 0;
        core.expect(&mut seen, ">").await;
        write(&mut core, &mut seen, "a").await;
        snapshot(&mut core, false).await;
        write(&mut core, &mut seen, "b").await;
        snapshot(&mut core, true).await;
        write(&mut core, &mut seen, "c").await;
        assert_eq!(letter(&path("a.vmdk")), 'a');
        assert_eq!(disks(directory.path()).len(), 4, "{:?}", disks(directory.path()));
        // While it runs: it goes on, and writes to what it had at first.
        core.must(|request| ToVmx::RemoveAllSnapshots { request }).await;
        assert!(!core.status().await.has_snapshot);
        assert_eq!(key(&config, "ide0:0.fileName"), "a.vmdk");
        assert_eq!(disks(directory.path()), ["a.vmdk"]);
        reads(&mut core, &mut seen, "c").await;
        write(&mut core, &mut seen, "d").await;
        core.must(|request| ToVmx::RemoveAllSnapshots { request }).await;
        // A paused machine stays paused.
        snapshot(&mut core, false).await;
        core.must(|request| ToVmx::Pause { request }).await;
        core.must(|request| ToVmx::RemoveAllSnapshots { request }).await;
        assert!(core.status().await.paused);
        core.must(|request| ToVmx::Resume { request }).await;
        snapshot(&mut core, false).await;
        write(&mut core, &mut seen, "e").await;
        core.stop().await;
        assert_eq!(letter(&path("a.vmdk")), 'd');
        // Off, with a branch: back to the snapshot, another child, and all removed.
        let (mut core, _) = Core::start(&config, Begin::Maintenance).await;
        snapshot(&mut core, false).await;
        core.must(|request| ToVmx::RevertToSnapshot { request, id: None }).await;
        let current = path(&key(&config, "ide0:0.fileName"));
        assert_eq!(letter(&current), 'e');
        core.must(|request| ToVmx::RemoveAllSnapshots { request }).await;
        assert_eq!(key(&config, "ide0:0.fileName"), "a.vmdk");
        assert_eq!(disks(directory.path()), ["a.vmdk"]);
        assert_eq!(letter(&path("a.vmdk")), 'e');
        run("qemu-img", &["check".as_ref(), path("a.vmdk").as_os_str()]);
    });
}

#[test]
fn a_removal_that_is_killed_loses_nothing() {
    if !needed("a_removal_that_is_killed_loses_nothing") {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        const SIZE: usize = 48 << 20;
        vmdk::create(&path("a.vmdk"), &CreateOptions::new(Kind::MonolithicSparse, SIZE as u64)).unwrap();
        let config = write_vmx(directory.path(), "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n");
        let mut expected = vec![0u8; SIZE];
        let mut delays = [0, 3, 20, 60, 150].into_iter();
        let mut unfinished = 0;
        for round in 1.. {
            // Something in each of two disks, so that merging takes a moment.
            for step in 0..2u8 {
                let (mut core, _) = Core::start(&config, Begin::Maintenance).await;
                snapshot(&mut core, false).await;
                drop(core);
                let mut disk = Disk::open(&path(&key(&config, "ide0:0.fileName")), Mode::Write).unwrap();
                for (number, part) in expected.chunks_mut(1 << 20).enumerate() {
                    if number % 3 != usize::from(step) {
                        part.fill(round * 2 + step);
                        disk.write_at(number as u64 * 2048, part).unwrap();
                    }
                }
                disk.close().unwrap();
            }
            let delay = delays.next();
            let (mut core, _) = Core::start(&config, Begin::Maintenance).await;
            let request = core.number();
            core.channel.send(&ToVmx::RemoveAllSnapshots { request }, &[]).await.unwrap();
            if let Some(delay) = delay {
                tokio::time::sleep(std::time::Duration::from_millis(delay)).await;
                core.child.kill().unwrap();
                core.child.wait().unwrap();
            } else {
                let answer = core.answer(request).await;
                assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
            }
            let name = key(&config, "ide0:0.fileName");
            unfinished += u32::from(name != "a.vmdk");
            let mut found = vec![0; SIZE];
            Disk::open(&path(&name), Mode::Read).unwrap().read_at(0, &mut found).unwrap();
            assert!(found == expected, "round {round}, {name}");
            if delay.is_none() {
                break;
            }
        }
        println!("{unfinished} of 5 were killed before their end");
        assert_eq!(key(&config, "ide0:0.fileName"), "a.vmdk");
        assert_eq!(disks(directory.path()), ["a.vmdk"]);
        run("qemu-img", &["check".as_ref(), path("a.vmdk").as_os_str()]);
    });
}

/// Waits for the question at power off, and answers it.
async fn settle(core: &mut Core, choice: u32) {
    let question = loop {
        let status = core.status().await;
        match status.question {
            Some(question) => break question,
            None => assert_eq!(status.state, State::On),
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    };
    assert_eq!(
        (question.default, question.choices.as_slice()),
        (2, ["Commit", "Discard", "Keep"].map(String::from).as_slice())
    );
    assert!(question.text.contains("ide0:0"), "{}", question.text);
    core.must(|request| ToVmx::Answer { request, id: question.id, choice }).await;
}

#[test]
fn undoable_disks_are_committed_discarded_or_kept() {
    if !needed("undoable_disks_are_committed_discarded_or_kept") {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("a.vmdk");
        vmdk::create(&disk, &CreateOptions::new(Kind::MonolithicSparse, 4 << 20)).unwrap();
        let lines = writer(directory.path()) + "ide0:0.mode = \"undoable\"\n";
        let config = write_vmx(directory.path(), &lines);
        let redo = || directory.path().join(key(&config, "ide0:0.redo"));
        let begin = async |seen: &mut u64| {
            let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
            assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
            core.expect(seen, ">").await;
            core
        };
        let stop = |request| ToVmx::Stop { request, mode: PowerMode::Hard };
        // Committed; powered off by the guest.
        let mut seen = 0;
        let mut core = begin(&mut seen).await;
        write(&mut core, &mut seen, "a").await;
        core.send("h").await;
        settle(&mut core, 0).await;
        let (status, events) = core.ended().await;
        assert!(status.success());
        assert_eq!(
            changes(&events),
            [(State::Off, State::On), (State::On, State::Stuck), (State::Stuck, State::Off)]
        );
        assert_eq!(
            (letter(&disk), disks(directory.path()).len(), key(&config, "ide0:0.redo").as_str()),
            ('a', 1, "")
        );
        // Discarded; powered off by request. No snapshot meanwhile.
        let mut seen = 0;
        let mut core = begin(&mut seen).await;
        write(&mut core, &mut seen, "b").await;
        let name = String::new;
        let answer = core
            .ask(|request| ToVmx::CreateSnapshot {
                request,
                name: name(),
                description: name(),
                memory: false,
            })
            .await;
        assert!(
            matches!(&answer, FromVmx::Failed { detail, .. } if detail.contains("ide0:0 is undoable")),
            "{answer:?}"
        );
        let answer = core.ask(stop).await;
        assert!(matches!(answer, FromVmx::Failed { code: -16, .. }), "{answer:?}");
        let answer = core.ask(|request| ToVmx::Stop { request, mode: PowerMode::Soft }).await;
        assert!(matches!(answer, FromVmx::Failed { code: -16, .. }), "{answer:?}");
        assert_eq!(letter(&redo()), 'b');
        settle(&mut core, 1).await;
        core.ended().await;
        assert_eq!((letter(&disk), disks(directory.path()).len()), ('a', 1));
        // Kept: by a second hard stop instead of an answer.
        let mut seen = 0;
        let mut core = begin(&mut seen).await;
        write(&mut core, &mut seen, "c").await;
        let answer = core.ask(stop).await;
        assert!(matches!(answer, FromVmx::Failed { code: -16, .. }), "{answer:?}");
        core.stop().await;
        assert_eq!((letter(&disk), letter(&redo())), ('a', 'c'));
        let first = redo();
        // Added to; then killed.
        let mut seen = 0;
        let mut core = begin(&mut seen).await;
        reads(&mut core, &mut seen, "c").await;
        write(&mut core, &mut seen, "d").await;
        drop(core);
        assert_eq!((letter(&disk), letter(&redo()), redo()), ('a', 'd', first.clone()));
        // A commit that was interrupted is ended before the machine starts.
        hypervisor::vmx_file::update(&config, |vmx| {
            vmx.set("ide0:0.redoCommit", "TRUE");
            Ok::<(), std::io::Error>(())
        })
        .unwrap();
        let mut seen = 0;
        let mut core = begin(&mut seen).await;
        assert_eq!(letter(&disk), 'd');
        assert!(redo() != first && !first.exists() && key(&config, "ide0:0.redoCommit").is_empty());
        reads(&mut core, &mut seen, "d").await;
        core.send("h").await;
        settle(&mut core, 2).await;
        core.ended().await;
        assert!(redo().exists());
        run("qemu-img", &["check".as_ref(), disk.as_os_str()]);
    });
}

#[test]
fn independent_disks() {
    if !needed("independent_disks") {
        return;
    }
    runtime().block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let disk = directory.path().join("a.vmdk");
        vmdk::create(&disk, &CreateOptions::new(Kind::MonolithicFlat, 4 << 20)).unwrap();
        let lines = writer(directory.path());
        // Nonpersistent: gone at power off, but not by suspending.
        let config =
            write_vmx(directory.path(), &(lines.clone() + "ide0:0.mode = \"independent-nonpersistent\"\n"));
        let (mut core, _) = Core::start(&config, Begin::PowerOn).await;
        let mut seen = 0;
        core.expect(&mut seen, ">").await;
        write(&mut core, &mut seen, "n").await;
        core.must(|request| ToVmx::Suspend { request, mode: PowerMode::Hard }).await;
        core.ended().await;
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        reads(&mut core, &mut seen, "n").await;
        // Others may use the disk in the same way meanwhile.
        Disk::open(&disk, Mode::Read).unwrap();
        core.stop().await;
        assert_eq!(letter(&disk), '\0');
        let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert!(left.into_iter().all(|name| !name.to_string_lossy().contains("REDO")));
        // Persistent: no part of snapshots.
        write_vmx(directory.path(), &(lines + "ide0:0.mode = \"independent-persistent\"\n"));
        let (mut core, _) = Core::start(&config, Begin::PowerOn).await;
        let mut seen = 0;
        core.expect(&mut seen, ">").await;
        snapshot(&mut core, true).await;
        assert_eq!(key(&config, "ide0:0.fileName"), "a.vmdk");
        write(&mut core, &mut seen, "p").await;
        core.must(|request| ToVmx::RevertToSnapshot { request, id: None }).await;
        let mut seen = 1;
        reads(&mut core, &mut seen, "p").await;
        core.must(|request| ToVmx::RemoveAllSnapshots { request }).await;
        core.stop().await;
        assert_eq!(letter(&disk), 'p');
    });
}
