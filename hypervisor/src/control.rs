//! The conversation between the server core and the process of a machine (`vmx`).
//!
//! ```text
//!   core                                          vmx, as the owner of the .vmx
//!     │ spawns it, one end of a SOCK_SEQPACKET      │
//!     │ pair as descriptor 0                        │
//!     │◀──────────────── Log ───────────────────────┤
//!     │◀──────────────── Hello ─────────────────────┤
//!     ├── Start + /dev/kvm, .vmx, log, listener ───▶│
//!     │◀─ Changed, Notice, Asked, … (events) ───────┤
//!     │◀─ Done | Failed { request } ────────────────┤
//!     ├── any request ─────────────────────────────▶│
//!     │◀─ its one answer, same number ──────────────┤
//!     │◀─ Output (last of each serial port),        │
//!     │   Changed { to: Off or Suspended }, end ────┤  exit status 0
//! ```
//!
//! Every request carries a number of the core's choice, not 0, and has exactly one answer with that
//! number: [`FromVmx::Done`], [`FromVmx::Failed`], or the variant that its documentation names.
//! Answers may overtake each other. Power requests are answered when the new state has been reached.
//! Events carry no number and may come at any moment; those that tell of a change come before the
//! answer to the request that made it.
//!
//! **Adoption.** When the channel ends, the machine goes on. It takes the next connection to the
//! listening socket that came with [`ToVmx::Start`] (bound by the core below a directory that only it
//! can enter), from the same user as the first one, and says [`FromVmx::Hello`] there. Events of the
//! time between are lost; the core asks with [`ToVmx::GetStatus`]. A new connection replaces the old.
//! Without a listening socket the machine is powered off when the channel ends.

use link::wire::{Wire, WireError};

/// Number of this protocol, in [`FromVmx::Hello`]. A core must not talk to a machine with another.
pub const VERSION: u32 = 1;

/// Most bytes of serial output or input in one message.
pub const MAX_CHUNK: usize = 64 * 1024;

/// Bytes of serial output that are kept for each port.
pub const SERIAL_KEPT: usize = 256 * 1024;

/// Most bytes of guest variables, names and values together.
pub const MAX_GUEST_INFO: usize = 64 * 1024;

/// The state of a machine, numbered as in the C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Running, or paused.
    On,
    /// Off.
    Off,
    /// Suspended to a file.
    Suspended,
    /// It waits for an answer to a question.
    Stuck,
    /// Not known.
    Unknown,
}

impl State {
    /// 1 on, 2 off, 3 suspended, 4 stuck, 5 unknown.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            State::On => 1,
            State::Off => 2,
            State::Suspended => 3,
            State::Stuck => 4,
            State::Unknown => 5,
        }
    }
}

/// How a power request is carried out, numbered as in the C library.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PowerMode {
    /// At once.
    Hard,
    /// The guest is asked; there is an error when it does not do it.
    Soft,
    /// The guest is asked; hard if it does not do it.
    TrySoft,
}

impl PowerMode {
    /// 1 hard, 2 soft, 3 trysoft.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            PowerMode::Hard => 1,
            PowerMode::Soft => 2,
            PowerMode::TrySoft => 3,
        }
    }
}

/// How the processor of the host runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HostClass {
    /// In hardware.
    Native,
    /// Kernels and firmware instruction by instruction: slow.
    Emulated,
    /// Not at all.
    None,
}

impl HostClass {
    /// Each of them.
    pub const ALL: [HostClass; 3] = [HostClass::Native, HostClass::Emulated, HostClass::None];

    /// By its name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }

    /// `native`, `emulated` or `none`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HostClass::Native => "native",
            HostClass::Emulated => "emulated",
            HostClass::None => "none",
        }
    }
}

/// What [`ToVmx::Start`] asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Begin {
    /// Power on, or go on from the suspended state if there is one.
    PowerOn,
    /// Nothing: the machine stays off (or suspended) and only snapshots can be worked on. The process
    /// ends when the channel does.
    Maintenance,
}

/// What kind of line a notice becomes in the event log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// As it should be.
    Info,
    /// Worth knowing.
    Warning,
    /// Something failed.
    Error,
}

