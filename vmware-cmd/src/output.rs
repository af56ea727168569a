//! Standard output: gathered, then written in one piece.

use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use serde_json::Value;

use crate::failure::Failure;

/// Says a line on standard error. That nobody can read it is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// What goes to standard output.
#[derive(Debug)]
pub(crate) struct Output {
    /// Whether everything is JSON.
    pub json: bool,
    waiting: Vec<u8>,
    unread: bool,
}

impl Output {
    /// Nothing yet.
    pub fn new(json: bool) -> Self {
        Output { json, waiting: Vec::new(), unread: false }
    }

    /// Whether somebody looks at it.
    pub fn is_terminal(&self) -> bool {
        std::io::stdout().is_terminal()
    }

    /// Adds a text as it is.
    pub fn text(&mut self, text: &str) {
        self.waiting.extend_from_slice(text.as_bytes());
    }

    /// Adds a line.
    pub fn line(&mut self, text: &str) {
        self.text(text);
        self.text("\n");
    }

    /// Adds a JSON document, on one line.
    pub fn document(&mut self, value: &Value) {
        self.line(&value.to_string());
    }

    /// Writes what was gathered, for commands that go on.
    ///
    /// # Errors
    /// When nobody reads it any more, or it cannot be written.
    pub fn flush(&mut self) -> Result<(), Failure> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(&self.waiting).and_then(|()| stdout.flush());
        self.waiting.clear();
        match written {
            Ok(()) => Ok(()),
            Err(error) => {
                self.unread = true;
                match error.kind() {
                    ErrorKind::BrokenPipe => Err(Failure::Unread),
                    _ => Err(Failure::Said(format!("cannot write to standard output: {error}"))),
                }
            }
        }
    }

    /// Writes what is left. Output that is lost is a failure: a full disk must not look like success.
    pub fn end(&mut self, status: ExitCode) -> ExitCode {
        if self.unread {
            return ExitCode::FAILURE;
        }
        match self.flush() {
            Ok(()) => status,
            Err(Failure::Said(text)) => {
                say(&text);
                ExitCode::FAILURE
            }
            Err(_) => ExitCode::FAILURE,
        }
    }
}
