//! Encryption on an administrator's word: which ports, which certificate.
//!
//! ```text
//!   server ── Security { ask } ──▶ a thread: files ──▶ reload ──▶ network child: "in force" ──▶ answer
//!                                  (RSA takes seconds)
//! ```
//!
//! The server has seen to it that an administrator asks. An answer is sent when the next caller will
//! meet what it says; sessions that exist are not touched. If the new state cannot be used, the old
//! settings are put back.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use link::Layout;
use link::gateway::ToServerd;
use link::product_config::{ProductConfig, replace_file};
use link::security::{Answer, Ask};
use link::wire::Inner;

use super::{Event, Monitor};
use crate::certificate::{self, Files, New, Pair};

/// Most questions that are being worked on; each may hold a thread for seconds.
const MOST: usize = 4;

/// Setting of the product: whether the main port is encrypted.
pub const CONSOLE: &str = "security.host.ruissl";

/// Setting of ours, beside it: whether the web service is to be encrypted.
pub const MANAGEMENT: &str = "security.management.ssl";

/// Mode of the product's settings where there are none yet.
const CONFIG_MODE: u32 = 0o644;

/// What is in force.
#[derive(Clone)]
pub struct State {
    /// The main port is encrypted.
    pub console: bool,
    /// The web service is to be.
    pub management: bool,
    /// Where certificate and key are.
    pub files: Files,
    /// What is in them.
    pub pair: Pair,
}

impl State {
    fn answer(&self) -> Answer {
        match certificate::facts(&self.files.certificate, &self.pair) {
            Ok(facts) => {
                Answer::Now { console: self.console, management: self.management, certificate: Inner(facts) }
            }
            Err(text) => failed(text),
        }
    }
}

/// Whom to answer: the link of this generation, by number of the question.
#[derive(Debug, Clone, Copy)]
pub struct Asker {
    generation: u64,
    question: u64,
}

/// What the thread has done.
pub enum Done {
    /// Nothing that a reload would notice.
    Nothing,
    /// There is another certificate.
    Certificate,
    /// The product's settings were changed; this is what they were.
    Settings(Before),
}

/// A file as it was.
pub struct Before {
    path: PathBuf,
    /// None when there was none.
    contents: Option<(Vec<u8>, u32)>,
}

/// Questions under way.
#[derive(Default)]
pub struct Questions {
    /// Threads at work.
    working: usize,
    /// For each configuration that the network child was sent after its first and has not confirmed:
    /// who is told then.
    unconfirmed: VecDeque<Option<Asker>>,
}

impl Questions {
    /// The network child was sent a configuration that nobody waits for.
    pub fn sent(&mut self) {
        self.unconfirmed.push_back(None);
    }
}

fn failed(text: impl Into<String>) -> Answer {
    Answer::Failed { path: String::new(), errno: 0, text: text.into() }
}

impl Monitor {
    /// The server asks.
    pub(super) fn security(&mut self, generation: u64, question: u64, ask: Ask) {
        let asker = Asker { generation, question };
        if let Ask::Look {} = ask {
            return self.answer_security(asker, self.state.answer());
        }
        if self.questions.working >= MOST {
            return self.answer_security(asker, failed("the gateway is busy with other certificates"));
        }
        self.questions.working += 1;
        let (layout, files, events) = (self.layout.clone(), self.state.files.clone(), self.events.clone());
        tokio::spawn(async move {
            let work = tokio::task::spawn_blocking(move || carry_out(&layout, &files, ask));
            let done = work.await.unwrap_or_else(|_| Err(failed("the gateway failed")));
            let _ = events.send(Event::Secured(asker, done)).await;
        });
    }

    /// The thread is done.
    pub(super) fn secured(&mut self, asker: Asker, done: Result<Done, Answer>) {
        self.questions.working = self.questions.working.saturating_sub(1);
        let before = match done {
            Err(answer) => return self.answer_security(asker, answer),
            Ok(Done::Nothing) => return self.answer_security(asker, self.state.answer()),
            Ok(Done::Certificate) => None,
            Ok(Done::Settings(before)) => Some(before),
        };
        match self.try_reload() {
            Err(error) => {
                self.log(&format!("the new settings are not used: {error}"));
                let text = match before.map(put_back) {
                    None => format!("the certificate was made, but the gateway cannot use it: {error}"),
                    Some(Ok(())) => error.to_string(),
                    Some(Err(worse)) => format!("{error}; and the old settings are lost: {worse}"),
                };
                self.answer_security(asker, failed(text));
            }
            Ok(()) => match self.questions.unconfirmed.back_mut() {
                Some(last) => *last = Some(asker),
                // There is no child to confirm; the next one begins with the new state.
                None => self.answer_security(asker, self.state.answer()),
            },
        }
    }

