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

/// Devices that are left out, by the key that asks for them.
const LEFT_OUT: [&str; 8] = [
    "sound.present",
    "usb.present",
    "ehci.present",
    "parallel0.present",
    "parallel1.present",
    "parallel2.present",
    "sata0.present",
    "vmci0.present",
];

/// Farthest that the clock of a machine may be from UTC, in seconds: a hundred years. Ours.
const CLOCK_MAX: i64 = 100 * 366 * 86_400;

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
    /// Seconds that its clock is ahead of UTC.
    pub clock_offset: i64,
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
        for key in ["memsize", "numvcpus"] {
            let said = vmx.get(key).map(str::trim).filter(|said| !said.is_empty());
            if let Some(said) = said.filter(|said| said.parse::<u32>().is_err()) {
                return refuse(format!("{key} is {said:?}, which is not a number that it can have"));
            }
        }
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
        for controller in vmx.scsi_controllers() {
            // The drives on it were named already.
            let number = controller.number;
            if !notices.iter().any(|notice| notice.starts_with(&format!("scsi{number}:"))) {
                notices.push(format!("scsi{number} is left out: there are no SCSI controllers yet."));
            }
        }
        for key in LEFT_OUT {
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
            clock_offset: clock_offset(vmx, &mut notices),
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
                notices
                    .push(format!("floppy{} is for reading: what is written to it is lost.", floppy.number));
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

/// `RTC.diffFromUTC`: seconds; the clock shows UTC where nothing is said.
fn clock_offset(vmx: &VmxFile, notices: &mut Vec<String>) -> i64 {
    let Some(text) = vmx.get_filled("RTC.diffFromUTC") else { return 0 };
    let seconds = text.trim().parse().ok().filter(|seconds: &i64| seconds.abs() <= CLOCK_MAX);
    seconds.unwrap_or_else(|| {
        notices.push(format!("RTC.diffFromUTC is {text}, no number of seconds: the clock shows UTC."));
        0
    })
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
        for key in ["ide1:0", "ethernet0", "sound.present", "bios.bootOrder", "floppy0"] {
            assert!(plan.notices.iter().any(|notice| notice.starts_with(key)), "{key}: {:?}", plan.notices);
        }
        assert_eq!(plan.notices.len(), 5);
    }

    #[test]
    fn every_device_that_is_left_out_is_named_once() {
        let lines = [
            ("scsi0", "scsi0.present = \"TRUE\""),
            (
                "scsi1:3",
                "scsi1.present = \"TRUE\"\nscsi1:3.present = \"TRUE\"\nscsi1:3.deviceType = \"cdrom-image\"",
            ),
            ("ethernet3", "ethernet3.present = \"TRUE\""),
            ("sound.present", "sound.present = \"TRUE\"\nsound.virtualDev = \"es1371\""),
            ("usb.present", "usb.present = \"TRUE\""),
            ("ehci.present", "ehci.present = \"TRUE\""),
            ("parallel1.present", "parallel1.present = \"TRUE\""),
            ("sata0.present", "sata0.present = \"TRUE\""),
            ("vmci0.present", "vmci0.present = \"TRUE\""),
            (
                "serial1",
                "serial1.present = \"TRUE\"\nserial1.fileType = \"pipe\"\nserial1.fileName = \"/tmp/p\"",
            ),
            (
                "serial2",
                "serial2.present = \"TRUE\"\nserial2.fileType = \"device\"\nserial2.fileName = \"/dev/ttyS0\"",
            ),
            (
                "floppy1",
                "floppy1.present = \"TRUE\"\nfloppy1.fileType = \"file\"\nfloppy1.fileName = \"f.img\"",
            ),
            ("floppy0", "floppy0.present = \"TRUE\"\nfloppy0.fileName = \"/dev/fd0\""),
            ("ide0:1", "ide0:1.present = \"TRUE\"\nide0:1.deviceType = \"tape\""),
            ("ide1:1", "ide1:1.present = \"TRUE\"\nide1:1.fileName = \"auto detect\""),
            ("ide1:0", "ide1:0.present = \"TRUE\""),
            ("RTC.diffFromUTC", "RTC.diffFromUTC = \"soon\""),
        ];
        for (name, text) in lines {
            let notices = plan(&format!("{text}\n")).unwrap().notices;
            assert_eq!(notices.len(), 1, "{notices:?}");
            assert!(notices[0].starts_with(name), "{notices:?}");
        }
        let text: String = lines.iter().map(|(_, text)| format!("{text}\n")).collect();
        assert_eq!(plan(&text).unwrap().notices.len(), lines.len());
        assert_eq!(plan("rtc.diffFromUtc = \"-3600\"\n").unwrap().clock_offset, -3600);
        assert_eq!(plan("rtc.diffFromUtc = \"99999999999\"\n").unwrap().clock_offset, 0);
    }

    /// B8: cut off anywhere, a .vmx is a machine with less in it, or refused; at once, and without a panic.
    #[test]
    fn cut_off_at_every_byte() {
        let mut text = String::from(
            "config.version = \"8\"\nmemsize = \"64\"\nnumvcpus = \"2\"\nuuid.bios = \"56 4d 01 02 03 04 05 06-07 08 09 0a \
             0b 0c 0d 0e\"\nide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\nscsi0.present = \"TRUE\"\nscsi0:0.present = \
             \"TRUE\"\nscsi0:0.deviceType = \"cdrom-raw\"\nethernet0.present = \"TRUE\"\nserial0.present = \"TRUE\"\nfloppy0.fileType \
             = \"file\"\nfloppy0.fileName = \"f|22.img\"\nbios.bootOrder = \"cdrom,hdd\"\nvmserverd.kernel = \"k\"\n",
        );
        let core = text.len();
        while text.len() < 64 << 10 {
            text.push_str(&format!("guestinfo.key{} = \"{}|7C\"\n", text.len(), "x".repeat(500)));
        }
        for length in (0..core).chain((core..text.len()).step_by(997)) {
            let start = std::time::Instant::now();
            let plan = Plan::of(&VmxFile::parse(&text.as_bytes()[..length]), Path::new("/vm"));
            assert!(plan.is_ok() || length < core, "{length}: {plan:?}");
            let took = start.elapsed();
            assert!(
                took < std::time::Duration::from_millis(50) || cfg!(debug_assertions),
                "{length}: {took:?}"
            );
        }
    }

    #[test]
    fn what_cannot_be_run_says_which_key() {
        let scsi = "scsi0.present = \"TRUE\"\nscsi0:0.present = \"TRUE\"\nscsi0:0.fileName = \"a.vmdk\"\n";
        for (text, key) in [
            (scsi, "scsi0:0"),
            ("memsize = \"lots\"\n", "memsize"),
            ("memsize = \"99999999\"\n", "memsize"),
            ("numvcpus = \"64\"\n", "numvcpus"),
        ] {
            assert!(plan(text).unwrap_err().0.contains(key));
        }
        assert!(Plan::of(&VmxFile::new(), Path::new("/vm")).is_err());
    }
}
