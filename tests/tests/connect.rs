//! `CONNECT`: a caller is handed over to one machine, with rights and answers as the gateway promises;
//! and what others hear of machines: who is connected, and that a .vmx was changed or is gone.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tests::exec::{Exec, request};
use tests::guest::{Guest, need_kvm};
use tests::{Account, Client, Instance, Setup, eventually, need_root};

/// A .vmx that boots a floppy, of a user in a directory of its own.
fn machine(instance: &Instance, name: &str, owner: (u32, u32)) -> PathBuf {
    Guest::with_floppy(instance, name, owner, "guestinfo.ip = \"10.0.0.1\"\n").config
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn cfg(path: &Path) -> String {
    format!("<config>{}</config>", path.display())
}

fn session(client: Client) -> Exec {
    let mut client = client;
    assert_eq!(client.ask("GLOBAL server"), "200 Connected to vmware-serverd.");
    Exec::new(client)
}

/// A connection to a machine, for whoever has logged in.
fn control(mut client: Client, path: &Path) -> Exec {
    let path = path.display();
    assert_eq!(client.ask(format!("CONNECT {path} control")), format!("200 Connect {path}"));
    Exec::new(client)
}

#[test]
fn a_caller_is_connected_to_a_running_machine_as_far_as_his_rights_go() {
    const WHAT: &str = "CONNECT";
    if !need_root(WHAT) || !need_kvm(WHAT) {
        return;
    }
    let (owner, other) = (Account::new(), Account::new());
    let instance = Setup::new().tls().plain().hasty().start();
    let path = machine(&instance, "one", (owner.uid, owner.gid));
    let shown = path.display().to_string();
    let mut exec = session(instance.tcp().login(&owner));
    let ask = |client: &mut Client, mode: &str| client.ask(format!("CONNECT {shown} {mode}"));
    let unknown = format!("551 The config file {shown} is not registered.");
    let not_running = format!("514 Virtual machine {shown} is not running.");
    let denied = format!(
        "550 You need execute access in order to connect with the VMware console. \
         Access denied for config file {shown}."
    );

    // Registration first, then the right, then whether there is something to connect to.
    let (mut his, mut others) = (instance.tcp().login(&owner), instance.secure().login(&other));
    assert_eq!(ask(&mut his, "control"), unknown);
    assert!(exec.op("VMRegister", &cfg(&path)).ok());
    for mode in ["control", "mks"] {
        assert_eq!(ask(&mut his, mode), not_running);
        set_mode(&path, 0o754);
        assert_eq!(ask(&mut others, mode), denied);
        set_mode(&path, 0o750);
        assert_eq!(ask(&mut others, mode), unknown);
        set_mode(&path, 0o755);
    }
    let started = exec.op("VM_Start", &cfg(&path));
    assert!(started.ok(), "{:?}", started.error());
    assert_eq!(ask(&mut his, "mks"), not_running, "there are no consoles yet");

    // Another user over TLS, and the owner with a request sent early.
    let mut theirs = control(others, &path);
    his.send(format!("CONNECT {shown} control\r\n{}", request("VM_GetState", "")));
    assert_eq!(his.line(), format!("200 Connect {shown}"));
    let mut his = Exec::new(his);
    assert_eq!(his.reply().out("powerState"), "on");

    // A request that names no machine is about this one; any other operation is as everywhere.
    assert_eq!(theirs.op("VM_GetState", "").out("config"), shown);
    assert_eq!(theirs.inc(41), 42);
    assert_eq!(theirs.op("VM_SetConfig", "<key>a</key><value>b</value>").code(), -4);
    let named = theirs.op("VM_GetState", "<config>/no/such.vmx</config>");
    assert_eq!(named.code(), -11, "a name that was given is the one that counts");
    assert_eq!(exec.op("VM_GetState", "").error().unwrap().1, "Invalid argument: missing parameter config");

    // Both are listed and counted, until they end.
    let who = exec.op("VM_Who", &cfg(&path));
    let mut names = who.all("name");
    names.sort();
    let mut both = [owner.name.clone(), other.name.clone()];
    both.sort();
    assert_eq!((names, who.all("type")), (both.to_vec(), vec!["console".to_owned(); 2]));
    assert_eq!(exec.op("VM_GetRemoteConnections", &cfg(&path)).out("remoteConnections"), "2");
    assert!(exec.op("VM_INFO", &format!("{}<connect>1</connect>", cfg(&path))).ok());
    let info = exec.op("VM_INFO", &cfg(&path));
    assert_eq!(info.all("remoteConnections"), ["2"], "an api session is no console");
    assert_eq!(info.all("ip"), ["10.0.0.1"]);
    drop(theirs);
    eventually("one is left", || {
        let count = exec.op("VM_GetRemoteConnections", &cfg(&path)).out("remoteConnections");
        (count == "1").then_some(())
    });
    let mut types = exec.op("VM_Who", &cfg(&path)).all("type");
    types.sort();
    assert_eq!(types, ["api", "console"]);

    // What the guest says of itself is seen by all.
    let set = format!("{}<key>ip</key><value>192.0.2.7</value>", cfg(&path));
    assert!(exec.op("VM_SetGuestInfo", &set).ok());
    eventually("the address", || (exec.op("VM_INFO", &cfg(&path)).all("ip") == ["192.0.2.7"]).then_some(()));

    // As many connections as there can be; then no further one, and again when one has gone.
    let mut held: Vec<Exec> = (1..32).map(|_| control(instance.tcp().login(&owner), &path)).collect();
    let mut late = instance.tcp().login(&owner);
    assert_eq!(ask(&mut late, "control"), format!("552 Virtual machine {shown} is busy."));
    held.pop();
    eventually("a place", || (ask(&mut late, "control") == format!("200 Connect {shown}")).then_some(()));

    // The machine ends; who is connected reads that, and nobody new is connected.
    assert!(his.op("VM_Stop", "<mode>hard</mode>").ok());
    assert_eq!(his.op("VM_GetState", "").out("powerState"), "off");
    assert_eq!(his.op("VM_GetRemoteConnections", "").out("remoteConnections"), "0");
    assert_eq!(ask(&mut instance.tcp().login(&owner), "control"), not_running);
    instance.authd_logs(&format!("session of {} handed to control of ", owner.name));
}

#[test]
fn the_host_says_how_it_runs_guests_before_any_machine_runs() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let class = eventually("the kind of host", || {
        let class = exec.op("GSXHostInfo_Query", "").out("hostClass");
        (class != "unknown").then_some(class)
    });
    let opens = std::fs::File::options().read(true).write(true).open("/dev/kvm").is_ok();
    let expected: &[&str] = if opens { &["native", "emulated"] } else { &["none"] };
    assert!(expected.contains(&class.as_str()), "{class}");
    assert!(instance.serverd_log().contains(&format!("guests run on this host: {class}")));
}

