//! The guard alone: what it refuses and where, and that it does not care how bytes are cut.

use super::*;

/// Feeds `bytes` in pieces of `step` and returns the first decision and how many bytes had been
/// given when it fell.
fn fed(bytes: &[u8], step: usize, limits: &'static Limits) -> (Progress, usize) {
    let mut guard = Guard::with_limits(limits);
    let mut skipped = 0;
    let mut given = 0;
    while given < bytes.len() {
        given = (given + step).min(bytes.len());
        loop {
            match guard.scan(&bytes[skipped..given]) {
                Progress::Skip(padding) => skipped += padding,
                Progress::More => break,
                decision => return (decision, given),
            }
        }
    }
    (Progress::More, given)
}

/// The decision over a whole text, checked to be the same byte by byte.
fn decide(text: &str) -> Progress {
    let (whole, _) = fed(text.as_bytes(), usize::MAX / 2, &EXEC);
    let (single, _) = fed(text.as_bytes(), 1, &EXEC);
    assert_eq!(whole, single, "{text:.200}");
    whole
}

fn refused(text: &str) -> Reason {
    match decide(text) {
        Progress::Refused(reason) => reason,
        other => panic!("{other:?} for {text:.200}"),
    }
}

fn accepted(text: &str) {
    assert_eq!(decide(text), Progress::Document(text.len()), "{text:.200}");
}

/// The number of bytes after which `text` is refused when it comes byte by byte.
fn refused_after(text: &str) -> usize {
    let (decision, given) = fed(text.as_bytes(), 1, &EXEC);
    assert!(matches!(decision, Progress::Refused(_)), "{decision:?} for {text:.200}");
    given
}

#[test]
fn ordinary_documents_pass() {
    for text in [
        "<exec/>",
        "<exec />",
        "<exec></exec >",
        "<exec><op>inc</op><in><number>42</number></in></exec>",
        "<exec a='1' b = \"2\"\n\tc='>'>x</exec>",
        "<exec><!-- a - b --><![CDATA[<&]] ]]]></exec>",
        "<exec><![CDATA[]]></exec>",
        "<exec><!----></exec>",
        "<exec><!--> a --></exec>",
        "<exec>&lt;&gt;&amp;&apos;&quot;&#65;&#x1F600;&#00000000000000000065;</exec>",
        "<exec a='&lt;&#10;]]>'/>",
        "<exec>]] > ]]a ] ]]&gt;</exec>",
        "<exec>\u{7F}\u{85}ä€𝄞\u{FFFD}</exec>",
        "<exec><ä·\u{203F}-.1 é='1'/></exec>",
        "<?xml version=\"1.0\"?><exec/>",
        "<?xml version='1.0' encoding='utf-8' standalone = \"yes\" ?>\n<!-- c -->\n<exec/>",
        "<?xml version=\"1.0\" encoding=\"us-ascii\"?><exec/>",
        "<!-- before --><exec/>",
    ] {
        accepted(text);
    }
}

