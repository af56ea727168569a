//! Writes the inside of a reply: elements without white space, text escaped.
//!
//! [`Out`] is a thin layer over a byte vector. It never fails: a character that XML 1.0 cannot carry
//! is written as U+FFFD, and a carriage return as `&#13;`, because a reader would fold it into a
//! line feed.

use std::fmt::Write as _;

/// Whether a byte of text can be copied as it is. Not so for markup, control bytes, and 0xEF, with
/// which U+FFFE and U+FFFF begin.
#[allow(clippy::indexing_slicing)] // evaluated at compile time: a bad index stops the build
static PLAIN: [bool; 256] = {
    let mut table = [true; 256];
    let mut byte = 0;
    while byte < 256 {
        let b = byte as u8;
        let control = b < 0x20 && b != b'\t' && b != b'\n';
        table[byte] = !control && !matches!(b, b'&' | b'<' | b'>' | 0xEF);
        byte += 1;
    }
    table
};

/// The pen for the contents of a reply.
#[derive(Debug)]
pub struct Out<'a> {
    bytes: &'a mut Vec<u8>,
    /// Inside the quotes of an attribute.
    quoted: bool,
}

impl<'a> Out<'a> {
    /// Appends to `bytes`.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes, quoted: false }
    }

    /// How many bytes the vector holds, for [`Out::close`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether the vector is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Writes `<name>` and returns the mark that [`Out::close`] wants back.
    pub fn open(&mut self, name: &str) -> usize {
        self.bytes.push(b'<');
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(b'>');
        self.bytes.len()
    }

    /// Writes `</name>`, or turns the start tag into `<name/>` when nothing came after `mark`.
    pub fn close(&mut self, name: &str, mark: usize) {
        if self.bytes.len() == mark {
            self.bytes.pop();
            self.bytes.extend_from_slice(b"/>");
        } else {
            self.bytes.extend_from_slice(b"</");
            self.bytes.extend_from_slice(name.as_bytes());
            self.bytes.push(b'>');
        }
    }

    /// Writes `<name` without its end, for an element with attributes.
    pub fn begin(&mut self, name: &str) {
        self.bytes.push(b'<');
        self.bytes.extend_from_slice(name.as_bytes());
    }

    /// Writes ` name="`, then whatever `value` writes, then the closing quote.
    pub fn attribute(&mut self, name: &str, value: impl FnOnce(&mut Self)) {
        self.bytes.push(b' ');
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.extend_from_slice(b"=\"");
        self.quoted = true;
        value(self);
        self.quoted = false;
        self.bytes.push(b'"');
    }

    /// Ends a start tag begun with [`Out::begin`] and returns the mark for [`Out::close`].
    pub fn end_attributes(&mut self) -> usize {
        self.bytes.push(b'>');
        self.bytes.len()
    }

    /// Writes `text`, escaped for where it stands. Quotes stay as they are in content, because clients
    /// search error texts for words such as `("on")`.
    pub fn text(&mut self, text: &str) {
        if self.quoted {
            text.chars().for_each(|c| self.escaped(c));
            return;
        }
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|b| PLAIN.get(usize::from(b)) != Some(&true)) {
            let (plain, special) = rest.split_at(at);
            self.bytes.extend_from_slice(plain.as_bytes());
            let mut chars = special.chars();
            if let Some(c) = chars.next() {
                self.escaped(c);
            }
            rest = chars.as_str();
        }
        self.bytes.extend_from_slice(rest.as_bytes());
    }

    /// Writes one character.
    fn escaped(&mut self, c: char) {
        let escape: &[u8] = match c {
            '&' => b"&amp;",
            '<' => b"&lt;",
            '>' => b"&gt;",
            '\r' => b"&#13;",
            // A reader would fold these into spaces.
            '"' if self.quoted => b"&quot;",
            '\n' if self.quoted => b"&#10;",
            '\t' if self.quoted => b"&#9;",
            c if crate::guard::is_xml_char(c) => {
                self.bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                return;
            }
            _ => "\u{FFFD}".as_bytes(),
        };
        self.bytes.extend_from_slice(escape);
    }

    /// Writes a number in decimal.
    pub fn unsigned(&mut self, value: u64) {
        // Twenty digits hold the largest value. The digits are made from the last to the first.
        let mut digits = [b'0'; 20];
        let mut rest = value;
        let mut used = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            used += 1;
            if rest == 0 {
                break;
            }
        }
        self.bytes.extend(digits.iter().skip(digits.len() - used));
    }

    /// Writes a signed number in decimal.
    pub fn signed(&mut self, value: i64) {
        if value < 0 {
            self.bytes.push(b'-');
        }
        self.unsigned(value.unsigned_abs());
    }

    /// Writes what `value` displays, escaped.
    pub fn display(&mut self, value: impl std::fmt::Display) {
        let mut text = String::new();
        // Writing to a string cannot fail; a Display that reports an error leaves what it wrote.
        let _ = write!(text, "{value}");
        self.text(&text);
    }

    /// Appends markup that was rendered before.
    pub fn rendered(&mut self, markup: &[u8]) {
        self.bytes.extend_from_slice(markup);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Out<'_>)) -> String {
        let mut bytes = Vec::new();
        write(&mut Out::new(&mut bytes));
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_is_escaped_and_quotes_are_kept() {
        assert_eq!(written(|out| out.text("a&b<c>d \"e\" 'f'")), "a&amp;b&lt;c&gt;d \"e\" 'f'");
        assert_eq!(written(|out| out.text("1\r\n2\t3")), "1&#13;\n2\t3");
        assert_eq!(written(|out| out.text("ä€𝄞")), "ä€𝄞");
    }

    #[test]
    fn what_xml_cannot_carry_becomes_the_replacement_character() {
        assert_eq!(
            written(|out| out.text("a\0b\u{1B}c\u{FFFE}d\u{FFFF}")),
            "a\u{FFFD}b\u{FFFD}c\u{FFFD}d\u{FFFD}"
        );
        // The neighbours with the same first byte stay.
        assert_eq!(written(|out| out.text("\u{FEFF}\u{FFFD}")), "\u{FEFF}\u{FFFD}");
    }

    #[test]
    fn attributes_survive_the_normalisation_of_readers() {
        let text = "a\"b\n\tc\r<";
        let element = written(|out| {
            out.begin("e");
            out.attribute("a", |out| out.text(text));
            let mark = out.end_attributes();
            out.text("\"");
            out.close("e", mark);
        });
        let tree = roxmltree::Document::parse(&element).unwrap();
        assert_eq!(tree.root_element().attribute("a"), Some(text));
        assert_eq!(tree.root_element().text(), Some("\""));
    }

    #[test]
    fn an_element_without_contents_is_one_tag() {
        assert_eq!(
            written(|out| {
                let outer = out.open("a");
                let inner = out.open("b");
                out.close("b", inner);
                out.close("a", outer);
            }),
            "<a><b/></a>"
        );
    }

    #[test]
    fn numbers() {
        for value in [0, 1, 9, 10, 42, u64::MAX] {
            assert_eq!(written(|out| out.unsigned(value)), value.to_string());
        }
        for value in [i64::MIN, -1, 0, i64::MAX] {
            assert_eq!(written(|out| out.signed(value)), value.to_string());
        }
    }

    proptest::proptest! {
        #[test]
        fn a_reader_gets_back_what_was_written(text in "\\PC*|[\\x00-\\x7F]*|\\u{E000}|.*") {
            let element = written(|out| {
                let mark = out.open("e");
                out.text(&text);
                out.close("e", mark);
            });
            let expected: String =
                text.chars().map(|c| if crate::guard::is_xml_char(c) { c } else { '\u{FFFD}' }).collect();
            let tree = roxmltree::Document::parse(&element).unwrap();
            proptest::prop_assert_eq!(tree.root_element().text().unwrap_or_default(), expected);
        }
    }
}
