//! The input guard: decides, byte by byte, whether a stream may reach the XML reader.
//!
//! One pass, no allocation, no recursion, and it can stop after any byte and go on later. It finds
//! where a document ends, refuses what the wire format leaves out (document types, entities,
//! namespaces, processing instructions), and keeps the limits, each at the first byte that breaks
//! it. What it lets through is well-formed, so the reader behind it has no decisions left to make.
//!
//! ```text
//!            white space, NUL, BOM
//!                 ┌──────┐
//!                 ▼      │     '<'            name         '>'
//!   scan() ──▶ Between ──┴──▶ Open ──▶ StartName ──▶ Tag ──▶ Text ──▶ ... ──▶ Document(length)
//!                               │  ╲                  │ ▲       │ ▲
//!                               │   EndName           ▼ │       ▼ │
//!                               │                 attribute    &ref;
//!                               ▼
//!                   <!--  <![CDATA[  <?xml
//! ```
//!
//! The bytes belong to the caller. The guard keeps offsets into them: where each open element's
//! name stands (an end tag is compared with the bytes themselves) and where the current tag began
//! (for duplicate attributes). That is why [`Guard::scan`] wants the whole pending document each
//! time, although it never looks at a byte twice except for those two comparisons.
//!
//! Cost: linear. The comparisons are bounded by the limits: an end tag by 128 bytes, a tag's
//! attributes by 64.

use std::fmt;

use crate::table::{self, LargeText};

/// Deepest nesting that any set of limits can allow.
const MAX_DEPTH: usize = 16;

/// Longest XML declaration, in bytes. A full one has about 55.
const MAX_DECLARATION: usize = 256;

/// Longest reference, in bytes between `&` and `;`. Leading zeros are allowed, endless ones are not.
const MAX_REFERENCE: usize = 32;

/// Limits of one kind of stream. They decide only how much is accepted, never what is well-formed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one document, from its first `<` to the closing `>`.
    pub bytes: usize,
    /// Element depth, the root counting 1; at most 16.
    pub depth: usize,
    /// Attributes of one element; at most 64.
    pub attributes: u8,
    /// Bytes of an element or attribute name; at most 255.
    pub name: u8,
    /// The only root element that is allowed.
    pub root: Option<&'static str>,
    /// Finds the parameter of an operation whose text may go beyond `bytes`.
    pub large: fn(&str) -> Option<&'static LargeText>,
}

/// The limits of `<exec>` requests.
pub static EXEC: Limits = Limits {
    bytes: 64 * 1024,
    depth: 16,
    attributes: 64,
    name: 128,
    root: Some("exec"),
    large: table::large_text,
};

/// Most items in one list of a request.
pub const MAX_ITEMS: usize = 256;

/// Why a stream cannot be read on. The texts are part of the protocol (`docs/operations/README.md`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The document has more bytes than this.
    TooLarge(usize),
    /// The text of this parameter has more bytes than this.
    LargeTextTooLarge(&'static str, usize),
    /// Elements are nested deeper than this.
    TooDeep(usize),
    /// An element has more attributes than this.
    TooManyAttributes(u8),
    /// A name is too long.
    NameTooLong,
    /// A list has more items than this.
    TooManyItems(usize),
    /// A path is too long.
    PathTooLong,
    /// `<!DOCTYPE` or another declaration.
    DocumentType,
    /// A reference to an entity that is not one of the five predefined.
    Entity,
    /// A processing instruction, or an XML declaration in the wrong place.
    Instruction,
    /// The XML declaration is wrong.
    Declaration,
    /// The XML declaration names another encoding.
    Encoding,
    /// A name with a colon.
    Colon,
    /// `xmlns`.
    Namespace,
    /// An attribute that was there already.
    DuplicateAttribute,
    /// A character, given directly or by reference, that XML 1.0 does not allow.
    Character,
    /// Bytes that are no UTF-8.
    Utf8,
    /// The root element is another one.
    WrongRoot,
    /// Text outside the root element.
    Outside,
    /// Text directly under `exec` or `in`.
    StrayText,
    /// An end tag without its start tag.
    EndTag,
    /// The document ends too early.
    Incomplete,
    /// A character that cannot stand there; the word says where.
    Syntax(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::TooLarge(max) => return write!(f, "larger than {max} bytes"),
            Reason::LargeTextTooLarge(field, max) => return write!(f, "{field} larger than {max} bytes"),
            Reason::TooDeep(max) => return write!(f, "nested deeper than {max}"),
            Reason::TooManyAttributes(max) => return write!(f, "more than {max} attributes"),
            Reason::TooManyItems(max) => return write!(f, "more than {max} items"),
            Reason::Syntax(place) => return write!(f, "not well-formed XML ({place})"),
            Reason::NameTooLong => "name too long",
            Reason::PathTooLong => "path too long",
            Reason::DocumentType => "document type declaration",
            Reason::Entity => "unknown entity",
            Reason::Instruction => "processing instruction",
            Reason::Declaration => "bad XML declaration",
            Reason::Encoding => "encoding is not UTF-8",
            Reason::Colon => "name with a colon",
            Reason::Namespace => "namespace declaration",
            Reason::DuplicateAttribute => "duplicate attribute",
            Reason::Character => "character not allowed in XML",
            Reason::Utf8 => "invalid UTF-8",
            Reason::WrongRoot => "root element is not exec",
            Reason::Outside => "text outside the root element",
            Reason::StrayText => "text where only elements are allowed",
            Reason::EndTag => "end tag does not match",
            Reason::Incomplete => "incomplete document",
        })
    }
}

