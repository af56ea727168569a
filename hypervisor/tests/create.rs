//! Making disks on a real file system: all files or none, nothing replaced by accident.

mod common;

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use hypervisor::vmdk::{
    Adapter, CreateOptions, Disk, DiskFileRole, Error, FileOpener, Kind, Mode, create, files,
};

/// The names in a directory, sorted, hidden ones too.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn options(kind: Kind) -> CreateOptions {
    CreateOptions::new(kind, 100 << 20)
}

fn child(kind: Kind, parent: &str) -> CreateOptions {
    CreateOptions { parent: Some(parent.into()), ..CreateOptions::new(kind, 0) }
}

#[test]
fn the_files_of_every_kind() {
    let expected: [(Kind, &[(&str, u64)]); 6] = [
        // 100 MiB: one file of 65536 bytes, see the example of the specification.
        (Kind::MonolithicSparse, &[("d.vmdk", 65536)]),
        (Kind::TwoGbMaxExtentSparse, &[("d.vmdk", 0), ("d-s001.vmdk", 65536)]),
        (Kind::VmfsSparse, &[("d.vmdk", 0), ("d-delta.vmdk", (4 + 1 + 50 * 32) * 512)]),
        (Kind::MonolithicFlat, &[("d.vmdk", 0), ("d-flat.vmdk", 100 << 20)]),
        (Kind::TwoGbMaxExtentFlat, &[("d.vmdk", 0), ("d-f001.vmdk", 100 << 20)]),
        (Kind::Vmfs, &[("d.vmdk", 0), ("d-flat.vmdk", 100 << 20)]),
    ];
    for (kind, expected) in expected {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.vmdk");
        let created = create(&path, &options(kind)).unwrap();
        assert_eq!(created.size, 100 << 20);
        let paths: Vec<_> = expected.iter().map(|(name, _)| directory.path().join(name)).collect();
        assert_eq!(created.files, paths);
        assert_eq!(names(directory.path()).len(), expected.len());
        for (name, size) in expected {
            let metadata = std::fs::metadata(directory.path().join(name)).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            assert!(*size == 0 || metadata.len() == *size, "{name} has {} bytes", metadata.len());
        }
        let info = Disk::open(&path, Mode::Read).unwrap().info();
        assert_eq!((info.capacity, info.adapter), ((100 << 20) / 512, Some(Adapter::Ide)));
        assert_eq!((info.layers[0].cid, info.layers[0].create_type.as_str()), (created.cid, kind.name()));
        let listed = files(&FileOpener, &path).unwrap();
        assert_eq!(listed.iter().map(|file| file.path.clone()).collect::<Vec<_>>(), paths);
        assert!(listed.iter().skip(1).all(|file| file.role == DiskFileRole::Extent && file.depth == 0));
    }
}

#[test]
fn several_extents() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("Big Disk.VMDK");
    create(&path, &CreateOptions::new(Kind::TwoGbMaxExtentSparse, 5 << 30)).unwrap();
    assert_eq!(
        names(directory.path()),
        ["Big Disk-s001.vmdk", "Big Disk-s002.vmdk", "Big Disk-s003.vmdk", "Big Disk.VMDK"]
    );
    let info = Disk::open(&path, Mode::Write).unwrap().info();
    let sectors: Vec<u64> = info.layers[0].extents.iter().map(|extent| extent.sectors).collect();
    assert_eq!(sectors, [4_192_256, 4_192_256, (5 << 21) - 2 * 4_192_256]);
}

#[test]
fn sizes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.vmdk");
    let make = |size| create(&path, &CreateOptions::new(Kind::MonolithicSparse, size));
    for size in [0, (2 << 40) - 511, 2 << 40, u64::MAX] {
        assert!(matches!(make(size), Err(Error::BadOption(_))), "{size}");
        assert!(names(directory.path()).is_empty());
    }
    assert_eq!(make(1).unwrap().size, 512);
    let again = CreateOptions { overwrite: true, ..CreateOptions::new(Kind::VmfsSparse, (2 << 40) - 512) };
    assert_eq!(create(&path, &again).unwrap().size, (2 << 40) - 512);
}

