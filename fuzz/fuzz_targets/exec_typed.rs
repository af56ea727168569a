//! The arguments of every operation: reading them as the type of any operation never panics, does not
//! depend on where `op` stands or on what stands around the envelope, and every refusal has a code of
//! the protocol. A connection to one machine changes nothing but that its machine need not be named, and
//! what the audit says of a request are paths that stand in it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ops::{Access, Document, ErrorCode, Fault, TABLE, envelope};

/// The machine of a connection.
const OWN: &str = "/own machine.vmx";

/// The outcome of a request: the operation that took it, or the fault. `None` when the guard refuses.
fn outcome(text: &str) -> Option<Result<&'static str, Fault>> {
    let document = Document::check(text).ok()?;
    Some(envelope::parse(document).and_then(|request| {
        let row = request.row();
        (row.check)(request.into_input()).map(|()| row.name)
    }))
}

/// On a connection to one machine: the same outcome, but for the machine that is not named.
fn about_a_machine(text: &str, first: &Result<&'static str, Fault>) {
    let Some(Ok(request)) = Document::check(text).ok().map(envelope::parse) else {
        return;
    };
    let row = request.row();
    let own = (row.check)(request.into_input().about(Some(OWN))).map(|()| row.name);
    match first {
        Err(Fault::Refused(error)) if error.text.ends_with("missing parameter config") => {}
        // In a list, as another name for its items, the machine may be the one that was missing.
        Err(Fault::Refused(error)) if error.text.contains("missing parameter") => {}
        first => assert_eq!(own, *first),
    }
}

/// Paths for the audit: none that the request does not hold, and no more than asked for.
fn subjects(text: &str) {
    let Some(Ok(request)) = Document::check(text).ok().map(envelope::parse) else {
        return;
    };
    let row = request.row();
    let (machine, paths) = request.input().subjects(row, 3);
    let tree = roxmltree::Document::parse(text).expect("roxmltree reads what the guard accepts");
    // Elements inside a value are left out of it, by us as by this reader.
    let texts = || {
        let elements = tree.descendants().filter(roxmltree::Node::is_element);
        elements.map(|node| {
            node.children().filter_map(|child| child.text().filter(|_| child.is_text())).collect()
        })
    };
    let stands_in_it = |path: &String| texts().any(|text: String| text.trim() == path);
    // roxmltree 0.21 does not fold every carriage return in a text that also holds references.
    assert!(text.contains('\r') || machine.iter().chain(&paths).all(stands_in_it), "{machine:?} {paths:?}");
    assert!(paths.len() <= 3 && paths.iter().all(|path| !path.is_empty()));
    let without = request.input().clone().about(Some(OWN)).subjects(row, 0);
    assert_eq!(without, (machine.or(Some(OWN.to_owned())), Vec::new()));
    // Who may not ask at all is told so, unless the document itself is wrong.
    let open = row.access == Access::AuthUser;
    match request.admit(false) {
        Ok(request) => assert!(open && request.admit(true).is_ok()),
        Err(Fault::Refused(error)) => assert!(!open && error.code == ErrorCode::NoAccess),
        Err(Fault::Malformed(_)) => assert!(!open),
    }
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
    let text = format!("<exec><op>{name}</op><in>{inside}</in></exec>");
    let first = outcome(&text);
    if let Some(first) = &first {
        about_a_machine(&text, first);
        subjects(&text);
    }
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
