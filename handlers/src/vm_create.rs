//! `VM_Create`: a directory, a disk, a .vmx, registered; all of it or nothing.
//!
//! ```text
//!   directory is new:   .NAME.new-… ─▶ disk, .vmx ─▶ rename to NAME ─▶ register
//!   directory exists:   disk, .vmx, beside what is there ──────────▶ register
//!                                    any failure ─▶ what was made is removed
//! ```
//!
//! Of several who make the same machine at once one succeeds, and the others are told that it exists.

use std::sync::Arc;

use std::fs::Permissions;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use handlers_derive::handler;
use hypervisor::vmdk::{self, CreateOptions, SECTOR};
use hypervisor::vmx_file::{Network, NewDisk, NewMachine, Uuid, VmxFile, defaults};
use ops::machine::{Create, CreateReply, NetworkType};
use ops::value::{ConfigPath, HostPath, Size};
use ops::{Error, ErrorCode};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, open, renameat_with};
use rustix::io::Errno;

use crate::disk::{self, MAX_SIZE};
use crate::{Ctx, Failure, product, tree, vm_list};

/// How long another one may take to make a machine in the same directory. Whoever can read the directory
/// could hold its lock, so this is not for ever; without the lock only a loser's error is another one.
const TURN_WAIT: Duration = Duration::from_secs(2);

/// How often a machine is begun anew because its directory was made meanwhile.
const ATTEMPTS: u32 = 4;

/// Makes a machine for the caller.
#[handler]
async fn create(ctx: &Ctx, req: Create) -> Result<CreateReply, Failure> {
    check(&req)?;
    let (layout, core) = (ctx.layout.clone(), Arc::clone(&ctx.core));
    let work = async move {
        let config = match req.config.clone() {
            Some(config) => config,
            None => default_config(&product::vm_directory(&layout)?, &req.display_name)?,
        };
        if core.registered().await?.get(config.as_str()).is_some() {
            return Err(Error::new(ErrorCode::VmExists).into());
        }
        let (private, register) = (req.private, req.register);
        let make = move || make(&config, &req);
        let made = tokio::task::spawn_blocking(make);
        let made = made.await.map_err(|error| Failure::internal("making a machine", error))??;
        if register {
            let registered = async {
                let vmx = vm_list::open_vmx(made.reply.config.as_ref())
                    .map_err(|error| Error::file(&made.reply.config, &error))?;
                core.register(made.reply.config.as_str(), private, vmx.into()).await
            };
            if let Err(failure) = registered.await {
                let undo = move || made.undo.now();
                let _ = tokio::task::spawn_blocking(undo).await;
                return Err(failure);
            }
        }
        Ok(made.reply)
    };
    ctx.spawn(work).await.map_err(|error| Failure::internal("making a machine", error))?
}

/// What can be said against a request without looking at a disk.
fn check(req: &Create) -> Result<(), Error> {
    let name = &req.display_name;
    if name.is_empty() || name.len() > 255 || name.contains('/') || name.chars().any(char::is_control) {
        let why = "must have 1 to 255 bytes, without / and control characters";
        return Err(Error::invalid("displayName", why));
    }
    if req.config.is_none() && (name == "." || name == "..") {
        return Err(Error::invalid("displayName", "cannot be the name of a directory"));
    }
    if (req.network == NetworkType::Custom) != req.vnet.is_some() {
        return Err(Error::invalid("vnet", "belongs to the network custom, which needs it"));
    }
    for (field, text) in
        [("annotation", &req.annotation), ("vnet", &req.vnet), ("guestOS", &Some(req.guest_os.clone()))]
    {
        let line_ends = |c: char| c.is_control() && !(field == "annotation" && c == '\n');
        if text.as_deref().is_some_and(|text| text.contains(line_ends)) {
            return Err(Error::invalid(field, "must have no control characters"));
        }
    }
    match req.disk_size {
        Some(Size(size)) if size > MAX_SIZE => {
            Err(Error::invalid("diskSize", format_args!("must be at most {MAX_SIZE} bytes")))
        }
        Some(Size(1..)) if req.existing_disk.is_some() => {
            Err(Error::invalid("existingDisk", "takes the place of a new disk: leave out diskSize"))
        }
        _ => Ok(()),
    }
}

