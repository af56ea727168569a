//! `xtask deb`: the Debian packages `vmserverd`, `libvmcontrol1` and `libvmware-vmperl-perl`.
//!
//! ```text
//!   cargo build --release ─▶ files of packaging/, man pages ─▶ a tree for each package ─▶ dpkg-deb
//! ```
//!
//! The tree is written by the lists below; what a package depends on is asked of `dpkg-shlibdeps`. With the
//! same sources and compiler the packages are the same, byte for byte.

mod man;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Result;
use crate::workspace::{build_release, installed, root, run};

#[path = "../../../hypervisor/vmx/tests/common/sector.rs"]
mod sector;

/// Size of a floppy of 1.44 MB in bytes.
const FLOPPY: usize = 1_474_560;

/// Who is named in the packages.
const MAINTAINER: &str = "The vmserverd authors <vmserverd@localhost>";

/// Arguments of `xtask deb`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where the packages go [default: target/deb]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Pack the binaries and libraries of this directory instead of building them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Version of the packages [default: that of the workspace]
    #[arg(long, value_name = "V", default_value = env!("CARGO_PKG_VERSION"), value_parser = version)]
    version: String,
    /// Do not compress, for tests
    #[arg(long)]
    uncompressed: bool,
}

/// A version that Debian's tools take: it is part of a file name.
fn version(text: &str) -> Result<String> {
    let good = |letter: char| letter.is_ascii_alphanumeric() || ".+~".contains(letter);
    if text.starts_with(|first: char| first.is_ascii_digit()) && text.chars().all(good) {
        Ok(text.to_owned())
    } else {
        Err("a version begins with a digit, and has letters, digits, and . + ~".to_owned())
    }
}

/// Files as they lie in the repository: from, to, mode.
const SERVER_FILES: &[(&str, &str, u32)] = &[
    ("packaging/systemd/vmware-authd.socket", "usr/lib/systemd/system/vmware-authd.socket", 0o644),
    ("packaging/systemd/vmware-authd.service", "usr/lib/systemd/system/vmware-authd.service", 0o644),
    ("packaging/systemd/vmserverd.service", "usr/lib/systemd/system/vmserverd.service", 0o644),
    ("packaging/sysusers.d/vmserverd.conf", "usr/lib/sysusers.d/vmserverd.conf", 0o644),
    ("packaging/tmpfiles.d/vmserverd.conf", "usr/lib/tmpfiles.d/vmserverd.conf", 0o644),
    ("packaging/pam/vmware-authd", "etc/pam.d/vmware-authd", 0o644),
    ("packaging/logrotate/vmserverd", "etc/logrotate.d/vmserverd", 0o644),
    ("packaging/config/vmserverd.toml", "etc/vmserverd.toml", 0o644),
    ("packaging/config/config", "usr/share/vmserverd/config", 0o644),
];

/// What the README of the server package links to, beside `docs/` and the list of changes.
const SERVER_PAGES: &[&str] = &["README.md", "CONTRIBUTING.md", "SECURITY.md", "SPECIFICATION.md"];

/// Directory of Perl modules that are for every architecture.
const PERL: &str = "usr/share/perl5";

/// Binaries of the server package: name, directory.
const SERVER_BINARIES: &[(&str, &str)] = &[
    ("vmware-authd", "usr/sbin"),
    ("vmserverd", "usr/lib/vmserverd"),
    ("vmx", "usr/lib/vmserverd"),
    ("vmware-cmd", "usr/bin"),
];

/// Symbolic links of the server package: where, to what. The old name of the server is in the product's
/// messages, and in scripts.
const SERVER_LINKS: &[(&str, &str)] = &[
    ("usr/sbin/vmserverd", "../lib/vmserverd/vmserverd"),
    ("usr/sbin/vmware-serverd", "../lib/vmserverd/vmserverd"),
    ("usr/share/man/man8/vmware-serverd.8.gz", "vmserverd.8.gz"),
];

