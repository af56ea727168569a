//! Processes that die, and descriptors that run out: what goes on and what comes back.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tests::exec::Exec;
use tests::{Account, Caller, Client, Instance, Setup, Tap, eventually, need_root, process};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// One whole call of a local caller, if the instance serves it.
fn call(instance: &Instance) -> Option<Exec> {
    let stream = std::os::unix::net::UnixStream::connect(instance.socket()).ok()?;
    let mut client = Client::new(Tap::Unix(stream)).patience(Duration::from_secs(10));
    client.try_line().ok()?;
    for (command, start) in [("LOCAL\r\n", "230 "), ("GLOBAL server\r\n", "200 ")] {
        client.try_send(command).ok()?;
        if !client.try_line().ok()?.starts_with(start) {
            return None;
        }
    }
    Some(Exec::new(client))
}

/// Waits until the instance serves new callers.
fn serves(instance: &Instance) -> Exec {
    let mut exec = eventually("a new login works", || call(instance));
    assert_eq!(exec.inc(1), 2);
    exec
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
    serves(&instance);
    assert_ne!(instance.core(), core);
    assert_eq!(instance.net(), gateway);
    for orphan in orphans {
        assert!(process::ends_within(orphan, Duration::from_secs(20)), "a session process without a core");
    }
}

#[test]
fn the_gateway_dies_and_plain_sessions_go_on() {
    let instance = Setup::new().tls().plain().start();
    for half in ["root half", "network half"] {
        let mut unix = serves(&instance);
        let mut plain = instance.tcp().local().server();
        let mut tls = instance.secure().local().server();
        assert_eq!((plain.inc(1), tls.inc(1)), (2, 2));
        let core = instance.core();
        let victim = if half == "root half" { instance.monitor() } else { instance.net() };
        process::kill(victim);
        for number in 0..100 {
            assert_eq!((unix.inc(number), plain.inc(number)), (number + 1, number + 1), "{half}");
        }
        // The relay of a TLS session was in the network half.
        assert!(tls.client().closed(), "{half}");
        serves(&instance);
        eventually("the plain port is served again", || {
            let stream = tests::client::connect_from([127, 0, 0, 1].into(), instance.plain).ok()?;
            let mut client = Client::new(Tap::Tcp(stream));
            client.try_line().ok().filter(|line| line.starts_with("220 "))
        });
        assert_eq!(instance.core(), core, "{half}: the server is the same one");
        assert_eq!((unix.inc(7), plain.inc(7)), (8, 8), "{half}: still");
    }
}

