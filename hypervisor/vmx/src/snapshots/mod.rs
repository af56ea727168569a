//! Snapshots: the disks, and the memory, of a machine at a moment.
//!
//! ```text
//!   make     memory to NAME-SnapshotN.vmsn; for each disk a child BASE-00000N.vmdk;
//!            the .vmx names the children (one atomic change);  the snapshot enters NAME.vmsd
//!   go back  for each disk a new child of the file that the snapshot names; the .vmx names those
//!   remove   the list is emptied and says what is to be merged; each disk is merged into what it stood
//!            on before the first snapshot; the .vmx names that one; files that nobody needs go
//! ```
//!
//! A crash in between leaves at most files that nobody names: the .vmx always names disks that are
//! whole, and a snapshot is in the list only when nothing writes to its disks any more.
//! Independent disks are left out; a machine with undoable disks can have no snapshots.
//!
//! `list.rs` keeps the list, `removal.rs` removes.

mod list;
mod removal;

pub use list::{Entry, List, Removal};
pub use removal::{Removed, is_unfinished, remove_all};

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use hypervisor::control::Snapshot;
use hypervisor::vmdk::{self, CreateOptions, Disk, Kind, Mode};
use hypervisor::vmx_file::DiskMode;

use crate::machine::{self, Machine};
use crate::medium::Medium;
use crate::plan::{Plan, PlannedDrive};
use crate::start::{STATE_KEY, Session};

/// Most snapshots of a machine: what a chain of disks allows, with room for a base.
const MOST: usize = vmdk::MAX_CHAIN - 4;

