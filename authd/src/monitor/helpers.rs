//! Helpers: processes that ask PAM and the name service, as many as needed, each one job at a time.
//!
//! Checks and look-ups have pools of their own, so that a sleeping PAM module never holds up a local
//! login; and one source address may keep only a few checks busy, so that guessing from one place
//! never holds up others.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use link::channel::{Channel, pair};
use link::identity::Account;
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::messages::{FromHelper, ToHelper};
use crate::source::Source;

/// How long a password check may take before its helper is ended.
const CHECK_PATIENCE: Duration = Duration::from_secs(120);
/// The same for a look-up.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(10);
/// Look-ups at the same time.
const LOOKUPS: usize = 4;
/// Checks at the same time from one source.
const PER_SOURCE: usize = 16;
/// Idle helpers kept for the next job; more are ended.
const IDLE: usize = 4;
/// A helper leaves by itself after so many jobs; see [`crate::pam`].
const JOBS_PER_HELPER: usize = 256;

/// The pools.
#[derive(Debug, Clone)]
pub struct Helpers {
    checks: Pool,
    lookups: Pool,
    sources: Arc<Mutex<HashMap<Source, Arc<Semaphore>>>>,
}

/// The outcome of a job: an account or none, and a note for the log (never for the caller).
pub type Outcome = (Option<Account>, String);

impl Helpers {
    /// Pools with at most `workers` checks at the same time. No process is started yet.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Helpers {
            checks: Pool::new(workers, CHECK_PATIENCE),
            lookups: Pool::new(LOOKUPS, LOOKUP_PATIENCE),
            sources: Arc::default(),
        }
    }

    /// Checks a password; waits for a helper first.
    pub async fn check(&self, source: Source, question: ToHelper) -> Outcome {
        let turn = {
            let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
            // Sources that nobody waits for any more.
            sources.retain(|_, semaphore| Arc::strong_count(semaphore) > 1);
            Arc::clone(sources.entry(source).or_insert_with(|| Arc::new(Semaphore::new(PER_SOURCE))))
        };
        // The semaphores are never closed.
        let _turn = turn.acquire().await;
        self.checks.ask(question).await
    }

    /// Looks a uid up.
    pub async fn lookup(&self, uid: u32) -> Outcome {
        self.lookups.ask(ToHelper::Lookup { uid }).await
    }
}

#[derive(Debug, Clone)]
struct Pool {
    slots: Arc<Semaphore>,
    idle: Arc<Mutex<VecDeque<Helper>>>,
    patience: Duration,
}

#[derive(Debug)]
struct Helper {
    channel: Channel<ToHelper, FromHelper>,
    /// Killed when dropped.
    _process: Child,
    jobs: usize,
}

impl Pool {
    fn new(workers: usize, patience: Duration) -> Self {
        Pool { slots: Arc::new(Semaphore::new(workers)), idle: Arc::default(), patience }
    }

    async fn ask(&self, question: ToHelper) -> Outcome {
        let _slot = self.slots.acquire().await;
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        if let Some(helper) = idle
            && let Ok(outcome) = self.ask_helper(helper, &question).await
        {
            return outcome;
        }
        // No idle helper, or one that died while it was idle: a login must not fail for that.
        let outcome = match Helper::start() {
            Ok(helper) => self.ask_helper(helper, &question).await,
            Err(error) => return (None, format!("no helper process can be started: {error}")),
        };
        outcome.unwrap_or_else(|error| (None, format!("the helper process ended: {error}")))
    }

    /// One job. The helper is kept for the next one if it answered; dropping it kills it.
    async fn ask_helper(&self, mut helper: Helper, question: &ToHelper) -> io::Result<Outcome> {
        let Ok(answer) = tokio::time::timeout(self.patience, helper.ask(question)).await else {
            return Ok((None, format!("no answer from PAM within {} s", self.patience.as_secs())));
        };
        let outcome = answer?;
        helper.jobs += 1;
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if helper.jobs < JOBS_PER_HELPER && idle.len() < IDLE {
            idle.push_front(helper);
        }
        Ok(outcome)
    }
}

impl Helper {
    fn start() -> io::Result<Self> {
        let (ours, theirs) = pair()?;
        let process = command("pam-helper", theirs).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        Ok(Helper { channel: Channel::from_fd(ours)?, _process: process, jobs: 0 })
    }

    async fn ask(&mut self, question: &ToHelper) -> io::Result<Outcome> {
        self.channel.send(question, &[]).await?;
        match self.channel.recv().await? {
            Some((FromHelper::Answer { account, note }, _)) => Ok((account.map(|wire| wire.0), note)),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// A copy of this program for one of its other jobs, with the channel as descriptor 0, PATH
/// and nothing else in its environment, and a process group of its own: a Ctrl-C at the terminal is for the
/// monitor.
pub fn command(job: &str, channel: OwnedFd) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0(crate::IDENT)
        .arg(job)
        .stdin(Stdio::from(channel))
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .process_group(0)
        .kill_on_drop(true);
    command
}
