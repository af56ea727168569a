//! `VM_GetConfig`, `VM_SetConfig`, `VM_GetResource`, `VM_SetResource`: what a .vmx says. Extensions.

use ops_derive::{Fragment, Op, Reply};

use crate::value::ConfigPath;
use crate::vm_power::ConfigReply;

/// Reads one key of a machine's .vmx, or all of them.
///
/// Right on the .vmx: r. An absent key: -10.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetConfig", handler = "Extension::VM_GetConfig_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetConfigReply)]
pub struct GetConfig {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// The key, without regard to case; all keys where none is named.
    pub key: Option<String>,
}

/// One setting, or all of them.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetConfigReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// The key, as asked. Absent when all are listed.
    pub key: Option<String>,
    /// Its value. Absent when all are listed.
    pub value: Option<String>,
    /// All settings, in the order of the file. Absent when one was asked for.
    #[field(list = "settings/setting")]
    pub settings: Option<Vec<Setting>>,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Setting {
    /// The key, as written in the file.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Changes a machine's .vmx: one key, or several at once.
///
/// Right on the .vmx: rw. All changes are made or none, by a new file in the place of the old one.
/// `displayName` and `annotation` act at once, and so does `guestinfo.*`, which for a machine that runs
/// takes the right rx as well; the rest acts at the next power on. Keys of disks, `uuid.*` and
/// `memsize` of a machine that is not off: -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_SetConfig", handler = "Extension::VM_SetConfig_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = ConfigReply)]
pub struct SetConfig {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// A key to change; needed without `settings`.
    pub key: Option<String>,
    /// Its new value; needed with `key`, unless it is removed.
    pub value: Option<String>,
    /// 1 removes the key.
    #[field(default = "0")]
    pub remove: bool,
    /// Several changes, made in this order.
    #[field(list = "settings/setting")]
    pub settings: Option<Vec<Change>>,
}

/// A change of one key.
#[derive(Clone, Debug, PartialEq, Fragment)]
#[fragment(request)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its new value; needed unless it is removed.
    pub value: Option<String>,
    /// 1 removes the key.
    #[field(default = "0")]
    pub remove: bool,
}

/// Reads a resource setting of a machine. Always refused: there are none per machine.
///
/// Right on the .vmx: r. The answer is -17; resources of the host are read by
/// `VMServerd_GetResource`.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetResource", handler = "Extension::VM_GetResource_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = ResourceReply)]
pub struct GetResource {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Name of the resource.
    pub name: String,
}

/// Changes a resource setting of a machine. Always refused: there are none per machine.
///
/// Right on the .vmx: rw. The answer is -17.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_SetResource", handler = "Extension::VM_SetResource_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = ResourceReply)]
pub struct SetResource {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Name of the resource.
    pub name: String,
    /// Its new value.
    pub value: String,
}

/// A resource setting of a machine.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ResourceReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Name of the resource.
    pub name: String,
    /// Its value.
    pub value: String,
}
