//! F10: connections by the thousand from many addresses. Who is logged in is served as before, and memory and
//! descriptors come back.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tests::figures::{self, full, length, most, percentile};
use tests::{Exec, Setup, eventually, need_root, process};

/// Connections in a second.
const RATE: usize = 10_000;
/// Addresses they come from.
const SOURCES: u8 = 64;
/// Connections that are held open: more than all addresses may have before a login, so that some are refused.
const HELD: usize = 5_000;

/// Bytes that may be left over on any machine.
const LEFT: u64 = 64 << 20;

/// Connects as often as said until told to end; returns how many connections there were, and in what time.
fn flood(ports: [u16; 2], rate: usize, over: &AtomicBool) -> (usize, Duration) {
    let (start, mut made) = (Instant::now(), 0);
    let mut held: VecDeque<OwnedFd> = VecDeque::with_capacity(HELD);
    while !over.load(Ordering::Relaxed) {
        let due = (start.elapsed().as_secs_f64() * rate as f64) as usize;
        if made >= due {
            std::thread::sleep(Duration::from_micros(200));
            continue;
        }
        if held.len() == HELD {
            held.pop_front();
        }
        let source = Ipv4Addr::new(127, 6, 0, made as u8 % SOURCES + 1);
        let port = ports[made / usize::from(SOURCES) % 2];
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::INET, SocketType::STREAM, flags, None).expect("a descriptor");
        bind(&socket, &SocketAddr::from((source, 0))).expect("a port");
        // What does not connect at once waits in the kernel.
        let _ = connect(&socket, &SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        held.push_back(socket);
        made += 1;
    }
    (made, start.elapsed())
}

/// Calls both sessions in turn for a time, with a rest after each call as callers have; returns how long calls
/// took, by session.
fn calls(sessions: &mut [Exec; 2], time: Duration) -> [Vec<Duration>; 2] {
    let start = Instant::now();
    let mut taken = [Vec::new(), Vec::new()];
    while start.elapsed() < time {
        for (exec, taken) in sessions.iter_mut().zip(&mut taken) {
            let call = Instant::now();
            assert_eq!(exec.inc(1), 2);
            taken.push(call.elapsed());
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    taken
}

#[test]
fn a_flood_of_connections_leaves_sessions_alone() {
    if !need_root("descriptors and memory after a flood of connections") {
        return;
    }
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, wanted).expect("up to the maximum");
    let time = Duration::from_secs(length("VMSERVERD_FLOOD_SECONDS", 60, 3) as u64);
    let instance = Setup::new().tls().plain().start();
    let mut sessions = [instance.tcp().local().server(), instance.secure().local().server()];
    let watched = [instance.net(), instance.monitor(), instance.core()];
    let ports = [instance.plain, instance.tls];
    let run = |sessions: &mut [Exec; 2], time: Duration| {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let flooding = scope.spawn(|| flood(ports, RATE, &over));
            let taken = calls(sessions, time);
            over.store(true, Ordering::Relaxed);
            (taken, flooding.join().unwrap())
        })
    };
    // Every process has had callers of each kind.
    for _ in 0..20 {
        assert_eq!(instance.tcp().local().server().inc(1), 2);
        assert_eq!(instance.secure().local().server().inc(1), 2);
    }
    let base = || watched.map(process::descriptors).map(|all| all.len());
    let mut before = base();
    eventually("the first callers are gone", || {
        let now = base();
        let same = now == before;
        before = now;
        std::thread::sleep(Duration::from_millis(100));
        same.then_some(())
    });
    let memory = || watched.iter().map(|process| process::resident(*process)).sum::<u64>();
    let memory_before = memory();
    let quiet = calls(&mut sessions, time.min(Duration::from_secs(10)));
    let (taken, (made, elapsed)) = run(&mut sessions, time);
    let ended = Instant::now();
    let (mut back, mut highest) = (None, memory());
    eventually("descriptors are back", || {
        // Of each process; arrays as such are compared by their first difference.
        base().iter().zip(&before).all(|(now, before)| now <= before).then_some(())
    });
    let patience = Duration::from_secs(if full() { 30 } else { 3 });
    while back.is_none() && ended.elapsed() < patience {
        highest = highest.max(memory());
        back = (memory() as f64 <= memory_before as f64 * 1.05).then(|| ended.elapsed());
        std::thread::sleep(Duration::from_millis(20));
    }
    let after = memory();
    assert!(after < memory_before + LEFT, "{memory_before} bytes became {after}");
    let mut other = instance.tcp().local().server();
    assert_eq!((other.inc(1), instance.secure().local().server().inc(2)), (2, 3));
    figures::fact("F10", "connections in a second", made as f64 / elapsed.as_secs_f64(), "");
    figures::fact("F10", "seconds", elapsed.as_secs_f64(), "");
    for ((name, quiet), taken) in ["plain", "TLS"].into_iter().zip(quiet).zip(taken) {
        let (quiet, during) = (percentile(&quiet, 99), percentile(&taken, 99));
        figures::fact("F10", &format!("p99 of a call of a {name} session, quiet"), figures::ms(quiet), "ms");
        figures::fact(
            "F10",
            &format!("p99 of a call of a {name} session, in the flood"),
            figures::ms(during),
            "ms",
        );
        let ratio = during.as_secs_f64() / quiet.as_secs_f64();
        most("F10", &format!("{name}: times the quiet p99"), ratio, "", 2.0);
        assert!(during < Duration::from_secs(1), "{name}: {during:?} in the flood, {quiet:?} without");
    }
    let times = |bytes: u64| bytes as f64 / memory_before as f64;
    figures::fact("F10", "times the memory of before, at the end of the flood", times(highest), "");
    figures::fact(
        "F10",
        "seconds until it was back, or was given up",
        back.unwrap_or(patience).as_secs_f64(),
        "s",
    );
    most("F10", "times the memory of before, then", times(after), "", 1.05);
}
