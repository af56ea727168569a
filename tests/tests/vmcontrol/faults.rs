//! Servers that fail: the right number, a text that helps, and never later than the time-out.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tests::client::{PLAIN_BANNER, TLS_BANNER};
use tests::{Account, Setup, account, need_root};

use crate::c;

/// The time-out of the fast cases, in milliseconds.
const SHORT: u64 = 400;

/// Longer than this over the time-out is a hang, even on a busy host.
const GRACE: Duration = Duration::from_secs(5);

const REPLY: &str = "<exec><product id=\"GSX\"><title>a</title><version>1</version><build>1</build></product>\
    <returncode>1</returncode><out><number>43</number></out></exec>\n";

/// A server that treats each connection as told, one after another, and then listens no more.
fn fake(serve: Vec<Box<dyn FnOnce(TcpStream) + Send>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for serve in serve {
            let (stream, _) = listener.accept().unwrap();
            // The client may leave whenever it likes: how a fake ends does not matter.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| serve(stream)));
        }
    });
    port
}

/// Waits until the client has gone.
fn linger(mut stream: TcpStream) {
    let _ = stream.read_to_end(&mut Vec::new());
}

fn say(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

/// Banner and login; `last` answers GLOBAL.
fn log_in(stream: &mut TcpStream, last: &str) -> BufReader<TcpStream> {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    say(stream, PLAIN_BANNER);
    for answer in ["331 Password required for u.\r\n", "230 User u logged in.\r\n", last] {
        lines.read_line(&mut String::new()).unwrap();
        say(stream, answer);
    }
    lines
}

/// A server that logs in, reads one request and then does as told.
fn after_login(then: impl FnOnce(&mut TcpStream) + Send + 'static) -> Box<dyn FnOnce(TcpStream) + Send> {
    Box::new(|mut stream| {
        let mut lines = log_in(&mut stream, "200 Connected to vmware-serverd.\r\n");
        lines.read_line(&mut String::new()).unwrap();
        then(&mut stream);
    })
}

struct Caller {
    directory: tempfile::TempDir,
    program: std::path::PathBuf,
}

impl Caller {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let program =
            c::compile(directory.path(), &c::sources().join("call.c"), "call", &["-fsanitize=address"]);
        Caller { directory, program }
    }

    fn known_hosts(&self) -> std::path::PathBuf {
        self.directory.path().join("known_hosts")
    }

    /// What connect and `calls` exchanges say.
    fn run(&self, root: &Path, arguments: [&str; 4], milliseconds: u64, calls: u32) -> Vec<String> {
        let mut command = Command::new(&self.program);
        command.args(arguments).args([milliseconds.to_string(), calls.to_string()]);
        command.env("VMSERVERD_ROOT", root).env("VMSERVERD_KNOWN_HOSTS", self.known_hosts());
        let began = Instant::now();
        let said = account::output(&mut command);
        let limit = Duration::from_millis(milliseconds * u64::from(calls + 1)) + GRACE;
        assert!(began.elapsed() < limit, "it took {:?}: {said}", began.elapsed());
        said.lines().map(str::to_owned).collect()
    }

    fn call(&self, port: u16, milliseconds: u64, calls: u32) -> Vec<String> {
        self.run(Path::new("/nowhere"), ["127.0.0.1", &port.to_string(), "u", "p"], milliseconds, calls)
    }
}

