//! Machines that run: started, seen, killed, found again by the next server, over the wire.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tests::exec::{Exec, Reply};
use tests::guest::{Guest, need_kvm};
use tests::{Account, Instance, Setup, eventually, need_root, process, skip};

/// Off after the process was killed; the issue allows 100 ms, and a busy host takes its own time.
const OFF_WITHIN: Duration = Duration::from_secs(5);

/// A machine of a user that boots the floppy: its .vmx.
fn machine(instance: &Instance, name: &str, account: &Account) -> PathBuf {
    Guest::with_floppy(instance, name, (account.uid, account.gid), "").config
}

fn ask(exec: &mut Exec, op: &str, path: &Path) -> Reply {
    exec.op(op, &format!("<config>{}</config>", path.display()))
}

/// A session of an account, over TCP with its password.
fn session(instance: &Instance, account: &Account) -> Exec {
    let mut client = instance.tcp().login(account);
    assert_eq!(client.ask("GLOBAL server"), "200 Connected to vmware-serverd.");
    Exec::new(client)
}

fn state(exec: &mut Exec, path: &Path) -> (String, u32) {
    let info = ask(exec, "VM_INFO", path);
    (info.all("powerState")[0].clone(), info.all("pid")[0].parse().unwrap())
}

fn greets(exec: &mut Exec, path: &Path) {
    let arguments = format!("<config>{}</config><port>0</port><wait>5</wait>", path.display());
    // Seconds of pure computing, where `/dev/kvm` emulates: minutes on a busy host.
    tests::within(Duration::from_secs(300), "the guest greets", || {
        exec.op("VM_SerialRead", &arguments).out("contents").contains("HELLO FROM SECTOR 0").then_some(())
    });
}

#[test]
fn a_machine_runs_as_its_owner_and_survives_the_server_but_not_a_kill() {
    const WHAT: &str = "a machine runs";
    if !need_root(WHAT) || !need_kvm(WHAT) {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let path = machine(&instance, "one", &account);
    let mut exec = session(&instance, &account);
    assert!(ask(&mut exec, "VMRegister", &path).ok());
    assert_eq!(state(&mut exec, &path), ("off".into(), 0));
    let started = ask(&mut exec, "VM_Start", &path);
    assert!(started.ok(), "{:?}", started.error());
    let (power, pid) = state(&mut exec, &path);
    assert_eq!(power, "on");
    assert_eq!(process::uids(pid), [account.uid; 4]);
    assert_eq!(process::status(pid, "CapEff").as_deref(), Some("0000000000000000"));
    assert_eq!(process::status(pid, "NoNewPrivs").as_deref(), Some("1"));
    assert!(process::network_sockets(pid).is_empty());
    let connected = exec.op("VMServerd_GetConnectedVMList", "").all("vm");
    assert_eq!(connected, [path.display().to_string()]);
    let (code, text) = ask(&mut exec, "VM_Start", &path).error().unwrap();
    assert_eq!(code, -8);
    assert!(text.contains("(\"start\")") && text.contains("(\"on\")"), "{text}");
    assert_eq!(ask(&mut exec, "VMUnRegister", &path).code(), -8);
    greets(&mut exec, &path);

    // The next server finds it: same process, still at it.
    process::kill(instance.core());
    let mut exec = eventually("a new server", || {
        let mut client = instance.tcp().login(&account);
        (client.ask("GLOBAL server") == "200 Connected to vmware-serverd.").then(|| Exec::new(client))
    });
    assert_eq!(state(&mut exec, &path), ("on".into(), pid));
    greets(&mut exec, &path);

    let killed = Instant::now();
    process::kill(pid);
    let off = tests::within(OFF_WITHIN, "the machine is off", || {
        (state(&mut exec, &path) == ("off".into(), 0)).then(|| killed.elapsed())
    });
    println!("off {off:?} after the kill");
    let subjects = ask(&mut exec, "VM_GetLastNEvents", &path).all("subject");
    assert!(subjects.iter().any(|subject| subject.contains("crashed")), "{subjects:?}");

    assert!(ask(&mut exec, "VM_Start", &path).ok());
    let mode = format!("<config>{}</config><mode>hard</mode>", path.display());
    assert!(exec.op("VM_Stop", &mode).ok());
    assert_eq!(state(&mut exec, &path), ("off".into(), 0));
    // At once: the last process may not have ended yet.
    assert!(ask(&mut exec, "VM_Start", &path).ok());
    assert!(exec.op("VM_Stop", &mode).ok());
    assert!(ask(&mut exec, "VMUnRegister", &path).ok());
}

#[test]
fn without_the_device_a_start_says_so() {
    if !need_root("without /dev/kvm") {
        return;
    }
    let account = Account::new();
    // The instance of an ordinary user: machines run as that user, who may not open the device.
    let opens = std::fs::metadata("/dev/kvm").is_ok_and(|facts| facts.permissions().mode() & 0o006 != 0);
    if opens {
        skip::skipped("without /dev/kvm", "everybody may open it here");
        return;
    }
    let instance = Setup::new().owned_by(&account).start();
    let path = machine(&instance, "none", &account);
    let caller = tests::Caller::new(env!("CARGO_BIN_EXE_caller"), &instance, &account);
    let mut exec = caller.unix().local().server();
    assert!(ask(&mut exec, "VMRegister", &path).ok());
    let (code, text) = ask(&mut exec, "VM_Start", &path).error().unwrap();
    assert_eq!(code, -19);
    assert!(text.contains("/dev/kvm"), "{text}");
    assert_eq!(state(&mut exec, &path), ("off".into(), 0));
}

#[test]
fn whoever_asks_while_a_machine_ends_is_answered_as_a_moment_later() {
    const WHAT: &str = "requests while a machine ends";
    if !need_root(WHAT) || !need_kvm(WHAT) {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let path = machine(&instance, "ends", &account);
    let mut exec = session(&instance, &account);
    assert!(ask(&mut exec, "VMRegister", &path).ok());
    let stop = format!("<config>{}</config><mode>hard</mode>", path.display());
    let read = format!("<config>{}</config><offset>100000</offset><wait>30</wait>", path.display());
    let mut sessions: Vec<Exec> = (0..8).map(|_| session(&instance, &account)).collect();
    for _ in 0..3 {
        assert!(ask(&mut exec, "VM_Start", &path).ok());
        std::thread::scope(|scope| {
            for (number, exec) in sessions.iter_mut().enumerate() {
                let (stop, read) = (&stop, &read);
                scope.spawn(move || {
                    if number % 2 == 0 {
                        let code = exec.op("VM_Stop", stop).code();
                        assert!([0, -8, -21].contains(&code), "stopping it: {code}");
                    } else {
                        let reply = exec.op("VM_SerialRead", read);
                        assert!(reply.ok(), "reading its output: {:?}", reply.error());
                    }
                });
            }
        });
        assert_eq!(state(&mut exec, &path), ("off".into(), 0));
    }

    // One that hangs does not answer; its end is told all the same.
    assert!(ask(&mut exec, "VM_Start", &path).ok());
    let pid = state(&mut exec, &path).1;
    process::signal(pid, rustix::process::Signal::STOP);
    let stopped = exec.op("VM_Stop", &stop);
    assert!(stopped.ok(), "{:?}", stopped.error());
    assert_eq!(state(&mut exec, &path), ("off".into(), 0));
    assert!(!process::runs(pid));
    assert!(ask(&mut exec, "VM_Start", &path).ok());
    assert!(exec.op("VM_Stop", &stop).ok());
}
