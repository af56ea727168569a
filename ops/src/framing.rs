//! Stream framing: bytes in as they arrive, whole documents out, in order.
//!
//! ```text
//!   socket ──read──▶ room() ─────────┐
//!                                    ▼
//!        ┌ taken ┬ document ┬ document ┬ part of one ┬ free ┐   one Vec, no copying between
//!        └───────┴──────────┴──────────┴─────────────┴──────┘   arrival and parsing
//!                    │
//!                    └──▶ next() ──▶ Document, borrowed
//! ```
//!
//! What is taken is not moved away document by document: the rest slides to the front only when new
//! room is needed, at most once per byte, so pipelining stays linear. When nothing is pending the
//! memory is given back: an idle connection holds none.
//!
//! The buffer never grows beyond the size limit of a document plus 64 KiB, because [`Inbox::next`]
//! refuses before more is needed.

use crate::guard::{Document, Guard, Limits, Progress, Reason};

/// Room for the first read after idling: a few ordinary requests.
const SMALL: usize = 1024;

/// Most room offered for one read.
const LARGE: usize = 64 * 1024;

/// The receiving side of one connection.
#[derive(Debug)]
pub struct Inbox {
    guard: Guard,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that belong to documents already handed out, or to padding.
    taken: usize,
    /// Room for the next read; grows while reads fill it.
    want: usize,
}

impl Inbox {
    /// The inbox of a connection that carries `<exec>` requests.
    #[must_use]
    pub fn new() -> Self {
        Self { guard: Guard::new(), buffer: Vec::new(), taken: 0, want: SMALL }
    }

    /// An inbox with other limits.
    #[must_use]
    pub fn with_limits(limits: &'static Limits) -> Self {
        Self { guard: Guard::with_limits(limits), ..Self::new() }
    }

    /// The vector to append the next bytes to, with spare capacity of at least 1 KiB and at most
    /// about 64 KiB. Read no more than that capacity, and call [`Inbox::next`] until it returns
    /// `None` before reading again.
    pub fn room(&mut self) -> &mut Vec<u8> {
        if self.taken > 0 {
            self.buffer.drain(..self.taken);
            self.taken = 0;
        }
        if self.buffer.capacity() - self.buffer.len() < self.want {
            // Doubling up to a step of 64 KiB keeps both the copying and the slack bounded.
            let step = self.want.max(self.buffer.len()).min(LARGE);
            self.buffer.reserve_exact(step);
        }
        &mut self.buffer
    }

    /// Appends bytes that are already in memory. Drain with [`Inbox::next`] after at most 64 KiB.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.room();
        let free = self.buffer.capacity() - self.buffer.len();
        if free < bytes.len() {
            self.buffer.reserve_exact(bytes.len());
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete document, without copying. `None` when more bytes are needed. After an
    /// error the stream cannot be read on: reply, then close.
    ///
    /// # Errors
    /// The guard's [`Reason`], again on every later call.
    #[allow(clippy::should_implement_trait)] // a lending iterator cannot be an Iterator
    pub fn next(&mut self) -> Result<Option<Document<'_>>, Reason> {
        loop {
            let pending = self.buffer.get(self.taken..).unwrap_or_default();
            if pending.is_empty() {
                self.release();
                return Ok(None);
            }
            match self.guard.scan(pending) {
                Progress::Skip(padding) => self.taken += padding,
                Progress::More => {
                    self.adapt();
                    return Ok(None);
                }
                Progress::Document(length) => {
                    let start = self.taken;
                    self.taken += length;
                    let bytes = self.buffer.get(start..).unwrap_or_default();
                    return Document::passed(&self.guard, bytes, length).map(Some);
                }
                Progress::Refused(reason) => return Err(reason),
            }
        }
    }

