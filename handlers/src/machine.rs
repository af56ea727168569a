//! Machines as one caller sees them: which exist for him, and what he may do with them.
//!
//! A machine is its .vmx. It is registered or not, which the core knows, and the caller can read the
//! file or not, which the kernel knows of the process that *is* the caller. Who may not read it gets
//! the answer of an unregistered one, by the same way and after the same calls.
//!
//! ```text
//!   registered?  ── core ───────────────┐
//!   open, stat, read ── as the caller ──┴──▶ Machine { vmx, rights, ... }   or -11 for either "no"
//! ```
//!
//! What else he may do follows from the rights on the file: [`rights`] decides from ids and mode bits
//! as the kernel does; a file with an access control list is left to the kernel itself.

use std::fmt;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use hypervisor::control;
use hypervisor::vmx_file::{VmxFile, defaults};
use ops::machine::{PowerState, State, VmDetails};
use ops::value::ConfigPath;
use ops::vm_info::{Question, VmInfo};
use ops::{Error, ErrorCode};
use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags, accessat, fgetxattr};
use rustix::io::Errno;

use crate::names::Names;
use crate::registered::Listed;
use crate::running::Running;
use crate::{Ctx, Failure, User};

/// Where the access control list of a file is kept.
const ACL: &str = "system.posix_acl_access";

/// What a caller may do with a machine: the rights on its .vmx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// See it: state, configuration, events.
    pub read: bool,
    /// With `read`: change its configuration.
    pub write: bool,
    /// With `read`: power, devices, console.
    pub execute: bool,
}

impl Rights {
    /// As the lowest three bits of a file mode.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.read) << 2 | u32::from(self.write) << 1 | u32::from(self.execute)
    }

    /// From the lowest three bits of a file mode.
    fn from_bits(bits: u32) -> Self {
        Rights { read: bits & 4 != 0, write: bits & 2 != 0, execute: bits & 1 != 0 }
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (has, letter) in [(self.read, "r"), (self.write, "w"), (self.execute, "x")] {
            f.write_str(if has { letter } else { "-" })?;
        }
        Ok(())
    }
}

/// Who asks for a file.
#[derive(Debug, Clone, Copy)]
pub struct Who<'a> {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All other groups; the primary one may be among them.
    pub groups: &'a [u32],
}

impl<'a> From<&'a User> for Who<'a> {
    fn from(user: &'a User) -> Self {
        Who { uid: user.uid, gid: user.gid, groups: &user.groups }
    }
}

/// What the mode bits of a file are read with.
#[derive(Debug, Clone, Copy)]
pub struct Owned {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// Its mode; only the permission bits are looked at.
    pub mode: u32,
}

impl From<&Metadata> for Owned {
    fn from(metadata: &Metadata) -> Self {
        Owned { uid: metadata.uid(), gid: metadata.gid(), mode: metadata.mode() }
    }
}

/// The rights that ids and mode bits give, as `access(2)` evaluates them: those of the first class
/// that the caller belongs to, and of no other. Uid 0 reads and writes whatever the bits say, and
/// executes what anybody may execute.
#[must_use]
pub fn rights(who: Who<'_>, file: Owned) -> Rights {
    if who.uid == 0 {
        return Rights { read: true, write: true, execute: file.mode & 0o111 != 0 };
    }
    let shift = if who.uid == file.uid {
        6
    } else if who.gid == file.gid || who.groups.contains(&file.gid) {
        3
    } else {
        0
    };
    Rights::from_bits(file.mode >> shift)
}

/// A registered machine that the caller may read.
#[derive(Debug)]
pub struct Machine {
    /// Path of its .vmx.
    pub config: ConfigPath,
    /// That file, open for reading.
    pub file: File,
    /// What it says.
    pub vmx: VmxFile,
    /// Its owner, mode and times.
    pub metadata: Metadata,
    /// What the caller may do with it; `read` is always among it.
    pub rights: Rights,
}

impl Machine {
    /// Opens and reads a .vmx as the process, which is the caller. May wait for the file system.
    ///
    /// # Errors
    /// As the system calls; `InvalidInput` and `FileTooLarge` for what can be no .vmx.
    pub(crate) fn open(user: &User, config: &ConfigPath) -> io::Result<Self> {
        // A pipe must not hold us, nor a terminal become ours.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = File::from(rustix::fs::open(config.as_str(), flags, Mode::empty())?);
        let vmx = VmxFile::read(&file)?;
        let metadata = file.metadata()?;
        let rights = if has_acl(&file) { asked(config) } else { rights(user.into(), (&metadata).into()) };
        Ok(Machine { config: config.clone(), file, vmx, metadata, rights })
    }

