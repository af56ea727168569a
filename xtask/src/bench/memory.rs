//! P7: what an idle connection costs in resident memory, over all processes of a side.
//!
//! Resident is `Rss` of `/proc/PID/smaps_rollup`, summed over the daemon and its descendants. A few
//! connections are opened first and kept, so that code pages and tables that one connection needs
//! are not counted as the cost of all. Each kind of connection has processes of its own: memory that
//! an earlier measurement has given back to the allocator would hide what the next one takes.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::Result;
use crate::bench::Bench;
use crate::bench::bounds::Bound;
use crate::bench::client::{self, Exchange};
use crate::bench::libvirt::Libvirt;
use crate::bench::ours::Ours;
use crate::bench::report::{Against, Line, Outcome, Rounds, Target};

/// Connections that are open before the first reading.
const FIRST: usize = 16;
/// libvirt's client needs three descriptors for a connection, so several of them share the work.
const PER_CLIENT: usize = 4000;
/// Descriptors that are left for everything else in a process.
const RESERVE: u64 = 500;

/// Plain connections.
pub static P7_PLAIN: Target = Target {
    id: "P7",
    what: "resident memory per idle plain connection",
    unit: "bytes",
    digits: 0,
    more: false,
    lines: &[Line { against: Against::Fixed, pass: Some(2500.0), stretch: Some(1200.0) }],
};

/// TLS connections.
pub static P7_TLS: Target = Target {
    id: "P7",
    what: "resident memory per idle TLS connection",
    unit: "bytes",
    digits: 0,
    more: false,
    lines: &[Line { against: Against::Fixed, pass: Some(14_000.0), stretch: Some(10_000.0) }],
};

/// Plain, then TLS.
///
/// # Errors
/// When a side fails.
pub fn idle(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let answer = bench.answer()?;
    let certificate = bench.ours()?.certificate();
    // The tightest process holds one descriptor for a plain connection and three for one through TLS.
    let limit = descriptors().saturating_sub(RESERVE);
    let plain = usize::try_from(limit).unwrap_or(usize::MAX).min(10_000);
    let tls = usize::try_from(limit / 3).unwrap_or(usize::MAX).min(5_000);
    Ok(vec![plain_side(bench, &answer, plain)?, tls_side(bench, &answer, &certificate, tls)?])
}

fn plain_side(bench: &Bench, answer: &str, count: usize) -> Result<Outcome> {
    let ours = Ours::start(bench.scratch(), "plain", bench.bin_dir())?;
    let (cost, mut notes) = cost(ours.pid(), true, count, || Ok(asked(client::unix(&ours.socket)?)))?;
    drop(ours);
    let echo = Bound::echo(bench.scratch(), answer)?;
    let connect = || std::os::unix::net::UnixStream::connect(&echo.path);
    let (bound, _) = self::cost(echo.front.pid(), false, count, || Ok(asked(connect()?)))?;
    notes
        .insert(0, format!("{count} connections; bound is the direct echo, with a buffer of 512 bytes each"));
    let peer = peer(bench, count, |libvirt| libvirt.unix.clone());
    Ok(Outcome { target: &P7_PLAIN, ours: vec![cost], peer: Some(peer), bound: Some(Ok(vec![bound])), notes })
}

fn tls_side(
    bench: &Bench,
    answer: &str,
    certificate: &(std::path::PathBuf, std::path::PathBuf),
    count: usize,
) -> Result<Outcome> {
    let config = client::tls_config()?;
    let ours = Ours::start(bench.scratch(), "tls", bench.bin_dir())?;
    let (cost, mut notes) =
        cost(ours.pid(), true, count, || Ok(asked(client::tls(ours.tls_port, &config)?)))?;
    drop(ours);
    let relay = Bound::tls_relay(bench.scratch(), answer, certificate)?;
    let connect = || client::bare_tls(relay.port, &config);
    let (bound, _) = self::cost(relay.front.pid(), false, count, || Ok(asked(connect()?)))?;
    notes.insert(
        0,
        format!("{count} connections; bound is the TLS relay alone, with two buffers of 8 KiB each"),
    );
    let peer = peer(bench, count, |libvirt| libvirt.tls.clone());
    Ok(Outcome { target: &P7_TLS, ours: vec![cost], peer: Some(peer), bound: Some(Ok(vec![bound])), notes })
}

/// A connection that has asked once: then the hand-over is over, and so is what the first request
/// allocates.
fn asked<S: std::io::Read + std::io::Write>(stream: S) -> Result<Exchange<S>, std::io::Error> {
    let mut exchange = Exchange::new(stream);
    exchange.first()?;
    Ok(exchange)
}

