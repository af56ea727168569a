//! `GSXHostInfo_*`: figures of the host, from the kernel.
//!
//! ```text
//!   statx (mount id), statvfs, /proc/self/mountinfo     room on file systems
//!   uname, /proc/{cpuinfo,meminfo,uptime,loadavg}       the host
//!   the core, and access(2) as the caller               machines
//! ```

use std::collections::HashSet;
use std::io;

use handlers_derive::handler;
use hypervisor::control::HostClass;
use ops::Error;
use ops::host_info::{DiskSpace, GetDiskSpace, GetDiskSpaceReply, Query, QueryReply};
use ops::value::{HostPath, Size};
use rustix::fs::{AtFlags, Mode, OFlags, StatxFlags, fstatvfs, statx};

use crate::{Ctx, Failure, machine, product};

/// Room where directories are; the directory of new machines when none is named.
#[handler]
fn get_disk_space(ctx: &Ctx, req: GetDiskSpace) -> Result<GetDiskSpaceReply, Failure> {
    let directories = match req.directories {
        Some(directories) => directories,
        None => {
            let directory = product::vm_directory(&ctx.layout)?.to_string_lossy().into_owned();
            let directory = HostPath::try_from(directory)
                .map_err(|why| Failure::internal("naming the directory of new machines", why.to_string()))?;
            vec![directory]
        }
    };
    // Read once: a mount that comes later than this is found by the next request.
    let mounts = std::fs::read("/proc/self/mountinfo")
        .map_err(|error| Failure::internal("reading the list of mounts", error))?;
    let mounts = Mount::parse(&String::from_utf8_lossy(&mounts));
    let mut reply = GetDiskSpaceReply { disks: Vec::new() };
    for directory in directories {
        match disk_space(&directory, &mounts) {
            Ok(disk) => reply.disks.push(disk),
            Err(error) => return Err(Error::file(&directory, &error).finished(&reply).into()),
        }
    }
    Ok(reply)
}

/// Looks at the file system of one directory.
fn disk_space(directory: &HostPath, mounts: &[Mount]) -> io::Result<DiskSpace> {
    // A path only: no right to read the directory is needed, nor asked for.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::open(directory.as_str(), flags, Mode::empty())?;
    let room = fstatvfs(&open)?;
    let facts = statx(&open, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?;
    let mount = mounts.iter().find(|mount| mount.id == facts.stx_mnt_id);
    let bytes = |blocks: u64| Size(blocks.saturating_mul(room.f_frsize));
    Ok(DiskSpace {
        directory: directory.clone(),
        mount_point: mount.map(|mount| mount.point.clone()).unwrap_or_default(),
        file_system: mount.map(|mount| mount.kind.clone()).unwrap_or_default(),
        total: bytes(room.f_blocks),
        free: bytes(room.f_bfree),
        available: bytes(room.f_bavail),
    })
}

/// A line of `/proc/self/mountinfo`.
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    id: u64,
    point: String,
    kind: String,
}

impl Mount {
    /// Reads the list; a line that is not as documented in `proc(5)` is passed over.
    fn parse(text: &str) -> Vec<Mount> {
        text.lines().filter_map(Self::parse_line).collect()
    }

    fn parse_line(line: &str) -> Option<Mount> {
        // 36 35 98:0 /root /mount/point options optional fields - type source options
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ');
        let id = fields.next()?.parse().ok()?;
        let point = unescape(fields.nth(3)?);
        Some(Mount { id, point, kind: unescape(after.split(' ').next()?) })
    }
}

