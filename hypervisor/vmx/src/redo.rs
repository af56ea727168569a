//! Redo logs: where the writes to undoable and nonpersistent disks go.
//!
//! | mode | file | at power on | at power off |
//! |---|---|---|---|
//! | `undoable` | `DISK.REDO_xxxxxx`, entered as `ideX:Y.redo` | gone on with, if it is there | a question: commit, discard, keep |
//! | `independent-nonpersistent` | `MACHINE-ideX-Y.REDO_np` | made anew | removed |
//!
//! A redo log is a child of the disk. A crash keeps that of an undoable disk. Committing merges it into the
//! disk; as a log that is half merged can no longer be discarded, `ideX:Y.redoCommit` says so in the .vmx
//! first, and the next power on ends what a crash interrupts.

use std::path::{Path, PathBuf};

use hypervisor::vmdk::{self, CreateOptions, Kind, Merge};
use hypervisor::vmx_file::DiskMode;

use crate::drives;
use crate::plan::{Plan, PlannedDrive};
use crate::start::Session;

/// Letters of the random part of a name.
const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz012345";

/// What becomes of the redo logs of undoable disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// The disk gets the changes.
    Commit,
    /// They are forgotten.
    Discard,
    /// They stay aside, and the next run adds to them.
    Keep,
}

/// The undoable disks of a machine.
pub fn undoable(plan: &Plan) -> impl Iterator<Item = &PlannedDrive> {
    plan.drives.iter().filter(|drive| !drive.cd && drive.mode == DiskMode::Undoable)
}

/// Makes the redo logs that are missing, and enters them in the plan and in the .vmx.
///
/// # Errors
/// [`drives::Error`], naming the drive.
pub fn prepare(session: &Session, plan: &mut Plan, resume: bool) -> Result<(), drives::Error> {
    for drive in plan.drives.iter_mut().filter(|drive| !drive.cd) {
        let Some(disk) = drive.file.clone() else { continue };
        let failed = |source| drives::Error::Disk { name: drive.name.clone(), source };
        match drive.mode {
            DiskMode::IndependentNonpersistent => {
                let log = nonpersistent(session, drive);
                if !resume {
                    make(&log, &disk, true).map_err(failed)?;
                }
                drive.redo = Some(log);
            }
            DiskMode::Undoable => {
                if drive.redo.is_some() && drive.committing {
                    commit(session, drive)?;
                    drive.redo = None;
                }
                if drive.redo.is_none() {
                    let log = undo_path(&disk);
                    make(&log, &disk, false).map_err(failed)?;
                    let name =
                        log.strip_prefix(&session.directory).unwrap_or(&log).to_string_lossy().into_owned();
                    set(session, drive, &[("redo", &name)]).inspect_err(|_| remove(&log))?;
                    drive.redo = Some(log);
                }
            }
            DiskMode::Persistent | DiskMode::IndependentPersistent => {}
        }
    }
    Ok(())
}

/// Where the writes to a nonpersistent disk go: beside the .vmx, as others may use the disk, too.
fn nonpersistent(session: &Session, drive: &PlannedDrive) -> PathBuf {
    let stem = session.config.file_stem().unwrap_or_default().to_string_lossy();
    session.directory.join(format!("{stem}-{}.REDO_np", drive.name.replace(':', "-")))
}

fn undo_path(disk: &Path) -> PathBuf {
    let mut random = [0; 6];
    // A kernel without randomness gives a name that may be taken, and then an error.
    let _ = rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty());
    let mut name = disk.as_os_str().to_owned();
    name.push(".REDO_");
    for byte in random {
        let letter = LETTERS.get(usize::from(byte) % LETTERS.len()).copied().unwrap_or(b'a');
        name.push(char::from(letter).to_string());
    }
    name.into()
}

fn make(log: &Path, disk: &Path, overwrite: bool) -> Result<(), vmdk::Error> {
    // By its name alone where that is enough: both may be moved together.
    let directory = log.parent().unwrap_or(Path::new(""));
    let parent = Some(disk.strip_prefix(directory).unwrap_or(disk).to_owned());
    let options =
        CreateOptions { parent, overwrite, mode: 0o600, ..CreateOptions::new(Kind::MonolithicSparse, 0) };
    vmdk::create(log, &options).map(|_| ())
}

fn set(session: &Session, drive: &PlannedDrive, keys: &[(&str, &str)]) -> Result<(), drives::Error> {
    let named: Vec<_> = keys.iter().map(|(key, value)| (format!("{}.{key}", drive.name), *value)).collect();
    let keys: Vec<(&str, &str)> = named.iter().map(|(key, value)| (key.as_str(), *value)).collect();
    let failed =
        |source| drives::Error::File { name: drive.name.clone(), path: session.config.clone(), source };
    session.set_keys(&keys).map_err(failed)
}

/// Does what was chosen with the redo logs of a machine whose disks are closed, and removes those of
/// nonpersistent disks.
///
/// # Errors
/// [`drives::Error`], naming the drive. Nothing is lost then: the logs are still there.
pub fn settle(session: &Session, drives: &[PlannedDrive], choice: Choice) -> Result<(), drives::Error> {
    for drive in drives.iter().filter(|drive| !drive.cd) {
        let Some(log) = &drive.redo else { continue };
        match (drive.mode, choice) {
            (DiskMode::IndependentNonpersistent, _) => remove(log),
            (DiskMode::Undoable, Choice::Commit) => commit(session, drive)?,
            (DiskMode::Undoable, Choice::Discard) => {
                set(session, drive, &[("redo", "")])?;
                remove(log);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Merges the redo log of a drive into its disk. Done already is done.
fn commit(session: &Session, drive: &PlannedDrive) -> Result<(), drives::Error> {
    let (Some(log), Some(disk)) = (&drive.redo, &drive.file) else { return Ok(()) };
    let configured = session.configuration().ok();
    let named = configured.as_ref().and_then(|vmx| vmx.get_filled(&format!("{}.redo", drive.name)));
    if configured.is_some() && named.is_none() {
        return Ok(());
    }
    let failed = |source| drives::Error::Disk { name: drive.name.clone(), source };
    let mut merge = Merge::open(log, disk).map_err(failed)?;
    set(session, drive, &[("redoCommit", "TRUE")])?;
    merge.run(&mut |_, _| true).map_err(failed)?;
    set(session, drive, &[("redo", ""), ("redoCommit", "")])?;
    remove(log);
    merge.seal().map_err(failed)
}

/// Removes a redo log. Only what has the name of one is removed.
fn remove(log: &Path) {
    if log.file_name().is_some_and(|name| name.to_string_lossy().contains(".REDO_")) {
        let _ = std::fs::remove_file(log);
    }
}