macro_rules! numbered {
    ($what:literal, $ty:ident { $($variant:ident = $number:literal),* $(,)? }) => {
        impl Wire for $ty {
            fn put(&self, out: &mut Vec<u8>) {
                out.push(match self { $($ty::$variant => $number),* });
            }
            fn take(input: &mut &[u8]) -> Result<Self, WireError> {
                match u8::take(input)? {
                    $($number => Ok($ty::$variant),)*
                    _ => Err(WireError::Value($what)),
                }
            }
        }
    };
}
numbered!("state", State { On = 1, Off = 2, Suspended = 3, Stuck = 4, Unknown = 5 });
numbered!("power mode", PowerMode { Hard = 1, Soft = 2, TrySoft = 3 });
numbered!("host class", HostClass { Native = 1, Emulated = 2, None = 3 });
numbered!("begin", Begin { PowerOn = 1, Maintenance = 2 });
numbered!("severity", Severity { Info = 1, Warning = 2, Error = 3 });

/// A question that a machine waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// Its number; never used twice by one process.
    pub id: u32,
    /// What is asked, in English.
    pub text: String,
    /// The answers to choose from, at least one.
    pub choices: Vec<String>,
    /// The one that is suggested; counts from 0.
    pub default: u32,
}

impl Wire for Question {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        self.text.put(out);
        self.choices.put(out);
        self.default.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        Ok(Question {
            id: Wire::take(input)?,
            text: Wire::take(input)?,
            choices: Wire::take(input)?,
            default: Wire::take(input)?,
        })
    }
}

/// Everything about a machine that changes while it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Its state.
    pub state: State,
    /// On, but standing still.
    pub paused: bool,
    /// Seconds since power on, time in pauses included; 0 when off.
    pub uptime: u64,
    /// Beats counted from the guest's tools.
    pub heartbeat: u32,
    /// 0 no tools, 1 normal, 5 intermittent, 100 no heartbeat.
    pub tools_last_active: u32,
    /// Memory in MiB.
    pub memory_mb: u32,
    /// Processors.
    pub cpus: u32,
    /// There is a snapshot.
    pub has_snapshot: bool,
    /// Names of removable devices that are connected: `floppy0`, `ide1:0`, `serial0`.
    pub connected: Vec<String>,
    /// What the machine waits for; set exactly when `state` is stuck.
    pub question: Option<Question>,
    /// How the host runs it.
    pub class: HostClass,
}

impl Wire for Status {
    fn put(&self, out: &mut Vec<u8>) {
        self.state.put(out);
        self.paused.put(out);
        self.uptime.put(out);
        self.heartbeat.put(out);
        self.tools_last_active.put(out);
        self.memory_mb.put(out);
        self.cpus.put(out);
        self.has_snapshot.put(out);
        self.connected.put(out);
        self.question.put(out);
        self.class.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        Ok(Status {
            state: Wire::take(input)?,
            paused: Wire::take(input)?,
            uptime: Wire::take(input)?,
            heartbeat: Wire::take(input)?,
            tools_last_active: Wire::take(input)?,
            memory_mb: Wire::take(input)?,
            cpus: Wire::take(input)?,
            has_snapshot: Wire::take(input)?,
            connected: Wire::take(input)?,
            question: Wire::take(input)?,
            class: Wire::take(input)?,
        })
    }
}

/// A snapshot of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its number, from 1; never used twice for one machine.
    pub id: u32,
    /// Name as given, possibly empty.
    pub name: String,
    /// Description as given, possibly empty.
    pub description: String,
    /// When it was made, Unix seconds.
    pub time: i64,
    /// It has the memory of the running machine.
    pub memory: bool,
}

impl Wire for Snapshot {
    fn put(&self, out: &mut Vec<u8>) {
        self.id.put(out);
        self.name.put(out);
        self.description.put(out);
        self.time.put(out);
        self.memory.put(out);
    }
    fn take(input: &mut &[u8]) -> Result<Self, WireError> {
        Ok(Snapshot {
            id: Wire::take(input)?,
            name: Wire::take(input)?,
            description: Wire::take(input)?,
            time: Wire::take(input)?,
            memory: Wire::take(input)?,
        })
    }
}