/// Undoes the escapes of the kernel's tables: `\` and three octal digits stand for a byte.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digits = tail.first_chunk::<3>().filter(|_| byte == b'\\');
        let escaped = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(escaped.unwrap_or(byte));
        rest = if escaped.is_some() { tail.get(3..).unwrap_or_default() } else { tail };
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The host, and how many machines the caller has on it.
#[handler]
async fn query(ctx: &Ctx, _: Query) -> Result<QueryReply, Failure> {
    let registered = ctx.core.registered().await?;
    let running = ctx.core.connected_vms().await?;
    let (layout, user) = (ctx.layout.clone(), ctx.user.clone());
    let host_class = ctx.core.host().map_or("unknown", HostClass::name).to_owned();
    let look = move || {
        let running: HashSet<String> = running.into_iter().collect();
        let mut counts = (0, 0);
        for listed in registered.iter().filter(|listed| machine::exists(&user, listed)) {
            counts = (counts.0 + 1, counts.1 + u64::from(running.contains(&*listed.config)));
        }
        let host = Host::look().map_err(|error| Failure::internal("looking at the host", error))?;
        let name = rustix::system::uname();
        Ok(QueryReply {
            hostname: name.nodename().to_string_lossy().into_owned(),
            os: "linux".to_owned(),
            os_version: name.release().to_string_lossy().into_owned(),
            cpus: host.cpus,
            cpu_model: host.cpu_model,
            cpu_mhz: host.cpu_mhz,
            memory_mb: host.memory_kb / 1024,
            free_memory_mb: host.free_memory_kb / 1024,
            uptime: host.uptime,
            load_average: host.load_average,
            host_class,
            vm_directory: product::vm_directory(&layout)?.to_string_lossy().into_owned(),
            vm_count: counts.0,
            running_vm_count: counts.1,
        })
    };
    tokio::task::spawn_blocking(look)
        .await
        .map_err(|error| Failure::internal("looking at the host", error))?
}

/// What `/proc` says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Host {
    cpus: u32,
    cpu_model: String,
    cpu_mhz: u32,
    memory_kb: u64,
    free_memory_kb: u64,
    uptime: u64,
    load_average: String,
}

impl Host {
    fn look() -> io::Result<Self> {
        let read = |name: &str| -> io::Result<String> {
            let path = format!("/proc/{name}");
            let bytes = std::fs::read(&path)
                .map_err(|error| link::layout::describe(&error, "cannot read", path.as_ref()))?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self::parse(&read("cpuinfo")?, &read("meminfo")?, &read("uptime")?, &read("loadavg")?))
    }

    /// What is not said is 0 or empty; the tables differ between architectures.
    fn parse(cpuinfo: &str, meminfo: &str, uptime: &str, loadavg: &str) -> Self {
        let said = |name| values(cpuinfo, name).next();
        let kb = |name| {
            let value = values(meminfo, name).next().unwrap_or_default();
            value.trim_end_matches("kB").trim_end().parse().unwrap_or(0)
        };
        let memory_kb = kb("MemTotal");
        Host {
            cpus: u32::try_from(values(cpuinfo, "processor").count()).unwrap_or(u32::MAX),
            cpu_model: said("model name").unwrap_or_default().to_owned(),
            // A conversion from floating point saturates.
            cpu_mhz: said("cpu MHz").and_then(|text| text.parse::<f64>().ok()).unwrap_or(0.0) as u32,
            memory_kb,
            free_memory_kb: kb("MemAvailable").min(memory_kb),
            uptime: uptime.split(['.', ' ']).next().and_then(|text| text.parse().ok()).unwrap_or(0),
            load_average: loadavg.split_ascii_whitespace().take(3).collect::<Vec<_>>().join(" "),
        }
    }
}

