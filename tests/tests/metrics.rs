//! Figures at their socket: exact, readable by the real parser, there whatever the server is doing.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tests::instance::{Base, free_port};
use tests::openmetrics::{Samples, body_of, curl, need_parser, parse, scrape};
use tests::{Account, Instance, Setup, eventually, need_root, process};

/// The process that tells figures.
fn teller(instance: &Instance) -> u32 {
    eventually("the metrics process", || {
        let children = process::children(instance.core());
        children.into_iter().find(|child| process::words(*child).iter().any(|word| word == "metrics"))
    })
}

/// An instance whose figures can be read.
fn started(setup: Setup) -> Instance {
    let instance = setup.start();
    answers(&instance);
    instance
}

fn answers(instance: &Instance) {
    let socket = instance.layout.metrics_socket();
    eventually("the socket of figures answers", || UnixStream::connect(&socket).is_ok().then_some(()));
}

fn look(instance: &Instance) -> Samples {
    timed(instance).0
}

/// Less than what waits for somebody else takes: five seconds.
const AT_ONCE: Duration = Duration::from_secs(4);

/// The figures, and how long it took to get them. Prometheus' parser takes its own time.
fn timed(instance: &Instance) -> (Samples, Duration) {
    let asked = Instant::now();
    let text = scrape(&instance.layout.metrics_socket());
    let took = asked.elapsed();
    (parse(&text), took)
}

fn value(samples: &Samples, name: &str) -> f64 {
    samples.get(name).copied().unwrap_or(0.0)
}

/// What each counter of `names` grew by.
fn grown(before: &Samples, after: &Samples, name: &str) -> f64 {
    value(after, name) - value(before, name)
}

#[test]
fn what_was_done_is_what_is_told() {
    if !need_root("figures of logins by PAM") || !need_parser("figures are parsed by Prometheus' own parser")
    {
        return;
    }
    let account = Account::with_plain_password();
    let port = free_port();
    let listen = format!("\"127.0.0.1:{port}\"");
    let instance = started(Setup::new().hasty().plain().tls().set("metrics.listen", listen.as_str()));
    let before = look(&instance);
    // Known work: two sessions by LOCAL, one by PASS over TLS, three wrong passwords.
    let mut exec = instance.exec();
    for number in 0..7 {
        assert_eq!(exec.inc(number), number + 1);
    }
    assert!(!exec.op("inc", "<number>x</number>").ok());
    assert!(!exec.op("NoSuchOperation", "").ok());
    let mut other = instance.tcp().local().server();
    assert_eq!(other.inc(1), 2);
    let mut secure = instance.secure().login(&account).server();
    assert_eq!(secure.inc(1), 2);
    for _ in 0..3 {
        let reply = instance.tcp().try_login(&account.name, "wrong");
        assert!(reply.starts_with("530 "), "{reply}");
    }
    // Counts of requests are exact at once; what the core knows is there soon.
    let after = look(&instance);
    assert_eq!(grown(&before, &after, "vmserverd_requests_total{op=inc,result=ok}"), 9.0);
    assert_eq!(grown(&before, &after, "vmserverd_requests_total{op=inc,result=failed}"), 1.0);
    assert_eq!(grown(&before, &after, "vmserverd_requests_total{op=none,result=failed}"), 1.0);
    assert_eq!(grown(&before, &after, "vmserverd_request_duration_seconds_count{op=inc}"), 10.0);
    assert_eq!(value(&after, "vmserverd_request_duration_seconds_bucket{le=+Inf,op=inc}"), 10.0);
    for (name, grew) in [
        ("vmware_authd_logins_total{result=ok,way=pass}", 1.0),
        ("vmware_authd_logins_total{result=refused,way=pass}", 3.0),
        ("vmware_authd_logins_total{result=failed,way=pass}", 0.0),
        ("vmware_authd_logins_total{result=ok,way=local_unix}", 1.0),
        ("vmware_authd_logins_total{result=ok,way=local_tcp}", 1.0),
        ("vmware_authd_pam_duration_seconds_count{}", 4.0),
        ("vmware_authd_pam_duration_seconds_bucket{le=+Inf}", 4.0),
        ("vmware_authd_sessions_handed_over_total{}", 3.0),
        ("vmware_authd_connections_total{channel=tls}", 1.0),
        ("vmware_authd_connections_total{channel=plain}", 4.0),
        ("vmware_authd_connections_total{channel=unix}", 1.0),
    ] {
        assert_eq!(grown(&before, &after, name), grew, "{name}");
    }
    assert!(value(&after, "vmware_authd_pam_duration_seconds_sum{}") > 0.0);
    let soon = eventually("what the core knows", || {
        let samples = look(&instance);
        let all = value(&samples, "vmserverd_sessions{}") == 3.0
            && value(&samples, "vmserverd_session_processes{}") == 2.0
            && value(&samples, "vmware_authd_connections_waiting{}") == 0.0
            && grown(&before, &samples, "vmserverd_sessions_begun_total{result=ok}") == 3.0;
        all.then_some(samples)
    });
    assert_eq!(value(&soon, "vmserverd_gateway_connected{}"), 1.0);
    assert_eq!(value(&soon, "vmware_authd_tls_relays{}"), 1.0);
    for process in ["core", "metrics"] {
        assert!(
            value(&soon, &format!("vmserverd_resident_memory_bytes{{process={process}}}")) > 1e6,
            "{process}"
        );
    }
    assert!((0.0..60.0).contains(&value(&soon, "vmserverd_uptime_seconds{}")));
    // A session process that dies takes no count along, and its sessions.
    drop(secure);
    process::kill(instance.session_of(account.uid));
    eventually("the other session process", || {
        (value(&look(&instance), "vmserverd_session_processes{}") == 1.0).then_some(())
    });
    assert_eq!(value(&look(&instance), "vmserverd_requests_total{op=inc,result=ok}"), 9.0);
    // The operation tells the same; the request itself counts when it is answered.
    let text = exec.op("VMServerd_GetMetrics", "").out("contents");
    let (asked, told) = (parse(&text), look(&instance));
    let moves = |name: &str| {
        ["memory", "time", "GetMetrics", "audit", "queue"].iter().any(|word| name.contains(word))
    };
    let steady = |samples: &Samples| -> Samples {
        samples.iter().filter(|(name, _)| !moves(name)).map(|(name, value)| (name.clone(), *value)).collect()
    };
    assert_eq!(steady(&asked), steady(&told));
    // Over TCP, by address and by HEAD; and nobody is named.
    let url = format!("http://127.0.0.1:{port}/metrics");
    let text = body_of(&curl(&[&url]));
    assert_eq!(steady(&parse(&text)), steady(&told));
    assert!(!text.contains(&account.name) && !text.contains("root"), "{text}");
    assert!(curl(&["-I", &url]).starts_with("HTTP/1.1 200 OK"));
    let elsewhere = curl(&["-H", "Host: evil.example", &url]);
    assert!(elsewhere.starts_with("HTTP/1.1 421 "), "{elsewhere}");
}

