//! The attack documents and bad values of the targets, from bytes to the reply.
//!
//! None of these tests looks at a clock: that the cost stays linear is shown by counting how few
//! bytes the guard looks at before it refuses, and by the memory that the inbox holds.

use std::fmt::Write as _;

use ops::file_manager::GetParentDir;
use ops::main_ops::Inc;
use ops::{Document, Error, Fault, Inbox, Operation, Reason, envelope};

/// Sends a stream in reads as large as the inbox offers, until a decision. Returns the reason or the
/// number of documents, and the most memory that was held.
fn send(stream: &[u8]) -> (Result<usize, Reason>, usize) {
    let mut inbox = Inbox::new();
    let (mut rest, mut documents, mut memory) = (stream, 0, 0);
    while !rest.is_empty() {
        let room = inbox.room();
        let (now, later) = rest.split_at((room.capacity() - room.len()).min(rest.len()));
        room.extend_from_slice(now);
        rest = later;
        memory = memory.max(inbox.capacity());
        loop {
            match inbox.next() {
                Ok(Some(_)) => documents += 1,
                Ok(None) => break,
                Err(reason) => return (Err(reason), memory),
            }
        }
    }
    (Ok(documents), memory)
}

/// Asserts that a document is refused for that reason and within the memory of one request.
fn refused(stream: &str, reason: Reason) {
    let (result, memory) = send(stream.as_bytes());
    assert_eq!(result, Err(reason), "{stream:.80}");
    assert!(memory <= 2 * 65_536, "{memory} bytes for {stream:.80}");
}

#[test]
fn entity_bombs_end_at_the_document_type() {
    refused(
        "<!DOCTYPE exec [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;'>]><exec><op>&b;</op></exec>",
        Reason::DocumentType,
    );
    refused("<!DOCTYPE exec SYSTEM 'file:///etc/passwd'><exec/>", Reason::DocumentType);
    refused("<exec><op>&b;</op></exec>", Reason::Entity);
}

#[test]
fn deep_nesting_ends_at_the_limit() {
    for depth in [17, 1000, 1_000_000] {
        refused(&format!("<exec>{}", "<a>".repeat(depth)), Reason::TooDeep(16));
        refused(&format!("<exec>{}", "<a b='c'>".repeat(depth)), Reason::TooDeep(16));
    }
}

#[test]
fn one_tag_with_many_attributes_ends_at_the_limit() {
    for size in [16, 64, 256, 1024] {
        let mut tag = String::from("<exec");
        let mut n = 0;
        while tag.len() < size * 1024 {
            let _ = write!(tag, " a{n}=''");
            n += 1;
        }
        refused(&(tag + "/>"), Reason::TooManyAttributes(64));
    }
}

#[test]
fn namespaces_end_at_the_first() {
    for size in [4, 16, 64, 256, 1024] {
        let mut one_tag = String::from("<exec");
        let mut nested = String::from("<exec>");
        let mut n = 0;
        while one_tag.len() < size * 1024 {
            let _ = write!(one_tag, " xmlns:n{n}='u'");
            let _ = write!(nested, "<a xmlns:n{n}='u'>");
            n += 1;
        }
        refused(&(one_tag + "/>"), Reason::Namespace);
        refused(&nested, Reason::Namespace);
    }
    refused("<exec xmlns='u'/>", Reason::Namespace);
}

#[test]
fn endless_pieces_end_at_the_size_limit() {
    for piece in [
        "<exec a='",
        "<exec><!-- ",
        "<exec><![CDATA[",
        "<exec>",
        "<exec> ",
        "<exec><a/>",
        "<exec>&lt;",
        "<exec>]",
        "<exec>é",
    ] {
        let unit = piece.strip_prefix("<exec").unwrap_or(piece).trim_start_matches('>');
        let unit =
            if unit.starts_with(" a=") || unit.starts_with("<!") || unit.is_empty() { "x" } else { unit };
        refused(&format!("{piece}{}", unit.repeat(2_000_000 / unit.len())), Reason::TooLarge(65_536));
    }
    refused(&format!("<exec><{}", "n".repeat(1_000_000)), Reason::NameTooLong);
    refused(&format!("<exec>&{}", "a".repeat(1_000_000)), Reason::Entity);
    refused(&format!("<exec>&#{}", "0".repeat(1_000_000)), Reason::Entity);
}

