//! Three readers of one document, reduced to the same list of nodes. Shared by the property tests
//! beside this folder and the fuzz target `guard_vs_roxmltree`.

use ops::Document;
use ops::reader::{Cursor, Token};
use quick_xml::events::Event;

/// Reads a guarded document with our cursor, quick-xml and roxmltree.
///
/// # Errors
/// What differs.
pub fn compare(document: Document<'_>) -> Result<(), String> {
    let text = document.as_str();
    let ours = by_cursor(document);
    let theirs = by_quick_xml(text);
    if ours != theirs {
        return Err(format!("ours {ours:?}, quick-xml {theirs:?}"));
    }
    // roxmltree 0.21 does not fold every carriage return in a text that also holds references
    // (XML 1.0, 2.11), so line ends are left out of the comparison there.
    let mut ours = ours;
    let mut theirs = by_roxmltree(text);
    if text.contains('\r') && text.contains('&') {
        ours = without_line_ends(ours);
        theirs = without_line_ends(theirs);
    }
    if ours == theirs { Ok(()) } else { Err(format!("ours {ours:?}, roxmltree {theirs:?}")) }
}

/// What all three readers are reduced to: start tags, end tags, and text with adjacent pieces joined
/// and empty ones left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    Open(String),
    Close,
    Text(String),
}

fn push_text(nodes: &mut Vec<Node>, piece: &str) {
    match nodes.last_mut() {
        _ if piece.is_empty() => {}
        Some(Node::Text(text)) => text.push_str(piece),
        _ => nodes.push(Node::Text(piece.to_owned())),
    }
}

fn folded(text: &str) -> String {
    text.replace("\r\n", "\n").replace('\r', "\n")
}

fn by_cursor(document: Document<'_>) -> Vec<Node> {
    let mut cursor = Cursor::new(document);
    let mut nodes = Vec::new();
    let mut depth = 0;
    loop {
        match cursor.token().expect("a guarded document has no errors") {
            Token::Open(name) => {
                depth += 1;
                nodes.push(Node::Open(name.to_owned()));
            }
            Token::Close => {
                depth -= 1;
                nodes.push(Node::Close);
            }
            // Only white space stands outside the root, and other readers leave it out.
            Token::Text(text) if depth > 0 => push_text(&mut nodes, &folded(text)),
            Token::Char(c) if depth > 0 => push_text(&mut nodes, c.encode_utf8(&mut [0; 4])),
            Token::Text(_) | Token::Char(_) => {}
            Token::End => return nodes,
        }
    }
}

fn by_quick_xml(text: &str) -> Vec<Node> {
    let mut reader = quick_xml::Reader::from_str(text);
    reader.config_mut().enable_all_checks(true);
    let mut nodes = Vec::new();
    let mut depth = 0;
    loop {
        match reader.read_event().expect("quick-xml reads what the guard accepts") {
            Event::Start(tag) => {
                tag.attributes().for_each(|attribute| drop(attribute.expect("attributes")));
                depth += 1;
                nodes.push(Node::Open(tag.name().as_ref().to_owned()));
            }
            Event::Empty(tag) => {
                nodes.push(Node::Open(tag.name().as_ref().to_owned()));
                nodes.push(Node::Close);
            }
            Event::End(_) => {
                depth -= 1;
                nodes.push(Node::Close);
            }
            Event::Text(piece) if depth > 0 => push_text(&mut nodes, &folded(&piece)),
            Event::CData(piece) => push_text(&mut nodes, &folded(&piece)),
            Event::GeneralRef(name) => {
                let c = match name.as_ref() {
                    "lt" => '<',
                    "gt" => '>',
                    "amp" => '&',
                    "apos" => '\'',
                    "quot" => '"',
                    _ => name.resolve_char_ref().expect("a number").expect("a character"),
                };
                push_text(&mut nodes, c.encode_utf8(&mut [0; 4]));
            }
            Event::Text(_) | Event::Comment(_) | Event::Decl(_) => {}
            Event::PI(_) | Event::DocType(_) => panic!("the guard let it through"),
            Event::Eof => return nodes,
        }
    }
}

fn by_roxmltree(text: &str) -> Vec<Node> {
    fn walk(node: roxmltree::Node<'_, '_>, nodes: &mut Vec<Node>) {
        if node.is_element() {
            nodes.push(Node::Open(node.tag_name().name().to_owned()));
            node.children().for_each(|child| walk(child, nodes));
            nodes.push(Node::Close);
        } else if node.is_text() {
            push_text(nodes, node.text().unwrap_or_default());
        }
    }
    let tree = roxmltree::Document::parse(text).expect("roxmltree reads what the guard accepts");
    let mut nodes = Vec::new();
    walk(tree.root_element(), &mut nodes);
    nodes
}

fn without_line_ends(nodes: Vec<Node>) -> Vec<Node> {
    let mut kept = Vec::new();
    for node in nodes {
        match node {
            Node::Text(text) => push_text(&mut kept, &text.replace(['\r', '\n'], "")),
            other => kept.push(other),
        }
    }
    kept
}
