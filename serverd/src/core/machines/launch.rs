//! Between the core and the program `vmx`: `vmserverd machine`.
//!
//! A machine process begins as a copy of the core, becomes the owner of the .vmx, opens the machine's
//! log with the rights of that user, hands it to the core, and executes `vmx`. Nothing is opened with
//! the core's rights in a directory that is somebody else's.

use std::convert::Infallible;
use std::error::Error;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use ::link::identity::Account;
use ::link::wire::Message;
use hypervisor::control::{Begin, FromVmx};
use ops::{Error as Refusal, ErrorCode};
use rustix::fs::{Mode, OFlags, fstat, open};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};

use crate::session::become_user::become_user;

/// The device that runs guests.
const KVM: &str = "/dev/kvm";

/// The variable that carries the orders; nobody but root and the process itself can read it.
pub const VARIABLE: &str = "VMSERVERD_MACHINE";

/// Number of the request that starts a machine.
pub const START: u32 = 1;

/// What `vmserverd machine` is to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// Every group.
    pub groups: Vec<u32>,
    /// The program.
    pub program: String,
    /// The machine's log.
    pub log: String,
    /// Whether it begins a new log.
    pub anew: bool,
}

/// What such a process is for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Task {
    /// To become `vmx`.
    Run(Orders),
    /// To remove what a `vmx` that was killed has left behind.
    Clean {
        /// The owner of the .vmx.
        uid: u32,
        /// The lock file.
        lock: String,
    },
}

/// What it takes to start a machine, found out on a thread that may wait.
#[derive(Debug)]
pub struct Launch {
    /// The owner of the .vmx.
    pub account: Account,
    /// `/dev/kvm`
    pub kvm: OwnedFd,
    /// The .vmx, opened anew for reading: nobody else has this descriptor.
    pub vmx: OwnedFd,
    /// To run it, or to work on its snapshots.
    pub begin: Begin,
}

impl Launch {
    /// Looks who the owner is and opens what is needed. May wait for as long as the name service takes.
    ///
    /// # Errors
    /// -19, with what is missing; -11 when the .vmx is gone.
    pub fn prepare(vmx: &OwnedFd, begin: Begin) -> Result<Self, Refusal> {
        let failed = |text: String| Refusal::with(ErrorCode::VmInitFailed, text);
        let uid = fstat(vmx).map_err(|_| Refusal::no_such_vm())?.st_uid;
        let account = Account::by_uid(uid)
            .ok_or_else(|| failed(format!("the owner of the .vmx, uid {uid}, has no account")))?;
        // Through the descriptor: the path may name another file by now.
        let own = format!("/proc/self/fd/{}", vmx.as_raw_fd());
        let vmx = open(own, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| failed(format!("the .vmx: {}", text(&error.into()))))?;
        let kvm = open(KVM, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let kvm = match begin {
            Begin::PowerOn => kvm,
            // Snapshots of a machine that is off need no processor.
            Begin::Maintenance => {
                kvm.or_else(|_| open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()))
            }
        };
        let kvm = kvm.map_err(|error| failed(format!("{KVM}: {}", text(&error.into()))))?;
        Ok(Launch { account, kvm, vmx, begin })
    }
}

/// The system's words, without the number.
fn text(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Becomes a machine process; the channel to the core is standard input.
///
/// # Errors
/// When it was not started by the core, or anything on the way to `vmx` fails, which the core is told.
pub fn main() -> Result<(), Box<dyn Error>> {
    crate::sys::close_from(3)?;
    let orders = std::env::var(VARIABLE).map_err(|_| "this command is started by vmserverd itself")?;
    let orders = serde_json::from_str(&orders)?;
    if let Task::Clean { uid, lock } = orders {
        return clean(uid, Path::new(&lock));
    }
    let Task::Run(orders) = orders else { return Ok(()) };
    let why = match become_vmx(&orders) {
        Ok(never) => match never {},
        Err(why) => why,
    };
    let (code, detail) = (why.code.number(), why.detail.clone());
    say(&FromVmx::Failed { request: START, code, detail }, None)?;
    Err(why.detail.into())
}

/// Why a process does not become `vmx`.
struct Why {
    code: ErrorCode,
    detail: String,
}

impl From<String> for Why {
    fn from(detail: String) -> Self {
        Why { code: ErrorCode::VmInitFailed, detail }
    }
}

/// The machine's log cannot be opened; the error names it.
fn no_log(path: &Path, error: &io::Error) -> Why {
    let detail = text(error);
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let reason = detail.rsplit(": ").next().unwrap_or_default();
            let detail = format!("{}: {reason}", path.display());
            Why { code: ErrorCode::InsufficientResources, detail }
        }
        _ => detail.into(),
    }
}

fn become_vmx(orders: &Orders) -> Result<Infallible, Why> {
    // Before: the user need not be able to reach it.
    let program = File::open(&orders.program)
        .map_err(|error| format!("cannot open {}: {}", orders.program, text(&error)))?;
    become_user(orders.uid, orders.gid, &orders.groups).map_err(|error| error.to_string())?;
    let path = Path::new(&orders.log);
    if orders.anew {
        ::link::logfile::rotate(path);
    }
    let log = ::link::logfile::open(path).map_err(|error| no_log(path, &error))?;
    if !log.metadata().is_ok_and(|facts| facts.is_file()) {
        return Err(format!("{} is not a file", path.display()).into());
    }
    say(&FromVmx::Log {}, Some(&log.into())).map_err(|error| format!("the core: {error}"))?;
    let mut vmx = Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
    let error = vmx.arg0("vmx").env_clear().exec();
    Err(format!("cannot execute {}: {}", orders.program, text(&error)).into())
}

/// Removes the lock file of a machine whose process is gone, as its owner; unless somebody holds it.
fn clean(uid: u32, lock: &Path) -> Result<(), Box<dyn Error>> {
    let account = Account::by_uid(uid).ok_or("the owner of the .vmx has no account")?;
    become_user(account.uid, account.gid, &account.groups)?;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(lock, flags, Mode::empty())?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive)?;
    std::fs::remove_file(lock)?;
    Ok(())
}

/// Sends one message to the core.
fn say(message: &FromVmx, descriptor: Option<&OwnedFd>) -> io::Result<()> {
    let mut bytes = Vec::new();
    message.encode(&mut bytes);
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().map(AsFd::as_fd).collect();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(&descriptors));
    }
    sendmsg(io::stdin(), &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}
