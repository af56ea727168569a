//! The gateway's limits: deadlines, numbers of connections, callers that do not read or write.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tests::client::{Client, End, TLS_BANNER};
use tests::{Setup, eventually};

const TOO_MANY: &str = "421 Too many connections.";

#[test]
fn a_caller_that_does_not_log_in_is_dropped_at_the_deadline() {
    let instance = Setup::new().tls().plain().set("authd.login.deadline", 3).start();
    let mut named = instance.tcp();
    assert!(named.ask("USER x").starts_with("331 "));
    for mut client in [instance.unix(), instance.tcp(), instance.secure(), named] {
        assert_eq!(client.line(), "421 Login timed out.");
        assert!(client.closed());
    }
    // Before or inside the handshake there is nobody to talk to: the end comes without a word.
    let mut silent = Client::tcp(instance.tls).greeted();
    assert!(silent.closed());
    let mut halfway = Client::tcp(instance.tls).greeted();
    halfway.send([0x16, 0x03, 0x01, 0x02, 0x00, 0x01]);
    assert!(halfway.closed());
    instance.authd_logs("connection from 127.0.0.1 closed: ");
}

#[test]
fn a_failed_login_starts_the_deadline_again() {
    let instance = Setup::new().plain().hasty().set("authd.login.deadline", 6).start();
    let mut client = instance.tcp().patience(Duration::from_secs(2));
    // Longer than one deadline in all, and never near it in silence.
    for _ in 0..4 {
        assert_eq!(client.try_login("x", ""), "530 Login incorrect.");
        assert_eq!(client.try_line(), Err(End::Silent), "dropped although it tried again in time");
    }
    let mut client = client.patience(tests::client::PATIENCE);
    assert_eq!(client.line(), "421 Login timed out.");
}

#[test]
fn silence_after_login_ends_the_connection_and_a_session_with_the_server_has_no_limit() {
    let instance = Setup::new().tls().plain().set("authd.session.idle", 3).start();
    let clients = [instance.unix(), instance.tcp(), instance.secure()];
    let mut sessions: Vec<_> = [instance.unix(), instance.tcp(), instance.secure()]
        .into_iter()
        .map(|client| client.local().server())
        .collect();
    for client in clients {
        let mut client = client.local();
        assert_eq!(client.line(), "421 Session timed out.");
        assert!(client.closed());
    }
    for session in &mut sessions {
        assert_eq!(session.inc(1), 2);
    }
}

#[test]
fn one_byte_now_and_then_does_not_hold_a_connection() {
    let instance = Setup::new().plain().set("authd.login.deadline", 2).start();
    let mut slow = instance.tcp().patience(Duration::from_millis(100));
    let start = Instant::now();
    let said = loop {
        let _ = slow.try_send("x");
        match slow.try_line() {
            Ok(line) => break line,
            Err(End::Silent) => assert!(start.elapsed() < Duration::from_secs(30), "never dropped"),
            Err(End::Closed) => break String::from("421 Login timed out."),
        }
        // Somebody else, meanwhile.
        assert_eq!(instance.unix().local().server().inc(1), 2);
    };
    assert_eq!(said, "421 Login timed out.");
}

/// Hundreds of callers from many addresses that send a byte now and then: each is dropped at the
/// deadline, and those who know what they want are served meanwhile.
#[test]
fn many_slow_callers_are_dropped_and_others_do_not_notice() {
    let instance = Setup::new().tls().plain().set("authd.login.deadline", 4).start();
    let mut session = instance.tcp().local().server();
    let mut slow: Vec<Client> = (0..512u32)
        .map(|number| {
            let host = u8::try_from(number % 16).expect("small");
            let port = if number % 4 == 0 { instance.tls } else { instance.plain };
            let client = Client::tcp_from(Ipv4Addr::new(127, 7, 0, host), port);
            client.greeted().patience(Duration::from_millis(1))
        })
        .collect();
    let start = Instant::now();
    let mut served = 0;
    while !slow.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} are still there", slow.len());
        slow.retain_mut(|client| {
            let sent = client.try_send("U").is_ok();
            match client.try_line() {
                Ok(line) => {
                    assert_eq!(line, "421 Login timed out.");
                    false
                }
                // One on the TLS port is closed without a word.
                Err(end) => sent && end == End::Silent,
            }
        });
        assert_eq!(session.inc(1), 2);
        assert_eq!(instance.tcp().local().server().inc(1), 2);
        served += 1;
    }
    assert!(served >= 3, "only {served} rounds");
}

