//! What a client is told when something goes wrong.
//!
//! [`ErrorCode`] is the closed list of numbers, [`Error`] a number with its text and, for operations
//! that stopped half-way, the part of `out` that was already true. Every situation that the
//! specification names has a constructor here, so that a text is written in one place only.
//!
//! ```text
//!   bytes not XML, over a limit ──▶ Fault::Malformed(Reason)  -3 reply, then the connection closes
//!   anything else               ──▶ Fault::Refused(Error)     reply, the connection goes on
//! ```

use std::fmt;
use std::path::Path;

use crate::Reply;
use crate::guard::Reason;
use crate::writer::Out;

/// Declares the codes once: number, name in the C library, base text.
macro_rules! codes {
    ($($variant:ident = $number:literal, $name:literal, $text:literal;)*) => {
        /// Error numbers of the `VMControl` C library, shared by serverd and its clients.
        ///
        /// Numbers and names are historical. Of the base texts those of -8, -11, -14 and -20 are
        /// historical, the others are this project's choice.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(i32)]
        pub enum ErrorCode {
            $(#[doc = concat!("`", $name, "`: ", $text)] $variant = $number,)*
        }

        impl ErrorCode {
            /// Every code, from -1 downwards.
            pub const ALL: &[ErrorCode] = &[$(ErrorCode::$variant),*];

            /// The number on the wire, always negative.
            #[must_use]
            pub const fn number(self) -> i32 {
                self as i32
            }

            /// The code of a number on the wire.
            #[must_use]
            pub const fn from_number(number: i32) -> Option<ErrorCode> {
                match number {
                    $($number => Some(ErrorCode::$variant),)*
                    _ => None,
                }
            }

            /// The name in the C library without its prefix, for example `INVALIDARGS`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(ErrorCode::$variant => $name),* }
            }

            /// The text in front of the colon; a detail may follow it.
            #[must_use]
            pub const fn base_text(self) -> &'static str {
                match self { $(ErrorCode::$variant => $text),* }
            }
        }
    };
}

codes! {
    NoMem = -1, "NOMEM", "Out of memory";
    NetFail = -2, "NETFAIL", "Network failure";
    InvalidArgs = -3, "INVALIDARGS", "Invalid argument";
    NoAccess = -4, "NOACCESS", "Permission denied";
    NotConnected = -5, "NOTCONNECTED", "Not connected";
    BadVersion = -6, "BADVERSION", "Incompatible version";
    Timeout = -7, "TIMEOUT", "Operation timed out";
    BadState = -8, "BADSTATE", "Invalid operation for virtual machine's current state";
    NoExecVmAuthd = -9, "NOEXECVMAUTHD", "Cannot run vmware-authd";
    NoProperty = -10, "NOPROPERTY", "No such property";
    NoSuchVm = -11, "NOSUCHVM", "No such virtual machine";
    AlreadyConnected = -12, "ALREADYCONNECTED", "Already connected";
    Disconnect = -13, "DISCONNECT", "Connection lost";
    BadResponse = -14, "BADRESPONSE", "Unexpected response from vmware-authd";
    Garbage = -15, "GARBAGE", "Reply not understood";
    NeedInput = -16, "NEEDINPUT", "Virtual machine requires user input to continue";
    NotSupported = -17, "NOTSUPPORTED", "Not supported";
    InvalidVm = -18, "INVALIDVM", "Invalid virtual machine configuration";
    VmInitFailed = -19, "VMINITFAILED", "Virtual machine could not be started";
    VmExists = -20, "VMEXISTS", "Virtual machine already exists";
    VmBusy = -21, "VMBUSY", "Virtual machine is busy";
    InsufficientResources = -22, "INSUFFICIENT_RESOURCES", "Insufficient resources";
    ProxyFail = -23, "PROXYFAIL", "Proxy failure";
    Unspecified = -999, "UNSPECIFIED", "Unknown error";
}

/// Linux error numbers that have a code of their own. The numbers are part of the kernel's stable
/// interface; naming them here keeps the crate free of a dependency on the C library.
mod errno {
    pub const EPERM: i32 = 1;
    pub const ENOMEM: i32 = 12;
    pub const EACCES: i32 = 13;
    pub const ENFILE: i32 = 23;
    pub const EMFILE: i32 = 24;
    pub const ENOSPC: i32 = 28;
    pub const EROFS: i32 = 30;
    pub const EDQUOT: i32 = 122;
}

/// Longest operation name that an error text repeats, in bytes.
const MAX_ECHO: usize = 128;

