//! Removing all snapshots.
//!
//! ```text
//!   off       list: removal begun ─▶ merge ─▶ .vmx names the target ─▶ files go ─▶ list: nothing left
//!   running   the disks get children for the time of the merge; what is below them is merged while the
//!             guest runs; then it stands still while those children are merged, too
//! ```
//!
//! At every moment the .vmx names a disk that holds what the guest wrote. What a crash leaves undone is in
//! the list, and is done by the next removal.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hypervisor::vmdk::{Disk, Merge, Mode};

use super::list::{List, Removal};
use super::{Error, base, disks, enter, make_children, name, put_disks, remove, take_disks};
use crate::machine::Machine;
use crate::medium::Medium;
use crate::plan::{Plan, PlannedDrive};
use crate::start::Session;

/// What came of a removal.
#[derive(Debug)]
pub struct Removed {
    /// Drives and the disks that they use from now on, where they have changed.
    pub disks: Vec<(String, PathBuf)>,
    /// Whether everything was done. If not, no snapshot can be gone back to any more, nothing that the guest
    /// wrote is lost, and the rest can be done later.
    pub result: Result<(), Error>,
}

/// Whether a removal of snapshots has begun and not ended.
#[must_use]
pub fn is_unfinished(session: &Session) -> bool {
    List::read(session).is_ok_and(|list| list.removal.is_some())
}

/// Forgets all snapshots, and merges their disks. `machine`, if there is one, stands still only while it
/// must; it runs afterwards if `running`.
#[must_use]
pub fn remove_all(session: &Session, plan: &Plan, machine: Option<&Machine>, running: bool) -> Removed {
    let mut disks = Vec::new();
    let result =
        Removing { session, plan, machine, running, disks: &mut disks, merged: BTreeSet::new() }.all();
    if let Some(machine) = machine.filter(|_| running) {
        machine.run();
    }
    Removed { disks, result }
}

struct Removing<'a> {
    session: &'a Session,
    plan: &'a Plan,
    machine: Option<&'a Machine>,
    running: bool,
    /// As in [`Removed`].
    disks: &'a mut Vec<(String, PathBuf)>,
    /// Drives of which all but the newest disk were merged while the guest ran.
    merged: BTreeSet<String>,
}