#[test]
fn before_the_login_is_done() {
    let caller = Caller::new();
    let refused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let said = caller.call(refused, 10_000, 1).join("\n");
    assert!(said.starts_with("-2 Network failure: cannot reach vmware-authd on host 127.0.0.1"), "{said}");
    assert!(said.contains("Connection refused") && said.contains("Is the service running"), "{said}");
    let said = caller.run(Path::new("/nowhere"), ["no such host", "0", "-", "-"], 10_000, 1).join("\n");
    assert!(said.starts_with("-2 Network failure: cannot look up host no such host: "), "{said}");

    type Serve = fn(TcpStream);
    let cases: [(&str, Serve, u64, &str, &str); 11] = [
        ("silent", linger, SHORT, "-7 Operation timed out", "firewall"),
        ("gone at once", drop, 10_000, "-13 Connection lost", "before the login"),
        (
            "reset",
            |mut stream| {
                say(&mut stream, PLAIN_BANNER);
                // Closed while what came is unread: that is not the orderly end, but a reset.
                stream.peek(&mut [0]).unwrap();
            },
            10_000,
            "-13 Connection lost",
            "before the login",
        ),
        (
            "a byte now and then",
            |mut stream| {
                while stream.write_all(b"2").is_ok() {
                    std::thread::sleep(Duration::from_millis(20));
                }
            },
            SHORT,
            "-7 Operation timed out",
            "",
        ),
        (
            "something else",
            |mut stream| {
                say(&mut stream, "SSH-2.0-OpenSSH_9.2\r\n");
                linger(stream);
            },
            10_000,
            "-14 Unexpected response from vmware-authd: SSH-2.0-OpenSSH_9.2",
            "",
        ),
        (
            "a line without end",
            |mut stream| while stream.write_all(&[b'x'; 4096]).is_ok() {},
            10_000,
            "-14 Unexpected response from vmware-authd: xxx",
            "...",
        ),
        (
            "the next version",
            |mut stream| {
                say(&mut stream, "220 VMware Authentication Daemon Version 2.00\r\n");
                linger(stream);
            },
            10_000,
            "-6 Incompatible version",
            "Version 2.00",
        ),
        (
            "too many",
            |mut stream| say(&mut stream, "421 Too many connections.\r\n"),
            10_000,
            "-7 Operation timed out: Too many connections.",
            "",
        ),
        (
            "TLS that is none",
            |mut stream| {
                say(&mut stream, TLS_BANNER);
                say(&mut stream, &"no TLS here ".repeat(10));
                linger(stream);
            },
            10_000,
            "-",
            "",
        ),
        (
            "TLS that never comes",
            |mut stream| {
                say(&mut stream, TLS_BANNER);
                linger(stream);
            },
            SHORT,
            "-7 Operation timed out: the TLS handshake",
            "",
        ),
        (
            "no server behind it",
            |mut stream| {
                log_in(&mut stream, "511 Error connecting to /usr/sbin/vmware-serverd process.\r\n");
                linger(stream);
            },
            10_000,
            "-14 Unexpected response from vmware-authd: 511 Error connecting to /usr/sbin/vmware-serverd process.",
            "",
        ),
    ];
    for (what, serve, milliseconds, start, part) in cases {
        let said = caller.call(fake(vec![Box::new(serve)]), milliseconds, 1).join("\n");
        assert!(said.starts_with(start) && said.contains(part), "{what}: {said}");
    }
    // Plain bytes where a handshake belongs: the text says that it is TLS that failed.
    let port = fake(vec![Box::new(|mut stream: TcpStream| {
        say(&mut stream, TLS_BANNER);
        let _ = stream.read(&mut [0; 1]);
        say(&mut stream, &"no TLS here ".repeat(10));
        linger(stream);
    })]);
    let said = caller.call(port, 10_000, 1).join("\n");
    assert!(said.starts_with("-2 Network failure: TLS with 127.0.0.1:"), "{said}");
}

