//! F5: the core is killed while many machines are in mixed states. The next one finds them all, no guest has
//! stopped, and they are seen by whom they concern.
//!
//! `VMSERVERD_MACHINES` sets how many there are (16 where it is not set, 64 at full length).

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::figures::{self, most_ms};
use tests::guest::{FLOPPY, counter, heartbeat, need_kvm};
use tests::{Account, Exec, Guest, Instance, Setup, eventually, need_root, process};

/// Longest pause of a guest, in milliseconds.
const PAUSE: f64 = 50.0;

/// What the machines are when the test begins: number by number, again and again.
const STATES: [&str; 8] = ["on", "paused", "suspended", "off", "stuck", "on", "suspended", "on"];

/// Machines of a user, in directories of one place; their processes end with the value.
struct Fleet {
    guests: Vec<Guest>,
    /// What each of them should be.
    states: Vec<&'static str>,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // Machines survive their server; those of a test that failed shall not.
        if std::thread::panicking() {
            for guest in &self.guests {
                for process in processes(guest) {
                    process::kill(process);
                }
            }
        }
    }
}

/// The processes that hold a file of the machine open.
fn processes(guest: &Guest) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let ours = |process: &u32| {
        let files = std::fs::read_dir(format!("/proc/{process}/fd")).into_iter().flatten().flatten();
        files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|to| to == guest.config)
    };
    numbers.filter(ours).collect()
}

fn session(instance: &Instance, account: &Account) -> Exec {
    instance.tcp().login(account).server()
}

/// A session with a core that is just being started.
fn new_session(instance: &Instance, account: &Account) -> Exec {
    eventually("a new server", || {
        let mut client = instance.tcp().login(account);
        (client.ask("GLOBAL server") == "200 Connected to vmware-serverd.").then(|| Exec::new(client))
    })
}

/// What a machine says of itself, with `paused` as a state, and its process.
fn shown(guest: &Guest, exec: &mut Exec) -> (String, u32) {
    let info = guest.must(exec, "VM_INFO", "");
    let state =
        if info.all("paused") == ["1"] { "paused".to_owned() } else { info.all("powerState")[0].clone() };
    (state, info.all("pid")[0].parse().unwrap())
}

/// Counters count: each digit follows on the one before, and nothing is missing.
fn counts(text: &str) {
    let digits: Vec<u32> = text.chars().filter_map(|character| character.to_digit(10)).collect();
    assert_eq!(digits.len(), text.len(), "{text:?}");
    assert!(digits.windows(2).all(|pair| pair[1] == (pair[0] + 1) % 10), "{text:?}");
}

/// Waits until the guest has counted on.
fn counts_on(guest: &mut Guest, exec: &mut Exec) {
    let (before, end) = (guest.seen, Instant::now() + Duration::from_secs(120));
    while guest.seen < before + 3 {
        guest.seen = guest.output(exec, guest.seen, 5).1;
        assert!(Instant::now() < end, "{} stands still", guest.config.display());
    }
}

impl Fleet {
    /// Makes and registers the machines, and brings each into its state. One boots, which takes seconds where
    /// `/dev/kvm` emulates; the others go on from a copy of its suspended state.
    fn new(instance: &Instance, account: &Account, count: usize) -> Self {
        let base = instance.public_directory("vms");
        let states: Vec<&str> = STATES.into_iter().cycle().take(count).collect();
        let lines = FLOPPY.replace("boot.img", &base.join("vm0/boot.img").display().to_string());
        let mut first = Guest::new(&base, "vm0", account, &lines);
        first.put("boot.img", &counter());
        let mut exec = session(instance, account);
        first.must(&mut exec, "VMRegister", "");
        first.must(&mut exec, "VM_Start", "");
        first.expect(&mut exec, "0123");
        first.must(&mut exec, "VM_Suspend", "<mode>hard</mode>");
        let suspended = std::fs::read(first.directory().join("vm0.vmss")).unwrap();
        first.must(&mut exec, "VM_Start", "");
        let make = |(number, state): (usize, &&str)| {
            let name = format!("vm{number}");
            match *state {
                "off" => Guest::new(&base, &name, account, &lines),
                // A machine whose floppy image is missing asks what to do.
                "stuck" => Guest::new(&base, &name, account, FLOPPY),
                _ => {
                    let lines = format!("{lines}checkpoint.vmState = \"{name}.vmss\"\n");
                    let guest = Guest::new(&base, &name, account, &lines);
                    guest.put(&format!("{name}.vmss"), &suspended);
                    guest
                }
            }
        };
        let mut guests = vec![first];
        guests.extend(states.iter().enumerate().skip(1).map(make));
        for (guest, state) in guests.iter_mut().zip(&states).skip(1) {
            bring(guest, state, &mut exec);
        }
        Fleet { guests, states }
    }