#[test]
fn one_address_has_so_many_connections_before_login() {
    let instance = Setup::new().tls().plain().set("authd.connections.perAddress", 4).start();
    for port in [instance.plain, instance.tls] {
        let here = Ipv4Addr::new(127, 3, 0, 1);
        let mut held: Vec<Client> = (0..4).map(|_| Client::tcp_from(here, port).greeted()).collect();
        let mut refused = Client::tcp_from(here, port);
        assert_eq!(refused.line(), TOO_MANY);
        assert!(refused.closed());
        let elsewhere = Client::tcp_from(Ipv4Addr::new(127, 3, 0, 2), port).greeted();
        // One that leaves makes room, and so does one that logs in.
        drop(held.pop());
        let next = accepted(here, port);
        if port == instance.plain {
            let logged_in = next.local();
            held.push(accepted(here, port));
            drop(logged_in);
        }
        drop((held, elsewhere));
    }
    instance.authd_logs("connection from 127.3.0.1 closed: too many");
}

#[test]
fn all_addresses_together_have_so_many_connections_before_login() {
    let instance = Setup::new().plain().set("authd.connections.max", 6).start();
    let held: Vec<Client> = (1..=6)
        .map(|host| Client::tcp_from(Ipv4Addr::new(127, 4, 0, host), instance.plain).greeted())
        .collect();
    let mut refused = Client::tcp_from(Ipv4Addr::new(127, 4, 0, 7), instance.plain);
    assert_eq!(refused.line(), TOO_MANY);
    drop(held);
    drop(accepted(Ipv4Addr::new(127, 4, 0, 7), instance.plain));
}

/// Connects until the gateway has noticed that somebody left.
fn accepted(source: Ipv4Addr, port: u16) -> Client {
    eventually("room for one more connection", || {
        let mut client = Client::tcp_from(source, port);
        match client.line() {
            line if line == TOO_MANY => None,
            line => {
                assert!(line.starts_with("220 ") && TLS_BANNER.starts_with(&line[..30]), "{line}");
                Some(client)
            }
        }
    })
}

#[test]
fn sessions_handed_over_are_no_connections_before_login() {
    let instance = Setup::new().plain().set("authd.connections.perAddress", 2).start();
    let mut sessions: Vec<_> =
        (0..20).map(|_| accepted(Ipv4Addr::LOCALHOST, instance.plain).local().server()).collect();
    for session in &mut sessions {
        assert_eq!(session.inc(1), 2);
    }
}

#[test]
fn a_caller_that_does_not_read_is_dropped() {
    let instance = Setup::new().plain().start();
    let mut deaf = instance.tcp().local();
    // Each line is answered with many more bytes; once nobody takes them, the gateway stops reading
    // too, and then it must give up, long before the silence after login would end the session.
    let lines = "BANNER\r\n".repeat(4096);
    let start = Instant::now();
    while deaf.try_send(&lines).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(120), "the gateway never gave up");
    }
    assert_eq!(instance.unix().local().server().inc(1), 2);
}

#[test]
fn delays_of_wrong_passwords_belong_to_the_address_and_hold_up_nobody_else() {
    let instance = Setup::new().plain().start();
    let guesser = Ipv4Addr::new(127, 5, 0, 1);
    let mut guess = Client::tcp_from(guesser, instance.plain).greeted();
    let start = Instant::now();
    assert!(guess.ask("USER x").starts_with("331 "));
    // Commands behind the guess wait with it; an empty password is a guess too.
    guess.send("PASS \r\nUSER y\r\n");
    let mut others = 0;
    let mut guess = guess.patience(Duration::from_millis(50));
    let line = loop {
        match guess.try_line() {
            Ok(line) => break line,
            Err(end) => assert_eq!(end, End::Silent),
        }
        let mut other =
            Client::tcp_from(Ipv4Addr::new(127, 5, 0, 2), instance.plain).greeted().local().server();
        assert_eq!(other.inc(1), 2);
        // The same address may go on as well, on another connection.
        let mut same = Client::tcp_from(guesser, instance.plain).greeted().local().server();
        assert_eq!(same.inc(1), 2);
        others += 1;
    };
    assert_eq!(line, "530 Login incorrect.");
    // The delay is a promise about time: at least three seconds, counted from the guess.
    assert!(start.elapsed() >= Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(others >= 3, "only {others} others were served meanwhile");
    assert_eq!(guess.line(), "331 Password required for y.");
}

#[test]
fn the_delay_does_not_count_towards_the_deadline() {
    let deadline = Setup::new().plain().set("authd.login.deadline", 3).set("authd.login.delay", 4);
    let instance = deadline.set("authd.login.delayMax", 4).start();
    let mut client = instance.tcp();
    for _ in 0..2 {
        assert_eq!(client.try_login("x", ""), "530 Login incorrect.");
    }
    assert_eq!(client.line(), "421 Login timed out.");
}
