//! From the .vmx to the machine that is built.
//!
//! What this engine does not have is left out, each thing with a notice that names its key; what
//! cannot be left out without the guest noticing at once (a disk on a SCSI controller) is refused.

use std::path::{Path, PathBuf};

use hypervisor::vmx_file::{Bus, DiskMode, DriveKind, SerialTarget, VmxFile};

use crate::chips::cmos::BootDevice;

/// Most memory, in MiB: what a machine of this engine can have. Ours.
pub const MEMORY_MAX_MB: u32 = 64 * 1024;

/// Most processors. Ours.
pub const CPUS_MAX: u32 = 32;

/// A machine to build.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Memory in bytes.
    pub memory: u64,
    /// Processors.
    pub cpus: u8,
    /// `uuid.bios`.
    pub uuid: [u8; 16],
    /// Drives on the two IDE channels.
    pub drives: Vec<PlannedDrive>,
    /// The first floppy drive, if there is one.
    pub floppy: Option<PlannedFloppy>,
    /// Serial ports by number.
    pub serial: Vec<PlannedSerial>,
    /// In which order drives are tried.
    pub boot: Vec<BootDevice>,
    /// A kernel that is started instead of a BIOS.
    pub kernel: Option<PlannedKernel>,
    /// What was left out, in sentences.
    pub notices: Vec<String>,
}

/// A drive on an IDE channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedDrive {
    /// `ide0:0`.
    pub name: String,
    /// 0 or 1.
    pub channel: usize,
    /// 0 or 1.
    pub unit: usize,
    /// A CD drive, not a disk.
    pub cd: bool,
    /// Its file, absolute; CD drives may have none.
    pub file: Option<PathBuf>,
    /// What becomes of writes.
    pub mode: DiskMode,
    /// The file with the writes kept aside, absolute.
    pub redo: Option<PathBuf>,
    /// It was being merged into the disk: `redoCommit`.
    pub committing: bool,
    /// Connected at power on.
    pub connected: bool,
}

/// A floppy drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedFloppy {
    /// `floppy0`.
    pub name: String,
    /// Its image, absolute.
    pub file: PathBuf,
    /// Connected at power on.
    pub connected: bool,
}

/// A serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSerial {
    /// 0 to 3.
    pub number: u32,
    /// A file that takes what the guest sends, absolute.
    pub file: Option<PathBuf>,
}

/// A kernel that is started directly: `vmserverd.kernel`, `.initrd`, `.cmdline`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedKernel {
    /// The kernel, absolute.
    pub kernel: PathBuf,
    /// Its first file system, absolute.
    pub initrd: Option<PathBuf>,
    /// Its command line.
    pub cmdline: String,
}

/// Why a configuration cannot be run. The text names the key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unusable(pub String);

impl Plan {
    /// Plans the machine of the .vmx in `directory`.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn of(vmx: &VmxFile, directory: &Path) -> Result<Self, Unusable> {
        if !vmx.is_usable() {
            return Err(Unusable("config.version is missing: this is no configuration of a machine".into()));
        }
        let refuse = |text: String| Err(Unusable(text));
        let memory_mb = vmx.memory_mb();
        if memory_mb > MEMORY_MAX_MB {
            return refuse(format!("memsize is {memory_mb}; a machine can have at most {MEMORY_MAX_MB} MB"));
        }
        let cpus = vmx.cpus();
        if cpus > CPUS_MAX {
            return refuse(format!("numvcpus is {cpus}; a machine can have at most {CPUS_MAX}"));
        }
        let absolute = |name: &str| directory.join(name);
        let mut notices = Vec::new();
        let mut drives = Vec::new();
        for drive in vmx.drives() {
            let name = drive.name();
            if drive.bus == Bus::Scsi {
                if drive.kind == DriveKind::HardDisk {
                    return refuse(format!(
                        "{name} is a SCSI disk, and there are no SCSI controllers yet; ideX:Y works"
                    ));
                }
                notices.push(format!("{name} is left out: there are no SCSI controllers yet."));
                continue;
            }
            let cd = match &drive.kind {
                DriveKind::HardDisk => false,
                DriveKind::CdImage => true,
                DriveKind::CdHost => {
                    notices
                        .push(format!("{name} is a CD drive of the host: it stays empty; an image works."));
                    true
                }
                DriveKind::Other(kind) => {
                    notices.push(format!("{name} is left out: its deviceType {kind} is not known."));
                    continue;
                }
            };
            let host = drive.kind == DriveKind::CdHost;
            let file = drive.file.as_deref().filter(|_| !host).map(absolute);
            if !cd && file.is_none() {
                notices.push(format!("{name} is left out: it has no fileName."));
                continue;
            }
            drives.push(PlannedDrive {
                channel: usize::try_from(drive.controller).unwrap_or(0),
                unit: usize::try_from(drive.unit).unwrap_or(0),
                cd,
                connected: drive.start_connected && file.is_some(),
                file,
                mode: drive.mode,
                redo: drive.redo.as_deref().map(absolute),
                committing: vmx.flag(&format!("{name}.redoCommit"), false),
                name,
            });
        }
        let floppy = plan_floppy(vmx, directory, &mut notices);
        let serial = plan_serial(vmx, directory, &mut notices);
        for adapter in vmx.network_adapters() {
            notices
                .push(format!("ethernet{} is left out: there are no network adapters yet.", adapter.number));
        }
        for key in ["sound.present", "usb.present", "parallel0.present"] {
            if vmx.flag(key, false) {
                notices.push(format!("{key}: there is no such device yet; it is left out."));
            }
        }
        let kernel = vmx.get_filled("vmserverd.kernel").map(|kernel| PlannedKernel {
            kernel: absolute(kernel),
            initrd: vmx.get_filled("vmserverd.initrd").map(absolute),
            cmdline: vmx.get("vmserverd.cmdline").unwrap_or_default().to_owned(),
        });
        let uuid = vmx.uuid_bios().map_or([0; 16], |uuid| uuid.0);
        Ok(Plan {
            memory: u64::from(memory_mb) << 20,
            cpus: u8::try_from(cpus).unwrap_or(1),
            uuid,
            drives,
            floppy,
            serial,
            boot: boot_order(vmx, &mut notices),
            kernel,
            notices,
        })
    }
}

