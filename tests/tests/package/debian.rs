//! A Debian of its own: made by mmdebstrap, booted by systemd-nspawn with a systemd, a private network that
//! has a loopback and nothing else, and the host's `/dev/kvm`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tests::{eventually, process, skip};

/// Programs of this machine that are needed.
const PROGRAMS: [&str; 6] = ["mmdebstrap", "systemd-nspawn", "nsenter", "dpkg-shlibdeps", "strip", "gcc"];

/// Where packages come from.
const ARCHIVE: &str = "deb.debian.org";

/// What our packages depend on and recommend, and what that recommends; downloaded beforehand, as the machine that is
/// booted has no network.
const NEEDED: &str = "seabios logrotate cron perl libio-socket-ssl-perl liburi-perl libregexp-ipv6-perl";

/// Longest time of one command inside, in seconds.
const PATIENCE: u32 = 120;

/// Whether such a machine can be had here; if not, says that the test is left out.
pub fn possible(what: &str) -> bool {
    if !tests::need_root(what) || !tests::guest::need_kvm(what) {
        return false;
    }
    if !PROGRAMS.iter().all(|program| skip::need_program(what, program)) {
        return false;
    }
    let reachable = std::net::ToSocketAddrs::to_socket_addrs(&(ARCHIVE, 80)).is_ok_and(|mut all| {
        all.any(|one| std::net::TcpStream::connect_timeout(&one, Duration::from_secs(5)).is_ok())
    });
    if !reachable {
        skip::skipped(what, &format!("{ARCHIVE} cannot be reached"));
    }
    reachable
}

/// The file system of a Debian 12 that boots, below a directory of the build; in memory, and gone at the end.
pub struct Root {
    path: PathBuf,
}

impl Root {
    /// Makes it: nothing but the packages that every Debian has, and systemd. `netbase` is of priority important: most
    /// Debians have it, and apt keeps it once it is there.
    pub fn make() -> Self {
        let path = tests::programs::directory().join("package-test");
        let _ = std::fs::create_dir_all(&path);
        // A run that was killed may have left its own.
        let _ = Command::new("umount").arg("--lazy").arg(&path).stderr(Stdio::null()).status();
        let mut mount = Command::new("mount");
        assert!(
            mount
                .args(["-t", "tmpfs", "-o", "size=2g,mode=755", "tmpfs"])
                .arg(&path)
                .status()
                .unwrap()
                .success()
        );
        let root = Root { path };
        // For whoever works on this test: a Debian made by an earlier run.
        let kept = std::env::var_os("VMSERVERD_DEBIAN").map(PathBuf::from);
        if let Some(kept) = kept.as_ref().filter(|kept| kept.exists()) {
            std::fs::create_dir(root.path()).expect("room");
            let mut unpack = Command::new("tar");
            assert!(unpack.arg("-xpf").arg(kept).arg("-C").arg(root.path()).status().unwrap().success());
            return root;
        }
        let download =
            format!("--customize-hook=chroot \"$1\" apt-get install -qq -y --download-only {NEEDED}");
        let mut make = Command::new("mmdebstrap");
        make.args(["--quiet", "--variant=minbase", "--include=systemd-sysv,dbus,netbase"]);
        make.args([
            "--dpkgopt=force-unsafe-io",
            "--aptopt=Acquire::Languages \"none\"",
            "--skip=cleanup/apt",
        ]);
        make.arg(download).arg("bookworm").arg(root.path()).arg(format!("http://{ARCHIVE}/debian"));
        let made = make.stdin(Stdio::null()).output().expect("mmdebstrap starts");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        if let Some(kept) = kept {
            let mut pack = Command::new("tar");
            assert!(
                pack.arg("-cpf").arg(kept).arg("-C").arg(root.path()).arg(".").status().unwrap().success()
            );
        }
        root
    }

    /// Its `/`.
    pub fn path(&self) -> PathBuf {
        self.path.join("root")
    }

