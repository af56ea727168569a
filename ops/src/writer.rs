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
        table[byte] = !control && !matches!(b, b'&' | b'<' | b'>' | b'"' | 0xEF);
        byte += 1;
    }
    table
};

/// The pen for the contents of a reply.
#[derive(Debug)]
pub struct Out<'a> {
    bytes: &'a mut Vec<u8>,
}

impl<'a> Out<'a> {
    /// Appends to `bytes`.
    pub fn new(bytes: &'a mut Vec<u8>) -> Self {
        Self { bytes }
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
        value(self);
        self.bytes.push(b'"');
    }

    /// Ends a start tag begun with [`Out::begin`] and returns the mark for [`Out::close`].
    pub fn end_attributes(&mut self) -> usize {
        self.bytes.push(b'>');
        self.bytes.len()
    }

    /// Writes `text` so that it is safe both as content and inside a quoted attribute.
    pub fn text(&mut self, text: &str) {
        let mut rest = text;
        while let Some(at) = rest.bytes().position(|b| PLAIN.get(usize::from(b)) != Some(&true)) {
            let (plain, special) = rest.split_at(at);
            self.bytes.extend_from_slice(plain.as_bytes());
            let mut chars = special.chars();
            match chars.next() {
                Some('&') => self.bytes.extend_from_slice(b"&amp;"),
                Some('<') => self.bytes.extend_from_slice(b"&lt;"),
                Some('>') => self.bytes.extend_from_slice(b"&gt;"),
                Some('"') => self.bytes.extend_from_slice(b"&quot;"),
                Some('\r') => self.bytes.extend_from_slice(b"&#13;"),
                Some(c) if crate::guard::is_xml_char(c) => {
                    self.bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                }
                _ => self.bytes.extend_from_slice("\u{FFFD}".as_bytes()),
            }
            rest = chars.as_str();
        }
        self.bytes.extend_from_slice(rest.as_bytes());
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
