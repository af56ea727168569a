//! The stream of documents: order, splitting, separators, limits, and what cannot be read.

use std::time::Duration;

use tests::client::{Client, End};
use tests::exec::{Exec, request};
use tests::{Instance, Setup, eventually, process};

fn inc(number: impl std::fmt::Display) -> String {
    request("inc", &format!("<number>{number}</number>"))
}

/// One session of each kind.
fn every_way(instance: &Instance) -> Vec<(&'static str, Exec)> {
    let server = |client: Client| client.local().server();
    vec![
        ("unix", server(instance.unix())),
        ("tcp", server(instance.tcp())),
        ("tls", server(instance.secure())),
    ]
}

#[test]
fn ten_thousand_requests_in_flight_come_back_in_order() {
    let instance = Setup::new().tls().plain().start();
    for mut exec in [instance.exec(), instance.tcp().local().server()] {
        let mut writer = exec.client().writer();
        let sender = std::thread::spawn(move || {
            let all: String = (0..10_000).map(inc).collect();
            writer.write_all(all.as_bytes()).unwrap();
        });
        for number in 0..10_000 {
            assert_eq!(exec.reply().out("number"), (number + 1).to_string());
        }
        sender.join().unwrap();
    }
    // TLS: in portions, since one thread does both.
    let mut exec = instance.secure().local().server();
    for portion in 0..100 {
        exec.send((0..100).map(|n| inc(portion * 100 + n)).collect::<String>());
        for number in 0..100 {
            assert_eq!(exec.reply().out("number"), (portion * 100 + number + 1).to_string());
        }
    }
}

/// A caller that sends without end and reads nothing is slowed down, not collected in memory.
#[test]
fn a_sender_that_does_not_read_is_held_back() {
    let instance = Setup::new().plain().start();
    let mut exec = instance.tcp().local().server();
    assert_eq!(exec.inc(1), 2);
    let session = instance.session_of(rustix::process::getuid().as_raw());
    let before = process::resident(session);
    let mut writer = exec.client().writer();
    let sender = std::thread::spawn(move || {
        let portion: String = (0..100).map(inc).collect();
        for _ in 0..1000 {
            writer.write_all(portion.as_bytes()).unwrap();
        }
    });
    // Another session of the same user, served by the same process, meanwhile.
    let mut other = instance.exec();
    for number in 0..200 {
        assert_eq!(other.inc(number), number + 1);
    }
    let grown = process::resident(session).saturating_sub(before);
    // 8 MiB of replies may wait, and some requests; 7 MB of requests and 23 MB of replies may not.
    assert!(grown < 14 << 20, "{grown} bytes");
    for number in 0..100_000u32 {
        assert_eq!(exec.reply().out("number"), (number % 100 + 1).to_string());
    }
    sender.join().unwrap();
}

#[test]
fn a_request_split_at_every_byte() {
    let instance = Setup::new().tls().plain().start();
    let document = "<exec><op>inc</op><in>\n <!-- \u{e9} --><number><![CDATA[4]]>&#50;</number></in></exec>";
    for (way, mut exec) in every_way(&instance) {
        for at in 0..=document.len() {
            let (head, tail) = document.as_bytes().split_at(at);
            exec.send(head);
            // Let the first half be read alone; only then is it a split.
            std::thread::sleep(Duration::from_millis(1));
            exec.send(tail);
            assert_eq!(exec.reply().out("number"), "43", "{way}, split at {at}");
        }
    }
}

#[test]
fn documents_follow_each_other_with_and_without_separators() {
    let instance = Setup::new().tls().plain().start();
    for (way, mut exec) in every_way(&instance) {
        for separator in ["", "\n", "\r\n", "\0", "\0\0", " \t", "\n\0\r\n"] {
            let texts: Vec<String> = (0..5).map(inc).collect();
            exec.send(texts.join(separator) + separator);
            for number in 1..=5 {
                assert_eq!(exec.reply().out("number"), number.to_string(), "{way}, {separator:?}");
            }
        }
        // An empty root ends where it stands; so does one in other clothes.
        exec.send(format!("<exec/>{}<exec />{}", inc(1), inc(2)));
        let codes: Vec<i32> = (0..4).map(|_| exec.reply().code()).collect();
        assert_eq!((codes[1], codes[3]), (0, 0), "{way}: {codes:?}");
        assert!(codes[0] != 0 && codes[2] != 0, "{way}: {codes:?}");
        let declared = "\u{feff}<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- hello --><exec><op>inc</op>\
                        <in><number>42</number></in></exec>";
        assert_eq!(exec.ask(declared).out("number"), "43", "{way}");
        assert_eq!(exec.inc(1), 2, "{way}");
    }
}

