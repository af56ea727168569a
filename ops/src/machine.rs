//! What several operations on machines say: states, files, and the extension operations
//! `VM_List` and `VM_Create`.

use std::sync::Arc;

use ops_derive::{Fragment, Op, Reply};

use crate::disk::{AdapterType, DiskType};
use crate::table::Field;
use crate::value::{ConfigPath, Element, HostPath, Size};
use crate::writer::Out;

crate::words! {
    /// Whether a machine runs.
    pub enum PowerState {
        /// It runs, or is paused.
        On = "on",
        /// It does not.
        Off = "off",
        /// Its state is in a file and goes on from there.
        Suspended = "suspended",
        /// It waits for an answer to a question.
        Stuck = "stuck",
        /// Nobody knows.
        Unknown = "unknown",
    }
}

/// Whether a machine runs, and whether it is paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Fragment)]
pub struct State {
    /// `on`, `off`, `suspended`, `stuck` or `unknown`.
    #[field(name = "powerState")]
    pub power: PowerState,
    /// 1 while a machine that is on stands still.
    pub paused: bool,
}

/// A machine in a list.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct ListedVm {
    /// Path of its .vmx.
    pub config: ConfigPath,
    /// All but the path; absent with `details` 0.
    #[field(flat)]
    pub details: VmDetails,
}

/// Key facts of a machine; each absent when only paths are wanted.
#[derive(Clone, Debug, Default, PartialEq, Fragment)]
pub struct VmDetails {
    /// Its name for people.
    #[field(name = "displayName")]
    pub display_name: Option<String>,
    /// Key of its guest operating system.
    #[field(name = "guestOS")]
    pub guest_os: Option<String>,
    /// `on`, `off`, `suspended`, `stuck` or `unknown`.
    #[field(name = "powerState")]
    pub power: Option<PowerState>,
    /// 1 while a machine that is on stands still.
    pub paused: Option<bool>,
    /// Number of the running machine; 0 when there is no process.
    pub id: Option<u64>,
    /// Process id; 0 when there is no process.
    pub pid: Option<u64>,
    /// Seconds since power on; 0 when there is no process.
    pub uptime: Option<u64>,
    /// Counter from the guest's Tools; 0 when there is no process.
    pub heartbeat: Option<u64>,
    /// Memory in MiB.
    #[field(name = "memoryMb")]
    pub memory_mb: Option<u64>,
    /// Virtual processors.
    pub cpus: Option<u64>,
    /// Share of one processor of the host in the last while, in percent; 0 when there is no process.
    #[field(name = "cpuPercent")]
    pub cpu_percent: Option<u64>,
    /// Address that the guest has told; empty when none.
    pub ip: Option<String>,
    /// Rights of the caller: `r`, `w` and `x`, with `-` in the gaps.
    pub permissions: Option<String>,
    /// Whether the machine waits for an answer.
    #[field(name = "hasQuestion")]
    pub has_question: Option<bool>,
}

/// Lists the registered machines that the caller may see, with state and key facts, in one reply.
///
/// Right on a machine: r; others are simply missing. The order is that of `vm-list`. The answer never
/// waits for a machine.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_List", handler = "Extension::VM_List_Handler",
     access = AuthUser, runs = Core, effect = Reads, reply = ListReply)]
pub struct List {
    /// Whether more than the paths is wanted.
    #[field(default = "1")]
    pub details: bool,
    /// Only these machines, by the paths of their .vmx; unknown ones are missing from the answer.
    #[field(list = "configs/config", alias = "cfg", alias = "vm")]
    pub configs: Option<Vec<ConfigPath>>,
}

/// The machines.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct ListReply {
    /// One element per machine.
    #[field(list = "vms/vm")]
    pub vms: Vec<ListItem>,
}

/// A machine in a list, or its element as it was written before: most machines change rarely.
#[derive(Clone, Debug, PartialEq)]
pub enum ListItem {
    /// Still to be written.
    Vm(Box<ListedVm>),
    /// The whole element `vm`, written by [`Element::write_element`] of a [`ListedVm`].
    Written(Arc<[u8]>),
}

