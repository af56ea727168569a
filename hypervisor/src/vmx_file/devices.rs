//! What is plugged into a machine.

use super::identifiers::Mac;
use super::text::VmxFile;
use crate::vmdk::Adapter;

/// Where a drive is plugged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bus {
    /// `ideC:U`: two channels of two.
    Ide,
    /// `scsiC:U`: four controllers, units 0-6 and 8-15 (7 is the controller itself).
    Scsi,
}

impl Bus {
    /// The beginning of its keys.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Bus::Ide => "ide",
            Bus::Scsi => "scsi",
        }
    }

    fn controllers(self) -> u32 {
        match self {
            Bus::Ide => 2,
            Bus::Scsi => 4,
        }
    }

    fn units(self) -> impl Iterator<Item = u32> {
        let end = match self {
            Bus::Ide => 2,
            Bus::Scsi => 16,
        };
        (0..end).filter(|&unit| unit != 7)
    }
}

/// A SCSI controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScsiController {
    /// Its number, 0 to 3.
    pub number: u32,
    /// `virtualDev`; BusLogic where nothing else is said (ours).
    pub adapter: Adapter,
}

/// What a drive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DriveKind {
    /// A virtual disk: `scsi-hardDisk`, `ata-hardDisk`, `disk`, or nothing said.
    HardDisk,
    /// A CD in a file: `cdrom-image`.
    CdImage,
    /// A CD drive of the host: `cdrom-raw`, `atapi-cdrom`, `auto detect`.
    CdHost,
    /// Something else; the value of `deviceType`.
    Other(String),
}

/// What becomes of the writes to a disk: `mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskMode {
    /// Kept, and part of snapshots: `persistent`, or nothing said.
    Persistent,
    /// Kept aside until somebody decides: `undoable`; the older `append` is read as this (ours).
    Undoable,
    /// Kept, whatever snapshots do: `independent-persistent`.
    IndependentPersistent,
    /// Gone at power off: `independent-nonpersistent`, and the older `nonpersistent` (ours).
    IndependentNonpersistent,
}

impl DiskMode {
    /// The value of `mode`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            DiskMode::Persistent => "persistent",
            DiskMode::Undoable => "undoable",
            DiskMode::IndependentPersistent => "independent-persistent",
            DiskMode::IndependentNonpersistent => "independent-nonpersistent",
        }
    }

    fn from_name(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "undoable" | "append" => DiskMode::Undoable,
            "independent-persistent" => DiskMode::IndependentPersistent,
            "independent-nonpersistent" | "nonpersistent" => DiskMode::IndependentNonpersistent,
            _ => DiskMode::Persistent,
        }
    }
}

/// A disk or CD drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Where it is plugged in.
    pub bus: Bus,
    /// Channel or controller.
    pub controller: u32,
    /// Unit on it.
    pub unit: u32,
    /// What it is.
    pub kind: DriveKind,
    /// `fileName`, as written: relative to the .vmx, absolute, or a device.
    pub file: Option<String>,
    /// `mode`.
    pub mode: DiskMode,
    /// `redo`: the file with the writes kept aside.
    pub redo: Option<String>,
    /// Connected at power on: `startConnected`.
    pub start_connected: bool,
}

impl Drive {
    /// `ide0:0`: the beginning of its keys.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}{}:{}", self.bus.name(), self.controller, self.unit)
    }
}

/// A floppy drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Floppy {
    /// 0 or 1.
    pub number: u32,
    /// `fileName`, as written.
    pub file: Option<String>,
    /// A file, not a drive of the host: `fileType`.
    pub is_image: bool,
    /// Connected at power on.
    pub start_connected: bool,
}

/// What a network adapter is connected to: `connectionType`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// The host's network, or nothing said.
    Bridged,
    /// A private network with the host as its way out.
    Nat,
    /// A private network with the host.
    HostOnly,
    /// A network by name or device: `vnet`, as written.
    Custom(Option<String>),
}

impl Connection {
    /// The value of `connectionType`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Connection::Bridged => "bridged",
            Connection::Nat => "nat",
            Connection::HostOnly => "hostonly",
            Connection::Custom(_) => "custom",
        }
    }
}