#[test]
fn the_end_of_sending_is_not_the_end_of_receiving() {
    let instance = Setup::new().tls().plain().start();
    for (way, mut exec) in every_way(&instance) {
        exec.send((0..50).map(inc).collect::<String>());
        exec.client().end_sending();
        for number in 1..=50 {
            assert_eq!(exec.reply().out("number"), number.to_string(), "{way}");
        }
        assert!(exec.client().closed(), "{way}");
    }
    for (way, mut exec) in every_way(&instance) {
        exec.client().end_sending();
        assert!(exec.client().closed(), "{way}: nothing was asked");
    }
}

/// Documents that are refused, with the reason that must be named where the specification names one.
fn unreadable() -> Vec<(String, &'static str)> {
    let deep = |depth: usize| format!("<exec>{}{}</exec>", "<a>".repeat(depth - 1), "</a>".repeat(depth - 1));
    let attributes = |count: usize| {
        let all: String = (0..count).map(|n| format!(" a{n}='x'")).collect();
        format!("<exec><op{all}>inc</op></exec>")
    };
    let named = |length: usize| format!("<exec><{0}/></exec>", "n".repeat(length));
    vec![
        (deep(17), "nested deeper than 16"),
        (attributes(65), "more than 64 attributes"),
        (named(129), "name too long"),
        (format!("<exec><op {}='1'/></exec>", "n".repeat(129)), "name too long"),
        (inc("1".repeat(65536)), "larger than 65536 bytes"),
        ("hello".into(), ""),
        ("<exec><op>inc</in></exec>".into(), ""),
        ("<exec></exe>".into(), ""),
        ("<exe><op>inc</op></exe>".into(), ""),
        ("<!DOCTYPE exec><exec/>".into(), ""),
        ("<!DOCTYPE x [<!ENTITY a 'b'>]><exec/>".into(), ""),
        ("<exec><op>&unknown;</op></exec>".into(), ""),
        ("<exec><?php ?><op>inc</op></exec>".into(), ""),
        ("<?xml-stylesheet href='x'?><exec/>".into(), ""),
        ("<?xml version='1.0' encoding='UTF-16'?><exec/>".into(), ""),
        ("<exec xmlns='x'><op>inc</op></exec>".into(), ""),
        ("<exec xmlns:a='x'><op>inc</op></exec>".into(), ""),
        ("<a:exec/>".into(), ""),
        ("<exec><a:op>inc</a:op></exec>".into(), ""),
        ("<exec><op a='1' a='2'>inc</op></exec>".into(), ""),
        ("<exec><op a=1>inc</op></exec>".into(), ""),
        ("<exec>text<op>inc</op></exec>".into(), ""),
        ("<exec><op>inc</op><in>text<number>1</number></in></exec>".into(), ""),
        ("<exec><op>inc&#0;</op></exec>".into(), ""),
        ("<exec><op>inc&#x1F;</op></exec>".into(), ""),
        ("<exec><op>&#xD800;</op></exec>".into(), ""),
        ("<exec><op>in\u{1}c</op></exec>".into(), ""),
        ("<exec><op>inc<</op></exec>".into(), ""),
    ]
}

