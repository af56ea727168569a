//! `VMRegister`, `VMUnRegister`: the caller's right, proven with a descriptor, and the core's list.
//!
//! The process opens what the caller may open and passes it on; the core looks at the descriptor, not
//! at our word.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use handlers_derive::handler;
use hypervisor::vmx_file::VmxFile;
use ops::Error;
use ops::value::ConfigPath;
use ops::vm_list::{Register, RegisterReply, Unregister, UnregisterReply};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::machine::display_name;
use crate::{Ctx, Failure};

/// Registers a machine that the caller may do everything with.
#[handler]
async fn register(ctx: &Ctx, req: Register) -> Result<RegisterReply, Failure> {
    let path = req.config.clone();
    let look = move || -> io::Result<(File, VmxFile)> {
        let file = open_vmx(path.as_ref())?;
        let vmx = VmxFile::read(&file)?;
        Ok((file, vmx))
    };
    let looked = tokio::task::spawn_blocking(look)
        .await
        .map_err(|error| Failure::internal("reading a .vmx", error))?;
    // What cannot be read, for whatever reason, is no machine to this caller.
    let (file, vmx) = looked.map_err(|_| Error::no_such_vm())?;
    if !vmx.is_usable() {
        return Err(Error::no_such_vm().into());
    }
    ctx.core.register(req.config.as_str(), false, file.into()).await?;
    Ok(RegisterReply { display_name: display_name(&vmx, &req.config), config: req.config })
}

/// Takes a machine off the list.
#[handler]
async fn unregister(ctx: &Ctx, req: Unregister) -> Result<UnregisterReply, Failure> {
    let proof = proof(&req.config).await?;
    ctx.core.unregister(req.config.as_str(), false, proof).await?;
    Ok(UnregisterReply { config: req.config })
}

/// What proves the caller's right to take a machine off the list.
pub(crate) async fn proof(config: &ConfigPath) -> Result<OwnedFd, Failure> {
    let path = config.clone();
    let looked = tokio::task::spawn_blocking(move || proof_of(path.as_ref()))
        .await
        .map_err(|error| Failure::internal("opening a .vmx", error))?;
    looked.map_err(|_| Error::no_such_vm().into())
}

/// The .vmx, or, when it is gone, the nearest directory above that is there.
fn proof_of(config: &Path) -> io::Result<OwnedFd> {
    match open_vmx(config) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => return other.map(Into::into),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    for directory in config.ancestors().skip(1) {
        let opened = rustix::fs::open(directory, flags, Mode::empty());
        match opened.or_else(|_| rustix::fs::open(directory, flags | OFlags::PATH, Mode::empty())) {
            Err(Errno::NOENT) => {}
            other => return Ok(other?),
        }
    }
    Err(Errno::NOENT.into())
}

/// Opens a .vmx for reading and writing, or, where that is not allowed, for reading: enough for root
/// on a file system that cannot be written to.
pub(crate) fn open_vmx(config: &Path) -> io::Result<File> {
    // A pipe must not hold us, nor a terminal become ours.
    let flags = OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = |access| rustix::fs::open(config, flags | access, Mode::empty());
    let opened = match open(OFlags::RDWR) {
        Err(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::TXTBSY) => open(OFlags::RDONLY),
        other => other,
    };
    Ok(File::from(opened?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::ctx;

    fn config(path: &Path) -> ConfigPath {
        ConfigPath::try_from(path.to_str().unwrap().to_owned()).unwrap()
    }

    #[tokio::test]
    async fn only_a_machine_is_registered() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.vmx");
        let ask = async |path: &Path| register(&ctx(), Register { config: config(path) }).await;
        for contents in [None, Some(""), Some("displayName = \"x\"\n")] {
            if let Some(contents) = contents {
                std::fs::write(&path, contents).unwrap();
            }
            let error = ask(&path).await.unwrap_err().to_string();
            assert_eq!(error, "No such virtual machine (-11)", "{contents:?}");
        }
        assert!(ask(directory.path()).await.is_err());
        std::fs::write(&path, "config.version = \"8\"\ndisplayName = \"A b\"\n").unwrap();
        assert_eq!(ask(&path).await.unwrap().display_name, "A b");
        std::fs::write(&path, "config.version = \"8\"\n").unwrap();
        assert_eq!(ask(&path).await.unwrap().display_name, "a");
    }

    #[test]
    fn the_proof_is_the_file_or_what_is_left_of_its_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x/y/a.vmx");
        let is_directory = |fd: OwnedFd| File::from(fd).metadata().unwrap().is_dir();
        assert!(is_directory(proof_of(&path).unwrap()));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        assert!(is_directory(proof_of(&path).unwrap()));
        std::fs::write(&path, "").unwrap();
        assert!(!is_directory(proof_of(&path).unwrap()));
    }
}
