//! P1, P2 and P3: many connections, one question after another on each.

use std::os::unix::net::UnixStream;

use crate::Result;
use crate::bench::bounds::Bound;
use crate::bench::client::{self, Exchange};
use crate::bench::load::{self, Sample};
use crate::bench::report::{Against, Line, Outcome, Target};
use crate::bench::{Bench, Sides};

/// Connections that are busy at the same time.
const CONNECTIONS: usize = 64;

/// Local calls per second.
pub static P1: Target = Target {
    id: "P1",
    what: "local inc, 64 connections",
    unit: "calls/s",
    digits: 0,
    more: true,
    lines: &[
        Line { against: Against::Peer, pass: Some(4.0), stretch: Some(5.5) },
        Line { against: Against::Bound, pass: Some(0.70), stretch: Some(0.85) },
    ],
};

/// The same through TLS.
pub static P2: Target = Target {
    id: "P2",
    what: "remote inc through TLS, 64 connections",
    unit: "calls/s",
    digits: 0,
    more: true,
    lines: &[
        Line { against: Against::Peer, pass: Some(2.5), stretch: Some(3.5) },
        Line { against: Against::Bound, pass: Some(0.80), stretch: Some(0.95) },
    ],
};

/// Latencies of P1.
pub static P3: Target = Target {
    id: "P3",
    what: "p99 of P1",
    unit: "ms",
    digits: 3,
    more: false,
    lines: &[
        Line { against: Against::Peer, pass: Some(0.5), stretch: None },
        Line { against: Against::Bound, pass: None, stretch: Some(1.3) },
    ],
};

/// P1 and P3: unix sockets after the hand-over, `virDomainGetInfo`, direct echo.
///
/// # Errors
/// When a side fails.
pub fn local(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let answer = bench.answer()?;
    let echo = Bound::echo(bench.scratch(), &answer)?;
    let socket = bench.ours()?.socket.clone();
    let length = bench.length();
    let sides = bench.alternate(
        "P1",
        || {
            let callers = connect(|| client::unix(&socket))?;
            load::run(&mut exchanges(callers), length)
        },
        |libvirt| libvirt.calls(&libvirt.unix, CONNECTIONS, length),
        || {
            let callers = connect(|| UnixStream::connect(&echo.path))?;
            load::run(&mut exchanges(callers), length)
        },
    )?;
    let rates = sides.outcome(&P1, |sample| sample.rate, latencies(&sides));
    let p99 = sides.outcome(&P3, |sample| sample.p99, Vec::new());
    Ok(vec![rates, p99])
}

/// P2: the TLS port, libvirt's TLS port, a bare relay.
///
/// # Errors
/// When a side fails.
pub fn remote(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let answer = bench.answer()?;
    let ours = bench.ours()?;
    let (port, certificate) = (ours.tls_port, ours.certificate());
    let relay = Bound::tls_relay(bench.scratch(), &answer, &certificate)?;
    let config = client::tls_config()?;
    let length = bench.length();
    let sides = bench.alternate(
        "P2",
        || {
            let callers = connect(|| client::tls(port, &config))?;
            load::run(&mut exchanges(callers), length)
        },
        |libvirt| libvirt.calls(&libvirt.tls, CONNECTIONS, length),
        || {
            let callers = connect(|| client::bare_tls(relay.port, &config))?;
            load::run(&mut exchanges(callers), length)
        },
    )?;
    Ok(vec![sides.outcome(&P2, |sample| sample.rate, latencies(&sides))])
}

/// All connections, one after another: before the login one address may only have so many.
///
/// # Errors
/// When one cannot be made.
pub fn connect<S>(mut one: impl FnMut() -> std::io::Result<S>) -> Result<Vec<S>> {
    let all = (0..CONNECTIONS).map(|_| one()).collect::<std::io::Result<_>>();
    all.map_err(|error| format!("cannot connect: {error}"))
}

fn exchanges<S: std::io::Read + std::io::Write>(streams: Vec<S>) -> Vec<Exchange<S>> {
    streams.into_iter().map(Exchange::new).collect()
}

/// Latencies of all sides, for the reader.
fn latencies(sides: &Sides) -> Vec<String> {
    let describe = |name: &str, samples: &[Sample]| {
        let rounds: Vec<String> = samples
            .iter()
            .map(|sample| {
                format!(
                    "{:.0}/s p50 {:.2} p99 {:.2} max {:.1} ms",
                    sample.rate, sample.p50, sample.p99, sample.slowest
                )
            })
            .collect();
        format!("{name:<6}{}", rounds.join(" | "))
    };
    let mut notes = vec![describe("ours", &sides.ours)];
    notes.extend(sides.peer.as_ref().ok().map(|samples| describe("peer", samples)));
    notes.push(describe("bound", &sides.bound));
    notes.extend(sides.notes.iter().cloned());
    notes
}
