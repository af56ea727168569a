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
        if self.buffer.capacity() - self.buffer.len() < self.want.min(SMALL) {
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
                    return Document::passed(bytes, length).map(Some);
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