/// The failure of one operation, as the client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Which kind of failure.
    pub code: ErrorCode,
    /// The whole text: base text, then `: ` and a detail where there is one.
    pub text: String,
    /// Contents of `out`, already rendered: what an operation on several items had finished before
    /// it stopped. `None` means an empty `out`.
    pub partial: Option<Box<[u8]>>,
}

impl Error {
    /// The bare base text of `code`.
    #[must_use]
    pub fn new(code: ErrorCode) -> Self {
        Self { code, text: code.base_text().to_owned(), partial: None }
    }

    /// The base text of `code`, a colon, and `detail`.
    #[must_use]
    pub fn with(code: ErrorCode, detail: impl fmt::Display) -> Self {
        Self { code, text: format!("{}: {detail}", code.base_text()), partial: None }
    }

    /// Code -999 with free text.
    #[must_use]
    pub fn unspecified(text: impl Into<String>) -> Self {
        Self { code: ErrorCode::Unspecified, text: text.into(), partial: None }
    }

    /// Adds what was finished before the failure (operations on several items): `reply` is rendered
    /// now and becomes the contents of `out` in the error reply.
    #[must_use]
    pub fn finished<R: Reply>(mut self, reply: &R) -> Self {
        let mut bytes = Vec::new();
        reply.write(&mut Out::new(&mut bytes));
        self.partial = Some(bytes.into_boxed_slice());
        self
    }

    /// The document was not understood: -3 `Invalid argument: malformed request: <reason>`.
    #[must_use]
    pub fn malformed(reason: Reason) -> Self {
        Self::with(ErrorCode::InvalidArgs, format_args!("malformed request: {reason}"))
    }

    /// No operation of that name: -17.
    ///
    /// The name is the client's own text; at most 128 bytes of it are sent back.
    #[must_use]
    pub fn unknown_operation(name: &str) -> Self {
        // A cut inside a character is moved back to its first byte.
        let shown = (0..=MAX_ECHO).rev().find_map(|cut| name.get(..cut)).unwrap_or_default();
        let (shown, dots) = if name.len() > MAX_ECHO { (shown, "...") } else { (name, "") };
        Self::with(ErrorCode::NotSupported, format_args!("unknown operation {shown}{dots}"))
    }

    /// A `rootonly` operation asked for by somebody else: -4.
    #[must_use]
    pub fn admin_required(operation: &str) -> Self {
        Self::with(
            ErrorCode::NoAccess,
            format_args!("operation {operation} requires administrator privileges"),
        )
    }

    /// A required argument is absent: -3.
    #[must_use]
    pub fn missing(parameter: &str) -> Self {
        Self::with(ErrorCode::InvalidArgs, format_args!("missing parameter {parameter}"))
    }

    /// An argument is given twice, is not of its type, or is out of range: -3.
    #[must_use]
    pub fn invalid(parameter: &str, reason: impl fmt::Display) -> Self {
        Self::with(ErrorCode::InvalidArgs, format_args!("{parameter}: {reason}"))
    }

    /// The machine is not registered, or the caller may not read it: -11 with the historical three
    /// lines. Both cases must use this one text, so that a caller cannot tell them apart.
    #[must_use]
    pub fn not_registered(config: &str) -> Self {
        Self::with(
            ErrorCode::NoSuchVm,
            format_args!(
                "The config file {config} is not registered.\n\
                 Please register the config file on the server.  For example:\n\
                 vmware-cmd -s register \"{config}\""
            ),
        )
    }

    /// Registering what is no machine, or unregistering an unknown one: -11, base text only.
    #[must_use]
    pub fn no_such_vm() -> Self {
        Self::new(ErrorCode::NoSuchVm)
    }

    /// The caller can see the machine or file `what`, but lacks the right: -4.
    #[must_use]
    pub fn no_access(what: impl fmt::Display) -> Self {
        Self::with(ErrorCode::NoAccess, what)
    }

    /// A call of the file system failed for `path`.
    ///
    /// EACCES, EPERM and EROFS become -4; ENOSPC, EDQUOT, EMFILE and ENFILE -22; ENOMEM -1; anything
    /// else -999 with the system's own text.
    #[must_use]
    pub fn file(path: impl AsRef<Path>, cause: &std::io::Error) -> Self {
        let path = path.as_ref().display();
        match cause.raw_os_error() {
            Some(errno::EACCES | errno::EPERM | errno::EROFS) => Self::no_access(path),
            Some(errno::ENOSPC | errno::EDQUOT | errno::EMFILE | errno::ENFILE) => {
                Self::with(ErrorCode::InsufficientResources, format_args!("{path}: {}", system_text(cause)))
            }
            Some(errno::ENOMEM) => Self::new(ErrorCode::NoMem),
            _ => Self::unspecified(format!("{path}: {}", system_text(cause))),
        }
    }

