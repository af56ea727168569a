//! Screen, keyboard and serial ports of a machine. Extensions.

use ops_derive::{Op, Reply};

use crate::value::{ConfigPath, Encoding, Size};
use crate::vm_power::ConfigReply;

/// Takes a picture of a machine's screen.
///
/// Right on the .vmx: rx. Another format than PNG: -17. A machine that is off or suspended: -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_SaveScreenshot", handler = "Extension::VM_SaveScreenshot_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = SaveScreenshotReply)]
pub struct SaveScreenshot {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Format of the picture: `PNG`.
    #[field(default = "PNG")]
    pub format: String,
}

/// The screen at one moment.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct SaveScreenshotReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// `PNG`.
    pub format: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `base64`.
    pub encoding: Encoding,
    /// The file.
    pub contents: String,
}

/// Types on a machine's keyboard.
///
/// Right on the .vmx: rx. The keys are those of a US keyboard: printable ASCII, line feed for Enter,
/// tab, and in base64 also backspace (8) and escape (27). Another character: -3. A machine that is not
/// on: -8. Answered when the keys are queued, before the guest has seen them.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_SendKeys", handler = "Extension::VM_SendKeys_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = ConfigReply)]
pub struct SendKeys {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// How `text` is to be read: `text` or `base64`.
    #[field(default = "text")]
    pub encoding: Encoding,
    /// What to type, at most 4096 characters.
    pub text: String,
}

/// Reads what a machine has sent to a serial port.
///
/// Right on the .vmx: rx. The last 256 KiB are kept, also after power off; where `offset` is older, the
/// reply begins later and `lost` says by how much. No such port: -10.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_SerialRead", handler = "Extension::VM_SerialRead_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = SerialReadReply)]
pub struct SerialRead {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Number of the port.
    #[field(default = "0", min = 0, max = 3)]
    pub port: u32,
    /// First byte wanted, counted since power on.
    #[field(default = "0")]
    pub offset: Size,
    /// Most bytes wanted.
    #[field(name = "maxBytes", default = "65536", min = 1, max = 65536)]
    pub max_bytes: u32,
    /// Seconds to wait for a first byte.
    #[field(default = "0", min = 0, max = 30)]
    pub wait: u32,
}

/// What came out of a serial port.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct SerialReadReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Number of the port.
    pub port: u32,
    /// Number of the first byte.
    pub offset: Size,
    /// Number of the byte after the last one: what to ask for next.
    #[field(name = "nextOffset")]
    pub next_offset: Size,
    /// Bytes between the offset that was asked for and the first one: they are gone.
    pub lost: Size,
    /// How `contents` is to be read: `text` or `base64`.
    pub encoding: Encoding,
    /// The bytes.
    pub contents: String,
}

/// Sends bytes to a serial port of a machine.
///
/// Right on the .vmx: rx. A machine that is off: -8. No such port: -10. Where the guest does not take
/// all within 5 seconds, `written` is smaller.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_SerialWrite", handler = "Extension::VM_SerialWrite_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = SerialWriteReply)]
pub struct SerialWrite {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// Number of the port.
    #[field(default = "0", min = 0, max = 3)]
    pub port: u32,
    /// How `contents` is to be read: `text` or `base64`.
    #[field(default = "text")]
    pub encoding: Encoding,
    /// What to send, at most 65536 bytes.
    #[field(alias = "content", alias = "data")]
    pub contents: String,
}

/// What was sent.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct SerialWriteReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Number of the port.
    pub port: u32,
    /// Bytes that were taken.
    pub written: u32,
}