/// What a call of [`Guard::scan`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The first `n` bytes are padding between documents: drop them and call again.
    Skip(usize),
    /// A complete document: the first `n` bytes. Drop them before the next call.
    Document(usize),
    /// Everything was looked at and more is needed. Call again with the same bytes and new ones
    /// behind them.
    More,
    /// The stream cannot be read on. Further calls say the same.
    Refused(Reason),
}

/// Where the envelope of a plain document stands: `<exec><op>NAME</op><in>...</in></exec>` with
/// nothing else outside `in`. Nearly every request is like that, and the guard sees it in passing, so
/// nobody needs to look for the two parts again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// First byte of the operation's name, and the byte after its last.
    pub op: (u32, u32),
    /// The same for what is inside `in`, where there is one.
    pub input: Option<(u32, u32)>,
}

/// One whole document that the guard has accepted. There is no other way to make one, so whoever
/// reads it may rely on it being well-formed and within the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    text: &'a str,
    findings: Findings,
}

/// What the guard noticed on its way through a document.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Findings {
    /// Whether there are carriage returns, which a reader has to fold.
    returns: bool,
    /// The envelope, if it is a plain one.
    envelope: Option<Envelope>,
}

impl<'a> Document<'a> {
    /// Guards a text that is exactly one document, with padding around it at most.
    ///
    /// # Errors
    /// The guard's reason; [`Reason::Incomplete`] for a text that ends too early, and
    /// [`Reason::Outside`] for one that goes on.
    pub fn check(text: &'a str) -> Result<Self, Reason> {
        Self::check_with(text, &EXEC)
    }

    /// As [`Document::check`], with other limits.
    ///
    /// # Errors
    /// As [`Document::check`].
    pub fn check_with(text: &'a str, limits: &'static Limits) -> Result<Self, Reason> {
        let mut guard = Guard::with_limits(limits);
        let mut rest = text;
        loop {
            match guard.scan(rest.as_bytes()) {
                Progress::Skip(padding) => rest = rest.get(padding..).unwrap_or_default(),
                Progress::More => return Err(Reason::Incomplete),
                Progress::Refused(reason) => return Err(reason),
                Progress::Document(length) => {
                    let after = rest.get(length..).unwrap_or_default();
                    let is_padding = |c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\0' | '\u{FEFF}');
                    if !after.chars().all(is_padding) {
                        return Err(Reason::Outside);
                    }
                    let text = rest.get(..length).ok_or(Reason::Utf8)?;
                    return Ok(Self { text, findings: guard.found });
                }
            }
        }
    }

    /// The first `length` bytes of `bytes`, for which `guard` has just said
    /// [`Progress::Document`]. One more pass checks the UTF-8, because a promise alone does not
    /// make a `str`.
    pub(crate) fn passed(guard: &Guard, bytes: &'a [u8], length: usize) -> Result<Self, Reason> {
        let document = bytes.get(..length).ok_or(Reason::Utf8)?;
        let text = std::str::from_utf8(document).map_err(|_| Reason::Utf8)?;
        Ok(Self { text, findings: guard.found })
    }

    /// The text, from the first `<` to the last `>`.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.text
    }

    /// Whether there are carriage returns anywhere.
    pub(crate) fn has_returns(self) -> bool {
        self.findings.returns
    }

    /// The parts of a plain envelope.
    pub(crate) fn envelope(self) -> Option<Envelope> {
        self.findings.envelope
    }
}

/// Where the guard stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Between documents.
    Between,
    /// Before or after the elements of a document that has begun.
    Prolog,
    /// After `<`.
    Open,
    /// After `<!`.
    Bang,
    /// After `<!-`.
    CommentOpen,
    /// In a comment.
    Comment,
    /// In a comment, after `-`.
    CommentDash,
    /// In a comment, after `--`.
    CommentEnd,
    /// In `<![CDATA[`, which starts at `mark`.
    CDataOpen,
    /// In a CDATA section.
    CData,
    /// In a CDATA section, after `]`.
    CDataBracket,
    /// In a CDATA section, after `]]`.
    CDataEnd,
    /// In `<?xml` or something like it, which starts at `mark`.
    DeclarationOpen,
    /// In the XML declaration.
    Declaration,
    /// In the name of a start tag, which starts at `mark`.
    StartName,
    /// In a start tag after a name or a value: white space or the end must follow.
    Tag,
    /// In a start tag after white space.
    TagSpace,
    /// In an attribute's name, which starts at `mark`.
    AttributeName,
    /// After an attribute's name.
    Equals,
    /// After `=`.
    Quote,
    /// In a value.
    Value,
    /// In a start tag, after `/`.
    EmptyEnd,
    /// In the name of an end tag, which starts at `mark`.
    EndName,
    /// After the name of an end tag.
    EndTagSpace,
    /// In character data.
    Text,
    /// In character data, after `]`.
    TextBracket,
    /// In character data, after `]]`, where `>` is not allowed.
    TextBrackets,
    /// In a reference, whose name starts at `mark`; `quote` tells what it is part of.
    Reference,
    /// Refused before.
    Dead,
}