/// `DIRECTORY/NAME/NAME.vmx`
fn default_config(directory: &Path, name: &str) -> Result<ConfigPath, Error> {
    let path = directory.join(name).join(format!("{name}.vmx"));
    ConfigPath::try_from(path.to_string_lossy().into_owned())
        .map_err(|why| Error::invalid("displayName", format_args!("{}: {why}", path.display())))
}

/// A machine that is on the disk and not yet registered.
struct Made {
    reply: CreateReply,
    undo: Undo,
}

/// What is to be removed should the rest fail.
#[derive(Debug, Default)]
struct Undo {
    files: Vec<PathBuf>,
    directory: Option<PathBuf>,
}

impl Undo {
    fn now(&self) {
        for file in &self.files {
            let _ = std::fs::remove_file(file);
        }
        if let Some(directory) = &self.directory {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

/// Why a machine was not made.
enum NotMade {
    /// The caller is told.
    Told(Error),
    /// Somebody else has made its directory meanwhile; perhaps for this machine.
    DirectoryTaken(Error),
}

impl From<Error> for NotMade {
    fn from(error: Error) -> Self {
        NotMade::Told(error)
    }
}

fn make(config: &ConfigPath, req: &Create) -> Result<Made, Error> {
    let mut attempts = 1..=ATTEMPTS;
    loop {
        let attempt = attempts.next();
        match try_to_make(config, req) {
            Ok(made) => return Ok(made),
            Err(NotMade::Told(error)) => return Err(error),
            Err(NotMade::DirectoryTaken(error)) if attempt.is_none() => return Err(error),
            Err(NotMade::DirectoryTaken(_)) => {}
        }
    }
}

/// Waits until nobody else makes a machine in a directory. None where it cannot be locked.
fn turn(directory: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = open(directory, flags, Mode::empty()).ok()?;
    let start = Instant::now();
    loop {
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK) if start.elapsed() < TURN_WAIT => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(_) => return None,
        }
    }
}

fn try_to_make(config: &ConfigPath, req: &Create) -> Result<Made, NotMade> {
    let path = Path::new(config.as_str());
    let (Some(directory), Some(stem)) = (path.parent(), path.file_stem().and_then(|stem| stem.to_str()))
    else {
        return Err(Error::invalid("config", "names no file").into());
    };
    let at = |error: &io::Error| Error::file(directory, error);
    let uuid = Uuid::random().map_err(|error| at(&error))?;
    let machine = machine(req, stem, uuid);
    let (dir_mode, file_mode) = if req.private { (0o700, 0o600) } else { (0o755, 0o644) };
    let new = match std::fs::metadata(directory) {
        Ok(facts) if facts.is_dir() => false,
        Ok(_) => return Err(at(&io::ErrorKind::NotADirectory.into()).into()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(at(&error).into()),
    };
    // The .vmx comes last: without this, who comes second would meet the disk of who came first.
    let _turn = if new { None } else { turn(directory) };
    if std::fs::symlink_metadata(path).is_ok() {
        return Err(Error::new(ErrorCode::VmExists).into());
    }
    let place = if new { beside(directory, uuid)? } else { directory.to_owned() };
    let mut undo = Undo::default();
    let result = (|| -> Result<(), NotMade> {
        if new {
            tree::make_directory(&place.to_string_lossy(), dir_mode).map_err(|error| at(&error))?;
            undo.directory = Some(place.clone());
        }
        fill(req, &machine, &place, path, file_mode, &mut undo)?;
        if new {
            renameat_with(CWD, &place, CWD, directory, RenameFlags::NOREPLACE).map_err(
                |error| match error {
                    Errno::EXIST => NotMade::DirectoryTaken(at(&error.into())),
                    error => at(&error.into()).into(),
                },
            )?;
            sync_above(directory);
            undo.directory = Some(directory.to_owned());
            for file in &mut undo.files {
                *file = directory.join(file.file_name().unwrap_or_default());
            }
        }
        Ok(())
    })();
    if let Err(error) = result {
        undo.now();
        return Err(error);
    }
    let files = undo.files.iter().rev().filter_map(|file| HostPath::try_from(file.to_str()?.to_owned()).ok());
    let reply = CreateReply {
        config: config.clone(),
        display_name: req.display_name.clone(),
        uuid: uuid.to_string(),
        mac_address: machine.mac().map(|mac| mac.to_string()).unwrap_or_default(),
        files: files.collect(),
    };
    Ok(Made { reply, undo })
}

/// Makes disk and .vmx in `place`, the .vmx last. Errors name files where they were to be.
fn fill(
    req: &Create,
    machine: &NewMachine,
    place: &Path,
    config: &Path,
    file_mode: u32,
    undo: &mut Undo,
) -> Result<(), Error> {
    let directory = config.parent().unwrap_or(Path::new("/"));
    if let (Some(disk), None) = (&machine.disk, &req.existing_disk) {
        let size = req.disk_size.map_or(defaults::DISK_SIZE_MB << 20, |size| size.0);
        let options = CreateOptions {
            adapter: Some(disk.adapter),
            mode: file_mode,
            ..CreateOptions::new(disk::kind(req.disk_type), size.next_multiple_of(SECTOR))
        };
        let made =
            vmdk::create(&place.join(&disk.file), &options).map_err(|error| match disk::refusal(&error) {
                // The directory that it was made in has another name in the end.
                refused if place == directory => refused,
                refused => {
                    let (from, to) = (place.to_string_lossy(), directory.to_string_lossy());
                    Error { text: refused.text.replace(&*from, &to), ..refused }
                }
            })?;
        undo.files.extend(made.files);
    }
    let name = config.file_name().unwrap_or_default();
    let vmx_path = place.join(name);
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::new(ErrorCode::VmExists),
        _ => Error::file(config, &error),
    };
    let vmx: VmxFile = machine.build();
    vmx.create(&vmx_path, 0o600).map_err(failed)?;
    undo.files.push(vmx_path.clone());
    // Exactly these rights, whatever the umask: they are the rights on the machine.
    let mode = if req.private { 0o700 } else { 0o755 };
    std::fs::set_permissions(&vmx_path, Permissions::from_mode(mode))
        .map_err(|error| Error::file(config, &error))
}

fn machine(req: &Create, stem: &str, uuid: Uuid) -> NewMachine {
    let text = |path: &Option<HostPath>| path.as_ref().map(|path| path.as_str().to_owned());
    let new_disk = req.disk_size != Some(Size(0));
    let file = match &req.existing_disk {
        Some(disk) => Some(disk.as_str().to_owned()),
        None => new_disk.then(|| format!("{stem}.vmdk")),
    };
    let guest = hypervisor::vmx_file::guest(&req.guest_os);
    NewMachine {
        display_name: req.display_name.clone(),
        guest_os: req.guest_os.clone(),
        memory_mb: req.memory_mb.and_then(|mb| u32::try_from(mb).ok()).unwrap_or(guest.memory_mb),
        cpus: u32::try_from(req.cpus).unwrap_or(1),
        uuid,
        disk: file.map(|file| NewDisk { file, adapter: disk::adapter(req.disk_adapter) }),
        cd_image: text(&req.cd_image),
        floppy_image: text(&req.floppy_image),
        serial_file: text(&req.serial_file),
        network: match (req.network, &req.vnet) {
            (NetworkType::Bridged, _) => Network::Bridged,
            (NetworkType::Nat, _) => Network::Nat,
            (NetworkType::HostOnly, _) => Network::HostOnly,
            (NetworkType::None, _) => Network::None,
            (NetworkType::Custom, vnet) => Network::Custom(vnet.clone().unwrap_or_default()),
        },
        annotation: req.annotation.clone().unwrap_or_default(),
        nvram: "nvram".to_owned(),
    }
}

/// A name beside a directory that is nobody else's.
fn beside(directory: &Path, uuid: Uuid) -> Result<PathBuf, Error> {
    let name = directory.file_name().ok_or_else(|| Error::invalid("config", "lies in no directory"))?;
    let token: String = uuid.0.iter().map(|byte| format!("{byte:02x}")).collect();
    // The name itself may be as long as a name can be.
    let start: String = name.to_string_lossy().chars().take(40).collect();
    Ok(directory.with_file_name(format!(".{start}.new-{token}")))
}

fn sync_above(path: &Path) {
    // That the machine is durable is said by the list it is on; this only orders the two.
    if let Some(above) = path.parent()
        && let Ok(above) = std::fs::File::open(above)
    {
        let _ = above.sync_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{FixedCore, ctx_with};
    use crate::machine::Machine;
    use ops::disk::{AdapterType, DiskType};
    use std::os::unix::fs::MetadataExt;

    fn request(config: &Path) -> Create {
        Create {
            display_name: "Web server".into(),
            config: Some(ConfigPath::try_from(config.to_str().unwrap().to_owned()).unwrap()),
            guest_os: "linux".into(),
            memory_mb: Some(64),
            cpus: 2,
            disk_size: Some(Size(1 << 20)),
            disk_adapter: AdapterType::Ide,
            disk_type: DiskType::TwoGbMaxExtentSparse,
            existing_disk: None,
            network: NetworkType::Bridged,
            vnet: None,
            cd_image: None,
            floppy_image: None,
            serial_file: None,
            annotation: Some("two\nlines".into()),
            private: true,
            register: true,
        }
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o777
    }

    fn core(vms: &[&str]) -> Ctx {
        ctx_with(FixedCore {
            count: 0,
            vms: vms.iter().map(|&vm| vm.to_owned()).collect(),
            ..FixedCore::default()
        })
    }

    fn names(directory: &Path) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[tokio::test]
    async fn a_machine_with_all_its_files() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("web/web.vmx");
        let reply = create(&core(&[]), request(&config)).await.unwrap();
        let ours: Vec<_> = reply.files.iter().map(HostPath::as_str).collect();
        let path = |name: &str| root.path().join("web").join(name).to_str().unwrap().to_owned();
        assert_eq!(ours[0], path("web.vmx"));
        assert_eq!(names(root.path()), ["web"]);
        assert_eq!(names(&root.path().join("web")), ["web-s001.vmdk", "web.vmdk", "web.vmx"]);
        assert_eq!((mode(&root.path().join("web")), mode(&config)), (0o700, 0o700));
        let machine = Machine::open(&core(&[]).user, &reply.config).unwrap();
        assert_eq!(
            (machine.vmx.memory_mb(), machine.vmx.cpus(), machine.vmx.annotation()),
            (64, 2, "two\nlines")
        );
        assert_eq!(machine.vmx.disks()[0].file.as_deref(), Some("web.vmdk"));
        assert!(reply.mac_address.starts_with("00:0c:29:"), "{}", reply.mac_address);
        let disk = vmdk::Disk::open(Path::new(&path("web.vmdk")), vmdk::Mode::Read).unwrap();
        assert_eq!(disk.capacity() * SECTOR, 1 << 20);
    }

    #[tokio::test]
    async fn what_is_there_stays_and_nothing_is_added() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("web.vmx");
        std::fs::write(root.path().join("web.vmdk"), "somebody else's").unwrap();
        let error = create(&core(&[]), request(&config)).await.unwrap_err().to_string();
        assert!(error.contains("web.vmdk: File exists"), "{error}");
        assert_eq!(names(root.path()), ["web.vmdk"]);
        std::fs::write(&config, "").unwrap();
        let error = create(&core(&[]), request(&config)).await.unwrap_err().to_string();
        assert_eq!(error, "Virtual machine already exists (-20)");
        // Registered, though its file is gone.
        let gone = root.path().join("gone/gone.vmx");
        let ctx = core(&[gone.to_str().unwrap()]);
        let error = create(&ctx, request(&gone)).await.unwrap_err().to_string();
        assert_eq!(error, "Virtual machine already exists (-20)");
        let error = create(&core(&[]), request(&root.path().join("no/where/a.vmx"))).await.unwrap_err();
        assert!(error.to_string().contains("No such file or directory"), "{error}");
        assert_eq!(names(root.path()), ["web.vmdk", "web.vmx"]);
    }

