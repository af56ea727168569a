//! What a running machine stores: itself, when it is suspended, and what its guest writes to a disk.
//!
//! ```text
//!   SUSPEND  request ─▶ off, the state on the disk     peer: QEMU, stop and migrate to a file
//!   RESUME   request ─▶ the guest runs                 peer: QEMU, start with that file until it runs
//!   DISKR    sectors read by programmed I/O            peer: QEMU isapc, the same guest on the same image
//!   DISKW    sectors written and flushed
//! ```
//!
//! The suspended guest has written to every page of its 64 MiB. After each resume it repeats a byte, as
//! proof that it goes on.

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use crate::Result;
use crate::bench::Bench;
use crate::bench::guest::{BANNER, Job};
use crate::bench::power::{rom, sides};
use crate::bench::qemu::Qemu;
use crate::bench::report::{Against, Line, Outcome, Target, median};
use crate::bench::rig::{self, Rig};

/// Memory of a guest that is suspended, in MiB.
const MEMORY: u32 = 64;

/// Suspends and resumes of a round.
const TIMES: usize = 3;

/// Sectors of the disk, all of which are read.
const SECTORS: u32 = 16 * 1024;

/// Sectors that are written: where KVM emulates, every word is an exit of its own.
const WRITTEN: u32 = 1024;

/// Suspending.
pub static SUSPEND: Target = Target {
    id: "SUSPEND",
    what: "suspending a machine of 64 MiB, all of it written to",
    unit: "ms",
    digits: 1,
    more: false,
    lines: &[Line { against: Against::Peer, pass: Some(1.0), stretch: None }],
};

/// Going on.
pub static RESUME: Target = Target {
    id: "RESUME",
    what: "resuming it in a new process",
    unit: "ms",
    digits: 1,
    more: false,
    lines: &[Line { against: Against::Peer, pass: Some(1.0), stretch: None }],
};

/// Reading a disk.
pub static DISKR: Target = Target {
    id: "DISKR",
    what: "guest reads its IDE disk, programmed I/O",
    unit: "MiB/s",
    digits: 1,
    more: true,
    lines: &[Line { against: Against::Peer, pass: Some(1.0), stretch: None }],
};

/// Writing it.
pub static DISKW: Target = Target {
    id: "DISKW",
    what: "guest writes its IDE disk and flushes, programmed I/O",
    unit: "MiB/s",
    digits: 1,
    more: true,
    lines: &[Line { against: Against::Peer, pass: Some(1.0), stretch: None }],
};

fn since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// Medians of pairs.
fn medians(pairs: &[(f64, f64)]) -> (f64, f64) {
    let (first, second): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    (median(&first), median(&second))
}

/// What the guest has sent when it is up.
const UP: usize = 1 + BANNER.len();

/// SUSPEND and RESUME.
///
/// # Errors
/// When a side fails.
pub fn suspended(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let Some(peer) = sides(bench, "SUSPEND and RESUME") else { return Ok(Vec::new()) };
    let job = Job::Memory(MEMORY << 20);
    let rom = rom(bench, "memory", job)?;
    let rig = Rig::new(bench, "suspend", job, (1, MEMORY), "")?;
    let config = rig.first()?;
    let mut session = rig.session()?;
    let mut quiet = bench.quiet();
    let (mut ours, mut theirs, mut size, mut size_peer) = (Vec::new(), Vec::new(), 0, 0);
    let state = bench.scratch().join("qemu.state");
    let length = |path: &Path| std::fs::metadata(path).map_or(0, |facts| facts.len());
    for round in 1..=bench.rounds {
        eprintln!("xtask: SUSPEND RESUME, round {round} of {}", bench.rounds);
        ours.push(quiet.phase(|| {
            rig::start(&mut session, config)?;
            rig::wait_sent(&mut session, config, UP)?;
            let mut pairs = Vec::new();
            for number in 1..=TIMES {
                let start = Instant::now();
                rig::suspend(&mut session, config)?;
                let suspended = since(start);
                size = length(&config.with_extension("vmss"));
                let start = Instant::now();
                rig::start(&mut session, config)?;
                pairs.push((suspended, since(start)));
                rig::send(&mut session, config, "x")?;
                rig::wait_sent(&mut session, config, UP + number)?;
            }
            rig::stop(&mut session, config)?;
            Ok(medians(&pairs))
        })?);
        if peer.is_ok() {
            theirs.push(quiet.phase(|| {
                let machine = |more: &[&str]| {
                    let arguments = [&["-M", "pc", "-serial", "stdio"], more].concat();
                    Qemu::start(bench.scratch(), &rom, MEMORY, &arguments)
                };
                let mut qemu = machine(&[])?;
                qemu.wait_sent(UP)?;
                let mut pairs = Vec::new();
                for _ in 0..TIMES {
                    let mut monitor = qemu.monitor()?;
                    // As fast as it can: it would keep to a limit otherwise.
                    monitor.ask("migrate-set-parameters", &json!({"max-bandwidth": 1u64 << 40}))?;
                    let start = Instant::now();
                    monitor.ask("stop", &json!({}))?;
                    let uri = format!("exec:cat > {}", state.display());
                    monitor.ask("migrate", &json!({"uri": uri}))?;
                    monitor.until("query-migrate", "status", "completed")?;
                    let suspended = since(start);
                    drop(qemu);
                    size_peer = length(&state);
                    let start = Instant::now();
                    qemu = machine(&["-incoming", &format!("exec:cat {}", state.display())])?;
                    let mut monitor = qemu.monitor()?;
                    // It comes stopped, as it was.
                    monitor.until("query-migrate", "status", "completed")?;
                    monitor.ask("cont", &json!({}))?;
                    pairs.push((suspended, since(start)));
                    qemu.send("x")?;
                    qemu.wait_sent(1)?;
                }
                Ok(medians(&pairs))
            })?);
        }
    }
    let sizes = format!("the file has {} KiB, the peer's {}; ours is flushed", size >> 10, size_peer >> 10);
    let side = |pick: fn(&(f64, f64)) -> f64| {
        let theirs = peer.clone().map(|()| theirs.iter().map(pick).collect());
        (ours.iter().map(pick).collect(), Some(theirs))
    };
    let ((saving, saving_peer), (going, going_peer)) = (side(|pair| pair.0), side(|pair| pair.1));
    Ok(vec![
        Outcome {
            target: &SUSPEND,
            ours: saving,
            peer: saving_peer,
            bound: None,
            notes: vec![sizes, quiet.describe()],
        },
        Outcome { target: &RESUME, ours: going, peer: going_peer, bound: None, notes: Vec::new() },
    ])
}

