//! `VMConfigDefaults_*`: what a new machine gets when nobody says otherwise.

use ops_derive::{Fragment, Op, Reply};

crate::words! {
    /// What kind of system a guest is.
    pub enum Family {
        /// Windows.
        Windows = "windows",
        /// Linux.
        Linux = "linux",
        /// Anything else.
        Other = "other",
    }
}

/// One guest operating system.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct Guest {
    /// The value of `guestOS` in a .vmx.
    pub key: String,
    /// A name for people.
    pub name: String,
    /// `windows`, `linux` or `other`.
    pub family: Family,
    /// Memory of a new machine, in MiB.
    #[field(name = "memoryMb")]
    pub memory_mb: u32,
}

/// Lists the defaults of a new machine, and the guest systems it can be made for.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMConfigDefaults_GetAll", handler = "VMConfigDefaults::GetAll_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetAllReply)]
pub struct GetAll {}

/// Defaults of a new machine.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetAllReply {
    /// `config.version` of its .vmx.
    #[field(name = "configVersion")]
    pub config_version: u32,
    /// `virtualHW.version` of its .vmx.
    #[field(name = "hardwareVersion")]
    pub hardware_version: u32,
    /// Where its directory is made.
    #[field(name = "vmDirectory")]
    pub vm_directory: String,
    /// Its memory, in MiB, when its guest system has no better value.
    #[field(name = "memoryMb")]
    pub memory_mb: u32,
    /// Size of its disk, in MiB.
    #[field(name = "diskSizeMb")]
    pub disk_size_mb: u64,
    /// Its guest system.
    #[field(name = "guestOS")]
    pub guest_os: String,
    /// Where its disk is plugged in.
    #[field(name = "diskAdapter")]
    pub disk_adapter: String,
    /// The SCSI adapter, where one is wanted.
    #[field(name = "scsiAdapter")]
    pub scsi_adapter: String,
    /// Its network adapter.
    #[field(name = "nicType")]
    pub nic_type: String,
    /// The network it is connected to.
    pub network: String,
    /// The guest systems.
    #[field(list = "guests/guest")]
    pub guests: Vec<Guest>,
}

/// Tells the versions of a new machine's configuration.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VMConfigDefaults_GetConfigVersion", handler = "VMConfigDefaults::GetConfigVersion_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetConfigVersionReply)]
pub struct GetConfigVersion {}

/// Versions of a configuration.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetConfigVersionReply {
    /// `config.version`.
    #[field(name = "configVersion")]
    pub config_version: u32,
    /// `virtualHW.version`.
    #[field(name = "hardwareVersion")]
    pub hardware_version: u32,
}
