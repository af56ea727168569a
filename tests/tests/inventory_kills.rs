//! F1: the server is killed at random moments under a load of registering and unregistering. What was
//! acknowledged is there afterwards, what was refused is not, and the list can always be read.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use link::vm_list::VmList;
use tests::exec::{Exec, Reply};
use tests::{Instance, Setup, eventually, process};

/// Kills in a usual run; `VMSERVERD_KILLS` says otherwise (1000 for the full test).
const KILLS: usize = 40;

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

    /// A session, as soon as there is a server.
    fn connect(&self) -> Exec {
        eventually("a session", || {
            let mut client = tests::Client::unix(&self.instance.socket());
            let greeted = client.try_line().is_ok_and(|line| line.starts_with("220 "));
            let mut says = |line: &str, answer: &str| {
                client.try_send(format!("{line}\r\n")).is_ok()
                    && client.try_line().is_ok_and(|reply| reply.starts_with(answer))
            };
            (greeted && says("LOCAL", "230 ") && says("GLOBAL server", "200 ")).then(|| Exec::new(client))
        })
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
            let mut exec = self.connect();
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
    let kills = std::env::var("VMSERVERD_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
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
        }
        over.store(true, Ordering::Relaxed);
    });
    let mut registered: Vec<String> = Vec::new();
    for worker in &mut workers {
        let mut exec = worker.connect();
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
    println!("{kills} kills, {} acknowledged changes", changes.load(Ordering::Relaxed));
}
