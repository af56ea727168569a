//! The gateway's lines, byte by byte: banners, states, framing, escapes, limits of one line.

use tests::client::{Client, End, PLAIN_BANNER, TLS_BANNER};
use tests::{Account, Instance, Setup, need_root};

const PLEASE: &str = "530 Please login with USER and PASS.";

/// One connection of each kind.
fn every_way(instance: &Instance) -> Vec<(&'static str, Client)> {
    vec![("unix", instance.unix()), ("tcp", instance.tcp()), ("tls", instance.secure())]
}

#[test]
fn banners_are_exact_and_come_in_one_piece() {
    let instance = Setup::new().tls().plain().start();
    assert_eq!((TLS_BANNER.len(), PLAIN_BANNER.len()), (86, 47));
    for (mut client, banner) in [
        (Client::tcp(instance.tls), TLS_BANNER),
        (Client::tcp(instance.plain), PLAIN_BANNER),
        (Client::unix(&instance.socket()), PLAIN_BANNER),
    ] {
        // The first read returns it whole: it was one write.
        assert_eq!(client.read_once().as_deref(), Ok(banner.as_bytes()));
        assert!(client.stays());
    }
}

#[test]
fn the_one_port_is_plain_when_tls_is_off() {
    let instance = Setup::new().plain().start();
    assert_eq!(Client::tcp(instance.plain).read_once().as_deref(), Ok(PLAIN_BANNER.as_bytes()));
    assert_eq!(instance.ready.split(' ').nth(1), Some("tls=off"));
}

#[test]
fn both_tls_versions_are_spoken_and_the_certificate_is_kept() {
    use std::os::unix::fs::PermissionsExt;
    let instance = Setup::new().tls().start();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let client = Client::tcp(instance.tls).greeted().secure_with(&[version]);
        let mut client = client.unwrap_or_else(|error| panic!("{version:?}: {error}"));
        assert_eq!(client.tls().protocol_version(), Some(version.version));
        assert_eq!(client.ask("BANNER"), TLS_BANNER.trim_end_matches("\r\n"));
        assert_eq!(client.ask("QUIT"), "221 Goodbye.");
        assert!(client.closed());
    }
    let files = ["rui.crt", "rui.key"].map(|name| instance.layout.ssl_directory().join(name));
    let modes = files.each_ref().map(|path| path.metadata().unwrap().permissions().mode() & 0o777);
    assert_eq!(modes, [0o444, 0o400]);
    let before = std::fs::read(&files[0]).unwrap();
    let base = instance.base.clone();
    drop(instance);
    let again = Setup::new().tls().try_start(&base).unwrap();
    assert_eq!(std::fs::read(&files[0]).unwrap(), before, "the certificate was made anew");
    drop(again.secure());
}