/// The costliest documents that are allowed: they must be accepted, and read as a type.
#[test]
fn crowded_documents_within_the_limits_are_read() {
    // 63 attributes whose names share hashes, on every element.
    let mut attributes = String::new();
    for n in 0..63 {
        let _ = write!(attributes, " a{n}=\"{n}='\"");
    }
    let mut crowded = String::from("<exec><op>inc</op><in><number>1</number>");
    while crowded.len() + attributes.len() < 65_000 {
        let _ = write!(crowded, "<x{attributes}/>");
    }
    crowded.push_str("</in></exec>");
    assert!(read::<Inc>(&crowded).is_ok());

    let references =
        format!("<exec><op>inc</op><in><x>{}</x><number>1</number></in></exec>", "&#65;".repeat(13_000));
    assert!(read::<Inc>(&references).is_ok());

    let elements = format!("<exec><op>inc</op><in>{}<number>1</number></in></exec>", "<a/>".repeat(16_000));
    assert!(read::<Inc>(&elements).is_ok());
}

/// Reads one text as a document and that as a request of `O`.
fn read<O: Operation>(text: &str) -> Result<O, Fault> {
    envelope::parse(Document::check(text)?)?.read()
}

#[test]
fn bad_numbers_are_typed_errors() {
    for (number, reason) in [
        ("9223372036854775808", "out of range"),
        ("18446744073709551616", "out of range"),
        ("-9223372036854775809", "out of range"),
        ("1e9", "not a number"),
        ("0x10", "not a number"),
        ("1 000", "not a number"),
        ("", "not a number"),
        ("  ", "not a number"),
        ("+1", "not a number"),
        ("1.", "not a number"),
        ("nan", "not a number"),
        ("&#1637;", "not a number"),
    ] {
        let text = format!("<exec><op>inc</op><in><number>{number}</number></in></exec>");
        let error = Error::invalid("number", reason);
        assert_eq!(read::<Inc>(&text), Err(Fault::Refused(error)), "{number}");
    }
    for number in ["-1", "2147483648", " 42 ", "00000000000000000000000000000000000000000042"] {
        let text = format!("<exec><op>inc</op><in><number>{number}</number></in></exec>");
        assert!(read::<Inc>(&text).is_ok(), "{number}");
    }
    let digits = format!("<exec><op>inc</op><in><number>{}</number></in></exec>", "9".repeat(65_000));
    assert_eq!(read::<Inc>(&digits), Err(Fault::Refused(Error::invalid("number", "out of range"))));
}

#[test]
fn paths_reach_the_handler_as_they_are_or_not_at_all() {
    let parent = |path: &str| {
        read::<GetParentDir>(&format!(
            "<exec><op>FileManager_GetParentDir</op><in><directory>{path}</directory></in></exec>"
        ))
    };
    let long = |length: usize| format!("/{}", "p".repeat(length - 1));
    for path in ["/", "/a/..", "/..", "//a//b//", "/a/", "/a\nb", "/ a ", &long(4095)] {
        assert_eq!(parent(path).unwrap().directory.as_str(), path);
    }
    for length in [4096, 4097, 60_000] {
        assert_eq!(parent(&long(length)), Err(Fault::Malformed(Reason::PathTooLong)));
    }
    for reference in ["&#xD800;", "&#xDFFF;", "&#0;", "&#xFFFF;", "&#x110000;"] {
        assert_eq!(parent(&format!("/{reference}")), Err(Fault::Malformed(Reason::Character)), "{reference}");
    }
    assert_eq!(parent("a"), Err(Fault::Refused(Error::invalid("directory", "not an absolute path"))));
}
