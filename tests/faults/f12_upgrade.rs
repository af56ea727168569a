//! F12: new programs over a live system. The files are replaced while everything runs, then the gateway and the
//! core are started again: the machine goes on, the next core has it, and clients that were connected go on too.
//!
//! Callers who come while that happens are all served.
//!
//! The same by `apt-get`, in a system of its own, is in the test of the packages.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::exec::Exec;
use tests::figures::{self, full, most, ms};
use tests::guest::{FLOPPY, counter, need_kvm};
use tests::instance::copy_programs;
use tests::{Account, Base, Client, Guest, Setup, eventually, need_root, process, programs};

use crate::activated::Activated;

/// Puts another file in the place of a program, as a package manager does.
fn replace(directory: &Path, name: &str) {
    let (path, new) = (directory.join(name), directory.join(format!("{name}.dpkg-new")));
    let old = std::fs::metadata(&path).unwrap().ino();
    programs::copy(&path, &new);
    std::fs::rename(&new, &path).unwrap();
    assert_ne!(std::fs::metadata(&path).unwrap().ino(), old);
}

/// The file that a process runs; one that was replaced is named as deleted.
fn program(process: u32) -> String {
    std::fs::read_link(format!("/proc/{process}/exe")).unwrap().display().to_string()
}

#[test]
fn new_programs_over_a_live_system_lose_nothing() {
    const WHAT: &str = "an upgrade with a machine that runs";
    if !need_root(WHAT) || !need_kvm(WHAT) {
        return;
    }
    let account = Account::new();
    let place = Base::new();
    let programs_in = place.path();
    copy_programs(programs_in);
    let instance = Setup::new().tls().plain().hasty().programs(programs_in).start();
    let base = instance.public_directory("vms");
    let mut guest = Guest::new(&base, "vm", &account, FLOPPY);
    guest.put("boot.img", &counter());
    let mut exec = instance.tcp().login(&account).server();
    guest.must(&mut exec, "VMRegister", "");
    guest.must(&mut exec, "VM_Start", "");
    guest.expect(&mut exec, "0123");
    let machine = guest.state(&mut exec).1;
    let running = |exec: &mut Exec| exec.op("VMServerd_GetConnectedVMList", "").all("vm");
    let running_before = running(&mut exec);
    assert_eq!(running_before.len(), 1);
    // A client of the C library's connection, as it is in any program that was there before.
    let mut watch = Command::new(programs::directory().join("vmware-cmd"));
    watch.arg("--root").arg(instance.layout.root()).args(["-v", "watch", "--json"]);
    let mut watch = watch.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut events = BufReader::new(watch.stdout.take().unwrap());
    let mut errors = BufReader::new(watch.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("VMServerd_WaitForEvents answered") {
        line.clear();
        assert_ne!(errors.read_line(&mut line).unwrap(), 0, "vmware-cmd watch has ended");
    }
    std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));

    for name in ["vmware-authd", "vmserverd", "vmx"] {
        replace(programs_in, name);
    }
    let (gateway, core) = (instance.monitor(), instance.core());
    assert!(program(core).ends_with(" (deleted)"), "{}", program(core));
    assert_eq!(guest.state(&mut exec), ("on".to_owned(), machine), "replaced files alone change nothing");
    let start = Instant::now();
    for old in [gateway, core] {
        process::signal(old, Signal::TERM);
        assert!(process::ends_within(old, Duration::from_secs(40)), "{old} does not end");
    }
    drop(instance.serves());
    let served = start.elapsed();
    let new = [instance.monitor(), instance.net(), instance.core()];
    for process in new {
        let program = program(process);
        assert!(
            program.starts_with(programs_in.to_str().unwrap()) && !program.contains("deleted"),
            "{program}"
        );
    }
    assert!(exec.client().closed(), "a session of the old core");
    let mut exec = eventually("a new session", || {
        let mut client = instance.tcp().login(&account);
        client.ask("GLOBAL server").starts_with("200 ").then(|| Exec::new(client))
    });
    assert_eq!(guest.state(&mut exec), ("on".to_owned(), machine), "the same process");
    let running_after = running(&mut exec);
    let lost = running_before.iter().filter(|config| !running_after.contains(config)).count();
    assert!(program(machine).ends_with(" (deleted)"), "it goes on with what it was started with");
    let seen = guest.seen;
    guest.expect(&mut exec, "0123");
    let said = guest.output(&mut exec, 0, 0).0;
    let digits: Vec<u32> = said.chars().filter_map(|character| character.to_digit(10)).collect();
    assert!(guest.seen > seen && digits.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 10), "{said}");
    // The client that was there before hears of what happens now.
    let mut hears = |what: &dyn Fn(&serde_json::Value) -> bool| loop {
        let mut line = String::new();
        assert_ne!(events.read_line(&mut line).unwrap(), 0, "vmware-cmd watch has ended");
        if what(&serde_json::from_str(&line).unwrap()) {
            return;
        }
    };
    hears(&|event| event["type"] == "lost");
    guest.must(&mut exec, "VM_Stop", "<mode>hard</mode>");
    hears(&|event| event["type"] == "vm.state" && event["to"] == "off");
    process::kill(watch.id());
    let _ = watch.wait();
    // And the next start takes the new program.
    guest.must(&mut exec, "VM_Start", "");
    let next = guest.state(&mut exec).1;
    assert!(!program(next).contains("deleted"), "{}", program(next));
    guest.must(&mut exec, "VM_Stop", "<mode>hard</mode>");
    most("F12", "machines lost", lost as f64, "", 0.0);
    figures::fact("F12", "until new sessions are served, both daemons stopped in order", ms(served), "ms");
}