#[test]
fn a_session_process_dies_and_only_its_user_notices() {
    if !need_root("a session process dies") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().tls().plain().start();
    let caller = Caller::new(CALLER, &instance, &account);
    let mut other = instance.exec();
    for round in 0..5 {
        let mut sessions = [caller.unix(), caller.tcp(), instance.secure().login(&account)].map(|client| {
            if matches!(round % 2, 0) { client } else { client.patience(Duration::from_secs(20)) }
        });
        // The third has logged in by name already.
        let [unix, tcp, tls] = &mut sessions;
        assert!(unix.ask("LOCAL").starts_with("230 ") && tcp.ask("LOCAL").starts_with("230 "));
        for client in [unix, tcp, tls] {
            assert_eq!(client.ask("GLOBAL server"), "200 Connected to vmware-serverd.");
        }
        let mut sessions = sessions.map(Exec::new);
        for exec in &mut sessions {
            assert_eq!(exec.user(), account.name);
        }
        process::kill(instance.session_of(account.uid));
        for exec in &mut sessions {
            assert!(exec.client().closed());
        }
        assert_eq!(other.inc(round), round + 1);
        let mut next = caller.unix().local().server();
        assert_eq!(next.user(), account.name);
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
                    let Some(mut exec) = call(&instance) else { continue };
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
    serves(&instance);
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

/// Every process has 300 descriptors, and more callers come than that is enough for. (The server keeps
/// 256 for itself and promises the rest to sessions.)
#[test]
fn descriptors_run_out_and_come_back() {
    let setup = Setup::new().tls().plain().set("authd.connections.perAddress", 1000).descriptors(300);
    let instance = setup.start();
    let mut witness = instance.exec();
    assert_eq!(witness.inc(1), 2);
    let uid = rustix::process::getuid().as_raw();
    let all = [instance.net(), instance.monitor(), instance.core(), instance.session_of(uid)];
    for round in 0..3 {
        // Before login on both ports, logged in, handed over: each kind fills another process.
        let waiting: Vec<_> = (0..if round == 0 { 400 } else { 0 })
            .filter_map(|number| {
                let port = if number % 2 == 0 { instance.plain } else { instance.tls };
                tests::client::connect_from([127, 8, 0, 1].into(), port).ok()
            })
            .collect();
        let mut callers: Vec<Client> = (0..if round == 0 { 20 } else { 350 })
            .filter_map(|_| {
                let stream = std::os::unix::net::UnixStream::connect(instance.socket()).ok()?;
                let mut client = Client::new(Tap::Unix(stream))
                    .patience(Duration::from_millis(if round == 0 { 20 } else { 5 }));
                client.try_send(if round == 1 { "LOCAL\r\n" } else { "LOCAL\r\nGLOBAL server\r\n" }).ok()?;
                Some(client)
            })
            .collect();
        for client in &mut callers {
            // Served, refused with a line, closed, or waiting for its turn; never a wrong word.
            while let Ok(line) = client.try_line() {
                let known = ["220 ", "230 ", "200 ", "421 ", "511 ", "512 ", "530 "];
                assert!(known.iter().any(|start| line.starts_with(start)), "round {round}: {line}");
            }
        }
        assert_eq!(witness.inc(1), 2, "round {round}: a session that was there before");
        // To be out of descriptors is no reason to turn in circles.
        let spent = all.map(process::processor_time);
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_secs(1) {
            assert_eq!(witness.inc(1), 2, "round {round}");
            std::thread::sleep(Duration::from_millis(50));
        }
        for (process, before) in all.into_iter().zip(spent) {
            let spent = process::processor_time(process) - before;
            let words = process::words(process);
            assert!(
                spent < Duration::from_millis(400),
                "round {round}: {words:?} used {spent:?} of a second"
            );
        }
        drop((waiting, callers));
        drop(serves(&instance));
        let mut secure = eventually("TLS callers are served again", || {
            let stream = tests::client::connect_from([127, 0, 0, 1].into(), instance.tls).ok()?;
            let mut client = Client::new(Tap::Tcp(stream));
            client.try_line().ok().filter(|line| line.starts_with("220 "))?;
            Some(client.secure().local().server())
        });
        assert_eq!(secure.inc(1), 2, "round {round}");
        assert!(all.iter().all(|process| process::runs(*process)), "round {round}: recovered by dying");
    }
}

/// Nothing is left behind by many short sessions.
#[test]
fn many_sessions_leave_nothing_behind() {
    if !need_root("descriptors and memory after many sessions") {
        return;
    }
    let instance = Setup::new().tls().plain().start();
    let uid = rustix::process::getuid().as_raw();
    let session = |instance: &Instance| instance.session_of(uid);
    let run = |count: usize| {
        for _ in 0..count {
            assert_eq!(instance.exec().inc(1), 2);
            assert_eq!(instance.tcp().local().server().inc(1), 2);
            assert_eq!(instance.secure().local().server().inc(1), 2);
        }
    };
    run(20);
    let all = [instance.net(), instance.monitor(), instance.core(), session(&instance)];
    let descriptors = || all.map(|process| process::descriptors(process).len());
    let settled = eventually("all sessions are closed", || {
        let sockets = process::network_sockets(all[0]);
        (sockets.iter().all(|socket| socket.state == "0A")).then(descriptors)
    });
    let memory = all.map(process::resident);
    run(300);
    eventually(&format!("descriptors are back at {settled:?}, they are {:?}", descriptors()), || {
        descriptors().iter().zip(settled).all(|(now, before)| *now <= before).then_some(())
    });
    for (before, process) in memory.into_iter().zip(all) {
        let grown = process::resident(process).saturating_sub(before);
        assert!(grown < 3 << 20, "{:?} grew by {grown} bytes", process::words(process));
    }
}
