//! Framing, guard and envelope: any bytes, in any pieces, give the same documents and the same end;
//! no more memory is held than promised; a refusal becomes a well-formed reply.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use ops::{Error, Inbox, Product, Reason, envelope};

static PRODUCT: LazyLock<Product> = LazyLock::new(Product::default);

const FRAME: &str = "<exec><product id=\"GSX\"><title>VMware Server</title>\
    <version>1.0.3 build-44356</version><build>44356</build></product>\
    <returncode>0</returncode><errors><error code=\"";
const TAIL: &str = "</error></errors><out/></exec>\n";

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

/// Reads a stream that arrives in these pieces.
fn outcome(pieces: &[&[u8]]) -> Outcome {
    let mut inbox = Inbox::new();
    let mut found = Outcome { documents: String::new(), lengths: Vec::new(), end: None, error: None };
    for piece in pieces {
        inbox.feed(piece);
        assert!(inbox.capacity() <= 2 * 65_536, "{} bytes held", inbox.capacity());
        loop {
            match inbox.next() {
                Ok(Some(document)) => {
                    // Known operations are turned away too: that reads the rest of the document.
                    let fault = match envelope::parse(document) {
                        Ok(request) => request.reject(Error::unspecified("not in this test")),
                        Err(fault) => fault,
                    };
                    found.error = Some(fault.into_error());
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

/// Writes the error reply, which must be the frame around a number and a text without markup.
fn reply(error: &Error) {
    let mut bytes = Vec::new();
    envelope::write_error(&mut bytes, &PRODUCT, error);
    let text = std::str::from_utf8(&bytes).expect("replies are text");
    let inside = text.strip_prefix(FRAME).and_then(|text| text.strip_suffix(TAIL)).expect("the frame");
    let (code, text) = inside.split_once("\">").expect("the start tag");
    assert_eq!(code.parse(), Ok(error.code.number()));
    assert!(!text.contains(['<', '>', '\r', '\0']), "{text}");
}

fuzz_target!(|input: &[u8]| {
    // The first two bytes say where the stream is cut, from its start and from its end.
    let [first, last, stream @ ..] = input else {
        return;
    };
    let (one, rest) = stream.split_at(usize::from(*first).min(stream.len()));
    let (two, three) = rest.split_at(rest.len().saturating_sub(usize::from(*last)));
    let whole = outcome(&[stream]);
    assert_eq!(whole, outcome(&[one, two, three]));
    if let Some(error) = &whole.error {
        reply(error);
    }
});
