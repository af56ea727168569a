//! F11: hours of mixed load leave nothing behind: the same processes, as many descriptors as before, and no more
//! memory.
//!
//! A few seconds with `cargo test`; `cargo xtask faults F11 --minutes 60` for as long as wanted
//! (`VMSERVERD_SOAK_SECONDS`), at a tenth of the load.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::figures::{self, full, length, most};
use tests::guest::kvm;
use tests::tasks::{element, field, wait};
use tests::{Account, Exec, Guest, Instance, Setup, eventually, need_root, process};

/// How much a process may grow, in KiB.
const GROWTH: f64 = 1024.0;
/// What a short run on any machine must hold: allocators settle for longer than it lasts.
const SHORT_GROWTH: f64 = 4096.0;

/// Callers of all kinds, who do what callers do, again and again.
struct Load<'a> {
    instance: &'a Instance,
    account: &'a Account,
    place: PathBuf,
    over: AtomicBool,
    calls: AtomicU64,
    /// How long to pause after a piece of work, in lengths of that work.
    pause: f64,
    /// How often a machine is started.
    machine_every: Duration,
}

impl Load<'_> {
    /// Does one piece of work after the other, with pauses, until told to end.
    fn repeat(&self, mut work: impl FnMut(usize)) {
        for number in 0.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let start = Instant::now();
            work(number);
            self.calls.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(start.elapsed().mul_f64(self.pause).min(Duration::from_secs(5)));
        }
    }

    /// Sessions of both users on every way in, right and wrong passwords, requests that are none.
    fn sessions(&self) {
        self.repeat(|number| match number % 6 {
            0 => {
                let mut exec = self.instance.exec();
                assert!((0..20).all(|number| exec.inc(number) == number + 1));
            }
            1 => assert_eq!(self.instance.tcp().login(self.account).server().user(), self.account.name),
            2 => assert_eq!(self.instance.secure().login(self.account).server().inc(2), 3),
            3 => {
                assert_eq!(
                    self.instance.tcp().try_login(&self.account.name, "wrong"),
                    "530 Login incorrect."
                );
            }
            4 => {
                let mut exec = self.instance.exec();
                assert_ne!(exec.op("NoSuchOperation", "").code(), 0);
                assert_ne!(exec.op("VM_INFO", "<config>/no/such.vmx</config>").code(), 0);
                assert!(exec.op("GSXHostInfo_Query", "").ok());
            }
            // One that leaves in the middle of everything.
            _ => {
                let mut exec = self.instance.tcp().local().server();
                exec.send("<exec><op>inc</op><in><num");
            }
        });
    }

    /// Files and directories, and a copy that is a task.
    fn files(&self) {
        let mut exec = self.instance.tcp().login(self.account).server();
        let place = self.place.join("files");
        let made = exec.op("FileManager_MakeDir", &tests::exec::make_dir(&place));
        assert!(made.ok(), "{}", made.text);
        let big = self.place.join("big");
        tests::tasks::dense(&big, 12);
        self.repeat(|number| {
            let (file, copy) = (place.join("file"), place.join("copy"));
            let must = |exec: &mut Exec, op: &str, arguments: &str| {
                let reply = exec.op(op, arguments);
                assert!(reply.ok(), "{op}: {}", reply.text);
                reply
            };
            if number % 10 == 0 {
                let to = element("destination", &copy);
                let task =
                    must(&mut exec, "FileManager_FileCopy", &(element("file", &big) + &to)).out("taskId");
                assert_eq!(field(&wait(&mut exec, &task), "state"), "done");
            } else {
                must(&mut exec, "File_Create", &(element("file", &file) + "<contents>text</contents>"));
                must(&mut exec, "File_Read", &element("file", &file));
                must(&mut exec, "File_Copy", &(element("source", &file) + &element("destination", &copy)));
                must(&mut exec, "Directory_GetSpaceUsage", &element("directory", &place));
                must(&mut exec, "File_Delete", &element("file", &file));
            }
            must(&mut exec, "File_Delete", &element("file", &copy));
        });
    }

    /// Machines that are registered and unregistered, and now and then one that runs.
    fn machines(&self) {
        let mut exec = self.instance.exec();
        let base = self.place.join("vms");
        let guest = |name: &str| Guest::new(&base, name, self.account, tests::guest::FLOPPY);
        let guests: Vec<Guest> = (0..8).map(|number| guest(&format!("vm{number}"))).collect();
        let mut runs = Guest::new(&base, "runs", self.account, tests::guest::FLOPPY);
        runs.put("boot.img", &tests::guest::floppy());
        runs.must(&mut exec, "VMRegister", "");
        let mut last: Option<Instant> = None;
        self.repeat(|number| {
            let guest = &guests[number % guests.len()];
            guest.must(&mut exec, "VMRegister", "");
            assert!(exec.op("VM_List", "").ok());
            guest.must(&mut exec, "VM_INFO", "");
            guest.must(&mut exec, "VMUnRegister", "");
            if kvm().is_ok() && last.is_none_or(|last| last.elapsed() > self.machine_every) {
                last = Some(Instant::now());
                runs.must(&mut exec, "VM_Start", "");
                runs.seen = 0;
                runs.expect(&mut exec, "HELLO");
                runs.must(&mut exec, "VM_Stop", "<mode>hard</mode>");
            }
        });
    }

    /// Fills what the core keeps on purpose and up to a number: the last 10 000 events, a user's last 1 000 tasks.
    fn fill(&self) {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut exec = self.instance.exec();
                let guest = Guest::new(&self.place.join("vms"), "fill", self.account, tests::guest::FLOPPY);
                for _ in 0..5_100 {
                    guest.must(&mut exec, "VMRegister", "");
                    guest.must(&mut exec, "VMUnRegister", "");
                }
            });
            let mut exec = self.instance.tcp().login(self.account).server();
            let (big, copy) = (self.place.join("fill"), self.place.join("copy"));
            tests::tasks::dense(&big, 11);
            for _ in 0..1_050 {
                let task = tests::tasks::begin(&mut exec, &big, &copy);
                let _ = wait(&mut exec, &task);
                assert!(exec.op("File_Delete", &element("file", &copy)).ok());
            }
        });
    }

    /// Runs all of it for a time, telling what the processes hold every minute.
    fn run(&self, time: Duration, watched: &[(&str, u32)]) {
        self.over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            let workers = [
                scope.spawn(|| self.sessions()),
                scope.spawn(|| self.files()),
                scope.spawn(|| self.machines()),
            ];
            let start = Instant::now();
            let mut minute = 0;
            while start.elapsed() < time && workers.iter().all(|worker| !worker.is_finished()) {
                std::thread::sleep(Duration::from_millis(200).min(time.saturating_sub(start.elapsed())));
                if start.elapsed().as_secs() / 60 > minute {
                    minute += 1;
                    let held = |(name, process): &(&str, u32)| {
                        let descriptors = process::descriptors(*process).len();
                        format!("{name} {} KiB {descriptors} fds", process::resident(*process) / 1024)
                    };
                    let held: Vec<String> = watched.iter().map(held).collect();
                    println!(
                        "minute {minute}: {} calls; {}",
                        self.calls.load(Ordering::Relaxed),
                        held.join(", ")
                    );
                }
            }
            self.over.store(true, Ordering::Relaxed);
        });
        // What is not part of the instance goes, so that the next run begins as this one did.
        let _ = std::fs::remove_dir_all(self.place.join("files"));
        let mut exec = self.instance.exec();
        for config in exec.op("VM_List", "").all("config") {
            assert!(exec.op("VMUnRegister", &format!("<config>{config}</config>")).ok());
        }
    }
}