/// How far a plain envelope has been seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing but the start of `exec`.
    Start,
    /// Inside `op`.
    Op,
    /// `op` is complete.
    Named,
    /// Inside `in`.
    In,
    /// `in` is complete.
    Done,
    /// It is not a plain one, or it came in pieces.
    Other,
}

/// Byte classes: what may stand in character data, in values, in names.
mod class {
    /// Needs a look in character data.
    pub const TEXT: u8 = 1;
    /// Needs a look in an attribute's value.
    pub const VALUE: u8 = 2;
    /// ASCII that may stand in a name.
    pub const NAME: u8 = 4;
    /// ASCII that may start a name.
    pub const NAME_START: u8 = 8;
    /// White space of XML.
    pub const SPACE: u8 = 16;
    /// Needs a look in a comment.
    pub const COMMENT: u8 = 32;
    /// Needs a look in a CDATA section.
    pub const CDATA: u8 = 64;

    pub static OF: [u8; 256] = build();

    #[allow(clippy::indexing_slicing)] // evaluated at compile time: a bad index stops the build
    const fn build() -> [u8; 256] {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let b = byte as u8;
            let control = b < 0x20 && b != b'\t' && b != b'\n' && b != b'\r';
            let mut bits = 0;
            if control || b >= 0x80 {
                bits |= TEXT | VALUE | COMMENT | CDATA;
            }
            if matches!(b, b'<' | b'&' | b']' | b'\r') {
                bits |= TEXT;
            }
            if matches!(b, b'<' | b'&' | b'"' | b'\'') {
                bits |= VALUE;
            }
            if b == b'-' {
                bits |= COMMENT;
            }
            if matches!(b, b']' | b'\r') {
                bits |= CDATA;
            }
            if b.is_ascii_alphabetic() || b == b'_' {
                bits |= NAME | NAME_START;
            }
            if b.is_ascii_digit() || matches!(b, b'-' | b'.') {
                bits |= NAME;
            }
            if matches!(b, b' ' | b'\t' | b'\n' | b'\r') {
                bits |= SPACE;
            }
            table[byte] = bits;
            byte += 1;
        }
        table
    }
}

/// Whether `byte` is in one of the classes `bits`.
#[inline]
fn is(byte: u8, bits: u8) -> bool {
    class_of(byte) & bits != 0
}

/// All classes of `byte`.
#[inline]
fn class_of(byte: u8) -> u8 {
    class::OF.get(usize::from(byte)).copied().unwrap_or_default()
}

/// Number of bytes at the front of `bytes` that are in none of the classes `stop`.
#[inline]
fn run_without(bytes: &[u8], stop: u8) -> usize {
    let mut rest = bytes;
    // Four at a time, because most runs end soon.
    while let Some((four, tail)) = rest.split_first_chunk::<4>() {
        if four.iter().fold(0, |bits, &b| bits | class_of(b)) & stop != 0 {
            break;
        }
        rest = tail;
    }
    let done = bytes.len() - rest.len();
    done + rest.iter().position(|&b| is(b, stop)).unwrap_or(rest.len())
}

/// Number of bytes at the front of `bytes` that are ASCII and may stand in a name.
#[inline]
fn run_of_name(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((four, tail)) = rest.split_first_chunk::<4>() {
        if four.iter().fold(class::NAME, |bits, &b| bits & class_of(b)) == 0 {
            break;
        }
        rest = tail;
    }
    let done = bytes.len() - rest.len();
    done + rest.iter().position(|&b| !is(b, class::NAME)).unwrap_or(rest.len())
}

/// Whether XML 1.0 allows the character.
#[must_use]
pub const fn is_xml_char(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// Whether a name may start with this character beyond ASCII.
const fn is_wide_name_start(c: char) -> bool {
    matches!(c,
        '\u{C0}'..='\u{D6}' | '\u{D8}'..='\u{F6}' | '\u{F8}'..='\u{2FF}' | '\u{370}'..='\u{37D}'
        | '\u{37F}'..='\u{1FFF}' | '\u{200C}'..='\u{200D}' | '\u{2070}'..='\u{218F}'
        | '\u{2C00}'..='\u{2FEF}' | '\u{3001}'..='\u{D7FF}' | '\u{F900}'..='\u{FDCF}'
        | '\u{FDF0}'..='\u{FFFD}' | '\u{10000}'..='\u{EFFFF}')
}

/// Whether a name may contain this character beyond ASCII.
const fn is_wide_name(c: char) -> bool {
    is_wide_name_start(c) || matches!(c, '\u{B7}' | '\u{300}'..='\u{36F}' | '\u{203F}'..='\u{2040}')
}

/// A character beyond ASCII at the front of some bytes.
enum Wide {
    /// The character and its length.
    Char(char, usize),
    /// The bytes so far are a beginning.
    Partial,
}

/// Decodes the character that starts at `bytes`, which may end inside it.
fn wide(bytes: &[u8]) -> Result<Wide, Reason> {
    let head = bytes.get(..4).unwrap_or(bytes);
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => match (error.valid_up_to(), error.error_len()) {
            (0, None) => return Ok(Wide::Partial),
            (0, Some(_)) => return Err(Reason::Utf8),
            (good, _) => head.get(..good).and_then(|g| std::str::from_utf8(g).ok()).unwrap_or_default(),
        },
    };
    match valid.chars().next() {
        Some(c) if is_xml_char(c) => Ok(Wide::Char(c, c.len_utf8())),
        Some(_) => Err(Reason::Character),
        None => Ok(Wide::Partial),
    }
}