link::messages! {
    /// From the server core to the process of a machine.
    pub enum ToVmx {
        /// First request, once: which machine, and what to do with it. Descriptors, in this order:
        /// `/dev/kvm` open for reading and writing; the .vmx open for reading; the machine's log, open
        /// for appending; a listening SOCK_SEQPACKET socket for adoption (may be left out).
        ///
        /// Answer: Done when the machine is on (or was resumed, or waits in maintenance); Failed, then
        /// the process ends. With a question pending: Failed -16, the process stays in state stuck, and
        /// answering the question continues the start.
        1 = Start {
            /// Number of the request.
            request: u32,
            /// Absolute path of the .vmx: names in it are relative to its directory.
            config: String,
            /// What to do.
            begin: Begin,
            /// Directory of `bios.bin` and `vgabios-isavga.bin`; empty for `/usr/share/seabios`.
            firmware: String,
            /// How the host runs guests, where the core knows.
            host: Option<HostClass>,
        } with 3..=4,
        /// Powers off. Answer: Done; the process ends. Where disks are undoable: Failed -16, with a question
        /// what becomes of their changes; its answer ends the process, and a second hard stop keeps them.
        2 = Stop { /// Number of the request.
                   request: u32,
                   /// How.
                   mode: PowerMode },
        /// Resets. Answer: Done.
        3 = Reset { /// Number of the request.
                    request: u32,
                    /// How.
                    mode: PowerMode },
        /// Suspends to a file. Answer: Done; the process ends.
        4 = Suspend { /// Number of the request.
                      request: u32,
                      /// How.
                      mode: PowerMode },
        /// Makes the machine stand still. Answer: Done, also when it does already.
        5 = Pause { /// Number of the request.
                    request: u32 },
        /// Lets it go on. Answer: Done, also when it runs.
        6 = Resume { /// Number of the request.
                     request: u32 },
        /// Makes a snapshot. Answer: [`FromVmx::SnapshotMade`].
        7 = CreateSnapshot {
            /// Number of the request.
            request: u32,
            /// Its name.
            name: String,
            /// Its description.
            description: String,
            /// With the memory, if the machine is on.
            memory: bool,
        },
        /// Goes back to a snapshot: the state of the machine is then that of the snapshot, so one
        /// without memory powers the machine off, and the process ends. Answer: Done.
        8 = RevertToSnapshot {
            /// Number of the request.
            request: u32,
            /// Which; the newest where none is named.
            id: Option<u32>,
        },
        /// Removes all snapshots; the disks keep what they hold now, and are merged into what they stood on
        /// before the first one, while the machine runs. What fails is done by the next removal. Answer: Done.
        9 = RemoveAllSnapshots { /// Number of the request.
                                 request: u32 },
        /// Lists the snapshots. Answer: any number of [`FromVmx::OneSnapshot`], oldest first, then Done.
        10 = ListSnapshots { /// Number of the request.
                             request: u32 },
        /// Plugs a removable device in or out. Answer: Done; Failed -10 for a device that the machine
        /// does not have, -17 for one that cannot be removed.
        11 = Connect {
            /// Number of the request.
            request: u32,
            /// Its name in the .vmx: `floppy0`, `ide1:0`, `serial0`.
            device: String,
            /// In or out.
            connected: bool,
        },
        /// Answers the question. Answer: Done when it was accepted; Failed -3 for another id or a
        /// choice that does not exist, -8 when there is no question.
        12 = Answer {
            /// Number of the request.
            request: u32,
            /// Number of the question.
            id: u32,
            /// The choice, from 0.
            choice: u32,
        },
        /// Reads what the guest sent to a serial port. Answer: [`FromVmx::Output`]; Failed -10 when
        /// there is no such port.
        13 = SerialRead {
            /// Number of the request.
            request: u32,
            /// Number of the port.
            port: u32,
            /// From this byte on, counted since power on.
            offset: u64,
            /// At most so many bytes; more than [`MAX_CHUNK`] counts as that.
            max: u32,
            /// How long to wait for a first byte, in milliseconds; more than 30 000 counts as that.
            wait: u32,
        },
        /// Sends to the guest. Answer: [`FromVmx::Written`], when all was taken or after 5 s.
        14 = SerialWrite {
            /// Number of the request.
            request: u32,
            /// Number of the port.
            port: u32,
            /// At most [`MAX_CHUNK`] bytes.
            bytes: Vec<u8>,
        },
        /// Types on the keyboard. Answer: Done when the keys are queued; Failed -3 for a character that
        /// no key of a US keyboard makes.
        15 = Keys {
            /// Number of the request.
            request: u32,
            /// Printable ASCII, line feed for Enter, tab, backspace (8), escape (27).
            text: String,
        },
        /// Takes a picture of the screen. Answer: [`FromVmx::Picture`].
        16 = Screenshot { /// Number of the request.
                          request: u32 },
        /// Reads a guest variable. Answer: [`FromVmx::Value`].
        17 = GetGuestInfo {
            /// Number of the request.
            request: u32,
            /// Its name without `guestinfo.`; case does not matter.
            key: String,
        },
        /// Sets a guest variable until power off. Answer: Done; Failed -22 beyond [`MAX_GUEST_INFO`].
        18 = SetGuestInfo {
            /// Number of the request.
            request: u32,
            /// Its name without `guestinfo.`.
            key: String,
            /// Its value.
            value: String,
        },
        /// Asks how the machine is. Answer: [`FromVmx::IsNow`]. Answered at once, whatever else is
        /// under way.
        19 = GetStatus { /// Number of the request.
                         request: u32 },
    }
}

