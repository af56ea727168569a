//! Reads a guarded document: a pull cursor over its tokens, and the typed input of one operation on
//! top of it.
//!
//! ```text
//!   <exec> <op>inc</op> <in> <number>42</number> <other/> </in> ... </exec>
//!          └── open() ──────┘│
//!                            └── Input::field() hands out the children of `in`
//!                                Input::scalar(), list(), item() read one
//!                                Input::group() reads one item that has children
//!                                Input::finish() reads the rest
//! ```
//!
//! Two kinds of trouble are kept apart. A document that is malformed ends the reading at once. A
//! parameter that is wrong (not of its type, given twice) is remembered, and reading goes on to the
//! end: what is malformed further down wins, since it decides over the connection. The first
//! remembered error is what the client is told.
//!
//! The cursor is quick-xml's reader, with its events reduced to the five things that requests consist
//! of. It reads only [`Document`]s, which only the guard can make, so its own checks are switched off;
//! tests and fuzzing hold its tokens against those of quick-xml with every check on, and of roxmltree.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

use crate::FragmentInput;
use crate::error::{Error, Fault};
use crate::guard::{self, Document, Envelope, MAX_ITEMS, Reason};
use crate::table::{Field, Row, Shape};
use crate::value::{Invalid, Scalar};

/// One step through a document. Comments and the declaration are left out; CDATA sections arrive as
/// text, references as characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token<'a> {
    /// A start tag.
    Open(&'a str),
    /// An end tag, also the one that `<a/>` implies.
    Close,
    /// A piece of character data as it stands in the document, line ends included. Adjacent pieces
    /// are possible.
    Text(&'a str),
    /// A character that was written as a reference.
    Char(char),
    /// The end of the document.
    End,
}

/// A position in a document: a quick-xml reader, with its events reduced to what requests consist of.
#[derive(Clone, Debug)]
pub struct Cursor<'a> {
    events: Reader<&'a [u8]>,
    /// All of the document, and the byte offset of the part that `events` reads.
    document: &'a str,
    base: usize,
    /// `<a/>` was seen and its end is due.
    close: bool,
    /// Whether there is a carriage return anywhere, so that line ends need a look.
    returns: bool,
}

/// The answer to a document that cannot have passed the guard.
const UNGUARDED: Reason = Reason::Syntax("while reading");

/// Text that the reader took from the document as it stands.
#[allow(clippy::needless_pass_by_value)] // the wrapping is what is taken off
fn borrowed<'a>(text: Cow<'a, str>) -> Result<&'a str, Reason> {
    match text {
        Cow::Borrowed(text) => Ok(text),
        Cow::Owned(_) => Err(UNGUARDED),
    }
}

impl<'a> Cursor<'a> {
    /// At the start of the document.
    #[must_use]
    pub fn new(document: Document<'a>) -> Self {
        Self::at(document.as_str(), 0, document.has_returns())
    }

    /// At byte `base` of a guarded document, which must be between tokens.
    fn at(document: &'a str, base: usize, returns: bool) -> Self {
        let mut events = Reader::from_str(document.get(base..).unwrap_or_default());
        // The guard has compared the names, and a reader that starts inside cannot know them.
        events.config_mut().check_end_names = false;
        events.config_mut().allow_unmatched_ends = true;
        Self { events, document, base, close: false, returns }
    }

    /// Byte offset of the next token in the document.
    fn offset(&self) -> usize {
        usize::try_from(self.events.buffer_position()).map_or(usize::MAX, |position| self.base + position)
    }