/// What one step of the machine came to.
enum Step {
    /// Go on with the new state.
    Next,
    /// The bytes are used up.
    More,
    /// The document is complete.
    Complete,
}

/// The guard of one stream. About 200 bytes, no heap.
#[derive(Clone, Debug)]
pub struct Guard {
    limits: &'static Limits,
    state: State,
    /// Next byte to look at, counted from the first byte of the document.
    at: usize,
    /// Byte at which the document is too large.
    end: usize,
    /// Where the current name, reference or keyword starts.
    mark: usize,
    /// Number of open elements.
    depth: usize,
    /// Where the name of each open element starts, and its length.
    open: [u32; MAX_DEPTH],
    open_lengths: [u8; MAX_DEPTH],
    /// Where the attributes of the current start tag begin.
    tag: usize,
    /// Attributes in the current start tag.
    attributes: u8,
    /// One bit per hash of an attribute name in the current start tag.
    names: u64,
    /// The quote around the current value; 0 in character data.
    quote: u8,
    /// Where the text of `op` starts, while it is open.
    op: usize,
    /// How far the envelope is a plain one, and what was seen of it.
    stage: Stage,
    envelope: Envelope,
    /// Whether a carriage return was seen.
    returns: bool,
    /// About the last complete document.
    found: Findings,
    /// The parameter that may be large, once `op` is known.
    large: Option<&'static LargeText>,
    /// Where the text of that parameter starts, while it is open.
    large_start: Option<usize>,
    /// Why the stream was refused.
    refused: Option<Reason>,
}

impl Guard {
    /// A guard at the beginning of a stream of `<exec>` requests.
    #[must_use]
    pub fn new() -> Self {
        Self::with_limits(&EXEC)
    }

    /// A guard with other limits.
    #[must_use]
    pub fn with_limits(limits: &'static Limits) -> Self {
        Self {
            limits,
            state: State::Between,
            at: 0,
            end: limits.bytes,
            mark: 0,
            depth: 0,
            open: [0; MAX_DEPTH],
            open_lengths: [0; MAX_DEPTH],
            tag: 0,
            attributes: 0,
            names: 0,
            quote: 0,
            op: 0,
            stage: Stage::Start,
            envelope: Envelope { op: (0, 0), input: None },
            returns: false,
            found: Findings::default(),
            large: None,
            large_start: None,
            refused: None,
        }
    }

    /// How many bytes of the current document were looked at.
    #[must_use]
    pub fn scanned(&self) -> usize {
        self.at
    }

    /// Looks at what is new in `pending`: all bytes that were not yet dropped by order of
    /// [`Progress::Skip`] or [`Progress::Document`].
    pub fn scan(&mut self, pending: &[u8]) -> Progress {
        if self.state == State::Between {
            match self.between(pending) {
                Ok(0) => {}
                Ok(padding) => return Progress::Skip(padding),
                Err(reason) => return self.refuse(reason),
            }
        }
        loop {
            let end = self.end;
            let bytes = pending.get(..end).unwrap_or(pending);
            if self.state == State::Text {
                match self.lane(bytes) {
                    Ok(true) => return self.complete(),
                    Ok(false) if self.end != end => continue,
                    Ok(false) => {}
                    Err(reason) => return self.refuse(reason),
                }
            }
            // Outside `in`, whatever is not for the fast lane makes the envelope a special one.
            if self.stage != Stage::In {
                self.stage = Stage::Other;
            }
            match self.step(bytes) {
                Ok(Step::Next) => {}
                Ok(Step::Complete) => return self.complete(),
                Ok(Step::More) if pending.len() > self.end => return self.refuse(self.too_large()),
                Ok(Step::More) => return Progress::More,
                Err(reason) => return self.refuse(reason),
            }
        }
    }

    /// At the end of a document: remembers what was found, and starts over.
    fn complete(&mut self) -> Progress {
        let length = self.at;
        let plain = matches!(self.stage, Stage::Named | Stage::Done);
        let found = Findings { returns: self.returns, envelope: plain.then_some(self.envelope) };
        // What is not named here is written before it is read again.
        self.found = found;
        self.state = State::Between;
        self.at = 0;
        self.end = self.limits.bytes;
        self.stage = Stage::Start;
        self.envelope.input = None;
        self.returns = false;
        self.large = None;
        Progress::Document(length)
    }

    fn refuse(&mut self, reason: Reason) -> Progress {
        self.state = State::Dead;
        Progress::Refused(*self.refused.get_or_insert(reason))
    }

    fn too_large(&self) -> Reason {
        match (self.large, self.large_start) {
            (Some(large), Some(_)) => Reason::LargeTextTooLarge(large.field, large.max),
            _ => Reason::TooLarge(self.limits.bytes),
        }
    }

    /// Counts the padding in front of a document; 0 when the document starts here or when a byte
    /// order mark is not complete yet.
    fn between(&mut self, pending: &[u8]) -> Result<usize, Reason> {
        let mut padding = 0;
        loop {
            let rest = pending.get(padding..).unwrap_or_default();
            match rest.first() {
                Some(b' ' | b'\t' | b'\r' | b'\n' | 0) => padding += 1,
                Some(0xEF) if rest.starts_with(b"\xEF\xBB\xBF") => padding += 3,
                Some(0xEF) if b"\xEF\xBB\xBF".starts_with(rest) => return Ok(padding),
                Some(b'<') if padding == 0 => {
                    // The `<` is looked at again, as if text had come before it.
                    self.state = State::Text;
                    return Ok(0);
                }
                None | Some(b'<') => return Ok(padding),
                Some(_) if padding > 0 => return Ok(padding),
                Some(&byte) if byte < 0x80 || wide(rest)?.is_complete() => return Err(Reason::Outside),
                Some(_) => return Ok(padding),
            }
        }
    }

