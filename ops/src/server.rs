//! `VMServerd_GetResource`, `VMServerd_WaitForEvents`, `VMServerd_GetMetrics`. Extensions.

use ops_derive::{Fragment, Op, Reply};

use crate::machine::PowerState;
use crate::task_manager::TaskState;
use crate::value::{ConfigPath, Time};

/// Reads a figure of the host.
///
/// Known are `system.cpu.number`; `system.cpu.N.idlesec` and `system.cpu.N.usedsec`, seconds since the
/// host was started; `system.mem.size`, `system.mem.avail` and `system.mem.active`, in KiB. Anything
/// else: -10.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMServerd_GetResource", handler = "Extension::VMServerd_GetResource_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetResourceReply)]
pub struct GetResource {
    /// Name of the figure.
    pub name: String,
}

/// A figure of the host.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetResourceReply {
    /// Its name, as asked.
    pub name: String,
    /// A whole number, in decimal.
    pub value: String,
}

/// Waits for something to happen on the server.
///
/// A long poll: the connection is occupied while it waits. Without `since` it answers at once with the
/// current `epoch` and `next`. With both it answers as soon as there is an event of that number or a
/// later one that the caller may see, or after `timeout` seconds without. The last 10000 events are
/// kept. An older `since`, or another `epoch` because the server was started again, gives `lost` 1 and
/// the oldest events that are kept: then read again with `VM_List`.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMServerd_WaitForEvents", handler = "Extension::VMServerd_WaitForEvents_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = WaitForEventsReply)]
pub struct WaitForEvents {
    /// `epoch` of the last answer.
    pub epoch: Option<u64>,
    /// `next` of the last answer.
    pub since: Option<u64>,
    /// Most seconds to wait.
    #[field(default = "25", min = 0, max = 60)]
    pub timeout: u32,
    /// Most events in the answer.
    #[field(default = "100", min = 1, max = 1000)]
    pub max: u32,
    /// Only events of these machines, by the paths of their .vmx.
    #[field(list = "configs/config", alias = "cfg", alias = "vm")]
    pub configs: Option<Vec<ConfigPath>>,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct WaitForEventsReply {
    /// Another one after each start of the server.
    pub epoch: u64,
    /// What to ask for next, as `since`.
    pub next: u64,
    /// 1 when events were missed.
    pub lost: bool,
    /// The events, the oldest first.
    #[field(list = "events/event")]
    pub events: Vec<Event>,
}

/// Something that has happened. Which fields there are depends on `type`.
#[derive(Clone, Debug, Default, PartialEq, Fragment)]
pub struct Event {
    /// `vm.registered`, `vm.unregistered`, `vm.state`, `vm.paused`, `vm.question`,
    /// `vm.config`, `vm.guestinfo`, `vm.device`, `vm.snapshot`, `task.state` or `server.stopping`.
    #[field(name = "type", attribute)]
    pub kind: String,
    /// Its number.
    pub sequence: u64,
    /// When it happened.
    pub time: Time,
    /// Path of the machine's .vmx; with `vm.`.
    pub config: Option<ConfigPath>,
    /// State before; with `vm.state`.
    pub from: Option<PowerState>,
    /// State after; with `vm.state`.
    pub to: Option<PowerState>,
    /// Whether it stands still; with `vm.paused`.
    pub paused: Option<bool>,
    /// Number of the question; with `vm.question`.
    pub id: Option<u32>,
    /// What was changed; with `vm.guestinfo`, and with `vm.config` when it was changed by `VM_SetConfig`.
    /// `vm.config` without it says that the .vmx is to be read again.
    pub key: Option<String>,
    /// Name of the device; with `vm.device`.
    pub device: Option<String>,
    /// Whether it is plugged in; with `vm.device`.
    pub connected: Option<bool>,
    /// Number of the task; with `task.state`.
    #[field(name = "taskId")]
    pub task_id: Option<u64>,
    /// How the task is; with `task.state`.
    pub state: Option<TaskState>,
    /// Share that is done; with `task.state`.
    pub percent: Option<u32>,
}

/// Figures of the server for monitoring, in the OpenMetrics text format.
///
/// Requests by operation and result (operation `none` are those that name none), a histogram of the time
/// that each operation took, sessions, tasks and machines; nothing that names users.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMServerd_GetMetrics", handler = "Extension::VMServerd_GetMetrics_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetMetricsReply)]
pub struct GetMetrics {
    /// 1 adds figures of each machine that runs and that the caller may read.
    #[field(name = "perVm", default = "0")]
    pub per_vm: bool,
}

/// Figures.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetMetricsReply {
    /// `openmetrics`.
    pub format: String,
    /// The text.
    pub contents: String,
}