#[test]
fn what_cannot_be_read_is_answered_and_ends_the_connection() {
    let instance = Setup::new().tls().plain().start();
    let mut witness = instance.exec();
    for (document, reason) in unreadable() {
        // Behind requests that are in order, which are answered first.
        let mut exec = instance.tcp().local().server();
        let head = document.chars().take(80).collect::<String>();
        exec.send(inc(1) + &inc(2));
        let _ = exec.client().try_send(document + &inc(3));
        assert_eq!(exec.reply().out("number"), "2");
        assert_eq!(exec.reply().out("number"), "3");
        let (code, text) = exec.reply().error().unwrap_or_else(|| panic!("accepted: {head}"));
        let expected = format!("Invalid argument: malformed request: {reason}");
        assert!(code == -3 && text.starts_with(&expected), "{head}: {code} {text}");
        assert!(text.len() > "Invalid argument: malformed request: ".len(), "{head}: no reason");
        assert!(exec.client().closed(), "{head}: still open");
        assert_eq!(witness.inc(1), 2, "{head}: another session of the same user");
    }
    let mut tls = instance.secure().local().server();
    assert_eq!(tls.ask("<nonsense/>").code(), -3);
    assert!(tls.client().closed());
}

#[test]
fn invalid_utf8_and_cut_documents() {
    let instance = Setup::new().plain().start();
    let mut exec = instance.tcp().local().server();
    assert_eq!(exec.ask(b"<exec><op>inc\xff</op></exec>").code(), -3);
    assert!(exec.client().closed());
    // A document that is cut off by the end of the stream is no request: there is nothing to answer
    // with certainty, so either the reply of a malformed one, or just the end.
    let mut exec = instance.tcp().local().server();
    exec.send(inc(1) + "<exec><op>inc</op><in><numb");
    exec.client().end_sending();
    assert_eq!(exec.reply().out("number"), "2");
    match exec.try_reply() {
        Ok(reply) => {
            assert_eq!(reply.code(), -3);
            assert!(exec.client().closed());
        }
        Err(end) => assert_eq!(end, End::Closed),
    }
}

#[test]
fn what_is_just_within_the_limits_is_accepted() {
    let instance = Setup::new().plain().start();
    let mut exec = instance.tcp().local().server();
    let padding = |total: usize| {
        let frame = inc(1).len() + "<!---->".len();
        format!("<exec><!--{}-->{}", "x".repeat(total - frame), &inc(1)["<exec>".len()..])
    };
    assert_eq!(padding(65536).len(), 65536);
    assert_eq!(exec.ask(padding(65536)).out("number"), "2");
    let attributes: String = (0..64).map(|n| format!(" a{n}='x'")).collect();
    assert_eq!(exec.ask(inc(1).replace("<op>", &format!("<op{attributes}>"))).out("number"), "2");
    let nested = format!("{}{}", "<a>".repeat(14), "</a>".repeat(14));
    assert_eq!(exec.op("inc", &format!("{nested}<number>1</number>")).out("number"), "2");
    let name = "n".repeat(128);
    assert_eq!(exec.op("inc", &format!("<{name}/><number>1</number>")).out("number"), "2");
    let mut over = instance.tcp().local().server();
    assert_eq!(over.ask(padding(65537)).code(), -3);
    assert!(over.client().closed());
}

/// Numbers that are none, too large, or written in another way.
#[test]
fn numbers() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    for (number, result) in [
        ("-1", Some("0")),
        ("2147483648", Some("2147483649")),
        ("9223372036854775806", Some("9223372036854775807")),
        ("-9223372036854775808", Some("-9223372036854775807")),
        (" 42\n", Some("43")),
        ("1.5", Some("2.5")),
        ("9223372036854775807", None),
        ("9223372036854775808", None),
        ("18446744073709551616", None),
        ("1e9", None),
        ("0x10", None),
        ("1 2", None),
        ("", None),
        ("   ", None),
        ("-", None),
        ("NaN", None),
        ("inf", None),
        ("\u{0661}", None),
    ] {
        let reply = exec.ask(inc(number));
        match result {
            Some(result) => assert_eq!(reply.out("number"), result, "{number:?}"),
            None => {
                let (code, text) = reply.error().unwrap_or_else(|| panic!("{number:?}: {}", reply.text));
                assert!(code == -3 && text.starts_with("Invalid argument: number"), "{number:?}: {text}");
            }
        }
    }
    assert_eq!(exec.ask(inc("9".repeat(60_000))).code(), -3);
    assert_eq!(exec.inc(1), 2);
}

