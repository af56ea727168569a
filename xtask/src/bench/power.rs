//! P12 to P14: machines that are powered on.
//!
//! ```text
//!   P12  request ─▶ first instruction      peer: QEMU microvm, start to end   bound: bare KVM, start to write
//!   P13  memory of a machine's process     peer: QEMU, paused
//!   P14  64 requests at once ─▶ banners    bound: 64 bare machines in one process
//! ```
//!
//! Our side counts until the client holds the byte that the guest's first instructions sent to the serial
//! port: the request, the process, the machine, its first exit, and one more request.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::Bench;
use crate::bench::child::Child;
use crate::bench::files::Session;
use crate::bench::guest::{self, BANNER, Job};
use crate::bench::qemu::{self, Qemu};
use crate::bench::report::{Against, Line, Outcome, Target, median};
use crate::bench::rig::{self, Rig};
use crate::skip::skipped;

/// Memory of the machines of P12 and P13, in MiB.
const MEMORY: u32 = 128;

/// Machines of P14, and the memory of each.
const MACHINES: usize = 64;
const MEMORY_EACH: u32 = 32;

/// Power-ons of a round.
const TIMES: usize = 9;

/// Powering on.
pub static P12: Target = Target {
    id: "P12",
    what: "power-on request to the first output of the guest, p50",
    unit: "ms",
    digits: 2,
    more: false,
    lines: &[
        Line { against: Against::Fixed, pass: Some(12.0), stretch: None },
        Line { against: Against::Peer, pass: Some(0.3), stretch: None },
        Line { against: Against::Bound, pass: None, stretch: Some(2.0) },
    ],
};

/// Memory of a process.
pub static P13: Target = Target {
    id: "P13",
    what: "private dirty memory of a machine's process, guest memory excluded",
    unit: "KiB",
    digits: 0,
    more: false,
    lines: &[Line { against: Against::Fixed, pass: Some(5.0 * 1024.0), stretch: Some(2.0 * 1024.0) }],
};

/// Many at once.
pub static P14: Target = Target {
    id: "P14",
    what: "64 machines powered on at once, to the last banner",
    unit: "ms",
    digits: 0,
    more: false,
    lines: &[Line { against: Against::Fixed, pass: Some(1000.0), stretch: Some(300.0) }],
};

/// Milliseconds since then.
fn since(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

/// The median of several tries.
fn several(times: usize, mut once: impl FnMut() -> Result<f64>) -> Result<f64> {
    Ok(median(&(0..times).map(|_| once()).collect::<Result<Vec<f64>>>()?))
}

/// A guest's image as a file.
pub fn rom(bench: &Bench, name: &str, job: Job) -> Result<PathBuf> {
    let path = bench.scratch().join(format!("{name}.rom"));
    std::fs::write(&path, guest::image(job)).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// Whether machines and the peer can run; says what cannot.
pub fn sides(bench: &Bench, what: &str) -> Option<Result<()>> {
    if let Err(why) = rig::kvm() {
        skipped(what, &why);
        return None;
    }
    let missing = if bench.without_peer { Some("--without-peer".to_owned()) } else { qemu::missing() };
    Some(match missing {
        Some(why) => {
            skipped(&format!("the peer of {what}"), &why);
            Err(why)
        }
        None => Ok(()),
    })
}

/// The bound: so many machines by bare calls, from the start of their process.
fn bare(program: &Path, scratch: &Path, count: usize, megabytes: u32, rom: &Path) -> Result<f64> {
    let (count, megabytes, rom) = (count.to_string(), megabytes.to_string(), rom.display().to_string());
    let start = Instant::now();
    let mut child = Child::start(program, Stdio::piped(), &[&count, &megabytes, &rom], scratch)?;
    child.line()?;
    let took = since(start);
    child.finish();
    Ok(took)
}

/// P12.
///
/// # Errors
/// When a side fails.
pub fn on(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let Some(peer) = sides(bench, "P12") else { return Ok(Vec::new()) };
    let program = bench.bin_dir().join("bare-kvm");
    let rom = rom(bench, "banner", Job::Banner)?;
    let rig = Rig::new(bench, "p12", Job::Banner, (1, MEMORY), "")?;
    let config = rig.first()?;
    let mut session = rig.session()?;
    let mut quiet = bench.quiet();
    let (mut ours, mut theirs, mut bound, mut answered) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        eprintln!("xtask: P12, round {round} of {}", bench.rounds);
        let mut answers = Vec::new();
        ours.push(quiet.phase(|| {
            answers.clear();
            several(TIMES, || {
                let start = Instant::now();
                rig::start(&mut session, config)?;
                answers.push(since(start));
                rig::wait_sent(&mut session, config, 1)?;
                let took = since(start);
                rig::stop(&mut session, config)?;
                Ok(took)
            })
        })?);
        answered.push(median(&answers));
        if peer.is_ok() {
            theirs.push(quiet.phase(|| {
                several(TIMES, || {
                    let exit = ["-M", "microvm", "-device", "isa-debug-exit,iobase=0xf4,iosize=1"];
                    let start = Instant::now();
                    Qemu::start(bench.scratch(), &rom, MEMORY, &exit)?.ended()?;
                    Ok(since(start))
                })
            })?);
        }
        bound.push(quiet.phase(|| several(TIMES, || bare(&program, bench.scratch(), 1, MEMORY, &rom)))?);
    }
    let notes =
        vec![format!("the request itself is answered after {:.2} ms", median(&answered)), quiet.describe()];
    let peer = Some(peer.map(|()| theirs));
    Ok(vec![Outcome { target: &P12, ours, peer, bound: Some(Ok(bound)), notes }])
}

/// KiB that a process alone has written to, but for mappings of the size of the guest's memory.
fn private_dirty(pid: u32, megabytes: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps");
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error} (root can)"))?;
    let guest = u64::from(megabytes) << 10;
    let (mut size, mut sum) = (0, 0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (name, number) = (words.next(), words.next().and_then(|number| number.parse::<u64>().ok()));
        match (name, number) {
            (Some("Size:"), Some(number)) => size = number,
            // The kernel may show it as one with a neighbour, such as the firmware's.
            (Some("Private_Dirty:"), Some(number)) if size < guest || size > guest + 1024 => sum += number,
            _ => {}
        }
    }
    Ok(sum as f64)
}