#[test]
fn nothing_is_replaced_unless_asked() {
    for existing in ["d.vmdk", "d-s001.vmdk"] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("d.vmdk");
        std::fs::write(directory.path().join(existing), "precious").unwrap();
        let error = create(&path, &options(Kind::TwoGbMaxExtentSparse)).unwrap_err();
        assert!(matches!(&error, Error::Exists { path } if path.ends_with(existing)), "{error}");
        assert_eq!(names(directory.path()), [existing]);
        assert_eq!(std::fs::read(directory.path().join(existing)).unwrap(), b"precious");

        let overwrite = CreateOptions { overwrite: true, ..options(Kind::TwoGbMaxExtentSparse) };
        create(&path, &overwrite).unwrap();
        assert_eq!(names(directory.path()), ["d-s001.vmdk", "d.vmdk"]);
        Disk::open(&path, Mode::Write).unwrap();
    }
}

#[test]
fn a_link_is_replaced_and_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.vmdk");
    std::fs::write(directory.path().join("target"), "precious").unwrap();
    symlink("target", &path).unwrap();
    assert!(matches!(create(&path, &options(Kind::MonolithicSparse)), Err(Error::Exists { .. })));
    create(&path, &CreateOptions { overwrite: true, ..options(Kind::MonolithicSparse) }).unwrap();
    assert!(std::fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(std::fs::read(directory.path().join("target")).unwrap(), b"precious");
    assert_eq!(names(directory.path()), ["d.vmdk", "target"]);
}

#[test]
fn a_failure_leaves_everything_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("d.vmdk");
    create(&path, &options(Kind::MonolithicSparse)).unwrap();
    let before = std::fs::read(&path).unwrap();
    // The place of an extent is taken by a directory.
    std::fs::create_dir(directory.path().join("d-delta.vmdk")).unwrap();
    let overwrite = CreateOptions { overwrite: true, ..options(Kind::VmfsSparse) };
    assert!(matches!(create(&path, &overwrite), Err(Error::Exists { .. })));
    assert_eq!(names(directory.path()), ["d-delta.vmdk", "d.vmdk"]);
    assert_eq!(std::fs::read(&path).unwrap(), before);
    // The name of the extent is too long, that of the descriptor is not.
    let path = directory.path().join("n".repeat(250));
    assert!(create(&path, &options(Kind::MonolithicFlat)).unwrap_err().io_error().is_some());
    assert_eq!(names(directory.path()), ["d-delta.vmdk", "d.vmdk"]);
    // No directory.
    let error = create(&directory.path().join("absent/d.vmdk"), &options(Kind::MonolithicFlat)).unwrap_err();
    assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn children() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("base")).unwrap();
    std::fs::create_dir(directory.path().join("clone")).unwrap();
    let base = directory.path().join("base/b.vmdk");
    let scsi = CreateOptions { adapter: Some(Adapter::LsiLogic), ..options(Kind::TwoGbMaxExtentSparse) };
    let parent = create(&base, &scsi).unwrap();
    let path = directory.path().join("clone/c.vmdk");
    for kind in [Kind::MonolithicSparse, Kind::TwoGbMaxExtentSparse, Kind::VmfsSparse] {
        let options = CreateOptions { overwrite: true, ..child(kind, "../base/b.vmdk") };
        let created = create(&path, &options).unwrap();
        assert_eq!(created.size, parent.size);
        assert_ne!(created.cid, parent.cid);
        let info = Disk::open(&path, Mode::Write).unwrap().info();
        assert_eq!(info.adapter, Some(Adapter::LsiLogic));
        assert_eq!(info.layers[0].parent_cid, Some(parent.cid));
        assert_eq!(info.layers[1].path, directory.path().join("clone/../base/b.vmdk"));
        let text = std::fs::read(created.files.first().unwrap()).unwrap();
        assert!(String::from_utf8_lossy(&text).contains("parentFileNameHint=\"../base/b.vmdk\"\n"));
        let listed = files(&FileOpener, &path).unwrap();
        assert_eq!(listed.iter().filter(|file| file.depth == 1).count(), 2);
    }
    // The parent was never written to.
    assert_eq!(Disk::open(&base, Mode::Read).unwrap().info().layers[0].cid, parent.cid);
}

