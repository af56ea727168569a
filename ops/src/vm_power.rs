//! `VM_Start`, `VM_Stop`, `VM_Reset`, `VM_Suspend`, `VM_Pause`, `VM_Resume`: power. Extensions.

use std::borrow::Cow;

use ops_derive::{Fragment, Op, Reply};

use crate::Out;
use crate::machine::{PowerState, State};
use crate::value::{ConfigPath, Invalid, Scalar};

/// How a power operation is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PowerMode {
    /// At once, whatever the guest does.
    Hard,
    /// The guest is asked.
    Soft,
    /// The guest is asked; hard if it cannot, or does not do it in time.
    TrySoft,
}

impl Scalar for PowerMode {
    const KIND: &'static str = "word";

    /// The words `hard`, `soft`, `trysoft`, or the numbers 1, 2, 3 of the C library.
    fn parse(text: Cow<'_, str>) -> Result<Self, Invalid> {
        match text.trim_ascii().to_ascii_lowercase().as_str() {
            "hard" | "1" => Ok(PowerMode::Hard),
            "soft" | "2" => Ok(PowerMode::Soft),
            "trysoft" | "3" => Ok(PowerMode::TrySoft),
            _ => Err(Invalid::because("must be one of: hard soft trysoft")),
        }
    }

    fn write(&self, out: &mut Out<'_>) {
        out.text(match self {
            PowerMode::Hard => "hard",
            PowerMode::Soft => "soft",
            PowerMode::TrySoft => "trysoft",
        });
    }
}

crate::scalar_elements!(PowerMode);

/// What every power operation but pausing is asked with.
#[derive(Clone, Debug, PartialEq, Fragment)]
#[fragment(request)]
pub struct PowerRequest {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
    /// `hard` or 1 at once; `soft` or 2 asks the guest and waits up to 60 seconds; `trysoft` or 3 is
    /// soft, then hard. Means nothing to `VM_Start`.
    #[field(default = "trysoft")]
    pub mode: PowerMode,
    /// 1 answers at once with the number of a task that does it.
    #[field(default = "0")]
    pub background: bool,
}

/// The new state, which has been reached; or the task that works on it.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct PowerReply {
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

/// Powers a machine on, or lets a suspended one go on.
///
/// Right on the .vmx: rx. The reply comes when the machine is on. A machine that is on: -8. A question
/// raised on the way: -16, and the machine is `stuck`; answering the question continues the start.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_Start", handler = "Extension::VM_Start_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = PowerReply)]
pub struct Start {
    /// What to do.
    #[field(flat)]
    pub request: PowerRequest,
}

/// Powers a machine off.
///
/// Right on the .vmx: rx. A soft stop asks the guest and waits up to 60 seconds, then -7. A machine
/// that is off or suspended: -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_Stop", handler = "Extension::VM_Stop_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = PowerReply)]
pub struct Stop {
    /// What to do.
    #[field(flat)]
    pub request: PowerRequest,
}

/// Resets a machine.
///
/// Right on the .vmx: rx. A machine that is off or suspended: -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_Reset", handler = "Extension::VM_Reset_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = PowerReply)]
pub struct Reset {
    /// What to do.
    #[field(flat)]
    pub request: PowerRequest,
}

/// Suspends a machine to a file.
///
/// Right on the .vmx: rx. A machine that is off or suspended: -8.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_Suspend", handler = "Extension::VM_Suspend_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = PowerReply)]
pub struct Suspend {
    /// What to do.
    #[field(flat)]
    pub request: PowerRequest,
}

/// Makes a machine that is on stand still.
///
/// Right on the .vmx: rx. One that does already is left as it is, which is no failure.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_Pause", handler = "Extension::VM_Pause_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = StateReply)]
pub struct Pause {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// Lets a paused machine go on.
///
/// Right on the .vmx: rx. One that is not paused is left as it is, which is no failure.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_Resume", handler = "Extension::VM_Resume_Handler",
     access = AuthUser, runs = Core, effect = Changes, reply = StateReply)]
pub struct Resume {
    /// Path of the machine's .vmx.
    #[field(alias = "cfg", alias = "vm")]
    pub config: ConfigPath,
}

/// A machine and its state.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct StateReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
    /// Its state.
    #[field(flat)]
    pub state: State,
}

/// A machine.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ConfigReply {
    /// Path of the .vmx.
    pub config: ConfigPath,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_words_or_numbers() {
        for (text, mode) in [
            ("hard", PowerMode::Hard),
            ("1", PowerMode::Hard),
            (" SOFT\n", PowerMode::Soft),
            ("3", PowerMode::TrySoft),
        ] {
            assert_eq!(PowerMode::parse(Cow::Borrowed(text)), Ok(mode), "{text}");
        }
        for text in ["", "0", "4", "harder"] {
            assert!(!PowerMode::accepts(text), "{text}");
        }
    }
}