/// Callers who come all the time while the daemons are started again, one after the other, as the packages do it:
/// each gets through a login, the hand-over and a request, and none is sent away.
#[test]
fn callers_never_learn_of_a_restart() {
    const CALLERS: usize = 2;
    let activated = Activated::new();
    let (mut gateway, mut server) = (activated.gateway(), activated.server());
    assert_eq!(activated.call().inc(1), 2);
    let (done, begun, calls) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let call = || {
        begun.fetch_add(1, Ordering::SeqCst);
        let mut client = Client::unix(&activated.socket()).greeted().local();
        let reply = client.ask("GLOBAL server");
        assert_eq!(reply, "200 Connected to vmware-serverd.");
        assert_eq!(Exec::new(client).inc(1), 2);
        calls.fetch_add(1, Ordering::SeqCst);
    };
    let restarts = if full() { 50 } else { 6 };
    std::thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::SeqCst) {
                        call();
                    }
                })
            })
            .collect();
        // Whether there were more calls, and no caller has given up.
        let more = || {
            let before = calls.load(Ordering::SeqCst);
            eventually("more calls", || {
                let gone = callers.iter().any(|caller| caller.is_finished());
                (gone || calls.load(Ordering::SeqCst) > before + 20).then_some(!gone)
            })
        };
        for _ in 0..restarts {
            if !more() {
                break;
            }
            gateway.stop();
            gateway = activated.gateway();
            if !more() {
                break;
            }
            server.stop();
            server = activated.server();
        }
        let _ = more();
        done.store(true, Ordering::SeqCst);
        let sent_away = callers.into_iter().filter_map(|caller| caller.join().err()).count();
        assert_eq!(sent_away, 0, "callers were sent away");
    });
    let [begun, calls] = [begun, calls].map(|count| count.load(Ordering::SeqCst));
    figures::fact("F12", "calls during restarts of both daemons", calls as f64, "");
    most("F12", "calls not answered", (begun - calls) as f64, "", 0.0);
}

/// A caller who talks through TLS keeps the old gateway's relay; the next gateway need not wait for him.
#[test]
fn a_session_through_tls_holds_up_no_restart() {
    let activated = Activated::new();
    let (mut gateway, _server) = (activated.gateway(), activated.server());
    assert_eq!(activated.call().inc(1), 2);
    let mut held = Client::tcp(activated.port()).greeted().secure().local().server();
    assert_eq!(held.inc(1), 2);
    gateway.stop();
    assert_eq!(held.inc(2), 3, "without a gateway");
    let _gateway = activated.gateway();
    assert_eq!(activated.call().inc(1), 2);
    assert_eq!(held.inc(3), 4, "beside the next one");
}