    /// What has not been read yet.
    fn rest(&self) -> &'a str {
        self.document.get(self.offset()..).unwrap_or_default()
    }

    /// The next token.
    ///
    /// # Errors
    /// None for a document from the guard; the type cannot say so.
    #[inline]
    pub fn token(&mut self) -> Result<Token<'a>, Reason> {
        if self.close {
            self.close = false;
            return Ok(Token::Close);
        }
        loop {
            let start = self.offset();
            if start >= self.document.len() {
                return Ok(Token::End);
            }
            return match self.events.read_event().map_err(|_| UNGUARDED)? {
                Event::Start(tag) => self.name(start, &tag).map(Token::Open),
                Event::Empty(tag) => {
                    self.close = true;
                    self.name(start, &tag).map(Token::Open)
                }
                Event::End(_) => Ok(Token::Close),
                Event::Text(text) => borrowed(text.into_inner()).map(Token::Text),
                Event::CData(text) => borrowed(text.into_inner()).map(Token::Text),
                Event::GeneralRef(name) => guard::reference(name.into_inner().as_bytes()).map(Token::Char),
                Event::Comment(_) | Event::Decl(_) => continue,
                Event::Eof => Ok(Token::End),
                Event::PI(_) | Event::DocType(_) => Err(UNGUARDED),
            };
        }
    }

    /// The name of a start tag whose `<` is at `start`, as a part of the document. Attributes have been
    /// checked by the guard and mean nothing in requests.
    fn name(&self, start: usize, tag: &BytesStart<'_>) -> Result<&'a str, Reason> {
        self.document.get(start + 1..start + 1 + tag.name().as_ref().len()).ok_or(UNGUARDED)
    }

    /// Reads to the end of the element whose start tag was just read.
    fn skip(&mut self) -> Result<(), Reason> {
        let mut depth = 1;
        while depth > 0 {
            match self.token()? {
                Token::Open(_) => depth += 1,
                Token::Close => depth -= 1,
                Token::Text(_) | Token::Char(_) => {}
                Token::End => return Err(UNGUARDED),
            }
        }
        Ok(())
    }

    /// Reads the text of the element whose start tag was just read, to its end. The flag tells
    /// whether it held elements, which are left out of the text.
    fn text(&mut self) -> Result<(Cow<'a, str>, bool), Reason> {
        let mut text = Cow::Borrowed("");
        let mut elements = false;
        loop {
            match self.token()? {
                Token::Text(piece) => append(&mut text, piece, self.returns),
                Token::Char(c) => text.to_mut().push(c),
                Token::Close => return Ok((text, elements)),
                Token::Open(_) => {
                    elements = true;
                    self.skip()?;
                }
                Token::End => return Err(UNGUARDED),
            }
        }
    }
}

/// Appends a piece of text, copying only when it is not the first. CR LF and CR become LF, as in
/// every XML reader; `returns` tells whether there are any. A piece ends only where something other
/// than text follows, so the two bytes of CR LF are never apart.
fn append<'a>(text: &mut Cow<'a, str>, piece: &'a str, returns: bool) {
    if returns && piece.contains('\r') {
        text.to_mut().push_str(&piece.replace("\r\n", "\n").replace('\r', "\n"));
    } else if text.is_empty() {
        *text = Cow::Borrowed(piece);
    } else {
        text.to_mut().push_str(piece);
    }
}

/// Whether an element of that name holds a path, in a request with these parameters.
fn is_path(fields: &[Field], name: &str) -> bool {
    fields.iter().any(|field| {
        let named = match field.shape {
            Shape::List { item, .. } => item == name,
            _ => field.name == name,
        };
        (field.kind == "path" && (named || field.aliases.contains(&name))) || is_path(field.nested, name)
    })
}

/// White space in the sense of XML.
fn is_space(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b' ' | b'\t' | b'\n' | b'\r'))
}

/// The arguments of one request, read by the code that `#[derive(Op)]` writes. They are the inside of
/// `in`; what stands around it has been read before.
#[derive(Clone)]
pub struct Input<'a> {
    cursor: Cursor<'a>,
    /// Whether the end of `in` was reached.
    done: bool,
    /// The first parameter error.
    error: Option<Error>,
    /// The machine that a request without `config` is about.
    machine: Option<&'a str>,
}

/// A parameter while reading: `None` until it was given.
pub type Slot<T> = Option<T>;

/// What a list in a request consists of: scalars, or groups with `#[fragment(request)]`.
pub trait Item: Sized {
    /// Reads the item whose start tag was just read, to its end; `None` for a wrong one, which is
    /// remembered. `name` is the one to use in errors.
    ///
    /// # Errors
    /// [`Fault::Malformed`] only.
    fn take(input: &mut Input<'_>, name: &str) -> Result<Option<Self>, Fault>;

    /// Whether a text would be accepted as its value; never for a group.
    fn accepts(text: &str) -> bool;
}

/// A list while reading.
#[derive(Debug)]
pub struct ListSlot<T> {
    items: Vec<T>,
    given: bool,
}

impl<T> Default for ListSlot<T> {
    fn default() -> Self {
        Self { items: Vec::new(), given: false }
    }
}

impl<'a> Input<'a> {
    /// The bytes `start` to `end` of a document, which are all that is inside `in`.
    fn new(document: Document<'a>, start: usize, end: usize) -> Self {
        let text = document.as_str().get(..end).unwrap_or_default();
        Self {
            cursor: Cursor::at(text, start, document.has_returns()),
            done: false,
            error: None,
            machine: None,
        }
    }

