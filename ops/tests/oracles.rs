//! The guard and the cursor against two readers that others wrote.
//!
//! Whatever the guard accepts must be the same document to quick-xml, to roxmltree and to our own
//! cursor: same elements, same text, in the same order. And however a stream is cut, the guard must
//! come to the same decision at the same byte.

mod readers;

use ops::{Document, Guard, Limits, Progress, guard};
use proptest::prelude::*;

/// Any root, so that most generated documents get past it.
static ANY_ROOT: Limits = Limits { root: None, ..guard::EXEC };

/// The decision and where it fell, with pieces of the given sizes.
fn decide(bytes: &[u8], cuts: &[usize]) -> (Progress, usize) {
    let mut guard = Guard::with_limits(&ANY_ROOT);
    let mut start = 0;
    let ends = cuts.iter().map(|&cut| cut.min(bytes.len())).chain([bytes.len()]);
    for end in ends {
        loop {
            match guard.scan(&bytes[start..end]) {
                Progress::Skip(padding) => start += padding,
                Progress::More => break,
                decision => return (decision, start + guard.scanned()),
            }
        }
    }
    (Progress::More, 0)
}

/// Text that is nearly XML: pieces of markup in any order, around pieces of anything.
fn nearly_xml() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "<a>", "</a>", "<b/>", "<b />", "<a b='c'>", "<a b = \"c>\" d='&lt;'/>", "<exec>", "</exec>", "<op>", "</op>",
            "&lt;", "&#65;", "&#x1F600;", "&#13;", "&quot;", "<!-- c -->", "<!-->-->", "<![CDATA[x]]>", "<![CDATA[]]]]>",
            "]]", ">", "]]>", "\r\n", "\r", "\n", " ", "\t", "x", "ä", "𝄞", "\u{FEFF}", "\u{85}", "\u{2028}", "é",
            "<?xml version='1.0'?>", "<é·>", "</é·>", "--", "/", "'", "\"", "<a b='1' b='2'>", "<a b='1' c='b=1'/>",
        ]).prop_map(str::to_owned),
        1 => prop::sample::select(vec![
            "<!DOCTYPE a>", "<?p ?>", "<a:b/>", "xmlns='u'", "&a;", "&#0;", "\0", "\u{FFFE}", "\u{1}", "<", "&", "<!", "<![",
        ]).prop_map(str::to_owned),
        1 => ".{0,3}",
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// Text that is XML: a tree with every kind of content, so that most cases get to the end.
fn xml() -> impl Strategy<Value = String> {
    let text = prop_oneof![
        "[a-z \r\n\u{80}-\u{FF}€𝄞]{0,6}".prop_map(|text| text),
        Just("&amp;&#10;".to_owned()),
        Just("<!-- - -->".to_owned()),
        Just("<![CDATA[<]] >]]>".to_owned()),
    ];
    let name = prop::sample::select(vec!["a", "b-c", "in", "op", "number", "é"]);
    text.prop_recursive(6, 64, 5, move |inner| {
        (name.clone(), prop::collection::vec(inner, 0..5), any::<bool>()).prop_map(
            |(name, children, attribute)| {
                let attribute = if attribute { " a='>' b=\"&lt;\"" } else { "" };
                if children.is_empty() {
                    format!("<{name}{attribute}/>")
                } else {
                    format!("<{name}{attribute}>{}</{name}>", children.concat())
                }
            },
        )
    })
    .prop_map(|inner| format!("<exec>{inner}</exec>"))
}

fn all_agree(text: &str) -> Result<(), TestCaseError> {
    match Document::check_with(text, &ANY_ROOT).map(readers::compare) {
        Ok(Err(difference)) => Err(TestCaseError::fail(difference)),
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn readers_agree_on_what_the_guard_accepts(text in nearly_xml()) {
        all_agree(&text)?;
    }

    #[test]
    fn readers_agree_on_trees(text in xml()) {
        prop_assert!(Document::check(&text).is_ok(), "{}", text);
        all_agree(&text)?;
    }

    #[test]
    fn plain_and_special_envelopes_are_read_alike(
        op in prop::sample::select(vec!["inc", "FileManager_MakeDir", "x", "", "in\rc", "<a/>", "&#105;nc"]),
        inside in nearly_xml(),
        around in prop::sample::select(vec!["", " ", "x", "<in/>", "<op>y</op>", "\r\n"]),
    ) {
        let body = format!("<op>{op}</op>{around}<in>{inside}</in>");
        let outcome = |text: String| {
            let document = Document::check(&text)?;
            ops::envelope::parse(document).and_then(|request| {
                let row = request.row();
                (row.check)(request.into_input()).map(|()| row.name)
            })
        };
        let plain = outcome(format!("<exec>{body}</exec>"));
        let special = outcome(format!("<!-- --><exec>{body}</exec>"));
        prop_assert_eq!(plain, special);
    }

    #[test]
    fn cutting_changes_nothing(text in nearly_xml(), cuts in prop::collection::vec(0..60usize, 0..6)) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let bytes = text.as_bytes();
        let (whole, whole_at) = decide(bytes, &[]);
        let (parts, parts_at) = decide(bytes, &cuts);
        prop_assert_eq!(whole, parts);
        if let Progress::Refused(_) = whole {
            prop_assert_eq!(whole_at, parts_at);
        }
    }

    #[test]
    fn cutting_at_every_byte_changes_nothing(text in xml()) {
        let bytes = text.as_bytes();
        for cut in 0..=bytes.len() {
            prop_assert_eq!(decide(bytes, &[cut]).0, Progress::Document(bytes.len()));
        }
        let every: Vec<_> = (0..bytes.len()).collect();
        prop_assert_eq!(decide(bytes, &every).0, Progress::Document(bytes.len()));
    }

    #[test]
    fn bytes_that_are_no_text_are_no_document(bytes in prop::collection::vec(any::<u8>(), 0..40), at in 0..30usize) {
        let mut stream = b"<exec><a b='c'>d</a></exec>".to_vec();
        let at = at.min(stream.len());
        stream.splice(at..at, bytes);
        let (decision, _) = decide(&stream, &[]);
        if let Progress::Document(length) = decision {
            prop_assert!(std::str::from_utf8(&stream[..length]).is_ok() || stream[0] != b'<');
        }
    }
}
