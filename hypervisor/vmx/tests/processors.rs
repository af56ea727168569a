//! A machine with two processors, through the program `vmx`: everything that stops them stops both, and both
//! go on.

mod common;
#[path = "common/core.rs"]
mod core;
#[path = "common/counter.rs"]
mod counter;
#[path = "common/elf.rs"]
mod elf;

use common::need;
use core::{Core, write_vmx};
use counter::counter;
use hypervisor::control::{Begin, FromVmx, PowerMode, ToVmx};

/// Waits until both processors have sent their letter after byte `*seen` of the serial port.
async fn both(core: &mut Core, seen: &mut u64) {
    let start = *seen;
    core.expect(seen, "A").await;
    let mut other = start;
    core.expect(&mut other, "B").await;
    *seen = other.max(*seen);
}

/// The end of what was sent, asked for while the machine stands still.
async fn end(core: &mut Core, from: u64) -> u64 {
    match core.ask(|request| ToVmx::SerialRead { request, port: 0, offset: from, max: 60_000, wait: 0 }).await
    {
        FromVmx::Output { offset, bytes, .. } => offset + bytes.len() as u64,
        other => panic!("{other:?}"),
    }
}

#[test]
fn both_processors_stop_and_go_on() {
    if need("both_processors_stop_and_go_on").is_none() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let directory = tempfile::tempdir().unwrap();
        counter(directory.path());
        let lines = "numvcpus = \"2\"\nserial0.present = \"TRUE\"\nvmserverd.kernel = \"counter.elf\"\n";
        let config = write_vmx(directory.path(), lines);
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        assert_eq!(core.status().await.cpus, 2);
        let mut seen = 0;
        both(&mut core, &mut seen).await;
        core.must(|request| ToVmx::Pause { request }).await;
        let then = end(&mut core, seen).await;
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        assert_eq!(end(&mut core, seen).await, then, "both stand still");
        core.must(|request| ToVmx::Resume { request }).await;
        seen = then;
        both(&mut core, &mut seen).await;
        let name = String::new;
        let snapshot =
            |request| ToVmx::CreateSnapshot { request, name: name(), description: name(), memory: true };
        let answer = core.ask(snapshot).await;
        assert!(matches!(answer, FromVmx::SnapshotMade { id: 1, .. }), "{answer:?}");
        both(&mut core, &mut seen).await;
        core.must(|request| ToVmx::RevertToSnapshot { request, id: None }).await;
        core.must(|request| ToVmx::Pause { request }).await;
        seen = end(&mut core, 0).await;
        core.must(|request| ToVmx::Resume { request }).await;
        both(&mut core, &mut seen).await;
        core.must(|request| ToVmx::Reset { request, mode: PowerMode::Hard }).await;
        core.must(|request| ToVmx::Pause { request }).await;
        seen = end(&mut core, seen).await;
        core.must(|request| ToVmx::Resume { request }).await;
        both(&mut core, &mut seen).await;
        core.must(|request| ToVmx::Suspend { request, mode: PowerMode::Hard }).await;
        core.ended().await;
        let (mut core, answer) = Core::start(&config, Begin::PowerOn).await;
        assert!(matches!(answer, FromVmx::Done { .. }), "{answer:?}");
        both(&mut core, &mut seen).await;
        core.stop().await;
    });
}