    /// The divisor of `div` is zero: -999.
    #[must_use]
    pub fn division_by_zero() -> Self {
        Self::unspecified("Illegal division by zero")
    }

    /// No task of that number, or one of somebody else: -999.
    #[must_use]
    pub fn no_such_task(id: impl fmt::Display) -> Self {
        Self::unspecified(format!("No such task: {id}"))
    }

    /// A fault inside the server: -999. The cause goes to the log under `request`, never to the client.
    #[must_use]
    pub fn internal(request: impl fmt::Display) -> Self {
        Self::unspecified(format!("Internal error (request {request})"))
    }

    /// The machine's state does not allow the operation: -8 with the historical sentence. Scripts
    /// look for the quoted words: `operation` such as `start`, `state` one of `on`, `off`, `suspended`.
    #[must_use]
    pub fn state_conflict(operation: &str, state: &str) -> Self {
        Self::with(
            ErrorCode::BadState,
            format_args!(
                "The requested operation (\"{operation}\") could not be completed because it \
                 conflicted with the state of the virtual machine (\"{state}\") at the time the \
                 request was received.  This error often occurs because the state of the virtual \
                 machine changed before it received the request."
            ),
        )
    }

    /// A soft power operation on a guest without Tools: -8 with the historical detail.
    #[must_use]
    pub fn tools_not_running() -> Self {
        Self::with(ErrorCode::BadState, "Make sure the VMware Server Tools are running")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text, self.code.number())
    }
}

impl std::error::Error for Error {}

/// The system's text for `cause` without the number that the standard library appends.
fn system_text(cause: &std::io::Error) -> String {
    let text = cause.to_string();
    match text.find(" (os error ") {
        Some(at) => text.get(..at).unwrap_or_default().to_owned(),
        None => text,
    }
}

/// Why a request gets an error reply, and whether its connection survives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Not well-formed or over a limit: error reply, then the connection is closed.
    Malformed(Reason),
    /// Understood but refused: error reply, then the next request.
    Refused(Error),
}

impl Fault {
    /// Whether the connection is closed after the reply.
    #[must_use]
    pub fn closes(&self) -> bool {
        matches!(self, Fault::Malformed(_))
    }

