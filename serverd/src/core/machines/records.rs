//! Where the next core finds the machines that this one has started.
//!
//! Below `run/vmware/machines`, which only the core can enter, there is for each machine a listening
//! socket, whose other end its process holds, and a record of which process that is:
//!
//! ```text
//!   17.sock    17.json  { config, pid, when it began, owner of the .vmx }
//! ```

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use hypervisor::event_log::LogRights;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::{Deserialize, Serialize};

use super::process::MachineId;

/// Connections that may wait on a socket: there is never more than one core.
const BACKLOG: i32 = 4;

/// A machine as the next core finds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Path of the .vmx.
    pub config: String,
    /// Process id.
    pub pid: u32,
    /// When the process began, in the kernel's clock ticks since it booted.
    pub began: u64,
    /// Unix seconds.
    pub started: i64,
    /// Owner of the .vmx.
    pub uid: u32,
    /// Group of the .vmx.
    pub gid: u32,
    /// Permissions of the event log.
    pub mode: u32,
}

impl Record {
    /// Who may read the machine's event log.
    #[must_use]
    pub fn rights(&self) -> LogRights {
        LogRights { uid: self.uid, gid: self.gid, mode: self.mode }
    }
}

/// The directory.
#[derive(Debug)]
pub struct Records {
    path: PathBuf,
    directory: File,
}

impl Records {
    /// Opens the directory, which is made if it is missing.
    ///
    /// # Errors
    /// As the system calls; the text names the path.
    pub fn open(path: &Path) -> io::Result<Self> {
        let describe = |error: io::Error| ::link::layout::describe(&error, "cannot use", path);
        match std::fs::DirBuilder::new().mode(0o700).create(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(describe(error)),
            _ => {}
        }
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(describe)?;
        Ok(Records { path: path.to_owned(), directory: File::open(path).map_err(describe)? })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path that fits into a socket address, however deep the directory is.
    fn socket(&self, id: MachineId) -> PathBuf {
        format!("/proc/self/fd/{}/{id}.sock", self.directory.as_raw_fd()).into()
    }

    fn record(&self, id: MachineId) -> PathBuf {
        self.path.join(format!("{id}.json"))
    }

    /// Makes the socket on which a machine waits for the next core.
    ///
    /// # Errors
    /// As the system calls.
    pub fn listen(&self, id: MachineId) -> io::Result<OwnedFd> {
        let path = self.socket(id);
        let _ = std::fs::remove_file(&path);
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path)?)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(socket)
    }

    /// The path to connect to.
    #[must_use]
    pub fn address(&self, id: MachineId) -> PathBuf {
        self.socket(id)
    }

    /// Writes a record. Nothing is flushed: no machine survives the host.
    ///
    /// # Errors
    /// As `write(2)` and `rename(2)`.
    pub fn put(&self, id: MachineId, record: &Record) -> io::Result<()> {
        let new = self.path.join(format!("{id}.new"));
        std::fs::write(&new, serde_json::to_vec(record)?)?;
        std::fs::rename(new, self.record(id))
    }

    /// Forgets a machine.
    pub fn remove(&self, id: MachineId) {
        let _ = std::fs::remove_file(self.record(id));
        let _ = std::fs::remove_file(self.socket(id));
    }

    /// All records. What else lies here was left by a core that died in the middle of a start, whose
    /// process has ended with it, and is removed.
    #[must_use]
    pub fn all(&self) -> Vec<(MachineId, Record)> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let path = entry.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
            let Some(id) = number else { continue };
            let record = std::fs::read(self.record(id)).ok();
            match record.and_then(|bytes| serde_json::from_slice::<Record>(&bytes).ok()) {
                Some(record) => all.push((id, record)),
                None => {
                    let _ = std::fs::remove_file(&path);
                }
            }
        }
        all.sort_by_key(|(id, _)| *id);
        all.dedup_by_key(|(id, _)| *id);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_recorded_is_found() {
        let base = tempfile::tempdir().unwrap();
        let directory = base.path().join("x".repeat(200));
        let records = Records::open(&directory).unwrap();
        assert_eq!(std::fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        let record =
            Record { config: "/a.vmx".into(), pid: 1, began: 2, started: 3, uid: 4, gid: 5, mode: 0o600 };
        let _socket = records.listen(7).unwrap();
        let _again = records.listen(7).unwrap();
        let _half = records.listen(9).unwrap();
        records.put(7, &record).unwrap();
        assert_eq!(records.all(), [(7, record)]);
        assert!(!records.address(9).exists());
        records.remove(7);
        assert_eq!(std::fs::read_dir(&directory).unwrap().count(), 0);
    }
}
