//! The configuration of a new machine.

use super::defaults;
use super::guests::guest;
use super::identifiers::{Mac, Uuid};
use super::text::VmxFile;
use crate::vmdk::Adapter;

/// The first disk of a new machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewDisk {
    /// `fileName`: relative to the .vmx, or absolute.
    pub file: String,
    /// Where it is plugged in: IDE, or a SCSI controller of this kind.
    pub adapter: Adapter,
}

/// What the adapter of a new machine is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// No adapter at all.
    None,
    /// The host's network.
    Bridged,
    /// A private network with the host as its way out.
    Nat,
    /// A private network with the host.
    HostOnly,
    /// A network by name, such as `vmnet2`.
    Custom(String),
}

/// A new machine. Texts are written as they are, escaped as the format demands.
#[derive(Debug, Clone)]
pub struct NewMachine {
    /// `displayName`.
    pub display_name: String,
    /// `guestOS`.
    pub guest_os: String,
    /// Memory in MiB; rounded up to a multiple of 4.
    pub memory_mb: u32,
    /// Processors.
    pub cpus: u32,
    /// `uuid.bios` and `uuid.location`.
    pub uuid: Uuid,
    /// Its disk, if it has one.
    pub disk: Option<NewDisk>,
    /// A CD image, if it has one.
    pub cd_image: Option<String>,
    /// A floppy image, if it has one.
    pub floppy_image: Option<String>,
    /// A file that takes what the guest sends to its first serial port.
    pub serial_file: Option<String>,
    /// Its network adapter.
    pub network: Network,
    /// `annotation`.
    pub annotation: String,
    /// `nvram`.
    pub nvram: String,
}

impl NewMachine {
    /// A machine with the memory usual for its guest, one processor, a bridged adapter, and nothing to
    /// boot from.
    ///
    /// # Errors
    /// When the system has no random numbers for its UUID.
    pub fn new(display_name: &str, guest_os: &str) -> std::io::Result<Self> {
        Ok(NewMachine {
            display_name: display_name.to_owned(),
            guest_os: guest_os.to_owned(),
            memory_mb: guest(guest_os).memory_mb,
            cpus: 1,
            uuid: Uuid::random()?,
            disk: None,
            cd_image: None,
            floppy_image: None,
            serial_file: None,
            network: defaults::NETWORK,
            annotation: String::new(),
            nvram: "nvram".to_owned(),
        })
    }

    /// The address of its network adapter, if it has one.
    #[must_use]
    pub fn mac(&self) -> Option<Mac> {
        (self.network != Network::None).then(|| Mac::generated(self.uuid, 0))
    }

    /// Its configuration.
    #[must_use]
    pub fn build(&self) -> VmxFile {
        let mut vmx = VmxFile::parse(b"#!/usr/bin/vmware\n");
        vmx.set("config.version", &defaults::CONFIG_VERSION.to_string());
        vmx.set("virtualHW.version", &defaults::HARDWARE_VERSION.to_string());
        vmx.set("displayName", &self.display_name);
        vmx.set("guestOS", &self.guest_os);
        if !self.annotation.is_empty() {
            vmx.set("annotation", &self.annotation);
        }
        vmx.set("memsize", &(self.memory_mb.max(1).div_ceil(4).saturating_mul(4)).to_string());
        if self.cpus > 1 {
            vmx.set("numvcpus", &self.cpus.to_string());
        }
        vmx.set("uuid.bios", &self.uuid.to_string());
        vmx.set("uuid.location", &self.uuid.to_string());
        vmx.set("nvram", &self.nvram);
        self.drives(&mut vmx);
        self.ports(&mut vmx);
        vmx.set("virtualHW.productCompatibility", "hosted");
        vmx.set("checkpoint.vmState", "");
        vmx
    }

    fn drives(&self, vmx: &mut VmxFile) {
        if let Some(disk) = &self.disk {
            let name = if disk.adapter == Adapter::Ide {
                "ide0:0"
            } else {
                vmx.set_flag("scsi0.present", true);
                vmx.set("scsi0.virtualDev", disk.adapter.name());
                "scsi0:0"
            };
            vmx.set_flag(&format!("{name}.present"), true);
            vmx.set(&format!("{name}.fileName"), &disk.file);
            vmx.set(&format!("{name}.mode"), "persistent");
            vmx.set(&format!("{name}.redo"), "");
        }
        if let Some(image) = &self.cd_image {
            vmx.set_flag("ide1:0.present", true);
            vmx.set("ide1:0.fileName", image);
            vmx.set("ide1:0.deviceType", "cdrom-image");
        }
        vmx.set_flag("floppy0.present", self.floppy_image.is_some());
        if let Some(image) = &self.floppy_image {
            vmx.set("floppy0.fileType", "file");
            vmx.set("floppy0.fileName", image);
        }
    }