    /// What the reply says.
    #[must_use]
    pub fn into_error(self) -> Error {
        match self {
            Fault::Malformed(reason) => Error::malformed(reason),
            Fault::Refused(error) => error,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Malformed(reason) => write!(f, "malformed request: {reason}"),
            Fault::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Fault::Refused(error)
    }
}

impl From<Reason> for Fault {
    fn from(reason: Reason) -> Self {
        Fault::Malformed(reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file_manager::MakeDirReply;

    /// The table of the specification: number, name, base text.
    const CODES: [(i32, &str, &str); 24] = [
        (-1, "NOMEM", "Out of memory"),
        (-2, "NETFAIL", "Network failure"),
        (-3, "INVALIDARGS", "Invalid argument"),
        (-4, "NOACCESS", "Permission denied"),
        (-5, "NOTCONNECTED", "Not connected"),
        (-6, "BADVERSION", "Incompatible version"),
        (-7, "TIMEOUT", "Operation timed out"),
        (-8, "BADSTATE", "Invalid operation for virtual machine's current state"),
        (-9, "NOEXECVMAUTHD", "Cannot run vmware-authd"),
        (-10, "NOPROPERTY", "No such property"),
        (-11, "NOSUCHVM", "No such virtual machine"),
        (-12, "ALREADYCONNECTED", "Already connected"),
        (-13, "DISCONNECT", "Connection lost"),
        (-14, "BADRESPONSE", "Unexpected response from vmware-authd"),
        (-15, "GARBAGE", "Reply not understood"),
        (-16, "NEEDINPUT", "Virtual machine requires user input to continue"),
        (-17, "NOTSUPPORTED", "Not supported"),
        (-18, "INVALIDVM", "Invalid virtual machine configuration"),
        (-19, "VMINITFAILED", "Virtual machine could not be started"),
        (-20, "VMEXISTS", "Virtual machine already exists"),
        (-21, "VMBUSY", "Virtual machine is busy"),
        (-22, "INSUFFICIENT_RESOURCES", "Insufficient resources"),
        (-23, "PROXYFAIL", "Proxy failure"),
        (-999, "UNSPECIFIED", "Unknown error"),
    ];

    #[test]
    fn codes_names_and_texts_are_those_of_the_library() {
        let ours: Vec<_> = ErrorCode::ALL.iter().map(|c| (c.number(), c.name(), c.base_text())).collect();
        assert_eq!(ours, CODES);
    }

    #[test]
    fn each_situation_has_its_code_and_text() {
        use ErrorCode::*;
        let io = std::io::Error::from_raw_os_error;
        let cases = [
            (
                Error::malformed(Reason::TooDeep(16)),
                InvalidArgs,
                "Invalid argument: malformed request: nested deeper than 16",
            ),
            (Error::unknown_operation("X"), NotSupported, "Not supported: unknown operation X"),
            (
                Error::admin_required("Security_GetConfig"),
                NoAccess,
                "Permission denied: operation Security_GetConfig requires administrator privileges",
            ),
            (Error::missing("number"), InvalidArgs, "Invalid argument: missing parameter number"),
            (Error::invalid("n", "given twice"), InvalidArgs, "Invalid argument: n: given twice"),
            (
                Error::not_registered("/vm/a.vmx"),
                NoSuchVm,
                "No such virtual machine: The config file /vm/a.vmx is not registered.\n\
                 Please register the config file on the server.  For example:\n\
                 vmware-cmd -s register \"/vm/a.vmx\"",
            ),
            (Error::no_such_vm(), NoSuchVm, "No such virtual machine"),
            (Error::no_access("/vm/a.vmx"), NoAccess, "Permission denied: /vm/a.vmx"),
            (Error::file("/a/b", &io(13)), NoAccess, "Permission denied: /a/b"),
            (Error::file("/a/b", &io(1)), NoAccess, "Permission denied: /a/b"),
            (Error::file("/a/b", &io(30)), NoAccess, "Permission denied: /a/b"),
            (
                Error::file("/a/b", &io(28)),
                InsufficientResources,
                "Insufficient resources: /a/b: No space left on device",
            ),
            (
                Error::file("/a/b", &io(122)),
                InsufficientResources,
                "Insufficient resources: /a/b: Disk quota exceeded",
            ),
            (
                Error::file("/a/b", &io(24)),
                InsufficientResources,
                "Insufficient resources: /a/b: Too many open files",
            ),
            (
                Error::file("/a/b", &io(23)),
                InsufficientResources,
                "Insufficient resources: /a/b: Too many open files in system",
            ),
            (Error::file("/a/b", &io(2)), Unspecified, "/a/b: No such file or directory"),
            (Error::file("/a/b", &io(36)), Unspecified, "/a/b: File name too long"),
            (Error::division_by_zero(), Unspecified, "Illegal division by zero"),
            (Error::no_such_task(7), Unspecified, "No such task: 7"),
            (Error::internal(12), Unspecified, "Internal error (request 12)"),
            (
                Error::state_conflict("start", "on"),
                BadState,
                "Invalid operation for virtual machine's current state: The requested operation (\"start\") could \
                 not be completed because it conflicted with the state of the virtual machine (\"on\") at the \
                 time the request was received.  This error often occurs because the state of the virtual \
                 machine changed before it received the request.",
            ),
            (
                Error::tools_not_running(),
                BadState,
                "Invalid operation for virtual machine's current state: Make sure the VMware Server Tools are running",
            ),
        ];
        for (error, code, text) in cases {
            assert_eq!((error.code, error.text.as_str()), (code, text));
        }
    }

    #[test]
    fn a_long_operation_name_is_cut_between_characters() {
        let error = Error::unknown_operation(&"ä".repeat(100));
        assert_eq!(error.text, format!("Not supported: unknown operation {}...", "ä".repeat(64)));
        let error = Error::unknown_operation(&format!("x{}", "ä".repeat(100)));
        assert_eq!(error.text, format!("Not supported: unknown operation x{}...", "ä".repeat(63)));
    }

    #[test]
    fn finished_items_are_rendered() {
        let directories = vec!["/a".to_owned().try_into().unwrap()];
        let error = Error::no_access("/b").finished(&MakeDirReply { directories });
        assert_eq!(
            error.partial.as_deref(),
            Some(&b"<directories><directory>/a</directory></directories>"[..])
        );
    }

    #[test]
    fn only_malformed_requests_close_the_connection() {
        assert!(Fault::from(Reason::Utf8).closes());
        assert!(!Fault::from(Error::missing("op")).closes());
    }
}
