//! The packages, as an operator meets them: a Debian with nothing else, booted by its own systemd; installed, used,
//! upgraded and purged by the very lines of the README; and fault F12, an upgrade with machines and clients.
//!
//! The machine has what VMware Server left behind (`vm-list`, a `.vmx`, an event log, settings, a PAM file)
//! before our packages come, and the same and no more when they have gone.

mod debian;
mod scripts;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tests::{eventually, programs, skip};

use self::debian::{Debian, Root, good};

const PASSWORD: &str = "correct horse";

/// The packages.
const OURS: &str = "vmserverd libvmcontrol1 libvmware-vmperl-perl";

/// What VMware Server has left on the machine, and a user of it.
const BEFORE: &str = r#"
printf '127.0.0.1 localhost\n::1 localhost\n' >/etc/hosts
adduser --quiet --disabled-password --gecos '' alice
echo 'alice:correct horse' | chpasswd
useradd bob
mkdir -p /etc/vmware /var/log/vmware /home/alice/old
printf 'vmware.fullpath = "/usr/bin/vmware"' >/etc/vmware/config
printf '# ours\nconfig "/home/alice/old/old.vmx"\n' >/etc/vmware/vm-list
echo 'auth sufficient /lib/security/pam_unix2.so shadow nullok' >/etc/pam.d/vmware-authd
cat >/home/alice/old/old.vmx <<'X'
#!/usr/bin/vmware
config.version = "8"
virtualHW.version = "4"
displayName = "Old web server"
guestOS = "winnt"
memsize = "16"
ethernet0.present = "TRUE"
X
chmod 755 /home/alice/old/old.vmx
chown -R alice: /home/alice
echo '<event type="info"><time>1141000000</time><subject>Powered on.</subject><body/><user>marco</user></event>' \
    >'/var/log/vmware/event-%2Fhome%2Falice%2Fold%2Fold.vmx.log'
"#;

/// All that a package could leave: files with mode, owner and target, accounts, units, what runs. Without homes of users,
/// and without what apt, ldconfig, logrotate and systemd write for themselves.
const SNAPSHOT: &str = r#"
cd /
find . -xdev \( -path ./proc -o -path ./sys -o -path ./dev -o -path ./tmp -o -path ./home -o -path ./root \
    -o -path ./var/lib/apt -o -path ./var/cache/apt -o -path ./var/log/apt -o -path ./var/log/dpkg.log \
    -o -path ./var/log/journal -o -path ./var/cache/ldconfig -o -path ./var/lib/logrotate -o -path ./var/lib/systemd \
    -o -path './var/lib/dpkg/*-old' -o -path './etc/*-' -o -path ./run \) -prune -o -printf '%p %M %u:%g %l\n'
