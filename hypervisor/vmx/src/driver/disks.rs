//! Requests about snapshots.

use std::path::PathBuf;
use std::sync::Arc;

use hypervisor::control::State;

use super::Driver;
use super::events::Report;
use super::power::close;
use crate::failure::{Failure, told};
use crate::plan::Plan;
use crate::queue::{self, Power, Standing, Verdict, admit, code};
use crate::snapshots;

impl Driver {
    /// Whether snapshots may be worked on now; says why not.
    pub(super) fn may_snapshot(&self, request: u32) -> bool {
        let standing = Standing { state: self.state, paused: self.paused, busy: self.busy.is_some() };
        match admit(standing, Power::Snapshot) {
            Verdict::Refuse(code, detail) => {
                self.speaker.fail(request, code, detail);
                false
            }
            _ => true,
        }
    }

    /// The plan of the machine that runs, or of the one that would.
    pub(super) fn plan_now(&self) -> Result<Plan, Failure> {
        if let Some(plan) = &self.plan {
            return Ok(plan.clone());
        }
        let vmx = self.session.configuration().map_err(|error| (code::INVALID_VM, error.to_string()))?;
        Plan::of(&vmx, &self.session.directory).map_err(|error| (code::INVALID_VM, error.to_string()))
    }

    pub(super) fn create_snapshot(&mut self, request: u32, about: (String, String, bool)) {
        // The memory of a suspended machine would have to be kept with its disks.
        if self.state == State::Suspended {
            let text = queue::conflict("snapshot", self.state);
            return self.speaker.fail(request, code::BAD_STATE, text);
        }
        let plan = match self.plan_now() {
            Ok(plan) => plan,
            Err((code, detail)) => return self.speaker.fail(request, code, detail),
        };
        let (session, machine) = (Arc::clone(&self.session), self.machine.clone());
        let (uptime, running) = (self.status().uptime, !self.paused);
        self.work(request, move || {
            if let Some(machine) = &machine {
                machine.pause();
            }
            let made = snapshots::create(&session, &plan, machine.as_deref(), about, uptime);
            if let Some(machine) = machine.filter(|_| running) {
                machine.run();
            }
            Report::SnapshotMade(made.map_err(|error| told(&error, code::UNSPECIFIED)))
        });
    }

    pub(super) fn revert(&mut self, request: u32, id: Option<u32>) {
        let plan = match self.plan_now() {
            Ok(plan) => plan,
            Err((code, detail)) => return self.speaker.fail(request, code, detail),
        };
        let known = snapshots::List::read(&self.session).unwrap_or_default();
        if !known.entries.iter().any(|entry| id.is_none_or(|id| entry.about.id == id)) {
            return self.speaker.fail(request, code::UNSPECIFIED, "No snapshot");
        }
        let session = Arc::clone(&self.session);
        let machine = self.machine.take();
        self.work(request, move || {
            if let Some(machine) = machine {
                machine.pause();
                // What the guest did since is given up: an error of a disk is of no interest.
                let _ = close(&machine);
            }
            let reverted = snapshots::revert(&session, &plan, id);
            Report::Reverted(reverted.map_err(|error| told(&error, code::UNSPECIFIED)))
        });
    }

    pub(super) fn remove_snapshots(&mut self, request: u32) {
        let plan = match self.plan_now() {
            Ok(plan) => plan,
            Err((code, detail)) => return self.speaker.fail(request, code, detail),
        };
        let (session, machine) = (Arc::clone(&self.session), self.machine.clone());
        let running = !self.paused;
        self.work(request, move || {
            Report::SnapshotsRemoved(snapshots::remove_all(&session, &plan, machine.as_deref(), running))
        });
    }

    /// Notes which disks are in use from now on.
    pub(super) fn use_disks(&mut self, disks: &[(String, PathBuf)]) {
        for drive in self.plan.iter_mut().flat_map(|plan| &mut plan.drives) {
            if let Some((_, path)) = disks.iter().rev().find(|(name, _)| *name == drive.name) {
                drive.file = Some(path.clone());
            }
        }
    }

    pub(super) fn has_snapshot(&self) -> bool {
        snapshots::List::read(&self.session).is_ok_and(|list| !list.entries.is_empty())
    }
}
