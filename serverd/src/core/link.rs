//! Keeping the link to vmware-authd.
//!
//! The server is the one that connects, so that it has no listening socket at all. The two may start
//! in any order and each may be restarted: this task tries until there is a link, tells the core,
//! and starts again when the link ends.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use link::gateway::{ToAuthd, ToServerd};
use link::{Channel, Outbox};
use tokio::sync::mpsc;

use super::Event;

/// First pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// Longest pause between two attempts. An attempt on a missing socket costs microseconds, and whoever
/// restarts the gateway expects logins within a second.
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Answers that may wait for a gateway that does not read. It asks one thing at a time per session,
/// so a full queue means that it is stuck.
const WAITING_ANSWERS: usize = 16 * 1024;

/// What the link tells the core.
#[derive(Debug)]
pub enum LinkEvent {
    /// There is a link; answers go into the outbox.
    Up(Outbox<ToAuthd>),
    /// The gateway says something.
    Message(ToServerd, Vec<OwnedFd>),
    /// The link has ended.
    Down,
}

/// Makes the link again and again. Ends when nobody listens to `events` any more.
pub async fn keep(path: PathBuf, events: mpsc::Sender<Event>) {
    let mut pause = FIRST_PAUSE;
    let mut complained = String::new();
    while !events.is_closed() {
        match connect(&path).await {
            Ok(channel) => {
                pause = FIRST_PAUSE;
                complained.clear();
                if let Err(error) = serve(channel, &events).await {
                    tracing::warn!("the link to vmware-authd broke: {error}");
                }
                let _ = events.send(Event::Link(LinkEvent::Down)).await;
            }
            Err(error) => {
                // One line per reason, not one per attempt.
                let text = error.to_string();
                if text != complained {
                    tracing::info!("waiting for vmware-authd at {}: {text}", path.display());
                    complained = text;
                }
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

async fn connect(path: &Path) -> io::Result<Channel<ToAuthd, ToServerd>> {
    link::layout::check_socket_path(path)?;
    let channel = Channel::connect(path).await?;
    let peer = channel.peer_uid()?;
    // Whoever can say "this socket belongs to root" must be root, or the user that we run as.
    if peer != 0 && peer != rustix::process::geteuid().as_raw() {
        let text = format!("the socket belongs to a process of uid {peer}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    channel.send(&ToAuthd::Hello { pid: std::process::id() }, &[]).await?;
    Ok(channel)
}

/// Passes on what the gateway says until the link ends.
async fn serve(channel: Channel<ToAuthd, ToServerd>, events: &mpsc::Sender<Event>) -> io::Result<()> {
    let channel = Arc::new(channel);
    let outbox = Outbox::new(WAITING_ANSWERS);
    let writer = tokio::spawn(outbox.clone().run(Arc::clone(&channel)));
    if events.send(Event::Link(LinkEvent::Up(outbox.clone()))).await.is_err() {
        return Ok(());
    }
    let result = loop {
        match channel.recv().await {
            Ok(Some((message, fds))) => {
                if events.send(Event::Link(LinkEvent::Message(message, fds))).await.is_err() {
                    break Ok(());
                }
            }
            Ok(None) => {
                tracing::info!("vmware-authd has closed the link");
                break Ok(());
            }
            Err(error) => break Err(error),
        }
    };
    outbox.close();
    writer.abort();
    result
}
