//! `VMDeleteInfo_*`, `VMDeleteEdit_*`: what a machine's files are, and removing them.
//!
//! Which files belong to a machine is decided by `hypervisor::vmx_file::machine_files`, which trusts no
//! name in a .vmx or a descriptor. A file that another registered machine uses is kept; two names of
//! one file count as one.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use handlers_derive::handler;
use hypervisor::vmdk::{self, FileOpener};
use hypervisor::vmx_file::{FileKind, MachineFile, VmxFile, machine_files};
use ops::Error;
use ops::machine::PowerState;
use ops::value::{ConfigPath, HostPath, Size};
use ops::vm_delete::{Delete, DeleteInfo, DeleteInfoReply, DeleteReply, FileType, VmFile};

use crate::machine::{self, Facts, Machine};
use crate::registered::Listed;
use crate::{Ctx, Failure, User, vm_list};

/// Device and inode.
type Identity = (u64, u64);

/// What deleting a machine would take.
#[handler]
async fn delete_info(ctx: &Ctx, req: DeleteInfo) -> Result<DeleteInfoReply, Failure> {
    let registered = ctx.core.registered().await?;
    let running = ctx.core.running().await?;
    let (user, config) = (ctx.user.clone(), req.config.clone());
    let (machine, files) = blocking("looking at the files of a machine", move || {
        let machine = Machine::open(&user, &config).map_err(|_| Error::not_registered(config.as_str()))?;
        let files = files_of(&machine)?;
        Ok((machine, files))
    })
    .await?;
    let used = in_use(ctx, &req.config, files.iter().map(|file| file.identity).collect()).await?;
    let user = ctx.user.clone();
    blocking("looking at the files of a machine", move || {
        let config = req.config;
        let facts = Facts::of(&machine, running.get(config.as_str()).cloned());
        let going: Vec<&Path> = files
            .iter()
            .filter(|file| !used.contains(&file.identity))
            .map(|file| file.path.as_path())
            .collect();
        let directories = emptied(&config, &going);
        let listed = |file: &MachineFile| {
            Some(VmFile {
                path: host_path(&file.path)?,
                kind: file_type(file.kind),
                size: Size(file.size),
                shared: used.contains(&file.identity),
            })
        };
        Ok(DeleteInfoReply {
            display_name: facts.display_name.clone(),
            registered: registered.get(config.as_str()).is_some(),
            can_delete: facts.state.power == PowerState::Off && may_administer(&user, &machine),
            state: facts.state,
            files: files.iter().filter_map(listed).collect(),
            directories: directories.iter().filter_map(|path| host_path(path)).collect(),
            config,
        })
    })
    .await
}

/// Unregisters a machine, then deletes its files.
#[handler]
async fn delete(ctx: &Ctx, req: Delete) -> Result<DeleteReply, Failure> {
    let machine = machine::visible(ctx, &req.config).await?;
    let state = machine::facts(ctx, &machine).await?.state;
    if !may_administer(&ctx.user, &machine) {
        return Err(Error::no_access(&req.config).into());
    }
    match state.power {
        PowerState::Off => {}
        PowerState::Suspended if req.force => {}
        PowerState::Suspended => return Err(Error::state_conflict("delete", "suspended").into()),
        _ => return Err(Error::state_conflict("delete", "on").into()),
    }
    let config = req.config.clone();
    let chosen = blocking("looking at the files of a machine", move || choose(&machine, &req)).await?;
    let used = in_use(ctx, &config, chosen.iter().map(|file| file.identity).collect()).await?;
    let plan = plan(&config, chosen, &used);
    // From here on it goes to its end, whether or not somebody waits for the answer.
    let ctx = ctx.clone();
    let work = async move {
        let proof = vm_list::proof(&config).await?;
        ctx.core.unregister(config.as_str(), true, proof).await?;
        blocking("deleting files", move || Ok(carry_out(&config, plan)?)).await
    };
    tokio::spawn(work).await.map_err(|error| Failure::internal("deleting a machine", error))?
}

async fn blocking<T: Send + 'static>(
    attempt: &'static str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Failure::internal(attempt, error))?
}

/// What is to be deleted, in order, and what is kept.
struct Plan {
    files: Vec<PathBuf>,
    warnings: Vec<String>,
}

/// A file that is to be deleted unless somebody uses it.
struct Chosen {
    path: PathBuf,
    identity: Identity,
}

/// What the request names, or else everything that is the machine's, without the .vmx.
fn choose(machine: &Machine, req: &Delete) -> Result<Vec<Chosen>, Failure> {
    let all = files_of(machine)?;
    let is_disk = |file: &MachineFile| matches!(file.kind, FileKind::Disk | FileKind::Redo);
    let config = clean(&req.config);
    let directory = Path::new(req.config.as_str()).parent().unwrap_or(Path::new("/"));
    let mut chosen = Vec::new();
    match &req.files {
        None => {
            for file in all.into_iter().filter(|file| req.delete_disks || !is_disk(file)) {
                chosen.push(Chosen { path: file.path, identity: file.identity });
            }
        }
        Some(named) => {
            for name in named {
                // Compared without `.` and doubled slashes, and never through `..`.
                let path: PathBuf = Path::new(name.as_str()).components().collect();
                let upwards = path.components().any(|part| part.as_os_str() == "..");
                let known = all.iter().find(|file| file.path == path);
                if upwards || (known.is_none() && !path.starts_with(directory)) {
                    let why = format!("{name} is neither in the machine's directory nor named by its .vmx");
                    return Err(Error::invalid("files", why).into());
                }
                let facts = std::fs::symlink_metadata(&path).map_err(|error| Error::file(name, &error))?;
                if facts.is_dir() {
                    return Err(Error::invalid("files", format!("{name} is a directory")).into());
                }
                if req.delete_disks || !known.is_some_and(is_disk) {
                    chosen.push(Chosen { path, identity: (facts.dev(), facts.ino()) });
                }
            }
        }
    }
    chosen.retain(|file| file.path != config);
    Ok(chosen)
}

