//! The audit log: who did what, from where, and that nobody writes in another's name.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;
use tests::guest::need_kvm;
use tests::openmetrics::{need_parser, parse, scrape};
use tests::{Account, Caller, Guest, Instance, Setup, eventually, need_root, process};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// Every whole line of the log; each must be an object with what every record has.
fn records(instance: &Instance) -> Vec<Value> {
    let bytes = std::fs::read(instance.layout.audit_log()).unwrap_or_default();
    let text = String::from_utf8(bytes).expect("UTF-8");
    let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let parse = |line: &str| {
        let record: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["time", "id", "daemon", "pid", "event", "outcome"] {
            assert!(record.get(field).is_some(), "{field} in {line}");
        }
        record
    };
    whole.map(parse).collect()
}

/// Waits for a record that has these fields, and returns it.
fn wanted(instance: &Instance, fields: &[(&str, Value)]) -> Value {
    let mut last = Vec::new();
    let has = |record: &Value| fields.iter().all(|(name, value)| record.get(*name) == Some(value));
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        eventually("a record", || {
            last = records(instance);
            last.iter().find(|record| has(record)).cloned()
        })
    }));
    found.unwrap_or_else(|_| {
        let tail: Vec<String> = last.iter().rev().take(30).map(Value::to_string).collect();
        panic!("no record with {fields:?} among\n{}", tail.join("\n"))
    })
}

fn text(value: impl Into<String>) -> Value {
    Value::String(value.into())
}