fn plan_floppy(vmx: &VmxFile, directory: &Path, notices: &mut Vec<String>) -> Option<PlannedFloppy> {
    let mut planned = None;
    for floppy in vmx.floppies() {
        let name = format!("floppy{}", floppy.number);
        match (&floppy.file, floppy.is_image) {
            _ if floppy.number > 0 => notices.push(format!("{name} is left out: there is one floppy drive.")),
            (Some(file), true) => {
                planned = Some(PlannedFloppy {
                    name,
                    file: directory.join(file),
                    connected: floppy.start_connected,
                });
            }
            (_, false) => {
                notices.push(format!("{name} is a drive of the host: it is left out; an image works."));
            }
            (None, true) => notices.push(format!("{name} is left out: it has no fileName.")),
        }
    }
    planned
}

fn plan_serial(vmx: &VmxFile, directory: &Path, notices: &mut Vec<String>) -> Vec<PlannedSerial> {
    let mut planned = Vec::new();
    for port in vmx.serial_ports() {
        let file = match port.target {
            SerialTarget::File => port.file.as_deref().filter(|_| port.start_connected),
            SerialTarget::Device | SerialTarget::Pipe => {
                if port.file.is_some() {
                    let number = port.number;
                    notices.push(format!(
                        "serial{number} is not connected to its fileName: only files are yet."
                    ));
                }
                None
            }
        };
        planned.push(PlannedSerial { number: port.number, file: file.map(|file| directory.join(file)) });
    }
    planned
}

/// `bios.bootOrder`: words separated by commas; what is not named comes after, in the usual order.
fn boot_order(vmx: &VmxFile, notices: &mut Vec<String>) -> Vec<BootDevice> {
    let mut order = Vec::new();
    let words = vmx.get_filled("bios.bootOrder").unwrap_or_default();
    for word in words.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        let device = match word.to_ascii_lowercase().as_str() {
            "floppy" => BootDevice::Floppy,
            "hdd" => BootDevice::HardDisk,
            "cdrom" => BootDevice::Cd,
            _ => {
                notices.push(format!("bios.bootOrder: {word} is left out; known are floppy, hdd and cdrom."));
                continue;
            }
        };
        if !order.contains(&device) {
            order.push(device);
        }
    }
    for device in [BootDevice::Floppy, BootDevice::HardDisk, BootDevice::Cd] {
        if !order.contains(&device) {
            order.push(device);
        }
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan, Unusable> {
        let text = format!("config.version = \"8\"\n{text}");
        Plan::of(&VmxFile::parse(text.as_bytes()), Path::new("/vm"))
    }

    #[test]
    fn what_there_is_and_what_is_left_out() {
        let plan = plan(
            "memsize = \"64\"\nnumvcpus = \"2\"\nide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n\
             ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-raw\"\nide1:0.fileName = \"/dev/cdrom\"\n\
             ide1:1.present = \"TRUE\"\nide1:1.fileName = \"/iso/x.iso\"\nethernet0.present = \"TRUE\"\n\
             sound.present = \"TRUE\"\nserial0.present = \"TRUE\"\nserial0.fileType = \"file\"\n\
             serial0.fileName = \"out.txt\"\nfloppy0.fileType = \"file\"\nfloppy0.fileName = \"f.img\"\n\
             bios.bootOrder = \"cdrom, net\"\nvmserverd.kernel = \"k\"\n",
        )
        .unwrap();
        assert_eq!((plan.memory, plan.cpus), (64 << 20, 2));
        let drives: Vec<_> = plan
            .drives
            .iter()
            .map(|drive| (drive.name.as_str(), drive.cd, drive.file.as_deref(), drive.connected))
            .collect();
        let path = |text| Some(Path::new(text));
        assert_eq!(
            drives,
            [
                ("ide0:0", false, path("/vm/a.vmdk"), true),
                ("ide1:0", true, None, false),
                ("ide1:1", true, path("/iso/x.iso"), true)
            ]
        );
        assert_eq!(plan.boot, [BootDevice::Cd, BootDevice::Floppy, BootDevice::HardDisk]);
        assert_eq!(plan.serial, [PlannedSerial { number: 0, file: Some("/vm/out.txt".into()) }]);
        assert_eq!(plan.floppy.unwrap().file, Path::new("/vm/f.img"));
        assert_eq!(plan.kernel.unwrap().kernel, Path::new("/vm/k"));
        for key in ["ide1:0", "ethernet0", "sound.present", "bios.bootOrder"] {
            assert!(plan.notices.iter().any(|notice| notice.starts_with(key)), "{key}: {:?}", plan.notices);
        }
        assert_eq!(plan.notices.len(), 4);
    }

    #[test]
    fn what_cannot_be_run_says_which_key() {
        let scsi = "scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n";
        for (text, key) in
            [(scsi, "scsi0:0"), ("memsize = \"99999999\"\n", "memsize"), ("numvcpus = \"64\"\n", "numvcpus")]
        {
            assert!(plan(text).unwrap_err().0.contains(key));
        }
        assert!(Plan::of(&VmxFile::new(), Path::new("/vm")).is_err());
    }
}
