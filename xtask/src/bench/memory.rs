//! P7: what an idle connection costs in resident memory, over all processes of a side.
//!
//! Resident is `Rss` of `/proc/PID/smaps_rollup`, summed over the daemons and their helpers. A few
//! connections are opened first and kept, so that code pages and tables that one connection needs
//! are not counted as the cost of all. Each kind of connection has processes of its own: memory that
//! an earlier measurement has given back to the allocator would hide what the next one takes.

use std::io::{Read, Write};
use std::path::PathBuf;

use crate::Result;
use crate::bench::Bench;
use crate::bench::bounds::Bound;
use crate::bench::client::{self, Exchange};
use crate::bench::libvirt::Libvirt;
use crate::bench::ours::Ours;
use crate::bench::process::{Tree, growth};
use crate::bench::report::{Against, Line, Outcome, Rounds, Target};

/// Connections that are open before the first reading.
const FIRST: usize = 16;
/// libvirt's client needs three descriptors for a connection, so several of them share the work.
const PER_CLIENT: usize = 4000;
/// Most connections of the peer: it looks at all of them at each event, and opening takes the longer
/// the more there are. The cost of one does not depend on how many there are.
const PEER_MOST: usize = 1500;
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
    id: "P7s",
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
    let limit = usize::try_from(descriptors().saturating_sub(RESERVE)).unwrap_or(usize::MAX);
    let (plain, tls) = (limit.min(bench.idle()), (limit / 3).min(bench.idle() / 2));
    Ok(vec![plain_side(bench, &answer, plain)?, tls_side(bench, &answer, &certificate, tls)?])
}

fn plain_side(bench: &mut Bench, answer: &str, count: usize) -> Result<Outcome> {
    eprintln!("xtask: P7, {count} plain connections");
    let ours = Ours::start(bench.scratch(), "plain", bench.bin_dir())?;
    let (cost, note) = cost(Tree::below(ours.pid()), count, || asked(client::unix(&ours.socket)?))?;
    drop(ours);
    let echo = Bound::echo(bench.scratch(), answer)?;
    let connect = || asked(std::os::unix::net::UnixStream::connect(&echo.path)?);
    let (bound, _) = self::cost(Tree::of(echo.front.pid()), count, connect)?;
    let notes = vec![note, "bound: the direct echo, with a buffer of 512 bytes for each".to_owned()];
    let peer = peer(bench, count, |libvirt| &libvirt.unix);
    Ok(Outcome { target: &P7_PLAIN, ours: vec![cost], peer: Some(peer), bound: Some(Ok(vec![bound])), notes })
}

fn tls_side(
    bench: &mut Bench,
    answer: &str,
    certificate: &(PathBuf, PathBuf),
    count: usize,
) -> Result<Outcome> {
    eprintln!("xtask: P7, {count} TLS connections");
    let config = client::tls_config()?;
    let ours = Ours::start(bench.scratch(), "tls", bench.bin_dir())?;
    let connect = || asked(client::tls(ours.tls_port, &config)?);
    let (cost, note) = cost(Tree::below(ours.pid()), count, connect)?;
    drop(ours);
    let relay = Bound::tls_relay(bench.scratch(), answer, certificate)?;
    let connect = || asked(client::bare_tls(relay.port, &config)?);
    let (bound, _) = self::cost(Tree::of(relay.front.pid()), count, connect)?;
    let notes = vec![note, "bound: the TLS relay alone, with two buffers of 8 KiB for each".to_owned()];
    let peer = peer(bench, count, |libvirt| &libvirt.tls);
    Ok(Outcome { target: &P7_TLS, ours: vec![cost], peer: Some(peer), bound: Some(Ok(vec![bound])), notes })
}

/// A connection that has asked once: then the hand-over is over, and so is what the first request
/// allocates.
fn asked<S: Read + Write>(stream: S) -> std::io::Result<Exchange<S>> {
    let mut exchange = Exchange::new(stream);
    exchange.first()?;
    Ok(exchange)
}

/// Opens connections and returns the bytes that each costs, and how they spread over the processes.
fn cost<S>(
    tree: Tree,
    count: usize,
    mut connect: impl FnMut() -> std::io::Result<S>,
) -> Result<(f64, String)> {
    let mut open = |wanted: usize| -> Result<Vec<S>> {
        let opened = (0..wanted).map(|_| connect()).collect::<std::io::Result<Vec<S>>>();
        opened.map_err(|error| format!("cannot open {wanted} connections: {error}"))
    };
    let first = open(FIRST)?;
    let before = tree.settled()?;
    let held = open(count)?;
    let after = tree.settled()?;
    let (each, by_process) = growth(&before, &after, held.len() as f64);
    let base: u64 = before.values().map(|(_, bytes)| bytes).sum();
    let shown = by_process.iter().filter(|(_, grown)| grown.abs() >= 0.5);
    let shown: Vec<String> = shown.map(|(name, grown)| format!("{name} {grown:.0}")).collect();
    drop((first, held));
    Ok((each, format!("{count} connections: {}; before them {} KiB in all", shown.join(", "), base / 1024)))
}

/// libvirtd, in the same way.
fn peer(bench: &mut Bench, count: usize, uri: impl Fn(&Libvirt) -> &String) -> Rounds {
    let libvirt = bench.fresh_peer()?;
    let count = count.min(PEER_MOST);
    eprintln!("xtask: P7, {count} connections of the peer");
    let (uri, tree) = (uri(&libvirt), Tree::of(libvirt.pid()));
    let mut held = vec![libvirt.hold(uri, FIRST)?];
    let before = tree.settled()?;
    let mut left = count;
    while left > 0 {
        let now = left.min(PER_CLIENT);
        held.push(libvirt.hold(uri, now)?);
        left -= now;
    }
    let after = tree.settled()?;
    held.into_iter().for_each(crate::bench::child::Child::finish);
    Ok(vec![growth(&before, &after, count as f64).0])
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
