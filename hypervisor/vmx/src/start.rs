//! Power on: from the .vmx and the descriptors to a machine that runs.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hypervisor::vmdk;
use hypervisor::vmx_file::{self, VmxFile};

use crate::board::Facts;
use crate::boot::Kernel;
use crate::failure::told_of;
use crate::firmware::{self, Firmware};
use crate::machine::{self, Boot, Listeners, Machine};
use crate::plan::Plan;
use crate::queue::code;
use crate::{drives, redo, sandbox};

/// What the process was handed, and what follows from it.
#[derive(Debug)]
pub struct Session {
    /// The .vmx.
    pub config: PathBuf,
    /// Its directory.
    pub directory: PathBuf,
    /// Where the firmware is.
    pub firmware: PathBuf,
    /// `/dev/kvm`.
    pub kvm: OwnedFd,
    /// The .vmx, open.
    pub file: File,
    /// Held as long as the process lives: no second process runs this machine.
    pub lock: MachineLock,
}

/// A lock on a machine: a file beside the .vmx, locked, and removed when done with.
#[derive(Debug)]
pub struct MachineLock {
    path: PathBuf,
    _file: File,
}

impl MachineLock {
    /// Takes the lock of the machine at `config`.
    ///
    /// # Errors
    /// `WouldBlock` when another process has it; otherwise as the system calls.
    pub fn take(config: &Path) -> io::Result<Self> {
        use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
        let path = lock_path(config);
        // The file may be removed between opening and locking it: then it is another one's.
        for _ in 0..100 {
            let mut options = File::options();
            options
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
            let file = options.open(&path)?;
            rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
            let mine = file.metadata()?;
            let there = std::fs::symlink_metadata(&path);
            if there.is_ok_and(|there| (there.dev(), there.ino()) == (mine.dev(), mine.ino())) {
                return Ok(MachineLock { path, _file: file });
            }
        }
        Err(io::Error::new(io::ErrorKind::WouldBlock, "its lock file changes all the time"))
    }
}

/// The lock file of the machine at `config`.
#[must_use]
pub fn lock_path(config: &Path) -> PathBuf {
    let mut path = config.as_os_str().to_owned();
    path.push(".lck");
    path.into()
}

impl Drop for MachineLock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A machine that runs.
#[derive(Debug)]
pub struct Started {
    /// The machine.
    pub machine: Arc<Machine>,
    /// What it was built from.
    pub plan: Plan,
    /// Seconds that it had been on before it was suspended.
    pub uptime: u64,
    /// It was suspended.
    pub resumed: bool,
}

/// Where a machine goes on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// The suspended state, if there is one; else power on.
    Suspended,
    /// Power on; a suspended state is forgotten.
    Nothing,
    /// The memory of a snapshot.
    Snapshot(PathBuf),
}

/// Why a machine does not run.
#[derive(Debug)]
pub enum NotStarted {
    /// It cannot: code and detail for the client.
    Failed(i32, String),
    /// Somebody must decide: try again, or not.
    Retry(String),
    /// The suspended state is of no use: forget it, or not.
    Discard(String),
}

/// Key of the suspended state.
pub const STATE_KEY: &str = "checkpoint.vmState";

impl Session {
    /// Reads the .vmx as it is now. The file may have been replaced since it was handed over: then the
    /// one with its name counts.
    ///
    /// # Errors
    /// As the system calls.
    pub fn configuration(&self) -> io::Result<VmxFile> {
        VmxFile::load(&self.config).or_else(|_| VmxFile::read(&self.file))
    }

