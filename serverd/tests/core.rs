//! The server as processes: core and session processes, with the test as the gateway.
//!
//! As root, sessions of root and of `nobody` are tried; as an ordinary user, those of that user.

mod instance;

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;

use instance::{Client, End, Instance, NOBODY, between, identity, inc, is_root, own_uid, status};
use rustix::process::{Signal, kill_process};

#[tokio::test]
async fn a_handed_over_session_is_served_with_its_early_bytes() {
    let (instance, mut gateway) = Instance::started("").await;
    let session = gateway.reserve(own_uid()).await.unwrap();
    let early = format!("{}{}", inc(42), &inc(1)[..20]);
    let mut client = gateway.hand_over(session, identity(own_uid()), early.as_bytes()).await;
    assert_eq!(between(&client.read().unwrap(), "number"), "43");
    assert_eq!(between(&client.ask(&inc(1)[20..]), "number"), "2");
    assert_eq!(client.count(), 3);
    let log = instance.log();
    let lines: Vec<_> = log.lines().filter_map(|line| line.split_once(": app| ")).collect();
    assert_eq!(lines.len(), log.lines().count(), "{log}");
    assert!(lines.iter().all(|(stamp, _)| stamp.len() == "Nov 21 10:00:00".len()), "{log}");
    let texts: Vec<_> = lines.iter().map(|(_, text)| *text).collect();
    let heading = texts.iter().position(|text| *text == "Operations defined in function table:").unwrap();
    let listing = ops::table::listing();
    assert_eq!(texts[heading..heading + listing.len()], listing);
}

#[tokio::test]
async fn every_operation_of_the_table_is_answered() {
    let (_instance, mut gateway) = Instance::started("").await;
    let mut client = gateway.session(own_uid()).await;
    let home = identity(own_uid()).home;
    for (operation, arguments, expected) in [
        ("dec", "<number>42</number>", "<number>41</number>"),
        ("div", "<dividend>84</dividend><divisor>2</divisor>", "<number>42</number>"),
        ("FileManager_GetHomeDir", "", &*format!("<directory>{home}</directory>")),
        ("FileManager_GetParentDir", "<directory>/a/b/</directory>", "<directory>/a</directory>"),
        ("FileManager_ListDir", "<directory>/proc/self/fdinfo/..</directory>", "<entry><name>attr</name>"),
        ("FileManager_MakeDir", "<directory>/</directory>", "/: File exists</error>"),
        ("VMServerd_GetConnectedVMList", "", "<out><vms/></out>"),
        ("VMServerd_GetOperationTable", "<details>1</details>", "<handler>main::increment</handler>"),
        ("VMServerd_GetProductInfo", "", "<implementation><name>vmserverd</name>"),
    ] {
        let reply = client.ask(&format!("<exec><op>{operation}</op><in>{arguments}</in></exec>"));
        assert!(reply.contains(expected), "{operation}: {reply}");
    }
}