/// Every row and column of the table of states, `PASS` with a right password apart.
#[test]
fn the_table_of_states() {
    let instance = Setup::new().tls().plain().hasty().start();
    let other_words = ["HELP", "NOOP", "AUTH", "STARTTLS", "VERSION", "EXPN x y", "\u{e9}"];
    for (way, mut client) in every_way(&instance) {
        let banner = if way == "tls" { TLS_BANNER } else { PLAIN_BANNER }.trim_end_matches("\r\n");
        // NEW
        assert_eq!(client.ask("PASS x"), "503 Login with USER first.");
        for command in ["GLOBAL server", "CONNECT /a.vmx mks", "THUMBPRINT abc"].iter().chain(&other_words) {
            assert_eq!(client.ask(command), PLEASE, "{way}, NEW, {command}");
        }
        assert_eq!(client.ask("BANNER"), banner);
        // NAMED
        assert_eq!(client.ask("USER nobody-1"), "331 Password required for nobody-1.");
        assert_eq!(client.ask("USER nobody-2"), "331 Password required for nobody-2.");
        for command in ["GLOBAL server", "CONNECT /a.vmx mks", "THUMBPRINT abc"].iter().chain(&other_words) {
            assert_eq!(client.ask(command), PLEASE, "{way}, NAMED, {command}");
        }
        assert_eq!(client.ask("BANNER"), banner);
        // An empty password is a failed login, and leads back to NEW.
        assert_eq!(client.ask("PASS "), "530 Login incorrect.");
        assert_eq!(client.ask("PASS x"), "503 Login with USER first.");
        // IN, by way of NAMED
        assert_eq!(client.ask("USER nobody-3"), "331 Password required for nobody-3.");
        let mut client = client.local();
        for command in ["USER x", "PASS x", "LOCAL"] {
            assert_eq!(client.ask(command), "503 Already logged in.", "{way}, IN, {command}");
        }
        for command in other_words {
            assert_eq!(client.ask(command), "500 Unknown command.", "{way}, IN, {command}");
        }
        assert_eq!(client.ask("BANNER"), banner);
        // A hand-over that fails leaves the caller logged in.
        assert_eq!(client.ask("GLOBAL clients"), "501 Bad argument.");
        assert_eq!(client.ask("QUIT"), "221 Goodbye.");
        assert!(client.closed());
    }
    for (way, mut client) in every_way(&instance) {
        assert_eq!(client.ask("QUIT"), "221 Goodbye.", "{way}, NEW");
        assert!(client.closed());
    }
    for (way, mut client) in every_way(&instance) {
        assert_eq!(client.ask("USER x"), "331 Password required for x.");
        assert_eq!(client.ask("QUIT"), "221 Goodbye.", "{way}, NAMED");
        assert!(client.closed());
    }
    for (way, client) in every_way(&instance) {
        assert_eq!(client.local().server().inc(42), 43, "{way}");
    }
}

#[test]
fn a_right_password_logs_in_and_a_wrong_one_may_be_followed_by_another_try() {
    if !need_root("a right password logs in") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().tls().plain().hasty().start();
    for (way, mut client) in every_way(&instance) {
        assert_eq!(client.try_login(&account.name, "wrong"), "530 Login incorrect.", "{way}");
        assert_eq!(client.ask("PASS x"), "503 Login with USER first.");
        assert_eq!(client.try_login("no-such-user", &account.password), "530 Login incorrect.");
        // Trailing spaces belong to a password, and not to a name.
        let spaced = format!("{} ", account.password);
        assert_eq!(client.try_login(&account.name, &spaced), "530 Login incorrect.");
        let welcome = format!("230 User {} logged in.", account.name);
        assert_eq!(client.try_login(&format!("{}  ", account.name), &account.password), welcome, "{way}");
        assert_eq!(client.ask("PASS x"), "503 Already logged in.");
        assert_eq!(client.server().user(), account.name);
    }
    instance.authd_logs(&format!("login failed from 127.0.0.1 as {}", account.name));
    instance.authd_logs(&format!("login from 127.0.0.1 as {} \n", account.name));
    instance.authd_logs(&format!("session of {} handed to serverd", account.name));
    assert!(!instance.authd_log().contains("staple"), "a password is in the log");
}

#[test]
fn arguments_of_the_commands_after_login() {
    let instance = Setup::new().tls().plain().start();
    for (way, client) in every_way(&instance) {
        let mut client = client.local();
        for bad in [
            "GLOBAL",
            "GLOBAL ",
            "GLOBAL  server",
            "GLOBAL server x",
            "GLOBAL %73erverd",
            "CONNECT",
            "CONNECT /a.vmx",
            "CONNECT a.vmx mks",
            "CONNECT /a.vmx vnc",
            "CONNECT /a%00.vmx mks",
            "THUMBPRINT",
            "THUMBPRINT ",
            "THUMBPRINT a b",
        ] {
            assert_eq!(client.ask(bad), "501 Bad argument.", "{way}: {bad}");
        }
        assert_eq!(client.ask(format!("THUMBPRINT {}", "x".repeat(65))), "501 Bad argument.");
        let unknown = client.ask("CONNECT /no such/machine%2evmx mks");
        assert_eq!(unknown, "551 The config file /no such/machine.vmx is not registered.", "{way}");
        let long = client.ask(format!("CONNECT /{} mks", "x".repeat(2000)));
        assert!(long.starts_with("551 The config file /xxx") && long.contains("..."), "{long}");
        assert!(long.len() + 2 < 1024, "{}", long.len());
        let argument = client.ask("GLOBAL %73erver");
        assert_eq!(argument, "200 Connected to vmware-serverd.", "{way}: arguments are unescaped");
    }
}