#[test]
fn who_did_what_to_which_machine_from_where() {
    if !need_root("the audit of real users") {
        return;
    }
    let account = Account::with_plain_password();
    let instance = Setup::new().hasty().plain().tls().start();
    let mode = std::fs::metadata(instance.layout.audit_log()).unwrap();
    assert!([0o600, 0o640].contains(&(mode.permissions().mode() & 0o7777)) && mode.uid() == 0);

    // A wrong password, then the right one, over TLS.
    let reply = instance.tcp().try_login(&account.name, "not-the-password");
    assert!(reply.starts_with("530 "), "{reply}");
    let refused = wanted(
        &instance,
        &[("event", text("login")), ("outcome", text("refused")), ("user", text(&account.name))],
    );
    assert_eq!(
        (&refused["channel"], &refused["login"], &refused["daemon"]),
        (&text("plain"), &text("PASS"), &text("vmware-authd"))
    );
    assert!(refused["source"].as_str().unwrap().starts_with("127.0.0.1:"), "{refused}");
    assert_eq!(refused.get("uid"), None, "a name that was only tried proves no uid");
    let mut exec = instance.secure().login(&account).server();
    let login =
        wanted(&instance, &[("event", text("login")), ("outcome", text("ok")), ("uid", account.uid.into())]);
    assert_eq!(
        (&login["channel"], &login["login"], &login["user"]),
        (&text("tls"), &text("PASS"), &text(&account.name))
    );
    assert_eq!(exec.inc(1), 2);
    let begin = wanted(&instance, &[("event", text("session-begin")), ("uid", account.uid.into())]);
    assert_eq!(
        (&begin["source"], &begin["channel"], &begin["login"]),
        (&login["source"], &text("tls"), &text("PASS"))
    );

    // A machine of his, under his name; root's own process id on the unix socket.
    let guest = Guest::with_floppy(&instance, "audited", (account.uid, account.gid), "");
    let config = guest.config.display().to_string();
    let of_machine = |event: &str, outcome: &str| {
        vec![("event", text(event)), ("outcome", text(outcome)), ("machine", text(&config))]
    };
    guest.must(&mut exec, "VMRegister", "");
    let registered = wanted(&instance, &of_machine("register", "ok"));
    assert_eq!((&registered["uid"], &registered["daemon"]), (&account.uid.into(), &text("vmserverd")));
    assert_eq!(registered.get("claimed"), None, "the core did it, and says so itself");
    let operation = wanted(&instance, &[("operation", text("VMRegister"))]);
    assert_eq!(operation["claimed"], true);
    for (field, value) in
        [("user", text(&account.name)), ("source", login["source"].clone()), ("machine", text(&config))]
    {
        assert_eq!(operation[field], value, "{field}");
    }
    assert_eq!(operation["session"], begin["session"]);
    for field in ["source", "channel", "login", "session"] {
        assert_eq!(registered[field], begin[field], "from where: {field}");
    }

    // Another user may not see it, and that is recorded under his name, by the core and by himself.
    let stranger = Account::new();
    guest.mode(0o700);
    let mut connects = instance.tcp().login(&stranger);
    assert!(connects.ask(format!("CONNECT {config} control")).starts_with("551 "));
    let declined = wanted(&instance, &[("event", text("permission")), ("daemon", text("vmware-authd"))]);
    assert_eq!(
        (&declined["user"], &declined["machine"], &declined["channel"]),
        (&text(&stranger.name), &text(&config), &text("plain"))
    );
    let mut strange = Caller::new(CALLER, &instance, &stranger).unix().local().server();
    assert!(!guest.op(&mut strange, "VMUnRegister", "").ok());
    let mut root = instance.exec();
    assert_eq!(root.inc(1), 2);
    let local = wanted(&instance, &[("event", text("session-begin")), ("uid", 0.into())]);
    assert_eq!(local["source"], format!("unix:{}", std::process::id()));
    assert_eq!((&local["channel"], &local["login"]), (&text("unix"), &text("LOCAL")));
    guest.mode(0o755);
    let denied = strange.op("Security_CreateCertificate", "<commonName>x</commonName>");
    assert_eq!(denied.code(), -4);
    let denied = wanted(&instance, &[("operation", text("Security_CreateCertificate"))]);
    assert_eq!(
        (&denied["outcome"], &denied["code"], &denied["uid"]),
        (&text("refused"), &(-4).into(), &stranger.uid.into())
    );
    let changed = root.op("Security_ActivateConfig", "<console>1</console>");
    let settings = wanted(&instance, &[("event", text("settings")), ("daemon", text("vmserverd"))]);
    assert_eq!((settings["uid"].as_u64(), settings["outcome"] == "ok"), (Some(0), changed.ok()));

    // What is typed, set or given as a password is not there; reading is not recorded.
    guest.op(&mut exec, "VM_SetGuestInfo", "<key>k</key><value>SECRET-VALUE</value>");
    guest.op(&mut exec, "VM_SendKeys", "<keys>SECRET-KEYS</keys>");
    wanted(&instance, &[("operation", text("VM_SendKeys"))]);
    let log = std::fs::read_to_string(instance.layout.audit_log()).unwrap();
    for never in ["SECRET", "not-the-password", &account.password, "\"inc\""] {
        assert!(!log.contains(never), "{never} in\n{log}");
    }

    if need_kvm("power changes in the audit") {
        guest.must(&mut exec, "VM_Start", "");
        let on =
            wanted(&instance, &[("event", text("power")), ("to", text("on")), ("machine", text(&config))]);
        assert_eq!((&on["uid"], &on["user"]), (&account.uid.into(), &text(&account.name)));
        let (_, pid) = guest.state(&mut exec);
        process::kill(pid);
        let crash = wanted(&instance, &[("event", text("power")), ("from", text("on")), ("to", text("off"))]);
        assert_eq!(crash.get("uid"), None, "nobody asked for it");
        assert!(crash["detail"].as_str().unwrap().contains("crashed"), "{crash}");
        eventually("it is off", || (guest.state(&mut exec).1 == 0).then_some(()));
    }
    guest.must(&mut exec, "VMUnRegister", "");
    wanted(&instance, &of_machine("unregister", "ok"));
    drop(exec);
    let end = [("event", text("session-end")), ("session", begin["session"].clone())];
    assert_eq!(wanted(&instance, &end)["uid"], account.uid);
    // A session process that dies ends its sessions in another way.
    process::kill(instance.session_of(stranger.uid));
    wanted(
        &instance,
        &[("event", text("session-end")), ("outcome", text("failed")), ("uid", stranger.uid.into())],
    );
}