    /// One move of the machine. `bytes` is cut at the size limit.
    #[allow(clippy::too_many_lines)] // one arm per state; splitting it would hide the machine
    fn step(&mut self, bytes: &[u8]) -> Result<Step, Reason> {
        let rest = bytes.get(self.at..).unwrap_or_default();
        let Some(&byte) = rest.first() else {
            return Ok(Step::More);
        };
        match self.state {
            State::Between => return Ok(Step::More),
            State::Dead => return Err(self.refused.unwrap_or(Reason::Outside)),
            State::Prolog => match byte {
                b'<' => self.go(State::Open),
                _ if is(byte, class::SPACE) => self.at += 1,
                _ => return Err(Reason::Outside),
            },
            State::Open => match byte {
                b'/' if self.depth > 0 => {
                    self.go(State::EndName);
                    self.mark = self.at;
                }
                b'/' => return Err(Reason::EndTag),
                b'!' => self.go(State::Bang),
                b'?' if self.at == 1 => {
                    self.go(State::DeclarationOpen);
                    self.mark = self.at;
                }
                b'?' => return Err(Reason::Instruction),
                _ => {
                    // The element counts from its first byte, so that depth 17 is refused before
                    // its name is known.
                    self.mark = self.at;
                    if self.depth >= self.limits.depth.min(MAX_DEPTH) {
                        return Err(Reason::TooDeep(self.limits.depth));
                    }
                    self.state = State::StartName;
                }
            },
            State::Bang => match byte {
                b'-' => self.go(State::CommentOpen),
                b'[' if self.depth > 0 => {
                    self.go(State::CDataOpen);
                    self.mark = self.at;
                }
                b'[' => return Err(Reason::Outside),
                b'D' => return Err(Reason::DocumentType),
                _ => return Err(Reason::Syntax("after <!")),
            },
            State::CommentOpen => match byte {
                b'-' => self.go(State::Comment),
                _ => return Err(Reason::Syntax("after <!-")),
            },
            State::Comment => {
                return self.plain(rest, class::COMMENT, |guard, _| {
                    guard.go(State::CommentDash);
                    Ok(())
                });
            }
            State::CommentDash => match byte {
                b'-' => self.go(State::CommentEnd),
                _ => self.state = State::Comment,
            },
            State::CommentEnd => match byte {
                b'>' => self.go(if self.depth > 0 { State::Text } else { State::Prolog }),
                _ => return Err(Reason::Syntax("-- in a comment")),
            },
            State::CDataOpen => match b"CDATA[".get(self.at - self.mark) {
                Some(&expected) if expected == byte => {
                    self.at += 1;
                    if self.at - self.mark == 6 {
                        self.state = State::CData;
                    }
                }
                _ => return Err(Reason::Syntax("after <![")),
            },
            State::CData => {
                return self.plain(rest, class::CDATA, |guard, byte| {
                    guard.returns |= byte == b'\r';
                    guard.go(if byte == b']' { State::CDataBracket } else { State::CData });
                    Ok(())
                });
            }
            State::CDataBracket => match byte {
                b']' => self.go(State::CDataEnd),
                _ => self.state = State::CData,
            },
            State::CDataEnd => match byte {
                b']' => self.at += 1,
                b'>' => self.go(State::Text),
                _ => self.state = State::CData,
            },
            State::DeclarationOpen => match b"xml".get(self.at - self.mark) {
                Some(&expected) if expected == byte => self.at += 1,
                None if is(byte, class::SPACE) => self.go(State::Declaration),
                _ => return Err(Reason::Instruction),
            },
            State::Declaration => {
                if !(byte.is_ascii_graphic() || is(byte, class::SPACE)) || self.at > MAX_DECLARATION {
                    return Err(Reason::Declaration);
                }
                self.at += 1;
                if byte == b'>' {
                    let inner = bytes.get(self.mark + 3..self.at).unwrap_or_default();
                    check_declaration(inner)?;
                    self.state = State::Prolog;
                }
            }
            State::StartName => {
                if !self.name(rest)? {
                    return Ok(Step::More);
                }
                self.enter(bytes.get(self.mark..self.at).unwrap_or_default())?;
                self.tag = self.at;
                self.attributes = 0;
                self.names = 0;
                self.state = State::Tag;
            }
            State::Tag | State::TagSpace => match byte {
                b'>' => {
                    self.at += 1;
                    self.opened(bytes);
                }
                b'/' => self.go(State::EmptyEnd),
                _ if is(byte, class::SPACE) => self.go(State::TagSpace),
                _ if self.state == State::Tag => return Err(Reason::Syntax("in a tag")),
                _ => {
                    if self.attributes >= self.limits.attributes {
                        return Err(Reason::TooManyAttributes(self.limits.attributes));
                    }
                    self.attributes += 1;
                    self.mark = self.at;
                    self.state = State::AttributeName;
                }
            },
            State::AttributeName => {
                let done = self.name(rest).map_err(|reason| match reason {
                    Reason::Colon if bytes.get(self.mark..self.at) == Some(b"xmlns") => Reason::Namespace,
                    other => other,
                })?;
                if !done {
                    return Ok(Step::More);
                }
                self.attribute(bytes)?;
                self.state = State::Equals;
            }
            State::Equals => match byte {
                b'=' => self.go(State::Quote),
                _ if is(byte, class::SPACE) => self.at += 1,
                _ => return Err(Reason::Syntax("attribute without a value")),
            },
            State::Quote => match byte {
                b'"' | b'\'' => {
                    self.quote = byte;
                    self.go(State::Value);
                }
                _ if is(byte, class::SPACE) => self.at += 1,
                _ => return Err(Reason::Syntax("value without quotes")),
            },
            State::Value => {
                return self.plain(rest, class::VALUE, |guard, byte| {
                    match byte {
                        b'<' => return Err(Reason::Syntax("< in a value")),
                        b'&' => {
                            guard.go(State::Reference);
                            guard.mark = guard.at;
                        }
                        _ if byte == guard.quote => {
                            guard.go(State::Tag);
                            guard.quote = 0;
                        }
                        _ => guard.at += 1,
                    }
                    Ok(())
                });
            }
            State::EmptyEnd => match byte {
                b'>' => {
                    self.at += 1;
                    return Ok(self.closed());
                }
                _ => return Err(Reason::Syntax("after / in a tag")),
            },
            State::EndName => {
                let name = self.open_name(bytes, self.depth - 1);
                let have = rest.get(..name.len() - (self.at - self.mark)).unwrap_or(rest);
                let want = name.get(self.at - self.mark..).unwrap_or_default();
                if !want.starts_with(have) {
                    return Err(Reason::EndTag);
                }
                self.at += have.len();
                if self.at - self.mark == name.len() {
                    self.state = State::EndTagSpace;
                }
            }
            State::EndTagSpace => match byte {
                b'>' => {
                    self.end_tag(bytes)?;
                    self.at += 1;
                    return Ok(self.closed());
                }
                _ if is(byte, class::SPACE) => self.at += 1,
                _ => return Err(Reason::EndTag),
            },
            State::Text => {
                return self.plain(rest, class::TEXT, |guard, byte| {
                    match byte {
                        b'<' => guard.go(State::Open),
                        b'&' => {
                            guard.go(State::Reference);
                            guard.mark = guard.at;
                        }
                        b'\r' => {
                            guard.returns = true;
                            guard.at += 1;
                        }
                        _ => guard.go(State::TextBracket),
                    }
                    Ok(())
                });
            }
            State::TextBracket => match byte {
                b']' => self.go(State::TextBrackets),
                _ => self.state = State::Text,
            },
            State::TextBrackets => match byte {
                b']' => self.at += 1,
                b'>' => return Err(Reason::Syntax("]]> in text")),
                _ => self.state = State::Text,
            },
            State::Reference => match byte {
                b';' => {
                    reference(bytes.get(self.mark..self.at).unwrap_or_default())?;
                    self.go(if self.quote == 0 { State::Text } else { State::Value });
                }
                b'#' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' if self.at - self.mark < MAX_REFERENCE => {
                    self.at += 1;
                }
                _ => return Err(Reason::Entity),
            },
        }
        Ok(Step::Next)
    }

    /// Takes one byte and changes state.
    fn go(&mut self, state: State) {
        self.at += 1;
        self.state = state;
    }

    /// Skips bytes outside `stop`, then characters beyond ASCII, and hands the first other byte to
    /// `special`, with `at` on it.
    #[inline]
    fn plain(
        &mut self,
        rest: &[u8],
        stop: u8,
        special: impl FnOnce(&mut Self, u8) -> Result<(), Reason>,
    ) -> Result<Step, Reason> {
        let plain = run_without(rest, stop);
        self.at += plain;
        let tail = rest.get(plain..).unwrap_or_default();
        match tail.first() {
            Some(&byte) if byte >= 0x80 => match wide(tail)? {
                Wide::Char(_, length) => self.at += length,
                Wide::Partial => return Ok(Step::More),
            },
            Some(&byte) if byte < 0x20 && byte != b'\r' => return Err(Reason::Character),
            Some(&byte) => special(self, byte)?,
            None => return Ok(Step::More),
        }
        Ok(Step::Next)
    }

    /// Reads on in a name that starts at `mark`; true when its end was found.
    fn name(&mut self, rest: &[u8]) -> Result<bool, Reason> {
        let mut rest = rest;
        while let Some(&byte) = rest.first() {
            let first = self.at == self.mark;
            let length = if byte < 0x80 {
                let good = if first { class::NAME_START } else { class::NAME };
                if byte == b':' {
                    return Err(Reason::Colon);
                }
                if !is(byte, good) {
                    return if first { Err(Reason::Syntax("name expected")) } else { Ok(true) };
                }
                1
            } else {
                match wide(rest)? {
                    Wide::Char(c, length) if is_wide_name_start(c) || !first && is_wide_name(c) => length,
                    Wide::Char(..) => return Err(Reason::Syntax("character in a name")),
                    Wide::Partial => return Ok(false),
                }
            };
            self.at += length;
            if self.at - self.mark > usize::from(self.limits.name) {
                return Err(Reason::NameTooLong);
            }
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(false)
    }

    /// Name of the open element number `level`, 0 being the root.
    fn open_name<'b>(&self, bytes: &'b [u8], level: usize) -> &'b [u8] {
        let start = self.open.get(level).copied().unwrap_or_default() as usize;
        let length = usize::from(self.open_lengths.get(level).copied().unwrap_or_default());
        bytes.get(start..start + length).unwrap_or_default()
    }

    /// Checks a complete attribute name.
    fn attribute(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        let name = bytes.get(self.mark..self.at).unwrap_or_default();
        if name == b"xmlns" {
            return Err(Reason::Namespace);
        }
        let hash = name.iter().fold(0u32, |hash, &b| hash.wrapping_mul(31).wrapping_add(u32::from(b)));
        let bit = 1u64 << (hash.wrapping_mul(0x9E37_79B1) >> 26);
        if self.names & bit != 0 && self.has_attribute(bytes, name) {
            return Err(Reason::DuplicateAttribute);
        }
        self.names |= bit;
        Ok(())
    }

    /// Whether the current tag, up to `mark`, has an attribute of that name.
    fn has_attribute(&self, bytes: &[u8], name: &[u8]) -> bool {
        let mut rest = bytes.get(self.tag..self.mark).unwrap_or_default();
        loop {
            rest = rest.trim_ascii_start();
            let Some(end) = rest.iter().position(|&b| b == b'=' || is(b, class::SPACE)) else {
                return false;
            };
            let (found, value) = rest.split_at(end);
            if found == name {
                return true;
            }
            let Some(open) = value.iter().position(|&b| b == b'"' || b == b'\'') else {
                return false;
            };
            let (Some(quote), Some(value)) = (value.get(open), value.get(open + 1..)) else {
                return false;
            };
            let Some(close) = value.iter().position(|b| b == quote) else {
                return false;
            };
            rest = value.get(close + 1..).unwrap_or_default();
        }
    }

    /// At the end of a start tag's name, which starts at `mark`.
    #[inline]
    fn enter(&mut self, name: &[u8]) -> Result<(), Reason> {
        if self.depth == 0 && self.limits.root.is_some_and(|root| root.as_bytes() != name) {
            return Err(Reason::WrongRoot);
        }
        if let (Some(open), Some(length)) =
            (self.open.get_mut(self.depth), self.open_lengths.get_mut(self.depth))
        {
            (*open, *length) = (self.mark as u32, name.len() as u8);
        }
        self.depth += 1;
        Ok(())
    }

    /// The fast lane: plain tags without attributes and plain text between them, as long as whole
    /// tokens are there. Whatever else comes is left untouched for [`Guard::step`], which would
    /// have gone the same way byte by byte. True when the document is complete.
    fn lane(&mut self, bytes: &[u8]) -> Result<bool, Reason> {
        // A large parameter moves the limit at which `bytes` was cut.
        let end = self.end;
        while self.end == end {
            let rest = bytes.get(self.at..).unwrap_or_default();
            let plain = run_without(rest, class::TEXT);
            if plain > 0 && self.depth == 1 && !rest.iter().take(plain).all(|&b| is(b, class::SPACE)) {
                self.stage = Stage::Other;
            }
            self.at += plain;
            match rest.get(plain..).unwrap_or_default() {
                [b'\r', ..] => {
                    self.returns = true;
                    self.at += 1;
                }
                [b'<', b'/', tag @ ..] if self.depth > 0 => {
                    let name = self.open_name(bytes, self.depth - 1);
                    if tag.get(name.len()) != Some(&b'>') || !tag.starts_with(name) {
                        return Ok(false);
                    }
                    self.mark = self.at + 2;
                    self.end_tag(bytes)?;
                    self.at += name.len() + 3;
                    if matches!(self.closed(), Step::Complete) {
                        return Ok(true);
                    }
                }
                [b'<', tag @ ..] => {
                    let length = run_of_name(tag);
                    let starts_well = tag.first().is_some_and(|&b| is(b, class::NAME_START));
                    let empty = match tag.get(length..).unwrap_or_default() {
                        [b'>', ..] => false,
                        [b'/', b'>', ..] => true,
                        _ => return Ok(false),
                    };
                    if !starts_well
                        || length > usize::from(self.limits.name)
                        || self.depth >= self.limits.depth.min(MAX_DEPTH)
                    {
                        return Ok(false);
                    }
                    self.mark = self.at + 1;
                    let name = tag.get(..length).unwrap_or_default();
                    self.enter(name)?;
                    self.at += length + 2 + usize::from(empty);
                    if !empty {
                        self.opened(bytes);
                    } else if self.emptied(name) {
                        return Ok(true);
                    }
                }
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// After the `/>` of an element without contents; true at the end of the document.
    fn emptied(&mut self, name: &[u8]) -> bool {
        self.stage = match (self.stage, self.depth) {
            (Stage::Named, 2) if name == b"in" => Stage::Done,
            (Stage::In, _) => Stage::In,
            _ => Stage::Other,
        };
        matches!(self.closed(), Step::Complete)
    }

    /// After the `>` of a start tag.
    #[inline]
    fn opened(&mut self, bytes: &[u8]) {
        self.state = State::Text;
        match self.depth {
            2 => {
                let name = self.open_name(bytes, 1);
                if name == b"op" {
                    self.op = self.at;
                }
                self.stage = match (self.stage, name) {
                    (Stage::Start, b"op") => Stage::Op,
                    (Stage::Named, b"in") => {
                        self.envelope.input = Some((self.at as u32, 0));
                        Stage::In
                    }
                    _ => Stage::Other,
                };
            }
            3 => {
                if self.stage == Stage::Op {
                    self.stage = Stage::Other;
                }
                if let Some(large) = self.large
                    && self.large_start.is_none()
                    && self.open_name(bytes, 1) == b"in"
                {
                    let name = self.open_name(bytes, 2);
                    if name == large.field.as_bytes() || large.aliases.iter().any(|a| a.as_bytes() == name) {
                        // The end tag may follow the last allowed byte of text.
                        self.large_start = Some(self.at);
                        self.end = self.at + large.max + "</>".len() + name.len();
                    }
                }
            }
            _ => {}
        }
    }

    /// At the `>` of an end tag: the elements that matter for the envelope and the size limit.
    #[inline]
    fn end_tag(&mut self, bytes: &[u8]) -> Result<(), Reason> {
        match self.depth {
            2 => {
                let text = self.mark - 2;
                self.stage = match self.stage {
                    Stage::Op => {
                        self.envelope.op = (self.op as u32, text as u32);
                        Stage::Named
                    }
                    Stage::In => {
                        self.envelope.input = self.envelope.input.map(|(start, _)| (start, text as u32));
                        Stage::Done
                    }
                    _ => Stage::Other,
                };
                if self.large.is_none() && self.open_name(bytes, 1) == b"op" {
                    let name = std::str::from_utf8(bytes.get(self.op..text).unwrap_or_default());
                    self.large = name.ok().and_then(self.limits.large);
                }
            }
            3 => {
                if let (Some(large), Some(start)) = (self.large, self.large_start.take()) {
                    let text = self.mark - 2 - start;
                    if text > large.max {
                        return Err(Reason::LargeTextTooLarge(large.field, large.max));
                    }
                    self.end = self.limits.bytes + text;
                    // One large parameter per request.
                    self.large = None;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// After the end of an element.
    fn closed(&mut self) -> Step {
        self.depth -= 1;
        if self.depth == 0 {
            return Step::Complete;
        }
        self.state = State::Text;
        Step::Next
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

impl Wide {
    /// Whether the whole character is there.
    fn is_complete(&self) -> bool {
        matches!(self, Wide::Char(..))
    }
}

/// Checks what stands between `<?xml` and the end of the declaration, which includes `?>`.
fn check_declaration(inner: &[u8]) -> Result<(), Reason> {
    let text = std::str::from_utf8(inner).map_err(|_| Reason::Utf8)?;
    let text = text.strip_suffix("?>").ok_or(Reason::Declaration)?;
    let (version, rest) = pseudo_attribute(text, "version")?.ok_or(Reason::Declaration)?;
    if !version
        .strip_prefix("1.")
        .is_some_and(|minor| !minor.is_empty() && minor.bytes().all(|b| b.is_ascii_digit()))
    {
        return Err(Reason::Declaration);
    }
    let (encoding, rest) = pseudo_attribute(rest, "encoding")?.map_or((None, rest), |(e, r)| (Some(e), r));
    let (standalone, rest) =
        pseudo_attribute(rest, "standalone")?.map_or((None, rest), |(s, r)| (Some(s), r));
    if !rest.trim_ascii_start().is_empty() || standalone.is_some_and(|s| s != "yes" && s != "no") {
        return Err(Reason::Declaration);
    }
    match encoding {
        Some(e) if !e.eq_ignore_ascii_case("UTF-8") && !e.eq_ignore_ascii_case("US-ASCII") => {
            Err(Reason::Encoding)
        }
        _ => Ok(()),
    }
}

/// Reads ` name="value"` from the front; `None` when something else stands there.
fn pseudo_attribute<'t>(text: &'t str, name: &str) -> Result<Option<(&'t str, &'t str)>, Reason> {
    let trimmed = text.trim_ascii_start();
    let Some(rest) = trimmed.strip_prefix(name) else {
        return Ok(None);
    };
    if trimmed.len() == text.len() {
        return Err(Reason::Declaration);
    }
    let rest = rest.trim_ascii_start().strip_prefix('=').ok_or(Reason::Declaration)?.trim_ascii_start();
    let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\'')).ok_or(Reason::Declaration)?;
    let value = rest.strip_prefix(quote).ok_or(Reason::Declaration)?;
    value.split_once(quote).map(Some).ok_or(Reason::Declaration)
}

/// The character behind what stands between `&` and `;`.
pub(crate) fn reference(name: &[u8]) -> Result<char, Reason> {
    let code = match name {
        b"lt" => return Ok('<'),
        b"gt" => return Ok('>'),
        b"amp" => return Ok('&'),
        b"apos" => return Ok('\''),
        b"quot" => return Ok('"'),
        [b'#', b'x', hex @ ..] => u32_of(hex, 16),
        [b'#', decimal @ ..] => u32_of(decimal, 10),
        _ => return Err(Reason::Entity),
    };
    code.and_then(char::from_u32).filter(|&c| is_xml_char(c)).ok_or(Reason::Character)
}

/// A number without sign; `None` when it is none or too large.
fn u32_of(digits: &[u8], radix: u32) -> Option<u32> {
    if !digits.iter().all(|b| char::from(*b).is_digit(radix)) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests;