#[test]
fn thumbprint_is_the_sha1_of_the_certificate() {
    use std::process::Command;
    let instance = Setup::new().tls().plain().start();
    let certificate = instance.layout.ssl_directory().join("rui.crt");
    let mut command = Command::new("openssl");
    command.args(["x509", "-noout", "-fingerprint", "-sha1", "-in"]).arg(certificate);
    let printed = tests::account::output(&mut command);
    let expected = printed.trim().rsplit('=').next().unwrap().to_owned();
    for (way, client) in every_way(&instance) {
        let mut client = client.local();
        for argument in ["abcdefghijklmnop", "x", &"~".repeat(64)] {
            assert_eq!(client.ask(format!("THUMBPRINT {argument}")), format!("200 {expected}"), "{way}");
        }
    }
}

#[test]
fn lines_end_in_crlf_or_lf_and_words_have_no_case() {
    let instance = Setup::new().tls().plain().start();
    for (way, mut client) in every_way(&instance) {
        client.send("user Mixed Case \n");
        assert_eq!(client.line(), "331 Password required for Mixed Case.", "{way}");
        client.send("bAnNeR\n");
        assert!(client.line().starts_with("220 "), "{way}");
        client.send("local\nGlobal server\n");
        assert!(client.line().starts_with("230 "), "{way}");
        assert_eq!(client.line(), "200 Connected to vmware-serverd.", "{way}");
    }
}

#[test]
fn empty_lines() {
    let instance = Setup::new().tls().plain().start();
    for (way, mut client) in every_way(&instance) {
        // What nmap sends: two empty lines, one answer.
        client.send("\r\n\r\n");
        assert_eq!(client.line(), PLEASE, "{way}");
        assert!(client.stays(), "{way}: a second answer");
        client.send("\n\n\r\n");
        assert!(client.stays(), "{way}: empty lines that follow directly");
        assert_eq!(client.ask("USER x"), "331 Password required for x.");
        client.send("\r\n\r\n\r\n");
        assert_eq!(client.line(), PLEASE, "{way}: after a line that was not empty");
        assert!(client.stays(), "{way}");
        let mut client = client.local();
        client.send("\r\n\r\n");
        assert!(client.stays(), "{way}: after login");
        assert!(client.ask("BANNER").starts_with("220 "));
    }
}

#[test]
fn malformed_lines_are_skipped_and_the_connection_goes_on() {
    let instance = Setup::new().tls().plain().start();
    for (way, mut client) in every_way(&instance) {
        for line in [
            "\0\r\n",
            "US\0ER x\r\n",
            "USER x\0\r\n",
            "USER a\rb\r\n",
            "\r\r\n",
            "USER x\r\r\n",
            "\rUSER x\n",
            "QUIT\0\n",
        ] {
            client.send(line);
            assert_eq!(client.line(), "502 Malformed line.", "{way}: {line:?}");
        }
        assert_eq!(client.ask("USER x"), "331 Password required for x.", "{way}");
        let mut client = client.local();
        client.send("GLOBAL\0server\r\n");
        assert_eq!(client.line(), "502 Malformed line.", "{way}, logged in");
        assert_eq!(client.server().inc(1), 2);
    }
}

