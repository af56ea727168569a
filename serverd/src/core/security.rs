//! Questions about encryption, which the core only passes on: the gateway knows.
//!
//! An administrator's session process asks; nobody else may, whatever his process says. The question
//! gets a number of ours, since those of processes are not unique, and its answer finds the way back.
//! When the link ends, everybody who waits is told so: what the gateway had begun it finishes or
//! forgets by itself.

use std::collections::HashMap;

use ::link::Outbox;
use ::link::audit::Outcome;
use ::link::gateway::ToAuthd;
use ::link::security::{self, Ask};
use ::link::wire::Inner;
use ops::{Error, ErrorCode};

use super::questions::Asker;
use super::supervisor::Supervisor;
use crate::channel::Answer;

/// Questions that may wait for the gateway.
const MOST: usize = 64;

/// The way to the gateway, and who waits for what.
#[derive(Debug, Default)]
pub struct Gateway {
    link: Option<Outbox<ToAuthd>>,
    next: u64,
    /// Who, and what he wants changed; nothing for a look.
    waiting: HashMap<u64, (Asker, Option<&'static str>)>,
}

impl Supervisor {
    /// There is a link.
    pub fn linked(&mut self, link: Outbox<ToAuthd>) {
        self.unlinked();
        self.gateway.link = Some(link);
    }

    /// There is none any more.
    pub fn unlinked(&mut self) {
        self.gateway.link = None;
        for (_, (asker, what)) in std::mem::take(&mut self.gateway.waiting) {
            if let Some(what) = what {
                self.audit_settings(&asker.by, what, Outcome::Failed, "the gateway did not answer");
            }
            self.settle(&asker, Err(unreachable("vmware-authd went away before it answered")));
        }
    }

    /// Tells the gateway something. One that takes nothing has ended its link, which is another event.
    pub(super) fn tell_gateway(&self, message: ToAuthd) {
        if let Some(link) = &self.gateway.link {
            let _ = link.push(message, Vec::new());
        }
    }

    /// A session process asks. An error is a breach of the rules.
    pub(super) fn ask_gateway(&mut self, asker: Asker, admin: bool, ask: Ask) -> Result<(), String> {
        if !admin {
            return Err("it asks what only administrators may".into());
        }
        let what = match ask {
            Ask::Look {} => None,
            Ask::Activate { .. } => Some("which ports are encrypted"),
            Ask::CreateCertificate { .. } => Some("a new certificate"),
        };
        let gateway = &mut self.gateway;
        if gateway.waiting.len() >= MOST {
            return self.answer_or(&asker, Err(unreachable("too many questions wait for vmware-authd")));
        }
        let question = gateway.next;
        let asked = ToAuthd::Security { question, ask: Inner(ask) };
        if gateway.link.as_ref().is_some_and(|link| link.push(asked, Vec::new()).is_ok()) {
            gateway.next += 1;
            gateway.waiting.insert(question, (asker, what));
            return Ok(());
        }
        let text = "vmware-authd, which keeps certificate and policy, is not connected";
        self.answer_or(&asker, Err(unreachable(text)))
    }

    /// The gateway answers.
    pub fn gateway_answered(&mut self, question: u64, answer: security::Answer) {
        // One that nobody asked for, or of a process that has gone, is for nobody.
        if let Some((asker, what)) = self.gateway.waiting.remove(&question) {
            if let Some(what) = what {
                let (outcome, text) = match &answer {
                    security::Answer::Failed { text, .. } => (Outcome::Failed, text.as_str()),
                    _ => (Outcome::Ok, ""),
                };
                self.audit_settings(&asker.by, what, outcome, text);
            }
            self.settle(&asker, Ok(Answer::Security { answer: Inner(answer) }));
        }
    }
}

fn unreachable(text: &str) -> Error {
    Error::with(ErrorCode::InsufficientResources, text)
}
