//! `CreateCOWDisk`: a new disk, made by the disk code of the machine's room, as the caller.

use handlers_derive::handler;
use hypervisor::vmdk::{self, Adapter, CreateOptions, Kind, MAX_CAPACITY, SECTOR};
use ops::disk::{AdapterType, CreateCowDisk, CreateCowDiskReply, DEFAULT_SIZE, DiskType};
use ops::value::{HostPath, Size};
use ops::{Error, ErrorCode};
use rustix::io::Errno;

use crate::{Ctx, Failure};

/// Largest disk in bytes.
pub(crate) const MAX_SIZE: u64 = MAX_CAPACITY * SECTOR;

/// Makes the disk: all of its files, or none.
#[handler]
fn create_cow_disk(_: &Ctx, req: CreateCowDisk) -> Result<CreateCowDiskReply, Failure> {
    let size = match req.parent {
        // Ignored, so it may be anything; the parent's counts.
        Some(_) => 0,
        None => size(&req)?,
    };
    let options = CreateOptions {
        adapter: req.adapter.map(adapter),
        parent: req.parent.map(Into::into),
        overwrite: req.overwrite,
        ..CreateOptions::new(kind(req.kind), size)
    };
    let created = vmdk::create(req.file.as_ref(), &options).map_err(|error| refusal(&error))?;
    let mut warnings = Vec::new();
    if options.parent.is_none() && created.size != size {
        warnings.push(format!("the size was rounded up to whole sectors: {} bytes", created.size));
    }
    let files = created.files.into_iter().map(|path| {
        // Made of the caller's own path, and longer by a few bytes at most.
        let text = path.to_string_lossy().into_owned();
        HostPath::try_from(text).map_err(|why| Failure::internal("naming a new file", why.to_string()))
    });
    Ok(CreateCowDiskReply {
        file: req.file,
        size: Size(created.size),
        kind: req.kind,
        cid: format!("{:08x}", created.cid),
        files: files.collect::<Result<_, _>>()?,
        warnings,
    })
}

/// The size in bytes, as asked for in bytes or in MiB.
fn size(req: &CreateCowDisk) -> Result<u64, Error> {
    let (name, size) = match (req.size, req.size_mb) {
        (None, None) => return Ok(DEFAULT_SIZE),
        (Some(Size(bytes)), None) => ("size", Some(bytes)),
        (None, Some(Size(mb))) => ("sizeMb", mb.checked_mul(1 << 20)),
        (Some(_), Some(_)) => return Err(Error::invalid("size", "given twice")),
    };
    size.filter(|size| (1..=MAX_SIZE).contains(size))
        .ok_or_else(|| Error::invalid(name, format_args!("must be 1 to {MAX_SIZE} bytes")))
}

pub(crate) fn adapter(adapter: AdapterType) -> Adapter {
    match adapter {
        AdapterType::Ide => Adapter::Ide,
        AdapterType::BusLogic => Adapter::BusLogic,
        AdapterType::LsiLogic => Adapter::LsiLogic,
    }
}

pub(crate) fn kind(kind: DiskType) -> Kind {
    match kind {
        DiskType::MonolithicSparse => Kind::MonolithicSparse,
        DiskType::TwoGbMaxExtentSparse => Kind::TwoGbMaxExtentSparse,
        DiskType::VmfsSparse => Kind::VmfsSparse,
    }
}