/// A network adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkAdapter {
    /// Its number, from 0.
    pub number: u32,
    /// What it is connected to.
    pub connection: Connection,
    /// `networkName`, where that is used.
    pub network_name: Option<String>,
    /// `virtualDev`: `vlance`, `vmxnet`, ...
    pub virtual_dev: Option<String>,
    /// Its address: the one written in the file, else the one that will be generated. None when the
    /// file has neither an address nor `uuid.bios`.
    pub mac: Option<Mac>,
    /// Connected at power on.
    pub start_connected: bool,
}

/// What is behind a serial port: `fileType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SerialTarget {
    /// A port of the host, or nothing said.
    Device,
    /// A file that takes what the guest sends.
    File,
    /// A named pipe or socket.
    Pipe,
}

/// A serial port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SerialPort {
    /// Its number, 0 to 3.
    pub number: u32,
    /// What is behind it.
    pub target: SerialTarget,
    /// `fileName`, as written.
    pub file: Option<String>,
    /// Connected at power on.
    pub start_connected: bool,
}

/// Network adapters that are looked for: `ethernet0` to `ethernet9`.
const ADAPTERS: u32 = 10;

impl VmxFile {
    /// The SCSI controllers that are present.
    #[must_use]
    pub fn scsi_controllers(&self) -> Vec<ScsiController> {
        let present =
            (0..Bus::Scsi.controllers()).filter(|number| self.flag(&format!("scsi{number}.present"), false));
        let adapter =
            |number| self.get_filled(&format!("scsi{number}.virtualDev")).and_then(Adapter::from_name);
        present
            .map(|number| ScsiController { number, adapter: adapter(number).unwrap_or(Adapter::BusLogic) })
            .collect()
    }

    /// The disks and CD drives that are present; those of a SCSI controller only if that is present.
    #[must_use]
    pub fn drives(&self) -> Vec<Drive> {
        let scsi = self.scsi_controllers();
        let mut drives = Vec::new();
        for bus in [Bus::Ide, Bus::Scsi] {
            for controller in 0..bus.controllers() {
                if bus == Bus::Scsi && scsi.iter().all(|present| present.number != controller) {
                    continue;
                }
                drives.extend(bus.units().filter_map(|unit| self.drive(bus, controller, unit)));
            }
        }
        drives
    }

    fn drive(&self, bus: Bus, controller: u32, unit: u32) -> Option<Drive> {
        let name = format!("{}{controller}:{unit}", bus.name());
        if !self.flag(&format!("{name}.present"), false) {
            return None;
        }
        let value = |key: &str| self.get_filled(&format!("{name}.{key}")).map(str::to_owned);
        let file = value("fileName");
        let auto = self.flag(&format!("{name}.autodetect"), false)
            || file.as_deref().is_some_and(|file| file.eq_ignore_ascii_case("auto detect"));
        let kind = match value("deviceType").map(|kind| kind.to_ascii_lowercase()).as_deref() {
            Some("cdrom-image") => DriveKind::CdImage,
            Some("cdrom-raw" | "atapi-cdrom") => DriveKind::CdHost,
            Some("scsi-harddisk" | "ata-harddisk" | "disk") => DriveKind::HardDisk,
            Some(other) => DriveKind::Other(other.to_owned()),
            None if auto => DriveKind::CdHost,
            // Nothing said, and a name that no disk has.
            None if file.as_deref().is_some_and(is_cd_image) => DriveKind::CdImage,
            None => DriveKind::HardDisk,
        };
        Some(Drive {
            bus,
            controller,
            unit,
            kind,
            file: file.filter(|_| !auto),
            mode: DiskMode::from_name(&value("mode").unwrap_or_default()),
            redo: value("redo"),
            start_connected: self.flag(&format!("{name}.startConnected"), true),
        })
    }

    /// The virtual disks among the drives that name a file.
    #[must_use]
    pub fn disks(&self) -> Vec<Drive> {
        let mut drives = self.drives();
        drives.retain(|drive| drive.kind == DriveKind::HardDisk && drive.file.is_some());
        drives
    }

