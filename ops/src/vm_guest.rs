//! `VM_GetGuestInfo`, `VM_SetGuestInfo`: variables that host and guest share. Extensions.

use ops_derive::{Op, Reply};

use crate::value::ConfigPath;
use crate::vm_power::ConfigReply;

/// Reads a guest variable.
///
/// Right on the .vmx: r. Of a machine that is off it is the value in the .vmx. Not set: -10.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetGuestInfo", handler = "Extension::VM_GetGuestInfo_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetGuestInfoReply)]
pub struct GetGuestInfo {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Name of the variable, with or without `guestinfo.`; case does not matter.
    pub key: String,
}

/// A guest variable.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetGuestInfoReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Its name, as asked.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// Sets a guest variable of a running machine, until it is powered off.
///
/// Right on the .vmx: rx. A machine that is off: -8. Names and values together may have 64 KiB; beyond
/// that: -22.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_SetGuestInfo", handler = "Extension::VM_SetGuestInfo_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = ConfigReply)]
pub struct SetGuestInfo {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Name of the variable, with or without `guestinfo.`; dots are allowed.
    pub key: String,
    /// Its value.
    pub value: String,
}
