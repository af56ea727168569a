//! What a machine does about a power request in the state it is in. Pure: no clock, no lock.
//!
//! ```text
//!               start                      suspend
//!     off ───────────────▶ on ⇄ paused ───────────────▶ suspended
//!      ▲                   │ ▲
//!      │ stop    question  ▼ │ answer
//!      └───────────────── stuck
//! ```
//!
//! One power request at a time: another one meanwhile is refused as busy.

use hypervisor::control::{PowerMode, State};

/// Codes of errors for a client.
pub mod code {
    /// An argument makes no sense.
    pub const INVALID_ARGUMENT: i32 = -3;
    /// It took too long.
    pub const TIMEOUT: i32 = -7;
    /// Not in this state.
    pub const BAD_STATE: i32 = -8;
    /// There is no such thing.
    pub const NO_PROPERTY: i32 = -10;
    /// A question waits for its answer.
    pub const NEED_INPUT: i32 = -16;
    /// This is not offered.
    pub const NOT_SUPPORTED: i32 = -17;
    /// The .vmx cannot be used.
    pub const INVALID_VM: i32 = -18;
    /// The machine cannot be started.
    pub const INIT_FAILED: i32 = -19;
    /// Something else is being done.
    pub const BUSY: i32 = -21;
    /// There is not enough of something.
    pub const NO_RESOURCES: i32 = -22;
    /// Anything else.
    pub const UNSPECIFIED: i32 = -999;
}

/// A power request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Power {
    /// Power off.
    Stop(PowerMode),
    /// Reset.
    Reset(PowerMode),
    /// Suspend to a file; the mode makes no difference without Tools.
    Suspend,
    /// Stand still.
    Pause,
    /// Go on.
    Resume,
    /// Make a snapshot or remove them; go back to one.
    Snapshot,
}

impl Power {
    fn name(self) -> &'static str {
        match self {
            Power::Stop(_) => "stop",
            Power::Reset(_) => "reset",
            Power::Suspend => "suspend",
            Power::Pause => "pause",
            Power::Resume => "resume",
            Power::Snapshot => "snapshot",
        }
    }
}

/// What is done about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is carried out.
    Go,
    /// The guest is asked first, and has some time; `hard` is done if it does not listen.
    Ask {
        /// Do it hard when the guest cannot be asked.
        hard: bool,
    },
    /// It is so already.
    Already,
    /// It is refused: code and detail.
    Refuse(i32, String),
}

/// The state that decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// The state.
    pub state: State,
    /// Standing still.
    pub paused: bool,
    /// A power request is being carried out.
    pub busy: bool,
}

/// The sentence for a request that does not fit the state.
#[must_use]
pub fn conflict(operation: &str, state: State) -> String {
    let state = match state {
        State::On => "on",
        State::Off => "off",
        State::Suspended => "suspended",
        State::Stuck => "stuck",
        State::Unknown => "unknown",
    };
    format!(
        "The requested operation (\"{operation}\") could not be completed because it conflicted with the state of \
         the virtual machine (\"{state}\") at the time the request was received.  This error often occurs because \
         the state of the virtual machine changed before it received the request."
    )
}

/// What is said when the guest has nobody who could be asked.
pub const NO_TOOLS: &str = "Make sure the VMware Server Tools are running";

/// Decides about a request.
#[must_use]
pub fn admit(standing: Standing, request: Power) -> Verdict {
    use PowerMode::{Hard, Soft, TrySoft};
    if standing.busy {
        return Verdict::Refuse(code::BUSY, String::new());
    }
    let conflict = || Verdict::Refuse(code::BAD_STATE, conflict(request.name(), standing.state));
    match (standing.state, request) {
        (State::Off | State::Suspended | State::Unknown, Power::Snapshot)
            if standing.state != State::Unknown =>
        {
            Verdict::Go
        }
        (State::Off | State::Suspended | State::Unknown, _) => conflict(),
        (State::Stuck, Power::Stop(Hard) | Power::Reset(Hard)) => Verdict::Go,
        (State::Stuck, _) => Verdict::Refuse(code::NEED_INPUT, String::new()),
        (State::On, Power::Stop(Hard) | Power::Reset(Hard) | Power::Suspend | Power::Snapshot) => Verdict::Go,
        (State::On, Power::Stop(mode) | Power::Reset(mode)) if standing.paused => match mode {
            Soft => conflict(),
            Hard | TrySoft => Verdict::Go,
        },
        (State::On, Power::Stop(mode)) => Verdict::Ask { hard: mode == TrySoft },
        // A guest without Tools can be asked to power off by its button, but not to restart.
        (State::On, Power::Reset(TrySoft)) => Verdict::Go,
        (State::On, Power::Reset(Soft)) => Verdict::Refuse(code::BAD_STATE, NO_TOOLS.to_owned()),
        (State::On, Power::Pause) => {
            if standing.paused {
                Verdict::Already
            } else {
                Verdict::Go
            }
        }
        (State::On, Power::Resume) => {
            if standing.paused {
                Verdict::Go
            } else {
                Verdict::Already
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_the_specification() {
        use PowerMode::{Hard, Soft, TrySoft};
        let states = [
            (State::Off, false),
            (State::On, false),
            (State::On, true),
            (State::Suspended, false),
            (State::Stuck, false),
        ];
        let rows: [(Power, [&str; 5]); 9] = [
            (Power::Stop(Hard), ["-8", "go", "go", "-8", "go"]),
            (Power::Stop(TrySoft), ["-8", "ask", "go", "-8", "-16"]),
            (Power::Stop(Soft), ["-8", "ask", "-8", "-8", "-16"]),
            (Power::Reset(Hard), ["-8", "go", "go", "-8", "go"]),
            (Power::Reset(TrySoft), ["-8", "go", "go", "-8", "-16"]),
            (Power::Reset(Soft), ["-8", "-8", "-8", "-8", "-16"]),
            (Power::Suspend, ["-8", "go", "go", "-8", "-16"]),
            (Power::Pause, ["-8", "go", "already", "-8", "-16"]),
            (Power::Resume, ["-8", "already", "go", "-8", "-16"]),
        ];
        for (request, expected) in rows {
            for ((state, paused), expected) in states.into_iter().zip(expected) {
                let verdict = match admit(Standing { state, paused, busy: false }, request) {
                    Verdict::Go => "go".to_owned(),
                    Verdict::Ask { .. } => "ask".to_owned(),
                    Verdict::Already => "already".to_owned(),
                    Verdict::Refuse(code, _) => code.to_string(),
                };
                assert_eq!(verdict, expected, "{request:?} when {state:?}, paused {paused}");
                let busy = admit(Standing { state, paused, busy: true }, request);
                assert_eq!(busy, Verdict::Refuse(code::BUSY, String::new()));
            }
        }
    }
}
