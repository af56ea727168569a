//! Who a local caller is: what the kernel says, and when it is not believed.

use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::process::Signal;
use tests::client::Client;
use tests::exec::make_dir;
use tests::{Account, Caller, Instance, Setup, eventually, need_root, process};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");
const REFUSED: &str = "530 Local login refused.";

/// Row 1 of the table of `sock_diag` answers: the caller keeps its socket.
#[test]
fn a_caller_that_stays_is_who_it_is() {
    if !need_root("sock_diag: the caller stays") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().start();
    let caller = Caller::new(CALLER, &instance, &account);
    for client in [caller.unix(), caller.tcp()] {
        let mut client = client;
        assert_eq!(client.ask("LOCAL"), format!("230 User {} logged in.", account.name));
        let mut exec = client.server();
        assert_eq!(exec.user(), account.name);
    }
}

/// Runs `act` while the gateway's network half stands still, so that it finds everything done at once.
fn behind_its_back<T>(instance: &Instance, act: impl FnOnce() -> T) -> T {
    let net = instance.net();
    process::signal(net, Signal::STOP);
    eventually("the network half stands still", || {
        process::status(net, "State").is_some_and(|state| state.starts_with('T')).then_some(())
    });
    let result = act();
    process::signal(net, Signal::CONT);
    result
}

/// Row 2: the caller has ended its sending side. The state is no longer ESTABLISHED.
#[test]
fn a_caller_that_has_stopped_sending_is_refused() {
    if !need_root("sock_diag: the caller half-closes") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let caller = Caller::new(CALLER, &instance, &account);
    // Before the first look.
    let mut client = caller.tcp();
    behind_its_back(&instance, || {
        client.send("LOCAL\r\n");
        finish_sending(&instance, &mut client);
    });
    assert_eq!(client.line(), REFUSED);
    // Between the first look and the second.
    let mut client = caller.tcp().local();
    behind_its_back(&instance, || {
        client.send("GLOBAL server\r\n");
        finish_sending(&instance, &mut client);
    });
    assert_eq!(client.line(), REFUSED);
    assert!(client.closed());
    assert!(instance.sessions().iter().all(|(_, uid)| *uid != account.uid));
}

/// Ends the sending side of a relayed caller and waits until the kernel knows: the gateway's own
/// socket is then in the state CLOSE_WAIT (8).
fn finish_sending(instance: &Instance, client: &mut Client) {
    client.end_sending();
    eventually("the end of sending has arrived", || {
        process::network_sockets(instance.net()).iter().any(|socket| socket.state == "08").then_some(())
    });
}

/// Row 3: the caller has closed. The kernel then names uid 0 and inode 0.
#[test]
fn a_caller_that_has_closed_is_nobody() {
    if !need_root("sock_diag: the caller closes") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let caller = Caller::new(CALLER, &instance, &account);
    let place = instance.public_directory("closed");
    let request = tests::exec::request("FileManager_MakeDir", &make_dir(&place.join("x")));
    // Before the first look, and between the two.
    for logged_in in [false, true] {
        let mut client = if logged_in { caller.tcp().local() } else { caller.tcp() };
        behind_its_back(&instance, || {
            let first = if logged_in { "" } else { "LOCAL\r\n" };
            client.send(format!("{first}GLOBAL server\r\n{request}"));
            finish_sending(&instance, &mut client);
            drop(client);
        });
    }
    eventually("both are refused and logged", || {
        (instance.authd_log().matches("local login refused from 127.0.0.1: ").count() == 2).then_some(())
    });
    assert_eq!(instance.tcp().local().server().user(), "root");
    assert!(!place.join("x").exists(), "somebody obeyed a caller that was gone");
    let log = instance.authd_log();
    assert_eq!(log.matches("local login as root").count(), 1, "{log}");
}

