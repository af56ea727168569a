//! The arguments of every operation: reading them as the type of any operation never panics, does not
//! depend on where `op` stands or on what stands around the envelope, and every refusal has a code of
//! the protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ops::{Document, ErrorCode, Fault, TABLE, envelope};

/// The outcome of a request: the operation that took it, or the fault. `None` when the guard refuses.
fn outcome(text: &str) -> Option<Result<&'static str, Fault>> {
    let document = Document::check(text).ok()?;
    Some(envelope::parse(document).and_then(|request| {
        let row = request.row();
        (row.check)(request.into_input()).map(|()| row.name)
    }))
}

fuzz_target!(|input: &[u8]| {
    let Some((&choice, inside)) = input.split_first() else {
        return;
    };
    let Ok(inside) = std::str::from_utf8(inside) else {
        return;
    };
    let Some(row) = TABLE.get(usize::from(choice) % (TABLE.len() + 1)) else {
        // One choice is left for whole documents.
        let _ = outcome(inside);
        return;
    };
    let name = row.name;
    let first = outcome(&format!("<exec><op>{name}</op><in>{inside}</in></exec>"));
    // The guard finds a plain envelope by itself; a comment makes it a special one, read in full.
    let special = outcome(&format!("<!----><exec><op>{name}</op><in>{inside}</in></exec>"));
    if inside.len() < 65_000 {
        assert_eq!(first, special);
    }
    // An input that closes `in` itself moves what follows to another place.
    if !inside.contains("</in") && !inside.contains("</exec") {
        let last = outcome(&format!("<exec><in>{inside}</in><op>{name}</op></exec>"));
        assert_eq!(first, last);
    }
    if let Some(Err(fault)) = first {
        let error = fault.into_error();
        let codes = [ErrorCode::InvalidArgs, ErrorCode::NotSupported];
        assert!(codes.contains(&error.code), "{error}");
        assert!(error.text.len() < 1000, "{error}");
    }
});