/// P13.
///
/// # Errors
/// When a side fails.
pub fn memory(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let Some(peer) = sides(bench, "P13") else { return Ok(Vec::new()) };
    let rom = rom(bench, "banner", Job::Banner)?;
    let rig = Rig::new(bench, "p13", Job::Banner, (1, MEMORY), "")?;
    let config = rig.first()?;
    let mut session = rig.session()?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        eprintln!("xtask: P13, round {round} of {}", bench.rounds);
        rig::start(&mut session, config)?;
        rig::wait_sent(&mut session, config, 1 + BANNER.len())?;
        std::thread::sleep(Duration::from_secs(1));
        let pid = rig.processes().first().copied().ok_or("P13: no process runs a machine")?;
        ours.push(private_dirty(pid, MEMORY)?);
        rig::stop(&mut session, config)?;
        if peer.is_ok() {
            let mut qemu = Qemu::start(bench.scratch(), &rom, MEMORY, &["-M", "pc", "-S"])?;
            qemu.monitor()?.until("query-status", "status", "prelaunch")?;
            std::thread::sleep(Duration::from_secs(1));
            theirs.push(private_dirty(qemu.pid(), MEMORY)?);
        }
    }
    Ok(vec![Outcome {
        target: &P13,
        ours,
        peer: Some(peer.map(|()| theirs)),
        bound: None,
        notes: Vec::new(),
    }])
}

/// Does the same with all machines, each on a session and a thread of its own.
fn at_once(
    sessions: &mut [Session],
    configs: &[PathBuf],
    work: fn(&mut Session, &Path) -> Result<()>,
) -> Result<()> {
    std::thread::scope(|scope| {
        let pairs = sessions.iter_mut().zip(configs);
        let threads: Vec<_> =
            pairs.map(|(session, config)| scope.spawn(move || work(session, config))).collect();
        let mut ended = threads.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended.try_for_each(|ended| ended.unwrap_or_else(|_| Err("a caller failed".into())))
    })
}

/// P14.
///
/// # Errors
/// When a side fails.
pub fn many(bench: &mut Bench) -> Result<Vec<Outcome>> {
    if let Err(why) = rig::kvm() {
        skipped("P14", &why);
        return Ok(Vec::new());
    }
    let program = bench.bin_dir().join("bare-kvm");
    let rom = rom(bench, "banner", Job::Banner)?;
    let rig = Rig::new(bench, "p14", Job::Banner, (MACHINES, MEMORY_EACH), "")?;
    let mut sessions = rig.configs.iter().map(|_| rig.session()).collect::<Result<Vec<_>>>()?;
    let mut quiet = bench.quiet();
    let (mut ours, mut bound) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        eprintln!("xtask: P14, round {round} of {}", bench.rounds);
        ours.push(quiet.phase(|| {
            let start = Instant::now();
            at_once(&mut sessions, &rig.configs, |session, config| {
                rig::start(session, config)?;
                rig::wait_sent(session, config, 1 + BANNER.len())
            })?;
            let took = since(start);
            let running = rig.processes().len();
            if running != MACHINES {
                return Err(format!("P14: {running} machines run"));
            }
            at_once(&mut sessions, &rig.configs, rig::stop)?;
            Ok(took)
        })?);
        bound.push(quiet.phase(|| bare(&program, bench.scratch(), MACHINES, MEMORY_EACH, &rom))?);
    }
    Ok(vec![Outcome {
        target: &P14,
        ours,
        peer: None,
        bound: Some(Ok(bound)),
        notes: vec![quiet.describe()],
    }])
}