    /// Where the suspended state goes: beside the .vmx, with its name.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.config.with_extension("vmss")
    }

    /// Writes keys of the .vmx; None empties one.
    ///
    /// # Errors
    /// As the system calls.
    pub fn set_keys(&self, keys: &[(&str, &str)]) -> io::Result<()> {
        vmx_file::update(&self.config, |vmx| {
            for (key, value) in keys {
                vmx.set(key, value);
            }
            Ok::<(), io::Error>(())
        })
        .map(|_| ())
    }

    /// Powers on, or goes on.
    ///
    /// # Errors
    /// [`NotStarted`]; nothing runs then and nothing is locked.
    pub fn start(&self, listeners: Listeners, from: &From) -> Result<Started, NotStarted> {
        let invalid = |error: &dyn std::fmt::Display| NotStarted::Failed(code::INVALID_VM, error.to_string());
        let vmx = self.configuration().map_err(|error| invalid(&error))?;
        let mut plan = Plan::of(&vmx, &self.directory).map_err(|error| invalid(&error))?;
        let init = |error: &dyn std::fmt::Display| NotStarted::Failed(code::INIT_FAILED, error.to_string());
        let firmware = Firmware::load(&self.firmware).map_err(|error: firmware::Error| init(&error))?;
        let boot = match &plan.kernel {
            None => Boot::Firmware,
            Some(kernel) => {
                let kernel = Kernel::read(&kernel.kernel, kernel.initrd.as_deref(), &kernel.cmdline);
                Boot::Kernel(kernel.map_err(|error| invalid(&error))?)
            }
        };
        let state = match from {
            From::Suspended => vmx.suspend_state().map(|name| self.directory.join(name)),
            From::Nothing => None,
            From::Snapshot(path) => Some(path.clone()),
        };
        let retry = |error: drives::Error| NotStarted::Retry(question(&error));
        let floppy = plan.floppy.as_ref().filter(|floppy| floppy.connected);
        let floppy = floppy.map(|floppy| drives::read_floppy(&floppy.name, &floppy.file)).transpose();
        let facts = Facts {
            memory: plan.memory,
            cpus: plan.cpus,
            uuid: plan.uuid,
            boot: plan.boot.clone(),
            vga_bios: firmware.vga.clone(),
            floppy: floppy.map_err(retry)?,
        };
        redo::prepare(self, &mut plan, state.is_some()).map_err(retry)?;
        let mut channels: [[Option<drives::Drive>; 2]; 2] = Default::default();
        for drive in &plan.drives {
            let slot = channels.get_mut(drive.channel).and_then(|units| units.get_mut(drive.unit));
            if let Some(slot) = slot {
                *slot = Some(drives::open(drive).map_err(retry)?);
            }
        }
        let mut ports = Vec::new();
        for port in &plan.serial {
            ports.push((port.number, drives::open_serial(port).map_err(retry)?));
        }
        let kvm = self.kvm.try_clone().map_err(|error| init(&error))?;
        let machine = Machine::new(kvm, facts, firmware, boot, listeners).map_err(|error| match &error {
            machine::Error::Host { source, .. } if source.kind() == io::ErrorKind::OutOfMemory => {
                NotStarted::Failed(code::NO_RESOURCES, error.to_string())
            }
            _ => init(&error),
        })?;
        {
            let mut board = machine.board();
            board.set_clock_offset(plan.clock_offset);
            for (number, units) in channels.into_iter().enumerate() {
                let [first, second] =
                    units.map(|drive| drive.map_or((None, None), |(unit, medium)| (Some(unit), medium)));
                board.set_channel(number, [first.0, second.0], [first.1, second.1]);
            }
            for (number, file) in ports {
                board.add_serial(number, file);
            }
        }
        let mut uptime = 0;
        if let Some(file) = &state {
            uptime = machine.restore(file).map_err(|error| {
                NotStarted::Discard(format!(
                    "The suspended state of this virtual machine cannot be used: {error}"
                ))
            })?;
        }
        if vmx.suspend_state().is_some() {
            // Before the guest runs: what it does to its disks makes the state worthless.
            self.set_keys(&[(STATE_KEY, "")]).map_err(|error| {
                let (code, text) = told_of(&self.config, &error, code::INIT_FAILED);
                NotStarted::Failed(code, text)
            })?;
            let old = vmx.suspend_state().map(|name| self.directory.join(name));
            if old.as_ref().is_some_and(|old| old.parent() == Some(&self.directory)) {
                let _ = std::fs::remove_file(old.unwrap_or_default());
            }
        }
        machine.run();
        Ok(Started { machine: Arc::new(machine), plan, uptime, resumed: state.is_some() })
    }
}

fn question(error: &drives::Error) -> String {
    match error {
        drives::Error::Disk { source: vmdk::Error::Busy { .. }, .. } => {
            format!("A virtual disk is in use by another virtual machine or program. {error}.")
        }
        _ => format!("A file of this virtual machine cannot be opened. {error}."),
    }
}

/// What processors do first.
pub(crate) fn enter() -> io::Result<()> {
    sandbox::close_processor()
}
