//! The grammar of one command line.
//!
//! A line ends in CR LF or in LF alone. NUL anywhere, or a CR that is not followed by LF, makes it
//! malformed; a line longer than the limit is refused as soon as one byte too many has arrived. The
//! word runs to the first space, the argument from behind that space to the end.

/// Takes bytes as they come and gives lines.
#[derive(Debug)]
pub struct LineBuffer {
    /// Received and not yet taken.
    bytes: Vec<u8>,
    /// How far `bytes` was searched for a line end, so that no byte is looked at twice.
    searched: usize,
    /// Longest line, its end excluded.
    max: usize,
}

/// What the buffer holds next.
#[derive(Debug, PartialEq, Eq)]
pub enum Taken {
    /// A line, without its end.
    Line(Vec<u8>),
    /// A line with NUL or a lone CR. It is skipped.
    Malformed,
    /// More than the limit without a line end. Nothing can follow.
    TooLong,
    /// No complete line yet.
    NeedMore,
}

impl LineBuffer {
    /// A buffer for lines of at most `max` bytes, the line end excluded.
    #[must_use]
    pub fn new(max: usize) -> Self {
        LineBuffer { bytes: Vec::new(), searched: 0, max }
    }

    /// Adds received bytes. The caller reads only when [`LineBuffer::take`] has said
    /// [`Taken::NeedMore`], so that never more than one line plus one read is held.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next line.
    pub fn take(&mut self) -> Taken {
        let unsearched = self.bytes.get(self.searched..).unwrap_or_default();
        let Some(offset) = unsearched.iter().position(|&byte| byte == b'\n') else {
            self.searched = self.bytes.len();
            // One byte over the limit may still be the CR of the line end.
            let over = self.bytes.len() > self.max;
            let may_end = self.bytes.len() == self.max + 1 && self.bytes.last() == Some(&b'\r');
            return if over && !may_end { Taken::TooLong } else { Taken::NeedMore };
        };
        let end = self.searched + offset;
        let rest = self.bytes.split_off(end + 1);
        let mut line = std::mem::replace(&mut self.bytes, rest);
        self.searched = 0;
        line.pop();
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if line.len() > self.max {
            Taken::TooLong
        } else if line.iter().any(|&byte| byte == 0 || byte == b'\r') {
            Taken::Malformed
        } else {
            Taken::Line(line)
        }
    }

    /// The bytes behind the last taken line; the buffer is empty afterwards and holds no memory.
    pub fn into_rest(&mut self) -> Vec<u8> {
        self.searched = 0;
        std::mem::take(&mut self.bytes)
    }
}

/// A line split into its word, upper-cased, and its argument.
#[derive(Debug, PartialEq, Eq)]
pub struct Command<'a> {
    /// The command word in upper case.
    pub word: Vec<u8>,
    /// Everything behind the first space; empty if there is none.
    pub argument: &'a [u8],
}

/// Splits a line at its first space.
#[must_use]
pub fn split(line: &[u8]) -> Command<'_> {
    let mut parts = line.splitn(2, |&byte| byte == b' ');
    let word = parts.next().unwrap_or_default().to_ascii_uppercase();
    Command { word, argument: parts.next().unwrap_or_default() }
}

