//! What the processes hold and may do: sockets, users, privileges, modes of files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::{Account, Caller, Instance, Setup, need_root, process, programs};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// The server has no network socket of its own; what it holds was handed to it.
#[test]
fn the_server_listens_nowhere() {
    if !need_root("the sockets of processes that hide them from their user") {
        return;
    }
    let instance = Setup::new().tls().plain().start();
    let core = instance.core();
    assert_eq!(process::network_sockets(core), [], "the core before any session");
    let mut tls = instance.secure().local().server();
    let mut unix = instance.exec();
    assert_eq!((tls.inc(1), unix.inc(1)), (2, 2));
    let uid = rustix::process::getuid().as_raw();
    let session = instance.session_of(uid);
    assert_eq!(process::network_sockets(session), [], "a TLS session comes through the gateway");
    // A plain session is the caller's own connection, and nothing else.
    let mut plain = instance.tcp().local().server();
    assert_eq!(plain.inc(1), 2);
    let handed = process::network_sockets(session);
    assert_eq!(handed.len(), 1, "{handed:?}");
    assert_eq!((handed[0].table, handed[0].state.as_str()), ("tcp", "01"), "{handed:?}");
    assert_eq!(process::network_sockets(core), [], "the core passes descriptors on and keeps none");
    // Nor does either of them listen on a unix socket that it could be reached by.
    let listening = listening_unix_sockets(core);
    for server in [core, session] {
        let held = process::socket_inodes(server);
        assert!(held.is_disjoint(&listening), "{server} listens on a unix socket");
    }
    // All listeners belong to the gateway.
    let listeners = |pid| process::network_sockets(pid).iter().filter(|socket| socket.state == "0A").count();
    assert_eq!(listeners(instance.net()).max(listeners(instance.monitor())), 2);
}

/// The inodes of listening unix sockets, from the kernel's table (flag 0x10000, state 1).
fn listening_unix_sockets(process: u32) -> std::collections::BTreeSet<u64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/net/unix")).unwrap();
    let fields = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    fields.filter(|fields| fields[3] == "00010000").map(|fields| fields[6].parse().unwrap()).collect()
}

#[test]
fn the_network_half_of_the_gateway_can_do_little() {
    let instance = Setup::new().tls().plain().start();
    let net = instance.net();
    assert_eq!(process::status(net, "NoNewPrivs").as_deref(), Some("1"));
    assert_eq!(process::status(net, "Seccomp").as_deref(), Some("2"), "a seccomp filter");
    for capabilities in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(process::status(net, capabilities).as_deref(), Some("0000000000000000"), "{capabilities}");
    }
    if need_root("the user of the gateway's network half") {
        assert!(process::uids(net).iter().all(|uid| *uid != 0), "{:?}", process::uids(net));
        assert_eq!(process::uids(instance.monitor()), [0; 4]);
        let groups = process::status(net, "Groups").unwrap();
        assert!(!groups.split_whitespace().any(|group| group == "0"), "groups {groups}");
    }
}

#[test]
fn a_session_process_is_its_user_and_cannot_become_more() {
    if !need_root("the privileges of a session process") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().start();
    let mut exec = Caller::new(CALLER, &instance, &account).unix().local().server();
    assert_eq!(exec.inc(1), 2);
    let session = instance.session_of(account.uid);
    assert_eq!(process::status(session, "NoNewPrivs").as_deref(), Some("1"));
    assert_eq!(process::status(session, "CapEff").as_deref(), Some("0000000000000000"));
    assert_eq!(process::status(session, "CapPrm").as_deref(), Some("0000000000000000"));
    let gids = process::status(session, "Gid").unwrap();
    assert!(gids.split_whitespace().all(|gid| gid == account.gid.to_string()), "{gids}");
    // Not dumpable: its entries in /proc belong to root, so the user cannot look into it.
    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(format!("/proc/{session}/mem")).unwrap().uid(), 0);
    let files = process::descriptors(session);
    let reachable = |path: &&std::path::PathBuf| path.starts_with(instance.layout.root());
    let open: Vec<_> = files.iter().filter(reachable).collect();
    let logs = instance.layout.log_directory();
    assert!(open.iter().all(|path| path.starts_with(&logs)), "descriptors inherited by a user: {open:?}");
}

