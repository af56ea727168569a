//! F8: the clock is set back by a day and ahead by ten years while everything runs. Nothing times out because of
//! it, delays and deadlines keep their length, tasks have sane times, guests go on, certificates still serve.
//!
//! This machine's clock is never touched: copies of the programs are linked with a library that adds an offset,
//! read from a file that all of them map, to what the C library says of the time of day. Every program of ours
//! asks the C library; the test makes sure that each has believed the jump.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::account::output;
use tests::client::Client;
use tests::figures;
use tests::guest::{FLOPPY, counter, kvm};
use tests::instance::copy_programs;
use tests::skip::need_program;
use tests::tasks::{begin, dense, field, number, status, wait};
use tests::{Account, Base, Guest, Instance, Setup, need_root, process};

const DAY: i64 = 86_400;

/// Ten years, and as many days more as put it into another month.
const TEN_YEARS: i64 = 3693 * DAY;

/// The library. It takes the time from the kernel, not from the library that it stands before.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset;

/* Before main, and so before any sandbox closes. */
__attribute__((constructor)) static void look(void) {
    int file = open(OFFSET, O_RDONLY | O_CLOEXEC);
    if (file < 0) return;
    void *page = mmap(NULL, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
    close(file);
    if (page != MAP_FAILED) offset = page;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = (int)syscall(SYS_clock_gettime, clock, time);
    if (result == 0 && offset && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        time->tv_sec += *offset;
    return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
    struct timespec now;
    (void)zone;
    int result = clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return result;
}

time_t time(time_t *to) {
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"#;

/// A clock for copies of the programs.
struct Clock {
    base: Base,
    offset: std::fs::File,
}

impl Clock {
    fn new() -> Self {
        let base = Base::new();
        let path = base.path().join("offset");
        let offset = std::fs::File::options().create_new(true).write(true).open(&path).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let clock = Clock { base, offset };
        clock.set(0);
        let (source, library) = (clock.base.path().join("clock.c"), clock.base.path().join("libclock.so"));
        std::fs::write(&source, SOURCE).unwrap();
        let mut compiler = Command::new("gcc");
        compiler.args(["-shared", "-fPIC", "-O1", "-w", &format!("-DOFFSET=\"{}\"", path.display()), "-o"]);
        let _ = output(compiler.arg(&library).arg(&source));
        copy_programs(clock.base.path());
        for name in ["vmware-authd", "vmserverd", "vmx"] {
            let mut patch = Command::new("patchelf");
            let _ = output(patch.arg("--add-needed").arg(&library).arg(clock.base.path().join(name)));
        }
        clock
    }

    fn set(&self, seconds: i64) {
        self.offset.write_all_at(&seconds.to_ne_bytes(), 0).unwrap();
    }
}

/// The day that the last line of a log begins with: `Nov 22`.
fn day(log: &str) -> String {
    log.lines().last().and_then(|line| line.get(..6)).expect("a date").to_owned()
}

/// The same for a moment.
fn day_of(seconds: i64) -> String {
    output(Command::new("date").args(["-d", &format!("@{seconds}"), "+%b %d"])).trim().to_owned()
}

fn unix_now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs().cast_signed()
}

/// A copy that is under way while the clock is set.
fn task_across(instance: &Instance, place: &Path, jump: &dyn Fn()) {
    let mut exec = instance.exec();
    let start = Instant::now();
    let task = begin(&mut exec, &place.join("big"), &place.join("copy"));
    let began = time(&field(&status(&mut exec, &task), "startTime"));
    jump();
    let end = wait(&mut exec, &task);
    let seconds = start.elapsed().as_secs().cast_signed() + 1;
    assert_eq!(field(&end, "state"), "done", "{}", end.text);
    let (from, to) = (time(&field(&end, "startTime")), time(&field(&end, "endTime")));
    assert_eq!(from, began, "{}", end.text);
    assert!((0..=seconds).contains(&(to - from)), "{seconds} s: {}", end.text);
    let rate = number(&end, "rate");
    assert!(rate >= number(&end, "bytesTotal") / seconds.cast_unsigned(), "{}", end.text);
    std::fs::remove_file(place.join("copy")).unwrap();
}

#[test]
fn a_clock_that_is_set_disturbs_nobody() {
    const WHAT: &str = "a clock that jumps";
    if !need_root(WHAT) || !need_program(WHAT, "patchelf") || !need_program(WHAT, "gcc") {
        return;
    }
    let clock = Clock::new();
    let setup = Setup::new().tls().plain().programs(clock.base.path()).set("authd.login.delayMax", 3);
    let instance = setup.set("authd.login.deadline", 4).set("authd.session.idle", 300).start();
    let account = Account::new();
    let place = instance.public_directory("files");
    dense(&place.join("big"), 200);
    let mut sessions =
        [instance.exec(), instance.tcp().login(&account).server(), instance.secure().local().server()];
    let all = [instance.net(), instance.monitor(), instance.core(), instance.session_of(0)];
    let mut guest = kvm().is_ok().then(|| {
        let guest = Guest::new(&instance.public_directory("vms"), "vm", &account, FLOPPY);
        guest.put("boot.img", &counter());
        guest.must(&mut sessions[1], "VMRegister", "");
        guest.must(&mut sessions[1], "VM_Start", "");
        guest
    });
    if let Some(guest) = &mut guest {
        guest.expect(&mut sessions[1], "0123");
    }
    let config = place.join("vm.vmx");
    std::fs::write(&config, "config.version = \"8\"\n").unwrap();
    std::fs::set_permissions(&config, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (mut jumps, mut held) = (0, 0);
    for to in [-DAY, TEN_YEARS, 0] {
        let start = Instant::now();
        let lines = instance.authd_log().lines().count() + instance.serverd_log().lines().count();
        // One who has not logged in, one who waits for his delay, one who has logged in and says nothing.
        let waits = instance.tcp();
        let mut guesses = Client::tcp_from([127, 5, 1, jumps + 1].into(), instance.plain).greeted();
        assert!(guesses.ask("USER x").starts_with("331 "));
        let guessed = Instant::now();
        guesses.send("PASS \r\n");
        // Whoever reads a line notes when it came: what else is done here meanwhile takes its own time.
        let [guesses, waits] = [(guesses, guessed), (waits, start)]
            .map(|(mut client, since)| std::thread::spawn(move || (client.line(), since.elapsed())));
        let mut idles = instance.unix().local();
        task_across(&instance, &place, &|| clock.set(to));
        jumps += 1;
        // What is written now has the new time: the programs have believed it.
        assert_eq!(instance.secure().login(&account).server().inc(1), 2, "a new login, {to}");
        for op in ["VMRegister", "VMUnRegister"] {
            assert!(sessions[0].op(op, &format!("<config>{}</config>", config.display())).ok());
        }
        let days = [unix_now() + to - 60, unix_now() + to].map(day_of);
        for log in [instance.authd_log(), instance.serverd_log()] {
            assert!(days.contains(&day(&log)), "{} is not one of {days:?}", day(&log));
        }
        for exec in &mut sessions {
            assert_eq!(exec.inc(1), 2, "{to}");
        }
        // Deadlines and delays have their length.
        let (line, delayed) = guesses.join().unwrap();
        assert_eq!(line, "530 Login incorrect.");
        assert!((Duration::from_secs(3)..Duration::from_secs(15)).contains(&delayed), "{delayed:?}");
        let (line, dropped) = waits.join().unwrap();
        assert_eq!(line, "421 Login timed out.");
        assert!((Duration::from_secs(4)..Duration::from_secs(20)).contains(&dropped), "{dropped:?}");
        assert!(idles.ask("BANNER").starts_with("220 "), "dropped although its time has not come");
        // The sessions, the delay, the deadline, the silence, the task.
        held += sessions.len() + 4;
        if let Some(guest) = &mut guest {
            guest.expect(&mut sessions[1], "0123");
            assert_eq!(guest.state(&mut sessions[1]).0, "on");
            let event = guest.must(&mut sessions[1], "VM_INFO", "");
            let uptime = event.all("uptime").first().and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
            assert!((0..=3600).contains(&uptime), "{}", event.text);
            held += 1;
        }
        // A jump makes no noise.
        let more = instance.authd_log().lines().count() + instance.serverd_log().lines().count() - lines;
        assert!(more < 60, "{more} lines of log for one jump");
    }
    // In ten years the certificate is too old for a client that looks; a new one is of that time, and serves.
    clock.set(TEN_YEARS);
    let mut root = instance.exec();
    let valid = |reply: &tests::Reply| ["notBefore", "notAfter"].map(|name| time(&field(reply, name)));
    let [_, old] = valid(&root.op("Security_GetConfig", ""));
    let made = root.op("Security_CreateCertificate", "<overwrite>1</overwrite>");
    assert!(made.ok(), "{}", made.text);
    let [from, to] = valid(&root.op("Security_GetConfig", ""));
    let now = unix_now() + TEN_YEARS;
    assert!(old < now && from <= now && from > now - 600 && to > now, "{old}, {from}, {to} at {now}");
    assert_eq!(instance.secure().local().server().inc(3), 4);
    clock.set(0);
    if let Some(guest) = guest {
        guest.must(&mut sessions[1], "VM_Stop", "<mode>hard</mode>");
    }
    let now = [instance.net(), instance.monitor(), instance.core(), instance.session_of(0)];
    assert_eq!(now, all, "none has died");
    assert!(all.iter().all(|process| process::runs(*process)));
    figures::fact("F8", "jumps of the clock, -1 day to +10 years", f64::from(jumps), "");
    figures::fact(
        "F8",
        "sessions, delays, deadlines, tasks and guests that went on as before",
        held as f64,
        "",
    );
}

/// Seconds since 1970 of a time in a reply.
fn time(text: &str) -> i64 {
    text.parse().unwrap_or_else(|_| panic!("not a number of seconds: {text}"))
}