/// Resolves `%XX`: one pass, left to right; any other `%` is taken literally.
///
/// Returns `None` when an escape yields NUL, CR or LF.
#[must_use]
pub fn unescape(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        match tail.first_chunk::<2>().and_then(|&[high, low]| Some((hex(high)?, hex(low)?))) {
            Some((high, low)) if byte == b'%' => {
                let decoded = high << 4 | low;
                if matches!(decoded, 0 | b'\r' | b'\n') {
                    return None;
                }
                out.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            _ => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    Some(out)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(max: usize, pieces: &[&[u8]]) -> Vec<Taken> {
        let mut buffer = LineBuffer::new(max);
        let mut out = Vec::new();
        for piece in pieces {
            buffer.push(piece);
            loop {
                match buffer.take() {
                    Taken::NeedMore => break,
                    Taken::TooLong => {
                        out.push(Taken::TooLong);
                        return out;
                    }
                    other => out.push(other),
                }
            }
        }
        out
    }

    fn line(text: &[u8]) -> Taken {
        Taken::Line(text.to_vec())
    }

    #[test]
    fn both_line_ends_and_any_split() {
        assert_eq!(lines(9, &[b"USER a\r\nQUIT\n\n"]), [line(b"USER a"), line(b"QUIT"), line(b"")]);
        assert_eq!(lines(9, &[b"US", b"ER a\r", b"\n"]), [line(b"USER a")]);
    }

    #[test]
    fn nul_and_lone_cr_spoil_their_own_line_only() {
        assert_eq!(lines(9, &[b"a\0b\nc\n"]), [Taken::Malformed, line(b"c")]);
        assert_eq!(lines(9, &[b"a\rb\nc\n"]), [Taken::Malformed, line(b"c")]);
        assert_eq!(lines(9, &[b"a\r\r\n"]), [Taken::Malformed]);
    }

    #[test]
    fn the_limit_is_exact() {
        assert_eq!(lines(4, &[b"abcd\r\n"]), [line(b"abcd")]);
        assert_eq!(lines(4, &[b"abcd\r", b"\n"]), [line(b"abcd")]);
        assert_eq!(lines(4, &[b"abcde"]), [Taken::TooLong]);
        assert_eq!(lines(4, &[b"abcde\n"]), [Taken::TooLong]);
        assert_eq!(lines(4, &[b"abcd\rx"]), [Taken::TooLong]);
    }

    #[test]
    fn words_and_arguments() {
        assert_eq!(split(b"user  bob "), Command { word: b"USER".to_vec(), argument: b" bob " });
        assert_eq!(split(b"QUIT"), Command { word: b"QUIT".to_vec(), argument: b"" });
        assert_eq!(split(b" x"), Command { word: b"".to_vec(), argument: b"x" });
    }

    #[test]
    fn escapes() {
        assert_eq!(unescape(b"%41%fF").unwrap(), b"A\xff");
        assert_eq!(unescape(b"%2541").unwrap(), b"%41");
        for literal in [&b"%"[..], b"%%", b"%n", b"%s", b"%F", b"%\xff ", b"%4", b"%+1"] {
            assert_eq!(unescape(literal).unwrap(), literal);
        }
        for bad in [&b"%00"[..], b"x%0a", b"%0D%41"] {
            assert_eq!(unescape(bad), None);
        }
    }

    #[test]
    fn every_pair_behind_a_percent_sign_is_decoded_or_literal() {
        for high in 0..=255u8 {
            for low in 0..=255u8 {
                let text = [b'%', high, low];
                match unescape(&text) {
                    None => assert!(matches!((high, low), (b'0', b'0' | b'a' | b'A' | b'd' | b'D'))),
                    Some(out) if out.len() == 1 => {
                        assert!(high.is_ascii_hexdigit() && low.is_ascii_hexdigit());
                    }
                    Some(out) => assert_eq!(out, text),
                }
            }
        }
    }

    proptest! {
        #[test]
        fn splitting_never_changes_the_lines(bytes in "[a\r\n\u{0}]{0,40}", at in 0usize..40) {
            let bytes = bytes.as_bytes();
            let at = at.min(bytes.len());
            prop_assert_eq!(lines(6, &[bytes]), lines(6, &[&bytes[..at], &bytes[at..]]));
        }

        #[test]
        fn what_we_escape_is_read_back(text: Vec<u8>) {
            let text: Vec<u8> = text.into_iter().filter(|byte| !matches!(byte, 0 | b'\r' | b'\n')).collect();
            prop_assert_eq!(unescape(&link::identity::escape(&text)), Some(text));
        }
    }
}
