//! The checks, in the order in which a caller would stumble over what they find.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use link::Settings;
use link::layout::VM_DIRECTORY;
use vmcontrol_client::{Params, Request};
use x509_parser::pem::parse_x509_pem;

use super::Finding;
use super::host::{Host, quoted};
use crate::failure::Failure;
use crate::grammar::Options;
use crate::server::{self, Server};
use crate::text::{field, size, time};

/// Descriptors that a daemon should be allowed.
const DESCRIPTORS: u64 = 4096;

/// A certificate that ends sooner is worth a warning.
const SOON: Duration = Duration::from_secs(30 * 86_400);

/// Less room than this for new machines is worth a warning, in bytes.
const ROOM: u64 = 1024 * 1024 * 1024;

/// Most of a file that is read, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Longest wait for the server.
const PATIENCE: Duration = Duration::from_secs(15);

/// Every check of this machine but the connection.
pub(super) fn all(host: &Host) -> Vec<Finding> {
    let all: &[fn(&Host) -> Vec<Finding>] = &[
        |host| vec![config(host)],
        |host| vec![settings(host)],
        |host| vec![socket(host)],
        |host| vec![port(host)],
        groups,
        |host| vec![pam(host)],
        certificate,
        |host| vec![kvm(host)],
        |host| vec![firmware(host)],
        |host| vec![descriptors(host)],
        |host| vec![directory(host)],
        |host| vec![inventory(host)],
        |host| vec![figures(host)],
    ];
    all.iter().flat_map(|check| check(host)).collect()
}

/// The product's settings, which clients look at to find the port.
fn config(host: &Host) -> Finding {
    const CHECK: &str = "config";
    let path = host.layout.product_config();
    let shown = quoted(&path);
    let port = host.port();
    let write = format!("echo 'authd.client.port = \"{port}\"' >> {shown}");
    match &host.config {
        Err(why) => Finding::fail(CHECK, why, format!("chmod 0644 {shown}")),
        Ok(_) if !path.exists() => Finding::fail(
            CHECK,
            format!("{} is missing: clients take this machine for one without the server", path.display()),
            write,
        ),
        Ok(config) => match config.get("authd.client.port") {
            Some(port) if port.parse::<u16>().is_ok_and(|port| port != 0) => {
                Finding::ok(CHECK, format!("{} says port {port}", path.display()))
            }
            Some(port) => Finding::fail(
                CHECK,
                format!("authd.client.port = {port} in {} is no port", path.display()),
                format!("sed -i 's/^authd.client.port.*/authd.client.port = \"902\"/' {shown}"),
            ),
            None if port == 0 => Finding::ok(CHECK, format!("{} says that there is no port", path.display())),
            None => Finding::warn(
                CHECK,
                format!("{} has no authd.client.port: some clients look for it", path.display()),
                write,
            ),
        },
    }
}

/// This project's settings.
fn settings(host: &Host) -> Finding {
    const CHECK: &str = "settings";
    let path = host.layout.settings();
    match &host.settings {
        Ok(_) if path.exists() => Finding::ok(CHECK, format!("{} is understood", path.display())),
        Ok(_) => {
            Finding::ok(CHECK, format!("there is no {}: every setting is the usual one", path.display()))
        }
        Err(why) => Finding::fail(CHECK, first_line(why), format!("${{EDITOR:-vi}} {}", quoted(&path))),
    }
}

/// The socket of local callers.
fn socket(host: &Host) -> Finding {
    const CHECK: &str = "socket";
    let settings = host.usual();
    if !settings.authd.local.unix {
        return Finding::ok(CHECK, "authd.local.unix is off: local callers use the port");
    }
    let path = Settings::path_or(&settings.authd.local.socket, host.layout.authd_socket());
    let shown = path.display();
    match fs::metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Finding::fail(CHECK, format!("{shown} is missing: the gateway does not run"), host.start())
        }
        Err(error) => Finding::fail(
            CHECK,
            format!("{shown}: {error}"),
            format!("chmod 0755 {}", quoted(path.parent().unwrap_or(&path))),
        ),
        Ok(facts) if !facts.file_type().is_socket() => Finding::fail(
            CHECK,
            format!("{shown} is no socket"),
            format!("rm {} && {}", quoted(&path), host.start()),
        ),
        Ok(facts) if facts.mode() & 0o666 != 0o666 => Finding::fail(
            CHECK,
            format!("{shown} has mode {:04o}: not every user may connect", facts.mode() & 0o7777),
            format!("chmod 0666 {}", quoted(&path)),
        ),
        Ok(_) => Finding::ok(CHECK, format!("{shown}, open to every user of this machine")),
    }
}

