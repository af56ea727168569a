//! Disks under a guest that writes, through the program `vmx`: what becomes of the writes in each mode, and
//! when snapshots are removed.

mod common;
#[path = "common/core.rs"]
mod core;
#[path = "common/writer.rs"]
mod writer;

use std::path::Path;

use common::{in_path, need, run, skipped};
use core::{Core, write_vmx};
use hypervisor::control::{Begin, FromVmx, ToVmx};
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
