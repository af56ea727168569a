//! Framing, guard and envelope: any bytes, in any pieces, give the same documents and the same end;
//! no more memory is held than promised; a refusal becomes a well-formed reply.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ops::{Error, Inbox, Product, Reason, envelope};

static PRODUCT: LazyLock<Product> = LazyLock::new(Product::default);

/// What came out of a stream.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// All documents, one after the other, and how long each is.
    documents: String,
    lengths: Vec<usize>,
    /// Why the stream ended early.
    end: Option<Reason>,
    /// The last refusal.
    error: Option<Error>,
}

/// Reads a stream that arrives in pieces of `size` bytes.
fn outcome(stream: &[u8], size: usize) -> Outcome {
    let mut inbox = Inbox::new();
    let mut found = Outcome { documents: String::new(), lengths: Vec::new(), end: None, error: None };
    for piece in stream.chunks(size) {
        inbox.feed(piece);
        assert!(inbox.capacity() <= 2 * 65_536, "{} bytes held", inbox.capacity());
        loop {
            match inbox.next() {
                Ok(Some(document)) => {
                    if let Err(fault) = envelope::parse(document) {
                        found.error = Some(fault.into_error());
                    }
                    found.documents.push_str(document.as_str());
                    found.lengths.push(document.as_str().len());
                }
                Ok(None) => break,
                Err(reason) => {
                    found.error = Some(Error::malformed(reason));
                    found.end = Some(reason);
                    return found;
                }
            }
        }
        assert!(!inbox.is_empty() || inbox.capacity() == 0, "an idle inbox holds memory");
    }
    found
}

/// Writes the error reply and reads it back.
fn reply(error: &Error) {
    let mut bytes = Vec::new();
    envelope::write_error(&mut bytes, &PRODUCT, error);
    let text = std::str::from_utf8(&bytes).expect("replies are text");
    let tree = roxmltree::Document::parse(text).expect("replies are well-formed");
    let children = tree.root_element().children();
    let names: Vec<_> = children.map(|child| child.tag_name().name()).collect();
    assert_eq!(names, ["product", "returncode", "errors", "out"]);
}

fuzz_target!(|input: &[u8]| {
    let Some((&size, stream)) = input.split_first() else {
        return;
    };
    let whole = outcome(stream, 65_536);
    assert_eq!(whole, outcome(stream, usize::from(size).max(1)));
    if let Some(error) = &whole.error {
        reply(error);
    }
});