/// A disk of both sides: one flat file with something in every sector, and its descriptor.
fn image(scratch: &Path) -> Result<PathBuf> {
    let said = |error: std::io::Error| format!("the disk: {error}");
    let bytes: Vec<u8> = (0..SECTORS * 512).map(|place| (place ^ place >> 9) as u8).collect();
    std::fs::write(scratch.join("disk-flat.vmdk"), bytes).map_err(said)?;
    let descriptor = format!(
        "# Disk DescriptorFile\nversion=1\nCID=7a7a7a7a\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\
         RW {SECTORS} FLAT \"disk-flat.vmdk\" 0\nddb.virtualHWVersion = \"4\"\nddb.adapterType = \"ide\"\n\
         ddb.geometry.cylinders = \"16\"\nddb.geometry.heads = \"16\"\nddb.geometry.sectors = \"63\"\n"
    );
    let path = scratch.join("disk.vmdk");
    std::fs::write(&path, descriptor).map_err(said)?;
    Ok(path)
}

/// DISKR and DISKW.
///
/// # Errors
/// When a side fails.
pub fn disks(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let Some(peer) = sides(bench, "DISKR and DISKW") else { return Ok(Vec::new()) };
    let disk = image(bench.scratch())?;
    let mut outcomes = Vec::new();
    for (target, name, sectors, job) in
        [(&DISKR, "diskr", SECTORS, Job::Read(SECTORS)), (&DISKW, "diskw", WRITTEN, Job::Write(WRITTEN))]
    {
        let rom = rom(bench, name, job)?;
        let lines = format!("ide0:0.present = \"TRUE\"\nide0:0.fileName = \"{}\"\n", disk.display());
        let rig = Rig::new(bench, name, job, (1, 16), &lines)?;
        let config = rig.first()?;
        let mut session = rig.session()?;
        let mut quiet = bench.quiet();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        let rate = |start: Instant| f64::from(sectors) / 2048.0 / start.elapsed().as_secs_f64();
        for round in 1..=bench.rounds {
            eprintln!("xtask: {}, round {round} of {}", target.id, bench.rounds);
            // '!', then 'S', then 'E'.
            ours.push(quiet.phase(|| {
                rig::start(&mut session, config)?;
                rig::wait_sent(&mut session, config, 2)?;
                let start = Instant::now();
                rig::wait_sent(&mut session, config, 3)?;
                let rate = rate(start);
                rig::stop(&mut session, config)?;
                Ok(rate)
            })?);
            if peer.is_ok() {
                theirs.push(quiet.phase(|| {
                    let drive = format!("file={},format=vmdk,if=ide,index=0", disk.display());
                    let arguments = ["-M", "isapc", "-serial", "stdio", "-drive", &drive];
                    let mut qemu = Qemu::start(bench.scratch(), &rom, 16, &arguments)?;
                    qemu.wait_sent(2)?;
                    let start = Instant::now();
                    qemu.wait_sent(1)?;
                    Ok(rate(start))
                })?);
            }
        }
        let notes = vec![format!("{} KiB each time", sectors / 2), quiet.describe()];
        outcomes.push(Outcome {
            target,
            ours,
            peer: Some(peer.clone().map(|()| theirs)),
            bound: None,
            notes,
        });
    }
    Ok(outcomes)
}