#[tokio::test]
async fn each_user_works_with_the_rights_of_that_user() {
    if !is_root() {
        eprintln!("skipped: becoming another user takes root");
        return;
    }
    let (instance, mut gateway) = Instance::started("[serverd.admin]\ngroup = \"nogroup\"").await;
    let mut root = gateway.session(0).await;
    let mut nobody = gateway.session(NOBODY).await;
    assert_eq!(root.fact("VMServerd_IsAdminUser", "user"), "root");
    assert_eq!(nobody.fact("VMServerd_IsAdminUser", "user"), "nobody");
    assert_eq!(nobody.fact("VMServerd_IsAdminUser", "isAdmin"), "1");

    let open = tempfile::tempdir().unwrap();
    std::fs::set_permissions(open.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let reply = nobody.make_dir(&open.path().join("mine"));
    assert!(reply.contains("<returncode>1</returncode>"), "{reply}");
    let made = std::fs::metadata(open.path().join("mine")).unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (NOBODY, NOBODY, 0o775));
    let closed = tempfile::tempdir().unwrap();
    let path = closed.path().join("not-mine");
    let reply = nobody.make_dir(&path);
    let text = format!("<error code=\"-4\">Permission denied: {}</error>", path.display());
    assert!(reply.contains(&text), "{reply}");
    assert!(root.make_dir(&path).contains("<returncode>1</returncode>"));
    assert_eq!(std::fs::metadata(&path).unwrap().uid(), 0);

    let processes = instance.processes();
    let of = |uid| processes.iter().find(|(of, _)| *of == uid).unwrap().1;
    let process = of(NOBODY);
    for label in ["Uid:", "Gid:"] {
        assert_eq!(status(process, label), "65534 65534 65534 65534");
    }
    assert_eq!(status(process, "Groups:"), "65534");
    for set in ["CapPrm:", "CapEff:", "CapInh:", "CapAmb:"] {
        assert_eq!(status(process, set), "0000000000000000", "{set}");
    }
    assert_eq!(status(process, "NoNewPrivs:"), "1");
    assert_eq!(status(process, "Umask:"), "0022");
    // Not dumpable: what is below /proc/PID belongs to root.
    let inside = std::fs::metadata(format!("/proc/{}/fd", process.as_raw_nonzero())).unwrap();
    assert_eq!(inside.uid(), 0);
    // The core keeps what it uses: chown, dac_read_search, kill, setgid, setuid.
    assert_eq!(status(instance.pid(), "CapEff:"), "00000000000000e5");
    assert_eq!(status(instance.pid(), "CapPrm:"), "00000000000000e5");
}

#[tokio::test]
async fn the_historical_bug_is_shown_only_when_asked_for() {
    let uid = if is_root() { NOBODY } else { own_uid() };
    let base = tempfile::tempdir().unwrap();
    std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let path = base.path().join("a/b");
    let request = format!(
        "<exec><op>FileManager_MakeDir</op><in><directory>{}</directory><makeParents>1</makeParents></in></exec>",
        path.display()
    );
    for (setting, code) in [("true", "0"), ("false", "1")] {
        let (_instance, mut gateway) =
            Instance::started(&format!("[serverd.compat]\nhistoricBugs = {setting}")).await;
        let reply = gateway.session(uid).await.ask(&request);
        // The historical way makes every prefix under the root, where this user may not.
        assert_eq!(between(&reply, "returncode"), code, "{reply}");
    }
    assert!(path.is_dir());
}

#[tokio::test]
async fn a_killed_session_process_costs_its_sessions_and_nothing_else() {
    let (instance, mut gateway) = Instance::started("").await;
    let mut client = gateway.session(own_uid()).await;
    assert_eq!(client.inc(1), 2);
    let (_, pid) = instance.processes()[0];
    kill_process(pid, Signal::KILL).unwrap();
    assert_eq!(client.read(), None);
    let mut next = gateway.session(own_uid()).await;
    assert_eq!(next.inc(5), 6);
    // The count of the process that died is kept.
    assert_eq!(next.count(), 3);
}

#[tokio::test]
async fn a_session_on_its_way_to_a_dying_process_goes_to_the_next() {
    let (instance, mut gateway) = Instance::started("").await;
    let mut first = gateway.session(own_uid()).await;
    assert_eq!(first.inc(1), 2);
    let (_, pid) = instance.processes()[0];
    kill_process(pid, Signal::STOP).unwrap();
    let mut on_the_way: Vec<Client> = Vec::new();
    for _ in 0..20 {
        on_the_way.push(gateway.session(own_uid()).await);
    }
    // An answer to a later question shows that the core has passed the sessions on.
    let extra = gateway.reserve(own_uid()).await.unwrap();
    gateway.cancel(extra).await;
    kill_process(pid, Signal::KILL).unwrap();
    for (number, client) in (0..).zip(&mut on_the_way) {
        assert_eq!(client.inc(number), number + 1);
    }
}