/// The number of a request, as a reference of the kind that the request is borrowed by.
macro_rules! number_of {
    ($message:expr) => {
        match $message {
            ToVmx::Start { request, .. }
            | ToVmx::Stop { request, .. }
            | ToVmx::Reset { request, .. }
            | ToVmx::Suspend { request, .. }
            | ToVmx::Pause { request }
            | ToVmx::Resume { request }
            | ToVmx::CreateSnapshot { request, .. }
            | ToVmx::RevertToSnapshot { request, .. }
            | ToVmx::RemoveAllSnapshots { request }
            | ToVmx::ListSnapshots { request }
            | ToVmx::Connect { request, .. }
            | ToVmx::Answer { request, .. }
            | ToVmx::SerialRead { request, .. }
            | ToVmx::SerialWrite { request, .. }
            | ToVmx::Keys { request, .. }
            | ToVmx::Screenshot { request }
            | ToVmx::GetGuestInfo { request, .. }
            | ToVmx::SetGuestInfo { request, .. }
            | ToVmx::GetStatus { request } => request,
        }
    };
}

impl ToVmx {
    /// The number of the request.
    #[must_use]
    pub fn request(&self) -> u32 {
        *number_of!(self)
    }

    /// Gives the request another number.
    pub fn set_request(&mut self, number: u32) {
        *number_of!(self) = number;
    }
}