#[test]
fn a_soak_leaves_nothing_behind() {
    if !need_root("a soak with users, machines and descriptors looked at") {
        return;
    }
    let time = Duration::from_secs(length("VMSERVERD_SOAK_SECONDS", 3600, 12) as u64);
    let account = Account::new();
    let instance = Setup::new().tls().plain().hasty().start();
    let load = Load {
        instance: &instance,
        account: &account,
        place: instance.public_directory("soak"),
        over: AtomicBool::new(false),
        calls: AtomicU64::new(0),
        pause: if full() { 4.0 } else { 0.2 },
        machine_every: Duration::from_secs(if full() { 30 } else { 8 }),
    };
    // Somebody of each user stays, and so does his process.
    let mut stays = [instance.exec(), instance.tcp().login(&account).server()];
    let watched = [
        ("network half", instance.net()),
        ("root half", instance.monitor()),
        ("core", instance.core()),
        ("root's sessions", instance.session_of(0)),
        ("a user's sessions", instance.session_of(account.uid)),
    ];
    // Caches fill, threads and buffers come to be.
    if full() {
        load.fill();
        println!("what the core keeps is full");
    }
    load.run(time.div_f64(4.0).min(Duration::from_secs(300)), &watched);
    // Helpers that ask PAM come and go, each with a socket and a handle: at most four of either kind wait.
    let helpers = || {
        let all = process::children(instance.monitor()).into_iter();
        all.filter(|child| process::words(*child).iter().any(|word| word == "pam-helper")).count()
    };
    let processes = || process::descendants(instance.pid()).len() - helpers();
    let descriptors = || {
        let mut all = watched.map(|(_, process)| process::descriptors(process).len());
        all[1] -= 2 * helpers();
        all
    };
    let settled = || {
        let mut last = (descriptors(), processes());
        let mut since = Instant::now();
        eventually("nothing changes any more", || {
            let now = (descriptors(), processes());
            if now != last {
                (last, since) = (now, Instant::now());
            }
            (since.elapsed() > Duration::from_millis(500)).then_some(now)
        })
    };
    let (before, processes_before) = settled();
    let memory = watched.map(|(_, process)| process::resident(process));
    let spent = || watched.map(|(_, process)| process::processor_time(process)).iter().sum::<Duration>();
    let (spent_before, start, calls) = (spent(), Instant::now(), load.calls.load(Ordering::Relaxed));
    load.run(time, &watched);
    let (spent, elapsed) = (spent() - spent_before, start.elapsed());
    for exec in &mut stays {
        assert_eq!(exec.inc(1), 2);
    }
    let end = Instant::now() + Duration::from_secs(20);
    let after = loop {
        let now = (descriptors(), processes());
        if now == (before, processes_before) {
            break now.0;
        }
        let names = watched.map(|(name, process)| (name, process::descriptors(process)));
        let (now, living) = now;
        let all = process::descendants(instance.pid()).into_iter().map(process::words).collect::<Vec<_>>();
        assert!(
            Instant::now() < end,
            "descriptors were {before:?} in {processes_before} processes and are {now:?} in {living}: {names:#?} {all:#?}"
        );
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(helpers() <= 8, "{} helpers", helpers());
    figures::fact("F11", "minutes", elapsed.as_secs_f64() / 60.0, "");
    figures::fact("F11", "pieces of work", (load.calls.load(Ordering::Relaxed) - calls) as f64, "");
    figures::fact(
        "F11",
        "of a processor, used by the daemons",
        100.0 * spent.as_secs_f64() / elapsed.as_secs_f64(),
        "%",
    );
    let more = after.iter().sum::<usize>() as f64 - before.iter().sum::<usize>() as f64;
    most("F11", "descriptors more than before, all processes", more, "", 0.0);
    for ((name, process), before) in watched.into_iter().zip(memory) {
        let grown = (process::resident(process) as f64 - before as f64) / 1024.0;
        most("F11", &format!("growth of the {name}"), grown, "KiB", GROWTH);
        assert!(grown < SHORT_GROWTH || full(), "the {name} grew by {grown} KiB");
    }
}