#[tokio::test]
async fn stopping_answers_the_request_in_flight_and_refuses_new_sessions() {
    let (mut instance, mut gateway) = Instance::started("").await;
    let mut idle = gateway.session(own_uid()).await;
    let mut client = gateway.session(own_uid()).await;
    assert_eq!(client.inc(1), 2);
    assert_eq!(idle.inc(1), 2);
    // Listings that take some time: a few are answered before the signal arrives, one is in flight,
    // and most were sent ahead.
    let big = tempfile::tempdir().unwrap();
    for number in 0..2000 {
        std::fs::write(big.path().join(number.to_string()), "").unwrap();
    }
    let list = format!(
        "<exec><op>FileManager_ListDir</op><in><directory>{}</directory></in></exec>",
        big.path().display()
    );
    client.send(&list.repeat(500));
    instance.signal(Signal::TERM);
    let mut replies = 0;
    while let Some(reply) = client.read() {
        assert_eq!(reply.matches("<entry>").count(), 2000);
        replies += 1;
    }
    assert!((1..500).contains(&replies), "{replies}");
    assert_eq!(idle.read(), None);
    drop(client);
    assert_eq!(instance.wait().code(), Some(0));
    let last = format!("app| stopped; {} requests were answered", replies + 2);
    assert!(instance.log().contains(&last), "{}", instance.log());
}

#[tokio::test]
async fn the_request_count_is_exact_over_all_users_and_connections() {
    let (_instance, mut gateway) = Instance::started("").await;
    let users = if is_root() { vec![0, NOBODY] } else { vec![own_uid()] };
    let mut clients = Vec::new();
    for number in 0..16 {
        clients.push(gateway.session(users[number % users.len()]).await);
    }
    let mut last = clients.pop().unwrap();
    let workers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            std::thread::spawn(move || {
                for number in 0..500 {
                    assert_eq!(client.inc(number), number + 1);
                }
                // At least everything this client has read an answer to, and the question itself.
                assert!(client.count() > 500);
                let mut sender = client;
                sender.send("<exec><op>nonsense</op></exec>");
                sender.send(&"<exec>".repeat(20));
                assert!(sender.read().unwrap().contains("-17") && sender.read().unwrap().contains("-3"));
            })
        })
        .collect();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(last.count(), 15 * 503 + 1);
    assert_eq!(last.count(), 15 * 503 + 2);
}

#[tokio::test]
async fn session_processes_end_when_the_core_is_killed() {
    let (mut instance, mut gateway) = Instance::started("").await;
    let mut client = gateway.session(own_uid()).await;
    assert_eq!(client.inc(1), 2);
    let ends: Vec<_> = instance.processes().into_iter().map(|(_, pid)| End::of(pid)).collect();
    assert_eq!(ends.len(), 1);
    instance.signal(Signal::KILL);
    instance.wait();
    ends.iter().for_each(End::wait);
    assert_eq!(client.read(), None);
    // The lock of the dead one is no hindrance.
    instance.start();
    let mut gateway = instance.accept().await;
    assert_eq!(gateway.session(own_uid()).await.inc(1), 2);
}

#[tokio::test]
async fn limits_are_refused_with_the_name_of_the_setting() {
    let (_instance, mut gateway) = Instance::started("[serverd.sessions]\nperUser = 2").await;
    let kept = gateway.session(own_uid()).await;
    let reserved = gateway.reserve(own_uid()).await.unwrap();
    let reason = gateway.reserve(own_uid()).await.unwrap_err();
    assert!(reason.contains("serverd.sessions.perUser"), "{reason}");
    gateway.cancel(reserved).await;
    let mut client = gateway.session(own_uid()).await;
    assert_eq!(client.inc(1), 2);
    drop(kept);
    // The place is free as soon as the core has heard of the end.
    let session = loop {
        match gateway.reserve(own_uid()).await {
            Ok(session) => break session,
            Err(_) => assert_eq!(client.inc(2), 3),
        }
    };
    let mut next = gateway.hand_over(session, identity(own_uid()), b"").await;
    assert_eq!(next.inc(3), 4);
}