#[test]
fn after_the_login() {
    let caller = Caller::new();
    let connected = "0 connected";
    let lost = "-5 Not connected";
    let case = |serve, milliseconds| caller.call(fake(vec![serve]), milliseconds, 2);

    let said = case(after_login(|stream| linger(stream.try_clone().unwrap())), SHORT);
    assert!(said[1].starts_with("-7 Operation timed out: no answer within 0.4 seconds"), "{said:?}");
    assert_eq!((said[0].as_str(), said[2].as_str()), (connected, lost));

    let said = case(after_login(|stream| say(stream, "<exec><product")), 10_000);
    assert!(said[1].starts_with("-13 Connection lost: the server closed the connection"), "{said:?}");
    assert_eq!(said[2], lost);

    for (text, reason) in [
        ("HTTP/1.1 400 Bad Request\r\n\r\n", "text outside the root element"),
        ("<html>no</html>\n", "root element is not exec"),
        ("<!DOCTYPE exec><exec/>", "document type declaration"),
        ("<exec>\u{1}</exec>", "character not allowed"),
    ] {
        let said = case(
            after_login(move |stream| {
                say(stream, text);
                linger(stream.try_clone().unwrap());
            }),
            10_000,
        );
        assert!(said[1].starts_with("-15 Reply not understood: ") && said[1].contains(reason), "{said:?}");
        assert_eq!(said[2], lost);
    }

    // Without end: given up at the limit, not when memory is.
    let said = case(
        after_login(|stream| {
            say(stream, "<exec><out>");
            let piece = vec![b'x'; 1 << 20];
            while stream.write_all(&piece).is_ok() {}
        }),
        60_000,
    );
    assert!(said[1].starts_with("-15 Reply not understood: larger than 67108864 bytes"), "{said:?}");

    // Two answers to one question: the first is taken, the second is not taken for the next.
    let said = case(
        after_login(|stream| {
            say(stream, &(REPLY.to_owned() + REPLY));
            linger(stream.try_clone().unwrap());
        }),
        10_000,
    );
    assert_eq!(format!("0 {}", REPLY.trim_end()), said[1]);
    assert!(said[2].starts_with("-15 Reply not understood"), "{said:?}");

    // Restarted between two calls: connected again, unnoticed.
    let answer = || after_login(|stream| say(stream, REPLY));
    let said = caller.call(fake(vec![answer(), answer()]), 10_000, 2);
    assert_eq!(said, [connected, &format!("0 {}", REPLY.trim_end()), &format!("0 {}", REPLY.trim_end())]);
}

#[test]
fn certificates_are_remembered() {
    if !need_root("certificates are remembered by the C library") {
        return;
    }
    let caller = Caller::new();
    let account = Account::with_plain_password();
    let instance = Setup::new().tls().plain().hasty().start();
    let root = instance.base.root();
    let port = instance.tls.to_string();
    let arguments = |password| ["localhost", port.as_str(), account.name.as_str(), password];
    let said = caller.run(&root, arguments(&account.password), 60_000, 1);
    assert!(said[1].ends_with("<out><number>43</number></out></exec>"), "{said:?}");
    let known = std::fs::read_to_string(caller.known_hosts()).unwrap();
    assert!(known.starts_with(&format!("localhost:{port} sha256:")), "{known}");
    // The same again.
    assert_eq!(caller.run(&root, arguments(&account.password), 60_000, 0), ["0 connected"]);
    let said = caller.run(&root, arguments("wrong"), 60_000, 0);
    assert_eq!(said, ["-4 Permission denied: Login incorrect."]);
    // Another certificate than before.
    let other = known.trim_end().rsplit_once(':').unwrap().0.to_owned() + ":" + &"0".repeat(64) + "\n";
    std::fs::write(caller.known_hosts(), &other).unwrap();
    let said = caller.run(&root, arguments(&account.password), 60_000, 0).join("\n");
    assert!(said.starts_with("-2 Network failure: the certificate of localhost:"), "{said}");
    assert!(said.contains("remove line 1 of") && said.contains("known_hosts"), "{said}");
    assert_eq!(std::fs::read_to_string(caller.known_hosts()).unwrap(), other, "nothing is learnt from it");
    // A local caller over TCP, without the socket, plain and TLS.
    for port in [instance.tls, instance.plain] {
        let said = caller.run(&root, ["-", &port.to_string(), "-", "-"], 60_000, 1);
        assert!(said[1].starts_with("0 <exec>"), "{said:?}");
    }
}
