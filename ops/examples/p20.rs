//! Times one request from bytes to its type, beside a bare quick-xml event loop over the same bytes.
//!
//! ```text
//!   A  guard -> envelope -> typed request -> dropped
//!   B  quick-xml events, nothing done with them
//! ```
//!
//! A and B alternate; the medians of the rounds are printed, and their ratio. This is figure P20 of
//! the targets: A at most 500 ns, better 350 ns, for a request of 100 bytes.
//!
//! `cargo run --release --package ops --example p20`

use std::hint::black_box;
use std::time::Instant;

use ops::file_manager::GetParentDir;
use ops::main_ops::{Div, Inc};
use ops::{Guard, Operation, Progress, envelope};

/// Requests per round and rounds; a round takes some milliseconds.
const REQUESTS: u32 = 20_000;
const ROUNDS: usize = 31;

fn main() {
    println!(
        "{:<24} {:>6} {:>9} {:>9} {:>9} {:>7}",
        "request", "bytes", "ours ns", "guard ns", "bare ns", "ratio"
    );
    row::<Inc>("inc", "<exec><op>inc</op><in><number>42</number></in></exec>");
    row::<Div>(
        "div, 100 bytes",
        "<exec><op>div</op><in><dividend>84000000000000</dividend><divisor>20000000000000</divisor></in></exec>",
    );
    row::<GetParentDir>(
        "GetParentDir, 100 bytes",
        "<exec><op>FileManager_GetParentDir</op><in><directory>/srv/machines/linux</directory></in></exec>",
    );
}

/// Measures one request.
fn row<O: Operation>(name: &str, document: &str) {
    let (mut ours, mut guard, mut bare) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        ours.push(time(|| {
            let document = ops::guard::Document::check(black_box(document)).expect("accepted");
            let request = envelope::parse(document).expect("an envelope");
            black_box(request.read::<O>().expect("typed"));
        }));
        guard.push(time(|| {
            let done = Guard::new().scan(black_box(document).as_bytes());
            assert_eq!(done, Progress::Document(document.len()));
        }));
        bare.push(time(|| {
            let mut reader = quick_xml::Reader::from_str(black_box(document));
            while !matches!(black_box(reader.read_event()), Ok(quick_xml::events::Event::Eof) | Err(_)) {}
        }));
    }
    let (ours, guard, bare) = (median(ours), median(guard), median(bare));
    println!("{name:<24} {:>6} {ours:>9.0} {guard:>9.0} {bare:>9.0} {:>7.2}", document.len(), ours / bare);
}

/// Nanoseconds per call.
fn time(mut once: impl FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..REQUESTS {
        once();
    }
    start.elapsed().as_nanos() as f64 / f64::from(REQUESTS)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
