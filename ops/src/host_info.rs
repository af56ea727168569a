//! `GSXHostInfo_*`: the host, in figures.

use ops_derive::{Fragment, Op, Reply};

use crate::value::{HostPath, Size};

/// Tells how much room there is where directories are.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "GSXHostInfo_GetDiskSpace", handler = "GSXHostInfo::GetDiskSpace_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = GetDiskSpaceReply)]
pub struct GetDiskSpace {
    /// Paths of directories; the directory of new machines when absent.
    #[field(list = "directories/directory", alias = "path")]
    pub directories: Option<Vec<HostPath>>,
}

/// Room on file systems.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct GetDiskSpaceReply {
    /// One for each directory, in the order asked.
    #[field(list = "disks/disk")]
    pub disks: Vec<DiskSpace>,
}

/// The file system that a directory is on.
#[derive(Clone, Debug, PartialEq, Fragment)]
pub struct DiskSpace {
    /// The directory, as asked.
    pub directory: HostPath,
    /// Where the file system is mounted.
    #[field(name = "mountPoint")]
    pub mount_point: String,
    /// Its type, such as `ext4`.
    #[field(name = "fileSystem")]
    pub file_system: String,
    /// Its size.
    pub total: Size,
    /// What is not in use.
    pub free: Size,
    /// What of that is not kept for the administrator.
    pub available: Size,
}

/// Tells what the host is: system, processors, memory, load, machines.
#[derive(Clone, Debug, PartialEq, Op)]
#[op(name = "GSXHostInfo_Query", handler = "GSXHostInfo::Query_Handler",
     access = AuthUser, runs = Session, effect = Reads, reply = QueryReply)]
pub struct Query {}

/// The host.
#[derive(Clone, Debug, PartialEq, Reply)]
pub struct QueryReply {
    /// Its name.
    pub hostname: String,
    /// Always `linux`.
    pub os: String,
    /// Release of the kernel.
    #[field(name = "osVersion")]
    pub os_version: String,
    /// Processors that are on line, as the kernel counts them: with all their threads.
    pub cpus: u32,
    /// What the first processor calls itself; empty when it does not.
    #[field(name = "cpuModel")]
    pub cpu_model: String,
    /// Its clock rate in MHz; 0 when the kernel does not tell.
    #[field(name = "cpuMhz")]
    pub cpu_mhz: u32,
    /// Memory, in MiB.
    #[field(name = "memoryMb")]
    pub memory_mb: u64,
    /// What of that can be had without swapping, in MiB.
    #[field(name = "freeMemoryMb")]
    pub free_memory_mb: u64,
    /// Seconds since it was started.
    pub uptime: u64,
    /// Load averages over 1, 5 and 15 minutes, such as `0.25 0.10 0.05`.
    #[field(name = "loadAverage")]
    pub load_average: String,
    /// How this host runs guests: `native`, `emulated` (system code of guests is emulated: they run,
    /// slowly), or `none`; `unknown` in the moment after the server was started.
    #[field(name = "hostClass")]
    pub host_class: String,
    /// Where new machines are made.
    #[field(name = "vmDirectory")]
    pub vm_directory: String,
    /// Registered machines that the caller may read.
    #[field(name = "vmCount")]
    pub vm_count: u64,
    /// Those of them that have a process.
    #[field(name = "runningVmCount")]
    pub running_vm_count: u64,
}
