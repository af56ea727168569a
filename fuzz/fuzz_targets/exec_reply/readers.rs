//! What two readers find in a reply, and whether it was declared.

use std::sync::LazyLock;

use ops::{Error, Field, Product, Reply, Shape, envelope, table};
use quick_xml::events::{BytesStart, Event as Xml};

/// What the server says it is, mostly.
pub(crate) static PRODUCT: LazyLock<Product> = LazyLock::new(Product::default);

/// One element, attribute or text: where it is, and what it holds.
pub(crate) type Leaf = (String, String);

/// What of a text an XML document can carry.
pub(crate) fn carried(text: &str) -> String {
    let allowed = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..);
    text.chars().map(|c| if allowed(c) { c } else { '\u{FFFD}' }).collect()
}

pub(crate) fn leaf(path: &str, value: impl ToString) -> Leaf {
    (path.to_owned(), carried(&value.to_string()))
}

/// The leaves of a document as roxmltree finds them: attributes first, then elements without elements.
pub(crate) fn by_roxmltree(document: &str) -> Vec<Leaf> {
    pub(crate) fn walk(node: roxmltree::Node<'_, '_>, path: &str, leaves: &mut Vec<Leaf>) {
        for attribute in node.attributes() {
            leaves.push((format!("{path}@{}", attribute.name()), attribute.value().to_owned()));
        }
        let mut children = node.children().filter(roxmltree::Node::is_element).peekable();
        if children.peek().is_none() {
            leaves.push((path.to_owned(), node.text().unwrap_or_default().to_owned()));
        }
        for child in children {
            walk(child, &format!("{path}/{}", child.tag_name().name()), leaves);
        }
    }
    // The depth of a tree of files is that of the directories on the disk.
    let tree = roxmltree::Document::parse(document).expect("roxmltree reads every reply");
    let mut leaves = Vec::new();
    walk(tree.root_element(), tree.root_element().tag_name().name(), &mut leaves);
    leaves
}

/// The same as quick-xml finds them.
pub(crate) fn by_quick_xml(document: &str) -> Vec<Leaf> {
    pub(crate) fn attributes(tag: &BytesStart<'_>, path: &str, leaves: &mut Vec<Leaf>) {
        for attribute in tag.attributes() {
            let attribute = attribute.expect("attributes are well-formed");
            let value =
                quick_xml::escape::unescape(&attribute.value).expect("escapes are known").into_owned();
            leaves.push((format!("{path}@{}", attribute.key.as_ref()), value));
        }
    }
    let mut reader = quick_xml::Reader::from_str(document);
    reader.config_mut().enable_all_checks(true);
    let (mut path, mut leaves) = (String::new(), Vec::new());
    // The text of each open element, until an element comes in it.
    let mut open: Vec<(usize, Option<String>)> = Vec::new();
    let enter = |path: &mut String, tag: &BytesStart<'_>| {
        let length = path.len();
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(tag.name().as_ref());
        length
    };
    loop {
        match reader.read_event().expect("quick-xml reads every reply") {
            Xml::Start(tag) => {
                if let Some((_, text)) = open.last_mut() {
                    *text = None;
                }
                let length = enter(&mut path, &tag);
                attributes(&tag, &path, &mut leaves);
                open.push((length, Some(String::new())));
            }
            Xml::Empty(tag) => {
                if let Some((_, text)) = open.last_mut() {
                    *text = None;
                }
                let length = enter(&mut path, &tag);
                attributes(&tag, &path, &mut leaves);
                leaves.push((path.clone(), String::new()));
                path.truncate(length);
            }
            Xml::End(_) => {
                let (length, text) = open.pop().expect("a start tag");
                leaves.extend(text.map(|text| (path.clone(), text)));
                path.truncate(length);
            }
            Xml::Text(piece) => {
                if let Some((_, Some(text))) = open.last_mut() {
                    text.push_str(&piece);
                }
            }
            Xml::GeneralRef(name) => {
                let c = match name.as_ref() {
                    "lt" => '<',
                    "gt" => '>',
                    "amp" => '&',
                    "quot" => '"',
                    _ => name.resolve_char_ref().expect("a number").expect("a character"),
                };
                if let Some((_, Some(text))) = open.last_mut() {
                    text.push(c);
                }
            }
            Xml::Eof => return leaves,
            other => panic!("no reply has {other:?}"),
        }
    }
}