    /// The open .vmx once more: proof for the core that the caller may read it.
    ///
    /// # Errors
    /// When there are too many open files.
    pub(crate) fn descriptor(&self) -> Result<OwnedFd, Error> {
        let file = self.file.try_clone().map_err(|error| Error::file(&self.config, &error))?;
        Ok(file.into())
    }
}

/// A state as replies have it.
pub(crate) fn power_state(state: control::State) -> PowerState {
    match state {
        control::State::On => PowerState::On,
        control::State::Off => PowerState::Off,
        control::State::Suspended => PowerState::Suspended,
        control::State::Stuck => PowerState::Stuck,
        control::State::Unknown => PowerState::Unknown,
    }
}

/// A question as replies have it.
pub(crate) fn question(question: &control::Question) -> Question {
    Question {
        id: question.id.into(),
        text: question.text.clone(),
        choices: question.choices.clone(),
        default_choice: question.default.into(),
    }
}

/// What a machine is called: as its .vmx says, else as the file is called.
pub(crate) fn display_name(vmx: &VmxFile, config: &ConfigPath) -> String {
    let stem = || Path::new(config.as_str()).file_stem().unwrap_or_default().to_string_lossy().into_owned();
    vmx.display_name().unwrap_or_else(stem)
}

/// How a machine is at one moment: what its files say, and its process if there is one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    /// Its name for people.
    pub(crate) display_name: String,
    /// Whether it runs.
    pub(crate) state: State,
    /// Its process. A machine whose process only works on snapshots of it is off, or suspended, and has
    /// none here.
    pub(crate) running: Option<Running>,
}

impl Facts {
    /// The facts of a machine; `running` is what the core knows of its process.
    pub(crate) fn of(machine: &Machine, running: Option<Running>) -> Self {
        let asleep = |state| matches!(state, control::State::Off | control::State::Suspended);
        let running = running.filter(|running| !asleep(running.status.state));
        let state = match &running {
            Some(Running { status, .. }) => State { power: power_state(status.state), paused: status.paused },
            None => {
                let suspended = machine.vmx.suspend_state().is_some();
                let power = if suspended { PowerState::Suspended } else { PowerState::Off };
                State { power, paused: false }
            }
        };
        Facts { display_name: display_name(&machine.vmx, &machine.config), state, running }
    }

    /// The process of a machine that must have one for `operation`.
    ///
    /// # Errors
    /// -8 with the historical sentence.
    pub(crate) fn process(&self, operation: &str) -> Result<&Running, Error> {
        self.running.as_ref().ok_or_else(|| self.conflict(operation))
    }

    /// -8: the state does not allow an operation.
    pub(crate) fn conflict(&self, operation: &str) -> Error {
        Error::state_conflict(operation, self.state.power.word())
    }

    /// The guest's address: what the running guest has told, else what the .vmx says.
    fn ip(&self, vmx: &VmxFile) -> String {
        let told = self.running.as_ref().and_then(|running| running.ip.as_deref());
        told.or_else(|| vmx.guest_info("ip")).unwrap_or_default().to_owned()
    }

    /// Key facts, as a list has them.
    pub(crate) fn details(&self, machine: &Machine) -> VmDetails {
        let vmx = &machine.vmx;
        let running = self.running.as_ref();
        let status = running.map(|running| &running.status);
        VmDetails {
            display_name: Some(self.display_name.clone()),
            guest_os: Some(guest_os(vmx)),
            power: Some(self.state.power),
            paused: Some(self.state.paused),
            id: Some(running.map_or(0, |running| running.id)),
            pid: Some(running.map_or(0, |running| running.pid.into())),
            uptime: Some(status.map_or(0, |status| status.uptime)),
            heartbeat: Some(status.map_or(0, |status| status.heartbeat.into())),
            memory_mb: Some(status.map_or(vmx.memory_mb(), |status| status.memory_mb).into()),
            cpus: Some(status.map_or(vmx.cpus(), |status| status.cpus).into()),
            cpu_percent: Some(running.map_or(0, |running| running.cpu_percent.into())),
            ip: Some(self.ip(vmx)),
            permissions: Some(machine.rights.to_string()),
            has_question: Some(status.is_some_and(|status| status.question.is_some())),
        }
    }