    /// The same, on a connection to one machine: a request that needs `config` and has none is about it.
    #[must_use]
    pub fn about(mut self, machine: Option<&'a str>) -> Self {
        self.machine = machine;
        self
    }

    /// Takes the machine of the connection for one that the request does not name.
    pub fn own_machine<T: Scalar>(&self, slot: &mut Slot<T>) {
        if slot.is_none()
            && let Some(machine) = self.machine
        {
            // What the connection was made to can be named.
            *slot = T::parse(Cow::Borrowed(machine)).ok();
        }
    }

    /// The paths that an unread request names, in the order of the document: the machine (`config`, or the
    /// one of the connection), and at most `most` others. For the audit: nothing is checked, and nothing
    /// that is no path is looked at, so no text that somebody types or sets is among them.
    #[must_use]
    pub fn subjects(&self, row: &Row, most: usize) -> (Option<String>, Vec<String>) {
        let (mut machine, mut paths) = (None, Vec::new());
        let mut cursor = self.cursor.clone();
        let mut depth = 1_usize;
        while depth > 0 {
            match cursor.token() {
                Ok(Token::Open(name)) if is_path(row.request, name) => {
                    let Ok((text, _)) = cursor.text() else { break };
                    let text = text.trim();
                    if name == "config" {
                        machine.get_or_insert_with(|| text.to_owned());
                    } else if paths.len() < most && !text.is_empty() {
                        paths.push(text.to_owned());
                    }
                }
                Ok(Token::Open(_)) => depth += 1,
                Ok(Token::Close) => depth -= 1,
                Ok(Token::Text(_) | Token::Char(_)) => {}
                Ok(Token::End) | Err(_) => break,
            }
        }
        (machine.or_else(|| self.machine.map(str::to_owned)), paths)
    }

    /// The name of the next parameter; its value must be read or skipped before the next call.
    /// `None` at the end of `in`.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for text between the parameters.
    pub fn field(&mut self) -> Result<Option<&'a str>, Fault> {
        loop {
            match self.cursor.token()? {
                Token::Open(name) => return Ok(Some(name)),
                Token::Text(text) if is_space(text) => {}
                Token::Text(_) | Token::Char(_) => return Err(Reason::StrayText.into()),
                Token::End => {
                    self.done = true;
                    return Ok(None);
                }
                Token::Close => return Err(UNGUARDED.into()),
            }
        }
    }

    /// Reads the value of the parameter whose name [`Input::field`] returned. `name` is the one to
    /// use in errors.
    ///
    /// # Errors
    /// [`Fault::Malformed`] only; a bad value is remembered for [`Input::finish`].
    pub fn scalar<T: Scalar>(&mut self, name: &str, slot: &mut Slot<T>) -> Result<(), Fault> {
        let value = self.value(name)?;
        if slot.is_some() {
            self.wrong(Error::invalid(name, "given twice"));
        } else if value.is_some() {
            *slot = value;
        }
        Ok(())
    }

    /// Reads a number like [`Input::scalar`] and checks its range, both ends included.
    ///
    /// # Errors
    /// As [`Input::scalar`].
    pub fn ranged<T: Scalar + Copy + Into<i64>>(
        &mut self,
        name: &str,
        range: (i64, i64),
        slot: &mut Slot<T>,
    ) -> Result<(), Fault> {
        self.scalar(name, slot)?;
        if let Some(value) = *slot
            && !(range.0..=range.1).contains(&value.into())
        {
            self.wrong(Error::invalid(name, format_args!("must be {} to {}", range.0, range.1)));
        }
        Ok(())
    }