#[test]
fn changes_of_a_vmx_and_its_end_are_events() {
    const WHAT: &str = "vm.config events";
    if !need_root(WHAT) {
        return;
    }
    let owner = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let path = machine(&instance, "told", (owner.uid, owner.gid));
    let mut exec = session(instance.tcp().login(&owner));
    let mut waiter = session(instance.tcp().login(&owner));
    assert!(exec.op("VMRegister", &cfg(&path)).ok());
    let now = waiter.op("VMServerd_WaitForEvents", "");
    let (epoch, mut next) = (now.out("epoch"), now.out("next"));
    let mut wait = |change: &mut dyn FnMut()| {
        let configs = format!("<configs>{}</configs>", cfg(&path));
        let arguments = format!("<epoch>{epoch}</epoch><since>{next}</since><timeout>30</timeout>{configs}");
        waiter.send(request("VMServerd_WaitForEvents", &arguments));
        change();
        let reply = waiter.reply();
        next = reply.out("next");
        (reply.attributes("event", "type"), reply.all("key"))
    };
    let set = format!("{}<key>annotation</key><value>new</value>", cfg(&path));
    let told = wait(&mut || assert!(exec.op("VM_SetConfig", &set).ok()));
    assert!(!told.0.is_empty() && told.0.iter().all(|kind| kind == "vm.config"), "{told:?}");
    let mut keys = told.1;
    let mut without_key = told.0.len() - keys.len();

    // From outside, in the way of an editor and in place: without a key. That state of the file which we
    // have made ourselves may have been seen from outside too, but no more than once.
    let text = std::fs::read_to_string(&path).unwrap();
    let beside = path.with_extension("new");
    std::fs::write(&beside, text.replace("\"16\"", "\"32\"")).unwrap();
    chown(&beside, Some(owner.uid), Some(owner.gid)).unwrap();
    let mut changes: [&mut dyn FnMut(); 2] = [&mut || std::fs::rename(&beside, &path).unwrap(), &mut || {
        std::fs::write(&path, text.replace("\"16\"", "\"64\"")).unwrap();
    }];
    for change in &mut changes {
        let before = without_key;
        let mut told = wait(change);
        loop {
            assert!(!told.0.is_empty() && told.0.iter().all(|kind| kind == "vm.config"), "{told:?}");
            without_key += told.0.len() - told.1.len();
            keys.append(&mut told.1);
            if without_key > before {
                break;
            }
            told = wait(&mut || {});
        }
    }
    assert_eq!(keys, ["annotation"]);
    set_mode(&path, 0o755);

    // Deleted: the owner hears of it, though there is nothing left that he could read.
    let told = loop {
        let told = wait(&mut || {
            if path.exists() {
                let deleted = exec.op("VMDeleteEdit_DeleteVM", &cfg(&path));
                assert!(deleted.ok(), "{:?}", deleted.error());
            }
        });
        if told.0.iter().any(|kind| kind != "vm.config") {
            break told;
        }
    };
    assert_eq!(told.0.last().unwrap(), "vm.unregistered");
}

#[test]
fn requests_are_counted_by_operation_and_result() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    for number in 0..5 {
        assert_eq!(exec.inc(number), number + 1);
    }
    assert!(!exec.op("inc", "<number>x</number>").ok());
    assert!(!exec.op("NoSuchOperation", "").ok());
    let text = exec.op("VMServerd_GetMetrics", "").out("contents");
    for line in [
        "vmserverd_requests_total{op=\"inc\",result=\"ok\"} 5",
        "vmserverd_requests_total{op=\"inc\",result=\"failed\"} 1",
        "vmserverd_requests_total{op=\"none\",result=\"failed\"} 1",
        "vmserverd_request_duration_seconds_count{op=\"inc\"} 6",
        "vmserverd_request_duration_seconds_bucket{le=\"+Inf\",op=\"inc\"} 6",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
}

#[test]
fn the_product_is_numbered_as_the_settings_say() {
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    for (setup, number, name) in
        [(Setup::new(), "4", "server"), (Setup::new().set("serverd.product.number", "2"), "2", "gsx")]
    {
        let instance = setup.start();
        let path = machine(&instance, "numbered", me);
        let mut exec = instance.exec();
        assert!(exec.op("VMRegister", &cfg(&path)).ok());
        let info = exec.op("VM_GetProductInfo", &cfg(&path));
        assert_eq!((info.out("product"), info.out("productName")), (number.into(), name.into()));
    }
}