/// The figures for monitoring.
fn figures(host: &Host) -> Finding {
    const CHECK: &str = "figures";
    let metrics = host.usual().metrics;
    if !metrics.unix {
        return Finding::ok(CHECK, "metrics.unix is off: figures are not told here");
    }
    let path = Settings::path_or(&metrics.socket, host.layout.metrics_socket());
    let ask = || -> io::Result<bool> {
        let mut stream = UnixStream::connect(&path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.write_all(b"HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let mut reply = [0; 12];
        stream.read_exact(&mut reply)?;
        Ok(reply == *b"HTTP/1.1 200")
    };
    let shown = path.display();
    match ask() {
        Ok(true) => Finding::ok(CHECK, format!("{shown} tells them")),
        Ok(false) => Finding::warn(CHECK, format!("{shown} is answered by another program"), host.start()),
        Err(error) => Finding::warn(CHECK, format!("{shown}: {error}"), host.start()),
    }
}

/// The port, asked as a local caller: no password, and no certificate to remember.
fn port(host: &Host) -> Finding {
    const CHECK: &str = "port";
    let port = host.port();
    if port == 0 {
        return Finding::ok(CHECK, "authd.port is 0: local callers only");
    }
    if !host.usual().authd.local.tcp {
        return Finding::ok(CHECK, "authd.local.tcp is off: the port is for logins with a password");
    }
    // Below a directory that does not exist there is no unix socket either, so the port is what is tried.
    let params = Params { port, root: Some("/nonexistent".into()), timeout: PATIENCE, ..Params::default() };
    match Server::open(&params, false) {
        Ok(_) => Finding::ok(CHECK, format!("port {port} answers")),
        Err(error) => Finding::fail(CHECK, format!("port {port}: {}", error.text), host.start()),
    }
}

/// The accounts and groups that the settings mean.
fn groups(host: &Host) -> Vec<Finding> {
    const CHECK: &str = "groups";
    let mut findings = Vec::new();
    let names = |path: &str| {
        let text = fs::read_to_string(host.file(path)).unwrap_or_default();
        let first =
            text.lines().filter_map(|line| Some((line.split(':').next()?.to_owned(), line.to_owned())));
        first.collect::<Vec<(String, String)>>()
    };
    if host.privileged {
        let known = names("/etc/passwd").iter().any(|(name, _)| name == "vmserverd");
        findings.push(match known {
            true => Finding::ok(CHECK, "the gateway's network half has an account of its own, vmserverd"),
            false => Finding::warn(
                CHECK,
                "there is no account vmserverd: the gateway's network half runs as nobody, as other services do",
                "useradd --system --user-group --no-create-home --shell /usr/sbin/nologin vmserverd",
            ),
        });
    }
    let admin = host.usual().serverd.admin.group;
    if !admin.is_empty() {
        let groups = names("/etc/group");
        findings.push(match groups.iter().find(|(name, _)| *name == admin) {
            None => Finding::fail(
                CHECK,
                format!("serverd.admin.group is {admin}, and there is no such group: only root is an administrator"),
                format!("groupadd --system {admin}"),
            ),
            Some((_, line)) => {
                let members = line.rsplit(':').next().unwrap_or_default();
                let members = if members.is_empty() { "nobody" } else { members };
                Finding::ok(CHECK, format!("administrators besides root: {members} (group {admin})"))
            }
        });
    }
    if findings.is_empty() {
        findings.push(Finding::ok(CHECK, "an instance of one user needs none"));
    }
    findings
}

/// The PAM service, without which no password is right.
fn pam(host: &Host) -> Finding {
    const CHECK: &str = "pam";
    if !host.privileged {
        return Finding::ok(CHECK, "not used: an instance of one user takes no passwords");
    }
    let service = host.usual().authd.pam.service;
    let path = host.file(&format!("/etc/pam.d/{service}"));
    let shown = path.display();
    let install = format!("printf '@include common-auth\\n@include common-account\\n' > {}", quoted(&path));
    let (text, facts) = match (fs::read_to_string(&path), fs::metadata(&path)) {
        (Ok(text), Ok(facts)) => (text, facts),
        (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            // PAM asks the service `other` then.
            let other = fs::read_to_string(host.file("/etc/pam.d/other")).unwrap_or_default();
            return match other.lines().any(|line| line.contains("@include") || line.contains("pam_unix")) {
                true => Finding::warn(
                    CHECK,
                    format!("{shown} is missing: PAM's service `other` decides"),
                    install,
                ),
                false => Finding::fail(CHECK, format!("{shown} is missing: every login fails"), install),
            };
        }
        (Err(error), _) | (_, Err(error)) => {
            return Finding::fail(
                CHECK,
                format!("{shown}: {error}"),
                format!("chmod 0644 {}", quoted(&path)),
            );
        }
    };
    if facts.mode() & 0o022 != 0 {
        let text =
            format!("{shown} has mode {:04o}: others than root decide who may log in", facts.mode() & 0o7777);
        return Finding::fail(CHECK, text, format!("chown root:root {0} && chmod 0644 {0}", quoted(&path)));
    }
    for line in text.lines().map(str::trim) {
        let included = line.strip_prefix("@include ").map(str::trim);
        if let Some(included) = included
            && !host.file(&format!("/etc/pam.d/{included}")).exists()
        {
            let text = format!("{shown} includes {included}, which is missing: every login fails");
            return Finding::fail(CHECK, text, "apt-get install libpam-runtime && pam-auth-update --package");
        }
    }
    for kind in ["auth", "account"] {
        let has = |line: &str| {
            line.starts_with(kind)
                || line.starts_with(&format!("-{kind}"))
                || line.starts_with(&format!("@include common-{kind}"))
        };
        if !text.lines().map(str::trim).any(has) {
            return Finding::fail(CHECK, format!("{shown} has no {kind} stack: every login fails"), install);
        }
    }
    Finding::ok(CHECK, format!("{shown} has auth and account stacks"))
}

/// Certificate and key of the gateway.
fn certificate(host: &Host) -> Vec<Finding> {
    const CHECK: &str = "certificate";
    let secure = host.config.as_ref().map_or(true, |config| config.flag("security.host.ruissl", true));
    if !secure {
        return vec![Finding::warn(
            CHECK,
            "security.host.ruissl is FALSE: passwords cross the network in clear text",
            format!("{} exec Security_ActivateConfig consoleSsl=1", host.command()),
        )];
    }
    let ssl = host.usual().authd.ssl;
    let directory = host.layout.ssl_directory();
    let certificate = Settings::path_or(&ssl.certificate, directory.join("rui.crt"));
    let key = Settings::path_or(&ssl.key, directory.join("rui.key"));
    let renew = format!("{} exec Security_CreateCertificate overwrite=1", host.command());
    vec![validity(&certificate, &renew), key_file(&key, host.privileged, &renew)]
}

fn validity(path: &Path, renew: &str) -> Finding {
    const CHECK: &str = "certificate";
    let shown = path.display();
    let bytes = match read(path) {
        Ok(bytes) => bytes,
        Err(error) => return Finding::fail(CHECK, format!("{shown}: {error}"), renew),
    };
    let parsed = parse_x509_pem(&bytes).ok();
    let times = parsed.as_ref().and_then(|(_, pem)| {
        let validity = pem.parse_x509().ok()?.validity().clone();
        Some((validity.not_before.timestamp(), validity.not_after.timestamp()))
    });
    let Some((from, until)) = times else {
        return Finding::fail(CHECK, format!("{shown} holds no certificate"), renew);
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    let soon = i64::try_from(SOON.as_secs()).unwrap_or(0);
    let [begins, ends] = [from, until].map(|seconds| time(&seconds.to_string()));
    if until <= now {
        Finding::fail(CHECK, format!("{shown} ended at {ends}"), renew)
    } else if from > now {
        Finding::fail(
            CHECK,
            format!("{shown} is valid from {begins} only: is the clock right?"),
            "timedatectl set-ntp true",
        )
    } else if until - now < soon {
        Finding::warn(CHECK, format!("{shown} ends soon, at {ends}"), renew)
    } else {
        Finding::ok(CHECK, format!("{shown} is valid until {ends}"))
    }
}

fn key_file(path: &Path, privileged: bool, renew: &str) -> Finding {
    const CHECK: &str = "key";
    let shown = path.display();
    match fs::metadata(path) {
        Err(error) => Finding::fail(CHECK, format!("{shown}: {error}"), renew),
        Ok(facts) if facts.mode() & 0o077 != 0 => Finding::fail(
            CHECK,
            format!(
                "{shown} has mode {:04o}: others can read or change the private key",
                facts.mode() & 0o7777
            ),
            format!("chmod 0400 {}", quoted(path)),
        ),
        Ok(facts) if privileged && facts.uid() != 0 => Finding::fail(
            CHECK,
            format!("{shown} does not belong to root"),
            format!("chown root:root {}", quoted(path)),
        ),
        Ok(_) => Finding::ok(CHECK, format!("{shown} can be read by its owner only")),
    }
}

/// The device that machines run on, and how fast they will be.
fn kvm(host: &Host) -> Finding {
    const CHECK: &str = "kvm";
    let path = host.file("/dev/kvm");
    let shown = path.display();
    let processor = fs::read_to_string(host.file("/proc/cpuinfo")).unwrap_or_default();
    let flag = |name: &str| processor.split_whitespace().any(|word| word == name);
    let module = match (flag("vmx"), flag("svm")) {
        (true, _) => Some("kvm_intel"),
        (_, true) => Some("kvm_amd"),
        _ => None,
    };
    if !path.exists() {
        return match module {
            Some(module) => Finding::fail(
                CHECK,
                format!("{shown} is missing: no machine can start"),
                format!("modprobe {module}"),
            ),
            None => Finding::fail(
                CHECK,
                format!("{shown} is missing, and the processor has no virtualization: no machine can start"),
                "switch VT-x or AMD-V on in the BIOS; on a virtual host allow nested virtualization",
            ),
        };
    }
    // The core opens it as root; in an instance of one user that user has to.
    let own = rustix::process::geteuid().is_root() || !host.privileged;
    if own && let Err(error) = File::options().read(true).write(true).open(&path) {
        let user = "\"$(id -un)\"";
        let repair = match error.kind() {
            io::ErrorKind::PermissionDenied => format!("usermod -aG kvm {user}   (then log in again)"),
            _ => format!("modprobe {}", module.unwrap_or("kvm")),
        };
        return Finding::fail(CHECK, format!("{shown}: {error}: no machine can start"), repair);
    }
    Finding::ok(CHECK, format!("{shown} can be opened"))
}

/// How the server found that this host runs guests.
fn guests(class: &str) -> Finding {
    const CHECK: &str = "guests";
    match class {
        "native" => Finding::ok(CHECK, "host class native: the processor runs guests"),
        "emulated" => Finding::warn(
            CHECK,
            "host class emulated: /dev/kvm emulates the system code of guests, they are slow",
            "switch VT-x or AMD-V on in the BIOS; on a virtual host allow nested virtualization",
        ),
        "none" => Finding::fail(CHECK, "host class none: no machine can start", "see the check kvm"),
        // In the moment after the server was started.
        _ => Finding::warn(CHECK, "host class not known yet", "vmware-cmd doctor"),
    }
}

/// The firmware of machines.
fn firmware(host: &Host) -> Finding {
    const CHECK: &str = "firmware";
    let set = host.usual().serverd.machines.firmware;
    let directory = Settings::path_or(&set, host.file("/usr/share/seabios"));
    let missing = ["bios.bin", "vgabios-isavga.bin"]
        .map(|name| directory.join(name))
        .into_iter()
        .find(|path| !path.is_file());
    match missing {
        Some(path) => Finding::fail(
            CHECK,
            format!("{} is missing: no machine can start", path.display()),
            "apt-get install seabios",
        ),
        None => Finding::ok(CHECK, format!("SeaBIOS is in {}", directory.display())),
    }
}

/// How many descriptors the daemons may have: sessions are made of them.
fn descriptors(host: &Host) -> Finding {
    const CHECK: &str = "descriptors";
    let mut least: Option<(u64, &str)> = None;
    for name in ["vmserverd", "vmware-authd"] {
        for process in host.processes(name) {
            let text = fs::read_to_string(process.join("limits")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
            let limit = line
                .and_then(|line| line.split_whitespace().next())
                .map(|limit| limit.parse().unwrap_or(u64::MAX));
            if let Some(limit) = limit {
                least = least.filter(|(so_far, _)| *so_far <= limit).or(Some((limit, name)));
            }
        }
    }
    match least {
        None => Finding::warn(
            CHECK,
            "no daemon of this instance is running, or its limits cannot be seen",
            host.start(),
        ),
        Some((limit, name)) if limit < DESCRIPTORS => {
            let repair = match host.layout.installed() {
                true => format!("systemctl edit {name}   and there [Service] LimitNOFILE=65536"),
                false => format!("ulimit -n 65536 && {}", host.start()),
            };
            Finding::warn(
                CHECK,
                format!("{name} may open {limit} files: sessions and machines need one or more each"),
                repair,
            )
        }
        Some((limit, _)) => Finding::ok(CHECK, format!("the daemons may open {limit} files")),
    }
}

/// Where new machines go.
fn directory(host: &Host) -> Finding {
    const CHECK: &str = "vmdir";
    let set = host.config.as_ref().ok().and_then(|config| config.get("vmdir"));
    let path = set.map_or_else(|| host.layout.path(VM_DIRECTORY), Into::into);
    let shown = path.display();
    match (fs::metadata(&path), rustix::fs::statvfs(&path)) {
        (Ok(facts), Ok(space)) if facts.is_dir() => {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            if free < ROOM {
                Finding::warn(
                    CHECK,
                    format!("{shown} has only {} left", size(free)),
                    format!("du -xh {} | sort -h | tail", quoted(&path)),
                )
            } else {
                Finding::ok(CHECK, format!("{shown} has {} left", size(free)))
            }
        }
        (Ok(_), _) => Finding::fail(
            CHECK,
            format!("{shown} is no directory"),
            format!("install -d -m 1777 {}", quoted(&path)),
        ),
        (Err(error), _) => Finding::warn(
            CHECK,
            format!("{shown}: {error}: a new machine needs a path of its own"),
            format!("install -d -m 1777 {}", quoted(&path)),
        ),
    }
}

/// Machines in the list whose file is gone.
fn inventory(host: &Host) -> Finding {
    const CHECK: &str = "vm-list";
    let mut total = 0;
    let mut gone: Option<String> = None;
    let mut count = 0;
    for name in ["/etc/vmware/vm-list", "/etc/vmware/vm-list-private"] {
        let bytes = read(&host.layout.path(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        for path in text.lines().filter_map(|line| line.trim().strip_prefix("config ")) {
            let path = path.trim().trim_matches('"');
            total += 1;
            // What we may not look at may well be there.
            if fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                count += 1;
                gone.get_or_insert_with(|| path.to_owned());
            }
        }
    }
    match gone {
        None => Finding::ok(CHECK, format!("{total} machines are registered, and every file is there")),
        Some(path) => Finding::warn(
            CHECK,
            format!("{count} of {total} registered machines have no file any more, such as {path}"),
            format!("{} -s unregister {}", host.command(), quoted(Path::new(&path))),
        ),
    }
}

/// A whole conversation: login, hand-over, a request, its answer. Where it succeeds, what the server knows
/// of its host besides.
pub(super) fn connection(options: &Options) -> Result<Vec<Finding>, Failure> {
    const CHECK: &str = "connection";
    let mut params = server::params(options)?;
    params.timeout = options.timeout.unwrap_or(PATIENCE);
    let answer = Server::open(&params, options.verbose).and_then(|mut server| {
        let product = server.call(&Request::new("VMServerd_GetProductInfo"))?;
        Ok((product, server.call(&Request::new("GSXHostInfo_Query"))?))
    });
    Ok(match answer {
        Ok((out, host)) => {
            let product = out
                .child("product")
                .map(|product| format!("{} {}", field(product, "title"), field(product, "version")));
            let answers = Finding::ok(CHECK, format!("the server answers: {}", product.unwrap_or_default()));
            vec![answers, guests(host.text("hostClass").unwrap_or_default())]
        }
        Err(error) => {
            let repair = match (&options.host, error.code) {
                (None, vmcontrol_client::ErrorCode::BadResponse) => "systemctl restart vmserverd".to_owned(),
                (None, _) => "see the checks above".to_owned(),
                (Some(host), _) => format!("ssh {host} vmware-cmd doctor"),
            };
            vec![Finding::fail(CHECK, first_line(&error.text), repair)]
        }
    })
}

fn first_line(text: &str) -> String {
    text.lines().collect::<Vec<_>>().join("; ")
}

/// A file of bounded size.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;
    use link::Layout;
    use std::os::unix::fs::PermissionsExt;

    /// An instance and a machine below one directory; `files` are path, contents and mode.
    fn host(files: &[(&str, &str, u32)], privileged: bool) -> (tempfile::TempDir, Host) {
        let directory = tempfile::tempdir().unwrap();
        for (path, contents, mode) in files {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, contents).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
        }
        let layout = Layout::new(Some(directory.path())).unwrap();
        let mut host = Host::of(layout, directory.path().to_owned());
        host.privileged = privileged;
        (directory, host)
    }

    /// Verdict, text and repair of one check.
    fn found(finding: &Finding) -> (Verdict, &str, &str) {
        (finding.verdict, &finding.text, finding.repair.as_deref().unwrap_or_default())
    }

    #[test]
    fn pam_is_what_decides_about_passwords() {
        const GOOD: &str = "@include common-auth\n@include common-account\n";
        let common = [("etc/pam.d/common-auth", "", 0o644), ("etc/pam.d/common-account", "", 0o644)];
        for (service, mode, verdict, part) in [
            (GOOD, 0o644, Verdict::Ok, "auth and account"),
            (GOOD, 0o666, Verdict::Fail, "0666"),
            ("@include common-auth\n", 0o644, Verdict::Fail, "no account stack"),
            ("@include common-auth\n@include elsewhere\n", 0o644, Verdict::Fail, "includes elsewhere"),
            ("auth required pam_unix.so\naccount required pam_unix.so\n", 0o600, Verdict::Ok, ""),
        ] {
            let mut files = common.to_vec();
            files.push(("etc/pam.d/vmware-authd", service, mode));
            let (_directory, host) = host(&files, true);
            let finding = pam(&host);
            assert!(finding.verdict == verdict && finding.text.contains(part), "{service}: {finding:?}");
            assert_eq!(finding.repair.is_some(), verdict != Verdict::Ok);
        }
        assert_eq!(pam(&host(&[], true).1).verdict, Verdict::Fail);
        assert_eq!(pam(&host(&[("etc/pam.d/other", GOOD, 0o644)], true).1).verdict, Verdict::Warn);
        assert_eq!(pam(&host(&[], false).1).verdict, Verdict::Ok);
    }

    #[test]
    fn the_port_is_where_clients_look_for_it() {
        for (text, verdict) in [
            ("authd.port = \"902\"\nauthd.client.port = \"902\"\n", Verdict::Ok),
            ("authd.port = \"0\"\n", Verdict::Ok),
            ("authd.port = \"902\"\n", Verdict::Warn),
            ("authd.client.port = \"x\"\n", Verdict::Fail),
        ] {
            let (_directory, host) = host(&[("etc/vmware/config", text, 0o644)], true);
            assert_eq!(config(&host).verdict, verdict, "{text}");
        }
        assert_eq!(config(&host(&[], true).1).verdict, Verdict::Fail);
    }

    #[test]
    fn settings_that_are_not_understood_are_named() {
        let (_directory, host) = host(&[("etc/vmserverd.toml", "[authd]\nfrob = 1\n", 0o644)], true);
        let finding = settings(&host);
        let (verdict, text, repair) = found(&finding);
        assert!(verdict == Verdict::Fail && text.contains("authd.frob"), "{text}");
        assert!(repair.ends_with("etc/vmserverd.toml"), "{repair}");
    }

    #[test]
    fn a_certificate_ends_and_a_key_is_private() {
        let (directory, host) = host(&[("etc/vmware/ssl/rui.key", "x", 0o644)], true);
        let missing = certificate(&host);
        assert!(missing[0].text.contains("rui.crt") && missing[0].verdict == Verdict::Fail, "{missing:?}");
        let (verdict, text, repair) = found(&missing[1]);
        assert!(verdict == Verdict::Fail && text.contains("0644"), "{text}");
        assert!(repair.starts_with("chmod 0400 ") && repair.ends_with("rui.key"), "{repair}");
        let path = directory.path().join("etc/vmware/ssl/rui.crt");
        for (from, until, verdict) in
            [(2020, 2021, Verdict::Fail), (2090, 2091, Verdict::Fail), (2020, 2091, Verdict::Ok)]
        {
            let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
            parameters.not_after = rcgen::date_time_ymd(until, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            fs::write(&path, parameters.self_signed(&key).unwrap().pem()).unwrap();
            let finding = &certificate(&host)[0];
            assert_eq!(finding.verdict, verdict, "{finding:?}");
            assert_eq!(finding.repair.is_some(), verdict != Verdict::Ok);
        }
        fs::write(&path, "no certificate").unwrap();
        assert!(certificate(&host)[0].text.contains("holds no certificate"));
    }

    #[test]
    fn machines_without_hardware_or_firmware_are_told() {
        let without = host(&[("proc/cpuinfo", "flags : fpu\n", 0o644)], true);
        assert!(kvm(&without.1).repair.unwrap().contains("BIOS"));
        let intel = host(&[("proc/cpuinfo", "flags : fpu vmx\n", 0o644)], true);
        assert_eq!(kvm(&intel.1).repair.as_deref(), Some("modprobe kvm_intel"));
        let there = host(&[("dev/kvm", "", 0o666)], true);
        assert_eq!(kvm(&there.1).verdict, Verdict::Ok);
        let classes = ["native", "emulated", "none", "unknown"].map(|class| guests(class).verdict);
        assert_eq!(classes, [Verdict::Ok, Verdict::Warn, Verdict::Fail, Verdict::Warn]);
        assert_eq!(firmware(&without.1).repair.as_deref(), Some("apt-get install seabios"));
        let bios =
            [("usr/share/seabios/bios.bin", "", 0o644), ("usr/share/seabios/vgabios-isavga.bin", "", 0o644)];
        assert_eq!(firmware(&host(&bios, true).1).verdict, Verdict::Ok);
    }

    #[test]
    fn groups_and_limits_and_lists() {
        let (_directory, mut own) = host(
            &[
                ("etc/vmserverd.toml", "[serverd.admin]\ngroup = \"vmadmins\"\n", 0o644),
                ("etc/passwd", "vmserverd:x:990:990::/:/bin/false\n", 0o644),
                ("etc/group", "root:x:0:\n", 0o644),
            ],
            true,
        );
        let all = groups(&own);
        assert_eq!((all[0].verdict, all[1].verdict), (Verdict::Ok, Verdict::Fail), "{all:?}");
        assert_eq!(all[1].repair.as_deref(), Some("groupadd --system vmadmins"));
        fs::write(own.file("/etc/group"), "vmadmins:x:991:alice\n").unwrap();
        assert!(groups(&own)[1].text.contains("alice"));
        own.privileged = false;

        let gone = own.layout.path("/vm/gone.vmx").display().to_string();
        let (_directory, listed) =
            host(&[("etc/vmware/vm-list", &format!("# x\nconfig \"{gone}\"\nconfig \"/\"\n"), 0o644)], true);
        let finding = inventory(&listed);
        assert!(
            finding.text.starts_with("1 of 2 ") && finding.repair.unwrap().contains(&gone),
            "{}",
            finding.text
        );

        let root = listed.layout.root().display().to_string();
        for (limit, verdict) in [("1024", Verdict::Warn), ("65536", Verdict::Ok), ("unlimited", Verdict::Ok)]
        {
            let (directory, limited) = host(
                &[
                    ("proc/7/comm", "vmserverd\n", 0o644),
                    (
                        "proc/7/limits",
                        &format!("Limit\nMax open files            {limit}    {limit}  files\n"),
                        0o644,
                    ),
                ],
                true,
            );
            let line = format!("vmserverd\0--root\0{}\0", directory.path().display());
            fs::write(directory.path().join("proc/7/cmdline"), line).unwrap();
            assert_eq!(descriptors(&limited).verdict, verdict, "{limit}");
            // A daemon of another instance says nothing about this one.
            fs::write(directory.path().join("proc/7/cmdline"), format!("vmserverd\0--root\0{root}\0"))
                .unwrap();
            assert!(descriptors(&limited).text.contains("no daemon"));
        }
    }
}