impl Element for ListItem {
    const KIND: &'static str = <ListedVm as Element>::KIND;
    const NESTED: &'static [Field] = <ListedVm as Element>::NESTED;

    fn write_element(&self, name: &str, out: &mut Out<'_>) {
        match self {
            ListItem::Vm(vm) => vm.write_element(name, out),
            ListItem::Written(bytes) => out.rendered(bytes),
        }
    }
}

crate::words! {
    /// What the network adapter of a new machine is connected to.
    pub enum NetworkType {
        /// The host's network.
        Bridged = "bridged",
        /// The host's network, by address translation.
        Nat = "nat",
        /// The host only.
        HostOnly = "hostonly",
        /// The virtual network that `vnet` names.
        Custom = "custom",
        /// No adapter at all.
        None = "none",
    }
}

/// Makes a machine: a directory, a disk, a .vmx, and registers it; all of it or nothing.
///
/// What is left out comes from `VMConfigDefaults_GetAll`. The files belong to the caller.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "VM_Create", handler = "Extension::VM_Create_Handler",
     access = AuthUser, runs = Session, effect = Changes, reply = CreateReply)]
pub struct Create {
    /// Its name for people, without `/` and control characters.
    #[field(name = "displayName")]
    pub display_name: String,
    /// Path of the .vmx to be; when absent, `displayName` in a directory of that name in the
    /// directory of machines. Its directory is made when it does not exist.
    #[field(alias = "cfg", alias = "vm")]
    pub config: Option<ConfigPath>,
    /// Key of the guest operating system.
    #[field(name = "guestOS", default = "other")]
    pub guest_os: String,
    /// Memory in MiB; that of the guest operating system when absent.
    #[field(name = "memoryMb", min = 4, max = 65536)]
    pub memory_mb: Option<i64>,
    /// Virtual processors.
    #[field(default = "1", min = 1, max = 32)]
    pub cpus: i64,
    /// Size of the disk; 0 for no disk. 4 GiB when absent.
    #[field(name = "diskSize")]
    pub disk_size: Option<Size>,
    /// The adapter that the disk is connected to: `ide`, `buslogic` or `lsilogic`.
    #[field(name = "diskAdapter", default = "ide")]
    pub disk_adapter: AdapterType,
    /// How the disk keeps its sectors: `monolithicSparse`, `twoGbMaxExtentSparse` or `vmfsSparse`.
    #[field(name = "diskType", default = "monolithicSparse")]
    pub disk_type: DiskType,
    /// Path of a disk that exists, instead of a new one.
    #[field(name = "existingDisk")]
    pub existing_disk: Option<HostPath>,
    /// What the network adapter is connected to: `bridged`, `nat`, `hostonly`, `custom` or `none`.
    #[field(default = "bridged")]
    pub network: NetworkType,
    /// Virtual network such as `vmnet2`, with `network` `custom`.
    pub vnet: Option<String>,
    /// Path of an image in the CD-ROM drive.
    #[field(name = "cdImage")]
    pub cd_image: Option<HostPath>,
    /// Path of an image in the floppy drive.
    #[field(name = "floppyImage")]
    pub floppy_image: Option<HostPath>,
    /// Path of a file that the first serial port writes to.
    #[field(name = "serialFile")]
    pub serial_file: Option<HostPath>,
    /// Remarks of people.
    pub annotation: Option<String>,
    /// Whether only the caller and administrators see the machine.
    #[field(default = "1")]
    pub private: bool,
    /// Whether the machine is registered.
    #[field(default = "1")]
    pub register: bool,
}

/// The machine that was made.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct CreateReply {
    /// Path of its .vmx.
    pub config: ConfigPath,
    /// Its name for people.
    #[field(name = "displayName")]
    pub display_name: String,
    /// Its `uuid.bios`.
    pub uuid: String,
    /// Address of the network adapter; empty without.
    #[field(name = "macAddress")]
    pub mac_address: String,
    /// Every file that was made.
    #[field(list = "files/file")]
    pub files: Vec<HostPath>,
}