/// Runs the command; prints the paths of the packages.
pub fn main(arguments: &Arguments) -> Result<()> {
    for program in ["dpkg-deb", "dpkg-shlibdeps", "strip", "gzip", "pod2man"] {
        if !installed(program) {
            return Err(format!("{program} is missing: apt-get install dpkg-dev binutils gzip perl"));
        }
    }
    let out = arguments.out.clone().unwrap_or_else(|| root().join("target/deb"));
    let release = match &arguments.bin_dir {
        Some(directory) => directory.clone(),
        None => built()?,
    };
    std::fs::create_dir_all(&out).map_err(|error| format!("cannot make {}: {error}", out.display()))?;
    let packages =
        [server(&release, &out, arguments)?, client(&release, &out, arguments)?, perl(&out, arguments)?];
    for package in packages {
        println!("{}", package.display());
    }
    Ok(())
}

/// Builds what is packed; returns the directory where it is.
fn built() -> Result<PathBuf> {
    let built = build_release(&["authd", "serverd", "vmx", "vmware-cmd", "vmcontrol"])?;
    let release = built.values().next().and_then(|path| path.parent()).ok_or("cargo built nothing")?;
    Ok(release.to_owned())
}

fn server(release: &Path, out: &Path, arguments: &Arguments) -> Result<PathBuf> {
    let tree = Tree::new("vmserverd", out, arguments)?;
    for (name, directory) in SERVER_BINARIES {
        tree.binary(&release.join(name), &format!("{directory}/{name}"), 0o755)?;
    }
    for (from, to, mode) in SERVER_FILES {
        tree.file(&root().join(from), to, *mode)?;
    }
    for (from, to) in SERVER_LINKS {
        tree.link(from, to)?;
    }
    let completion = root().join("packaging/completion");
    for (from, to) in [
        ("vmware-cmd.bash", "usr/share/bash-completion/completions/vmware-cmd"),
        ("_vmware-cmd", "usr/share/zsh/vendor-completions/_vmware-cmd"),
        ("vmware-cmd.fish", "usr/share/fish/vendor_completions.d/vmware-cmd.fish"),
    ] {
        tree.file(&completion.join(from), to, 0o644)?;
    }
    // The first machine of whoever has nothing to boot yet: it says hello on screen and serial port.
    let mut floppy = sector::boot_sector();
    floppy.resize(FLOPPY, 0);
    tree.bytes(&floppy, "usr/share/vmserverd/hello.img", 0o644)?;
    tree.docs()?;
    for (from, to) in pages()? {
        tree.file(&root().join(from), &format!("usr/share/doc/vmserverd/{to}"), 0o644)?;
    }
    for (name, text) in man::pages()? {
        tree.man(&name, text.as_bytes())?;
    }
    tree.package(&[
        "usr/sbin/vmware-authd",
        "usr/lib/vmserverd/vmserverd",
        "usr/lib/vmserverd/vmx",
        "usr/bin/vmware-cmd",
    ])
}

fn client(release: &Path, out: &Path, arguments: &Arguments) -> Result<PathBuf> {
    let tree = Tree::new("libvmcontrol1", out, arguments)?;
    let multiarch = read_command(Command::new("dpkg-architecture").arg("-qDEB_HOST_MULTIARCH"))
        .unwrap_or_else(|_| format!("{}-linux-gnu", std::env::consts::ARCH));
    let directory = format!("usr/lib/{multiarch}");
    // The name of the file is that of the library, whatever the package is called.
    let version = env!("CARGO_PKG_VERSION");
    let minor = version.split_once('.').map_or(version, |(_, rest)| rest);
    let real = format!("libvmcontrol.so.1.{minor}");
    tree.binary(&release.join("libvmcontrol.so"), &format!("{directory}/{real}"), 0o644)?;
    for name in ["libvmcontrol.so.1", "libvmcontrol.so"] {
        tree.link(&format!("{directory}/{name}"), &real)?;
    }
    // Clients that look inside a directory look for these names (vmcontrol.md 5).
    for name in ["vmcontrol.so", "vmcontrol64.so"] {
        tree.link(&format!("{directory}/vmcontrol/{name}"), &format!("../{real}"))?;
    }
    tree.binary(&release.join("libvmcontrol.a"), &format!("{directory}/libvmcontrol.a"), 0o644)?;
    let vmcontrol = root().join("vmcontrol");
    tree.file(&vmcontrol.join("include/vmcontrol.h"), "usr/include/vmcontrol.h", 0o644)?;
    let template = read(&vmcontrol.join("vmcontrol.pc"))?;
    let pc = template.replace("libdir=${prefix}/lib", &format!("libdir=/{directory}"));
    tree.bytes(pc.as_bytes(), &format!("{directory}/pkgconfig/vmcontrol.pc"), 0o644)?;
    tree.man("vmcontrol.3", read(&vmcontrol.join("man/vmcontrol.3"))?.as_bytes())?;
    tree.docs()?;
    tree.package(&[&format!("{directory}/{real}")])
}

