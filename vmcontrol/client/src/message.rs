//! Requests as they are written and replies as they are read.

use std::fmt;

use ops::{Document, ErrorCode, Limits, Out};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::error::Error;

/// Largest reply that is taken, in bytes. A list of 10 000 machines with all details has under 8 MiB.
pub const MAX_REPLY: usize = 64 * 1024 * 1024;

/// What a reply may look like: as a request, but larger.
pub(crate) static REPLY: Limits =
    Limits { bytes: MAX_REPLY, depth: 16, attributes: 64, name: 128, root: Some("exec"), large: |_| None };

/// A request: the name of an operation and its arguments, in the order they were given.
///
/// ```
/// use vmcontrol_client::Request;
///
/// let request = Request::new("VM_List").flag("details", false).list("configs", "config", ["/a&b.vmx"]);
/// assert_eq!(
///     request.to_string(),
///     "<exec><op>VM_List</op><in><details>0</details><configs><config>/a&amp;b.vmx</config></configs></in></exec>"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    operation: String,
    arguments: Vec<u8>,
}

impl Request {
    /// A request without arguments.
    #[must_use]
    pub fn new(operation: &str) -> Self {
        Self { operation: operation.to_owned(), arguments: Vec::new() }
    }

    /// With a text. Characters that XML cannot carry are replaced.
    #[must_use]
    pub fn text(mut self, name: &str, value: &str) -> Self {
        let mut out = Out::new(&mut self.arguments);
        let mark = out.open(name);
        out.text(value);
        out.close(name, mark);
        self
    }

    /// With a number.
    #[must_use]
    pub fn number(self, name: &str, value: i64) -> Self {
        self.text(name, &value.to_string())
    }

    /// With a yes or no.
    #[must_use]
    pub fn flag(self, name: &str, value: bool) -> Self {
        self.text(name, if value { "1" } else { "0" })
    }

    /// With a list of texts.
    #[must_use]
    pub fn list<'a>(mut self, name: &str, item: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let mut out = Out::new(&mut self.arguments);
        let list = out.open(name);
        for value in values {
            let mark = out.open(item);
            out.text(value);
            out.close(item, mark);
        }
        out.close(name, list);
        self
    }

    /// The operation's name.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.operation
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut name = Vec::new();
        Out::new(&mut name).text(&self.operation);
        let (name, arguments) = (String::from_utf8_lossy(&name), String::from_utf8_lossy(&self.arguments));
        write!(f, "<exec><op>{name}</op><in>{arguments}</in></exec>")
    }
}

/// An element of a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Name and value of each attribute.
    pub attributes: Vec<(String, String)>,
    /// Its own text, without that of its children.
    pub content: String,
    /// Its children, in document order.
    pub children: Vec<Element>,
}

impl Element {
    /// The first child of a name.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The children of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the first child of a name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.child(name).map(|child| child.content.as_str())
    }

    /// The items of a list: the children `item` of the first child `list`. Nothing when there is no list.
    pub fn list<'a>(&'a self, list: &str, item: &'a str) -> impl Iterator<Item = &'a Element> {
        self.child(list).into_iter().flat_map(move |list| list.all(item))
    }

    /// An attribute's value.
    #[must_use]
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The text of a child that must be there.
    ///
    /// # Errors
    /// -15 when it is not.
    pub fn need(&self, name: &str) -> Result<&str, Error> {
        self.text(name).ok_or_else(|| Error::garbage(format_args!("there is no {name} in the reply")))
    }

    /// The number in a child that must be there.
    ///
    /// # Errors
    /// -15 when there is none, or one that does not fit.
    pub fn number<N: std::str::FromStr>(&self, name: &str) -> Result<N, Error> {
        let text = self.need(name)?;
        text.trim()
            .parse()
            .map_err(|_| Error::garbage(format_args!("{name} in the reply is no such number: {text}")))
    }

    /// The yes or no in a child that must be there.
    ///
    /// # Errors
    /// -15 when there is neither.
    pub fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.need(name)?.trim() {
            "1" => Ok(true),
            "0" => Ok(false),
            text => Err(Error::garbage(format_args!("{name} in the reply is neither 0 nor 1: {text}"))),
        }
    }
}

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Whether the operation succeeded.
    pub ok: bool,
    /// The cause of a failure.
    pub error: Option<Error>,
    /// Remarks that never mean failure.
    pub warnings: Vec<String>,
    /// What the operation returned; after a failure what had been finished before it.
    pub out: Element,
    /// The whole document: `exec`, with `product` and all the rest.
    pub envelope: Element,
}