    /// Everything about the machine. May wait for a name service and the file system. Whether there are
    /// snapshots may have to be asked: see [`Seen`].
    pub(crate) fn info(&self, machine: &Machine) -> Seen {
        let vmx = &machine.vmx;
        let adapter = vmx.network_adapters().first().and_then(|adapter| vmx.mac(adapter.number));
        let running = self.running.as_ref();
        let status = running.map(|running| &running.status);
        let snapshots = match status {
            Some(status) => Some(status.has_snapshot),
            None => snapshots(&machine.config).ok().map(|list| !list.is_empty()),
        };
        let info = VmInfo {
            config: machine.config.clone(),
            display_name: self.display_name.clone(),
            guest_os: guest_os(vmx),
            state: self.state,
            id: running.map_or(0, |running| running.id),
            pid: running.map_or(0, |running| running.pid.into()),
            uptime: status.map_or(0, |status| status.uptime),
            heartbeat: status.map_or(0, |status| status.heartbeat.into()),
            tools_last_active: status.map_or(0, |status| status.tools_last_active.into()),
            memory_mb: status.map_or(vmx.memory_mb(), |status| status.memory_mb).into(),
            cpus: status.map_or(vmx.cpus(), |status| status.cpus).into(),
            cpu_percent: running.map_or(0, |running| running.cpu_percent.into()),
            hardware_version: vmx.hardware_version().unwrap_or_default().into(),
            ip: self.ip(vmx),
            mac_address: adapter.map(|mac| mac.to_string()).unwrap_or_default(),
            permissions: machine.rights.to_string(),
            run_as_user: Names::default().user(machine.metadata.uid()).to_owned(),
            // A list that cannot be read is one, at least.
            has_snapshot: snapshots.unwrap_or(true),
            remote_connections: running.map_or(0, |running| running.remote_connections.into()),
            annotation: vmx.annotation().to_owned(),
            question: status.and_then(|status| status.question.as_ref()).map(question),
        };
        Seen { info, sure: snapshots.is_some() }
    }
}

/// What the caller can see of a machine himself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    /// Everything.
    pub(crate) info: VmInfo,
    /// Whether he could also see if there are snapshots. Their list is the owner's file, so the machine's
    /// process must be asked otherwise.
    pub(crate) sure: bool,
}

fn guest_os(vmx: &VmxFile) -> String {
    vmx.guest_os().unwrap_or(defaults::GUEST_OS).to_owned()
}

