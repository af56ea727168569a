//! Machines of ours with a guest of ours: an instance whose firmware is that guest, and its machines,
//! registered and powered off.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::files::Session;
use crate::bench::guest::{self, Job};
use crate::bench::ours::Ours;
use crate::bench::{Bench, client, process};

/// No guest of ours takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// An instance and its machines. Whatever runs when this is dropped is powered off.
#[derive(Debug)]
pub struct Rig {
    ours: Ours,
    /// The machines, registered.
    pub configs: Vec<PathBuf>,
}

/// Whether machines can run here at all.
///
/// # Errors
/// Why not.
pub fn kvm() -> Result<()> {
    let opened = fs::File::options().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| format!("/dev/kvm: {error}"))
}

impl Rig {
    /// Starts an instance whose firmware does this `job`, with `count` machines of `megabytes` each; `lines`
    /// go into every .vmx.
    ///
    /// # Errors
    /// When anything of it does not work.
    pub fn new(
        bench: &Bench,
        name: &str,
        job: Job,
        (count, megabytes): (usize, u32),
        lines: &str,
    ) -> Result<Self> {
        let said = |error: std::io::Error| format!("{name}: {error}");
        let home = bench.scratch().join(format!("{name}-machines"));
        let firmware = home.join("firmware");
        guest::firmware(&firmware, job)?;
        let setting = format!("serverd.machines.firmware={:?}", firmware.display().to_string());
        let ours = Ours::start_with(bench.scratch(), name, bench.bin_dir(), &[&setting])?;
        let mut rig = Rig { ours, configs: Vec::new() };
        let mut session = rig.session()?;
        for number in 0..count {
            let directory = home.join(format!("m{number:02}"));
            fs::create_dir_all(&directory).map_err(said)?;
            let config = directory.join(format!("m{number:02}.vmx"));
            let text = format!(
                "config.version = \"8\"\nvirtualHW.version = \"4\"\nmemsize = \"{megabytes}\"\n\
                 displayName = \"m{number:02}\"\nserial0.present = \"TRUE\"\n{lines}"
            );
            fs::write(&config, text).map_err(said)?;
            fs::set_permissions(&config, fs::Permissions::from_mode(0o755)).map_err(said)?;
            session.ask("VMRegister", &config_of(&config))?;
            rig.configs.push(config);
        }
        Ok(rig)
    }

    /// A session of its own.
    ///
    /// # Errors
    /// When there is none to be had.
    pub fn session(&self) -> Result<Session> {
        client::unix(&self.ours.socket).map(Session::over).map_err(|error| format!("no session: {error}"))
    }

    /// The first machine.
    ///
    /// # Errors
    /// When there are no machines.
    pub fn first(&self) -> Result<&Path> {
        self.configs.first().map(PathBuf::as_path).ok_or_else(|| "no machine".to_owned())
    }

    /// Process ids of machines.
    pub fn processes(&self) -> Vec<u32> {
        let mut wanted = vec![self.ours.pid()];
        let mut found = Vec::new();
        while let Some(pid) = wanted.pop() {
            wanted.extend(process::children(pid));
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            if name.trim_end() == "vmx" {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.processes().is_empty() {
            return;
        }
        if let Ok(mut session) = self.session() {
            for config in &self.configs {
                // One that is off already says so.
                let _ = stop(&mut session, config);
            }
        }
    }
}

/// The element that names a machine.
fn config_of(config: &Path) -> String {
    format!("<config>{}</config>", config.display())
}

/// Powers on, or lets a suspended machine go on.
///
/// # Errors
/// When it does not.
pub fn start(session: &mut Session, config: &Path) -> Result<()> {
    session.ask("VM_Start", &config_of(config)).map(drop)
}

/// Powers off.
///
/// # Errors
/// When it does not.
pub fn stop(session: &mut Session, config: &Path) -> Result<()> {
    session.ask("VM_Stop", &format!("{}<mode>hard</mode>", config_of(config))).map(drop)
}

/// Suspends.
///
/// # Errors
/// When it does not.
pub fn suspend(session: &mut Session, config: &Path) -> Result<()> {
    session.ask("VM_Suspend", &format!("{}<mode>hard</mode>", config_of(config))).map(drop)
}

/// Sends a byte to the guest.
///
/// # Errors
/// When it cannot be sent.
pub fn send(session: &mut Session, config: &Path, text: &str) -> Result<()> {
    session.ask("VM_SerialWrite", &format!("{}<contents>{text}</contents>", config_of(config))).map(drop)
}

/// Waits until the guest has sent so many bytes.
///
/// # Errors
/// When it does not, for a minute.
pub fn wait_sent(session: &mut Session, config: &Path, count: usize) -> Result<()> {
    let limit = Instant::now() + PATIENCE;
    let mut offset = 0;
    while offset < count {
        let arguments = format!("{}<offset>{offset}</offset><wait>30</wait>", config_of(config));
        let reply = session.ask("VM_SerialRead", &arguments)?;
        let reply = String::from_utf8_lossy(&reply);
        let next = reply.split("<nextOffset>").nth(1).and_then(|rest| rest.split('<').next());
        offset = next.and_then(|next| next.parse().ok()).ok_or("a reply without nextOffset")?;
        if Instant::now() > limit {
            return Err(format!("{}: the guest has sent {offset} of {count} bytes", config.display()));
        }
    }
    Ok(())
}
