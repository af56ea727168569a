//! The life of an instance: starting in any order, stopping without losing work, the log, counting.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use link::Layout;
use link::product_config::ProductConfig;
use rustix::process::Signal;
use tests::exec::{make_dir, request};
use tests::instance::{Base, free_port};
use tests::{Account, Caller, Client, Exec, Instance, Setup, eventually, need_root, process, programs};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// The two daemons, started by hand and each alone.
struct ByHand {
    base: Base,
    layout: Layout,
    plain: u16,
}

impl ByHand {
    fn new() -> Self {
        let base = Base::new();
        let layout = Layout::new(Some(&base.root())).unwrap();
        layout.create_directories().unwrap();
        let plain = free_port();
        let mut config = ProductConfig::default();
        config.set("authd.port", &plain.to_string());
        config.set("security.host.ruissl", "FALSE");
        config.set("serverd.fullpath", "/opt/my/serverd");
        config.store(&layout.product_config(), 0o644).unwrap();
        std::fs::write(layout.settings(), "authd.listen = \"127.0.0.1\"\n").unwrap();
        ByHand { base, layout, plain }
    }

    fn start(&self, program: &str) -> Daemon {
        let mut command = Command::new(programs::directory().join(program));
        command.arg("--root").arg(self.layout.root()).arg("--die-with-parent").stdin(Stdio::null());
        let said = std::fs::File::options().create(true).append(true).open(self.base.path().join("said"));
        Daemon(command.stderr(said.unwrap()).spawn().unwrap())
    }

    /// Asks for the server as often as it takes.
    fn serves(&self) -> Exec {
        eventually("the server is reached", || {
            let stream = std::net::TcpStream::connect(("127.0.0.1", self.plain)).ok()?;
            let mut client = Client::new(tests::Tap::Tcp(stream)).greeted().local();
            let reply = client.ask("GLOBAL server");
            if reply == "200 Connected to vmware-serverd." {
                return Some(Exec::new(client));
            }
            assert_eq!(reply, "511 Error connecting to /opt/my/serverd process.");
            None
        })
    }
}

/// Ends with the value.
struct Daemon(Child);

