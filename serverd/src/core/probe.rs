//! What kind of host is this? Found out once, when the server starts.
//!
//! `vmx probe` runs a guest of a few instructions and looks at the time. It is a program of its own in a
//! process of its own, which is nobody before it gets to see the device: what answers there is the
//! kernel's most complicated interface, and the core has root's ids.
//!
//! ```text
//!   core ── vmserverd probe (descriptor 0: /dev/kvm) ── becomes nobody ──exec──▶ vmx probe ──▶ one word
//! ```

use std::convert::Infallible;
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use hypervisor::control::HostClass;
use tokio::sync::mpsc;

use super::Event;
use crate::session::become_user::become_user;

/// The device that runs guests.
const KVM: &str = "/dev/kvm";

/// How long it may take; a slow host needs some milliseconds.
const WITHIN: Duration = Duration::from_secs(5);

/// Ids of nobody, where we are root.
const NOBODY: u32 = 65_534;

/// The variable that names the program.
const VARIABLE: &str = "VMSERVERD_PROBE";

/// Finds out, and reports [`Event::Host`] with the class and a text for the log.
pub async fn find_out(program: String, events: mpsc::Sender<Event>) {
    let (class, why) = match tokio::time::timeout(WITHIN, ask(&program)).await {
        Ok(Ok(class)) => (class, String::new()),
        Ok(Err(error)) => (HostClass::None, error.to_string()),
        Err(_) => (HostClass::None, format!("no answer within {} s", WITHIN.as_secs())),
    };
    let _ = events.send(Event::Host { class, why }).await;
}

async fn ask(program: &str) -> io::Result<HostClass> {
    let name = |error: io::Error| io::Error::new(error.kind(), format!("{KVM}: {error}"));
    let device = File::options().read(true).write(true).open(KVM).map_err(name)?;
    let output = tokio::process::Command::new("/proc/self/exe")
        .arg0("vmserverd")
        .arg("probe")
        .env_clear()
        .env(VARIABLE, program)
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(device))
        .stderr(Stdio::piped())
        // One that takes too long ends with whoever waits for it.
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stdout);
    HostClass::from_name(said.trim()).ok_or_else(|| {
        let text = String::from_utf8_lossy(&output.stderr);
        let line: String = text.lines().next().unwrap_or_default().chars().take(200).collect();
        io::Error::other(format!("the probe failed ({}): {line}", output.status))
    })
}

/// Becomes the program that looks, with the device as standard input.
///
/// # Errors
/// When it was not started by the core, or the program cannot be executed.
pub fn main() -> Result<(), Box<dyn Error>> {
    crate::sys::close_from(3)?;
    let program = std::env::var(VARIABLE).map_err(|_| "this command is started by vmserverd itself")?;
    match become_probe(&program)? {}
}

fn become_probe(program: &str) -> Result<Infallible, Box<dyn Error>> {
    // Before: nobody need not be able to reach it.
    let file = File::open(program).map_err(|error| format!("cannot open {program}: {error}"))?;
    let own = rustix::process::geteuid();
    let uid = if own.is_root() { NOBODY } else { own.as_raw() };
    become_user(uid, NOBODY, &[])?;
    let mut vmx = std::process::Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let error = vmx.arg0("vmx").arg("probe").env_clear().exec();
    Err(format!("cannot execute {program}: {error}").into())
}