#[test]
fn lines_at_the_limit_and_over_it() {
    let instance = Setup::new().tls().plain().hasty().start();
    let name = |length: usize| format!("USER {}", "x".repeat(length));
    for (way, mut client) in every_way(&instance) {
        for end in ["\r\n", "\n"] {
            for length in [250, 256, 257, 350, 4000, 4091] {
                client.send(name(length) + end);
                let shown = if length > 256 { "x".repeat(256) + "..." } else { "x".repeat(length) };
                assert_eq!(client.line(), format!("331 Password required for {shown}."), "{way}");
            }
        }
        assert_eq!(client.ask("USER x"), "331 Password required for x.");
        assert_eq!(client.ask(format!("PASS {}", "y".repeat(4091))), "530 Login incorrect.", "{way}");
        for command in ["GLOBAL", "CONNECT", "THUMBPRINT", "NOTHING"] {
            assert_eq!(client.ask(format!("{command} {}", "z".repeat(4000))), PLEASE, "{way}");
        }
        let mut client = client.local();
        for command in ["GLOBAL", "THUMBPRINT", "CONNECT"] {
            assert_eq!(client.ask(format!("{command} {}", "z".repeat(4000))), "501 Bad argument.", "{way}");
        }
    }
    // The 4097th byte decides, whether a line end would have come or not.
    for tail in ["", "\r\n", "yyyyyyyyyy\r\nUSER x\r\n"] {
        for (way, mut client) in every_way(&instance) {
            client.send(name(4092) + tail);
            assert_eq!(client.line(), "502 Line too long.", "{way}");
            assert!(client.closed(), "{way}");
        }
    }
    for (way, client) in every_way(&instance) {
        let mut client = client.local();
        // A megabyte: more than any buffer on the way; what is not read may reset the connection.
        let _ = client.try_send("x".repeat(1 << 20));
        match client.try_line() {
            Ok(line) => assert_eq!(line, "502 Line too long.", "{way}, logged in"),
            Err(end) => assert_eq!(end, End::Closed, "{way}"),
        }
    }
    instance.authd_logs("closed: line too long");
}

#[test]
fn replies_quote_names_escaped() {
    let instance = Setup::new().plain().start();
    let mut client = instance.tcp();
    for (sent, shown) in [
        ("%41%fF".as_bytes(), b"A\xff".as_slice()),
        (b"%", b"%25"),
        (b"%%", b"%25%25"),
        (b"%n%s%F", b"%25n%25s%25F"),
        (b"%\xff", b"%25\xff"),
        (b"%2541", b"%2541"),
        (b"a%7fb\x7fc", b"a%7Fb%7Fc"),
        (b"a%01b\x02c\td", b"a%01b%02c%09d"),
        (b"\x80\xff\xc3\xa9", b"\x80\xff\xc3\xa9"),
        (b"%20lead and inner%20 ", b" lead and inner"),
    ] {
        client.send([b"USER ", sent, b"\r\n"].concat());
        let reply = client.read_to(b"\r\n").unwrap();
        // An escaped space at the end may count as part of the name or as trailing: both readings of
        // "trailing spaces are removed" are harmless, so only the part before it is compared.
        let start = [b"331 Password required for ", shown].concat();
        assert!(
            reply.starts_with(&start),
            "{:?} gave {:?}",
            String::from_utf8_lossy(sent),
            String::from_utf8_lossy(&reply)
        );
    }
    for bad in ["%00", "%0a", "%0A", "%0d", "%0D", "x%00y"] {
        assert_eq!(client.ask(format!("USER {bad}")), "501 Bad argument.", "{bad}");
        assert_eq!(client.ask("USER x"), "331 Password required for x.");
        assert_eq!(client.ask(format!("PASS {bad}")), "501 Bad argument.", "{bad}");
    }
    assert_eq!(client.ask("USER"), "501 Bad argument.");
    assert_eq!(client.ask("USER "), "501 Bad argument.");
    assert_eq!(client.ask("USER    "), "501 Bad argument.");
}

/// Two holes of the original family were `%` followed by a byte that is no digit.
#[test]
fn every_pair_of_bytes_behind_a_percent_sign() {
    let instance = Setup::new().plain().start();
    let mut client = instance.tcp();
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|value| u8::try_from(value).unwrap());
    let mut asked = 0;
    for first in 0..=255u8 {
        // Bytes that end or break a line are another matter.
        let usable = |byte: &u8| !matches!(byte, b'\0' | b'\r' | b'\n');
        let seconds: Vec<u8> = if usable(&first) { (0..=255).filter(usable).collect() } else { Vec::new() };
        let lines = seconds.iter().flat_map(|second| [b"USER a%", &[first, *second][..], b"z\r\n"].concat());
        client.send(lines.collect::<Vec<u8>>());
        for second in seconds {
            let reply = client.read_to(b"\r\n").unwrap();
            let name = match (digit(first), digit(second)) {
                (Some(high), Some(low)) => vec![b'a', high * 16 + low, b'z'],
                _ => vec![b'a', b'%', first, second, b'z'],
            };
            let expected = if name.iter().any(|byte| !usable(byte)) {
                b"501 Bad argument.\r\n".to_vec()
            } else {
                let mut text = b"331 Password required for ".to_vec();
                for byte in name {
                    match byte {
                        b'%' | 0..0x20 | 0x7f => text.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                        byte => text.push(byte),
                    }
                }
                [&text, b".\r\n".as_slice()].concat()
            };
            assert_eq!(reply, expected, "%{first:02x}{second:02x}");
            asked += 1;
        }
    }
    assert_eq!(asked, 253 * 253);
}

