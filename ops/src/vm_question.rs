//! Questions of machines, and devices that are plugged in and out. Extensions.

use ops_derive::{Op, Reply};

use crate::value::ConfigPath;
use crate::vm_info::Question;
use crate::vm_power::StateReply;

/// Tells what a machine wants to know.
///
/// Right on the .vmx: r. Nothing, and success, when it wants to know nothing.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_GetQuestion", handler = "Extension::VM_GetQuestion_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = GetQuestionReply)]
pub struct GetQuestion {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// What the machine wants to know.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetQuestionReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// The question. Absent when there is none.
    pub question: Option<Question>,
}

/// Answers a machine's question; the machine goes on.
///
/// Right on the .vmx: rx. Another question, or no such choice: -3. No question: -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_AnswerQuestion", handler = "Extension::VM_AnswerQuestion_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = StateReply)]
pub struct AnswerQuestion {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Number of the question.
    pub id: u32,
    /// Number of the choice; the first is 0.
    #[field(default = "0")]
    pub choice: u32,
}

/// Plugs a removable device in.
///
/// Right on the .vmx: rx. No such device: -10. A machine that is off: -8. A fixed disk: -17.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_DeviceConnect", handler = "Extension::VM_DeviceConnect_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = DeviceReply)]
pub struct DeviceConnect {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Name of the device in the .vmx: `floppy0`, `ide1:0`, `ethernet0`, `serial0`.
    pub device: String,
}

/// Plugs a removable device out.
///
/// Right on the .vmx: rx. No such device: -10. A machine that is off: -8. A fixed disk: -17.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_DeviceDisconnect", handler = "Extension::VM_DeviceDisconnect_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = DeviceReply)]
pub struct DeviceDisconnect {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Name of the device in the .vmx: `floppy0`, `ide1:0`, `ethernet0`, `serial0`.
    pub device: String,
}

/// Tells whether a device is plugged in.
///
/// Right on the .vmx: r. No such device: -10. Nothing is plugged in while the machine is off.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_DeviceIsConnected", handler = "Extension::VM_DeviceIsConnected_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = DeviceReply)]
pub struct DeviceIsConnected {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Name of the device in the .vmx: `floppy0`, `ide1:0`, `ethernet0`, `serial0`.
    pub device: String,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct DeviceReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Name of the device.
    pub device: String,
    /// Whether it is plugged in now.
    pub connected: bool,
}
