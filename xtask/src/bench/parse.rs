//! P20: reading one request in memory, from its bytes to its type.
//!
//! ```text
//!   ours   guard and framing ─▶ envelope ─▶ typed request, dropped
//!   bound  quick-xml events over the same bytes, nothing done with them
//! ```

use std::hint::black_box;

use ops::file_manager::GetParentDir;
use ops::main_ops::Div;
use ops::{Inbox, Operation, envelope};
use quick_xml::Reader;
use quick_xml::events::Event;
use rustix::time::{ClockId, clock_gettime};

use crate::Result;
use crate::bench::quiet::Quiet;
use crate::bench::report::{Against, Line, Outcome, Target, median};

/// Guard, envelope and typed request.
pub static P20: Target = Target {
    id: "P20",
    what: "guard, envelope and typed request, 100 bytes",
    unit: "ns",
    digits: 0,
    more: false,
    lines: &[Line { against: Against::Fixed, pass: Some(500.0), stretch: Some(350.0) }],
};

/// The request of the figure: one argument, as `inc` has, and 100 bytes.
const PATH: &str =
    "<exec><op>FileManager_GetParentDir</op><in><directory>/srv/machines/debian12</directory></in></exec>";
/// Beside it, one of the same length with one more element.
const NUMBERS: &str =
    "<exec><op>div</op><in><dividend>8400000000000</dividend><divisor>2000000000000</divisor></in></exec>";

/// Requests per turn; a turn takes some milliseconds.
const REQUESTS: u32 = 20_000;
/// Turns of each side.
const TURNS: usize = 31;

/// Measures both requests; the first is the figure, the second a note.
///
/// # Errors
/// When a request is refused.
pub fn request(quiet: &mut Quiet) -> Result<Vec<Outcome>> {
    let (ours, bound) = quiet.phase(|| both::<GetParentDir>(PATH))?;
    let numbers = quiet.phase(|| both::<Div>(NUMBERS))?;
    let (more, bare) = (median(&numbers.0), median(&numbers.1));
    let ratio = median(&ours) / median(&bound);
    let notes = vec![
        format!(
            "{ratio:.2} x bare events; with two arguments: {more:.0} ns, bare events {bare:.0} ns, {:.2} x",
            more / bare
        ),
        quiet.describe(),
    ];
    Ok(vec![Outcome { target: &P20, ours, peer: None, bound: Some(Ok(bound)), notes }])
}

/// Nanoseconds per request of each turn: ours, and the event loop.
fn both<O: Operation>(document: &str) -> Result<(Vec<f64>, Vec<f64>)> {
    typed::<O>(document)?;
    let (mut ours, mut bound) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        ours.push(time(|| {
            let _ = black_box(typed::<O>(black_box(document)));
        }));
        bound.push(time(|| events(black_box(document))));
    }
    Ok((ours, bound))
}

/// The bound: events, and nothing done with them.
fn events(document: &str) {
    let mut reader = Reader::from_str(document);
    while !matches!(black_box(reader.read_event()), Ok(Event::Eof) | Err(_)) {}
}

/// Reads the request of the figure so often, `ours` or `bare`, for somebody who counts instructions.
///
/// # Errors
/// When the request is refused, or the word is another one.
pub fn repeat(what: &str, count: usize) -> Result<()> {
    for _ in 0..count {
        match what {
            "ours" => drop(black_box(typed::<GetParentDir>(black_box(PATH))?)),
            "bare" => events(black_box(PATH)),
            _ => return Err(format!("no such side: {what}")),
        }
    }
    Ok(())
}

/// What the session process does with the bytes of a request before a handler sees it.
fn typed<O: Operation>(document: &str) -> Result<O> {
    let mut inbox = Inbox::new();
    inbox.feed(document.as_bytes());
    let document = inbox.next().map_err(|reason| format!("{reason:?}"))?.ok_or("not complete")?;
    let request = envelope::parse(document).map_err(|fault| format!("{fault:?}"))?;
    request.read().map_err(|fault| format!("{fault:?}"))
}

/// Nanoseconds of processor time per call: what others do meanwhile does not count.
fn time(mut once: impl FnMut()) -> f64 {
    let start = now();
    for _ in 0..REQUESTS {
        once();
    }
    (now() - start) / f64::from(REQUESTS)
}

/// Processor time of this thread, in nanoseconds.
fn now() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 * 1e9 + now.tv_nsec as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_requests_have_the_length_of_the_target_and_are_read() {
        assert_eq!((NUMBERS.len(), PATH.len()), (100, 100));
        typed::<Div>(NUMBERS).unwrap();
        typed::<GetParentDir>(PATH).unwrap();
    }
}