impl Reply {
    /// Reads a reply.
    ///
    /// # Errors
    /// -15 for a text that is no reply: not well-formed, over a limit, or without a return code.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let document = Document::check_with(text, &REPLY).map_err(Error::garbage)?;
        let mut envelope = tree(document)?;
        let ok = match envelope.text("returncode").map(str::trim) {
            Some("1") => true,
            Some("0") => false,
            Some(other) => return Err(Error::garbage(format_args!("the return code is {other}"))),
            None => return Err(Error::garbage("there is no return code")),
        };
        let error = (!ok).then(|| {
            envelope.list("errors", "error").next().map_or_else(|| Error::new(ErrorCode::Unspecified), cause)
        });
        let warnings = envelope.list("warnings", "warning").map(|warning| warning.content.clone()).collect();
        let out = envelope.children.iter_mut().find(|child| child.name == "out");
        let out = out.map(std::mem::take).unwrap_or_default();
        Ok(Reply { ok, error, warnings, out, envelope })
    }

    /// The contents of `out`, or the failure.
    ///
    /// # Errors
    /// The failure that the reply reports.
    pub fn into_result(self) -> Result<Element, Error> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.out),
        }
    }
}

/// What an element `error` says.
fn cause(element: &Element) -> Error {
    let number = element.attribute("code").and_then(|code| code.trim().parse().ok());
    let code = number.and_then(ErrorCode::from_number).unwrap_or(ErrorCode::Unspecified);
    match element.content.as_str() {
        "" => Error::new(code),
        text => Error { code, text: text.to_owned() },
    }
}

/// A tree of a guarded document, whose depth and size have limits.
fn tree(document: Document<'_>) -> Result<Element, Error> {
    let broken = |error: quick_xml::Error| Error::garbage(error);
    let mut reader = Reader::from_str(document.as_str());
    let mut open = vec![Element::default()];
    loop {
        match reader.read_event().map_err(broken)? {
            Event::Start(tag) => open.push(begin(&tag)?),
            Event::Empty(tag) => attach(&mut open, begin(&tag)?),
            Event::End(_) => {
                let element = open.pop().unwrap_or_default();
                attach(&mut open, element);
            }
            Event::Text(text) => write(&mut open, &text.xml10_content()),
            Event::CData(text) => write(&mut open, &text.xml10_content()),
            Event::GeneralRef(name) => {
                let known = match name.resolve_char_ref().map_err(broken)? {
                    Some(character) => Some(character),
                    None => entity(&name.xml10_content()),
                };
                let character = known.ok_or_else(|| Error::garbage("unknown entity"))?;
                write(&mut open, character.encode_utf8(&mut [0; 4]));
            }
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            Event::Eof => break,
        }
    }
    let root = open.pop().and_then(|mut outside| outside.children.pop());
    root.ok_or_else(|| Error::garbage("there is no document"))
}

