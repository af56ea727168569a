//! Single facts about a machine, one operation each, as the calls of the C library. Extensions.

use ops_derive::{Op, Reply};

use crate::machine::State;
use crate::value::ConfigPath;

/// Tells the state of a machine.
///
/// Right on the .vmx: r.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetState", handler = "Extension::VM_GetState_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetStateReply)]
pub struct GetState {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// A machine's state.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetStateReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Its state.
    #[field(flat)]
    pub power: State,
    /// The state as a number: 1 on, 2 off, 3 suspended, 4 stuck, 5 unknown.
    pub state: u32,
}

/// Tells which product runs a machine, as numbers of the C library.
///
/// The product is 4, or 2 where the setting `serverd.product.number` says so.
///
/// Right on the .vmx: r.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetProductInfo", handler = "Extension::VM_GetProductInfo_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetProductInfoReply)]
pub struct GetProductInfo {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// The product that runs a machine.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetProductInfoReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// 1 Workstation, 2 GSX, 3 ESX, 4 Server, 5 unknown.
    pub product: u32,
    /// The same as a word: `ws`, `gsx`, `esx`, `server` or `unknown`.
    #[field(name = "productName")]
    pub product_name: String,
    /// 1 Windows, 2 Linux, 3 VMnix, 4 unknown.
    pub platform: u32,
    /// The same as a word: `windows`, `linux`, `vmnix` or `unknown`.
    #[field(name = "platformName")]
    pub platform_name: String,
    /// Number of the build; 0 when it is no number.
    pub build: u64,
    /// First number of the version.
    #[field(name = "majorVersion")]
    pub major_version: u64,
    /// Second number of the version.
    #[field(name = "minorVersion")]
    pub minor_version: u64,
    /// Third number of the version.
    pub revision: u64,
}

/// Tells what the caller may do with a machine.
///
/// Right on the .vmx: r.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetCapabilities", handler = "Extension::VM_GetCapabilities_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetCapabilitiesReply)]
pub struct GetCapabilities {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// The rights of the caller.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetCapabilitiesReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Sum of 4 read, 2 write, 1 execute.
    pub capabilities: u32,
    /// The same as letters: `r`, `w` and `x`, with `-` in the gaps.
    pub permissions: String,
}

/// Tells how often the guest's Tools have given a sign of life.
///
/// There are no Tools yet, so a running machine answers 0.
///
/// Right on the .vmx: r. A machine without a process: -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetHeartbeat", handler = "Extension::VM_GetHeartbeat_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetHeartbeatReply)]
pub struct GetHeartbeat {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// Signs of life.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetHeartbeatReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// A running counter from the guest's Tools.
    pub heartbeat: u32,
}

/// Tells how long a machine has been on.
///
/// Right on the .vmx: r. A machine without a process: -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetUptime", handler = "Extension::VM_GetUptime_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetUptimeReply)]
pub struct GetUptime {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// How long it has been on.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetUptimeReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Seconds since power on.
    pub uptime: u64,
}

/// Tells how the guest's Tools are.
///
/// There are no Tools yet, so a running machine answers 0.
///
/// Right on the .vmx: r. A machine without a process: -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetToolsLastActive", handler = "Extension::VM_GetToolsLastActive_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetToolsLastActiveReply)]
pub struct GetToolsLastActive {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// How the guest's Tools are.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetToolsLastActiveReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// 0 no Tools, 1 normal, 5 intermittent, 100 no heartbeat.
    #[field(name = "toolsLastActive")]
    pub tools_last_active: u32,
}

/// Counts the sessions that came to a machine through the gateway, by `CONNECT`.
///
/// Right on the .vmx: r. None while it is off.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetRemoteConnections", handler = "Extension::VM_GetRemoteConnections_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetRemoteConnectionsReply)]
pub struct GetRemoteConnections {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// Consoles.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetRemoteConnectionsReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// How many there are.
    #[field(name = "remoteConnections")]
    pub remote_connections: u32,
}

/// Tells whom a machine runs as: the owner of its .vmx.
///
/// Right on the .vmx: r.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetRunAsUser", handler = "Extension::VM_GetRunAsUser_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetRunAsUserReply)]
pub struct GetRunAsUser {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// Whom it runs as.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetRunAsUserReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Name of the user, or the number of one who has none.
    pub user: String,
}