/// Why it did not work. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A disk.
    #[error("{0}")]
    Disk(#[from] vmdk::Error),
    /// The configuration, or the list.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The memory.
    #[error("{0}")]
    Machine(#[from] machine::Error),
    /// A medium cannot be flushed.
    #[error("{0}")]
    Medium(#[from] crate::medium::Fault),
    /// There is no such snapshot.
    #[error("No snapshot")]
    None,
    /// A disk keeps changes aside already.
    #[error("{0} is undoable: a machine with such a disk can have no snapshots")]
    Undoable(String),
    /// There are too many.
    #[error("a machine can have at most {MOST} snapshots")]
    TooMany,
}

fn file(path: &Path) -> impl Fn(io::Error) -> Error {
    move |source| Error::File { path: path.to_owned(), source }
}

/// The disks that take part.
fn disks(plan: &Plan) -> Vec<&PlannedDrive> {
    let part = |drive: &&PlannedDrive| !drive.cd && drive.mode == DiskMode::Persistent;
    plan.drives.iter().filter(part).collect()
}

/// A path as the .vmx has it: relative to its directory, where that is possible.
fn name(session: &Session, path: &Path) -> String {
    path.strip_prefix(&session.directory).unwrap_or(path).to_string_lossy().into_owned()
}

/// Whether a file name is one that [`child_path`] gives, and what it was made of.
fn base(stem: &str) -> Option<&str> {
    let (base, number) = stem.rsplit_once('-')?;
    (number.len() == 6 && number.bytes().all(|byte| byte.is_ascii_digit())).then_some(base)
}

/// A name for a child of `parent`, beside it, that is not taken.
fn child_path(parent: &Path) -> Option<PathBuf> {
    let stem = parent.file_stem()?.to_string_lossy().into_owned();
    let stem = base(&stem).unwrap_or(&stem);
    (1..1_000_000).map(|number| parent.with_file_name(format!("{stem}-{number:06}.vmdk"))).find(|path| {
        matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound)
    })
}

/// Makes children of disks; all, or none.
fn make_children(parents: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut made = Vec::new();
    for parent in parents {
        let result = child_path(parent).ok_or_else(|| io::Error::other("no name is free for a new disk"));
        let result = result.map_err(file(parent)).and_then(|child| {
            let options = CreateOptions {
                parent: parent.file_name().map(PathBuf::from),
                mode: 0o600,
                ..CreateOptions::new(Kind::MonolithicSparse, 0)
            };
            vmdk::create(&child, &options)?;
            Ok(child)
        });
        match result {
            Ok(child) => made.push(child),
            Err(error) => {
                remove(&made);
                return Err(error);
            }
        }
    }
    Ok(made)
}

fn remove(paths: &[PathBuf]) {
    for path in paths {
        let _ = std::fs::remove_file(path);
    }
}

/// Enters disks in the .vmx.
fn enter(session: &Session, disks: &[(String, PathBuf)], forget_state: bool) -> Result<(), Error> {
    let mut keys: Vec<(String, String)> =
        disks.iter().map(|(drive, path)| (format!("{drive}.fileName"), name(session, path))).collect();
    if forget_state {
        keys.push((STATE_KEY.to_owned(), String::new()));
    }
    let keys: Vec<(&str, &str)> = keys.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    session.set_keys(&keys).map_err(file(&session.config))
}

/// Makes a snapshot. `machine`, if there is one, stands still; with `memory` its memory is kept, too,
/// and `uptime` with it. Returns the snapshot's number and the disks that are in use from now on.
///
/// # Errors
/// [`Error`]; the machine can go on as it was. Only when a disk could neither be given a child nor be
/// opened again does the guest see a drive that fails.
pub fn create(
    session: &Session,
    plan: &Plan,
    machine: Option<&Machine>,
    about: (String, String, bool),
    uptime: u64,
) -> Result<(u32, Vec<(String, PathBuf)>), Error> {
    let (display, description, memory) = about;
    let mut list = List::read(session)?;
    if list.entries.len() >= MOST {
        return Err(Error::TooMany);
    }
    if let Some(drive) = plan.drives.iter().find(|drive| !drive.cd && drive.mode == DiskMode::Undoable) {
        return Err(Error::Undoable(drive.name.clone()));
    }
    let id = list.last.saturating_add(1);
    let drives = disks(plan);
    let parents: Vec<PathBuf> = drives.iter().filter_map(|drive| drive.file.clone()).collect();
    let stem = session.config.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let state = machine.filter(|_| memory).map(|_| format!("{stem}-Snapshot{id}.vmsn"));
    if let Some(machine) = machine {
        machine.board().flush()?;
        if let Some(state) = &state {
            machine.save(&session.directory.join(state), uptime)?;
        }
        take_disks(machine, &drives)?;
    }
    let result = make_children(&parents).and_then(|children| {
        let named: Vec<_> =
            drives.iter().map(|drive| drive.name.clone()).zip(children.iter().cloned()).collect();
        enter(session, &named, false).inspect_err(|_| remove(&children))?;
        Ok(named)
    });
    let in_use = match &result {
        Ok(children) => children.iter().map(|(_, path)| path.clone()).collect(),
        Err(_) => parents.clone(),
    };
    if let Some(machine) = machine {
        put_disks(machine, &drives, &in_use)?;
    }
    let forget = |error| {
        if let Some(state) = &state {
            remove(&[session.directory.join(state)]);
        }
        error
    };
    let children = result.map_err(forget)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = i64::try_from(now).unwrap_or(0);
    let names = parents.iter().map(|path| name(session, path));
    list.last = id;
    list.entries.push(Entry {
        about: Snapshot { id, name: display, description, time, memory: state.is_some() },
        disks: drives.iter().map(|drive| drive.name.clone()).zip(names).collect(),
        state: state.clone(),
    });
    list.write(session).map_err(forget)?;
    Ok((id, children))
}

/// Closes the disks of a machine that stands still.
fn take_disks(machine: &Machine, drives: &[&PlannedDrive]) -> Result<(), Error> {
    let mut board = machine.board();
    for drive in drives {
        if let Some(Medium::Disk(disk)) = board.medium(drive.channel, drive.unit).and_then(Option::take) {
            disk.close()?;
        }
    }
    Ok(())
}

fn put_disks(machine: &Machine, drives: &[&PlannedDrive], paths: &[PathBuf]) -> Result<(), Error> {
    let mut board = machine.board();
    for (drive, path) in drives.iter().zip(paths) {
        let disk = Disk::open(path, Mode::Write)?;
        if let Some(slot) = board.medium(drive.channel, drive.unit) {
            *slot = Some(Medium::Disk(disk));
        }
    }
    Ok(())
}

/// Goes back to snapshot `id`, or the newest. The machine does not run. Returns the file with the
/// memory to go on with, if the snapshot has any.
///
/// # Errors
/// [`Error`].
pub fn revert(session: &Session, plan: &Plan, id: Option<u32>) -> Result<Option<PathBuf>, Error> {
    let list = List::read(session)?;
    let wanted = |entry: &&Entry| id.is_none_or(|id| entry.about.id == id);
    let entry = list.entries.iter().rev().find(wanted).ok_or(Error::None)?;
    let parents: Vec<PathBuf> = entry.disks.iter().map(|(_, name)| session.directory.join(name)).collect();
    let children = make_children(&parents)?;
    let named: Vec<_> =
        entry.disks.iter().map(|(drive, _)| drive.clone()).zip(children.iter().cloned()).collect();
    enter(session, &named, true).inspect_err(|_| remove(&children))?;
    let _ = std::fs::remove_file(session.state_file());
    // What was in use is of no use any more, unless a snapshot names it or somebody else made it.
    let kept: BTreeSet<PathBuf> = list
        .entries
        .iter()
        .flat_map(|entry| &entry.disks)
        .map(|(_, name)| session.directory.join(name))
        .collect();
    for drive in disks(plan) {
        let Some(path) = &drive.file else { continue };
        let ours = path.file_stem().is_some_and(|stem| base(&stem.to_string_lossy()).is_some());
        let replaced = entry.disks.iter().any(|(name, _)| *name == drive.name);
        if ours && replaced && !kept.contains(path) && path.parent() == Some(&session.directory) {
            let _ = std::fs::remove_file(path);
        }
    }
    Ok(entry.state.as_ref().map(|state| session.directory.join(state)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_children() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        assert_eq!(child_path(&path("disk.vmdk")), Some(path("disk-000001.vmdk")));
        std::fs::write(path("disk-000001.vmdk"), "").unwrap();
        assert_eq!(child_path(&path("disk-000001.vmdk")), Some(path("disk-000002.vmdk")));
        assert_eq!(base("my-disk"), None);
    }
}