/// Why no disk was made.
pub(crate) fn refusal(error: &vmdk::Error) -> Error {
    use vmdk::Error as Disk;
    match error {
        Disk::Io { path, source, .. } => Error::file(path, source),
        Disk::Exists { path } => Error::file(path, &Errno::EXIST.into()),
        Disk::Busy { .. } => Error::with(ErrorCode::VmBusy, error),
        Disk::BadOption(text) => Error::with(ErrorCode::InvalidArgs, text),
        Disk::Parent(why) => match (&**why, refusal(why)) {
            (Disk::Busy { .. }, refused) => refused,
            // What it takes to read a parent may be missing; anything else means that it is none.
            (Disk::Io { .. }, refused) if refused.code != ErrorCode::Unspecified => refused,
            (Disk::Io { .. }, refused) => Error::with(ErrorCode::InvalidVm, refused.text),
            _ => Error::with(ErrorCode::InvalidVm, why),
        },
        other => Error::unspecified(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::ctx;
    use ops::Fault;
    use std::io::Write;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    const KINDS: [DiskType; 3] =
        [DiskType::MonolithicSparse, DiskType::TwoGbMaxExtentSparse, DiskType::VmfsSparse];

    /// A request for a disk of 40 MiB in a directory.
    fn request(directory: &Path, name: &str) -> CreateCowDisk {
        CreateCowDisk {
            file: HostPath::try_from(directory.join(name).to_str().unwrap().to_owned()).unwrap(),
            size: Some(Size(40 << 20)),
            size_mb: None,
            adapter: None,
            kind: DiskType::MonolithicSparse,
            parent: None,
            overwrite: false,
        }
    }

    fn make(request: CreateCowDisk) -> CreateCowDiskReply {
        create_cow_disk(&ctx(), request).unwrap()
    }

    fn refused(request: CreateCowDisk) -> (i32, String) {
        match create_cow_disk(&ctx(), request) {
            Err(Failure::Told(Fault::Refused(error))) => (error.code.number(), error.text),
            other => panic!("{other:?}"),
        }
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Whether `qemu-img` and `qemu-io` are there; if not, says that the test is left out.
    fn have_qemu(what: &str) -> bool {
        let there = |program| Command::new(program).arg("--version").output().is_ok();
        if there("qemu-img") && there("qemu-io") {
            return true;
        }
        let line = format!("SKIPPED {what}: qemu-img is not installed (Debian package qemu-utils)\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        if let Some(path) = std::env::var_os("VMSERVERD_SKIPPED") {
            let file = std::fs::File::options().append(true).create(true).open(path);
            let _ = file.and_then(|mut file| file.write_all(line.as_bytes()));
        }
        false
    }

    fn run(program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program).args(arguments).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program} {arguments:?}: {text}{output:?}");
        text
    }

    /// Writes 64 KiB of one byte with qemu, and notes it in the model.
    fn qemu_write(disk: &str, model: &mut [u8], byte: u8, offset: usize) {
        let command = format!("write -P {byte} {offset} 65536");
        run("qemu-io", &["-f", "vmdk", "-c", &command, disk]);
        model[offset..offset + 65536].fill(byte);
    }

    /// What qemu reads.
    fn qemu_read(disk: &str) -> Vec<u8> {
        let raw = tempfile::NamedTempFile::new().unwrap();
        run("qemu-img", &["convert", "-f", "vmdk", "-O", "raw", disk, raw.path().to_str().unwrap()]);
        std::fs::read(raw.path()).unwrap()
    }

    #[test]
    fn qemu_reads_and_writes_every_kind_children_three_deep() {
        if !have_qemu("disks of CreateCOWDisk with qemu") {
            return;
        }
        for base in KINDS {
            for child in KINDS {
                let directory = tempfile::tempdir().unwrap();
                let size = 5 << 20;
                let mut model = vec![0_u8; size];
                let made = make(CreateCowDisk {
                    kind: base,
                    size: Some(Size(size as u64)),
                    adapter: Some(AdapterType::LsiLogic),
                    ..request(directory.path(), "d0.vmdk")
                });
                let info = run("qemu-img", &["info", "--output=json", made.file.as_str()]);
                assert!(info.contains("\"virtual-size\": 5242880"), "{info}");
                assert!(info.contains(&format!("\"create-type\": \"{}\"", base.word())), "{info}");
                assert_eq!(qemu_read(made.file.as_str()), model);
                qemu_write(made.file.as_str(), &mut model, 1, 0);
                qemu_write(made.file.as_str(), &mut model, 1, 1 << 20);
                assert_eq!(qemu_read(made.file.as_str()), model);
                for depth in 1..=3_u8 {
                    let made = make(CreateCowDisk {
                        kind: child,
                        size: None,
                        parent: Some(format!("d{}.vmdk", depth - 1)),
                        ..request(directory.path(), &format!("d{depth}.vmdk"))
                    });
                    assert_eq!(made.size, Size(size as u64));
                    assert_eq!(qemu_read(made.file.as_str()), model, "{base:?} {child:?} {depth}");
                    qemu_write(made.file.as_str(), &mut model, depth + 1, usize::from(depth) << 20);
                    qemu_write(
                        made.file.as_str(),
                        &mut model,
                        depth + 1,
                        (4 << 20) + usize::from(depth) * 512,
                    );
                    assert_eq!(qemu_read(made.file.as_str()), model, "{base:?} {child:?} {depth}");
                }
            }
        }
    }

    #[test]
    fn a_disk_of_several_pieces() {
        if !have_qemu("a disk of several pieces with qemu") {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let made = make(CreateCowDisk {
            kind: DiskType::TwoGbMaxExtentSparse,
            size: None,
            size_mb: Some(Size(5000)),
            ..request(directory.path(), "big.vmdk")
        });
        assert_eq!(names(directory.path()), ["big-s001.vmdk", "big-s002.vmdk", "big-s003.vmdk", "big.vmdk"]);
        assert_eq!((made.files.len(), made.files[0].as_str()), (4, made.file.as_str()));
        // Across the border of two pieces.
        let border = 4_192_256 * 512 - 32768;
        let disk = made.file.as_str();
        run("qemu-io", &["-f", "vmdk", "-c", &format!("write -P 7 {border} 65536"), disk]);
        run("qemu-io", &["-f", "vmdk", "-c", &format!("read -vP 7 {border} 65536"), disk]);
        let mut ours = vmdk::Disk::open(disk.as_ref(), vmdk::Mode::Read).unwrap();
        let mut bytes = vec![0; 65536 + 1024];
        ours.read_at((border / 512) as u64 - 1, &mut bytes).unwrap();
        assert_eq!((bytes[511], bytes[512], bytes[512 + 65535], bytes[512 + 65536]), (0, 7, 7, 0));
    }

    #[test]
    fn sizes() {
        let directory = tempfile::tempdir().unwrap();
        let asked = |size: Option<u64>, mb: Option<u64>| CreateCowDisk {
            size: size.map(Size),
            size_mb: mb.map(Size),
            overwrite: true,
            ..request(directory.path(), "a.vmdk")
        };
        let made = make(asked(Some(1000), None));
        assert_eq!(made.size, Size(1024));
        assert_eq!(made.warnings, ["the size was rounded up to whole sectors: 1024 bytes"]);
        assert_eq!(make(asked(None, None)).size, Size(8_589_934_592));
        assert_eq!(make(asked(None, Some(3))).size, Size(3 << 20));
        assert_eq!(make(asked(Some((2 << 40) - 512), None)).warnings, Vec::<String>::new());
        for (size, mb, name) in [
            (Some(0), None, "size"),
            (Some((2 << 40) - 511), None, "size"),
            (Some(u64::MAX), None, "size"),
            (None, Some(0), "sizeMb"),
            (None, Some(2 << 20), "sizeMb"),
            (None, Some(1 << 44), "sizeMb"),
        ] {
            let expected = format!("Invalid argument: {name}: must be 1 to 2199023255040 bytes");
            assert_eq!(refused(asked(size, mb)), (-3, expected), "{size:?} {mb:?}");
        }
        assert_eq!(refused(asked(Some(1), Some(1))), (-3, "Invalid argument: size: given twice".to_owned()));
        assert_eq!(names(directory.path()), ["a.vmdk"], "nothing is left of what was refused");
    }

    #[test]
    fn what_cannot_be_made_leaves_nothing_and_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        make(request(directory.path(), "a.vmdk"));
        std::fs::write(at("text"), "no disk").unwrap();
        std::fs::write(at("b-s001.vmdk"), "mine").unwrap();
        std::fs::create_dir(at("directory")).unwrap();
        let before = names(directory.path());
        let a = std::fs::read(at("a.vmdk")).unwrap();
        let child = |parent: &str| CreateCowDisk {
            parent: Some(parent.to_owned()),
            ..request(directory.path(), "c.vmdk")
        };
        let exists = |name: &str| (-999, format!("{}: File exists", at(name)));
        assert_eq!(refused(request(directory.path(), "a.vmdk")), exists("a.vmdk"));
        let two =
            CreateCowDisk { kind: DiskType::TwoGbMaxExtentSparse, ..request(directory.path(), "b.vmdk") };
        assert_eq!(refused(two), exists("b-s001.vmdk"));
        let over = CreateCowDisk { overwrite: true, ..request(directory.path(), "directory") };
        assert_eq!(refused(over), exists("directory"));
        let missing =
            format!("Invalid virtual machine configuration: {}: No such file or directory", at("no"));
        assert_eq!(refused(child("no")), (-18, missing));
        let (code, text) = refused(child("text"));
        assert!(code == -18 && text.contains(&at("text")), "{text}");
        assert_eq!(refused(child("directory")).0, -18);
        assert_eq!(refused(child("a\"b")).0, -18);
        let (code, text) = refused(CreateCowDisk {
            overwrite: true,
            ..CreateCowDisk { file: HostPath::try_from(at("a.vmdk")).unwrap(), ..child("a.vmdk") }
        });
        assert!(code == -3 && text.contains("belongs to the parent"), "{text}");
        assert_eq!(
            refused(request(&directory.path().join("nowhere"), "a.vmdk")),
            (-999, format!("{}: No such file or directory", at("nowhere")))
        );
        assert_eq!(refused(request(directory.path(), "new.vmdk/")).0, -3);
        // A parent that somebody writes to.
        let writer = vmdk::Disk::open(at("a.vmdk").as_ref(), vmdk::Mode::Write).unwrap();
        assert_eq!(refused(child("a.vmdk")).0, -21);
        drop(writer);
        assert_eq!(names(directory.path()), before);
        assert_eq!(std::fs::read(at("a.vmdk")).unwrap(), a, "a parent is never changed");
        assert_eq!(std::fs::read_to_string(at("b-s001.vmdk")).unwrap(), "mine");
    }

    #[test]
    fn a_child_is_for_the_adapter_of_its_parent_and_keeps_the_name_it_was_given() {
        let directory = tempfile::tempdir().unwrap();
        let below = directory.path().join("below");
        std::fs::create_dir(&below).unwrap();
        make(CreateCowDisk { adapter: Some(AdapterType::BusLogic), ..request(directory.path(), "a.vmdk") });
        let made = make(CreateCowDisk {
            parent: Some("../a.vmdk".to_owned()),
            size: Some(Size(0)),
            ..request(&below, "c.vmdk")
        });
        let disk = vmdk::Disk::open(made.file.as_ref(), vmdk::Mode::Read).unwrap();
        assert_eq!(disk.info().adapter, Some(Adapter::BusLogic));
        assert_eq!(format!("{:08x}", disk.info().layers[0].cid), made.cid);
        assert_eq!(disk.info().layers[1].path, PathBuf::from(format!("{}/../a.vmdk", below.display())));
    }
}