#[test]
fn a_hundred_commands_in_one_segment_are_answered_in_order() {
    let instance = Setup::new().tls().plain().start();
    for (way, mut client) in every_way(&instance) {
        client.send((0..100).map(|number| format!("USER u{number}\r\n")).collect::<String>());
        for number in 0..100 {
            assert_eq!(client.line(), format!("331 Password required for u{number}."), "{way}");
        }
    }
}

#[test]
fn one_byte_at_a_time() {
    let instance = Setup::new().tls().plain().start();
    for (way, mut client) in every_way(&instance) {
        let mut say = |text: &str| {
            for byte in text.bytes() {
                client.send([byte]);
            }
        };
        say("USER x\r\nLOCAL\r\nGLOBAL server\r\n");
        say("<exec><op>inc</op><in><number>42</number></in></exec>");
        assert_eq!(client.line(), "331 Password required for x.", "{way}");
        assert!(client.line().starts_with("230 "), "{way}");
        assert_eq!(client.line(), "200 Connected to vmware-serverd.", "{way}");
        let mut exec = tests::Exec::new(client);
        assert_eq!(exec.reply().out("number"), "43", "{way}");
    }
}

#[test]
fn what_follows_the_hand_over_line_is_not_lost() {
    let instance = Setup::new().tls().plain().start();
    for (way, mut client) in every_way(&instance) {
        let requests: String =
            (0..20).map(|n| tests::exec::request("inc", &format!("<number>{n}</number>"))).collect();
        client.send(format!("LOCAL\r\nGLOBAL server\r\n{requests}"));
        assert!(client.line().starts_with("230 "), "{way}");
        assert_eq!(client.line(), "200 Connected to vmware-serverd.", "{way}");
        let mut exec = tests::Exec::new(client);
        for number in 0..20 {
            assert_eq!(exec.reply().out("number"), (number + 1).to_string(), "{way}");
        }
    }
}

#[test]
fn tls_on_a_plain_port_and_plain_on_a_tls_port() {
    let instance = Setup::new().tls().plain().set("authd.login.deadline", 3).start();
    // A handshake on the plain port gets lines or the end, never silence.
    let handshake = instance.tcp().secure_with(&[&rustls::version::TLS13]);
    assert!(handshake.is_err());
    // Lines on the TLS port end it; at most an alert comes back.
    let mut client = Client::tcp(instance.tls).greeted();
    client.send("USER alice\r\nPASS secret\r\n");
    let mut answer = Vec::new();
    let end = loop {
        match client.read_once() {
            Ok(bytes) => answer.extend(bytes),
            Err(end) => break end,
        }
    };
    assert_eq!(end, End::Closed);
    assert!(answer.is_empty() || answer.first() == Some(&0x15), "{answer:?}");
    assert_eq!(instance.secure().local().server().inc(1), 2, "others are not affected");
}

#[test]
fn looking_at_the_banner_leaves_no_trace() {
    let instance = Setup::new().tls().plain().start();
    instance.authd_logs("vmserverd is connected");
    let before = instance.authd_log();
    for _ in 0..20 {
        drop(instance.tcp());
        drop(Client::tcp(instance.tls).greeted());
        drop(instance.unix());
    }
    // A login afterwards is the first thing that is logged.
    let local = instance.tcp().local();
    instance.authd_logs("local login as ");
    let after = instance.authd_log();
    let new = after.strip_prefix(&before).unwrap();
    assert!(new.lines().next().unwrap().contains("login"), "{new}");
    drop(local);
}