#[test]
fn what_the_format_leaves_out_is_refused() {
    for (text, reason) in [
        ("<!DOCTYPE exec><exec/>", Reason::DocumentType),
        ("<exec><!DOCTYPE a></exec>", Reason::DocumentType),
        ("<exec><!ENTITY a 'b'></exec>", Reason::Syntax("after <!")),
        ("<exec>&a;</exec>", Reason::Entity),
        ("<exec>&LT;</exec>", Reason::Entity),
        ("<exec>&;</exec>", Reason::Entity),
        ("<exec>& </exec>", Reason::Entity),
        ("<exec a='&nbsp;'/>", Reason::Entity),
        ("<exec><?php ?></exec>", Reason::Instruction),
        ("<?xml-stylesheet href='a'?><exec/>", Reason::Instruction),
        ("<exec><?xml version='1.0'?></exec>", Reason::Instruction),
        ("<!-- --><?xml version='1.0'?><exec/>", Reason::Instruction),
        ("<a:exec/>", Reason::Colon),
        ("<exec><b:c/></exec>", Reason::Colon),
        ("<exec><:c/></exec>", Reason::Colon),
        ("<exec xml:lang='en'/>", Reason::Colon),
        ("<exec xmlns='u'/>", Reason::Namespace),
        ("<exec xmlns:a='u'/>", Reason::Namespace),
        ("<exec a='1' a='2'/>", Reason::DuplicateAttribute),
        ("<exec a='1' b='a=\"2\"' a='2'/>", Reason::DuplicateAttribute),
        ("<exec>\u{1}</exec>", Reason::Character),
        ("<exec>\0</exec>", Reason::Character),
        ("<exec>\u{FFFE}</exec>", Reason::Character),
        ("<exec a='\u{FFFF}'/>", Reason::Character),
        ("<exec><!-- \u{B} --></exec>", Reason::Character),
        ("<exec><![CDATA[\u{1F}]]></exec>", Reason::Character),
        ("<exec>&#0;</exec>", Reason::Character),
        ("<exec>&#xB;</exec>", Reason::Character),
        ("<exec>&#xD800;</exec>", Reason::Character),
        ("<exec>&#xFFFE;</exec>", Reason::Character),
        ("<exec>&#x110000;</exec>", Reason::Character),
        ("<exec>&#99999999999;</exec>", Reason::Character),
        ("<exec>&#;</exec>", Reason::Character),
        ("<exec>&#x;</exec>", Reason::Character),
        ("<exec>&#-1;</exec>", Reason::Entity),
        ("<exec>&#X41;</exec>", Reason::Character),
        ("<html/>", Reason::WrongRoot),
        ("<Exec/>", Reason::WrongRoot),
        ("<execs/>", Reason::WrongRoot),
        ("exec", Reason::Outside),
        ("GET / HTTP/1.1\r\n", Reason::Outside),
        ("<!-- --> x <exec/>", Reason::Outside),
        ("<![CDATA[]]><exec/>", Reason::Outside),
        ("</exec>", Reason::EndTag),
        ("<exec></exe>", Reason::EndTag),
        ("<exec></execs>", Reason::EndTag),
        ("<exec><a></exec></a>", Reason::EndTag),
        ("<exec>]]></exec>", Reason::Syntax("]]> in text")),
        ("<exec>]]]></exec>", Reason::Syntax("]]> in text")),
        ("<exec><!-- a -- b --></exec>", Reason::Syntax("-- in a comment")),
        ("<exec><!-- a ---></exec>", Reason::Syntax("-- in a comment")),
        ("<exec a/>", Reason::Syntax("attribute without a value")),
        ("<exec a=1/>", Reason::Syntax("value without quotes")),
        ("<exec a='1'b='2'/>", Reason::Syntax("in a tag")),
        ("<exec a='<'/>", Reason::Syntax("< in a value")),
        ("<exec / >", Reason::Syntax("after / in a tag")),
        ("<exec><1/></exec>", Reason::Syntax("name expected")),
        ("<exec>< a/></exec>", Reason::Syntax("name expected")),
        ("<exec><-a/></exec>", Reason::Syntax("name expected")),
        ("<exec><\u{B7}/></exec>", Reason::Syntax("character in a name")),
        ("<exec><a×/></exec>", Reason::Syntax("character in a name")),
        ("<exec><![cdata[]]></exec>", Reason::Syntax("after <![")),
        ("<exec><!-a--></exec>", Reason::Syntax("after <!-")),
    ] {
        assert_eq!(refused(text), reason, "{text}");
    }
}

#[test]
fn declarations() {
    for (declaration, reason) in [
        ("<?xml?>", Reason::Instruction),
        ("<?xml ?>", Reason::Declaration),
        ("<?xml version='2.0'?>", Reason::Declaration),
        ("<?xml version='1.'?>", Reason::Declaration),
        ("<?xml version='1.0>", Reason::Declaration),
        ("<?xml version='1.0\"?>", Reason::Declaration),
        ("<?xml version='1.0'encoding='utf-8'?>", Reason::Declaration),
        ("<?xml encoding='utf-8'?>", Reason::Declaration),
        ("<?xml version='1.0' standalone='maybe'?>", Reason::Declaration),
        ("<?xml version='1.0' standalone='yes' encoding='utf-8'?>", Reason::Declaration),
        ("<?xml version='1.0' a='b'?>", Reason::Declaration),
        ("<?xml version='1.0' encoding='utf-16'?>", Reason::Encoding),
        ("<?xml version='1.0' encoding='ISO-8859-1'?>", Reason::Encoding),
        ("<?xml version='1.0' ä?>", Reason::Declaration),
    ] {
        assert_eq!(refused(&format!("{declaration}<exec/>")), reason, "{declaration}");
    }
    let endless = format!("<?xml version='1.0' {}", " ".repeat(1000));
    assert_eq!(refused(&endless), Reason::Declaration);
    assert!(refused_after(&endless) < 300);
}