    /// The floppy drives. Where nothing says whether one is present, it is if it has a file (ours).
    #[must_use]
    pub fn floppies(&self) -> Vec<Floppy> {
        let floppy = |number| {
            let name = format!("floppy{number}");
            let file = self.get_filled(&format!("{name}.fileName")).map(str::to_owned);
            let present = self.flag(&format!("{name}.present"), file.is_some());
            let kind = self.get_filled(&format!("{name}.fileType")).unwrap_or("device");
            present.then(|| Floppy {
                number,
                file,
                is_image: kind.eq_ignore_ascii_case("file"),
                start_connected: self.flag(&format!("{name}.startConnected"), true),
            })
        };
        (0..2).filter_map(floppy).collect()
    }

    /// The network adapters that are present.
    #[must_use]
    pub fn network_adapters(&self) -> Vec<NetworkAdapter> {
        (0..ADAPTERS).filter_map(|number| self.network_adapter(number)).collect()
    }

    fn network_adapter(&self, number: u32) -> Option<NetworkAdapter> {
        let name = format!("ethernet{number}");
        if !self.flag(&format!("{name}.present"), false) {
            return None;
        }
        let value = |key: &str| self.get_filled(&format!("{name}.{key}")).map(str::to_owned);
        let connection = match value("connectionType").map(|kind| kind.to_ascii_lowercase()).as_deref() {
            Some("nat") => Connection::Nat,
            Some("hostonly") => Connection::HostOnly,
            Some("custom") => Connection::Custom(value("vnet")),
            _ => Connection::Bridged,
        };
        Some(NetworkAdapter {
            number,
            connection,
            network_name: value("networkName"),
            virtual_dev: value("virtualDev"),
            mac: self.mac(number),
            start_connected: self.flag(&format!("{name}.startConnected"), true),
        })
    }

    /// The address of adapter `number`: `address` of a static one, else `generatedAddress`, else the
    /// one that will be generated.
    #[must_use]
    pub fn mac(&self, number: u32) -> Option<Mac> {
        let value = |key: &str| self.get_filled(&format!("ethernet{number}.{key}"));
        let is_static = value("addressType").is_some_and(|kind| kind.eq_ignore_ascii_case("static"));
        let written = if is_static { value("address") } else { value("generatedAddress") };
        let offset = || value("generatedAddressOffset").and_then(|offset| offset.parse().ok());
        let generated = || Some(Mac::generated(self.uuid_bios()?, offset().unwrap_or(number * 10)));
        match written.and_then(|mac| mac.parse().ok()) {
            Some(mac) => Some(mac),
            None if is_static => None,
            None => generated(),
        }
    }

    /// The serial ports that are present.
    #[must_use]
    pub fn serial_ports(&self) -> Vec<SerialPort> {
        let port = |number| {
            let name = format!("serial{number}");
            let value = |key: &str| self.get_filled(&format!("{name}.{key}")).map(str::to_owned);
            let target = match value("fileType").map(|kind| kind.to_ascii_lowercase()).as_deref() {
                Some("file") => SerialTarget::File,
                Some("pipe") => SerialTarget::Pipe,
                _ => SerialTarget::Device,
            };
            let start_connected = self.flag(&format!("{name}.startConnected"), true);
            let present = self.flag(&format!("{name}.present"), false);
            present.then(|| SerialPort { number, target, file: value("fileName"), start_connected })
        };
        (0..4).filter_map(port).collect()
    }
}

