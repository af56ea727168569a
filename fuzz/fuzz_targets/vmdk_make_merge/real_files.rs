//! Disks in real files, and what may be in their way.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use fuzz::Input;
use hypervisor::vmdk::{
    Access, CreateOptions, Disk, Error, FileOpener, Kind, MAX_CAPACITY, Merge, Mode, Opener, create,
    create_with, files,
};

use crate::model::{Model, adapter, kind, place, told};

/// A disk that is busy is waited for: only this byte asks for it.
const PATIENT: u8 = 0xb5;

/// A directory that goes away with all that is in it.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(0);
        // Memory, where there is such a file system: every disk is flushed.
        let shared = Path::new("/dev/shm");
        let base = if shared.is_dir() { shared.to_owned() } else { std::env::temp_dir() };
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("vmdk_make_merge-{}-{number}", std::process::id()));
        // What an earlier run of the same number left when it crashed.
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a directory can be made");
        Directory(path)
    }

    fn names(&self) -> BTreeSet<PathBuf> {
        let entries = std::fs::read_dir(&self.0).expect("the directory is there");
        entries.map(|entry| entry.expect("the directory can be read").path()).collect()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Makes disks in real files, over old ones too; merges them; and looks at what is in the directory each time.
pub(crate) fn on_files(mut input: Input<'_>) {
    let directory = Directory::new();
    // Real files of real length: small ones.
    let capacity = 1 + u64::from(input.word()) % 9000;
    let mut chain: Vec<PathBuf> = Vec::new();
    let mut model = Model::new(capacity);
    let mut there = BTreeSet::new();
    let mut steps = 0;
    while !input.is_empty() && steps < 16 {
        steps += 1;
        match input.byte() % 8 {
            0 | 1 => {
                let (name, kind) = (format!("d{}.vmdk", input.byte() % 4), kind(input.byte()));
                let flags = input.byte();
                let parent = chain.last().filter(|_| flags & 1 != 0).and_then(|path| path.file_name());
                let options = CreateOptions {
                    parent: parent.map(PathBuf::from),
                    adapter: adapter(flags >> 4),
                    overwrite: flags & 2 != 0,
                    hardware_version: u32::from(flags >> 2 & 3) + 3,
                    mode: if flags & 4 != 0 { 0o640 } else { 0o600 },
                    ..CreateOptions::new(kind, capacity * 512)
                };
                let path = directory.0.join(&name);
                match create(&path, &options) {
                    Ok(created) => {
                        assert_eq!(created.size, capacity * 512);
                        for file in &created.files {
                            let mode = file.metadata().expect("it is there").permissions().mode();
                            assert_eq!(mode & 0o777 & !options.mode, 0, "no more rights than asked for");
                            assert!(options.overwrite || !there.contains(file), "an old file is gone");
                            there.insert(file.clone());
                        }
                        if options.parent.is_none() {
                            chain.clear();
                            model = Model::new(capacity);
                        }
                        chain.push(path);
                        let listed = files(&FileOpener, chain.last().expect("just made")).expect("a disk");
                        let own = listed.into_iter().filter(|file| file.depth == 0).map(|file| file.path);
                        assert_eq!(own.collect::<Vec<_>>(), created.files);
                    }
                    Err(error) => told(&error),
                }
                // All of it or nothing, and no temporary files.
                assert_eq!(directory.names(), there);
            }
            2..=4 => {
                let Some(path) = chain.last() else { continue };
                // A disk lower in the chain may have been made anew in the meantime.
                let Ok(mut disk) = Disk::open(path, Mode::Write) else { return };
                for _ in 0..1 + input.byte() % 3 {
                    let (sector, count) = place(&mut input, capacity);
                    disk.write_at(sector, &model.write(sector, count)).expect("it can be written");
                }
                let parents = disk.parents();
                for parent in &parents {
                    assert!(disk.lend(parent).expect("it can be lent"));
                    disk.take_back(parent).expect("nobody has taken it");
                }
                assert!(!disk.lend(path).expect("the disk itself is not lent"));
                model.check_all(&mut disk);
                disk.close().expect("it can be closed");
            }
            5 => {
                let Some((top, parents)) = chain.split_last().filter(|(_, parents)| !parents.is_empty())
                else {
                    continue;
                };
                let target = &parents[usize::from(input.byte()) % parents.len()];
                let Ok(mut merge) = Merge::open(top, target) else { return };
                assert!(merge.run(&mut |_, _| true).expect("it can be merged"));
                merge.seal().expect("it can be sealed");
                let kept = parents.iter().position(|path| path == target).unwrap_or_default();
                for path in &chain[kept + 1..] {
                    let own = files(&FileOpener, path).expect("a disk");
                    for file in own.into_iter().filter(|file| file.depth == 0) {
                        std::fs::remove_file(&file.path).expect("it can be removed");
                        there.remove(&file.path);
                    }
                }
                chain.truncate(kept + 1);
                model.check_all(&mut Disk::open(&chain[kept], Mode::Read).expect("the target is a disk"));
            }
            6 => odd_files(&directory, &mut there, &mut input),
            _ => {
                if input.byte() == PATIENT
                    && let Some(path) = chain.last()
                    && let Ok(disk) = Disk::open(path, Mode::Write)
                {
                    let error = Disk::open(path, Mode::Write).expect_err("it is in use");
                    assert!(matches!(error, Error::Busy { .. }));
                    told(&error);
                    drop(disk);
                    return;
                }
            }
        }
    }
    if let Some(path) = chain.last()
        && let Ok(mut disk) = Disk::open(path, Mode::Read)
    {
        model.check_all(&mut disk);
    }
}

/// What is in the way: directories, links, names that are none, parents that are none.
fn odd_files(directory: &Directory, there: &mut BTreeSet<PathBuf>, input: &mut Input<'_>) {
    let (choice, kind) = (input.byte(), kind(input.byte()));
    let options = CreateOptions { overwrite: choice & 1 != 0, ..CreateOptions::new(kind, 5000) };
    let odd = directory.0.join("odd.vmdk");
    let outcome = match choice >> 1 & 7 {
        0 => {
            let _ = std::fs::create_dir(&odd);
            there.insert(odd.clone());
            let error = FileOpener.open(&odd, Access::Read).map(drop).expect_err("a directory is no file");
            assert!(!error.to_string().is_empty());
            create(&odd, &options)
        }
        1 => {
            // A link is replaced itself; what it leads to stays as it is.
            let (link, aim) = (directory.0.join("link.vmdk"), directory.0.join("aim"));
            std::fs::write(&aim, b"aim").expect("a file can be written");
            let _ = std::os::unix::fs::symlink("aim", &link);
            let made = create(&link, &options);
            assert_eq!(made.is_ok(), options.overwrite, "{made:?}");
            assert_eq!(std::fs::read(&aim).expect("it is there"), b"aim");
            there.extend([link, aim]);
            made
        }
        2 => create(&directory.0.join("absent").join("d.vmdk"), &options),
        3 => create(&directory.0.join(".."), &options),
        4 => {
            // The child must not take the place of its parent.
            let parent = directory.0.join("parent.vmdk");
            if let Ok(created) = create(&parent, &CreateOptions::new(Kind::MonolithicSparse, 5000)) {
                there.extend(created.files);
            }
            let family = CreateOptions { parent: Some("parent.vmdk".into()), overwrite: true, ..options };
            let refused = create_with(&FileOpener, &parent, &family);
            assert!(refused.is_err());
            refused
        }
        5 => {
            create(&directory.0.join("d9.vmdk"), &CreateOptions { parent: Some("absent".into()), ..options })
        }
        6 => create(
            &directory.0.join("d9.vmdk"),
            &CreateOptions { size: if choice & 16 == 0 { 0 } else { (MAX_CAPACITY << 9) + 1 }, ..options },
        ),
        _ => create(&directory.0.join("d9\n.vmdk"), &options),
    };
    match outcome {
        Ok(created) => there.extend(created.files),
        Err(error) => told(&error),
    }
    assert_eq!(&directory.names(), there);
}
