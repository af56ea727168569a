//! Opens what the plan names: disks, CD images, the floppy image, files behind serial ports.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use hypervisor::vmdk::{self, Disk, Geometry, Mode};
use hypervisor::vmx_file::DiskMode;

use crate::chips::ata::Unit;
use crate::medium::{Medium, cd_blocks};
use crate::plan::{PlannedDrive, PlannedSerial};

/// Largest floppy image, in bytes.
const FLOPPY_MAX: u64 = 2880 * 1024;

/// Why something cannot be opened. The text names the device and the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A disk.
    #[error("{name}: {source}")]
    Disk {
        /// `ide0:0`.
        name: String,
        /// Why not.
        source: vmdk::Error,
    },
    /// Another file.
    #[error("{name}: {}: {source}", path.display())]
    File {
        /// `ide1:0`, `floppy0`, `serial0`.
        name: String,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A unit of an IDE channel and its medium.
pub type Drive = (Unit, Option<Medium>);

/// Opens the drive of a plan; its redo log is there already, see [`crate::redo`].
///
/// # Errors
/// [`Error`].
pub fn open(drive: &PlannedDrive) -> Result<Drive, Error> {
    let serial = format!("{:08}", drive.channel * 2 + drive.unit + 1);
    if drive.cd {
        let path = drive.file.as_deref().filter(|_| drive.connected);
        let medium = path.map(|path| open_cd(&drive.name, path)).transpose()?;
        let (medium, blocks) = medium.unzip();
        return Ok((Unit::cd(blocks, serial), medium));
    }
    let path = drive.file.as_deref().unwrap_or(Path::new(""));
    let failed = |source| Error::Disk { name: drive.name.clone(), source };
    let path = match drive.mode {
        DiskMode::Undoable | DiskMode::IndependentNonpersistent => drive.redo.as_deref().unwrap_or(path),
        DiskMode::Persistent | DiskMode::IndependentPersistent => path,
    };
    let disk = Disk::open(path, Mode::Write).map_err(failed)?;
    let geometry = Geometry::of(vmdk::Adapter::Ide, disk.capacity());
    let small = |value: u32| u8::try_from(value).unwrap_or(u8::MAX);
    let cylinders = u16::try_from(geometry.cylinders.max(1)).unwrap_or(u16::MAX);
    let unit =
        Unit::disk(disk.capacity(), (cylinders, small(geometry.heads), small(geometry.sectors)), serial);
    Ok((unit, Some(Medium::Disk(disk))))
}

/// Opens a CD image; returns it with its number of blocks.
///
/// # Errors
/// [`Error`].
pub fn open_cd(name: &str, path: &Path) -> Result<(Medium, u32), Error> {
    let failed = |source| Error::File { name: name.to_owned(), path: path.to_owned(), source };
    let file = open_regular(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    let blocks = cd_blocks(size)
        .ok_or_else(|| failed(io::Error::new(io::ErrorKind::InvalidData, "empty, or larger than any CD")))?;
    Ok((Medium::Cd(file), blocks))
}

/// Reads a floppy image.
///
/// # Errors
/// [`Error`].
pub fn read_floppy(name: &str, path: &Path) -> Result<Vec<u8>, Error> {
    use io::Read;
    let failed = |source| Error::File { name: name.to_owned(), path: path.to_owned(), source };
    let file = open_regular(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(FLOPPY_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.is_empty() || bytes.len() as u64 > FLOPPY_MAX {
        let text = "no image of a floppy: empty, or larger than 2880 KiB";
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, text)));
    }
    Ok(bytes)
}

fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Opens the file that takes a serial port's output, at its end.
///
/// # Errors
/// [`Error`].
pub fn open_serial(port: &PlannedSerial) -> Result<Option<File>, Error> {
    use std::os::unix::fs::OpenOptionsExt;
    let Some(path) = &port.file else { return Ok(None) };
    let failed = |source| Error::File { name: format!("serial{}", port.number), path: path.clone(), source };
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let options = File::options().append(true).create(true).mode(0o600).custom_flags(flags).open(path);
    let file = options.map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    Ok(Some(file))
}