#[test]
fn modes_of_what_is_created() {
    let instance = Setup::new().tls().plain().start();
    assert_eq!(instance.exec().inc(1), 2);
    let layout = &instance.layout;
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&layout.authd_socket()), 0o666);
    assert_eq!(mode(&layout.link_socket()), 0o600);
    assert_eq!(mode(&layout.inetd_socket()), 0o600);
    assert_eq!(mode(layout.authd_socket().parent().unwrap()), 0o755);
    assert_eq!(mode(&layout.ssl_directory().join("rui.crt")), 0o444);
    assert_eq!(mode(&layout.ssl_directory().join("rui.key")), 0o400);
    tests::eventually("the socket of figures", || layout.metrics_socket().exists().then_some(()));
    tests::eventually("its mode", || (mode(&layout.metrics_socket()) == 0o666).then_some(()));
    // Who did what is nobody's business but the administrator's.
    let audit = mode(&layout.audit_log());
    assert!(audit == 0o600 || audit == 0o640, "{audit:o}");
    // Where everybody may make machines, and nobody can remove another's.
    let machines = layout.path(link::layout::VM_DIRECTORY);
    assert_eq!(mode(&machines), 0o1777);
    // Nothing else in the instance is set-uid, set-gid, or writable by everybody, sockets for callers apart.
    check(layout.root(), &|path, mode| {
        assert_eq!(mode & 0o6000, 0, "{path:?}");
        let meant =
            [layout.authd_socket(), layout.metrics_socket(), machines.clone()].contains(&path.to_owned());
        assert!(mode & 0o002 == 0 || meant, "{path:?} is writable by everybody");
    });
}

#[test]
fn nothing_that_is_built_or_packaged_is_set_uid() {
    for name in ["vmware-authd", "vmserverd", "vmx", "vmware-cmd", "xtask"] {
        let mode = programs::directory().join(name).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o6000, 0, "{name}");
    }
    check(&programs::repository().join("packaging"), &|path, mode| assert_eq!(mode & 0o6000, 0, "{path:?}"));
}

/// What a helper that asks PAM is started with: where programs are, and nothing of whoever started the gateway.
#[test]
fn helpers_have_a_path_and_no_other_environment() {
    if !need_root("the environment of processes that hide it from their user") {
        return;
    }
    let instance = Setup::new().hasty().plain().start();
    assert_eq!(instance.tcp().try_login("nobody-at-all", "x"), "530 Login incorrect.");
    let helper = |job: &str| {
        tests::eventually("a helper", || {
            let children = process::children(instance.monitor());
            children.into_iter().find(|child| process::words(*child).iter().any(|word| word == job))
        })
    };
    for (process, job) in [(helper("pam-helper"), "pam-helper"), (instance.net(), "net")] {
        let environment = std::fs::read(format!("/proc/{process}/environ")).unwrap();
        let environment = String::from_utf8(environment).unwrap();
        assert_eq!(environment, "PATH=/usr/sbin:/usr/bin:/sbin:/bin\0", "{job}");
    }
}

fn check(path: &Path, rule: &dyn Fn(&Path, u32)) {
    let metadata = path.symlink_metadata().unwrap();
    if metadata.is_symlink() {
        return;
    }
    rule(path, metadata.permissions().mode() & 0o7777);
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            check(&entry.unwrap().path(), rule);
        }
    }
}

/// Somebody who is not the owner of the instance cannot pose as the server, nor as a super-server.
#[test]
fn the_link_takes_nobody_but_the_server() {
    if !need_root("the link between gateway and server") {
        return;
    }
    let account = Account::new();
    let instance: Instance = Setup::new().plain().start();
    let caller = Caller::new(CALLER, &instance, &account);
    for socket in [instance.layout.link_socket(), instance.layout.inetd_socket()] {
        let mut command = caller.command(&["relay", "unix", socket.to_str().unwrap()]);
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        assert!(!output.status.success(), "an ordinary user reached {}", socket.display());
    }
    assert_eq!(instance.tcp().local().server().inc(1), 2);
}