impl Daemon {
    /// Asks it to end and returns its exit status.
    fn end(&mut self) -> Option<i32> {
        process::signal(self.0.id(), Signal::TERM);
        assert!(process::ends_within(self.0.id(), Duration::from_secs(30)), "does not end on SIGTERM");
        self.0.wait().unwrap().code()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_daemons_start_in_any_order() {
    for first in ["vmware-authd", "vmserverd"] {
        let by_hand = ByHand::new();
        let mut one = by_hand.start(first);
        if first == "vmserverd" {
            // It has looked for the gateway in vain when its log says that it runs.
            eventually("the server's log", || {
                let log = std::fs::read_to_string(by_hand.layout.log_directory().join("vmware-serverd.log"));
                log.ok()?.contains("Operations defined in function table:").then_some(())
            });
        } else {
            eventually("the gateway listens", || {
                std::net::TcpStream::connect(("127.0.0.1", by_hand.plain)).ok()
            });
        }
        let other = if first == "vmserverd" { "vmware-authd" } else { "vmserverd" };
        let mut two = by_hand.start(other);
        assert_eq!(eventually_serves(&by_hand), 2, "{first} first");
        assert_eq!((one.end(), two.end()), (Some(0), Some(0)), "{first} first");
    }
}

fn eventually_serves(by_hand: &ByHand) -> i64 {
    eventually("the gateway listens", || std::net::TcpStream::connect(("127.0.0.1", by_hand.plain)).ok());
    by_hand.serves().inc(1)
}

#[test]
fn without_a_server_the_gateway_says_so_and_with_one_again_it_serves() {
    let by_hand = ByHand::new();
    let mut gateway = by_hand.start("vmware-authd");
    eventually("the gateway listens", || std::net::TcpStream::connect(("127.0.0.1", by_hand.plain)).ok());
    let mut client = Client::tcp(by_hand.plain).greeted().local();
    for _ in 0..2 {
        // The path is the setting, verbatim; the caller stays logged in.
        assert_eq!(client.ask("GLOBAL server"), "511 Error connecting to /opt/my/serverd process.");
    }
    for _ in 0..2 {
        let mut server = by_hand.start("vmserverd");
        let mut exec = by_hand.serves();
        assert_eq!(exec.inc(1), 2);
        assert_eq!(server.end(), Some(0));
        assert!(exec.client().closed(), "a session ends with its server");
        eventually("the gateway has noticed", || {
            let reply = Client::tcp(by_hand.plain).greeted().local().ask("GLOBAL server");
            reply.starts_with("511 ").then_some(())
        });
    }
    assert_eq!(gateway.end(), Some(0));
}

#[test]
fn the_server_finds_a_gateway_that_was_started_again() {
    let by_hand = ByHand::new();
    let mut server = by_hand.start("vmserverd");
    for _ in 0..3 {
        let mut gateway = by_hand.start("vmware-authd");
        assert_eq!(eventually_serves(&by_hand), 2);
        assert_eq!(gateway.end(), Some(0));
    }
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_stop_finishes_what_was_begun_and_tears_nothing() {
    let ways: [fn(&Instance) -> Client; 3] = [Instance::unix, Instance::tcp, Instance::secure];
    for connect in ways {
        let mut instance = Setup::new().tls().plain().start();
        let place = instance.public_directory("made");
        let mut exec = connect(&instance).local().server();
        // Fewer than would fill the buffers on the way, so that one thread can do both.
        let count = 300;
        let all: String = (0..count)
            .map(|number| request("FileManager_MakeDir", &make_dir(&place.join(number.to_string()))))
            .collect();
        exec.send(all);
        let mut answered = 0;
        while answered < 20 {
            assert!(exec.reply().ok());
            answered += 1;
        }
        instance.ask_to_end();
        while let Ok(reply) = exec.try_reply() {
            assert!(reply.ok(), "{}", reply.text);
            answered += 1;
        }
        assert!(exec.client().closed(), "half a reply");
        assert_eq!(instance.wait().code(), Some(0));
        let made = std::fs::read_dir(&place).unwrap().count();
        assert_eq!(made, answered, "what was done and what was answered differ");
    }
}

#[test]
fn callers_that_are_not_handed_over_are_told_of_the_stop() {
    let mut instance = Setup::new().tls().plain().start();
    let mut named = instance.tcp();
    assert!(named.ask("USER x").starts_with("331 "));
    let mut callers = [instance.unix(), instance.tcp(), instance.secure(), named];
    let mut before_the_handshake = Client::tcp(instance.tls).greeted();
    instance.ask_to_end();
    for caller in &mut callers {
        assert_eq!(caller.line(), "421 Shutting down.");
        assert!(caller.closed());
    }
    assert!(before_the_handshake.closed());
    assert_eq!(instance.wait().code(), Some(0));
    assert!(tests::client::connect_from([127, 0, 0, 1].into(), instance.plain).is_err(), "still listening");
}

#[test]
fn the_log_begins_with_the_table() {
    let instance = Setup::new().start();
    let log = instance.serverd_log();
    let text = |line: &str| {
        let (stamp, text) = line.split_at("Nov 21 10:00:00: app| ".len());
        let shape: String = stamp
            .chars()
            .map(|c| match c {
                '0'..='9' => '9',
                'A'..='Z' => 'A',
                'a'..='z' => 'a',
                other => other,
            })
            .collect();
        assert_eq!(shape, "Aaa 99 99:99:99: aaa| ", "{line}");
        text.to_owned()
    };
    let lines: Vec<String> = log.lines().map(text).collect();
    let heading = lines.iter().position(|line| line == "Operations defined in function table:");
    let heading = heading.unwrap_or_else(|| panic!("no heading in {log}"));
    assert!(heading < 10, "near the top");
    let listing = ops::table::listing();
    let rows: Vec<&str> = listing.iter().map(String::as_str).filter(|line| line.starts_with("Op ")).collect();
    let logged: Vec<&str> =
        lines[heading..].iter().map(String::as_str).filter(|line| line.starts_with("Op ")).collect();
    assert_eq!(logged, rows);
    assert_eq!(rows.len(), ops::TABLE.len());
    assert!(logged.contains(&"Op inc -> main::increment (authuser)"));
    assert!(
        logged.contains(
            &"Op FileManager_MakeDir -> VMware::VMServerd::FileManager::MakeDir_Handler (authuser)"
        )
    );
    // A second start begins a new log and keeps the old one.
    let base = instance.base.clone();
    drop(instance);
    let again = Setup::new().try_start(&base).unwrap();
    assert_eq!(again.serverd_log().matches("Operations defined in function table:").count(), 1);
    assert!(again.layout.log_directory().join("vmware-serverd-0.log").exists());
}

#[test]
fn requests_are_counted_exactly_over_all_users() {
    if !need_root("the request count over several users") {
        return;
    }
    let accounts = [Account::new(), Account::new()];
    let instance = Setup::new().tls().plain().start();
    let callers = accounts.each_ref().map(|account| Caller::new(CALLER, &instance, account));
    let count =
        |exec: &mut Exec| -> u64 { exec.op("VMServerd_GetRequestCount", "").out("count").parse().unwrap() };
    let mut watcher = instance.exec();
    let before = count(&mut watcher);
    assert_eq!(count(&mut watcher), before + 1, "the question counts too");
    let each = 500;
    std::thread::scope(|scope| {
        for client in
            [callers[0].unix(), callers[0].tcp(), callers[1].unix(), instance.unix(), instance.secure()]
        {
            scope.spawn(move || {
                let mut exec = client.local().server();
                for number in 0..each {
                    // One in ten is refused, and is a request all the same.
                    if number % 10 == 0 {
                        assert_eq!(exec.op("Nonsense", "").code(), -17);
                    } else {
                        assert_eq!(exec.inc(number), number + 1);
                    }
                }
            });
        }
    });
    let five = 5 * u64::try_from(each).unwrap();
    assert_eq!(count(&mut watcher), before + 1 + five + 1);
    // A session process that leaves takes no counts with it.
    let session = instance.session_of(accounts[0].uid);
    process::signal(session, Signal::KILL);
    assert!(process::ends_within(session, Duration::from_secs(10)));
    assert_eq!(count(&mut watcher), before + 1 + five + 2);
}

#[test]
fn an_idle_session_process_leaves_and_the_next_caller_gets_a_new_one() {
    let instance = Setup::new().set("serverd.sessions.idle", 1).start();
    let uid = rustix::process::getuid().as_raw();
    let mut exec = instance.exec();
    assert_eq!(exec.inc(1), 2);
    let session = instance.session_of(uid);
    drop(exec);
    assert!(process::ends_within(session, Duration::from_secs(20)), "stays for nobody");
    let mut exec = instance.exec();
    assert_eq!(exec.inc(1), 2);
    assert_ne!(instance.session_of(uid), session);
}
