//! Disks made by us and used by `qemu-img` and `qemu-io`, and the other way round. What they agree on
//! is compared byte by byte, as raw images.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{Model, assert_same, have};
use hypervisor::vmdk::{Adapter, CreateOptions, Disk, Error, Kind, Mode, create};

/// A directory to work in, and its tools.
struct Bench {
    directory: tempfile::TempDir,
}

fn run(program: &str, directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).env("LC_ALL", "C");
    command.output().unwrap()
}

impl Bench {
    /// None, loudly, without the program.
    fn new(what: &str) -> Option<Self> {
        let all = have(what, "qemu-img") && have(what, "qemu-io");
        all.then(|| Bench { directory: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    #[track_caller]
    fn qemu_img(&self, arguments: &[&str]) {
        let output = run("qemu-img", self.directory.path(), arguments);
        assert!(output.status.success(), "qemu-img {arguments:?}: {output:?}");
    }

    /// What `qemu-img` says when it fails, None when it does not.
    fn qemu_img_fails(&self, arguments: &[&str]) -> Option<String> {
        let output = run("qemu-img", self.directory.path(), arguments);
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs one command of `qemu-io`; false when that failed.
    fn qemu_io(&self, name: &str, command: &str) -> bool {
        let output = run("qemu-io", self.directory.path(), &["-f", "vmdk", "-c", command, name]);
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        output.status.success() && !text.contains("failed") && !text.contains("rror")
    }

    /// The whole disk as `qemu-img convert` sees it.
    #[track_caller]
    fn qemu_bytes(&self, name: &str) -> Vec<u8> {
        self.qemu_img(&["convert", "-f", "vmdk", "-O", "raw", name, "out.raw"]);
        std::fs::read(self.path("out.raw")).unwrap()
    }

    /// The whole disk as we see it.
    #[track_caller]
    fn our_bytes(&self, name: &str) -> Vec<u8> {
        let mut disk = Disk::open(&self.path(name), Mode::Read).unwrap();
        let mut bytes = vec![0xee; disk.capacity() as usize * 512];
        disk.read_at(0, &mut bytes).unwrap();
        bytes
    }

    /// Both see the same, and it is what the model says.
    #[track_caller]
    fn all_agree(&self, name: &str, model: &Model) {
        let ours = self.our_bytes(name);
        let expected = model.read(0, ours.len() as u64 / 512);
        assert_same(&ours, &expected, &format!("{name}, read by us"));
        assert_same(&self.qemu_bytes(name), &expected, &format!("{name}, read by qemu-img"));
    }

    /// Our write, in our model.
    #[track_caller]
    fn write(&self, name: &str, model: &mut Model, places: &[(u64, u64)]) {
        let mut disk = Disk::open(&self.path(name), Mode::Write).unwrap();
        for &(sector, count) in places {
            disk.write_at(sector, &model.write(sector, count)).unwrap();
        }
        disk.close().unwrap();
    }

    /// Whether a write of qemu cannot be read back; done to a copy of the files.
    fn qemu_loses_a_write_to(&self, files: &[&str]) -> bool {
        let copy = tempfile::tempdir().unwrap();
        for file in files {
            std::fs::copy(self.path(file), copy.path().join(file)).unwrap();
        }
        let copy = Bench { directory: copy };
        !copy.qemu_io(files[0], "write -q -P 7 0 512") || !copy.qemu_io(files[0], "read -q -P 7 0 512")
    }

    /// A write of qemu, in our model.
    #[track_caller]
    fn qemu_write(&self, name: &str, model: &mut Model, places: &[(u64, u64)]) {
        for &(sector, count) in places {
            let data = model.write(sector, count);
            std::fs::write(self.path("piece.raw"), &data).unwrap();
            let command = format!("write -q -s piece.raw {} {}", sector * 512, count * 512);
            assert!(self.qemu_io(name, &command), "qemu-io {command} on {name}");
        }
    }
}

/// Places in a disk of `CAPACITY` sectors: the ends, inside a grain, across grains and tables.
const PLACES: [(u64, u64); 5] = [(0, 1), (100, 300), (65_500, 100), (30_000, 1), (CAPACITY - 3, 3)];
const CAPACITY: u64 = 70_001;

#[test]
fn what_we_make_and_write_qemu_reads_and_writes() {
    let Some(bench) = Bench::new("our disks in qemu") else {
        return;
    };
    for kind in Kind::ALL {
        for adapter in [Adapter::Ide, Adapter::BusLogic, Adapter::LsiLogic] {
            let name = format!("{}-{}.vmdk", kind.name(), adapter.name());
            let options =
                CreateOptions { adapter: Some(adapter), ..CreateOptions::new(kind, CAPACITY * 512) };
            create(&bench.path(&name), &options).unwrap();
            let mut model = Model::default();
            bench.all_agree(&name, &model);
            bench.qemu_img(&["info", &name]);
            if adapter != Adapter::Ide {
                continue;
            }
            if kind == Kind::MonolithicSparse {
                // Other kinds have no check in qemu.
                bench.qemu_img(&["check", &name]);
            }
            bench.write(&name, &mut model, &PLACES);
            bench.all_agree(&name, &model);
            bench.qemu_write(&name, &mut model, &[(1, 1), (399, 40), (65_600, 200), (40_000, 128)]);
            bench.all_agree(&name, &model);
            bench.write(&name, &mut model, &[(2, 1), (50_000, 2000), (CAPACITY - 200, 150)]);
            bench.all_agree(&name, &model);
            if kind == Kind::MonolithicSparse {
                bench.qemu_img(&["check", &name]);
            }
        }
    }
}

#[test]
fn what_qemu_makes_and_writes_we_read_and_write() {
    let Some(bench) = Bench::new("qemu's disks in ours") else {
        return;
    };
    let kinds = [
        "monolithicSparse",
        "monolithicFlat",
        "twoGbMaxExtentSparse",
        "twoGbMaxExtentFlat",
        "streamOptimized",
    ];
    for kind in kinds {
        let name = format!("{kind}.vmdk");
        let mut model = Model::default();
        let mut raw = vec![0; CAPACITY as usize * 512];
        for (sector, count) in PLACES {
            let data = model.write(sector, count);
            raw[sector as usize * 512..][..data.len()].copy_from_slice(&data);
        }
        std::fs::write(bench.path("in.raw"), &raw).unwrap();
        bench.qemu_img(&[
            "convert",
            "-f",
            "raw",
            "-O",
            "vmdk",
            "-o",
            &format!("subformat={kind}"),
            "in.raw",
            &name,
        ]);
        bench.all_agree(&name, &model);
        let info = Disk::open(&bench.path(&name), Mode::Read).unwrap().info();
        assert_eq!(info.layers[0].create_type, kind);
        assert_eq!(info.adapter, Some(Adapter::Ide));
        if kind == "streamOptimized" {
            let error = Disk::open(&bench.path(&name), Mode::Write).unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{error}");
            continue;
        }
        bench.write(&name, &mut model, &[(2, 1), (50_000, 2000), (CAPACITY - 200, 150)]);
        bench.all_agree(&name, &model);
        bench.qemu_write(&name, &mut model, &[(60_000, 777), (3, 1)]);
        bench.all_agree(&name, &model);
    }
}

#[test]
fn grains_of_zeros() {
    let Some(bench) = Bench::new("zeroed grains") else {
        return;
    };
    let size = format!("{}", CAPACITY * 512);
    bench.qemu_img(&["create", "-q", "-f", "vmdk", "base.vmdk", &size]);
    let mut model = Model::default();
    bench.write("base.vmdk", &mut model, &[(0, 2000)]);
    bench.qemu_img(&[
        "create",
        "-q",
        "-f",
        "vmdk",
        "-o",
        "zeroed_grain=on",
        "-b",
        "base.vmdk",
        "-F",
        "vmdk",
        "z.vmdk",
    ]);
    assert!(bench.qemu_io("z.vmdk", "write -q -z 65536 131072"));
    for sector in 128..384 {
        model.set(sector, 0);
    }
    bench.all_agree("z.vmdk", &model);
    bench.write("z.vmdk", &mut model, &[(200, 3), (380, 10)]);
    bench.all_agree("z.vmdk", &model);
}

#[test]
fn chains_three_deep() {
    let Some(bench) = Bench::new("chains with qemu") else {
        return;
    };
    let kinds = [Kind::MonolithicSparse, Kind::TwoGbMaxExtentSparse, Kind::VmfsSparse];
    for (index, root) in Kind::ALL.into_iter().enumerate() {
        let names: Vec<String> = (0..3).map(|depth| format!("chain{index}-{depth}.vmdk")).collect();
        let mut model = Model::default();
        create(&bench.path(&names[0]), &CreateOptions::new(root, CAPACITY * 512)).unwrap();
        bench.write(&names[0], &mut model, &[(0, 1000), (65_500, 100)]);
        for depth in 1..3 {
            let kind = kinds[(index + depth) % 3];
            let options = CreateOptions {
                parent: Some(names[depth - 1].as_str().into()),
                ..CreateOptions::new(kind, 0)
            };
            create(&bench.path(&names[depth]), &options).unwrap();
            bench.all_agree(&names[depth], &model);
            bench.write(
                &names[depth],
                &mut model,
                &[(depth as u64 * 130, 2), (65_536, 1), (CAPACITY - 1, 1)],
            );
            bench.all_agree(&names[depth], &model);
            bench.qemu_write(&names[depth], &mut model, &[(depth as u64 * 300, 5), (66_000, 300)]);
            bench.all_agree(&names[depth], &model);
        }
        // Their child on top of our chain.
        bench.qemu_img(&["create", "-q", "-f", "vmdk", "-b", &names[2], "-F", "vmdk", "top.vmdk"]);
        bench.qemu_write("top.vmdk", &mut model, &[(5, 5), (40_000, 1)]);
        bench.all_agree("top.vmdk", &model);
        bench.write("top.vmdk", &mut model, &[(6, 1), (41_000, 400)]);
        bench.all_agree("top.vmdk", &model);
        std::fs::remove_file(bench.path("top.vmdk")).unwrap();
    }
}

/// The table of the specification: what `qemu-img` accepts, and whether we agree.
#[test]
fn acceptance_rows() {
    let Some(bench) = Bench::new("acceptance table") else {
        return;
    };
    let opens = |name: &str| Disk::open(&bench.path(name), Mode::Write).map(|_| ());
    let size = CAPACITY * 512;

    // KDMV, embedded descriptor, without a redundant directory: everything works.
    create(&bench.path("plain.vmdk"), &CreateOptions::new(Kind::MonolithicSparse, size)).unwrap();
    let mut bytes = std::fs::read(bench.path("plain.vmdk")).unwrap();
    bytes[8] = 1;
    bytes[48..56].fill(0);
    std::fs::write(bench.path("plain.vmdk"), &bytes).unwrap();
    let mut model = Model::default();
    bench.write("plain.vmdk", &mut model, &[(0, 300)]);
    bench.qemu_write("plain.vmdk", &mut model, &[(300, 300)]);
    bench.all_agree("plain.vmdk", &model);

    // A child whose parent was written once: info is still fine, reading fails. So with us.
    let child =
        CreateOptions { parent: Some("plain.vmdk".into()), ..CreateOptions::new(Kind::MonolithicSparse, 0) };
    create(&bench.path("child.vmdk"), &child).unwrap();
    bench.all_agree("child.vmdk", &model);
    bench.write("plain.vmdk", &mut model.clone(), &[(0, 1)]);
    bench.qemu_img(&["info", "child.vmdk"]);
    assert!(bench.qemu_img_fails(&["convert", "-f", "vmdk", "-O", "raw", "child.vmdk", "x.raw"]).is_some());
    assert!(matches!(opens("child.vmdk").unwrap_err(), Error::ParentChanged { .. }));

    // No tables: qemu reads zeros, and a write fails (7.2) or overwrites the header (10.0). We make the
    // tables that are missing.
    create(&bench.path("bare.vmdk"), &CreateOptions::new(Kind::MonolithicSparse, size)).unwrap();
    let mut bytes = std::fs::read(bench.path("bare.vmdk")).unwrap();
    let entry = |sector: usize| sector * 512..sector * 512 + 8;
    for directory in [21, 30] {
        assert_ne!(bytes[entry(directory)], [0; 8]);
        bytes[entry(directory)].fill(0);
    }
    std::fs::write(bench.path("bare.vmdk"), &bytes).unwrap();
    let mut model = Model::default();
    bench.all_agree("bare.vmdk", &model);
    assert!(bench.qemu_loses_a_write_to(&["bare.vmdk"]));
    bench.write("bare.vmdk", &mut model, &[(65_400, 300), (5, 1)]);
    bench.all_agree("bare.vmdk", &model);
    bench.qemu_write("bare.vmdk", &mut model, &[(7, 500)]);
    bench.all_agree("bare.vmdk", &model);

    // An extent by itself is no disk; with a separate descriptor of type monolithicSparse qemu refuses
    // what we read.
    create(&bench.path("two.vmdk"), &CreateOptions::new(Kind::TwoGbMaxExtentSparse, size)).unwrap();
    let mut model = Model::default();
    bench.write("two.vmdk", &mut model, &[(9, 9)]);
    assert!(opens("two-s001.vmdk").unwrap_err().to_string().contains("an extent, not a disk"));
    let text = std::fs::read_to_string(bench.path("two.vmdk")).unwrap();
    std::fs::write(bench.path("mono.vmdk"), text.replace("twoGbMaxExtentSparse", "monolithicSparse"))
        .unwrap();
    assert!(bench.qemu_img_fails(&["info", "mono.vmdk"]).unwrap().contains("nsupported image type"));
    assert_same(&bench.our_bytes("mono.vmdk"), &model.read(0, CAPACITY), "separate monolithicSparse");

    // A bare COWD file is refused by both. With a descriptor, but without tables, qemu says it wrote
    // and did not; we make the tables.
    create(&bench.path("cow.vmdk"), &CreateOptions::new(Kind::VmfsSparse, size)).unwrap();
    assert!(bench.qemu_img_fails(&["info", "-f", "vmdk", "cow-delta.vmdk"]).is_some());
    assert!(opens("cow-delta.vmdk").unwrap_err().to_string().contains("an extent, not a disk"));
    let delta = bench.path("cow-delta.vmdk");
    let mut bytes = std::fs::read(&delta).unwrap();
    bytes[4 * 512..5 * 512].fill(0);
    std::fs::write(&delta, &bytes).unwrap();
    let mut model = Model::default();
    bench.all_agree("cow.vmdk", &model);
    assert!(bench.qemu_loses_a_write_to(&["cow.vmdk", "cow-delta.vmdk"]));
    bench.write("cow.vmdk", &mut model, &[(0, 5000), (CAPACITY - 1, 1)]);
    bench.all_agree("cow.vmdk", &model);
    bench.qemu_write("cow.vmdk", &mut model, &[(100, 20), (4000, 200)]);
    bench.all_agree("cow.vmdk", &model);
    bench.write("cow.vmdk", &mut model, &[(200, 2)]);
    bench.all_agree("cow.vmdk", &model);
}

#[test]
fn odd_and_large_sizes() {
    let Some(bench) = Bench::new("odd and large sizes") else {
        return;
    };
    for kind in Kind::ALL {
        for sectors in [1, 63, 64, 127, 128, 129] {
            let name = format!("s{sectors}-{}.vmdk", kind.name());
            create(&bench.path(&name), &CreateOptions::new(kind, sectors * 512)).unwrap();
            let mut model = Model::default();
            bench.write(&name, &mut model, &[(sectors - 1, 1)]);
            bench.qemu_write(&name, &mut model, &[(0, 1)]);
            bench.all_agree(&name, &model);
        }
        // Several extents, more than 4 GiB; qemu compares it with a raw file that is almost empty.
        let sectors = (4 << 21) + 12_345;
        let name = format!("large-{}.vmdk", kind.name());
        create(&bench.path(&name), &CreateOptions::new(kind, sectors * 512)).unwrap();
        let raw = std::fs::File::create(bench.path("large.raw")).unwrap();
        raw.set_len(sectors * 512).unwrap();
        let mut model = Model::default();
        let places = [(4_192_250, 20), (sectors - 5, 5), (0, 1)];
        bench.write(&name, &mut model, &places);
        for (sector, count) in places {
            std::os::unix::fs::FileExt::write_all_at(&raw, &model.read(sector, count), sector * 512).unwrap();
        }
        bench.qemu_img(&["compare", "-q", "-f", "vmdk", "-F", "raw", &name, "large.raw"]);
        bench.qemu_write(&name, &mut model, &[(4_192_255, 2)]);
        let mut disk = Disk::open(&bench.path(&name), Mode::Read).unwrap();
        let mut buf = vec![0; 20 * 512];
        disk.read_at(4_192_250, &mut buf).unwrap();
        assert_same(&buf, &model.read(4_192_250, 20), &name);
    }
    // The largest size of all.
    let path = bench.path("huge.vmdk");
    create(&path, &CreateOptions::new(Kind::MonolithicSparse, (2 << 40) - 512)).unwrap();
    bench.qemu_img(&["info", "huge.vmdk"]);
    bench.qemu_img(&["check", "huge.vmdk"]);
}

/// The files of a saved input of the fuzz target `vmdk_open_read`, as that takes it apart.
fn fuzzed(input: &[u8]) -> Option<[&[u8]; 3]> {
    let (head, files) = input.split_at_checked(5)?;
    let length = |at: usize| usize::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let c_start = files.len().saturating_sub(length(3));
    let b_start = c_start.saturating_sub(length(1));
    Some([&files[..b_start], &files[b_start..c_start], &files[c_start..]])
}

#[test]
fn what_both_read_of_the_fuzzers_disks_is_the_same() {
    const LARGEST: u64 = 65_536;
    let Some(bench) = Bench::new("saved inputs of vmdk_open_read") else { return };
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/vmdk_open_read");
    let mut inputs: Vec<PathBuf> = corpus.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    let mut compared = Vec::new();
    for path in inputs {
        let input = std::fs::read(&path).unwrap();
        let Some(files) = fuzzed(&input) else { continue };
        for (name, bytes) in ["a.vmdk", "b.vmdk", "c.vmdk"].into_iter().zip(files) {
            std::fs::write(bench.path(name), bytes).unwrap();
        }
        let Ok(mut disk) = Disk::open(&bench.path("a.vmdk"), Mode::Read) else { continue };
        let mut ours = vec![0; disk.capacity().min(LARGEST) as usize * 512];
        if disk.capacity() > LARGEST || disk.read_at(0, &mut ours).is_err() {
            continue;
        }
        let convert = ["convert", "-f", "vmdk", "-O", "raw", "a.vmdk", "out.raw"];
        if bench.qemu_img_fails(&convert).is_none() {
            let theirs = std::fs::read(bench.path("out.raw")).unwrap();
            assert_same(&ours, &theirs, &path.display().to_string());
            compared.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    for name in ["chain", "monolithic", "stream"] {
        assert!(compared.iter().any(|compared| compared == name), "{name} is compared: {compared:?}");
    }
}