/// The list of snapshots beside a .vmx, as the process; without the file there are none. May wait for the
/// file system.
///
/// # Errors
/// As the system calls: mostly, that the list is for the owner of the machine only.
pub(crate) fn snapshots(config: &ConfigPath) -> io::Result<Vec<control::Snapshot>> {
    match VmxFile::load(&Path::new(config.as_str()).with_extension("vmsd")) {
        Ok(list) => Ok(list.snapshots()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Whether more than the mode bits decides.
fn has_acl(file: &File) -> bool {
    // Too small for any list, which is an answer too.
    let mut room = [0_u8; 4];
    !matches!(fgetxattr(file, ACL, &mut room), Err(Errno::NODATA | Errno::OPNOTSUPP))
}

/// The kernel's own word on the caller's rights, by the process's real ids.
fn asked(config: &ConfigPath) -> Rights {
    let may = |access| accessat(CWD, config.as_str(), access, AtFlags::empty()).is_ok();
    Rights { read: may(Access::READ_OK), write: may(Access::WRITE_OK), execute: may(Access::EXEC_OK) }
}

/// Whether the process may read a file, by its real ids, which are the caller's. May wait for the file
/// system.
pub(crate) fn readable(config: &str) -> bool {
    accessat(CWD, config, Access::READ_OK, AtFlags::empty()).is_ok()
}

/// Whether a machine is somebody else's private one.
pub(crate) fn hidden(user: &User, listed: &Listed, metadata: &Metadata) -> bool {
    is_private_to_another(user, listed, metadata.uid())
}

/// The same, of a machine whose owner is known.
pub(crate) fn is_private_to_another(user: &User, listed: &Listed, owner: u32) -> bool {
    listed.private && !user.admin && user.uid != owner
}

/// Whether a registered machine exists for the caller. May wait for the file system.
pub(crate) fn exists(user: &User, listed: &Listed) -> bool {
    readable(&listed.config)
        && (!listed.private
            || std::fs::metadata(&*listed.config).is_ok_and(|metadata| !hidden(user, listed, &metadata)))
}

/// The machine of a path, if it exists for the caller.
///
/// # Errors
/// -11 with the three lines, the same whether it is not registered or not readable; -18 for a
/// registered file that can be no .vmx; otherwise what the core or the system says.
pub(crate) async fn visible(ctx: &Ctx, config: &ConfigPath) -> Result<Machine, Failure> {
    // Both questions are always asked, and at once, so that the time tells no more than the answer.
    let (user, path) = (ctx.user.clone(), config.clone());
    let opened = tokio::task::spawn_blocking(move || Machine::open(&user, &path));
    let registered = ctx.core.registered().await;
    let opened = opened.await.map_err(|error| Failure::internal("reading a .vmx", error))?;
    let not_registered = || Failure::from(Error::not_registered(config.as_str()));
    let registered = registered?;
    let listed = registered.get(config.as_str()).ok_or_else(not_registered)?;
    let machine = opened.map_err(|error| refusal(config, &error))?;
    if hidden(&ctx.user, listed, &machine.metadata) { Err(not_registered()) } else { Ok(machine) }
}

/// The machine of a path, if it exists for the caller and he may operate it.
///
/// # Errors
/// As [`visible`]; -4 without the right to execute.
pub(crate) async fn operable(ctx: &Ctx, config: &ConfigPath) -> Result<Machine, Failure> {
    let machine = visible(ctx, config).await?;
    if machine.rights.execute { Ok(machine) } else { Err(Error::no_access(config).into()) }
}

/// The machine of a path, if it exists for the caller, and how it is.
///
/// # Errors
/// As [`visible`].
pub(crate) async fn seen(ctx: &Ctx, config: &ConfigPath) -> Result<(Machine, Facts), Failure> {
    let machine = visible(ctx, config).await?;
    let facts = facts(ctx, &machine).await?;
    Ok((machine, facts))
}

/// How a machine is now.
///
/// # Errors
/// When the core does not answer.
pub(crate) async fn facts(ctx: &Ctx, machine: &Machine) -> Result<Facts, Failure> {
    let running = ctx.core.running().await?;
    Ok(Facts::of(machine, running.get(machine.config.as_str()).cloned()))
}

/// Why a registered .vmx could not be read, as far as the caller may know.
fn refusal(config: &ConfigPath, error: &io::Error) -> Error {
    match Errno::from_io_error(error) {
        // A shortage says nothing about the file, and will pass.
        Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => Error::file(config, error),
        Some(_) => Error::not_registered(config.as_str()),
        // The file is open: what is wrong with it the caller may know.
        None => Error::with(ErrorCode::InvalidVm, format_args!("{config}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{FixedCore, ctx_with};
    use ops::Fault;
    use rustix::process::{Gid, Uid};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::PermissionsExt;

    fn told(failure: Failure) -> Error {
        match failure {
            Failure::Told(Fault::Refused(error)) => error,
            other => panic!("{other}"),
        }
    }

    fn config(text: &str) -> ConfigPath {
        ConfigPath::try_from(text.to_owned()).unwrap()
    }

    /// Says that a test is left out, past the capture of the test runner.
    fn skipped(what: &str, why: &str) {
        use std::io::Write;
        let line = format!("SKIPPED {what}: {why}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        if let Some(path) = std::env::var_os("VMSERVERD_SKIPPED") {
            let file = File::options().append(true).create(true).open(path);
            let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
        }
    }

    /// Every permission bit, several owners and groups, against the kernel's own `access(2)`, asked by
    /// threads that really are those users.
    #[test]
    fn rights_are_those_of_access_2() {
        if !rustix::process::geteuid().is_root() {
            return skipped("rights are those of access(2)", "needs root to become other users");
        }
        const IDS: [u32; 3] = [0, 61_001, 61_002];
        let directory = tempfile::tempdir().unwrap();
        let mut files = Vec::new();
        for (uid, gid) in IDS.into_iter().flat_map(|uid| IDS.map(|gid| (uid, gid))) {
            let path = directory.path().join(format!("{uid}-{gid}"));
            let file = File::create(&path).unwrap();
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid)).unwrap();
            files.push((uid, gid, file));
        }
        for mode in 0..=0o777 {
            for (_, _, file) in &files {
                file.set_permissions(PermissionsExt::from_mode(mode)).unwrap();
            }
            // Ids belong to threads; one that changed them ends.
            std::thread::scope(|scope| {
                for uid in IDS {
                    let files = &files;
                    scope.spawn(move || {
                        let (gid, groups): (u32, &[u32]) = match (uid + mode) % 4 {
                            0 => (61_001, &[]),
                            1 => (61_003, &[61_002]),
                            2 => (61_003, &[61_003, 0]),
                            _ => (0, &[61_001, 61_002]),
                        };
                        let raw: Vec<Gid> = groups.iter().map(|&gid| Gid::from_raw(gid)).collect();
                        rustix::thread::set_thread_groups(&raw).unwrap();
                        let (id, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
                        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
                        rustix::thread::set_thread_res_uid(id, id, id).unwrap();
                        for (owner, group, file) in files {
                            let path = format!("/proc/thread-self/fd/{}", file.as_raw_fd());
                            let may = |access| accessat(CWD, &path, access, AtFlags::empty()).is_ok();
                            let kernel = Rights {
                                read: may(Access::READ_OK),
                                write: may(Access::WRITE_OK),
                                execute: may(Access::EXEC_OK),
                            };
                            let ours =
                                rights(Who { uid, gid, groups }, Owned { uid: *owner, gid: *group, mode });
                            assert_eq!(ours, kernel, "{uid}:{gid}:{groups:?} on {owner}:{group} {mode:o}");
                        }
                    });
                }
            });
        }
    }

    /// The list of `r--` for user 61001, in the form of the kernel: version, then tag, rights, id each.
    fn acl(path: &std::path::Path) -> rustix::io::Result<()> {
        let entries: [(u16, u16, u32); 5] = [
            (0x01, 6, u32::MAX),
            (0x02, 4, rustix::process::getuid().as_raw()),
            (0x04, 0, u32::MAX),
            (0x10, 4, u32::MAX),
            (0x20, 0, u32::MAX),
        ];
        let mut bytes = 2_u32.to_le_bytes().to_vec();
        for (tag, rights, id) in entries {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(rights.to_le_bytes());
            bytes.extend(id.to_le_bytes());
        }
        rustix::fs::setxattr(path, ACL, &bytes, rustix::fs::XattrFlags::empty())
    }

    #[test]
    fn a_file_with_an_access_control_list_is_left_to_the_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.vmx");
        std::fs::write(&path, "config.version = \"8\"\n").unwrap();
        assert!(!has_acl(&File::open(&path).unwrap()));
        if let Err(error) = acl(&path) {
            return skipped("rights of access control lists", &format!("setting one: {error}"));
        }
        assert!(has_acl(&File::open(&path).unwrap()));
        let config = config(path.to_str().unwrap());
        let machine = Machine::open(&crate::context::tests::ctx().user, &config).unwrap();
        assert_eq!(machine.rights, asked(&config));
    }

    #[tokio::test]
    async fn what_is_not_registered_and_what_is_not_readable_are_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let vms = vec![path("a.vmx"), path("gone.vmx"), path("directory.vmx")];
        let ctx = ctx_with(FixedCore { count: 0, vms, ..FixedCore::default() });
        std::fs::write(path("a.vmx"), "config.version = \"8\"\ndisplayName = \"A\"\n").unwrap();
        std::fs::write(path("b.vmx"), "config.version = \"8\"\n").unwrap();
        std::fs::create_dir(path("directory.vmx")).unwrap();

        let machine = visible(&ctx, &config(&path("a.vmx"))).await.unwrap();
        assert_eq!((machine.vmx.display_name().as_deref(), machine.rights.read), (Some("A"), true));
        assert_eq!(machine.config.as_str(), path("a.vmx"));
        assert_eq!(machine.metadata.len(), machine.file.metadata().unwrap().len());
        for name in ["gone.vmx", "b.vmx", "never.vmx"] {
            let error = told(visible(&ctx, &config(&path(name))).await.unwrap_err());
            assert_eq!(error, Error::not_registered(&path(name)));
        }
        let error = told(visible(&ctx, &config(&path("directory.vmx"))).await.unwrap_err());
        assert_eq!(error.code, ErrorCode::InvalidVm, "{}", error.text);
    }
}