#[tokio::test]
async fn the_link_is_made_in_any_order_and_made_again() {
    let mut instance = Instance::new("");
    instance.start();
    // The server is there first, and waits.
    instance.listen();
    let mut gateway = instance.accept().await;
    let mut client = gateway.session(own_uid()).await;
    assert_eq!(client.inc(1), 2);
    drop(gateway);
    instance.unlisten();
    // A session that was handed over does not notice.
    assert_eq!(client.inc(2), 3);
    instance.listen();
    let mut gateway = instance.accept().await;
    assert_eq!(gateway.session(own_uid()).await.inc(3), 4);
    assert_eq!(client.inc(4), 5);
}

#[tokio::test]
async fn an_idle_session_process_leaves_and_the_next_session_gets_another() {
    let (instance, mut gateway) = Instance::started("[serverd.sessions]\nidle = 1").await;
    let mut client = gateway.session(own_uid()).await;
    assert_eq!(client.inc(1), 2);
    let (_, pid) = instance.processes()[0];
    let end = End::of(pid);
    drop(client);
    end.wait();
    let mut next = gateway.session(own_uid()).await;
    assert_eq!(next.count(), 2);
    // Each question passes through the core, which logs the end at its own time.
    let begin = std::time::Instant::now();
    while !instance.log().contains("ended: exit status: 0") {
        assert!(begin.elapsed() < instance::PATIENCE, "{}", instance.log());
        next.count();
    }
}

#[tokio::test]
async fn readiness_is_told_when_the_link_stands() {
    let mut instance = Instance::new("");
    let notify = UnixDatagram::bind(instance.path("notify")).unwrap();
    notify.set_read_timeout(Some(instance::PATIENCE)).unwrap();
    let mut server = instance.command().env("NOTIFY_SOCKET", instance.path("notify")).spawn().unwrap();
    let told = || {
        let mut bytes = [0; 256];
        let count = notify.recv(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes[..count]).into_owned()
    };
    assert_eq!(told(), "STATUS=waiting for vmware-authd\n");
    instance.listen();
    let gateway = instance.accept().await;
    assert_eq!(told(), "READY=1\n");
    assert_eq!(told(), "STATUS=serving\n");
    drop(gateway);
    assert_eq!(told(), "STATUS=waiting for vmware-authd\n");
    kill_process(rustix::process::Pid::from_child(&server), Signal::TERM).unwrap();
    assert!(told().starts_with("STOPPING=1"));
    assert_eq!(server.wait().unwrap().code(), Some(0));
}

#[tokio::test]
async fn a_second_server_with_the_same_root_says_why_it_does_not_start() {
    let (instance, _gateway) = Instance::started("").await;
    let output = instance.command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("another vmserverd runs with this root"), "{text}");
}

#[test]
fn wrong_settings_and_a_wrong_start_are_explained() {
    let instance = Instance::new("[serverd.sessions]\nidel = 3");
    let output = instance.command().output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("did you mean serverd.sessions.idle?"), "{text}");
    assert_eq!(output.status.code(), Some(1));
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_vmserverd")).arg("session").output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("started by vmserverd itself"), "{text}");
}

#[tokio::test]
async fn the_core_has_unix_sockets_only_and_none_that_listens() {
    let (instance, mut gateway) = Instance::started("").await;
    assert_eq!(gateway.session(own_uid()).await.inc(1), 2);
    let pid = instance.pid().as_raw_nonzero();
    let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets: Vec<_> = descriptors.filter_map(|entry| std::fs::read_link(entry.path()).ok()).collect();
    // The table comes last: a socket that is made in between is in it.
    let unix = std::fs::read_to_string("/proc/net/unix").unwrap();
    let mut sockets = 0;
    for target in targets {
        let target = target.to_string_lossy().into_owned();
        let Some(inode) = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')) else {
            continue;
        };
        sockets += 1;
        let line = unix.lines().find(|line| line.split_whitespace().nth(6) == Some(inode));
        let line = line.unwrap_or_else(|| panic!("socket {inode} is no unix socket"));
        // Flags of a listening socket: __SO_ACCEPTCON.
        assert_ne!(line.split_whitespace().nth(3), Some("00010000"), "{line}");
    }
    assert!(sockets >= 2, "link and session process");
}