fn is_cd_image(file: &str) -> bool {
    let ending = file.len().checked_sub(4).and_then(|start| file.get(start..));
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case(".iso"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
        uuid.bios = "56 4d a3 9c a6 17 38 ff-00 58 ff 30 26 15 ff 78"
        ide0:0.present = "TRUE"
        ide0:0.fileName = "Windows XP.vmdk"
        ide0:0.redo = ""
        IDE1:0.PRESENT = true
        ide1:0.fileName = "auto detect"
        ide1:1.present = "TRUE"
        ide1:1.fileName = "/iso/Disc.ISO"
        ide1:1.startConnected = "FALSE"
        ide0:1.present = "FALSE"
        ide0:1.fileName = "absent.vmdk"
        scsi0.present = "TRUE"
        scsi0.virtualDev = "lsilogic"
        scsi0:0.present = "TRUE"
        scsi0:0.fileName = "sub/data.vmdk"
        scsi0:0.mode = "Independent-Nonpersistent"
        scsi0:0.redo = "./data.vmdk.REDO_a1b2c3"
        scsi0:7.present = "TRUE"
        scsi0:7.fileName = "controller.vmdk"
        scsi0:15.present = "TRUE"
        scsi0:15.deviceType = "scsi-passthru"
        scsi1:0.present = "TRUE"
        scsi1:0.fileName = "no-controller.vmdk"
        floppy0.fileName = "/dev/fd0"
        floppy1.present = "TRUE"
        floppy1.fileType = "file"
        floppy1.fileName = "boot.img"
        Ethernet0.present = "TRUE"
        ethernet1.present = "TRUE"
        ethernet1.connectionType = "custom"
        ethernet1.vnet = "/dev/vmnet2"
        ethernet1.virtualDev = "vmxnet"
        ethernet2.present = "TRUE"
        ethernet2.connectionType = "hostonly"
        ethernet2.addressType = "static"
        ethernet2.address = "00:50:56:00:00:01"
        ethernet3.present = "TRUE"
        ethernet3.connectionType = "NAT"
        ethernet3.generatedAddress = "00:0c:29:aa:bb:cc"
        ethernet4.present = "FALSE"
        serial0.present = "TRUE"
        serial0.fileType = "pipe"
        serial0.fileName = "/tmp/s"
        serial3.present = "TRUE"
    "#;

    #[test]
    fn drives() {
        let vmx = VmxFile::parse(FILE.as_bytes());
        let drives = vmx.drives();
        let names: Vec<String> = drives.iter().map(Drive::name).collect();
        assert_eq!(names, ["ide0:0", "ide1:0", "ide1:1", "scsi0:0", "scsi0:15"]);
        let kinds: Vec<&DriveKind> = drives.iter().map(|drive| &drive.kind).collect();
        let passthru = DriveKind::Other("scsi-passthru".to_owned());
        assert_eq!(
            kinds,
            [&DriveKind::HardDisk, &DriveKind::CdHost, &DriveKind::CdImage, &DriveKind::HardDisk, &passthru]
        );
        assert_eq!((drives[0].mode, drives[0].redo.as_deref()), (DiskMode::Persistent, None));
        assert_eq!(drives[1].file, None);
        assert!(!drives[2].start_connected);
        assert_eq!(drives[3].mode, DiskMode::IndependentNonpersistent);
        assert_eq!(drives[3].redo.as_deref(), Some("./data.vmdk.REDO_a1b2c3"));
        assert_eq!(vmx.disks().len(), 2);
        assert_eq!(vmx.scsi_controllers(), [ScsiController { number: 0, adapter: Adapter::LsiLogic }]);
        for mode in [DiskMode::Persistent, DiskMode::Undoable, DiskMode::IndependentPersistent] {
            assert_eq!(DiskMode::from_name(&mode.name().to_uppercase()), mode);
        }
    }

    #[test]
    fn floppies_and_serial_ports() {
        let vmx = VmxFile::parse(FILE.as_bytes());
        let floppies = vmx.floppies();
        assert_eq!(floppies.iter().map(|floppy| floppy.is_image).collect::<Vec<_>>(), [false, true]);
        assert_eq!(VmxFile::parse(b"floppy0.present = \"FALSE\"\nfloppy0.fileName = \"x\"").floppies(), []);
        let ports = vmx.serial_ports();
        assert_eq!(
            ports.iter().map(|port| (port.number, port.target)).collect::<Vec<_>>(),
            [(0, SerialTarget::Pipe), (3, SerialTarget::Device)]
        );
    }

    #[test]
    fn network_adapters() {
        let adapters = VmxFile::parse(FILE.as_bytes()).network_adapters();
        let facts: Vec<(&str, String)> = adapters
            .iter()
            .map(|adapter| (adapter.connection.name(), adapter.mac.unwrap().to_string()))
            .collect();
        let expected = [
            ("bridged", "00:0c:29:15:ff:78"),
            ("custom", "00:0c:29:15:ff:82"),
            ("hostonly", "00:50:56:00:00:01"),
            ("nat", "00:0c:29:aa:bb:cc"),
        ];
        assert_eq!(facts, expected.map(|(kind, mac)| (kind, mac.to_owned())));
        assert_eq!(adapters[1].connection, Connection::Custom(Some("/dev/vmnet2".to_owned())));
        assert_eq!(VmxFile::parse(b"ethernet0.present = \"TRUE\"").network_adapters()[0].mac, None);
    }
}