    /// The network child has read a configuration.
    pub(super) fn configured(&mut self, error: Option<String>) {
        if let Some(Some(asker)) = self.questions.unconfirmed.pop_front() {
            let answer = error.map_or_else(|| self.state.answer(), failed);
            self.answer_security(asker, answer);
        }
    }

    /// The network child is gone; the next one begins with what is in force now.
    pub(super) fn nothing_to_confirm(&mut self) {
        for asker in std::mem::take(&mut self.questions.unconfirmed).into_iter().flatten() {
            self.answer_security(asker, self.state.answer());
        }
    }

    fn answer_security(&self, asker: Asker, answer: Answer) {
        if self.is_link(asker.generation) {
            let answer = Inner(answer);
            self.tell_server(ToServerd::Security { question: asker.question, answer }, Vec::new());
        }
    }
}

/// Changes files. Runs on a thread of its own.
fn carry_out(layout: &Layout, files: &Files, ask: Ask) -> Result<Done, Answer> {
    match ask {
        Ask::Look {} => Ok(Done::Nothing),
        Ask::Activate { console, management } => {
            let path = layout.product_config();
            activate(&path, console, management).map_err(|error| {
                let errno = error.raw_os_error().unwrap_or(0);
                Answer::Failed { path: path.to_string_lossy().into_owned(), errno, text: error.to_string() }
            })
        }
        Ask::CreateCertificate { common_name, days, bits, overwrite } => {
            let new = New { common_name, days, bits };
            certificate::replace(files, &new, overwrite).map_err(|(path, error)| Answer::Failed {
                path: path.to_string_lossy().into_owned(),
                errno: error.raw_os_error().unwrap_or(0),
                text: error.to_string(),
            })?;
            Ok(Done::Certificate)
        }
    }
}

/// Writes the product's settings, if there is anything new in them.
fn activate(path: &std::path::Path, console: Option<bool>, management: Option<bool>) -> io::Result<Done> {
    // Read, changed and written by one at a time.
    static LOCK: Mutex<()> = Mutex::new(());
    let _locked = LOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let mut config = ProductConfig::load(path)?;
    let before = match std::fs::metadata(path) {
        Ok(metadata) => {
            use std::os::unix::fs::MetadataExt;
            Some((std::fs::read(path)?, metadata.mode() & 0o777))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut changed = false;
    for (key, value) in [(CONSOLE, console), (MANAGEMENT, management)] {
        if let Some(value) =
            value.filter(|&value| config.get(key).is_none() || config.flag(key, true) != value)
        {
            config.set(key, if value { "TRUE" } else { "FALSE" });
            changed = true;
        }
    }
    if !changed {
        return Ok(Done::Nothing);
    }
    config.store(path, before.as_ref().map_or(CONFIG_MODE, |(_, mode)| *mode))?;
    Ok(Done::Settings(Before { path: path.to_owned(), contents: before }))
}

fn put_back(before: Before) -> io::Result<()> {
    match before.contents {
        Some((contents, mode)) => replace_file(&before.path, &contents, mode),
        None => std::fs::remove_file(&before.path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn settings_are_written_once_and_can_be_put_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        assert!(matches!(activate(&path, None, None).unwrap(), Done::Nothing));
        assert!(!path.exists());
        let Done::Settings(first) = activate(&path, Some(false), None).unwrap() else { panic!() };
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "security.host.ruissl = \"FALSE\"\n");
        put_back(first).unwrap();
        assert!(!path.exists());

        std::fs::write(&path, "# mine\nSecurity.Host.RUISSL = \"no\"\nvmdir = \"/vm\"\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(activate(&path, Some(false), None).unwrap(), Done::Nothing));
        let Done::Settings(before) = activate(&path, Some(true), Some(false)).unwrap() else { panic!() };
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "# mine\nsecurity.host.ruissl = \"TRUE\"\nvmdir = \"/vm\"\nsecurity.management.ssl = \"FALSE\"\n"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        put_back(before).unwrap();
        assert!(std::fs::read_to_string(&path).unwrap().starts_with("# mine\nSecurity.Host.RUISSL = \"no\""));
    }
}