#[test]
fn parents_that_cannot_be() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.vmdk");
    let error = create(&path, &child(Kind::MonolithicSparse, "absent.vmdk")).unwrap_err();
    assert_eq!(error.io_error().unwrap().kind(), std::io::ErrorKind::NotFound);
    std::fs::write(directory.path().join("text"), "no disk").unwrap();
    let error = create(&path, &child(Kind::MonolithicSparse, "text")).unwrap_err();
    assert!(matches!(&error, Error::Parent(why) if matches!(**why, Error::Malformed { .. })), "{error}");
    for kind in [Kind::MonolithicFlat, Kind::TwoGbMaxExtentFlat, Kind::Vmfs] {
        create(&directory.path().join("p.vmdk"), &CreateOptions { overwrite: true, ..options(kind) })
            .unwrap();
        assert!(matches!(create(&path, &child(kind, "p.vmdk")), Err(Error::BadOption(_))));
    }
    for hint in ["a\"b.vmdk", "a\nb.vmdk", ""] {
        assert!(create(&path, &child(Kind::MonolithicSparse, hint)).is_err());
    }
    for name in ["", "new.vmdk/", "new.vmdk/.", "new.vmdk/.."] {
        let path = PathBuf::from(format!("{}/{name}", directory.path().display()));
        let result = create(&path, &options(Kind::MonolithicSparse));
        assert!(matches!(result, Err(Error::BadOption(_))), "{name}: {result:?}");
    }
    for name in ["a\"b.vmdk", "a\nRW 1 FLAT \"x\" 0"] {
        let result = create(&directory.path().join(name), &options(Kind::MonolithicSparse));
        assert!(matches!(result, Err(Error::BadOption(_))));
    }
    // Overwriting what it needs: the parent itself, by any name, or one of its extents.
    create(&directory.path().join("q.vmdk"), &options(Kind::TwoGbMaxExtentSparse)).unwrap();
    symlink("q.vmdk", directory.path().join("link.vmdk")).unwrap();
    for (name, parent) in [("q.vmdk", "q.vmdk"), ("link.vmdk", "link.vmdk"), ("q-s001.vmdk", "q.vmdk")] {
        let options = CreateOptions { overwrite: true, ..child(Kind::MonolithicSparse, parent) };
        let error = create(&directory.path().join(name), &options).unwrap_err();
        assert!(error.to_string().contains("belongs to the parent"), "{error}");
    }
    Disk::open(&directory.path().join("q.vmdk"), Mode::Write).unwrap();
}

#[test]
fn disks_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let base = directory.path().join("b.vmdk");
    let path = directory.path().join("c.vmdk");
    let busy = |result: Result<(), Error>| match result {
        Err(Error::Busy { .. }) => {}
        Err(Error::Parent(why)) if matches!(*why, Error::Busy { .. }) => {}
        other => panic!("{other:?}"),
    };
    create(&base, &options(Kind::MonolithicSparse)).unwrap();

    let writer = Disk::open(&base, Mode::Write).unwrap();
    busy(Disk::open(&base, Mode::Write).map(drop));
    busy(create(&path, &child(Kind::MonolithicSparse, "b.vmdk")).map(drop));
    busy(create(&base, &CreateOptions { overwrite: true, ..options(Kind::MonolithicSparse) }).map(drop));
    Disk::open(&base, Mode::Read).unwrap();
    writer.close().unwrap();

    create(&path, &child(Kind::MonolithicSparse, "b.vmdk")).unwrap();
    let child_writer = Disk::open(&path, Mode::Write).unwrap();
    busy(Disk::open(&base, Mode::Write).map(drop));
    // Another child of the same parent disturbs nobody.
    let other = directory.path().join("d.vmdk");
    create(&other, &child(Kind::VmfsSparse, "b.vmdk")).unwrap();
    Disk::open(&other, Mode::Write).unwrap();
    drop(child_writer);
    Disk::open(&base, Mode::Write).unwrap();
}