#[test]
fn bytes_that_are_no_utf8_are_refused_at_the_first_wrong_byte() {
    for (bytes, wrong) in [
        (&b"\xFF"[..], 1),
        (b"\x80", 1),
        (b"\xC0\x80", 1),
        (b"\xC3<", 2),
        (b"\xE0\x80", 2),
        (b"\xED\xA0\x80", 2),
        (b"\xF5", 1),
        (b"\xF4\x90", 2),
        (b"\xE2\x82<", 3),
    ] {
        for head in ["<exec>", "<exec a='", "<exec><!--", "<exec><![CDATA[", "<exec><a", "<exec a"] {
            let mut text = head.as_bytes().to_vec();
            text.extend_from_slice(bytes);
            text.extend_from_slice(b"</exec>");
            let (decision, given) = fed(&text, 1, &EXEC);
            assert_eq!(decision, Progress::Refused(Reason::Utf8), "{head} {bytes:X?}");
            assert_eq!(given, head.len() + wrong, "{head} {bytes:X?}");
        }
    }
}

#[test]
fn padding_between_documents_is_skipped() {
    let mut guard = Guard::new();
    assert_eq!(guard.scan(b"\0\r\n \t\xEF\xBB\xBF\0<exec/>"), Progress::Skip(9));
    assert_eq!(guard.scan(b"<exec/>\0"), Progress::Document(7));
    assert_eq!(guard.scan(b"\0"), Progress::Skip(1));
    assert_eq!(guard.scan(b""), Progress::More);
    assert_eq!(guard.scan(b"\xEF"), Progress::More);
    assert_eq!(guard.scan(b"\xEF\xBB"), Progress::More);
    assert_eq!(guard.scan(b"\xEF\xBB\xBF"), Progress::Skip(3));
    assert_eq!(guard.scan(b"\xEF\xBB\xBC"), Progress::Refused(Reason::Outside));
    assert_eq!(guard.scan(b"<exec/>"), Progress::Refused(Reason::Outside), "a refusal is final");
}

#[test]
fn a_byte_order_mark_inside_a_document_is_text() {
    assert_eq!(refused("<!-- -->\u{FEFF}<exec/>"), Reason::Outside);
    accepted("<exec>\u{FEFF}</exec>");
}

#[test]
fn the_size_limit_is_exact() {
    let fits = format!("<exec>{}</exec>", "x".repeat(65_536 - 13));
    assert_eq!(fits.len(), 65_536);
    accepted(&fits);
    let over = format!("<exec>{}</exec>", "x".repeat(65_536 - 12));
    assert_eq!(refused(&over).to_string(), "larger than 65536 bytes");
    // Not before the 65537th byte, and exactly there.
    let endless = format!("<exec>{}", "x".repeat(70_000));
    assert_eq!(refused_after(&endless), 65_537);
    // Also when that byte is inside a character, a tag, a comment.
    for unit in ["ä", "€", "𝄞", "<!-- -->", "<a b='c'>d</a>", "&#65;"] {
        for shift in 0..unit.len() {
            let text = format!("<exec>{}{}", "x".repeat(shift), unit.repeat(70_000 / unit.len()));
            assert_eq!(refused(&text), Reason::TooLarge(65_536));
            assert_eq!(refused_after(&text), 65_537, "{unit} {shift}");
        }
    }
    // Padding in front does not count.
    let (decision, _) = fed(format!("{}{fits}", " ".repeat(100_000)).as_bytes(), 1000, &EXEC);
    assert_eq!(decision, Progress::Document(65_536));
}

#[test]
fn the_depth_limit_is_exact_and_early() {
    let open = |depth: usize| format!("<exec>{}", "<a>".repeat(depth - 1));
    let close = |depth: usize| format!("{}</exec>", "</a>".repeat(depth - 1));
    accepted(&(open(16) + &close(16)));
    accepted(&format!("{}<b/>{}", open(15), close(15)));
    assert_eq!(refused(&open(17)).to_string(), "nested deeper than 16");
    assert_eq!(refused(&format!("{}<b/>", open(16))), Reason::TooDeep(16));
    assert_eq!(refused_after(&open(17)), open(16).len() + 2, "refused at the first byte of the name");
}

