//! The acceptance disk: GRUB, a FAT file system, and files that GRUB reads and writes. Built from the
//! packages grub-pc-bin, grub-common, mtools and qemu-utils.

use std::path::Path;

/// Where GRUB's parts for a BIOS are.
const GRUB: &str = "/usr/lib/grub/i386-pc";

/// What is missing to build the disk.
pub fn missing() -> Vec<&'static str> {
    let programs = ["grub-mkimage", "grub-editenv", "mformat", "mcopy", "qemu-img"];
    let mut missing: Vec<&str> = programs.into_iter().filter(|program| !in_path(program)).collect();
    if !Path::new(GRUB).join("boot.img").is_file() {
        missing.push("the package grub-pc-bin");
    }
    missing
}

/// Whether a program is installed.
pub fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Runs a program that must succeed.
pub fn run(program: &str, arguments: &[&std::ffi::OsStr]) {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {error}");
}

/// Builds the acceptance disk in `directory`: GRUB, a FAT file system, and a file that GRUB can write.
/// Returns its path: a monolithicSparse VMDK.
pub fn disk(directory: &Path) -> std::path::PathBuf {
    use std::ffi::OsStr;
    let file = |name: &str| directory.join(name);
    std::fs::write(
        file("acc.cfg"),
        "serial --unit=0 --speed=115200\nterminal_input serial console\nterminal_output serial console\n\
         set root=(hd0,msdos1)\nload_env -f (hd0,msdos1)/grubenv\necho HV-GRUB-UP boots=$boots\n",
    )
    .unwrap();
    let (config, core) = (file("acc.cfg"), file("core.img"));
    let mut arguments: Vec<&OsStr> =
        ["-d", GRUB, "-O", "i386-pc", "-p", "(hd0,msdos1)/grub", "-c"].map(OsStr::new).into();
    arguments.extend([config.as_os_str(), OsStr::new("-o"), core.as_os_str()]);
    let modules =
        ["biosdisk", "part_msdos", "fat", "serial", "terminal", "echo", "reboot", "halt", "loadenv", "cat"];
    arguments.extend(modules.map(OsStr::new));
    run("grub-mkimage", &arguments);
    let environment = file("grubenv");
    run("grub-editenv", &[environment.as_os_str(), OsStr::new("create")]);
    run("grub-editenv", &[environment.as_os_str(), OsStr::new("set"), OsStr::new("boots=zero")]);
    std::fs::write(file("hello.txt"), "hello from a file\n").unwrap();
    // A disk of 16 MiB with one FAT16 partition from sector 2048 on.
    const SECTORS: u32 = 16 << 11;
    let mut disk = vec![0u8; SECTORS as usize * 512];
    let boot = std::fs::read(Path::new(GRUB).join("boot.img")).unwrap();
    disk[..440].copy_from_slice(&boot[..440]);
    let core = std::fs::read(core).unwrap();
    disk[512..512 + core.len()].copy_from_slice(&core);
    let mut entry = vec![0x80, 0xfe, 0xff, 0xff, 0x0e, 0xfe, 0xff, 0xff];
    entry.extend_from_slice(&2048u32.to_le_bytes());
    entry.extend_from_slice(&(SECTORS - 2048).to_le_bytes());
    disk[446..462].copy_from_slice(&entry);
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let raw = file("acc.img");
    std::fs::write(&raw, disk).unwrap();
    let mut partition = raw.as_os_str().to_owned();
    partition.push("@@1M");
    let sectors = (SECTORS - 2048).to_string();
    run(
        "mformat",
        &[
            "-i".as_ref(),
            &partition,
            "-T".as_ref(),
            sectors.as_ref(),
            "-h".as_ref(),
            "16".as_ref(),
            "-s".as_ref(),
            "63".as_ref(),
            "-H".as_ref(),
            "2048".as_ref(),
            "::".as_ref(),
        ],
    );
    for name in ["grubenv", "hello.txt"] {
        run("mcopy", &["-i".as_ref(), &partition, file(name).as_os_str(), "::".as_ref()]);
    }
    let vmdk = file("acc.vmdk");
    let options = ["convert", "-O", "vmdk", "-o", "subformat=monolithicSparse"].map(OsStr::new);
    run("qemu-img", &[&options[..], &[raw.as_os_str(), vmdk.as_os_str()]].concat());
    vmdk
}