    /// Reads a wrapper element and the items in it; other elements in it are ignored. More than `max`
    /// items are wrong, more than the limit of the protocol are malformed.
    ///
    /// # Errors
    /// [`Fault::Malformed`], also for more items than a list may have.
    pub fn list<T: Item>(
        &mut self,
        name: &str,
        item: &str,
        max: usize,
        slot: &mut ListSlot<T>,
    ) -> Result<(), Fault> {
        if std::mem::replace(&mut slot.given, true) {
            self.wrong(Error::invalid(name, "given twice"));
        }
        let mut seen = 0;
        loop {
            match self.cursor.token()? {
                Token::Open(found) if found == item => {
                    seen += 1;
                    if seen > MAX_ITEMS {
                        return Err(Reason::TooManyItems(MAX_ITEMS).into());
                    }
                    if seen > max {
                        self.wrong(Error::invalid(name, format_args!("more than {max} items")));
                    }
                    if let Some(value) = T::take(self, item)? {
                        slot.items.push(value);
                    }
                }
                Token::Open(_) => self.cursor.skip()?,
                Token::Text(text) if is_space(text) => {}
                Token::Text(_) | Token::Char(_) => {
                    self.wrong(Error::invalid(name, format_args!("text outside {item}")));
                }
                Token::Close => return Ok(()),
                Token::End => return Err(UNGUARDED.into()),
            }
        }
    }

    /// Reads one item that stands directly under `in`: a list of one.
    ///
    /// # Errors
    /// As [`Input::scalar`].
    pub fn item<T: Item>(&mut self, item: &str, slot: &mut ListSlot<T>) -> Result<(), Fault> {
        if std::mem::replace(&mut slot.given, true) {
            self.wrong(Error::invalid(item, "given twice"));
        }
        if let Some(value) = T::take(self, item)? {
            slot.items.push(value);
        }
        Ok(())
    }

    /// Skips a parameter that the operation does not know.
    ///
    /// # Errors
    /// [`Fault::Malformed`] only.
    pub fn skip(&mut self) -> Result<(), Fault> {
        Ok(self.cursor.skip()?)
    }

    /// Reads what is left and reports the first parameter error.
    ///
    /// # Errors
    /// [`Fault::Malformed`] for what is wrong in the rest, else the remembered error.
    pub fn finish(mut self) -> Result<(), Fault> {
        while !self.done && self.field()?.is_some() {
            self.skip()?;
        }
        match self.error {
            Some(error) => Err(Fault::Refused(error)),
            None => Ok(()),
        }
    }

    /// Remembers the first error of a parameter.
    pub fn wrong(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }

    /// Reads a group: the children of the element whose start tag was just read. Unknown ones are
    /// ignored, as in `in`. `None` when something in it is wrong, which is remembered.
    ///
    /// # Errors
    /// [`Fault::Malformed`] only.
    pub fn group<T: FragmentInput>(&mut self, name: &str) -> Result<Option<T>, Fault> {
        let mut slots = T::Slots::default();
        loop {
            match self.cursor.token()? {
                Token::Open(child) => {
                    if !T::accept(&mut slots, child, self)? {
                        self.cursor.skip()?;
                    }
                }
                Token::Text(text) if is_space(text) => {}
                Token::Text(_) | Token::Char(_) => {
                    self.wrong(Error::invalid(name, "text beside its elements"));
                }
                Token::Close => break,
                Token::End => return Err(UNGUARDED.into()),
            }
        }
        match T::build(slots) {
            Ok(group) => Ok(Some(group)),
            Err(Fault::Refused(error)) => {
                self.wrong(error);
                Ok(None)
            }
            Err(malformed) => Err(malformed),
        }
    }

    /// Reads and converts the text of the current element.
    ///
    /// # Errors
    /// [`Fault::Malformed`] only; a bad value is remembered for [`Input::finish`].
    pub fn value<T: Scalar>(&mut self, name: &str) -> Result<Option<T>, Fault> {
        let (text, elements) = self.cursor.text()?;
        if elements {
            self.wrong(Error::invalid(name, "must not contain elements"));
            return Ok(None);
        }
        match T::parse(text) {
            Ok(value) => Ok(Some(value)),
            Err(Invalid::Limit(reason)) => Err(reason.into()),
            Err(Invalid::Value(reason)) => {
                self.wrong(Error::invalid(name, reason));
                Ok(None)
            }
        }
    }
}

