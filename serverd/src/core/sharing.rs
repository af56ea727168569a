//! Which files do other users' machines use? Asked before a machine is deleted.
//!
//! Who deletes a machine may not be able to read the .vmx of another that uses its disk, and the core
//! reads nobody's files. So the owners are asked:
//!
//! ```text
//!   UsedByOthers ─▶ a thread looks who owns which .vmx ─▶ Owners
//!                                                           │ one session process for each owner
//!                                                           ▼
//!                               Uses ─▶ reads his machines as their owner ─▶ Used ─▶ all together: answer
//! ```
//!
//! An owner whose process does not answer in time (his file system may be his own) has not objected.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ops::{Error, ErrorCode};

use super::Event;
use super::journal::Owner;
use super::processes::ProcessId;
use super::questions::Asker;
use super::supervisor::Supervisor;
use crate::channel::{Answer, ToSession};

/// How long owners may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Inquiries at the same time; each keeps a thread for as long as it takes to look at all machines.
const INQUIRIES: usize = 8;

/// Bytes of paths in one message.
const PATHS_PER_MESSAGE: usize = 64 * 1024;

/// Device and inode, one after the other.
pub type Files = Vec<u64>;

/// Inquiries under way.
#[derive(Debug, Default)]
pub struct Sharing {
    next: u64,
    inquiries: BTreeMap<u64, Inquiry>,
}

#[derive(Debug)]
struct Inquiry {
    asker: Asker,
    files: Files,
    used: BTreeSet<(u64, u64)>,
    /// The owners are known and were asked.
    asked: bool,
    /// Answers that are still to come, by process.
    open: BTreeMap<ProcessId, u32>,
}

impl Supervisor {
    /// Begins an inquiry.
    pub(super) fn begin_inquiry(&mut self, asker: Asker, config: &str, files: Files) -> Result<(), String> {
        if !files.len().is_multiple_of(2) {
            return Err("it names half a file".into());
        }
        let Some((uid, _)) = self.who(asker.process) else { return Ok(()) };
        if self.sharing.inquiries.len() >= INQUIRIES {
            let text = "too many machines are being deleted at this moment: try again";
            return self.answer_or(&asker, Err(Error::with(ErrorCode::VmBusy, text)));
        }
        self.sharing.next += 1;
        let inquiry = self.sharing.next;
        let begun = Inquiry { asker, files, used: BTreeSet::new(), asked: false, open: BTreeMap::new() };
        self.sharing.inquiries.insert(inquiry, begun);
        let others: Vec<String> = self.shared.inventory.configs().filter(|one| *one != config).collect();
        let events = self.events.clone();
        tokio::task::spawn_blocking(move || {
            let owners = owners(others, uid);
            let _ = events.blocking_send(Event::Owners { inquiry, owners });
        });
        let events = self.events.clone();
        tokio::spawn(async move {
            tokio::time::sleep(ANSWER_WITHIN).await;
            let _ = events.send(Event::InquiryOver { inquiry }).await;
        });
        Ok(())
    }

    /// It is known who owns which machine: each is asked about his.
    pub fn owners(&mut self, inquiry: u64, owners: Vec<(Owner, Vec<String>)>) {
        for (owner, configs) in owners {
            let Some(files) = self.sharing.inquiries.get(&inquiry).map(|one| one.files.clone()) else {
                return;
            };
            let process = match self.process_of_owner(&owner) {
                Ok(process) => process,
                Err(why) => {
                    tracing::warn!("machines of {} are not asked about: {why}", owner.name);
                    continue;
                }
            };
            for configs in pieces(configs) {
                if let Some(one) = self.sharing.inquiries.get_mut(&inquiry) {
                    *one.open.entry(process).or_default() += 1;
                }
                self.tell_or_end(process, ToSession::Uses { inquiry, configs, files: files.clone() });
            }
        }
        if let Some(one) = self.sharing.inquiries.get_mut(&inquiry) {
            one.asked = true;
        }
        self.conclude(inquiry);
    }

