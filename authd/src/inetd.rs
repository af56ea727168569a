//! Started by a super-server (inetd, xinetd, a `.socket` unit with `Accept=yes`) for one caller, as the installers of
//! the product set it up: descriptor 0 is the caller.
//!
//! ```text
//!   caller ──TCP──▶ inetd ──descriptor 0──▶ this process ──Caller──▶ monitor ──Caller──▶ net child
//!                                                 │◀────Taken────────┘
//!                                                 └─ ends
//! ```
//!
//! Nothing that the caller says is read here. Delays and limits are those of the gateway that runs, because it
//! serves the caller like one of its own listeners' (`docs/decisions/0038`).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use link::Layout;
use link::channel::Channel;
use tokio::time::{Instant, sleep, timeout_at};

use crate::messages::{FromInetd, ToInetd};
use crate::monitor::settings::open_log;
use crate::reply;
use crate::source::End;

/// How long a gateway is waited for that is not there, or does not take the caller: one may just be restarted.
const PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two tries.
const AGAIN: Duration = Duration::from_millis(50);

/// The caller, if descriptor 0 is a TCP connection. An ssh session's or a test's input is none.
#[must_use]
pub fn caller() -> Option<OwnedFd> {
    let stdin = io::stdin();
    matches!(End::of_socket(&stdin), Some(End::Tcp(_))).then(|| stdin.as_fd().try_clone_to_owned().ok())?
}

/// Hands the caller to the gateway of this instance; tells him when there is none.
///
/// # Errors
/// When that failed. What is printed goes nowhere: the caller would read it.
pub fn run(root: Option<&Path>, caller: &OwnedFd) -> io::Result<()> {
    // Super-servers make all three the caller.
    let nothing = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    let layout = Layout::new(root)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let path = layout.inetd_socket();
    let result = runtime.block_on(hand_on(&path, caller, Instant::now() + PATIENCE));
    if let Err(error) = &result {
        let text = format!(
            "a caller of a super-server was sent away: {}: {error}; is vmware-authd running?",
            path.display()
        );
        if let Ok(log) = open_log(&layout) {
            log.line(crate::IDENT, std::process::id(), &text);
        }
        let _ = rustix::net::send(caller, reply::NOT_AVAILABLE, rustix::net::SendFlags::NOSIGNAL);
    }
    result
}

/// Tries until the gateway has taken the caller, or the time is over.
async fn hand_on(path: &Path, caller: &OwnedFd, end: Instant) -> io::Result<()> {
    loop {
        let Err(error) = timeout_at(end, offer(path, caller)).await.unwrap_or_else(|over| Err(over.into()))
        else {
            return Ok(());
        };
        if Instant::now() + AGAIN >= end {
            return Err(error);
        }
        sleep(AGAIN).await;
    }
}

async fn offer(path: &Path, caller: &OwnedFd) -> io::Result<()> {
    let channel: Channel<FromInetd, ToInetd> = Channel::connect(path).await?;
    channel.send(&FromInetd::Caller {}, &[caller.as_fd()]).await?;
    match channel.recv().await? {
        Some((ToInetd::Taken {}, _)) => Ok(()),
        None => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the gateway did not take the caller")),
    }
}
