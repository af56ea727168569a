//! `VMRegister` and `VMUnRegister`: which machines this server knows.

use ops_derive::{Op, Reply};

use crate::value::ConfigPath;

/// Registers a machine.
///
/// Right on the .vmx: rwx; uid 0 may register any. The machine is on the list, durably, before the
/// reply is sent. A machine that is registered already is error -20, something that is no machine -11.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMRegister", handler = "VMList::Register_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = RegisterReply)]
pub struct Register {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm", alias = "path")]
    pub config: ConfigPath,
}

/// The machine that was registered.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct RegisterReply {
    /// Path of its .vmx.
    pub config: ConfigPath,
    /// Its name for people.
    #[field(name = "displayName")]
    pub display_name: String,
}

/// Takes a machine off the list. No file is deleted.
///
/// Right on the .vmx: rwx; uid 0 may unregister any. When the file is gone, the right to change its
/// directory takes its place. A machine that is not registered is error -11, one that runs -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMUnRegister", handler = "VMList::UnRegister_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = UnregisterReply)]
pub struct Unregister {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm", alias = "path")]
    pub config: ConfigPath,
}

/// The machine that is no longer registered.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct UnregisterReply {
    /// Path of its .vmx.
    pub config: ConfigPath,
}