/// Both readers find these leaves.
pub(crate) fn finds(document: &str, expected: &[Leaf]) {
    assert_eq!(by_roxmltree(document), expected, "{document}");
    assert_eq!(by_quick_xml(document), expected, "{document}");
}

/// The frame around `out` in a reply that succeeded.
pub(crate) fn frame(product: &Product, ok: bool) -> Vec<Leaf> {
    vec![
        leaf("exec/product@id", product.id()),
        leaf("exec/product/title", product.title()),
        leaf("exec/product/version", product.version()),
        leaf("exec/product/build", product.build()),
        leaf("exec/returncode", u8::from(ok)),
    ]
}

/// Writes a reply, which must be read as these leaves below `out`, and be made as it is declared.
pub(crate) fn replies<R: Reply>(product: &Product, reply: &R, out: Vec<Leaf>) {
    let mut bytes = Vec::new();
    envelope::write_ok(&mut bytes, product, reply);
    let document = std::str::from_utf8(&bytes).expect("replies are text");
    assert!(document.ends_with("</exec>\n"));
    let mut expected = frame(product, true);
    expected.extend(reply.warnings().iter().map(|text| leaf("exec/warnings/warning", text)));
    let whole = out.is_empty().then(|| leaf("exec/out", ""));
    expected.extend(out.into_iter().map(|(path, value)| (format!("exec/out/{path}"), value)).chain(whole));
    finds(document, &expected);
    let tree = roxmltree::Document::parse(document).expect("it was read before");
    let out =
        tree.root_element().children().find(|node| node.has_tag_name("out")).expect("every reply has it");
    declared(out, R::FIELDS);
    // Where an operation stopped half-way, the same stands in an error.
    let error = Error::unspecified("half-way").finished(reply);
    let mut failed = Vec::new();
    envelope::write::<R>(&mut failed, product, &Err(error));
    let failed = String::from_utf8(failed).expect("replies are text");
    assert!(failed.contains(&document[out.range()]));
}

/// The children of an element are the declared fields, in their order: those that are required are there, none
/// is there twice, and a value is one of its type.
pub(crate) fn declared(node: roxmltree::Node<'_, '_>, fields: &'static [Field]) {
    let mut children = node.children().filter(roxmltree::Node::is_element).peekable();
    let mut attributes = 0;
    table::visit(fields, &mut |field| {
        let value = |node: roxmltree::Node<'_, '_>| {
            if field.nested.is_empty() && node.children().all(|child| child.is_text()) {
                assert!((field.accepts)(node.text().unwrap_or_default()), "{}", field.name);
            } else if !field.nested.is_empty() {
                declared(node, field.nested);
            }
        };
        match field.shape {
            Shape::Element => match children.next_if(|child| child.has_tag_name(field.name)) {
                Some(child) => value(child),
                None => assert!(!field.required, "{} is missing", field.name),
            },
            Shape::List { item, .. } if field.name.is_empty() => {
                while let Some(child) = children.next_if(|child| child.has_tag_name(item)) {
                    value(child);
                }
            }
            Shape::List { item, .. } => match children.next_if(|child| child.has_tag_name(field.name)) {
                Some(list) => list.children().for_each(|child| {
                    assert!(child.has_tag_name(item), "{} holds only {item}", field.name);
                    value(child);
                }),
                None => assert!(!field.required, "{} is missing", field.name),
            },
            Shape::Attribute => {
                let given = node.attribute(field.name);
                assert!(given.is_some() || !field.required, "{} is missing", field.name);
                attributes += usize::from(given.is_some());
            }
            Shape::Content => assert!(node.children().all(|child| child.is_text())),
            Shape::Flat => panic!("flat groups were replaced by their fields"),
        }
    });
    assert_eq!(children.next().map(|child| child.tag_name().name()), None, "not declared, or out of order");
    assert_eq!(node.attributes().len(), attributes);
}