fn clean(config: &ConfigPath) -> PathBuf {
    Path::new(config.as_str()).components().collect()
}

fn plan(config: &ConfigPath, chosen: Vec<Chosen>, used: &HashSet<Identity>) -> Plan {
    let mut plan = Plan { files: Vec::new(), warnings: Vec::new() };
    for Chosen { path, identity } in chosen {
        if used.contains(&identity) {
            plan.warnings.push(format!("{} is kept: another registered machine uses it", path.display()));
        } else {
            plan.files.push(path);
        }
    }
    // Without it the machine could not be found again: it goes last.
    plan.files.push(clean(config));
    plan
}

fn carry_out(config: &ConfigPath, plan: Plan) -> Result<DeleteReply, Error> {
    let Plan { files, warnings } = plan;
    let mut gone = Vec::new();
    let mut failed = None;
    for path in files {
        match std::fs::remove_file(&path) {
            Ok(()) => gone.extend(host_path(&path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                failed = Some(Error::file(&path, &error));
                break;
            }
        }
    }
    if failed.is_none()
        && let Some(directory) = Path::new(config.as_str()).parent()
    {
        // One that is not empty stays, and so does one that the caller may not remove.
        let _ = std::fs::remove_dir(directory);
    }
    let reply = DeleteReply { config: config.clone(), files: gone, warnings };
    match failed {
        None => Ok(reply),
        Some(error) => Err(error.finished(&reply)),
    }
}

fn files_of(machine: &Machine) -> Result<Vec<MachineFile>, Failure> {
    machine_files(&FileOpener, machine.config.as_ref(), &machine.vmx)
        .map_err(|error| Error::file(&machine.config, &error).into())
}

/// Which of these files other registered machines use: those that this process can read, and those of
/// other users, who are asked.
async fn in_use(ctx: &Ctx, config: &ConfigPath, files: Vec<Identity>) -> Result<HashSet<Identity>, Failure> {
    let registered = ctx.core.registered().await?;
    let others = ctx.core.used_by_others(config.as_str(), files.clone());
    let (user, config) = (ctx.user.clone(), config.clone());
    let ours = blocking("looking at the files of machines", move || {
        let other = |listed: &&Listed| *listed.config != *config.as_str();
        let configs: Vec<String> =
            registered.iter().filter(other).map(|listed| listed.config.to_string()).collect();
        Ok(files_used_by(&user, &configs, &files.into_iter().collect()))
    });
    let (others, mut used) = (others.await?, ours.await?);
    used.extend(others);
    Ok(used)
}

/// Which of these files (device and inode) are used by these machines, as far as this process can read
/// them. May wait for the file system.
#[must_use]
pub fn files_used_by(user: &User, configs: &[String], wanted: &HashSet<Identity>) -> HashSet<Identity> {
    let mut used = HashSet::new();
    for config in configs {
        let Ok(path) = ConfigPath::try_from(config.clone()) else { continue };
        let Ok(machine) = Machine::open(user, &path) else { continue };
        // Parents of disks too, wherever they lie: a child is lost without them.
        used.extend(disk_files(&path, &machine.vmx).into_iter().filter(|file| wanted.contains(file)));
        if let Ok(files) = machine_files(&FileOpener, path.as_ref(), &machine.vmx) {
            used.extend(files.iter().map(|file| file.identity).filter(|file| wanted.contains(file)));
        }
    }
    used
}

/// Every file of every disk of a machine, the parents included.
fn disk_files(config: &ConfigPath, vmx: &VmxFile) -> HashSet<Identity> {
    let directory = Path::new(config.as_str()).parent().unwrap_or(Path::new("/"));
    let mut all = HashSet::new();
    for drive in vmx.disks() {
        for name in [drive.file, drive.redo].into_iter().flatten() {
            for file in vmdk::files(&FileOpener, &directory.join(name)).unwrap_or_default() {
                if let Ok(facts) = std::fs::metadata(&file.path) {
                    all.insert((facts.dev(), facts.ino()));
                }
            }
        }
    }
    all
}

/// The machine's directory if nothing but these files is in it.
fn emptied(config: &ConfigPath, going: &[&Path]) -> Vec<PathBuf> {
    let Some(directory) = Path::new(config.as_str()).parent() else { return Vec::new() };
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let going: BTreeSet<_> = going
        .iter()
        .filter(|path| path.parent() == Some(directory))
        .filter_map(|path| path.file_name())
        .collect();
    let stays =
        |entry: io::Result<std::fs::DirEntry>| !entry.is_ok_and(|entry| going.contains(&*entry.file_name()));
    if entries.into_iter().any(stays) { Vec::new() } else { vec![directory.to_owned()] }
}

/// Whether the caller has all rights on a machine. Root needs no execute bit for this.
fn may_administer(user: &User, machine: &Machine) -> bool {
    user.uid == 0 || (machine.rights.write && machine.rights.execute)
}

fn host_path(path: &Path) -> Option<HostPath> {
    HostPath::try_from(path.to_str()?.to_owned()).ok()
}

fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Config => FileType::Config,
        FileKind::Nvram => FileType::Nvram,
        FileKind::Log => FileType::Log,
        FileKind::Disk => FileType::Disk,
        FileKind::Redo => FileType::Redo,
        FileKind::Suspend => FileType::Suspend,
        FileKind::Snapshot => FileType::Snapshot,
    }
}