    /// Whether no byte is waiting, neither of a complete document nor of a part of one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken == self.buffer.len()
    }

    /// Bytes of memory held for waiting input.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.buffer.capacity()
    }

    /// Gives the memory back.
    fn release(&mut self) {
        self.adapt();
        self.buffer = Vec::new();
        self.taken = 0;
    }

    /// Reads that fill the buffer are followed by larger ones, short reads by small ones.
    fn adapt(&mut self) {
        let full = self.buffer.capacity() > 0 && self.buffer.len() == self.buffer.capacity();
        self.want = if full { (self.want * 4).min(LARGE) } else { SMALL };
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "<exec><op>inc</op><in><number>42</number></in></exec>";

    /// Everything that is ready, as text.
    fn ready(inbox: &mut Inbox) -> Vec<String> {
        let mut documents = Vec::new();
        while let Some(document) = inbox.next().unwrap() {
            documents.push(document.as_str().to_owned());
        }
        documents
    }

    #[test]
    fn a_document_split_at_every_byte_arrives_once() {
        let text = "\u{FEFF}<?xml version='1.0'?>\r\n<exec a='ä'><op>inc</op><in/><!-- € --></exec>";
        let document = text.trim_start_matches('\u{FEFF}');
        for cut in 0..=text.len() {
            let mut inbox = Inbox::new();
            inbox.feed(&text.as_bytes()[..cut]);
            let mut documents = ready(&mut inbox);
            inbox.feed(&text.as_bytes()[cut..]);
            documents.extend(ready(&mut inbox));
            assert_eq!(documents, [document], "cut at {cut}");
            assert_eq!(inbox.capacity(), 0);
        }
    }

    #[test]
    fn documents_may_be_ended_by_anything_or_nothing() {
        let mut inbox = Inbox::new();
        inbox.feed(format!("{ONE}{ONE}\n{ONE}\0{ONE}\r\n\0\u{FEFF}<exec/>  ").as_bytes());
        assert_eq!(ready(&mut inbox), [ONE, ONE, ONE, ONE, "<exec/>"]);
        assert!(inbox.is_empty());
        assert_eq!(inbox.capacity(), 0);
    }

    #[test]
    fn ten_thousand_pipelined_documents_in_reads_of_any_size() {
        let stream: String = (0..10_000).map(|n| format!("<exec><op>{n}</op></exec>")).collect();
        for step in [1, 7, 1000, 65_536] {
            let mut inbox = Inbox::new();
            let mut count = 0;
            for piece in stream.as_bytes().chunks(step) {
                inbox.feed(piece);
                while let Some(document) = inbox.next().unwrap() {
                    assert_eq!(document.as_str(), format!("<exec><op>{count}</op></exec>"));
                    count += 1;
                }
            }
            assert_eq!(count, 10_000);
            assert_eq!(inbox.capacity(), 0);
        }
    }

    /// Reads as a socket would: as much as there is room for.
    fn read(inbox: &mut Inbox, stream: &mut &[u8]) -> usize {
        let room = inbox.room();
        let length = (room.capacity() - room.len()).min(stream.len());
        let (now, later) = stream.split_at(length);
        room.extend_from_slice(now);
        *stream = later;
        length
    }

    #[test]
    fn the_memory_of_the_largest_request_is_bounded() {
        let document = format!("<exec>{}</exec>", "x".repeat(65_536 - 13));
        let stream = document.repeat(5);
        let mut rest = stream.as_bytes();
        let mut inbox = Inbox::new();
        let (mut largest, mut documents) = (0, 0);
        while !rest.is_empty() {
            read(&mut inbox, &mut rest);
            largest = largest.max(inbox.capacity());
            while inbox.next().unwrap().is_some() {
                documents += 1;
            }
        }
        assert_eq!(documents, 5);
        assert!(largest <= 2 * 65_536, "{largest} bytes");
    }

    #[test]
    fn an_endless_request_is_refused_within_the_limit() {
        let stream = format!("<exec>{}", "x".repeat(1 << 20));
        let mut rest = stream.as_bytes();
        let mut inbox = Inbox::new();
        let mut largest = 0;
        let reason = loop {
            read(&mut inbox, &mut rest);
            largest = largest.max(inbox.capacity());
            if let Err(reason) = inbox.next() {
                break reason;
            }
        };
        assert_eq!(reason, Reason::TooLarge(65_536));
        assert!(largest <= 2 * 65_536, "{largest} bytes");
        assert_eq!(inbox.next(), Err(Reason::TooLarge(65_536)), "again");
    }

    #[test]
    fn endless_padding_needs_no_memory() {
        let mut inbox = Inbox::new();
        for _ in 0..1000 {
            inbox.feed(&[b' '; 4096]);
            assert_eq!(inbox.next(), Ok(None));
            assert_eq!(inbox.capacity(), 0);
        }
    }

    #[test]
    fn room_grows_while_reads_fill_it_and_shrinks_again() {
        let stream = ONE.repeat(10_000);
        let mut rest = stream.as_bytes();
        let mut inbox = Inbox::new();
        let mut reads = 0;
        while !rest.is_empty() {
            read(&mut inbox, &mut rest);
            reads += 1;
            while inbox.next().unwrap().is_some() {}
        }
        assert!(reads < stream.len() / 32_768, "{reads} reads for {} bytes", stream.len());
        let mut one = ONE.as_bytes();
        for _ in 0..2 {
            read(&mut inbox, &mut one);
            while inbox.next().unwrap().is_some() {}
            one = ONE.as_bytes();
        }
        assert!(inbox.room().capacity() <= 2 * SMALL, "small again after a short read");
    }
}