/// The values of all lines `name : value`.
fn values<'t>(table: &'t str, name: &'t str) -> impl Iterator<Item = &'t str> {
    let pairs = table.lines().filter_map(|line| line.split_once(':'));
    pairs.filter(move |(key, _)| key.trim_end() == name).map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{FixedCore, ctx, ctx_with};

    fn path(text: &str) -> HostPath {
        HostPath::try_from(text.to_owned()).unwrap()
    }

    #[test]
    fn tables_of_the_kernel() {
        let cpuinfo = "processor\t: 0\nmodel name\t: Example CPU @ 2.40GHz\ncpu MHz\t\t: 2400.123\n\n\
                       processor\t: 1\nmodel name\t: Another\ncpu MHz\t\t: 1200.000\n";
        let meminfo =
            "MemTotal:       24682416 kB\nMemFree:         5333824 kB\nMemAvailable:   24053236 kB\n";
        let host = Host::parse(cpuinfo, meminfo, "350735.47 234388.90\n", "0.20 0.18 0.12 1/80 11206\n");
        let expected = Host {
            cpus: 2,
            cpu_model: "Example CPU @ 2.40GHz".to_owned(),
            cpu_mhz: 2400,
            memory_kb: 24_682_416,
            free_memory_kb: 24_053_236,
            uptime: 350_735,
            load_average: "0.20 0.18 0.12".to_owned(),
        };
        assert_eq!(host, expected);
        assert_eq!(Host::parse("", "MemTotal: x\n", "", ""), Host::default());
    }

    #[test]
    fn the_list_of_mounts() {
        let text = "36 35 98:0 /mnt1 /mnt/with\\040space rw,noatime master:1 shared:2 - ext3 /dev/root rw\n\
                    22 27 0:21 / /proc rw,relatime - proc proc rw\nnonsense\n1 2 3 - \n";
        let mount = |id, point: &str, kind: &str| Mount { id, point: point.into(), kind: kind.into() };
        assert_eq!(Mount::parse(text), [mount(36, "/mnt/with space", "ext3"), mount(22, "/proc", "proc")]);
        for (escaped, plain) in [("\\134040", "\\040"), ("a\\", "a\\"), ("\\09", "\\09"), ("\\777", "\\777")]
        {
            assert_eq!(unescape(escaped), plain);
        }
    }

    #[test]
    fn room_where_directories_are() {
        let directories = Some(vec![path("/"), path("/proc/self/")]);
        let reply = get_disk_space(&ctx(), GetDiskSpace { directories }).unwrap();
        let [root, proc] = reply.disks.as_slice() else { panic!("{reply:?}") };
        assert_eq!((root.directory.as_str(), root.mount_point.as_str()), ("/", "/"));
        assert!(root.total >= root.free && root.free >= root.available && root.total > Size(0));
        assert_eq!((proc.mount_point.as_str(), proc.file_system.as_str()), ("/proc", "proc"));
        let df = std::process::Command::new("df").args(["--output=size", "-B1", "/"]).output().unwrap();
        let df = String::from_utf8(df.stdout).unwrap();
        assert_eq!(df.lines().nth(1).unwrap().trim(), root.total.0.to_string());
    }

    #[test]
    fn a_directory_that_is_none_stops_with_what_was_found() {
        let directories = Some(vec![path("/"), path("/etc/passwd")]);
        let failure = get_disk_space(&ctx(), GetDiskSpace { directories }).unwrap_err();
        let Failure::Told(ops::Fault::Refused(error)) = failure else { panic!("{failure}") };
        assert_eq!(error.text, "/etc/passwd: Not a directory");
        assert!(error.partial.unwrap().starts_with(b"<disks><disk><directory>/</directory>"));
    }

    #[tokio::test]
    async fn the_host_and_the_machines_of_the_caller() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path().join("a.vmx");
        std::fs::write(&there, "").unwrap();
        let vms = vec![there.to_str().unwrap().to_owned(), "/nowhere/b.vmx".to_owned()];
        let reply =
            query(&ctx_with(FixedCore { count: 0, vms, ..FixedCore::default() }), Query {}).await.unwrap();
        assert_eq!((reply.vm_count, reply.running_vm_count), (1, 1));
        assert!(reply.cpus > 0 && reply.memory_mb > reply.free_memory_mb && reply.uptime > 0);
        assert_eq!(reply.host_class, "emulated");
        assert_eq!(reply.load_average.split(' ').count(), 3);
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!((reply.hostname.as_str(), reply.os_version.as_str()), (name.trim(), release.trim()));
    }
}