    fn ports(&self, vmx: &mut VmxFile) {
        let connection = match &self.network {
            Network::None => None,
            Network::Bridged => Some(("bridged", None)),
            Network::Nat => Some(("nat", None)),
            Network::HostOnly => Some(("hostonly", None)),
            Network::Custom(vnet) => Some(("custom", Some(vnet))),
        };
        if let Some((connection, vnet)) = connection {
            vmx.set_flag("ethernet0.present", true);
            vmx.set("ethernet0.connectionType", connection);
            if let Some(vnet) = vnet {
                vmx.set("ethernet0.vnet", vnet);
            }
            vmx.set("ethernet0.virtualDev", defaults::NIC_TYPE);
            vmx.set("ethernet0.addressType", "generated");
            vmx.set("ethernet0.generatedAddress", &Mac::generated(self.uuid, 0).to_string());
            vmx.set("ethernet0.generatedAddressOffset", "0");
        }
        if let Some(file) = &self.serial_file {
            vmx.set_flag("serial0.present", true);
            vmx.set("serial0.fileType", "file");
            vmx.set("serial0.fileName", file);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Connection, DriveKind, SerialTarget};
    use super::*;

    #[test]
    fn what_is_built_is_read() {
        let mut machine = NewMachine::new("Web \"1\" | test", "winNetStandard").unwrap();
        machine.cpus = 2;
        machine.memory_mb = 511;
        machine.annotation = "first\nsecond".to_owned();
        machine.disk = Some(NewDisk { file: "Web.vmdk".to_owned(), adapter: Adapter::LsiLogic });
        machine.cd_image = Some("/iso/a.iso".to_owned());
        machine.floppy_image = Some("boot.img".to_owned());
        machine.serial_file = Some("serial.txt".to_owned());
        machine.network = Network::Custom("vmnet2".to_owned());
        let vmx = VmxFile::parse(&machine.build().to_bytes());
        assert!(vmx.is_usable());
        assert_eq!(vmx.display_name().as_deref(), Some("Web \"1\" | test"));
        assert_eq!((vmx.memory_mb(), vmx.cpus(), vmx.guest().key), (512, 2, "winNetStandard"));
        assert_eq!((vmx.config_version(), vmx.hardware_version()), (Some(8), Some(4)));
        assert_eq!(vmx.annotation(), "first\nsecond");
        assert_eq!((vmx.uuid_bios(), vmx.uuid_location()), (Some(machine.uuid), Some(machine.uuid)));
        let drives = vmx.drives();
        assert_eq!(drives.iter().map(|drive| drive.name()).collect::<Vec<_>>(), ["ide1:0", "scsi0:0"]);
        assert_eq!(
            (&drives[0].kind, vmx.disks()[0].file.as_deref()),
            (&DriveKind::CdImage, Some("Web.vmdk"))
        );
        assert!(vmx.floppies()[0].is_image);
        assert_eq!(vmx.serial_ports()[0].target, SerialTarget::File);
        let adapter = &vmx.network_adapters()[0];
        assert_eq!(adapter.connection, Connection::Custom(Some("vmnet2".to_owned())));
        assert_eq!((adapter.mac, adapter.virtual_dev.as_deref()), (machine.mac(), Some("vlance")));
        assert_eq!(vmx.suspend_state(), None);
    }

    #[test]
    fn a_machine_with_nothing() {
        let mut machine = NewMachine::new("bare", "dos").unwrap();
        machine.network = Network::None;
        let vmx = machine.build();
        assert_eq!((vmx.memory_mb(), vmx.get("numvcpus"), machine.mac()), (32, None, None));
        assert!(vmx.drives().is_empty() && vmx.floppies().is_empty() && vmx.network_adapters().is_empty());
        assert!(vmx.to_bytes().starts_with(b"#!/usr/bin/vmware\nconfig.version = \"8\"\n"));
    }
}