/// Paths that are long, odd, or no paths at all.
#[test]
fn paths() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let place = instance.public_directory("paths");
    let here = place.to_str().unwrap();
    let list = |path: &str| request("FileManager_ListDir", &format!("<directory>{path}</directory>"));
    std::fs::create_dir(place.join("a")).unwrap();
    for same in ["/a", "/a/", "//a", "/./a", "/a/../a", "/a//"] {
        assert!(exec.ask(list(&format!("{here}{same}"))).ok(), "{same}");
    }
    let long = |length: usize| {
        let mut path = String::from(here);
        while path.len() < length {
            path.push('/');
            path.extend(std::iter::repeat_n('x', (length - path.len()).min(200)));
        }
        path
    };
    assert_eq!(long(4095).len(), 4095);
    let (code, text) = exec.ask(list(&long(4095))).error().unwrap();
    assert!(code == -999 && text.ends_with(": No such file or directory"), "{code} {text}");
    for length in [4096, 4097, 10_000] {
        let mut exec = instance.exec();
        let (code, text) = exec.ask(list(&long(length))).error().unwrap();
        assert!(code == -3 && text.contains("path too long"), "{length}: {code} {text}");
    }
    let (code, text) = exec.ask(list(&format!("{here}/{}", "y".repeat(256)))).error().unwrap();
    assert!(code == -999 && text.ends_with(": File name too long"), "{code} {text}");
    for none in ["", "a", "./a", "../a", "C:\\x"] {
        let (code, text) = exec.ask(list(none)).error().unwrap();
        assert!(code == -3 && text.starts_with("Invalid argument: "), "{none}: {code} {text}");
    }
    let (code, text) = exec.ask(list(&format!("{here}/a/b/c"))).error().unwrap();
    assert_eq!((code, text), (-999, format!("{here}/a/b/c: No such file or directory")));
    std::fs::write(place.join("file"), "").unwrap();
    let (code, text) = exec.ask(list(&format!("{here}/file/x"))).error().unwrap();
    assert_eq!((code, text), (-999, format!("{here}/file/x: Not a directory")));
    // Characters that a path may hold and a listing must bring back.
    let odd = "new\nline & <tag> %41 \u{e9} \u{1f600} ]]>";
    let escaped = odd.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let arguments = format!("<directory>{here}/{escaped}</directory>");
    assert_eq!(exec.op("FileManager_MakeDir", &arguments).code(), 0);
    assert!(place.join(odd).is_dir());
    assert!(exec.ask(list(here)).all("name").contains(&odd.to_owned()));
    // A name that XML cannot carry is told in base64.
    let raw: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"\xff\x01");
    std::fs::create_dir(place.join(raw)).unwrap();
    let listed = exec.ask(list(here));
    assert!(listed.text.contains("<nameEncoding>base64</nameEncoding>"), "{}", listed.text);
    assert!(listed.all("name").contains(&"/wE=".to_owned()), "{}", listed.text);
}

#[test]
fn lists_have_a_limit() {
    let instance = Setup::new().start();
    let place = instance.public_directory("lists");
    let list = |count: usize| {
        let items = (0..count).map(|n| format!("<directory>{}/{n}</directory>", place.display()));
        request("FileManager_MakeDir", &format!("<directories>{}</directories>", items.collect::<String>()))
    };
    let (code, text) = instance.exec().ask(list(257)).error().unwrap();
    assert!(code == -3 && text.contains("more than 256 items"), "{code} {text}");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0, "nothing is done before all is checked");
    let reply = instance.exec().ask(list(256));
    assert_eq!(reply.code(), 0, "{}", reply.text);
    assert_eq!(reply.all("directory").len(), 256);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 256);
}