#[test]
fn the_attribute_limit_is_exact_and_early() {
    let tag = |count: usize| {
        let attributes: String = (0..count).map(|n| format!(" a{n}='{n}'")).collect();
        format!("<exec{attributes}")
    };
    accepted(&(tag(64) + "/>"));
    assert_eq!(refused(&(tag(65) + "/>")).to_string(), "more than 64 attributes");
    assert_eq!(refused_after(&tag(65)), tag(64).len() + 2);
    // Each element counts for itself.
    accepted(&format!("{}><b{}", tag(64), &format!("{}/></exec>", &tag(64)[5..])));
}

#[test]
fn the_name_limit_is_exact() {
    let name = "n".repeat(128);
    accepted(&format!("<exec><{name}></{name}></exec>"));
    accepted(&format!("<exec {name}='1'/>"));
    for text in [
        format!("<exec><n{name}/></exec>"),
        format!("<exec n{name}='1'/>"),
        format!("<exec><{name}n></{name}n></exec>"),
    ] {
        assert_eq!(refused(&text).to_string(), "name too long");
    }
    // Counted in bytes, not characters.
    accepted(&format!("<exec><{}/></exec>", "é".repeat(64)));
    assert_eq!(refused(&format!("<exec><{}/></exec>", "é".repeat(65))), Reason::NameTooLong);
}

#[test]
fn duplicates_are_found_among_names_with_equal_hashes() {
    // 64 names share 64 bits, so most of them collide; only the repeated one may be refused.
    let names: Vec<_> = (0..63).map(|n| format!("attribute{n}")).collect();
    let all: String = names.iter().map(|name| format!(" {name} = '{name}=\"x\"'")).collect();
    accepted(&format!("<exec{all}/>"));
    for name in &names {
        assert_eq!(refused(&format!("<exec{all} {name}=''/>")), Reason::DuplicateAttribute);
    }
}

/// Limits with a large parameter, as an operation would declare it.
static LARGE: Limits = Limits { large: |op| (op == "Store").then_some(&CONTENTS), ..EXEC };

static CONTENTS: LargeText = LargeText { field: "contents", aliases: &["data"], max: 1_048_576 };

fn store(field: &str, before: usize, text: usize) -> Vec<u8> {
    format!(
        "<exec><op>Store</op><in><file>{}</file><{field}>{}</{field}></in></exec>",
        "f".repeat(before),
        "c".repeat(text)
    )
    .into_bytes()
}

#[test]
fn a_large_parameter_has_a_limit_of_its_own() {
    for field in ["contents", "data"] {
        for step in [1000, 65_536, usize::MAX / 2] {
            let fits = store(field, 10, 1_048_576);
            assert_eq!(fed(&fits, step, &LARGE).0, Progress::Document(fits.len()));
            let (decision, _) = fed(&store(field, 10, 1_048_577), step, &LARGE);
            let Progress::Refused(reason) = decision else { panic!("{decision:?}") };
            assert_eq!(reason.to_string(), "contents larger than 1048576 bytes");
        }
    }
    let (decision, given) = fed(&store("contents", 10, 2_000_000), 1000, &LARGE);
    assert!(matches!(decision, Progress::Refused(Reason::LargeTextTooLarge(..))));
    assert!(given < 1_048_576 + 2000, "refused long before the end");
}

#[test]
fn the_rest_of_a_large_request_keeps_the_ordinary_limit() {
    let overhead = store("contents", 0, 0).len();
    let fits = store("contents", 65_536 - overhead, 1_048_576);
    assert_eq!(fed(&fits, 4096, &LARGE).0, Progress::Document(fits.len()));
    let over = store("contents", 65_537 - overhead, 1_048_576);
    assert_eq!(fed(&over, 4096, &LARGE).0, Progress::Refused(Reason::TooLarge(65_536)));
}

#[test]
fn only_the_declared_parameter_of_the_declaring_operation_is_large() {
    let big = "c".repeat(70_000);
    for text in [
        format!("<exec><op>Other</op><in><contents>{big}</contents></in></exec>"),
        format!("<exec><op>Store</op><in><other>{big}</other></in></exec>"),
        format!("<exec><in><contents>{big}</contents></in><op>Store</op></exec>"),
        format!("<exec><op>Store</op><ni><contents>{big}</contents></ni></exec>"),
        format!("<exec><op>Store</op><in><x><contents>{big}</contents></x></in></exec>"),
        format!("<exec><op>Store</op><in><contents>a</contents><contents>{big}</contents></in></exec>"),
        format!("<exec><op> Store</op><in><contents>{big}</contents></in></exec>"),
    ] {
        let (decision, _) = fed(text.as_bytes(), 4096, &LARGE);
        assert_eq!(decision, Progress::Refused(Reason::TooLarge(65_536)), "{text:.60}");
    }
}