#[test]
fn nobody_writes_in_anothers_name() {
    if !need_root("forging the audit") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().hasty().plain().start();
    // A name that would be a record of its own, and one that would end the line.
    let forged = "x\",\"uid\":0,\"outcome\":\"ok\"}{\"event\":\"login\"";
    let reply = instance.tcp().try_login(forged, "x");
    assert!(reply.starts_with("530 "), "{reply}");
    let record = wanted(&instance, &[("event", text("login")), ("user", text(forged))]);
    assert_eq!((&record["outcome"], record.get("uid")), (&text("refused"), None));
    let mut exec = Caller::new(CALLER, &instance, &account).unix().local().server();
    let path = "/nowhere/a&#10;{&quot;event&quot;:&quot;login&quot;,&quot;uid&quot;:0}&#x2028;/b";
    let reply =
        exec.op("FileManager_MakeDir", &format!("<directories><directory>{path}</directory></directories>"));
    assert!(!reply.ok());
    let record = wanted(&instance, &[("operation", text("FileManager_MakeDir"))]);
    assert_eq!(record["uid"], account.uid);
    assert_eq!(record["paths"][0], "/nowhere/a\n{\"event\":\"login\",\"uid\":0}\u{2028}/b");
    let log = std::fs::read_to_string(instance.layout.audit_log()).unwrap();
    assert!(!log.contains('\u{2028}'), "a line end for some readers");
    // Far too many at once: counted, and the others are recorded as before.
    let request = tests::exec::request(
        "FileManager_MakeDir",
        "<directories><directory>/proc/x</directory></directories>",
    );
    for _ in 0..26 {
        exec.send(request.repeat(50));
        (0..50).for_each(|_| assert!(!exec.reply().ok()));
    }
    // Said every now and then, so there may be several records; each operation is in one or the other.
    let asked = 26 * 50;
    eventually("every operation is recorded or counted", || {
        let all = records(&instance);
        let of_user = || all.iter().filter(|record| record["uid"] == account.uid);
        let recorded = of_user().filter(|record| record["operation"] == "FileManager_MakeDir").count() as u64;
        let suppressed = of_user().filter(|record| record["event"] == "suppressed");
        let counted: u64 = suppressed.filter_map(|record| record["count"].as_u64()).sum();
        (counted > 50 && recorded + counted >= asked).then_some(())
    });
    let mut root = instance.exec();
    let made = instance.base.path().join("made");
    assert!(root.op("FileManager_MakeDir", &tests::exec::make_dir(&made)).ok());
    wanted(
        &instance,
        &[("uid", 0.into()), ("operation", text("FileManager_MakeDir")), ("outcome", text("ok"))],
    );
    // Ids are never used twice.
    let mut ids: Vec<String> = records(&instance).iter().map(|record| record["id"].to_string()).collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all);
}

#[test]
fn levels_rotation_and_a_full_disk() {
    if !need_root("an audit log on a full disk") || !need_parser("lost records are counted") {
        return;
    }
    let instance = Setup::new().set("audit.level", "\"all\"").start();
    let log = instance.layout.audit_log();
    let mut exec = instance.exec();
    assert_eq!(exec.inc(1), 2);
    let record = wanted(&instance, &[("operation", text("inc")), ("outcome", text("ok"))]);
    assert_eq!(record["login"], "LOCAL");
    // Moved away, as logrotate does: the next line is in a new file.
    let old = log.with_extension("log.1");
    std::fs::rename(&log, &old).unwrap();
    assert!(!exec.op("div", "<number>1</number>").ok());
    wanted(&instance, &[("operation", text("div"))]);
    assert!(!std::fs::read_to_string(&old).unwrap().contains("\"div\""));
    // A device that is always full in the place of the file: the operation goes on, and what was lost is told.
    let mount = |arguments: &[&str]| {
        let status = Command::new(arguments[0]).args(&arguments[1..]).arg(&log).status();
        status.is_ok_and(|status| status.success())
    };
    if !mount(&["mount", "--bind", "/dev/full"]) {
        tests::skip::skipped("an audit log on a full disk", "nothing can be mounted here");
        return;
    }
    let lost = || value(&instance, "vmserverd_audit_records_total{result=lost}");
    let answered = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        assert_eq!(exec.inc(5), 6);
        eventually("a lost record", || (lost() > 0.0).then_some(()));
        assert_eq!(exec.inc(6), 7);
    }));
    assert!(mount(&["umount", "--lazy"]), "{} stays mounted", log.display());
    answered.unwrap();
    let record = wanted(&instance, &[("event", text("lost")), ("daemon", text("vmserverd"))]);
    assert!(record["count"].as_u64().unwrap() >= 1, "{record}");
    drop(exec);
    drop(instance);

    let silent = Setup::new().set("audit.level", "\"off\"").start();
    assert_eq!(silent.exec().inc(1), 2);
    assert!(!silent.layout.audit_log().exists());
    // The gateway reads its settings again on SIGHUP; from then on logins are told.
    let settings = silent.layout.settings();
    let before = std::fs::read_to_string(&settings).unwrap();
    assert!(before.contains("\"off\""), "{before}");
    std::fs::write(&settings, before.replace("\"off\"", "\"all\"")).unwrap();
    process::signal(silent.monitor(), Signal::HUP);
    eventually("a login is recorded", || {
        assert_eq!(silent.exec().inc(1), 2);
        records(&silent).iter().find(|record| record["event"] == "login").map(|_| ())
    });
}

fn value(instance: &Instance, name: &str) -> f64 {
    parse(&scrape(&instance.layout.metrics_socket())).get(name).copied().unwrap_or(0.0)
}
