//! The gateway as a super-server starts it: once for each caller, with the line that the installer of the product
//! wrote into `inetd.conf`.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tests::client::{Client, PLAIN_BANNER, Tap};
use tests::instance::free_port;
use tests::skip::need_program;
use tests::{Account, Base, Setup, eventually, need_root, process, programs};

const WHAT: &str = "the gateway under inetd";

/// A real inetd with one service: the gateway of the instance below `root`.
struct Inetd {
    process: Child,
    port: u16,
    _base: Base,
}

impl Inetd {
    fn new(root: &Path) -> Self {
        let (base, port) = (Base::new(), free_port());
        let program = programs::directory().join("vmware-authd");
        let (program, root) = (program.display(), root.display());
        let line = format!("127.0.0.1:{port} stream tcp nowait root {program} vmware-authd --root {root}\n");
        let file = base.path().join("inetd.conf");
        std::fs::write(&file, line).unwrap();
        // It ends with the test, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "/usr/sbin/inetd", "-i"]).arg(&file);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Inetd { process: command.spawn().expect("setpriv starts"), port, _base: base }
    }

    /// Calls; the first time it may not listen yet.
    fn call(&self) -> Client {
        eventually("inetd listens", || match TcpStream::connect(("127.0.0.1", self.port)) {
            Ok(stream) => Some(Client::new(Tap::Tcp(stream))),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                None
            }
        })
    }

    /// Waits until no gateway of its own is left.
    fn rests(&self) {
        eventually("no process per caller is left", || {
            process::children(self.process.id()).is_empty().then_some(())
        });
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn missing() -> bool {
    !need_root(WHAT) || !need_program(WHAT, "setpriv") || !need_program(WHAT, "inetd")
}

#[test]
fn callers_of_inetd_are_served_like_any_other() {
    if missing() {
        return;
    }
    let instance = Setup::new().tls().hasty().set("authd.connections.perAddress", 3).start();
    let inetd = Inetd::new(instance.layout.root());
    let account = Account::new();
    let mut by_password = inetd.call().greeted().secure().login(&account).server();
    assert_eq!((by_password.inc(1), by_password.user()), (2, account.name.clone()));
    let mut by_kernel = inetd.call().greeted().secure().local().server();
    assert_eq!((by_kernel.inc(1), by_kernel.user()), (2, "root".to_owned()));
    // The session goes on without the process that inetd started.
    inetd.rests();
    assert_eq!(by_password.inc(2), 3);
    let mut wrong = inetd.call().greeted().secure();
    assert_eq!(wrong.try_login(&account.name, "no"), "530 Login incorrect.");
    instance.authd_logs(&format!("login from 127.0.0.1 as {}", account.name));
    // What is limited is what comes from one address, whichever way.
    let _others = [inetd.call().greeted(), inetd.call().greeted()];
    assert_eq!(inetd.call().line(), "421 Too many connections.");
    inetd.rests();
}

#[test]
fn a_plain_gateway_under_inetd_and_one_that_is_started_again() {
    if missing() {
        return;
    }
    // The gateway listens on no port of its own.
    let instance = Setup::new().start();
    let inetd = Inetd::new(instance.layout.root());
    let mut client = inetd.call();
    assert_eq!(client.line(), PLAIN_BANNER.trim_end());
    assert_eq!(client.local().server().inc(1), 2);
    // While there is no network process, callers wait a moment and are served.
    let net = instance.net();
    process::kill(net);
    assert_eq!(inetd.call().greeted().local().server().inc(2), 3);
    assert_ne!(instance.net(), net);
}

#[test]
fn without_a_gateway_the_caller_is_told() {
    if missing() {
        return;
    }
    let base = Base::new();
    let layout = link::Layout::new(Some(&base.root())).unwrap();
    layout.create_directories().unwrap();
    let inetd = Inetd::new(layout.root());
    let mut client = inetd.call();
    assert_eq!(client.line(), "421 Service not available.");
    assert!(client.closed());
    inetd.rests();
    let log = std::fs::read_to_string(layout.log_directory().join("vmware-authd.log")).unwrap();
    assert!(log.contains("is vmware-authd running?"), "{log}");
}