#[test]
fn every_way_of_cutting_gives_the_same_decision() {
    let document = "<?xml version='1.0'?><!-- c --><exec a=\"é&amp;\"><op>inc</op>\
                    <in><number>&#52;2</number><![CDATA[ ]]></in>\u{20AC}</exec>";
    for cut in 0..document.len() {
        let mut guard = Guard::new();
        assert_eq!(guard.scan(&document.as_bytes()[..cut]), Progress::More, "{cut}");
        assert_eq!(guard.scan(document.as_bytes()), Progress::Document(document.len()), "{cut}");
    }
}

#[test]
fn a_document_is_exactly_one() {
    assert_eq!(Document::check(" \0<exec/>\n").map(Document::as_str), Ok("<exec/>"));
    assert_eq!(Document::check("<exec/><exec/>"), Err(Reason::Outside));
    assert_eq!(Document::check("<exec>"), Err(Reason::Incomplete));
    assert_eq!(Document::check(""), Err(Reason::Incomplete));
}

#[test]
fn the_guard_is_small() {
    assert!(size_of::<Guard>() <= 320, "{} bytes for every idle connection", size_of::<Guard>());
}

#[test]
fn plain_envelopes_are_found_and_special_ones_are_not() {
    let parts = |text: &'static str| {
        let document = Document::check(text).unwrap();
        document.envelope().map(|Envelope { op, input }| {
            let cut = |(start, end): (u32, u32)| &text[start as usize..end as usize];
            (cut(op), input.map(cut))
        })
    };
    for (text, expected) in [
        ("<exec><op>inc</op><in><number>1</number></in></exec>", ("inc", Some("<number>1</number>"))),
        ("<exec>\r\n <op>a b</op>\n<in>\n</in>\n</exec>", ("a b", Some("\n"))),
        ("<exec><op>x</op></exec>", ("x", None)),
        ("<exec><op>x</op><in/></exec>", ("x", None)),
        ("<exec><op></op><in>text</in></exec>", ("", Some("text"))),
        (
            "<exec><op>x</op><in><!-- c --><a b='1'>&lt;</a><in/><op>y</op></in></exec>",
            ("x", Some("<!-- c --><a b='1'>&lt;</a><in/><op>y</op>")),
        ),
    ] {
        assert_eq!(parts(text), Some(expected), "{text}");
    }
    for text in [
        "<exec/>",
        "<exec></exec>",
        "<exec><in/><op>x</op></exec>",
        "<exec><op>x</op><op>y</op></exec>",
        "<exec><op>x</op><in/><in/></exec>",
        "<exec><op>x</op><in></in><in></in></exec>",
        "<exec><op>x</op><in/><y/></exec>",
        "<exec><y/><op>x</op><in/></exec>",
        "<exec><op/><in/></exec>",
        "<exec><op>x<y/></op><in/></exec>",
        "<exec><op><y>x</y></op><in/></exec>",
        "<exec><op>&#120;</op><in/></exec>",
        "<exec><op><![CDATA[x]]></op><in/></exec>",
        "<exec><op>x</op>y<in/></exec>",
        "<exec>y<op>x</op><in/></exec>",
        "<exec><op>x</op><in/>y</exec>",
        "<exec><op>x</op><in></in>y</exec>",
        "<exec><op>x</op><!-- --><in/></exec>",
        "<exec><op>x</op><![CDATA[y]]><in/></exec>",
        "<exec><op>x</op>&#65;<in/></exec>",
        "<!-- --><exec><op>x</op><in/></exec>",
        "<exec><x><op>x</op></x><in/></exec>",
    ] {
        assert_eq!(parts(text), None, "{text}");
    }
}

#[test]
fn a_finding_belongs_to_its_document() {
    let mut inbox = crate::Inbox::new();
    inbox.feed(b"<exec><op>x</op><in>\r</in></exec><exec><op>y</op></exec><exec><in/><op>z</op></exec>");
    let mut next =
        || inbox.next().unwrap().map(|document| (document.has_returns(), document.envelope().is_some()));
    assert_eq!(next(), Some((true, true)));
    assert_eq!(next(), Some((false, true)));
    assert_eq!(next(), Some((false, false)));
    assert_eq!(next(), None);
}
