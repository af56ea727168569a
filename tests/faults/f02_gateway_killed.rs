//! F2: the gateway is killed. Machines, tasks and local sessions go on; a new login works within a second, and
//! behind socket activation callers of the meantime are answered too.

use std::time::{Duration, Instant};

use tests::figures::most_ms;
use tests::{Client, Setup, Tap, eventually, process};

use crate::activated::Activated;

/// A new login may take this long after the kill.
const AGAIN_WITHIN: f64 = 1000.0;

#[test]
fn the_gateway_dies_and_plain_sessions_go_on() {
    let instance = Setup::new().tls().plain().start();
    let mut worst = Duration::ZERO;
    for half in ["root half", "network half"] {
        let mut unix = instance.serves();
        let mut plain = instance.tcp().local().server();
        let mut tls = instance.secure().local().server();
        assert_eq!((plain.inc(1), tls.inc(1)), (2, 2));
        let core = instance.core();
        let victim = if half == "root half" { instance.monitor() } else { instance.net() };
        process::kill(victim);
        let killed = Instant::now();
        for number in 0..100 {
            assert_eq!((unix.inc(number), plain.inc(number)), (number + 1, number + 1), "{half}");
        }
        drop(instance.serves());
        worst = worst.max(killed.elapsed());
        // The relay of a TLS session was in the network half, which ends after its root half, in its time.
        assert!(tls.client().closed(), "{half}");
        eventually("the plain port is served again", || {
            let stream = tests::client::connect_from([127, 0, 0, 1].into(), instance.plain).ok()?;
            let mut client = Client::new(Tap::Tcp(stream));
            client.try_line().ok().filter(|line| line.starts_with("220 "))
        });
        assert_eq!(instance.core(), core, "{half}: the server is the same one");
        assert_eq!((unix.inc(7), plain.inc(7)), (8, 8), "{half}: still");
    }
    most_ms("F2", "until a new login works, worst of both halves", worst, AGAIN_WITHIN);
}

#[test]
fn behind_socket_activation_callers_of_the_meantime_are_served() {
    let activated = Activated::new();
    let mut gateway = activated.gateway();
    let _server = activated.server();
    let mut session = activated.call();
    // What was answered once has been handed over for certain.
    assert_eq!(session.inc(1), 2);
    let mut worst = Duration::ZERO;
    for number in 0..5 {
        process::kill(gateway.id());
        let killed = Instant::now();
        // Connects at once; a manager starts the gateway because of it.
        let caller = std::thread::scope(|scope| {
            let caller = scope.spawn(|| activated.call().inc(1));
            gateway = activated.gateway();
            caller.join().unwrap()
        });
        worst = worst.max(killed.elapsed());
        assert_eq!(caller, 2);
        assert_eq!(session.inc(number), number + 1, "a session that was there before");
    }
    assert_eq!(activated.call().inc(1), 2);
    most_ms("F2", "until a new session works by socket activation, worst of 5", worst, AGAIN_WITHIN);
}