/// The pages of the server package: from, and to below its directory of documents. The same, so that links
/// between them lead somewhere.
fn pages() -> Result<Vec<(PathBuf, String)>> {
    let mut pages: Vec<(PathBuf, String)> =
        SERVER_PAGES.iter().map(|name| (name.into(), (*name).to_owned())).collect();
    for path in files(&root().join("docs"))? {
        let path = path.strip_prefix(root()).unwrap_or(&path).to_owned();
        if path.extension().is_some_and(|extension| extension == "md" || extension == "svg") {
            let to = path.to_string_lossy().into_owned();
            pages.push((path, to));
        }
    }
    Ok(pages)
}

/// Every file below a directory, sorted.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let describe = |error: std::io::Error| format!("cannot read {}: {error}", directory.display());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(describe)? {
        let path = entry.map_err(describe)?.path();
        if path.is_dir() {
            all.extend(files(&path)?);
        } else {
            all.push(path);
        }
    }
    all.sort();
    Ok(all)
}

/// The Perl modules, as Debian's policy for Perl has them: named after the module, without an architecture.
fn perl(out: &Path, arguments: &Arguments) -> Result<PathBuf> {
    let tree = Tree { any: true, ..Tree::new("libvmware-vmperl-perl", out, arguments)? };
    let room = root().join("vmcontrol/perl");
    let modules = room.join("lib");
    for path in files(&modules)? {
        let name = path.strip_prefix(&modules).unwrap_or(&path).to_string_lossy().into_owned();
        tree.file(&path, &format!("{PERL}/{name}"), 0o644)?;
        let module = name.trim_end_matches(".pm").replace('/', "::");
        let mut page = Command::new("pod2man");
        page.args(["--section=3pm", "--release=vmserverd", "--center=VmPerl", "--name", &module]).arg(&path);
        let text = read_command(page.env("SOURCE_DATE_EPOCH", source_date()))?;
        tree.man(&format!("{module}.3pm"), format!("{text}\n").as_bytes())?;
    }
    let doc = format!("usr/share/doc/{}", tree.package);
    tree.file(&room.join("README.md"), &format!("{doc}/README.md"), 0o644)?;
    for directory in ["examples", "t/scripts"] {
        for path in files(&room.join(directory))? {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            tree.file(&path, &format!("{doc}/examples/{name}"), 0o644)?;
        }
    }
    tree.docs()?;
    tree.package(&[])
}

/// The files of a package before they are packed.
struct Tree {
    package: &'static str,
    /// Where the tree is.
    root: PathBuf,
    out: PathBuf,
    version: String,
    /// As `dpkg-deb` wants it.
    compression: &'static str,
    /// It is for every architecture.
    any: bool,
}

