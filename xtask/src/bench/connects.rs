//! P6: connect, log in, ask once, close; one after another.

use crate::Result;
use crate::bench::Bench;
use crate::bench::bounds::Bound;
use crate::bench::client::{BareVisit, Visit};
use crate::bench::load;
use crate::bench::report::{Against, Line, Outcome, Target, median};

/// Local visits per second.
pub static P6: Target = Target {
    id: "P6",
    what: "local connect, LOCAL, GLOBAL, inc, close",
    unit: "visits/s",
    digits: 0,
    more: true,
    lines: &[
        Line { against: Against::Peer, pass: Some(6.0), stretch: None },
        Line { against: Against::Bound, pass: None, stretch: Some(0.8) },
    ],
};

/// The unix socket, `virConnectOpen` and close, the bare hand-over.
///
/// # Errors
/// When a side fails.
pub fn local(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let answer = bench.answer()?;
    let bound = Bound::hand_over(bench.scratch(), &answer)?;
    let path = bench.ours()?.socket.clone();
    let length = bench.length();
    let visit = |stepwise| load::run(&mut [Visit { path: path.clone(), stepwise }], length);
    // A visitor who does not wait for replies is as legal; he is shown beside the figure.
    let mut at_once = Vec::new();
    let sides = bench.alternate(
        "P6",
        || visit(true),
        |libvirt| libvirt.opens(&libvirt.unix, length),
        || {
            at_once.push(visit(false)?.rate);
            load::run(&mut [BareVisit(bound.path.clone())], length)
        },
    )?;
    let p50 = median(&sides.ours.iter().map(|sample| sample.p50).collect::<Vec<_>>());
    let mut notes = vec![
        format!("p50 of a visit {p50:.3} ms"),
        format!("all lines sent at once: {:.0} visits/s", median(&at_once)),
    ];
    notes.extend(sides.notes.iter().cloned());
    Ok(vec![sides.outcome(&P6, |sample| sample.rate, notes)])
}
