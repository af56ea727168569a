//! F1: the server is killed at random moments under a load of registering and unregistering. What was
//! acknowledged is there afterwards, what was refused is not, and the list can always be read. Restarts are
//! timed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use link::vm_list::VmList;
use tests::exec::{Exec, Reply};
use tests::figures::{self, percentile};
use tests::{Client, Instance, Setup, Tap, eventually, process};

const WORKERS: usize = 4;
const MACHINES: usize = 12;

/// What a worker knows of one of its machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Known {
    There,
    Gone,
    /// The server died before it answered: either is right.
    Either,
}

/// Whether the server died between the request and its answer.
fn cut_off(reply: &Reply) -> bool {
    reply.error().is_some_and(|(code, text)| code == -999 && text.starts_with("The server ended"))
}

/// A worker, who alone changes its machines.
struct Worker<'a> {
    instance: &'a Instance,
    machines: BTreeMap<String, Known>,
    random: u64,
}

impl Worker<'_> {
    fn new(instance: &Instance, number: usize) -> Worker<'_> {
        let directory = instance.base.path().join("vms");
        std::fs::create_dir_all(&directory).unwrap();
        let machine = |machine| {
            let path: PathBuf = directory.join(format!("w{number}-{machine}.vmx"));
            std::fs::write(&path, "config.version = \"8\"\n").unwrap();
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
            (path.to_str().unwrap().to_owned(), Known::Gone)
        };
        Worker { instance, machines: (0..MACHINES).map(machine).collect(), random: number as u64 + 1 }
    }

    /// The next number of a sequence that is the same in every run.
    fn next(&mut self) -> usize {
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize
    }

    /// Compares what the server has with what this worker was told.
    fn check(&mut self, exec: &mut Exec) -> Result<(), tests::client::End> {
        let configs: String = self.machines.keys().map(|path| format!("<config>{path}</config>")).collect();
        exec.send(tests::exec::request(
            "VM_List",
            &format!("<details>0</details><configs>{configs}</configs>"),
        ));
        let reply = exec.try_reply()?;
        if cut_off(&reply) {
            return Err(tests::client::End::Closed);
        }
        assert!(reply.ok(), "VM_List: {}", reply.text);
        let there = reply.all("config");
        for (path, known) in &mut self.machines {
            let is = if there.contains(path) { Known::There } else { Known::Gone };
            if *known != is && *known != Known::Either {
                let vm_list = self.instance.layout.path("/etc/vmware/vm-list");
                let listed = std::fs::read(vm_list)
                    .is_ok_and(|bytes| VmList::parse(&bytes).configs().any(|one| one == path));
                let log = self.instance.serverd_log();
                let told: Vec<&str> = log.lines().filter(|line| line.contains(path.as_str())).collect();
                panic!("{path} was {known:?} and is {is:?}; in the file: {listed}; {told:#?}");
            }
            *known = is;
        }
        Ok(())
    }

    /// Registers or unregisters one machine.
    fn change(&mut self, exec: &mut Exec) -> Result<(), tests::client::End> {
        let at = self.next() % MACHINES;
        let (path, known) = self.machines.iter_mut().nth(at).unwrap();
        let (op, after) = match known {
            Known::There => ("VMUnRegister", Known::Gone),
            _ => ("VMRegister", Known::There),
        };
        let request = tests::exec::request(op, &format!("<config>{path}</config>"));
        *known = Known::Either;
        exec.client().try_send(request).map_err(|_| tests::client::End::Closed)?;
        let reply = exec.try_reply()?;
        if cut_off(&reply) {
            return Err(tests::client::End::Closed);
        }
        assert!(reply.ok(), "{op}: {}", reply.text);
        *known = after;
        Ok(())
    }

    /// Works until told; returns how many changes were acknowledged.
    fn work(&mut self, over: &AtomicBool, changes: &AtomicUsize) {
        while !over.load(Ordering::Relaxed) {
            let mut exec = self.instance.serves();
            if self.check(&mut exec).is_err() {
                continue;
            }
            while !over.load(Ordering::Relaxed) && self.change(&mut exec).is_ok() {
                changes.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

#[test]
fn acknowledged_changes_survive_kills_at_any_moment() {
    let kills = figures::length("VMSERVERD_KILLS", 1000, 40);
    let mut restarts = Vec::new();
    let instance = Setup::new().start();
    let over = AtomicBool::new(false);
    let changes = AtomicUsize::new(0);
    let mut workers: Vec<_> = (0..WORKERS).map(|number| Worker::new(&instance, number)).collect();
    std::thread::scope(|scope| {
        for worker in &mut workers {
            scope.spawn(|| worker.work(&over, &changes));
        }
        for round in 0..kills {
            let before = changes.load(Ordering::Relaxed);
            // Another moment each time: after so many changes of whoever.
            let wanted = before + 1 + round % 7;
            eventually("changes go on", || (changes.load(Ordering::Relaxed) >= wanted).then_some(()));
            process::kill(instance.core());
            let killed = Instant::now();
            drop(instance.serves());
            restarts.push(killed.elapsed());
        }
        over.store(true, Ordering::Relaxed);
    });
    let mut registered: Vec<String> = Vec::new();
    for worker in &mut workers {
        let mut exec = instance.serves();
        assert!(worker.check(&mut exec).is_ok());
        let there = worker.machines.iter().filter(|(_, known)| **known == Known::There);
        registered.extend(there.map(|(path, _)| path.clone()));
    }
    // The file says the same, and nothing that it should not.
    let bytes = std::fs::read(instance.layout.path("/etc/vmware/vm-list")).unwrap();
    let list = VmList::parse(&bytes);
    let mut listed: Vec<_> = list.configs().map(str::to_owned).collect();
    listed.sort();
    registered.sort();
    assert_eq!(listed, registered);
    figures::fact("F1", "kills", kills as f64, "");
    figures::fact("F1", "acknowledged changes, all found again", changes.load(Ordering::Relaxed) as f64, "");
    figures::most_ms("F1", "until a new session has its first answer, p99", percentile(&restarts, 99), 200.0);
    figures::fact("F1", "the same, median", figures::ms(percentile(&restarts, 50)), "ms");
}

#[test]
fn the_server_core_dies() {
    let instance = Setup::new().tls().plain().start();
    let mut sessions = [instance.exec(), instance.tcp().local().server(), instance.secure().local().server()];
    for exec in &mut sessions {
        assert_eq!(exec.inc(1), 2);
    }
    let (core, gateway) = (instance.core(), instance.net());
    let orphans = process::descendants(core);
    process::kill(core);
    // Old sessions end, none of them hangs; new ones work; the gateway is the same one.
    for exec in &mut sessions {
        assert!(exec.client().closed());
    }
    drop(instance.serves());
    assert_ne!(instance.core(), core);
    assert_eq!(instance.net(), gateway);
    for orphan in orphans {
        assert!(process::ends_within(orphan, Duration::from_secs(20)), "a session process without a core");
    }
}

/// Kills of anything at any moment, while callers call: no wrong answer, nothing stays broken.
#[test]
fn random_kills_under_load() {
    let instance = Setup::new().tls().plain().hasty().start();
    let over = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    let mut kills = 0;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    let Some(mut exec) = instance.try_exec() else { continue };
                    for number in 0..50i64 {
                        let request = tests::exec::request("inc", &format!("<number>{number}</number>"));
                        if exec.client().try_send(request).is_err() {
                            break;
                        }
                        // A reply is right or does not come; half a reply ends in an error here too.
                        let Ok(reply) = exec.try_reply() else { break };
                        assert_eq!(reply.out("number"), (number + 1).to_string());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let start = Instant::now();
        let mut state = 0x2545_f491_4f6c_dd1du64;
        while start.elapsed() < Duration::from_secs(12) {
            // Between two kills the instance gets to answer something.
            let mark = answered.load(Ordering::Relaxed);
            eventually("answers between two kills", || {
                (answered.load(Ordering::Relaxed) > mark + 20).then_some(())
            });
            let all = process::descendants(instance.pid());
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let choice = usize::try_from(state >> 33).unwrap() % all.len().max(1);
            if let Some(victim) = all.get(choice) {
                process::signal(*victim, rustix::process::Signal::KILL);
                kills += 1;
            }
        }
        over.store(true, Ordering::Relaxed);
    });
    assert!(kills >= 10, "only {kills} kills");
    drop(instance.serves());
    assert_eq!(
        eventually("TLS works again", || {
            let stream = tests::client::connect_from([127, 0, 0, 1].into(), instance.tls).ok()?;
            let mut client = Client::new(Tap::Tcp(stream));
            client.try_line().ok()?;
            Some(client.secure().local().server().inc(1))
        }),
        2
    );
    // No process is left over from the dead generations.
    eventually("only one generation of processes is left", || {
        // Orphans become children of `xtask up`; it should have the two daemons only.
        (process::children(instance.pid()).len() == 2).then_some(())
    });
}