impl Removing<'_> {
    fn all(&mut self) -> Result<(), Error> {
        let mut list = List::read(self.session)?;
        let Some(removal) = self.what(&list)? else { return Ok(()) };
        let states: Vec<PathBuf> = list
            .entries
            .iter()
            .filter_map(|entry| entry.state.as_ref())
            .map(|state| self.path(state))
            .collect();
        list.entries.clear();
        list.removal = Some(removal.clone());
        match self.machine {
            None => list.write(self.session)?,
            Some(machine) => self.begin_running(machine, &mut list)?,
        }
        remove(&states);
        // What the guest wrote in the meantime, or everything.
        if let Some(machine) = self.machine {
            machine.pause();
            take_disks(machine, &disks(self.plan))?;
        }
        let result = self.merge_rest(&removal);
        if let Some(machine) = self.machine {
            let drives = disks(self.plan);
            let paths: Vec<PathBuf> = drives.iter().map(|drive| self.current(drive)).collect();
            put_disks(machine, &drives, &paths)?;
            if self.running {
                machine.run();
            }
        }
        result?;
        self.clean(list.removal.as_ref().unwrap_or(&removal))?;
        list.removal = None;
        list.write(self.session)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.session.directory.join(name)
    }

    /// The disk that a drive uses now.
    fn current(&self, drive: &PlannedDrive) -> PathBuf {
        let changed = self.disks.iter().rev().find(|(name, _)| *name == drive.name);
        changed.map(|(_, path)| path.clone()).or_else(|| drive.file.clone()).unwrap_or_default()
    }

    /// What is to be done; None when there is nothing.
    fn what(&self, list: &List) -> Result<Option<Removal>, Error> {
        if list.entries.is_empty() {
            return Ok(list.removal.clone());
        }
        let mut removal = list.removal.clone().unwrap_or_default();
        let old = std::mem::take(&mut removal.targets);
        let named = |drive: &str| -> BTreeSet<PathBuf> {
            let snapshots = list.entries.iter().flat_map(|entry| &entry.disks);
            snapshots
                .chain(&old)
                .filter(|(other, _)| other == drive)
                .map(|(_, name)| self.path(name))
                .collect()
        };
        let mut files: BTreeSet<String> = removal.files.drain(..).collect();
        for drive in disks(self.plan) {
            let named = named(&drive.name);
            let chain = chain(&self.current(drive))?;
            if let Some(at) = chain.iter().rposition(|path| named.contains(path)) {
                let (above, below) = chain.split_at(at);
                files.extend(above.iter().map(|path| name(self.session, path)));
                if let (Some(target), true) = (below.first(), at > 0) {
                    removal.targets.push((drive.name.clone(), name(self.session, target)));
                }
            }
            files.extend(named.iter().map(|path| name(self.session, path)));
        }
        let ours = |file: &String| self.is_ours(&self.path(file));
        removal.files = files.into_iter().filter(ours).collect();
        Ok(Some(removal))
    }

    /// Whether a disk has a name that we give, and lies where we put it.
    fn is_ours(&self, path: &Path) -> bool {
        let named = path.file_stem().is_some_and(|stem| base(&stem.to_string_lossy()).is_some());
        named && path.parent() == Some(&self.session.directory)
    }

    /// Gives the guest other disks to write to, and merges what is below them while it runs.
    fn begin_running(&mut self, machine: &Machine, list: &mut List) -> Result<(), Error> {
        let drives = disks(self.plan);
        let tops: Vec<PathBuf> = drives.iter().map(|drive| self.current(drive)).collect();
        machine.pause();
        machine.board().flush()?;
        take_disks(machine, &drives)?;
        let begun = make_children(&tops).and_then(|children| {
            let named: Vec<_> =
                drives.iter().map(|drive| drive.name.clone()).zip(children.iter().cloned()).collect();
            if let Some(removal) = &mut list.removal {
                removal.files.extend(children.iter().map(|path| name(self.session, path)));
            }
            let entered = list.write(self.session).and_then(|()| enter(self.session, &named, false));
            entered.inspect_err(|_| remove(&children))?;
            Ok(named)
        });
        if let Ok(named) = &begun {
            self.disks.extend(named.iter().cloned());
        }
        let paths: Vec<PathBuf> = drives.iter().map(|drive| self.current(drive)).collect();
        put_disks(machine, &drives, &paths)?;
        begun?;
        if self.running {
            machine.run();
        }
        let Some(removal) = &list.removal else { return Ok(()) };
        for (drive, top) in drives.iter().zip(&tops) {
            let Some((_, target)) = removal.targets.iter().find(|(name, _)| *name == drive.name) else {
                continue;
            };
            let target = self.path(target);
            let lent = with_disk(machine, drive, |disk| disk.lend(&target))?;
            if lent == Some(true) {
                let merged = merge_below(top, &target);
                with_disk(machine, drive, |disk| disk.take_back(&target))?;
                if merged? {
                    self.merged.insert(drive.name.clone());
                }
            }
        }
        Ok(())
    }

    /// Merges what is left, with the guest standing still, and enters the targets in the .vmx.
    fn merge_rest(&mut self, removal: &Removal) -> Result<(), Error> {
        for drive in disks(self.plan) {
            let Some((_, target)) = removal.targets.iter().find(|(name, _)| *name == drive.name) else {
                continue;
            };
            let (top, target) = (self.current(drive), self.path(target));
            if !chain(&top)?.iter().skip(1).any(|path| *path == target) {
                continue;
            }
            let mut merge = Merge::open(&top, &target)?;
            if self.merged.contains(&drive.name) {
                merge.run_top(&mut |_, _| true)?;
            } else {
                merge.run(&mut |_, _| true)?;
            }
            let entry = (drive.name.clone(), target);
            enter(self.session, std::slice::from_ref(&entry), false)?;
            self.disks.push(entry);
            merge.seal()?;
        }
        Ok(())
    }

    /// Removes the files that no drive stands on.
    fn clean(&self, removal: &Removal) -> Result<(), Error> {
        let mut used = BTreeSet::new();
        for drive in self.plan.drives.iter().filter(|drive| !drive.cd) {
            used.extend(chain(&self.current(drive))?);
        }
        let files = removal.files.iter().map(|name| self.path(name));
        remove(&files.filter(|path| !used.contains(path) && self.is_ours(path)).collect::<Vec<_>>());
        Ok(())
    }
}

/// The paths of a disk and its parents.
fn chain(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let disk = Disk::open(path, Mode::Read)?;
    let mut chain = vec![path.to_owned()];
    chain.extend(disk.parents());
    Ok(chain)
}

/// Merges the disk at `top` into `target`, if the guest that reads through it does not notice. Returns
/// whether it was done.
fn merge_below(top: &Path, target: &Path) -> Result<bool, Error> {
    let mut merge = Merge::open(top, target)?;
    Ok(merge.is_unnoticed() && merge.run(&mut |_, _| true)?)
}

/// Does something with the open disk of a drive; None when there is none.
fn with_disk<T>(
    machine: &Machine,
    drive: &PlannedDrive,
    job: impl FnOnce(&Disk) -> Result<T, hypervisor::vmdk::Error>,
) -> Result<Option<T>, Error> {
    let mut board = machine.board();
    match board.medium(drive.channel, drive.unit) {
        Some(Some(Medium::Disk(disk))) => Ok(Some(job(disk)?)),
        _ => Ok(None),
    }
}
