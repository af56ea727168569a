//! A helper: the process that calls PAM and the name service for the monitor.
//!
//! PAM modules and name services are other people's code. They may sleep for seconds, crash, print,
//! or leak, and libpam wants one handle per thread. So every check runs in a process of its own kind:
//! a helper does one check at a time, the monitor runs as many helpers as it needs, and a helper that
//! dies takes one login with it and nothing else. What a module prints goes to `/dev/null`; what it
//! says through the conversation is dropped.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use link::identity::Account;
use link::wire::{MAX_MESSAGE, Message};
use nonstick::items::ItemsMut;
use nonstick::{
    AuthnFlags, ConversationAdapter, ErrorCode, PamShared, Result as PamResult, Transaction,
    TransactionBuilder,
};
use zeroize::Zeroizing;

use crate::messages::{FromHelper, ToHelper, WireAccount};
use crate::modules::Modules;

/// A helper leaves after so many checks, and the monitor starts a fresh one: modules leak.
const CHECKS_PER_PROCESS: usize = 256;

/// Serves the channel on descriptor 0 until it is closed.
///
/// # Errors
/// When the channel breaks.
pub fn run() -> io::Result<()> {
    // A module that never returns must not outlive the monitor.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    let channel: OwnedFd = io::stdin().as_fd().try_clone_to_owned()?;
    let mut buffer = Zeroizing::new(vec![0u8; MAX_MESSAGE]);
    let mut modules = Modules::default();
    for _ in 0..CHECKS_PER_PROCESS {
        let (length, _) =
            rustix::net::recv(&channel, buffer.as_mut_slice(), rustix::net::RecvFlags::empty())?;
        // After an update a new process answers: the monitor asks another when one has left.
        if length == 0 || !modules.fresh() {
            return Ok(());
        }
        let datagram = buffer.get(..length).unwrap_or_default();
        let question = ToHelper::decode(datagram).map_err(io::Error::other)?;
        let mut answer = Vec::new();
        answer_to(question, &mut modules).encode(&mut answer);
        rustix::net::send(&channel, &answer, rustix::net::SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

fn answer_to(question: ToHelper, modules: &mut Modules) -> FromHelper {
    let (account, note) = match question {
        ToHelper::Lookup { uid } => match Account::by_uid(uid) {
            Some(account) => (Some(account), String::new()),
            None => (None, format!("uid {uid} has no passwd entry")),
        },
        ToHelper::Check { service, name, password, remote_host } => {
            let password = Zeroizing::new(password);
            match check(&service, &name, &password, &remote_host, modules) {
                Ok(account) => (Some(account), String::new()),
                Err(note) => (None, note),
            }
        }
    };
    FromHelper::Answer { account: account.map(WireAccount), note }
}

/// Runs both stacks, then resolves the name. The error is for the daemon's log.
fn check(
    service: &str,
    name: &[u8],
    password: &[u8],
    remote_host: &str,
    modules: &mut Modules,
) -> Result<Account, String> {
    let Ok(name) = std::str::from_utf8(name) else {
        return Err("the name is not UTF-8".to_owned());
    };
    if name.contains('\0') || password.contains(&0) {
        return Err("NUL in name or password".to_owned());
    }
    ask_pam(service, name, password, remote_host, modules).map_err(|code| format!("PAM: {code}"))?;
    Account::by_name(name).ok_or_else(|| "no passwd entry".to_owned())
}

fn ask_pam(
    service: &str,
    name: &str,
    password: &[u8],
    remote_host: &str,
    modules: &mut Modules,
) -> PamResult<()> {
    let conversation =
        OneAnswer { password: Zeroizing::new(password.to_vec()), asked: std::cell::Cell::new(false) }
            .into_conversation();
    let mut transaction = TransactionBuilder::new_with_service(service).username(name).build(conversation)?;
    transaction.items_mut().set_remote_host(Some(OsStr::new(remote_host)))?;
    // Accounts with an empty password never log in from outside.
    let authenticated = transaction.authenticate(AuthnFlags::SILENT | AuthnFlags::DISALLOW_NULL_AUTHTOK);
    // libpam loads the modules of all stacks with the first question.
    modules.keep();
    authenticated?;
    transaction.account_management(AuthnFlags::SILENT)
}

/// The conversation: exactly one hidden prompt is answered; anything more fails the login.
struct OneAnswer {
    password: Zeroizing<Vec<u8>>,
    asked: std::cell::Cell<bool>,
}

impl ConversationAdapter for OneAnswer {
    fn prompt(&self, _: impl AsRef<OsStr>) -> PamResult<OsString> {
        Err(ErrorCode::ConversationError)
    }
    fn masked_prompt(&self, _: impl AsRef<OsStr>) -> PamResult<OsString> {
        if self.asked.replace(true) {
            return Err(ErrorCode::ConversationError);
        }
        Ok(OsString::from_vec(OsStr::from_bytes(&self.password).as_bytes().to_vec()))
    }
    fn error_msg(&self, _: impl AsRef<OsStr>) {}
    fn info_msg(&self, _: impl AsRef<OsStr>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookups_answer_with_the_account() {
        let FromHelper::Answer { account, .. } =
            answer_to(ToHelper::Lookup { uid: 0 }, &mut Modules::default());
        assert_eq!(account.unwrap().0.name, "root");
        let FromHelper::Answer { account, note } =
            answer_to(ToHelper::Lookup { uid: 4_000_000 }, &mut Modules::default());
        assert_eq!((account, note.as_str()), (None, "uid 4000000 has no passwd entry"));
    }

    #[test]
    fn only_one_hidden_prompt_is_answered() {
        let talk = OneAnswer { password: Zeroizing::new(b"pw".to_vec()), asked: false.into() };
        assert!(talk.prompt("login: ").is_err());
        assert_eq!(talk.masked_prompt("Password: ").unwrap(), "pw");
        assert!(talk.masked_prompt("Token: ").is_err());
    }

    #[test]
    fn names_that_cannot_be_are_refused_before_pam() {
        assert!(check("x", b"\xff", b"pw", "", &mut Modules::default()).unwrap_err().contains("UTF-8"));
        assert!(check("x", b"a\0b", b"pw", "", &mut Modules::default()).unwrap_err().contains("NUL"));
    }
}
