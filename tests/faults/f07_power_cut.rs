//! F7: the power fails. The instance lives on an ext4 of its own in a file; the core is stopped at each fsync,
//! fdatasync and rename, and the file is copied: what a disk would hold at that moment. Each copy is mounted as
//! after a crash, journal replay included.
//!
//! What was acknowledged is in the lists, what was not asked for is not, no line is torn, a task that has a number
//! is in the journal, and a server starts on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use link::vm_list::VmList;
use rustix::process::Signal;
use tests::figures::{self, length};
use tests::skip::need_program;
use tests::tasks::{begin, dense, wait};
use tests::trace::{Injected, need_strace};
use tests::{Base, Exec, Instance, Mounted, Setup, eventually, process};

/// Calls that make something durable, or make it visible.
const BOUNDARIES: &str = "fsync,fdatasync,rename,renameat,renameat2";

/// What was asked of the server, and what it has said to that.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Whether a machine is registered; `None` while nobody has answered.
    machines: BTreeMap<String, Option<bool>>,
    /// Tasks that were given a number.
    tasks: Vec<String>,
}

/// What the disk held at one moment.
struct Cut {
    image: PathBuf,
    known: Known,
}

/// An ext4 in a file, mounted.
fn disk(image: &Path, place: &Path) -> Option<Mounted> {
    std::fs::create_dir_all(place).unwrap();
    if !image.exists() {
        std::fs::File::create(image).unwrap().set_len(32 << 20).unwrap();
        let mut command = Command::new("mkfs.ext4");
        command.args(["-q", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(image);
        let _ = tests::account::output(&mut command);
    }
    Mounted::new(place, "power cuts on a disk of its own", &["-o", "loop", image.to_str()?])
}

/// Registers and unregisters, and begins a task now and then.
fn work(instance: &Instance, known: &Mutex<Known>, over: &AtomicBool) {
    let mut exec = instance.exec();
    let place = instance.public_directory("files");
    dense(&place.join("big"), 11);
    let configs: Vec<String> = known.lock().unwrap().machines.keys().cloned().collect();
    let mut registered = vec![false; configs.len()];
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        let at = number * 7 % configs.len();
        let set = |to| known.lock().unwrap().machines.insert(configs[at].clone(), to);
        set(None);
        let op = if registered[at] { "VMUnRegister" } else { "VMRegister" };
        let reply = exec.op(op, &format!("<config>{}</config>", configs[at]));
        assert!(reply.ok(), "{op}: {}", reply.text);
        registered[at] = !registered[at];
        set(Some(registered[at]));
        if number % 6 == 3 {
            let copy = place.join("copy");
            let task = begin(&mut exec, &place.join("big"), &copy);
            known.lock().unwrap().tasks.push(task.clone());
            let _ = wait(&mut exec, &task);
            std::fs::remove_file(copy).unwrap();
        }
    }
}

/// Looks at what a disk held.
fn check(cut: &Cut, root: &Path) {
    let lists = ["vm-list", "vm-list-private"].map(|name| {
        let bytes = std::fs::read(root.join("etc/vmware").join(name)).unwrap_or_default();
        assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "a torn line in {name}");
        bytes
    });
    let text = String::from_utf8(lists.concat()).expect("text");
    let listed: Vec<String> = lists
        .iter()
        .flat_map(|bytes| VmList::parse(bytes).configs().map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let lines = text.lines().filter(|line| line.starts_with("config \"") && line.ends_with('"')).count();
    assert_eq!(
        (lines, text.lines().filter(|line| !line.starts_with('#')).count()),
        (listed.len(), lines),
        "{text}"
    );
    for (config, is) in &cut.known.machines {
        let count = listed.iter().filter(|one| *one == config).count();
        match is {
            Some(is) => assert_eq!(count, usize::from(*is), "{config}, acknowledged: {is}\n{text}"),
            None => assert!(count <= 1, "{config} twice"),
        }
    }
    assert!(listed.iter().all(|config| cut.known.machines.contains_key(config)), "{text}");
    let journal = std::fs::read_to_string(journal(root)).unwrap_or_default();
    for task in &cut.known.tasks {
        assert!(
            journal.lines().any(|line| line.contains(&format!("\"id\":{task},"))),
            "task {task}:\n{journal}"
        );
    }
    for line in journal.lines() {
        assert!(
            serde_json::from_str::<serde_json::Value>(line).is_ok(),
            "a torn line in the journal: {line}"
        );
    }
}

/// Where the core keeps its journal of tasks.
fn journal(root: &Path) -> PathBuf {
    link::Layout::new(Some(root)).unwrap().path("/var/lib/vmserverd/tasks")
}

/// A server starts on what a disk held, knows the same machines, and goes on.
fn starts(cut: &Cut, base: &Base) {
    let instance = Setup::new().try_start(base).unwrap_or_else(|failed| panic!("{}", failed.said));
    let mut exec: Exec = instance.serves();
    let listed = exec.op("VM_List", "").all("config");
    for (config, is) in &cut.known.machines {
        let there = listed.contains(config);
        assert!(is.is_none_or(|is| is == there), "{config}: {is:?}, {listed:?}");
        let events = exec.op("VM_GetLastNEvents", &format!("<config>{config}</config><n>10</n>"));
        assert_eq!(events.ok(), there, "{}", events.text);
        let op = if there { "VMUnRegister" } else { "VMRegister" };
        assert!(exec.op(op, &format!("<config>{config}</config>")).ok());
    }
}

#[test]
fn whenever_the_power_fails_the_lists_are_whole() {
    const WHAT: &str = "power cuts at every flush";
    if !need_strace(WHAT) || !need_program(WHAT, "mkfs.ext4") {
        return;
    }
    let wanted = length("VMSERVERD_POWER_CUTS", 400, 24);
    let base = Base::new();
    let image = base.path().join("disk.img");
    let Some(_disk) = disk(&image, &base.root()) else { return };
    let instance = Setup::new().try_start(&base).unwrap_or_else(|failed| panic!("{}", failed.said));
    let machines = instance.public_directory("vms");
    let mut known = Known::default();
    for number in 0..9 {
        let config = machines.join(format!("vm{number}.vmx"));
        std::fs::write(&config, "config.version = \"8\"\n").unwrap();
        std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        known.machines.insert(config.display().to_string(), Some(false));
    }
    let (known, over) = (Mutex::new(known), AtomicBool::new(false));
    let core = instance.core();
    let injected = Injected::new(core, &format!("{BOUNDARIES}:signal=SIGSTOP"));
    let (mut worst_size, mut looked) = (0, BTreeMap::<String, usize>::new());
    let (mut whole, mut started) = (0, 0);
    std::thread::scope(|scope| {
        let working = scope.spawn(|| work(&instance, &known, &over));
        for number in 0..wanted {
            eventually("the core comes to the next flush", || {
                assert!(!working.is_finished(), "the callers have ended");
                (injected.count() > number && injected.stopped()).then_some(())
            });
            // First what is known: the core says nothing more while it stands.
            let known = known.lock().unwrap().clone();
            let cut = Cut { image: base.path().join("cut.img"), known };
            let mut command = Command::new("cp");
            let _ = tests::account::output(command.arg("--sparse=always").arg(&image).arg(&cut.image));
            let after = Base::new();
            {
                let disk = disk(&cut.image, &after.root()).expect("mounted before");
                worst_size =
                    worst_size.max(std::fs::metadata(journal(disk.path())).map_or(0, |facts| facts.len()));
                check(&cut, disk.path());
                whole += 1;
                if number % (wanted / 3) == wanted / 3 - 1 {
                    starts(&cut, &after);
                    started += 1;
                }
            }
            std::fs::remove_file(&cut.image).unwrap();
            injected.go_on();
        }
        over.store(true, Ordering::Relaxed);
        for call in injected.calls() {
            *looked.entry(call).or_default() += 1;
        }
        drop(injected);
        process::signal(core, Signal::CONT);
        working.join().unwrap();
    });
    assert!(worst_size > 0, "no task was in the journal");
    assert!(
        looked.contains_key("rename") || looked.contains_key("renameat") || looked.contains_key("renameat2")
    );
    figures::fact("F7", "moments at which the power failed", wanted as f64, "");
    figures::fact(
        "F7",
        "of them without a torn line, a lost or an invented machine or task",
        f64::from(whole),
        "",
    );
    figures::fact("F7", "of them on which a server was started", f64::from(started), "");
    println!("{looked:?}");
}