    /// Every machine is what it should be; returns the processes.
    fn check(&self, exec: &mut Exec) -> Vec<u32> {
        let (mut pids, mut up) = (Vec::new(), Vec::new());
        for (guest, expected) in self.guests.iter().zip(&self.states) {
            let (state, pid) = shown(guest, exec);
            assert_eq!(state, *expected, "{}", guest.config.display());
            assert_eq!(pid != 0, ["on", "paused", "stuck"].contains(expected));
            up.extend((pid != 0).then(|| guest.config.display().to_string()));
            pids.push(pid);
        }
        up.sort();
        let mut listed = exec.op("VMServerd_GetConnectedVMList", "").all("vm");
        listed.retain(|config| !config.ends_with("heart.vmx"));
        assert_eq!(listed, up);
        pids
    }

    fn with(&mut self, state: &str) -> impl Iterator<Item = &mut Guest> {
        let all = self.guests.iter_mut().zip(&self.states);
        all.filter_map(move |(guest, one)| (*one == state).then_some(guest))
    }
}

/// Registers a machine and brings it into a state.
fn bring(guest: &mut Guest, state: &str, exec: &mut Exec) {
    guest.must(exec, "VMRegister", "");
    match state {
        "off" => return,
        "stuck" => {
            assert_eq!(guest.op(exec, "VM_Start", "").code(), -16);
            return;
        }
        _ => guest.must(exec, "VM_Start", ""),
    };
    guest.expect(exec, "0123");
    counts_on(guest, exec);
    match state {
        "paused" => guest.must(exec, "VM_Pause", ""),
        "suspended" => guest.must(exec, "VM_Suspend", "<mode>hard</mode>"),
        _ => return,
    };
}

/// A guest that looks at the clock without a break, and tells how long it could not.
struct Heart {
    guest: Guest,
    /// Its time stamps in a second.
    rate: f64,
}

impl Heart {
    fn new(instance: &Instance, account: &Account, exec: &mut Exec) -> Self {
        let mut guest = Guest::new(&instance.base.path().join("vms"), "heart", account, FLOPPY);
        guest.put("boot.img", &heartbeat());
        guest.must(exec, "VMRegister", "");
        guest.must(exec, "VM_Start", "");
        guest.expect(exec, ">");
        // What is looked for is a pause that the server causes, and not that 64 machines share few processors.
        let tasks = std::fs::read_dir(format!("/proc/{}/task", guest.state(exec).1)).expect("it runs");
        for task in tasks.flatten() {
            let _ = Command::new("renice").args(["-n", "-20", "-p"]).arg(task.file_name()).output();
        }
        let mut heart = Heart { guest, rate: 1.0 };
        let (first, start) = (heart.ask(exec, "t"), Instant::now());
        std::thread::sleep(Duration::from_secs(1));
        let (last, elapsed) = (heart.ask(exec, "t"), start.elapsed());
        heart.rate = f64::from(last.wrapping_sub(first)) / elapsed.as_secs_f64();
        heart
    }

    fn ask(&mut self, exec: &mut Exec, what: &str) -> u32 {
        self.guest.send(exec, what);
        let said = self.guest.expect(exec, "\n");
        let digits = said.trim_end().trim_start_matches('>').bytes();
        digits.fold(0, |value, digit| value << 4 | u32::from(digit - b'0'))
    }

