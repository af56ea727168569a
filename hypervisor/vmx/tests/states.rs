//! Suspended states that cannot be used: each is a question with a clear text, and nothing is lost by it.

mod common;
#[path = "common/core.rs"]
mod core;
#[path = "common/elf.rs"]
mod elf;
#[path = "common/writer.rs"]
mod writer;

use std::path::Path;

use common::need;
use core::{Core, changes, write_vmx};
use hypervisor::control::{Begin, FromVmx, PowerMode, State, ToVmx};
use hypervisor::vmdk::{self, CreateOptions, Kind};
use hypervisor::vmx_file::{VmxFile, update};
use writer::writer;

fn set(config: &Path, key: &str, value: &str) {
    update(config, |vmx| {
        vmx.set(key, value);
        Ok::<(), std::io::Error>(())
    })
    .unwrap();
}

/// Starts the machine, which asks about its state with a text that has `reason`, and cancels the start.
async fn refused(config: &Path, reason: &str) {
    let (mut core, answer) = Core::start(config, Begin::PowerOn).await;
    let asked = matches!(&answer, FromVmx::Failed { code: -16, detail, .. } if detail.contains(reason));
    assert!(asked, "{reason}: {answer:?}");
    let question = core.status().await.question.unwrap();
    assert!(question.choices[0] == "Cancel" && question.default == 0, "{question:?}");
    core.must(|request| ToVmx::Answer { request, id: question.id, choice: 0 }).await;
    let (status, events) = core.ended().await;
    assert!(status.success());
    assert_eq!(changes(&events), [(State::Suspended, State::Stuck), (State::Stuck, State::Suspended)]);
    assert!(VmxFile::load(config).unwrap().suspend_state().is_some(), "still suspended");
}

#[test]
fn a_state_that_does_not_fit_is_a_question_and_stays() {
    if need("a_state_that_does_not_fit_is_a_question").is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        let options = CreateOptions::new(Kind::MonolithicSparse, 1 << 20);
        vmdk::create(&directory.path().join("a.vmdk"), &options).unwrap();
        vmdk::create(&directory.path().join("b.vmdk"), &options).unwrap();
        let config = write_vmx(directory.path(), &writer(directory.path()));
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        let mut seen = 0;
        core.expect(&mut seen, ">").await;
        core.send("x").await;
        core.expect(&mut seen, "x").await;
        core.must(|request| ToVmx::Suspend { request, mode: PowerMode::Hard }).await;
        core.ended().await;
        let file = directory.path().join("acc.vmss");
        let good = std::fs::read(&file).unwrap();
        // The file: cut short, damaged, of another version, another file, a directory, gone.
        let put = |bytes: &[u8]| std::fs::write(&file, bytes).unwrap();
        put(&good[..good.len() / 2]);
        refused(&config, "it ends too early").await;
        put(&good[..7]);
        refused(&config, "it ends too early").await;
        let mut bad = good.clone();
        let last = bad.len() - 100;
        bad[last] ^= 4;
        put(&bad);
        refused(&config, "a checksum is wrong").await;
        let mut newer = good.clone();
        newer[8] += 1;
        let sum = crc32fast::hash(&newer[..16]).to_le_bytes();
        newer[16..20].copy_from_slice(&sum);
        put(&newer);
        refused(&config, "written by another version").await;
        put(b"# a text, and long enough to have a head\n");
        refused(&config, "no state of a machine").await;
        std::fs::remove_file(&file).unwrap();
        refused(&config, "No such file").await;
        std::fs::create_dir(&file).unwrap();
        refused(&config, "not a regular file").await;
        std::fs::remove_dir(&file).unwrap();
        put(&good);
        // The hardware: memory, processors, drives, serial ports.
        set(&config, "memsize", "32");
        refused(&config, "64 MB and 1 processors; this one has 32 MB").await;
        set(&config, "memsize", "64");
        set(&config, "numvcpus", "2");
        refused(&config, "this one has 64 MB and 2").await;
        set(&config, "numvcpus", "1");
        set(&config, "ide1:0.fileName", "b.vmdk");
        set(&config, "ide1:0.present", "TRUE");
        refused(&config, "ide1").await;
        set(&config, "ide1:0.present", "FALSE");
        set(&config, "serial1.present", "TRUE");
        refused(&config, "serial").await;
        set(&config, "serial1.present", "FALSE");
        // All as it was: it goes on where it stood.
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        core.send("r").await;
        core.expect(&mut seen, "x").await;
        core.stop().await;
    });
}