/// The attack documents of `targets.md` 5, whole, as fast as they can be sent.
#[test]
fn attack_documents_cost_little() {
    let instance = Setup::new().plain().start();
    let mut witness = instance.exec();
    assert_eq!(witness.inc(1), 2);
    let session = instance.session_of(rustix::process::getuid().as_raw());
    let before = process::resident(session);
    let attributes = |size: usize| {
        let all: String = (0..size / 12).map(|n| format!(" a{n:06}='x'")).collect();
        format!("<exec><op{all}/></exec>")
    };
    let spaces = |size: usize| {
        let all: String = (0..size / 20).map(|n| format!(" xmlns:a{n:06}='x'")).collect();
        format!("<exec{all}/>")
    };
    let nested_spaces = |size: usize| {
        let all: String = (0..size / 24).map(|n| format!("<a xmlns:n{n:06}='x'>")).collect();
        format!("<exec>{all}")
    };
    let bomb =
        "<!DOCTYPE e [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;'>]><exec>&b;</exec>";
    let mut documents = vec![
        ("entity bomb".to_owned(), bomb.to_owned()),
        ("a million nested elements".to_owned(), "<exec>".to_owned() + &"<a>".repeat(1_000_000)),
        ("one long text".to_owned(), "<exec><op>".to_owned() + &"x".repeat(1 << 20)),
        ("one long comment".to_owned(), "<exec><!--".to_owned() + &"- ".repeat(1 << 19)),
        ("one long value".to_owned(), "<exec a='".to_owned() + &"x".repeat(1 << 20)),
        ("no document, white space".to_owned(), " ".repeat(1 << 20)),
        ("many tiny documents".to_owned(), "<exec/>".repeat(200)),
    ];
    for size in [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20] {
        documents.push((format!("attributes, {size}"), attributes(size)));
        documents.push((format!("xmlns, {size}"), spaces(size)));
        documents.push((format!("nested xmlns, {size}"), nested_spaces(size)));
    }
    let rounds = 5;
    for (what, document) in &documents {
        let start = process::processor_time(session);
        for _ in 0..rounds {
            let mut exec = instance.tcp().local().server();
            // Refused documents are not read to the end, so the rest may not be taken any more.
            let _ = exec.client().try_send(document);
            exec.client().end_sending();
            while exec.try_reply().is_ok() {}
        }
        let each = (process::processor_time(session) - start) / rounds;
        assert!(each < Duration::from_millis(5), "{what}: {each:?} of processor time");
        assert_eq!(witness.inc(1), 2, "{what}");
    }
    assert_eq!(instance.session_of(rustix::process::getuid().as_raw()), session, "the process was replaced");
    let grown = process::resident(session).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes are left behind");
}

/// Bytes of the connections to a port of this machine that nobody has read yet, on either side.
fn waiting(port: u16) -> u64 {
    let text = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let port = format!(":{port:04X}");
    let of_port = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let of_port = of_port.filter(|fields| fields[1].ends_with(&port) || fields[2].ends_with(&port));
    // Those that listen count callers there.
    let queues = of_port.filter(|fields| fields[3] == "01").map(|fields| {
        let (sent, received) = fields[4].split_once(':').expect("two queues");
        [sent, received].map(|queue| u64::from_str_radix(queue, 16).expect("hexadecimal")).iter().sum::<u64>()
    });
    queues.sum()
}

/// Many callers with a request each that never ends: what they hold is bounded.
#[test]
fn unfinished_requests_hold_little_memory() {
    let instance = Setup::new().plain().start();
    let mut witness = instance.exec();
    assert_eq!(witness.inc(1), 2);
    let session = instance.session_of(rustix::process::getuid().as_raw());
    let before = process::resident(session);
    let count = 200;
    let unfinished = format!("<exec><op>inc</op><in><!--{}", "x".repeat(65_000));
    let mut held: Vec<Exec> = (0..count).map(|_| instance.tcp().local().server()).collect();
    for exec in &mut held {
        exec.send(&unfinished);
    }
    eventually("all of it has been read", || (waiting(instance.plain) == 0).then_some(()));
    assert_eq!(witness.inc(1), 2);
    let grown = process::resident(session).saturating_sub(before);
    let allowed = count * (2 * 65_536 + 32_768);
    assert!(grown < allowed, "{grown} bytes for {count} requests");
    for exec in &mut held {
        exec.send("--><number>1</number></in></exec>");
        assert_eq!(exec.reply().out("number"), "2");
    }
}
