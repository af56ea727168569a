//! Telling the core what was done, for the audit.
//!
//! This process belongs to the caller, so what it says counts as his claim; the core adds who he is. A
//! reading operation that succeeds costs one comparison here, and nothing is sent.

use std::sync::Arc;

use link::audit::{MAX_LIST, MAX_TEXT};
use link::settings::AuditLevel;
use ops::ErrorCode;
use ops::envelope::Request;

use super::core_link::CoreLink;
use crate::channel::ToCore;

/// What the audit wants to know.
#[derive(Debug)]
pub struct Audit {
    level: AuditLevel,
    core: Option<Arc<CoreLink>>,
}

/// What an operation was about.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    machine: Option<String>,
    paths: Vec<String>,
}

impl Audit {
    /// Tells the core operations of this level.
    #[must_use]
    pub fn new(level: AuditLevel, core: Arc<CoreLink>) -> Self {
        Audit { level, core: Some(core) }
    }

    /// Tells nobody anything.
    #[must_use]
    pub fn off() -> Self {
        Audit { level: AuditLevel::Off, core: None }
    }

    /// What a request is about, if that will be told: `None` for reading operations at the usual level.
    #[must_use]
    pub fn subject(&self, request: &Request<'_>, machine: Option<&str>) -> Option<Box<Subject>> {
        if (self.level as u8) < (request.row().effect as u8) {
            return None;
        }
        let (named, mut paths) = request.input().subjects(request.row(), MAX_LIST);
        paths.iter_mut().for_each(cut);
        let mut machine = named.or_else(|| machine.map(str::to_owned));
        machine.iter_mut().for_each(cut);
        Some(Box::new(Subject { machine, paths }))
    }

    /// Tells that a request was answered: `code` is the error's number, or 0. One that was refused is
    /// told even where its subject was not wanted.
    pub fn tell(&self, session: u64, request: u64, op: usize, code: i32, subject: Option<&Subject>) {
        let Some(core) = &self.core else { return };
        let refused = self.level != AuditLevel::Off && code == ErrorCode::NoAccess.number();
        if subject.is_none() && !refused {
            return;
        }
        let Subject { machine, paths } = subject.cloned().unwrap_or_default();
        let op = u32::try_from(op).unwrap_or(u32::MAX);
        core.tell(ToCore::Did { session, request, op, code, machine, paths });
    }
}

/// Not more than the core would keep.
fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        // One more than it keeps, so that it shows that something is missing.
        let end = (0..=MAX_TEXT + 4).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
}
