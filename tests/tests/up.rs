//! `xtask up` itself: the ready line, a second one in the same place, ports that are taken, the end,
//! and an instance that belongs to an ordinary user.

use std::net::TcpListener;
use std::time::Duration;

use rustix::process::Signal;
use tests::instance::{Base, free_port};
use tests::{Account, Caller, Setup, eventually, need_root, process};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

#[test]
fn the_ready_line_is_the_only_line() {
    for (setup, tls, plain) in [
        (Setup::new().tls().plain(), true, true),
        (Setup::new().tls(), true, false),
        (Setup::new().plain(), false, true),
        (Setup::new(), false, false),
    ] {
        let mut instance = setup.start();
        let address = |on: bool, port: u16| if on { format!("127.0.0.1:{port}") } else { "off".to_owned() };
        let expected = format!(
            "ready tls={} plain={} socket={}\n",
            address(tls, instance.tls),
            address(plain, instance.plain),
            instance.socket().display()
        );
        assert_eq!(instance.ready, expected);
        assert_eq!(instance.exec().inc(1), 2, "ready means that logins are accepted");
        instance.ask_to_end();
        assert_eq!(instance.wait().code(), Some(0));
        assert_eq!(instance.rest_of_output(), "");
    }
}

#[test]
fn every_signal_to_end_ends_everything() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut instance = Setup::new().tls().plain().start();
        let mut held = instance.exec();
        assert_eq!(held.inc(1), 2);
        let all = process::descendants(instance.pid());
        // Gateway: root half and network half; server: core and a session process.
        assert!(all.len() >= 4, "{all:?}");
        process::signal(instance.pid(), signal);
        assert_eq!(instance.wait().code(), Some(0), "{signal:?}");
        for child in all {
            assert!(process::ends_within(child, Duration::ZERO), "{:?} outlived it", process::words(child));
        }
        assert!(!instance.base.said().contains("was killed"), "{}", instance.base.said());
    }
}

#[test]
fn nothing_outlives_a_killed_xtask() {
    let instance = Setup::new().tls().plain().start();
    assert_eq!(instance.exec().inc(1), 2);
    let all = process::descendants(instance.pid());
    process::kill(instance.pid());
    for child in all {
        let ends = process::ends_within(child, Duration::from_secs(20));
        assert!(ends, "{:?} outlived it", process::words(child));
    }
}

#[test]
fn a_second_one_in_the_same_directory_is_told_who_is_there() {
    let instance = Setup::new().tls().plain().start();
    let failed = Setup::new().tls().plain().try_start(&instance.base).err().expect("refused");
    assert_eq!(failed.status.code(), Some(1));
    for part in [
        format!("process {}", instance.pid()),
        format!("tls=127.0.0.1:{} plain=127.0.0.1:{}", instance.tls, instance.plain),
        format!("kill {}", instance.pid()),
    ] {
        assert!(failed.said.contains(&part), "{part:?} is not in: {}", failed.said);
    }
    assert_eq!(instance.exec().inc(1), 2, "the first one does not mind");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    for (tls, plain) in [(port, 0), (free_port(), port), (0, port)] {
        let failed = Setup::new().ports(tls, plain).try_start(&Base::new()).err().expect("refused");
        assert_eq!(failed.status.code(), Some(1));
        assert!(failed.said.contains(&port.to_string()), "{}", failed.said);
        assert!(failed.said.contains("in use"), "{}", failed.said);
    }
}

#[test]
fn a_misspelt_setting_is_refused_with_its_neighbour() {
    let failed = Setup::new().set("authd.login.deley", 1).try_start(&Base::new()).err().expect("refused");
    assert!(failed.said.contains("authd.login.delay"), "{}", failed.said);
}

#[test]
fn settings_and_foreign_lines_survive_a_restart() {
    let base = Base::new();
    let setup = || Setup::new().plain().set("serverd.product.build", "\"7\"").config("vmdir", "/vm");
    drop(setup().try_start(&base).unwrap());
    let toml = base.root().join("etc/vmserverd.toml");
    let text = std::fs::read_to_string(&toml).unwrap();
    std::fs::write(&toml, format!("# a note\n{text}")).unwrap();
    let instance = Setup::new().plain().try_start(&base).unwrap();
    assert!(instance.unix().local().ask("GLOBAL server").starts_with("200 "));
    let after = std::fs::read_to_string(&toml).unwrap();
    assert!(after.contains("# a note") && after.contains("build = \"7\""), "{after}");
    let config = std::fs::read_to_string(instance.layout.product_config()).unwrap();
    assert!(config.contains("vmdir = \"/vm\""), "{config}");
}

#[test]
fn a_daemon_that_dies_is_started_again() {
    let instance = Setup::new().plain().start();
    for victim in [instance.monitor(), instance.core(), instance.monitor()] {
        process::kill(victim);
        eventually("the instance serves again", || {
            let stream = std::os::unix::net::UnixStream::connect(instance.socket()).ok()?;
            let mut client = tests::Client::new(tests::Tap::Unix(stream));
            client.try_line().ok()?;
            client.try_send("LOCAL\r\nGLOBAL server\r\n").ok()?;
            client.try_line().ok()?;
            (client.try_line().ok()? == "200 Connected to vmware-serverd.").then_some(())
        });
    }
    assert!(instance.base.said().contains("starting it again"), "{}", instance.base.said());
}

/// The whole system as one ordinary user: that user's local callers, and no passwords.
#[test]
fn an_ordinary_user_runs_an_instance() {
    if !need_root("an instance of an ordinary user, seen by others") {
        return;
    }
    let (owner, other) = (Account::new(), Account::new());
    let instance = Setup::new().tls().plain().hasty().owned_by(&owner).start();
    for child in process::descendants(instance.pid()) {
        let (words, uids) = (process::words(child), process::uids(child));
        // Some ask a question and end.
        assert!(uids == [owner.uid; 4] || !process::runs(child), "{uids:?}: {words:?}");
    }
    let callers = [&owner, &other].map(|account| Caller::new(CALLER, &instance, account));
    for client in [callers[0].unix(), callers[0].tcp()] {
        let mut exec = client.local().server();
        assert_eq!(exec.user(), owner.name);
        let made = owner.home.join("made");
        assert_eq!(exec.op("FileManager_MakeDir", &tests::exec::make_dir(&made)).code(), 0);
        assert!(owner.owns(&made));
        std::fs::remove_dir(made).unwrap();
    }
    for mut client in [callers[1].unix(), callers[1].tcp(), instance.unix(), instance.tcp()] {
        assert_eq!(client.ask("LOCAL"), "530 Local login refused.");
    }
    for account in [&owner, &other] {
        for mut client in [instance.unix(), instance.tcp(), instance.secure()] {
            assert_eq!(client.try_login(&account.name, &account.password), "530 Login incorrect.");
        }
    }
}