    /// The longest pause since this was asked last.
    fn pause(&mut self, exec: &mut Exec) -> Duration {
        Duration::from_secs_f64(f64::from(self.ask(exec, "m")) / self.rate)
    }
}

#[test]
fn many_machines_are_found_again() {
    const WHAT: &str = "many machines at once";
    if !need_root(WHAT) || !need_kvm(WHAT) {
        return;
    }
    let (account, other) = (Account::new(), Account::new());
    let instance = Setup::new().plain().hasty().start();
    let start = Instant::now();
    let count = figures::length("VMSERVERD_MACHINES", 64, 16).max(9);
    let mut fleet = Fleet::new(&instance, &account, count);
    println!("{} machines are what they should be after {:?}", fleet.guests.len(), start.elapsed());
    let mut exec = session(&instance, &account);
    let mut heart = Heart::new(&instance, &account, &mut exec);
    let mut pids = fleet.check(&mut exec);
    let _ = heart.pause(&mut exec);
    std::thread::sleep(Duration::from_secs(1));
    let quiet = heart.pause(&mut exec);

    // The server is killed with all running, and one machine is slow to answer the next one.
    let (slow, dead) = (7, 8);
    for number in [slow, dead] {
        assert_ne!(pids[number], 0);
        process::signal(pids[number], Signal::STOP);
    }
    let killed = Instant::now();
    process::kill(instance.core());
    let mut exec = new_session(&instance, &account);
    let answered = killed.elapsed();
    assert_eq!(shown(&fleet.guests[slow], &mut exec), ("unknown".to_owned(), pids[slow]));
    let (code, text) = fleet.guests[slow].op(&mut exec, "VM_Start", "").error().unwrap();
    assert_eq!(code, -8, "{text}");
    assert_eq!(fleet.guests[slow].op(&mut exec, "VM_SerialRead", "").code(), -21);
    // One that will never answer can be stopped all the same.
    assert_eq!(shown(&fleet.guests[dead], &mut exec), ("unknown".to_owned(), pids[dead]));
    fleet.guests[dead].must(&mut exec, "VM_Stop", "<mode>hard</mode>");
    assert_eq!(shown(&fleet.guests[dead], &mut exec), ("off".to_owned(), 0));
    assert!(!process::runs(pids[dead]));
    // Nobody waits for the thread that writes event logs.
    eventually("the event of that", || {
        let last = fleet.guests[dead].events(&mut exec).pop()?;
        last.contains("did not answer").then_some(())
    });
    (fleet.states[dead], pids[dead]) = ("off", 0);
    process::signal(pids[slow], Signal::CONT);
    eventually("it is found", || (shown(&fleet.guests[slow], &mut exec).0 == "on").then_some(()));
    assert_eq!(fleet.check(&mut exec), pids, "the same processes");
    let pause = heart.pause(&mut exec);
    figures::fact("F5", "machines found again", fleet.guests.len() as f64, "");
    figures::fact(
        "F5",
        "until the next server answers, with a machine that does not",
        figures::ms(answered),
        "ms",
    );
    most_ms("F5", "longest pause of a guest across the restart", pause, PAUSE);
    figures::fact("F5", "the same in a second without a restart", figures::ms(quiet), "ms");
    // Whatever the host is busy with: a guest that waited for the server would have stood for all that time.
    assert!(pause < answered.max(Duration::from_secs(1)), "{pause:?} of {answered:?}");
    heart.guest.must(&mut exec, "VM_Stop", "<mode>hard</mode>");
    // No guest has stopped, and what it said meanwhile is there.
    for guest in fleet.with("on") {
        counts_on(guest, &mut exec);
        counts(&guest.output(&mut exec, 0, 0).0);
    }
    for guest in fleet.with("stuck") {
        assert!(guest.must(&mut exec, "VM_GetQuestion", "").all("text")[0].contains("boot.img"));
    }

    // Two starts at the same time: one wins.
    two_starts(&instance, &account, &mut fleet, 3);
    rights(&instance, &account, &other, &fleet, 5);

    // What was suspended goes on where it was.
    let guest = &mut fleet.guests[2];
    guest.must(&mut exec, "VM_Start", "");
    fleet.states[2] = "on";
    let guest = &mut fleet.guests[2];
    counts_on(guest, &mut exec);
    counts(&guest.output(&mut exec, 0, 0).0);
    fleet.check(&mut exec);
    for (guest, state) in fleet.guests.iter().zip(&mut fleet.states) {
        if ["on", "paused", "stuck"].contains(state) {
            guest.must(&mut exec, "VM_Stop", "<mode>hard</mode>");
            *state = "off";
        }
    }
    fleet.check(&mut exec);
    for guest in &fleet.guests {
        eventually("no process is left", || processes(guest).is_empty().then_some(()));
    }
}