/// Reads the envelope: the operation's name and its arguments.
///
/// Most documents are plain, and the guard has seen where the two parts are. Any other one is read
/// from its start to its end here, and the arguments a second time as what they are.
///
/// # Errors
/// [`Fault::Malformed`] for stray text, [`Fault::Refused`] when `op` is missing or one of the two
/// was given twice.
pub(crate) fn open(document: Document<'_>) -> Result<(Cow<'_, str>, Input<'_>), Fault> {
    let Some(Envelope { op: (start, end), input }) = document.envelope() else {
        return open_special(document);
    };
    let mut name = Cow::Borrowed("");
    let (start, end) = (start as usize, end as usize);
    append(&mut name, document.as_str().get(start..end).unwrap_or_default(), document.has_returns());
    let (start, end) = input.unwrap_or_default();
    let input = Input::new(document, start as usize, end as usize);
    // A reader drops a byte order mark where it starts, but in the middle of a document it is text.
    if input.cursor.rest().starts_with('\u{FEFF}') {
        return Err(Reason::StrayText.into());
    }
    Ok((name, input))
}

/// [`open`] for a document with more than `op` and `in`, or with the two in the other order.
#[cold]
fn open_special(document: Document<'_>) -> Result<(Cow<'_, str>, Input<'_>), Fault> {
    let mut cursor = Cursor::new(document);
    match skip_space(&mut cursor)? {
        Token::Open("exec") => {}
        _ => return Err(Reason::WrongRoot.into()),
    }
    let mut name: Option<Cow<'_, str>> = None;
    let mut input: Option<(usize, usize)> = None;
    let mut error: Option<Error> = None;
    loop {
        match cursor.token()? {
            Token::Open("op") => {
                let (text, elements) = cursor.text()?;
                if elements {
                    error.get_or_insert_with(|| Error::invalid("op", "must not contain elements"));
                }
                if name.is_some() {
                    error.get_or_insert_with(|| Error::invalid("op", "given twice"));
                }
                name.get_or_insert(text);
            }
            Token::Open("in") => {
                let start = cursor.offset();
                let end = skip_in(&mut cursor)?;
                if input.is_some() {
                    error.get_or_insert_with(|| Error::invalid("in", "given twice"));
                }
                input.get_or_insert((start, end));
            }
            Token::Open(_) => cursor.skip()?,
            Token::Text(text) if is_space(text) => {}
            Token::Text(_) | Token::Char(_) => return Err(Reason::StrayText.into()),
            Token::Close | Token::End => break,
        }
    }
    match (error, name) {
        (Some(error), _) => Err(error.into()),
        (None, None) => Err(Error::missing("op").into()),
        (None, Some(name)) => {
            let (start, end) = input.unwrap_or_default();
            Ok((name, Input::new(document, start, end)))
        }
    }
}

/// Skips an `in`, which must not hold text of its own, and returns the offset of its end tag.
fn skip_in(cursor: &mut Cursor<'_>) -> Result<usize, Reason> {
    loop {
        let offset = cursor.offset();
        match cursor.token()? {
            Token::Open(_) => cursor.skip()?,
            Token::Text(text) if is_space(text) => {}
            Token::Text(_) | Token::Char(_) => return Err(Reason::StrayText),
            Token::Close => return Ok(offset),
            Token::End => return Err(UNGUARDED),
        }
    }
}

/// The first token that is not white space.
fn skip_space<'a>(cursor: &mut Cursor<'a>) -> Result<Token<'a>, Reason> {
    loop {
        match cursor.token()? {
            Token::Text(text) if is_space(text) => {}
            token => return Ok(token),
        }
    }
}

/// The value of a required parameter.
///
/// # Errors
/// -3 `missing parameter`, when it was not given.
pub fn required<T>(name: &str, slot: Slot<T>) -> Result<T, Fault> {
    slot.ok_or_else(|| Error::missing(name).into())
}

/// The value of a parameter with a default.
///
/// # Errors
/// None in practice: a test checks that every default of the table is accepted by its type.
pub fn or_default<T: Scalar>(name: &str, default: &'static str, slot: Slot<T>) -> Result<T, Fault> {
    match slot {
        Some(value) => Ok(value),
        None => T::parse(Cow::Borrowed(default)).map_err(|_| Error::invalid(name, "no default").into()),
    }
}

/// The items of a list that must have at least one.
///
/// # Errors
/// -3 `missing parameter`, when none was given.
pub fn required_list<T>(name: &str, slot: ListSlot<T>) -> Result<Vec<T>, Fault> {
    if slot.items.is_empty() { Err(Error::missing(name).into()) } else { Ok(slot.items) }
}

/// The items of a list; `None` when it was not given.
#[must_use]
pub fn optional_list<T>(slot: ListSlot<T>) -> Option<Vec<T>> {
    slot.given.then_some(slot.items)
}