impl Tree {
    fn new(package: &'static str, out: &Path, arguments: &Arguments) -> Result<Self> {
        let root = out.join(format!("{package}.tree"));
        match std::fs::remove_dir_all(&root) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("cannot remove {}: {error}", root.display()));
            }
            _ => {}
        }
        let (version, compression) =
            (arguments.version.clone(), if arguments.uncompressed { "-Znone" } else { "-Zxz" });
        Ok(Tree { package, root, out: out.to_owned(), version, compression, any: false })
    }

    fn path(&self, to: &str) -> Result<PathBuf> {
        let path = self.root.join(to);
        let directory = path.parent().unwrap_or(&self.root);
        std::fs::create_dir_all(directory)
            .map_err(|error| format!("cannot make {}: {error}", directory.display()))?;
        Ok(path)
    }

    fn bytes(&self, bytes: &[u8], to: &str, mode: u32) -> Result<()> {
        let path = self.path(to)?;
        std::fs::write(&path, bytes)
            .and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))
    }

    fn file(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        let bytes =
            std::fs::read(from).map_err(|error| format!("cannot read {}: {error}", from.display()))?;
        self.bytes(&bytes, to, mode)
    }

    /// A binary, without what only debuggers read.
    fn binary(&self, from: &Path, to: &str, mode: u32) -> Result<()> {
        self.file(from, to, mode)?;
        let level = if mode & 0o111 != 0 { "--strip-all" } else { "--strip-unneeded" };
        let level = if to.ends_with(".a") { "--strip-debug" } else { level };
        run(
            Command::new("strip").args([level, "--enable-deterministic-archives"]).arg(self.path(to)?),
            "strip",
        )
    }

    fn link(&self, at: &str, to: &str) -> Result<()> {
        let path = self.path(at)?;
        std::os::unix::fs::symlink(to, &path)
            .map_err(|error| format!("cannot link {}: {error}", path.display()))
    }

    /// A man page: `NAME.SECTION`.
    fn man(&self, name: &str, text: &[u8]) -> Result<()> {
        // Of `3pm` the digit names the directory.
        let section = name.rsplit_once('.').map_or("1", |(_, section)| section.get(..1).unwrap_or("1"));
        let to = format!("usr/share/man/man{section}/{name}");
        self.bytes(text, &to, 0o644)?;
        run(Command::new("gzip").args(["-9n", "--force"]).arg(self.path(&to)?), "gzip")
    }

    /// Licence and list of changes, as every Debian package has them.
    fn docs(&self) -> Result<()> {
        let doc = format!("usr/share/doc/{}", self.package);
        self.file(&root().join("packaging/deb/copyright"), &format!("{doc}/copyright"), 0o644)?;
        self.file(&root().join("CHANGELOG.md"), &format!("{doc}/CHANGELOG.md"), 0o644)?;
        let changes = format!("{doc}/changelog");
        let date =
            read_command(Command::new("date").args(["-R", "-u", "-d", &format!("@{}", source_date())]))?;
        let entry = format!(
            "{} ({}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- {MAINTAINER}  {date}\n",
            self.package, self.version
        );
        self.bytes(entry.as_bytes(), &changes, 0o644)?;
        run(Command::new("gzip").args(["-9n", "--force"]).arg(self.path(&changes)?), "gzip")
    }

    /// Packs the tree. `linked` are the files whose libraries the package depends on.
    fn package(&self, linked: &[&str]) -> Result<PathBuf> {
        let templates = root().join("packaging/deb").join(self.package);
        let architecture = match self.any {
            true => "all".to_owned(),
            false => read_command(Command::new("dpkg").arg("--print-architecture"))?,
        };
        // A package without programs says itself what it depends on.
        let depends = if linked.is_empty() { String::new() } else { self.depends(linked)? };
        let control = read(&templates.join("control"))?
            .replace("@VERSION@", &self.version)
            .replace("@ARCH@", &architecture)
            .replace("@MAINTAINER@", MAINTAINER)
            .replace("@SIZE@", &self.kilobytes()?)
            .replace("@DEPENDS@", &depends);
        self.bytes(control.as_bytes(), "DEBIAN/control", 0o644)?;
        self.checksums()?;
        for (name, mode) in [
            ("conffiles", 0o644),
            ("preinst", 0o755),
            ("postinst", 0o755),
            ("prerm", 0o755),
            ("postrm", 0o755),
            ("shlibs", 0o644),
            ("triggers", 0o644),
        ] {
            let from = templates.join(name);
            if from.is_file() {
                self.file(&from, &format!("DEBIAN/{name}"), mode)?;
            }
        }
        // Whatever umask this runs under.
        run(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&self.root), "chmod")?;
        let package = self.out.join(format!("{}_{}_{architecture}.deb", self.package, self.version));
        let mut pack = Command::new("dpkg-deb");
        pack.args(["--root-owner-group", self.compression, "--build"]).arg(&self.root).arg(&package);
        pack.env("SOURCE_DATE_EPOCH", source_date()).stdout(std::process::Stdio::null());
        run(&mut pack, "dpkg-deb")?;
        Ok(package)
    }

    /// What `dpkg-shlibdeps` says that these files need.
    fn depends(&self, linked: &[&str]) -> Result<String> {
        // It wants to stand beside a debian/control.
        let place = self.out.join(format!("{}.shlibdeps", self.package));
        let control = place.join("debian/control");
        std::fs::create_dir_all(place.join("debian"))
            .and_then(|()| {
                std::fs::write(
                    &control,
                    format!("Source: {0}\n\nPackage: {0}\nArchitecture: any\n", self.package),
                )
            })
            .map_err(|error| format!("cannot write {}: {error}", control.display()))?;
        let mut ask = Command::new("dpkg-shlibdeps");
        ask.current_dir(&place).arg("-O");
        for path in linked {
            ask.arg(format!("-e{}", self.root.join(path).display()));
        }
        let answer = read_command(&mut ask)?;
        let depends = answer.lines().find_map(|line| line.strip_prefix("shlibs:Depends="));
        depends.map(str::to_owned).ok_or_else(|| format!("dpkg-shlibdeps answered: {answer}"))
    }

    /// `Installed-Size`.
    fn kilobytes(&self) -> Result<String> {
        let said = read_command(Command::new("du").args(["-sk", "--apparent-size"]).arg(&self.root))?;
        Ok(said.split_whitespace().next().unwrap_or("0").to_owned())
    }

    /// `DEBIAN/md5sums`, which `dpkg --verify` compares with.
    fn checksums(&self) -> Result<()> {
        let script = "cd \"$0\" && find . -path ./DEBIAN -prune -o -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0r md5sum";
        let sums = read_command(Command::new("sh").args(["-c", script]).arg(&self.root))?;
        self.bytes(format!("{sums}\n").as_bytes(), "DEBIAN/md5sums", 0o644)
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

/// What a command prints, without the last line end.
fn read_command(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("cannot run {name}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{name} failed: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// The time of the last commit, which all files of the packages get.
fn source_date() -> String {
    let mut git = Command::new("git");
    git.current_dir(root()).args(["log", "-1", "--format=%ct"]);
    read_command(&mut git).ok().filter(|text| !text.is_empty()).unwrap_or_else(|| "0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// Where the links of a page lead to, of those that lead to other files here.
    fn links(text: &str) -> Vec<&str> {
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        let files = targets.map(|(target, _)| target.split('#').next().unwrap_or_default());
        files.filter(|file| !file.is_empty() && !file.contains("://")).collect()
    }

    /// `a/b/../c` as `a/c`.
    fn plain(path: &Path) -> PathBuf {
        let mut out = PathBuf::new();
        for part in path.components() {
            match part {
                std::path::Component::ParentDir => assert!(out.pop(), "{}", path.display()),
                part => out.push(part),
            }
        }
        out
    }

    #[test]
    fn the_links_of_packed_pages_lead_to_packed_pages() {
        let pages = pages().unwrap();
        let mut there: BTreeSet<PathBuf> = pages.iter().map(|(_, to)| to.into()).collect();
        // As every package has it.
        there.insert("CHANGELOG.md".into());
        let directories: BTreeSet<PathBuf> =
            there.iter().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
        let mut missing = BTreeSet::new();
        for (from, to) in pages.iter().filter(|(from, _)| from.extension().unwrap() == "md") {
            for link in links(&read(&root().join(from)).unwrap()) {
                let target = plain(&Path::new(to).parent().unwrap().join(link));
                if !there.contains(&target) && !directories.contains(&target) {
                    missing.insert(format!("{to}: {link}"));
                }
            }
        }
        assert!(missing.is_empty(), "{missing:#?}");
        assert!(there.contains(Path::new("docs/migrating.md")));
    }
}