fn two_starts(instance: &Instance, account: &Account, fleet: &mut Fleet, number: usize) {
    let guest = &fleet.guests[number];
    assert_eq!(fleet.states[number], "off");
    let mut sessions = [session(instance, account), session(instance, account)];
    let start = tests::exec::request("VM_Start", &format!("<config>{}</config>", guest.config.display()));
    for exec in &mut sessions {
        exec.send(&start);
    }
    let replies = sessions.each_mut().map(|exec| exec.reply().error());
    let [(-8, text)] = replies.iter().flatten().collect::<Vec<_>>()[..] else {
        panic!("one shall win, and the other one hear that it is on: {replies:?}");
    };
    let historic = "could not be completed because it conflicted with the state of the virtual machine (\"on\") at the \
        time the request was received.  This error often occurs because";
    assert!(text.contains("(\"start\")") && text.contains(historic), "{text}");
    assert_eq!(shown(guest, &mut sessions[0]).0, "on");
    fleet.states[number] = "on";
}

/// Who sees and stops a machine that runs.
fn rights(instance: &Instance, account: &Account, other: &Account, fleet: &Fleet, number: usize) {
    let guest = &fleet.guests[number];
    let path = guest.config.display().to_string();
    let (mut owner, mut second, mut root) =
        (session(instance, account), session(instance, other), instance.exec());
    let stop = "<mode>hard</mode>";
    let listed = |exec: &mut Exec| {
        let connected = exec.op("VMServerd_GetConnectedVMList", "").all("vm").contains(&path);
        let listed = exec.op("VM_List", "").all("config").contains(&path);
        (connected, listed)
    };
    guest.mode(0o700);
    for op in [
        "VM_INFO",
        "VM_GetState",
        "VM_Stop",
        "VM_SerialRead",
        "VM_SaveScreenshot",
        "VM_GetLastNEvents",
        "VM_Who",
    ] {
        assert_eq!(guest.op(&mut second, op, "").code(), -11, "{op}");
    }
    assert_eq!(listed(&mut second), (false, false));
    guest.must(&mut owner, "VM_Pause", "");
    guest.mode(0o744);
    let (state, pid) = shown(guest, &mut second);
    assert_eq!((state.as_str(), listed(&mut second)), ("paused", (true, true)));
    assert!(pid != 0 && process::runs(pid));
    for op in
        ["VM_Stop", "VM_Reset", "VM_Suspend", "VM_Pause", "VM_Resume", "VM_SerialRead", "VM_SaveScreenshot"]
    {
        assert_eq!(guest.op(&mut second, op, "").code(), -4, "{op}");
    }
    guest.mode(0o755);
    guest.must(&mut second, "VM_Resume", "");
    guest.must(&mut second, "VM_Stop", stop);
    assert_eq!(shown(guest, &mut owner), ("off".to_owned(), 0));
    guest.mode(0o700);
    guest.must(&mut root, "VM_Start", "");
    let (state, pid) = shown(guest, &mut root);
    assert_eq!((state.as_str(), process::uids(pid)), ("on", vec![account.uid; 4]), "as its owner");
    guest.must(&mut root, "VM_Stop", stop);
    guest.mode(0o755);
    guest.must(&mut owner, "VM_Start", "");
}
