//! `VM_INFO` and `VM_Who`: one machine, and who is connected to it.

use ops_derive::{Fragment, Op, Reply};

use crate::machine::State;
use crate::value::{ConfigPath, Time};

/// Tells everything about a machine.
///
/// Right on the .vmx: r.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_INFO", handler = "Info::VM_Info_Handler", access = AuthUser, runs = Core, effect = Reads, reply = InfoReply)]
pub struct Info {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// 1 for a client that holds the machine as an object: `VM_Who` lists the session until it ends.
    #[field(default = "0")]
    pub connect: bool,
    /// 1 for a client that wants the console, which takes the right rx.
    #[field(default = "0")]
    pub mks: bool,
}

/// Everything about a machine.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct InfoReply {
    /// The machine.
    pub vm: VmInfo,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct VmInfo {
    /// Path of its .vmx.
    pub config: ConfigPath,
    /// Its name for people.
    #[field(name = "displayName")]
    pub display_name: String,
    /// Key of its guest operating system.
    #[field(name = "guestOS")]
    pub guest_os: String,
    /// Whether it runs.
    #[field(flat)]
    pub state: State,
    /// Number of the running machine; 0 when there is no process.
    pub id: u64,
    /// Process id; 0 when there is no process.
    pub pid: u64,
    /// Seconds since power on; 0 when there is no process.
    pub uptime: u64,
    /// Counter from the guest's Tools; 0 when there is no process.
    pub heartbeat: u64,
    /// 0 no Tools, 1 normal, 5 intermittent, 100 no heartbeat; 0 when there is no process.
    #[field(name = "toolsLastActive")]
    pub tools_last_active: u64,
    /// Memory in MiB.
    #[field(name = "memoryMb")]
    pub memory_mb: u64,
    /// Virtual processors.
    pub cpus: u64,
    /// Share of one processor of the host in the last while, in percent; 0 when there is no process.
    #[field(name = "cpuPercent")]
    pub cpu_percent: u64,
    /// Version of the virtual hardware; 0 when the .vmx has none.
    #[field(name = "hardwareVersion")]
    pub hardware_version: u64,
    /// Address that the guest has told; empty when none.
    pub ip: String,
    /// Address of the first network adapter; empty when none.
    #[field(name = "macAddress")]
    pub mac_address: String,
    /// Rights of the caller: `r`, `w` and `x`, with `-` in the gaps.
    pub permissions: String,
    /// The user that the machine runs as: the owner of the .vmx.
    #[field(name = "runAsUser")]
    pub run_as_user: String,
    /// Whether there is a snapshot.
    #[field(name = "hasSnapshot")]
    pub has_snapshot: bool,
    /// Sessions that came through the gateway by `CONNECT`; 0 when there is no process.
    #[field(name = "remoteConnections")]
    pub remote_connections: u64,
    /// Remarks of people.
    pub annotation: String,
    /// What the machine wants to know. Absent unless it is stuck.
    pub question: Option<Question>,
}

/// What a machine wants to know.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Question {
    /// Its number.
    pub id: u64,
    /// The question.
    pub text: String,
    /// Possible answers; the first is number 0.
    #[field(list = "choices/choice")]
    pub choices: Vec<String>,
    /// Number of the answer that is suggested.
    #[field(name = "defaultChoice")]
    pub default_choice: u64,
}

/// Lists who is connected to a machine.
///
/// Right on the .vmx: r. A session that came by `CONNECT` is listed as `console`, one that sent `VM_INFO`
/// with `connect` 1 as `api`.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_Who", handler = "Who::VM_Who_Handler", access = AuthUser, runs = Core, effect = Reads, reply = WhoReply)]
pub struct Who {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// Who is connected.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct WhoReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// The sessions, by time of login.
    #[field(list = "users/user")]
    pub users: Vec<ConnectedUser>,
}

crate::words! {
    /// How somebody is connected.
    pub enum ConnectionType {
        /// Came to this machine through the gateway, by `CONNECT`.
        Console = "console",
        /// A session that holds the machine as an object.
        Api = "api",
    }
}

/// Somebody who is connected to a machine.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct ConnectedUser {
    /// Login name.
    pub name: String,
    /// Time of login.
    pub time: Time,
    /// Numeric address, or `unix` for a caller on the unix socket.
    pub address: String,
    /// `console` or `api`.
    #[field(name = "type")]
    pub kind: ConnectionType,
}