link::messages! {
    /// From the process of a machine to the server core.
    pub enum FromVmx {
        /// First message of every connection.
        1 = Hello {
            /// [`VERSION`].
            version: u32,
            /// Its process id.
            pid: u32,
            /// The path of the .vmx; empty before Start.
            config: String,
        },
        /// The request was carried out.
        2 = Done { /// Number of the request.
                   request: u32 },
        /// It was not.
        3 = Failed {
            /// Number of the request.
            request: u32,
            /// Code of the error for a client: -3, -7, -8, -10, -16, -17, -18, -19, -21, -22 or -999.
            code: i32,
            /// The detail for the client; may be empty.
            detail: String,
        },
        /// Answer to CreateSnapshot.
        4 = SnapshotMade {
            /// Number of the request.
            request: u32,
            /// Number of the new snapshot.
            id: u32,
        },
        /// Part of the answer to ListSnapshots.
        5 = OneSnapshot {
            /// Number of the request.
            request: u32,
            /// One of them.
            snapshot: Snapshot,
        },
        /// Answer to SerialRead. With request 0, before the end: the last [`SERIAL_KEPT`] bytes of
        /// every port, in several messages, for readers who come after power off.
        6 = Output {
            /// Number of the request, or 0.
            request: u32,
            /// Number of the port.
            port: u32,
            /// Number of the first byte.
            offset: u64,
            /// Bytes between the offset asked for and that one: they are gone.
            lost: u64,
            /// What the guest sent; empty when nothing came.
            bytes: Vec<u8>,
        },
        /// Answer to SerialWrite.
        7 = Written {
            /// Number of the request.
            request: u32,
            /// So many bytes were taken.
            count: u32,
        },
        /// Answer to Screenshot.
        8 = Picture {
            /// Number of the request.
            request: u32,
            /// Pixels.
            width: u32,
            /// Pixels.
            height: u32,
            /// A PNG file.
            png: Vec<u8>,
        },
        /// Answer to GetGuestInfo.
        9 = Value {
            /// Number of the request.
            request: u32,
            /// None when it is not set.
            value: Option<String>,
        },
        /// Answer to GetStatus; with request 0, what a machine is that will be on.
        10 = IsNow {
            /// Number of the request.
            request: u32,
            /// How it is.
            status: Status,
        },
        /// Event: another state.
        11 = Changed {
            /// Before.
            from: State,
            /// Now.
            to: State,
            /// Why, as a line for the event log: `Virtual machine was powered off by the guest.`
            why: String,
        },
        /// Event: paused, or going on.
        12 = Paused { /// Standing still now.
                      paused: bool },
        /// Event: a question; the state is stuck from now on (a Changed comes too).
        13 = Asked { /// The question.
                     question: Question },
        /// Event: a question was answered, or is of no interest any more.
        14 = Settled { /// Number of the question.
                       id: u32 },
        /// Event: a device was plugged in or out.
        15 = Device {
            /// Its name in the .vmx.
            device: String,
            /// In or out.
            connected: bool,
        },
        /// Event: a line for the event log.
        16 = Notice {
            /// What kind.
            severity: Severity,
            /// The line.
            text: String,
        },
        /// Event: snapshots were made or removed.
        17 = Snapshots { /// Whether there is one now.
                         any: bool },
        /// Event: a guest variable was set.
        18 = GuestInfo { /// Its name without `guestinfo.`
                         key: String },
        /// Before [`FromVmx::Hello`], from whoever becomes the process of a machine: its log, opened
        /// for appending by the owner of the .vmx. It comes back with [`ToVmx::Start`].
        19 = Log {} with 1..=1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use link::wire::Message;

    fn round<M: Message + Clone + PartialEq + std::fmt::Debug>(message: &M) {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        assert_eq!(M::decode(&bytes).as_ref(), Ok(message));
        assert!(M::decode(&bytes[..bytes.len() - 1]).is_err());
    }

    #[test]
    fn messages_come_back() {
        let question = Question { id: 3, text: "?".into(), choices: vec!["Retry".into()], default: 0 };
        let status = Status {
            state: State::Stuck,
            paused: false,
            uptime: 7,
            heartbeat: 0,
            tools_last_active: 0,
            memory_mb: 64,
            cpus: 2,
            has_snapshot: true,
            connected: vec!["ide1:0".into()],
            question: Some(question.clone()),
            class: HostClass::Emulated,
        };
        round(&FromVmx::IsNow { request: 1, status });
        round(&FromVmx::Asked { question });
        let snapshot =
            Snapshot { id: 1, name: "a".into(), description: String::new(), time: -1, memory: true };
        round(&FromVmx::OneSnapshot { request: 2, snapshot });
        round(&FromVmx::Failed { request: 2, code: -8, detail: String::new() });
        let start = ToVmx::Start {
            request: 9,
            config: "/a".into(),
            begin: Begin::Maintenance,
            firmware: String::new(),
            host: Some(HostClass::Native),
        };
        round(&start);
        assert_eq!((start.request(), start.descriptors()), (9, 3..=4));
        round(&ToVmx::RevertToSnapshot { request: 1, id: Some(4) });
        assert!(ToVmx::decode(&[2, 1, 0, 0, 0, 4]).is_err(), "no such power mode");
    }

    #[test]
    fn numbers_are_those_of_the_c_library() {
        for state in [State::On, State::Off, State::Suspended, State::Stuck, State::Unknown] {
            let mut bytes = Vec::new();
            state.put(&mut bytes);
            assert_eq!(bytes, [state.number()]);
        }
        for mode in [PowerMode::Hard, PowerMode::Soft, PowerMode::TrySoft] {
            let mut bytes = Vec::new();
            mode.put(&mut bytes);
            assert_eq!(bytes, [mode.number()]);
        }
    }
}