#[test]
fn a_stopped_server_is_still_told_about() {
    if !need_parser("figures of a stopped server") {
        return;
    }
    let instance = started(Setup::new());
    let mut exec = instance.exec();
    assert_eq!(exec.inc(1), 2);
    eventually("the session", || (value(&look(&instance), "vmserverd_sessions{}") == 1.0).then_some(()));
    let core = instance.core();
    process::signal(core, Signal::STOP);
    let (samples, took) = timed(&instance);
    // The session process does not need the core, and is counted without it.
    assert_eq!(exec.inc(2), 3);
    let later = look(&instance);
    process::signal(core, Signal::CONT);
    assert_eq!(value(&samples, "vmserverd_sessions{}"), 1.0);
    assert_eq!(grown(&samples, &later, "vmserverd_requests_total{op=inc,result=ok}"), 1.0);
    assert!(took < AT_ONCE, "{took:?}");
    // A metrics process that is killed is started again, and knows what was counted.
    let first = teller(&instance);
    process::kill(first);
    eventually("another metrics process", || (teller(&instance) != first).then_some(()));
    answers(&instance);
    assert_eq!(value(&look(&instance), "vmserverd_requests_total{op=inc,result=ok}"), 2.0);
}

#[test]
fn who_tells_figures_can_do_nothing_else() {
    let instance = started(Setup::new());
    let teller = teller(&instance);
    // It answers at its socket before it has closed the walls around itself.
    eventually("a seccomp filter", || {
        (process::status(teller, "Seccomp").as_deref() == Some("2")).then_some(())
    });
    assert_eq!(process::status(teller, "NoNewPrivs").as_deref(), Some("1"));
    for capabilities in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
        assert_eq!(
            process::status(teller, capabilities).as_deref(),
            Some("0000000000000000"),
            "{capabilities}"
        );
    }
    assert_eq!(process::network_sockets(teller), [], "TCP is off unless it is switched on");
    if need_root("the user of the metrics process") {
        assert!(process::uids(teller).iter().all(|uid| *uid != 0), "{:?}", process::uids(teller));
    }
}

#[test]
fn hostile_callers_hold_nobody_up() {
    if !need_parser("hostile callers of the metrics socket") {
        return;
    }
    let instance = started(Setup::new());
    let (first, socket) = (teller(&instance), instance.layout.metrics_socket());
    // More than there may be, who say nothing or almost nothing, and stay.
    let silent: Vec<UnixStream> = (0..200)
        .map(|number| {
            let mut stream = UnixStream::connect(&socket).unwrap();
            if number % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: ").unwrap();
            }
            stream
        })
        .collect();
    let (samples, took) = timed(&instance);
    assert!(samples.len() > 30);
    assert!(took < AT_ONCE, "{took:?}");
    drop(silent);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    for (bytes, status) in [
        (&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], "400"),
        (b"\0\0\0\0\0\0\0\0\r\n\r\n", "400"),
        (b"GET /metrics HTTP/1.1\r\nA\0: b\r\n\r\n", "400"),
        (b"GET /metrics HTTP/9.9\r\n\r\n", "400"),
        (b"GET http://localhost/ HTTP/1.1\r\nHost: x\r\n\r\n", "404"),
        (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400"),
        (long.as_bytes(), "431"),
    ] {
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // Whoever is refused before the end of what he sends may find nobody reading any more.
        let _ = stream.write_all(bytes);
        let mut reply = [0; 12];
        stream.read_exact(&mut reply).unwrap_or_else(|error| panic!("{error} instead of {status}"));
        assert_eq!(std::str::from_utf8(&reply), Ok(format!("HTTP/1.1 {status}").as_str()));
    }
    assert_eq!(teller(&instance), first, "nobody could end it");
}

#[test]
fn other_machines_are_not_told() {
    let base = Base::new();
    let failed = Setup::new().set("metrics.listen", "\"0.0.0.0:9902\"").try_start(&base).err().unwrap();
    let said = "metrics.listen = \"0.0.0.0:9902\" is no loopback address";
    assert!(failed.said.contains(said), "{}", failed.said);
    // Without the socket there is nothing to connect to, and no process.
    let instance = Setup::new().set("metrics.unix", "false").start();
    assert_eq!(instance.exec().inc(1), 2);
    assert!(!instance.layout.metrics_socket().exists());
    let telling = |child: &u32| process::words(*child).iter().any(|word| word == "metrics");
    assert!(!process::children(instance.core()).iter().any(telling));
}