    /// Whether a container can be started at all on this machine; if not, why.
    pub fn can_start(&self) -> Result<(), String> {
        let tried = nspawn(&self.path()).arg("/bin/true").output().expect("systemd-nspawn starts");
        if tried.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&tried.stderr).into_owned()) }
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.path).status();
        let _ = std::fs::remove_dir(&self.path);
    }
}

fn nspawn(root: &Path) -> Command {
    let mut command = Command::new("systemd-nspawn");
    command.env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1").stdin(Stdio::null());
    // No machine of this host's machined, no unit of its systemd: there may be neither.
    command.args(["--quiet", "--register=no", "--keep-unit", "--private-network", "--console=pipe"]);
    command.args(["--hostname=operator", "--bind=/dev/kvm", "-D"]).arg(root);
    command
}

/// The machine, booted.
pub struct Debian {
    nspawn: Child,
    /// Its systemd, as seen from here.
    init: u32,
}

impl Debian {
    /// Boots it, and waits until systemd has started everything.
    pub fn boot(root: &Root) -> Self {
        let log = std::fs::File::create(root.path.join("boot.log")).expect("room");
        let mut command = nspawn(&root.path());
        command.arg("--boot").stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let mut debian = Debian { nspawn: command.spawn().expect("systemd-nspawn starts"), init: 0 };
        eventually("systemd runs", || {
            let all = process::descendants(debian.nspawn.id());
            let found =
                all.into_iter().find(|one| process::status(*one, "Name").as_deref() == Some("systemd"));
            debian.init = found.unwrap_or(0);
            found
        });
        eventually("its bus answers", || debian.root("systemctl list-jobs").status.success().then_some(()));
        let state = debian.root("systemctl is-system-running --wait");
        let state = String::from_utf8_lossy(&state.stdout).into_owned();
        assert_eq!(state.trim(), "running", "{:?}", std::fs::read_to_string(root.path.join("boot.log")));
        debian
    }

    /// The environment that a program inside needs to be started with; the words of the program follow.
    pub fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command.args([
            "--target",
            &self.init.to_string(),
            "--all",
            "--root",
            "--wd",
            "env",
            "-i",
            "LANG=C.UTF-8",
        ]);
        command.args(["DEBIAN_FRONTEND=noninteractive", "SYSTEMD_PAGER=cat", "TERM=dumb", "HOME=/root"]);
        command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.args(["timeout", &PATIENCE.to_string()]);
        command
    }

    /// A line of a shell, by root, in the directory with our packages.
    pub fn root(&self, line: &str) -> Output {
        let line = format!("cd /root/debs && {line}");
        self.enter().args(["bash", "-c", &line]).stdin(Stdio::null()).output().expect("nsenter starts")
    }

    /// A line of a shell, by a user who has logged in, and who gives a password where one is asked for.
    pub fn user(&self, name: &str, password: &str, line: &str) -> Output {
        let mut command = self.enter();
        command.args([
            "runuser",
            "-u",
            name,
            "--",
            "env",
            &format!("USER={name}"),
            &format!("HOME=/home/{name}"),
        ]);
        command.arg(format!("VMWARE_CMD_PASSWORD={password}")).args(["bash", "-c", &format!("cd && {line}")]);
        command.stdin(Stdio::null()).output().expect("nsenter starts")
    }

    /// As [`Debian::root`]; it must succeed. What it prints.
    pub fn must(&self, line: &str) -> String {
        good(line, &self.root(line))
    }
}

/// What a command has printed, which must have succeeded.
pub fn good(line: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{line}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

impl Drop for Debian {
    fn drop(&mut self) {
        // systemd-nspawn ends with its machine; a systemd that is killed takes all of it with it.
        if self.init != 0 {
            process::signal(self.init, Signal::KILL);
        }
        let _ = self.nspawn.wait();
    }
}
