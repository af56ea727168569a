//! Snapshots of machines. Extensions.

use ops_derive::{Fragment, Op, Reply};

use crate::machine::PowerState;
use crate::value::{ConfigPath, Time};

/// Makes a snapshot of a machine's disks, and of its memory when it is on.
///
/// Right on the .vmx: rx. Independent disks are left out.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_CreateSnapshot", handler = "Extension::VM_CreateSnapshot_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = CreateSnapshotReply)]
pub struct CreateSnapshot {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// A name for people.
    #[field(default = "")]
    pub name: String,
    /// A description for people.
    #[field(default = "")]
    pub description: String,
    /// Whether the guest should be asked to write its buffers out first; without Tools in the guest a
    /// warning says that it was not.
    #[field(default = "0")]
    pub quiesce: bool,
    /// Whether the memory of a machine that is on belongs to it.
    #[field(default = "1")]
    pub memory: bool,
    /// 1 answers at once with the number of a task that does it.
    #[field(default = "0")]
    pub background: bool,
}

/// The new snapshot; or the task that makes it.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct CreateSnapshotReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Number of the snapshot. Absent when a task makes it.
    #[field(name = "snapshotId")]
    pub snapshot_id: Option<u32>,
    /// Number of the task. Absent without `background`.
    #[field(name = "taskId")]
    pub task_id: Option<u64>,
    /// What could not be done as asked.
    #[field(warnings)]
    pub warnings: Vec<String>,
}

/// Goes back to a snapshot.
///
/// Right on the .vmx: rx. The state is then that of the snapshot: one without memory powers the machine
/// off. No snapshot: -999 `No snapshot`.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_RevertToSnapshot", handler = "Extension::VM_RevertToSnapshot_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = RevertReply)]
pub struct RevertToSnapshot {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Number of the snapshot; the newest where none is named.
    #[field(name = "snapshotId", alias = "id")]
    pub snapshot_id: Option<u32>,
    /// 1 answers at once with the number of a task that does it.
    #[field(default = "0")]
    pub background: bool,
}

/// The state after going back; or the task that goes back.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct RevertReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// `on`, `off`, `suspended`, `stuck` or `unknown`. Absent when a task does it.
    #[field(name = "powerState")]
    pub power: Option<PowerState>,
    /// 1 while a machine that is on stands still. Absent when a task does it.
    pub paused: Option<bool>,
    /// Number of the task. Absent without `background`.
    #[field(name = "taskId")]
    pub task_id: Option<u64>,
}

/// Removes all snapshots of a machine; its disks keep what they hold now.
///
/// Right on the .vmx: rx. None is no failure.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_RemoveAllSnapshots", handler = "Extension::VM_RemoveAllSnapshots_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = RemoveAllSnapshotsReply)]
pub struct RemoveAllSnapshots {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// 1 answers at once with the number of a task that does it.
    #[field(default = "0")]
    pub background: bool,
}

/// They are gone; or the task that removes them.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct RemoveAllSnapshotsReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Number of the task. Absent without `background`.
    #[field(name = "taskId")]
    pub task_id: Option<u64>,
}

/// Lists the snapshots of a machine.
///
/// Right on the .vmx: r.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_HasSnapshot", handler = "Extension::VM_HasSnapshot_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = HasSnapshotReply)]
pub struct HasSnapshot {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// The snapshots of a machine.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct HasSnapshotReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Whether there is one.
    #[field(name = "hasSnapshot")]
    pub has_snapshot: bool,
    /// All of them, the oldest first.
    #[field(list = "snapshots/snapshot")]
    pub snapshots: Vec<Snapshot>,
}

/// A snapshot.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Snapshot {
    /// Its number.
    pub id: u32,
    /// Its name; may be empty.
    pub name: String,
    /// Its description; may be empty.
    pub description: String,
    /// When it was made.
    pub time: Time,
    /// Whether it has the memory of the machine.
    pub memory: bool,
}