/// Opens `count` connections to the processes at and below `top` (without `top` itself if it is only
/// the supervisor) and returns bytes per connection, and how they spread over the processes.
fn cost<S>(
    top: u32,
    supervisor: bool,
    count: usize,
    mut connect: impl FnMut() -> std::io::Result<S>,
) -> Result<(f64, Vec<String>)> {
    let mut held = Vec::with_capacity(FIRST + count);
    let mut open = |wanted: usize, held: &mut Vec<S>| -> Result<()> {
        for number in 0..wanted {
            held.push(connect().map_err(|error| format!("connection {number} of {wanted}: {error}"))?);
        }
        Ok(())
    };
    open(FIRST, &mut held)?;
    let skip = supervisor.then_some(top);
    let before = settled(top, skip)?;
    open(count, &mut held)?;
    let after = settled(top, skip)?;
    let notes = spread(&before, &after, count);
    Ok((per_connection(&before, &after, count), vec![notes]))
}

/// libvirtd, in the same way.
fn peer(bench: &Bench, count: usize, uri: impl Fn(&Libvirt) -> String) -> Rounds {
    bench.peer()?;
    let libvirt = Libvirt::start(bench.scratch(), "libvirt-idle")?;
    let uri = uri(&libvirt);
    let mut held = vec![libvirt.hold(&uri, FIRST)?];
    let before = settled(libvirt.pid(), None)?;
    let mut left = count;
    while left > 0 {
        let now = left.min(PER_CLIENT);
        held.push(libvirt.hold(&uri, now)?);
        left -= now;
    }
    let after = settled(libvirt.pid(), None)?;
    for client in held {
        client.finish();
    }
    Ok(vec![per_connection(&before, &after, count)])
}

/// Resident bytes by process.
type Resident = BTreeMap<u32, (String, u64)>;

fn per_connection(before: &Resident, after: &Resident, count: usize) -> f64 {
    let sum = |resident: &Resident| resident.values().map(|(_, bytes)| *bytes as f64).sum::<f64>();
    (sum(after) - sum(before)) / count as f64
}

/// Which process grew by how much.
fn spread(before: &Resident, after: &Resident, count: usize) -> String {
    let base: u64 = before.values().map(|(_, bytes)| bytes).sum();
    let grown = after.iter().filter_map(|(pid, (name, bytes))| {
        let earlier = before.get(pid).map_or(0, |(_, bytes)| *bytes);
        let each = (*bytes as f64 - earlier as f64) / count as f64;
        (each.abs() >= 1.0).then(|| format!("{name} {each:.0}"))
    });
    format!("by process: {}; base {} KiB", grown.collect::<Vec<_>>().join(", "), base / 1024)
}

/// Readings until two in a row agree: what is freed after a login has then been freed.
fn settled(top: u32, skip: Option<u32>) -> Result<Resident> {
    let mut last = resident(top, skip)?;
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(500));
        let now = resident(top, skip)?;
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last)
}

/// Reads the resident memory of a process and its descendants.
fn resident(top: u32, skip: Option<u32>) -> Result<Resident> {
    let mut wanted = vec![top];
    let mut found = Resident::new();
    while let Some(pid) = wanted.pop() {
        wanted.extend(children(pid));
        if Some(pid) == skip {
            continue;
        }
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            // It ended between the two looks.
            Err(error) if error.raw_os_error() == Some(3) || error.kind() == std::io::ErrorKind::NotFound => {
                continue;
            }
            Err(error) => return Err(format!("cannot read {path}: {error} (root may)")),
        };
        let kib =
            text.lines().find_map(|line| line.strip_prefix("Rss:")?.trim().strip_suffix(" kB")?.parse().ok());
        let kib: u64 = kib.ok_or_else(|| format!("{path} has no Rss"))?;
        found.insert(pid, (name(pid), kib * 1024));
    }
    Ok(found)
}

fn children(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.map(|task| std::fs::read_to_string(task.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Program and role, for the reader: `vmware-authd net`.
fn name(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let mut words = line.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    let program = words.next().unwrap_or_default();
    let program = program.rsplit('/').next().unwrap_or_default().to_owned();
    match words.next() {
        Some(role) if !role.is_empty() && !role.starts_with('-') => format!("{program} {role}"),
        _ => program,
    }
}

/// The number of descriptors a process may have, raised as far as this one may raise it; what is
/// started afterwards inherits it.
fn descriptors() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let limit = if raised.is_ok() { maximum } else { current };
    limit.unwrap_or(1 << 20)
}