/// Row 4: the socket was made by root. The kernel names its maker, which is as good as an ident
/// answer and no better; the unix socket does not have this weakness, and a setting turns it off.
#[test]
fn a_socket_made_by_root_speaks_for_root_over_tcp_only() {
    if !need_root("sock_diag: a socket made by root") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().start();
    let caller = Caller::new(CALLER, &instance, &account);
    let made_by_root = || {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", instance.plain)).unwrap();
        std::io::Read::read_exact(&mut stream, &mut [0; 47]).unwrap();
        OwnedFd::from(stream)
    };
    assert_eq!(caller.ask_over(made_by_root(), &["LOCAL"]), ["230 User root logged in."]);
    let off = Setup::new().plain().hasty().set("authd.local.tcp", "false").start();
    let mut client = off.tcp();
    assert_eq!(client.ask("LOCAL"), REFUSED);
    assert_eq!(client.ask("USER x"), "331 Password required for x.", "the connection goes on");
    assert_eq!(off.unix().local().server().user(), "root");
    let mut unix = Caller::new(CALLER, &off, &account).unix();
    assert_eq!(unix.ask("LOCAL"), format!("230 User {} logged in.", account.name));
}

/// Ten thousand callers that close at a random moment: none of them may become anybody else.
#[test]
fn racing_closes_never_give_a_wrong_identity() {
    if !need_root("ten thousand racing closes") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().set("authd.connections.perAddress", 4000).start();
    let caller = Caller::new(CALLER, &instance, &account);
    let place = instance.public_directory("race");
    let racers: Vec<_> = (1..=4)
        .map(|seed: u32| {
            let seed = (seed * 0x9e37).to_string();
            let arguments = ["race", &instance.plain.to_string(), "2500", &seed, place.to_str().unwrap()];
            caller.command(&arguments).spawn().unwrap()
        })
        .collect();
    for mut racer in racers {
        assert!(racer.wait().unwrap().success());
    }
    // All connections are settled when the gateway holds none of them any more.
    eventually("the last of the racers is gone", || {
        let sockets = tests::process::network_sockets(instance.net());
        (sockets.iter().filter(|socket| socket.state != "0A").count() == 0).then_some(())
    });
    assert_eq!(instance.tcp().local().server().inc(1), 2);
    let entries: Vec<_> = std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap()).collect();
    for entry in &entries {
        assert_eq!(
            entry.metadata().unwrap().uid(),
            account.uid,
            "{:?} was made by somebody else",
            entry.path()
        );
    }
    assert!(entries.len() > 100, "only {} of 10000 were served: the race is not run", entries.len());
    let log = instance.authd_log();
    // The last line is our own login, which is root's.
    let logins: Vec<&str> = log.lines().filter(|line| line.contains("local login as ")).collect();
    let (ours, theirs) = logins.split_last().unwrap();
    assert!(ours.contains(" as root "), "{ours}");
    let right = format!("local login as {} (tcp, port ", account.name);
    assert!(theirs.iter().all(|line| line.contains(&right)), "a wrong name is in the log");
    assert!(log.contains("local login refused from 127.0.0.1: "), "no close came early enough to be refused");
}

/// `LOCAL` is for callers of this machine that the kernel can name and the user database knows.
#[test]
fn callers_without_an_account_are_refused() {
    if !need_root("a uid without an account") {
        return;
    }
    let instance = Setup::new().plain().hasty().start();
    let mut stranger = Account::new();
    // A number that no account has.
    stranger.uid = 3_999_999_999;
    stranger.gid = 3_999_999_999;
    let caller = Caller::new(CALLER, &instance, &stranger);
    for mut client in [caller.unix(), caller.tcp()] {
        assert_eq!(client.ask("LOCAL"), REFUSED);
        assert_eq!(client.ask("USER x"), "331 Password required for x.");
    }
    // The number that the kernel shows for users it cannot name here.
    stranger.uid = 65534;
    let mut client = Caller::new(CALLER, &instance, &stranger).tcp();
    assert_eq!(client.ask("LOCAL"), REFUSED);
    instance.authd_logs("local login refused from 127.0.0.1: ");
    // userdel at the end of the test removes the account by name.
}

/// A name chosen by the caller cannot look like a line of the log.
#[test]
fn names_cannot_forge_log_lines() {
    let instance = Setup::new().plain().hasty().start();
    let mut client = instance.tcp();
    let name = "x%25y \u{1b}[31m vmware-authd[1]: login from 10.0.0.1 as root ".to_owned() + &"z".repeat(100);
    assert_eq!(client.try_login(&name, ""), "530 Login incorrect.");
    instance.authd_logs("login failed from 127.0.0.1 as x%25y %1B[31m vmware-authd");
    let log = instance.authd_log();
    let line = log.lines().find(|line| line.contains("x%25y")).unwrap();
    assert!(line.len() < 160 && !line.contains('\u{1b}'), "{line}");
}