find /run /var/lib/systemd -name '*vm*' -printf '%p\n'
sed 's/^/account /' /etc/passwd /etc/group /etc/shadow /etc/gshadow
systemctl list-unit-files --no-legend | awk '{ print "unit", $1, $2 }'
sed 's/^/line /' /etc/vmware/* /etc/pam.d/vmware-authd /var/log/vmware/event-*
for process in /proc/[0-9]*; do
    case "$(cat "$process/comm" 2>/dev/null)" in vm*) echo "process $(cat "$process/comm")" ;; esac
done
"#;

#[test]
fn from_install_to_purge_by_the_words_of_the_readme() {
    const WHAT: &str = "the packages are installed, upgraded and purged in a Debian of their own";
    if !debian::possible(WHAT) {
        return;
    }
    let begun = Instant::now();
    let say = |what: &str| eprintln!("package: {:5.1} s: {what}", begun.elapsed().as_secs_f32());
    let debs = tempfile::tempdir().expect("room");
    let root = std::thread::scope(|scope| {
        let packages = scope.spawn(|| {
            pack(&debs.path().join("one"), "0.1.0");
            pack(&debs.path().join("two"), "0.1.1");
        });
        let root = Root::make();
        packages.join().expect("the packages are built");
        root
    });
    if let Err(why) = root.can_start() {
        skip::skipped(WHAT, &format!("no container can be started here: {why}"));
        return;
    }
    say("a Debian, and the packages in two versions");
    offer(&root, &debs.path().join("one"));
    let debian = Debian::boot(&root);
    debian.must(BEFORE);
    let before = snapshot(&debian);
    say("booted");

    let [install, run, remove] = readme();
    follow(&debian, &install);
    say("installed");
    nothing_is_set_uid(&debian);
    units_are_right(&debian);
    old_machines_are_there(&debian);
    a_connection_starts_both_services(&debian);
    everything_has_a_page(&debian);
    links_lead_somewhere(&root);
    say("looked at");

    follow(&debian, &run);
    let wrong = debian.user("alice", "wrong", "vmware-cmd -H localhost -U alice -l");
    assert!(!wrong.status.success(), "{wrong:?}");
    scripts_for_vmperl_run(&debian);
    say("a machine runs");
    upgrade(&debian, &root, &debs.path().join("two"));
    say("upgraded");
    logs_rotate(&debian);

    follow(&debian, &remove);
    let after = snapshot(&debian);
    let left: Vec<&String> = after.difference(&before).collect();
    let gone: Vec<&String> = before.difference(&after).collect();
    assert!(left.is_empty() && gone.is_empty(), "left behind: {left:#?}\nmissing: {gone:#?}");
    // Machines are the users'.
    debian.must("test -s /home/alice/hello/hello.vmx && test -s /home/alice/old/old.vmx");
    say("purged");
}

/// The packages of the binaries under test.
fn pack(out: &Path, version: &str) {
    let mut pack = Command::new(programs::directory().join("xtask"));
    pack.args(["deb", "--uncompressed", "--version", version, "--out"]).arg(out);
    pack.arg("--bin-dir").arg(programs::directory());
    let packed = pack.output().expect("xtask starts");
    assert!(packed.status.success(), "{}", String::from_utf8_lossy(&packed.stderr));
}

/// Puts packages where the operator stands, instead of those that were there.
fn offer(root: &Root, debs: &Path) {
    let place = root.path().join("root/debs");
    let _ = std::fs::remove_dir_all(&place);
    std::fs::create_dir(&place).expect("room");
    for entry in std::fs::read_dir(debs).expect("it was made").flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            std::fs::copy(entry.path(), place.join(entry.file_name())).expect("room");
        }
    }
}

fn snapshot(debian: &Debian) -> BTreeSet<String> {
    debian.must(SNAPSHOT).lines().map(str::to_owned).collect()
}

/// The lines to type of the README's section for operators, block by block.
fn readme() -> [Vec<String>; 3] {
    let text = std::fs::read_to_string(programs::repository().join("README.md")).expect("it is there");
    let section = text.split("\n## ").find(|section| section.starts_with("Operators")).expect("a section");
    let blocks: Vec<Vec<String>> = section
        .split("```console\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap_or_default().lines().map(str::to_owned).collect())
        .collect();
    blocks.try_into().expect("three blocks: install, run, remove")
}

/// Types lines: `#` as root, `$` as alice. Every one must succeed.
fn follow(debian: &Debian, lines: &[String]) {
    assert!(!lines.is_empty());
    for line in lines {
        let output = match line.split_at(2) {
            ("# ", line) => debian.root(line),
            ("$ ", line) => debian.user("alice", PASSWORD, line),
            _ => panic!("neither root's nor a user's: {line}"),
        };
        good(line, &output);
    }
}

/// What systemd says about a unit.
fn property(debian: &Debian, unit: &str, name: &str) -> String {
    debian.must(&format!("systemctl show --value --property {name} {unit}")).trim().to_owned()
}

fn units_are_right(debian: &Debian) {
    for unit in ["vmware-authd.socket", "vmware-authd.service", "vmserverd.service"] {
        assert_eq!(property(debian, unit, "ActiveState"), "active", "{unit}");
        assert_eq!(property(debian, unit, "UnitFileState"), "enabled", "{unit}");
    }
    // Said by READY=1 and STATUS=, with the listeners that systemd has opened.
    assert_eq!(property(debian, "vmserverd", "StatusText"), "serving");
    assert_eq!(
        property(debian, "vmware-authd", "StatusText"),
        "serving tls=[::]:902 unix=/run/vmware/authd.sock"
    );
    for unit in ["vmserverd", "vmware-authd"] {
        assert_eq!(property(debian, unit, "NRestarts"), "0", "{unit}");
        let main = property(debian, unit, "MainPID");
        let status = debian.must(&format!("cat /proc/{main}/status"));
        assert!(status.contains("Seccomp:\t2"), "{unit} has no filter: {status}");
        let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).expect("a line");
        let bounding = u64::from_str_radix(bounding.trim(), 16).expect("hexadecimal");
        // CAP_SYS_MODULE, CAP_SYS_BOOT, CAP_SYS_TIME
        assert_eq!(bounding & (1 << 16 | 1 << 22 | 1 << 25), 0, "{unit}: {bounding:x}");
    }
    // systemd has no remark about a line that it does not understand or cannot obey.
    let remarks = debian.must("systemd-analyze verify --man=no vmserverd.service vmware-authd.service 2>&1");
    assert_eq!(remarks, "");
}

/// No file that the packages have brought gives anybody more rights than he has.
fn nothing_is_set_uid(debian: &Debian) {
    let files = debian.must(
        "dpkg -L vmserverd libvmcontrol1 | sort -u | while IFS= read -r path; do \
         if [ -f \"$path\" ]; then find \"$path\" -prune -printf '%m %p\\n'; fi; done",
    );
    let programs = ["vmware-authd", "vmserverd", "vmx", "vmware-cmd"];
    for program in programs {
        assert!(files.lines().any(|line| line.ends_with(&format!("/{program}"))), "{program}: {files}");
    }
    for line in files.lines() {
        let mode = line.split(' ').next().and_then(|mode| u32::from_str_radix(mode, 8).ok());
        assert!(mode.is_some_and(|mode| mode & 0o6000 == 0), "{line}");
    }
}

/// What VMware Server has left is used as it is.
fn old_machines_are_there(debian: &Debian) {
    let alice = |line: &str| good(line, &debian.user("alice", PASSWORD, line));
    assert_eq!(alice("vmware-cmd -l"), "/home/alice/old/old.vmx\n");
    assert!(alice("vmware-cmd exec VM_INFO config=$HOME/old/old.vmx").contains("Old web server"));
    let events = alice("vmware-cmd exec VM_GetLastNEvents config=$HOME/old/old.vmx n=5");
    assert!(events.contains("<time>1141000000</time>") && events.contains("<user>marco</user>"), "{events}");
    let config = debian.must("cat /etc/vmware/config");
    assert!(config.starts_with("vmware.fullpath = \"/usr/bin/vmware\"\n"), "{config}");
    assert!(config.ends_with("\nauthd.client.port = \"902\"\n"), "{config}");
    assert!(debian.must("cat /etc/pam.d/vmware-authd.vmware-server").contains("pam_unix2"));
}

/// Socket activation: nothing runs, a caller comes, and is served.
fn a_connection_starts_both_services(debian: &Debian) {
    debian.must("systemctl stop vmware-authd.service vmserverd.service");
    assert_eq!(property(debian, "vmware-authd", "ActiveState"), "inactive");
    assert_eq!(debian.must("vmware-cmd -l"), "/home/alice/old/old.vmx\n");
    eventually("both are up", || {
        let state = debian.root("systemctl is-active vmware-authd.service vmserverd.service");
        state.status.success().then_some(())
    });
}

fn everything_has_a_page(debian: &Debian) {
    let pages = debian.must("ls /usr/share/man/man*");
    let pages: BTreeSet<&str> = pages.lines().collect();
    let programs =
        ["vmware-cmd.1", "vmserverd.8", "vmware-serverd.8", "vmware-authd.8", "vmx.8", "vmcontrol.3"];
    let formats = ["vmx.5", "vm-list.5", "vmware-config.5", "vmserverd.toml.5", "vmware-event-log.5"];
    let operations = ops::TABLE.iter().map(|row| format!("{}.7", row.name));
    for page in programs.iter().chain(&formats).map(|name| (*name).to_owned()).chain(operations) {
        assert!(pages.contains(format!("{page}.gz").as_str()), "no {page}");
    }
}

/// What the packaged pages link to is there.
fn links_lead_somewhere(root: &Root) {
    let doc = root.path().join("usr/share/doc/vmserverd");
    for page in ["README.md", "docs/migrating.md", "docs/machines.md", "docs/observing.md"] {
        let text = std::fs::read_to_string(doc.join(page)).expect(page);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        for (link, _) in links.filter(|(link, _)| !link.contains("://")) {
            let file = link.split('#').next().unwrap_or_default();
            let place = doc.join(page).parent().expect("a directory").join(file);
            assert!(place.exists(), "{page}: {link}");
        }
    }
}

/// The modules are found where the package has them, and the scripts beside them work: as the user who calls, and with a
/// password over TLS.
fn scripts_for_vmperl_run(debian: &Debian) {
    let alice = |line: &str| good(line, &debian.user("alice", PASSWORD, line));
    let script = "perl /usr/share/doc/libvmware-vmperl-perl/examples/machines.pl";
    let here = alice(script);
    let line = "on         /home/alice/hello/hello.vmx (hello)";
    assert!(here.lines().any(|one| one == line), "{here}");
    let remote = alice(&format!("VMPASSWORD='{PASSWORD}' {script} -H localhost -U alice"));
    assert_eq!(remote, here);
    let wrong = debian.user("alice", PASSWORD, &format!("VMPASSWORD=wrong {script} -H localhost -U alice"));
    assert!(!wrong.status.success(), "{wrong:?}");
    let pages = debian.must("ls /usr/share/man/man3");
    for page in ["VMware::VmPerl", "VMware::VmPerl::VM", "VMware::Control"] {
        assert!(pages.lines().any(|one| one == format!("{page}.3pm.gz")), "{pages}");
    }
    // Warnings of Perl, or what is missing, would show here.
    let loaded =
        debian.must("perl -w -MVMware::VmPerl -MVMware::Control -e 'print $INC{q(VMware/VmPerl.pm)}' 2>&1");
    assert_eq!(loaded, "/usr/share/perl5/VMware/VmPerl.pm");
}

/// F12: newer packages over the live system.
fn upgrade(debian: &Debian, root: &Root, debs: &Path) {
    let alice = |line: &str| good(line, &debian.user("alice", PASSWORD, line));
    let hello = "$HOME/hello/hello.vmx";
    let echo = |text: &str| {
        alice(&format!("vmware-cmd exec VM_SerialWrite config={hello} contents={text}"));
        alice(&format!("timeout 60 sh -c 'until grep {text} hello/serial.txt; do sleep 0.2; done'"));
    };
    echo("before");
    let pid = alice(&format!("vmware-cmd {hello} getpid"));
    let list = alice("vmware-cmd -l");
    let cores = [property(debian, "vmserverd", "MainPID"), property(debian, "vmware-authd", "MainPID")];
    let mut held = Held::new(debian, root);
    assert_eq!(held.ask(), "state 1\n");

    offer(root, debs);
    let done = AtomicBool::new(false);
    let calls = std::thread::scope(|scope| {
        // Others come all the time, and nobody is sent away.
        let calls = scope.spawn(|| {
            let mut calls = 0;
            while !done.load(Ordering::Relaxed) {
                assert_eq!(alice("vmware-cmd -l"), list);
                calls += 1;
            }
            calls
        });
        let [install, ..] = readme();
        follow(debian, &install);
        done.store(true, Ordering::Relaxed);
        calls.join().expect("every call is answered")
    });
    assert!(calls > 3, "only {calls} calls during the upgrade");
    assert!(debian.must(&format!("dpkg-query -W {OURS}")).matches("0.1.1").count() == 3);
    let now = [property(debian, "vmserverd", "MainPID"), property(debian, "vmware-authd", "MainPID")];
    assert!(cores[0] != now[0] && cores[1] != now[1], "not restarted: {cores:?} {now:?}");

    // The client's next call opens a new connection.
    assert_eq!(held.ask(), "state 1\n");
    assert_eq!(alice(&format!("vmware-cmd {hello} getpid")), pid);
    assert_eq!(alice("vmware-cmd -l"), list);
    echo("after");
}

/// A program of a customer, linked with the library as the package has it, that keeps its connection.
struct Held {
    child: std::process::Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Held {
    fn new(debian: &Debian, root: &Root) -> Self {
        let source = programs::repository().join("tests/tests/package/client.c");
        let usr = root.path().join("usr");
        let lib = usr.join("lib").join(multiarch());
        let mut compile = Command::new("gcc");
        compile.arg("-o").arg(root.path().join("home/alice/client")).arg(source);
        // Only the header and the library of the package, and the compiler's own.
        compile.arg("-I").arg(usr.join("include")).arg("-L").arg(lib).arg("-lvmcontrol");
        good("gcc", &compile.output().expect("gcc starts"));
        let mut command = debian.enter();
        command.args(["runuser", "-u", "alice", "--", "/home/alice/client", "/home/alice/hello/hello.vmx"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("nsenter starts");
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Held { child, answers }
    }

    /// The state of the machine, over the connection that it has.
    fn ask(&mut self) -> String {
        self.child.stdin.as_mut().expect("piped").write_all(b"\n").expect("it reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("text");
        line
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It ends with its input.
        self.child.stdin.take();
        let _ = self.child.wait();
    }
}

/// Debian's name of this architecture.
fn multiarch() -> String {
    format!("{}-linux-gnu", std::env::consts::ARCH)
}

/// logrotate moves the log, and the server writes a new one from then on.
fn logs_rotate(debian: &Debian) {
    const LOG: &str = "/var/log/vmware/vmware-serverd.log";
    let main = property(debian, "vmserverd", "MainPID");
    debian.must("logrotate -f /etc/logrotate.d/vmserverd");
    // A session of bob's, who has had none: the log tells of it.
    debian.must("runuser -u bob -- vmware-cmd -s getresource system.mem.avail");
    eventually("the new log tells of bob", || {
        debian.root(&format!("grep -q bob {LOG}")).status.success().then_some(())
    });
    debian.must(&format!("grep -q starts {LOG}.1 && ! grep -q bob {LOG}.1"));
    assert_eq!(property(debian, "vmserverd", "MainPID"), main);
}