    /// An owner's process has answered.
    pub(super) fn used(&mut self, process: ProcessId, inquiry: u64, files: &[u64]) -> Result<(), String> {
        // One that comes too late finds nothing.
        let Some(one) = self.sharing.inquiries.get_mut(&inquiry) else { return Ok(()) };
        match one.open.get_mut(&process) {
            Some(open) if *open > 0 => *open -= 1,
            _ => return Err("it answers what it was not asked".into()),
        }
        one.used.extend(files.as_chunks::<2>().0.iter().map(|[device, inode]| (*device, *inode)));
        self.conclude(inquiry);
        Ok(())
    }

    /// A process has died: nothing more comes of it.
    pub(super) fn nobody_answers(&mut self, process: ProcessId) {
        for one in self.sharing.inquiries.values_mut() {
            one.open.remove(&process);
        }
        let all: Vec<u64> = self.sharing.inquiries.keys().copied().collect();
        for inquiry in all {
            self.conclude(inquiry);
        }
    }

    /// Answers when all have answered.
    fn conclude(&mut self, inquiry: u64) {
        let over = |one: &Inquiry| one.asked && one.open.values().all(|open| *open == 0);
        if self.sharing.inquiries.get(&inquiry).is_some_and(over) {
            self.inquiry_over(inquiry);
        }
    }

    /// Answers with what is known.
    pub fn inquiry_over(&mut self, inquiry: u64) {
        let Some(one) = self.sharing.inquiries.remove(&inquiry) else { return };
        let files = one.used.iter().flat_map(|(device, inode)| [*device, *inode]).collect();
        let _ = self.answer_or(&one.asker, Ok(Answer::Files { files }));
    }
}

/// The owners of machines, with what is theirs; without those of `uid`, who can look himself. May wait
/// for file systems and the user database.
fn owners(configs: Vec<String>, uid: u32) -> Vec<(Owner, Vec<String>)> {
    // Root sees everything itself.
    if uid == 0 {
        return Vec::new();
    }
    let mut of: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for config in configs {
        if let Ok(facts) = rustix::fs::stat(config.as_str())
            && facts.st_uid != uid
        {
            of.entry(facts.st_uid).or_default().push(config);
        }
    }
    let owner = |(uid, configs)| {
        let account = ::link::identity::Account::by_uid(uid)?;
        let ::link::identity::Account { name, uid, gid, groups, home } = account;
        Some((Owner { uid, gid, groups, name, home }, configs))
    };
    of.into_iter().filter_map(owner).collect()
}

/// Paths in lists that fit a message.
fn pieces(configs: Vec<String>) -> Vec<Vec<String>> {
    let mut pieces = vec![Vec::new()];
    let mut bytes = 0;
    for config in configs {
        bytes += config.len() + 4;
        if bytes > PATHS_PER_MESSAGE {
            pieces.push(Vec::new());
            bytes = config.len() + 4;
        }
        if let Some(last) = pieces.last_mut() {
            last.push(config);
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fit_their_messages_and_none_is_lost() {
        let configs: Vec<String> = (0..100).map(|number| format!("/{number:04000}")).collect();
        let pieces = pieces(configs.clone());
        assert_eq!(pieces.concat(), configs);
        assert!(
            pieces
                .iter()
                .all(|piece| piece.iter().map(|path| path.len() + 4).sum::<usize>() <= PATHS_PER_MESSAGE)
        );
    }

    #[test]
    fn whoever_asks_is_not_asked_and_root_asks_nobody() {
        let here = std::env::current_exe().unwrap().to_str().unwrap().to_owned();
        let me = rustix::fs::stat(here.as_str()).unwrap().st_uid;
        assert!(owners(vec![here.clone()], 0).is_empty());
        if me != 0 {
            assert!(owners(vec![here], me).is_empty());
        } else {
            let found = owners(vec![here.clone(), "/nowhere".into()], 4242);
            assert_eq!(
                found.into_iter().map(|(owner, configs)| (owner.uid, configs)).collect::<Vec<_>>(),
                [(0, vec![here])]
            );
        }
    }
}