fn begin(tag: &BytesStart<'_>) -> Result<Element, Error> {
    let mut element = Element { name: tag.name().as_ref().to_owned(), ..Element::default() };
    for attribute in tag.attributes() {
        let attribute = attribute.map_err(Error::garbage)?;
        let value = attribute.normalized_value(quick_xml::XmlVersion::Implicit1_0).map_err(Error::garbage)?;
        element.attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(element)
}

fn attach(open: &mut [Element], element: Element) {
    if let Some(parent) = open.last_mut() {
        parent.children.push(element);
    }
}

fn write(open: &mut [Element], text: &str) {
    if let Some(element) = open.last_mut() {
        element.content.push_str(text);
    }
}

/// The five entities that XML knows by itself.
fn entity(name: &str) -> Option<char> {
    match name {
        "amp" => Some('&'),
        "lt" => Some('<'),
        "gt" => Some('>'),
        "quot" => Some('"'),
        "apos" => Some('\''),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ops::envelope::{write_error, write_ok};
    use ops::machine::{PowerState, State};
    use ops::vm_facts::{GetState, GetStateReply};
    use ops::{Operation, Product};

    #[test]
    fn what_the_server_writes_is_read() {
        let mut bytes = Vec::new();
        let reply = GetStateReply {
            config: "/vm/a & <b>.vmx".to_owned().try_into().unwrap(),
            power: State { power: PowerState::On, paused: false },
            state: 1,
        };
        write_ok(&mut bytes, &Product::default(), &reply);
        let text = String::from_utf8(bytes).unwrap();
        let read = Reply::parse(&text).unwrap();
        assert_eq!(read.envelope.child("product").unwrap().attribute("id"), Some("GSX"));
        let out = read.into_result().unwrap();
        assert_eq!(out.text("config"), Some("/vm/a & <b>.vmx"));
        assert_eq!((out.number("state"), out.flag("paused")), (Ok(1), Ok(false)));
        assert_eq!(out.number::<u8>("powerState").unwrap_err().code, ErrorCode::Garbage);
    }

    #[test]
    fn failures_carry_number_and_text() {
        for error in [ops::Error::not_registered("/a&b.vmx"), ops::Error::state_conflict("start", "on")] {
            let mut bytes = Vec::new();
            write_error(&mut bytes, &Product::default(), &error);
            let read = Reply::parse(&String::from_utf8(bytes).unwrap()).unwrap().into_result().unwrap_err();
            assert_eq!(read, Error::from(error));
        }
        for (text, code, said) in [
            ("<exec><returncode>0</returncode></exec>", -999, "Unknown error"),
            ("<exec><returncode>0</returncode><errors><error/></errors></exec>", -999, "Unknown error"),
            ("<exec><returncode>0</returncode><errors><error>x</error></errors></exec>", -999, "x"),
            (
                "<exec><returncode>0</returncode><errors><error code=\"-8\"/></errors></exec>",
                -8,
                ErrorCode::BadState.base_text(),
            ),
            (
                "<exec><returncode>0</returncode><errors><error code=\"7\">y</error></errors></exec>",
                -999,
                "y",
            ),
        ] {
            let error = Reply::parse(text).unwrap().into_result().unwrap_err();
            assert_eq!((error.code.number(), error.text.as_str()), (code, said), "{text}");
        }
        for text in
            ["", "<exec/>", "<exec><returncode>2</returncode></exec>", "<a/>", "<exec><returncode>1</exec>"]
        {
            assert_eq!(Reply::parse(text).unwrap_err().code, ErrorCode::Garbage, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_a_request() {
        let text = Request::new("VM_GetState").text("config", "/a & <b>\r\n.vmx").to_string();
        let request = ops::envelope::parse(Document::check(&text).unwrap()).unwrap();
        assert_eq!(request.row().name, GetState::ROW.name);
        let read: GetState = request.read().unwrap();
        assert_eq!(AsRef::<std::path::Path>::as_ref(&read.config).to_str(), Some("/a & <b>\r\n.vmx"));
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives(text in "\\PC*") {
            let envelope = |text: &str| {
                let mut bytes = b"<exec><returncode>1</returncode><out><t>".to_vec();
                Out::new(&mut bytes).text(text);
                bytes.extend_from_slice(b"</t></out></exec>");
                String::from_utf8(bytes).unwrap()
            };
            let out = Reply::parse(&envelope(&text)).unwrap().into_result().unwrap();
            proptest::prop_assert_eq!(out.text("t"), Some(text.as_str()));
        }

        #[test]
        fn nothing_makes_it_panic(text in ".*") {
            let _ = Reply::parse(&text);
            let _ = Reply::parse(&format!("<exec><returncode>1</returncode>{text}</exec>"));
        }
    }
}