    /// Makes one machine many times at once; says how often it was made.
    async fn race(config: &Path) -> usize {
        let ctx = core(&[]);
        let all: Vec<_> = (0..8)
            .map(|_| {
                let (ctx, req) = (ctx.clone(), Create { register: false, ..request(config) });
                tokio::spawn(async move { create(&ctx, req).await })
            })
            .collect();
        let mut made = 0;
        for one in all {
            match one.await.unwrap() {
                Ok(_) => made += 1,
                Err(error) => assert_eq!(error.to_string(), "Virtual machine already exists (-20)"),
            }
        }
        made
    }

    #[tokio::test]
    async fn of_many_who_make_the_same_machine_one_succeeds() {
        let root = tempfile::tempdir().unwrap();
        for round in 0..20 {
            let (new, there) =
                (root.path().join(format!("new{round}")), root.path().join(format!("{round}")));
            std::fs::create_dir(&there).unwrap();
            for directory in [new, there] {
                assert_eq!(race(&directory.join("a.vmx")).await, 1);
                assert_eq!(names(&directory), ["a-s001.vmdk", "a.vmdk", "a.vmx"]);
            }
        }
        assert!(names(root.path()).iter().all(|name| !name.starts_with('.')), "{:?}", names(root.path()));
    }

    #[tokio::test]
    async fn a_locked_directory_only_takes_time() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("a/a.vmx");
        std::fs::create_dir(root.path().join("a")).unwrap();
        let held = turn(&root.path().join("a")).unwrap();
        let start = Instant::now();
        assert!(create(&core(&[]), request(&config)).await.is_ok());
        assert!(start.elapsed() >= TURN_WAIT);
        drop(held);
    }

    #[tokio::test]
    async fn requests_that_contradict_themselves() {
        let root = tempfile::tempdir().unwrap();
        let base = request(&root.path().join("a/a.vmx"));
        let cases = [
            ("displayName", Create { display_name: "a/b".into(), ..base.clone() }),
            ("displayName", Create { display_name: "..".into(), config: None, ..base.clone() }),
            ("vnet", Create { network: NetworkType::Custom, ..base.clone() }),
            ("vnet", Create { vnet: Some("vmnet2".into()), ..base.clone() }),
            ("guestOS", Create { guest_os: "a\nb".into(), ..base.clone() }),
            ("diskSize", Create { disk_size: Some(Size(u64::MAX)), ..base.clone() }),
            (
                "existingDisk",
                Create { existing_disk: Some(HostPath::try_from("/d".to_owned()).unwrap()), ..base.clone() },
            ),
        ];
        for (field, req) in cases {
            let error = create(&core(&[]), req).await.unwrap_err().to_string();
            assert!(error.starts_with(&format!("Invalid argument: {field}: ")), "{error}");
        }
        assert!(names(root.path()).is_empty());
    }

    #[tokio::test]
    async fn without_a_disk_and_in_a_directory_that_everybody_reads() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("a/a.vmx");
        let req = Create {
            disk_size: Some(Size(0)),
            private: false,
            network: NetworkType::None,
            ..request(&config)
        };
        let reply = create(&core(&[]), req).await.unwrap();
        assert_eq!((reply.files.len(), reply.mac_address.as_str()), (1, ""));
        assert_eq!((mode(config.parent().unwrap()), mode(&config)), (0o755, 0o755));
    }
}
