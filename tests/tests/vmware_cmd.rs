//! `vmware-cmd` as scripts use it: exact bytes and exit status of every row of the table, the way
//! published scripts read them, and the words of this project beside the old grammar.
//!
//! The program runs as a real account, against a real instance, on a machine that boots where
//! `/dev/kvm` opens.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use tests::guest::{FLOPPY, Guest, floppy, need_kvm};
use tests::{Account, Instance, Setup, eventually, need_root, process, programs, skip};

/// The detail of -8 when an operation does not fit the state; scripts look for the quoted words.
fn conflict(operation: &str, state: &str) -> String {
    format!(
        "VMControl error -8: Invalid operation for virtual machine's current state: The requested operation \
         (\"{operation}\") could not be completed because it conflicted with the state of the virtual machine \
         (\"{state}\") at the time the request was received.  This error often occurs because the state of the \
         virtual machine changed before it received the request.\n"
    )
}

/// How the program is called.
struct Caller {
    program: PathBuf,
    root: PathBuf,
    /// None: as we are.
    user: Option<(u32, u32)>,
    known_hosts: PathBuf,
}

/// What a call led to.
#[derive(Debug)]
struct Ran {
    status: i32,
    out: String,
    err: String,
}

impl Caller {
    fn new(instance: &Instance, account: Option<&Account>) -> Self {
        let known_hosts = match account {
            Some(account) => account.home.join("known_hosts"),
            None => instance.base.path().join("known_hosts"),
        };
        Caller {
            program: instance.public_copy(&programs::directory().join("vmware-cmd")),
            root: instance.base.root(),
            user: account.map(|account| (account.uid, account.gid)),
            known_hosts,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        // Whoever runs the tests in the background has SIGINT ignored, which would be inherited.
        let mut command = Command::new("/usr/bin/env");
        command.arg("--default-signal=INT").arg(&self.program);
        command.args(arguments).env_clear().env("PATH", "/usr/bin:/bin").current_dir("/tmp");
        command.env("VMSERVERD_ROOT", &self.root).env("VMSERVERD_KNOWN_HOSTS", &self.known_hosts);
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.feed(arguments, "")
    }

    fn feed(&self, arguments: &[&str], input: &str) -> Ran {
        feed(self.command(arguments), input)
    }

    /// The command under a terminal, as the same user.
    fn on_terminal(&self, arguments: &str) -> Child {
        let mut command = Command::new("script");
        let line = format!("env --default-signal=INT {} {arguments}", self.program.display());
        command.args(["-qec", &line, "/dev/null"]);
        command.env("VMSERVERD_ROOT", &self.root).env("VMSERVERD_KNOWN_HOSTS", &self.known_hosts);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).current_dir("/tmp");
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command.spawn().expect("script is part of every Debian")
    }

    /// What must succeed, its standard output.
    fn ok(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{arguments:?}: {ran:?}");
        ran.out
    }

    /// What must fail with nothing on standard output: its standard error.
    fn fails(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{arguments:?}: {ran:?}");
        ran.err
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.ok(arguments)).expect("one document")
    }
}

fn feed(mut command: Command, input: &str) -> Ran {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("vmware-cmd runs");
    // Who does not want it has left already.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let ended = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("utf-8");
    Ran { status: ended.status.code().unwrap_or(-1), out: text(ended.stdout), err: text(ended.stderr) }
}

/// The .vmx of a machine that boots from a floppy disk, which is not there yet.
fn machine(instance: &Instance, name: &str, owner: (u32, u32), more: &str) -> PathBuf {
    let lines = format!(
        "{FLOPPY}displayName = \"{name}\"\nethernet0.generatedAddress = \"00:0c:29:cb:40:bb\"\n\
         guestinfo.ip = \"172.16.123.143\"\n{more}"
    );
    Guest::of(&instance.base.path().join("vms"), name, owner, &lines).config
}

/// Puts the floppy disk there.
fn insert_floppy(vmx: &Path, owner: (u32, u32)) {
    let image = vmx.with_file_name("boot.img");
    fs::write(&image, floppy()).unwrap();
    chown(&image, Some(owner.0), Some(owner.1)).unwrap();
}

// ---------------------------------------------------------------------------------------------
// How published scripts read it.

/// Splits at the first `=` and trims both sides.
fn split(line: &str) -> (&str, &str) {
    let (name, value) = line.split_once('=').expect("an equals sign");
    (name.trim(), value.trim())
}

/// `/=\s*1/`
fn is_one(text: &str) -> bool {
    text.split('=').skip(1).any(|rest| rest.trim_start().starts_with('1'))
}

/// `^<action>\(\)\s=\s(.+)$`
fn captured<'a>(text: &'a str, action: &str) -> Option<&'a str> {
    let rest = text.lines().find_map(|line| line.strip_prefix(action)?.strip_prefix("()"))?;
    let mut letters = rest.chars();
    let blank = |letter: Option<char>| letter.is_some_and(char::is_whitespace);
    let fits = blank(letters.next()) && letters.next() == Some('=') && blank(letters.next());
    fits.then_some(letters.as_str()).filter(|value| !value.is_empty())
}

/// `VMControl error (-?\d+): (.*)`, at the start of a line or in parentheses.
fn error(text: &str) -> Option<(i32, &str)> {
    let (_, rest) = text.split_once("VMControl error ")?;
    let (number, text) = rest.split_once(": ")?;
    Some((number.parse().ok()?, text))
}

#[test]
fn the_ways_of_published_scripts_tell_right_from_wrong() {
    for (text, value) in [
        ("getpid() = 18690\n", Some("18690")),
        ("getstate() = on", Some("on")),
        ("getstate() =on", None),
        ("getstate()  = on", None),
        ("getstate() = ", None),
    ] {
        assert_eq!(captured(text, text.split_once('(').unwrap().0), value, "{text}");
    }
    assert!(is_one("start() = 1") && is_one("a =1") && !is_one("start() = 0") && !is_one("1"));
    assert_eq!(split("getconfig(a) = b = c"), ("getconfig(a)", "b = c"));
    assert_eq!(error("VMControl error -8: a: b"), Some((-8, "a: b")));
    assert_eq!(error("  (VMControl error -11: No such)"), Some((-11, "No such)")));
}

// ---------------------------------------------------------------------------------------------

#[test]
fn every_row_of_the_table() {
    const WHAT: &str = "vmware-cmd with an account of its own";
    if !need_root(WHAT) {
        return;
    }
    let account = Account::with_plain_password();
    let owner = (account.uid, account.gid);
    let instance = Setup::new().hasty().start();
    let cmd = Caller::new(&instance, Some(&account));
    let path = machine(&instance, "one", owner, "annotation = \"a = b\"\n");
    let cfg = path.to_str().unwrap();

    registering(&cmd, cfg);
    asleep(&cmd, cfg, &account);
    reserved_and_refused(&cmd, cfg);
    snapshots(&cmd, cfg);
    if need_kvm("vmware-cmd on machines that run") {
        question(&cmd, &path, owner);
        running(&cmd, cfg);
        condor(&cmd, cfg);
    }
    assert_eq!(cmd.ok(&["-s", "unregister", cfg]), format!("unregister({cfg}) = 1\n"));
    assert_eq!(cmd.fails(&["-s", "unregister", cfg]), "VMControl error -11: No such virtual machine\n");
    assert_eq!(cmd.ok(&["-l"]), "");
}

/// `-s register`, `-l`, and machines that are not registered.
fn registering(cmd: &Caller, cfg: &str) {
    assert_eq!(cmd.ok(&["-l"]), "");
    let name = cmd.program.display();
    assert_eq!(
        cmd.fails(&[cfg, "getstate"]),
        format!(
            "{name}: Could not connect to VM {cfg}\n  (VMControl error -11: No such virtual machine: The config \
             file {cfg} is not registered.\nPlease register the config file on the server.  For example:\n\
             vmware-cmd -s register \"{cfg}\")\n"
        )
    );
    assert_eq!(
        cmd.fails(&["-s", "register", "/tmp/no.vmx"]),
        "VMControl error -11: No such virtual machine\n"
    );
    assert_eq!(cmd.ok(&["-s", "register", cfg]), format!("register({cfg}) = 1\n"));
    let again = cmd.fails(&["-s", "register", cfg]);
    assert!(again.starts_with("VMControl error -20: Virtual machine already exists"), "{again}");
    for words in [&["-l"][..], &["-q", "-l"], &["-l", "-q"]] {
        assert_eq!(cmd.ok(words), format!("{cfg}\n"));
    }
    // From where the file is, its name will do.
    let (directory, name) = cfg.rsplit_once('/').unwrap();
    let mut command = cmd.command(&[name, "getstate"]);
    command.current_dir(directory);
    assert_eq!(feed(command, "").out, "getstate() = off\n");
}

/// A machine that is off.
fn asleep(cmd: &Caller, cfg: &str, account: &Account) {
    let user = account.name.as_str();
    for (words, line, value) in [
        (&["getstate"][..], "getstate()", "off"),
        (
            &["getconfig", "ethernet0.generatedAddress"],
            "getconfig(ethernet0.generatedAddress)",
            "00:0c:29:cb:40:bb",
        ),
        (&["getconfig", "ANNOTATION"], "getconfig(ANNOTATION)", "a = b"),
        (&["setconfig", "annotation", "two words"], "setconfig(annotation two words)", "1"),
        (&["getconfig", "annotation"], "getconfig(annotation)", "two words"),
        (&["setconfig", "annotation", "-q"], "setconfig(annotation -q)", "1"),
        (&["getconfig", "annotation"], "getconfig(annotation)", "-q"),
        (&["getguestinfo", "ip"], "getguestinfo(ip)", "172.16.123.143"),
        (&["getconfigfile"], "getconfigfile()", cfg),
        (&["getpid"], "getpid()", "0"),
        (&["getid"], "getid()", "0"),
        (&["getuptime"], "getuptime()", "0"),
        (&["getheartbeat"], "getheartbeat()", "0"),
        (&["gettoolslastactive"], "gettoolslastactive()", "0"),
        (&["getproductinfo", "product"], "getproductinfo(product)", "server"),
        (&["getproductinfo", "platform"], "getproductinfo(platform)", "linux"),
        (&["getproductinfo", "build"], "getproductinfo(build)", "44356"),
        (&["getproductinfo", "majorversion"], "getproductinfo(majorversion)", "1"),
        (&["getproductinfo", "minorversion"], "getproductinfo(minorversion)", "0"),
        (&["getproductinfo", "revision"], "getproductinfo(revision)", "3"),
        (&["getremoteconnections"], "getremoteconnections()", "0"),
        (&["getcapabilities"], "getcapabilities()", "7"),
        (&["getrunasuser"], "getrunasuser()", user),
        (&["hassnapshot"], "hassnapshot()", "0"),
    ] {
        let mut all = vec![cfg];
        all.extend(words);
        let out = cmd.ok(&all);
        assert_eq!(out, format!("{line} = {value}\n"));
        assert_eq!(split(out.trim_end()), (line, value));
        // Quiet, with the option in either place.
        let mut before = vec!["-q", cfg];
        before.extend(words);
        assert_eq!(cmd.ok(&before), format!("{value}\n"));
        if !words.contains(&"setconfig") {
            all.push("-q");
            assert_eq!(cmd.ok(&all), format!("{value}\n"));
        }
    }
    // One line per user: the one who asks.
    let users = cmd.ok(&[cfg, "getconnectedusers"]);
    let words: Vec<&str> = users.split_whitespace().collect();
    assert_eq!((words.len(), words[0], words[2], words[3]), (4, user, "unix", "api"), "{users}");
    let processors: u32 = cmd.ok(&["-q", "-s", "getresource", "system.cpu.number"]).trim().parse().unwrap();
    assert!(processors > 0);
    let line = cmd.ok(&["-s", "getresource", "system.mem.size"]);
    assert!(line.starts_with("getresource(system.mem.size) = "), "{line}");
    for (words, expected) in [
        (&["getconfig", "no.such"][..], "VMControl error -10: No such property: no.such\n".to_owned()),
        (&["stop", "hard"], conflict("stop", "off")),
        (&["reset"], conflict("reset", "off")),
        (&["suspend"], conflict("suspend", "off")),
    ] {
        let mut all = vec![cfg];
        all.extend(words);
        assert_eq!(cmd.fails(&all), expected);
        // Quiet does not hide what went wrong.
        all.insert(0, "-q");
        assert_eq!(cmd.fails(&all), expected);
    }
    for (words, code) in [
        (&["setguestinfo", "a", "b"][..], -8),
        (&["connectdevice", "floppy0"], -8),
        (&["start", "gently"], -3),
        (&["getproductinfo", "colour"], -3),
        (&["getguestinfo", "nothing"], -10),
    ] {
        let mut all = vec![cfg];
        all.extend(words);
        let said = cmd.fails(&all);
        assert_eq!(error(&said).map(|(code, _)| code), Some(code), "{said}");
        assert!(said.starts_with("VMControl error "), "{said}");
    }
}

/// What the server does not have, and what makes no sense.
fn reserved_and_refused(cmd: &Caller, cfg: &str) {
    for words in [
        &[cfg, "setrunasuser", "root", "secret"][..],
        &[cfg, "addredo", "ide0:0"],
        &[cfg, "commit", "ide0:0", "0", "0", "1"],
        &[cfg, "getresource", "cpu.number"],
        &[cfg, "setresource", "cpu.shares", "1"],
        &["-s", "setresource", "system.x", "1"],
    ] {
        let said = cmd.fails(words);
        assert_eq!(error(&said).map(|(code, _)| code), Some(-17), "{words:?}: {said}");
        assert!(!said.contains("secret"), "{said}");
    }
    let said = cmd.run(&[cfg, "answer"]);
    assert_eq!((said.status, said.out.as_str(), said.err.as_str()), (1, "", "No questions pending.\n"));
    let name = cmd.program.display().to_string();
    for words in [&[][..], &[cfg], &[cfg, "fly"], &["-x"], &[cfg, "getconfig"], &["-s", "register"]] {
        let said = cmd.fails(words);
        assert!(said.starts_with(&format!("{name}: ")) && said.contains("-h"), "{words:?}: {said}");
    }
    let help = cmd.ok(&["-h"]);
    assert!(help.lines().count() < 24 && help.lines().all(|line| line.len() < 80), "{help}");
}

fn snapshots(cmd: &Caller, cfg: &str) {
    assert_eq!(cmd.ok(&[cfg, "createsnapshot"]), "createsnapshot() = 1\n");
    assert_eq!(cmd.ok(&[cfg, "hassnapshot"]), "hassnapshot() = 1\n");
    let line = cmd.ok(&[cfg, "createsnapshot", "clean", "before the change", "0", "1"]);
    assert_eq!(line, "createsnapshot(clean before the change 0 1) = 1\n");
    assert_eq!(cmd.ok(&[cfg, "revertsnapshot"]), "revertsnapshot() = 1\n");
    assert_eq!(cmd.ok(&[cfg, "removesnapshots"]), "removesnapshots() = 1\n");
    assert_eq!(cmd.ok(&[cfg, "hassnapshot"]), "hassnapshot() = 0\n");
    assert_eq!(error(&cmd.fails(&[cfg, "revertsnapshot"])), Some((-999, "No snapshot\n")));
}

/// A floppy disk that is missing: the start asks, the answer starts.
fn question(cmd: &Caller, path: &Path, owner: (u32, u32)) {
    let cfg = path.to_str().unwrap();
    let said = cmd.fails(&[cfg, "start"]);
    let (code, text) = error(&said).expect("a failure");
    assert_eq!(code, -16, "{said}");
    assert!(text.starts_with("Virtual machine requires user input to continue"), "{said}");
    assert_eq!(cmd.ok(&[cfg, "getstate"]), "getstate() = stuck\n");
    let choice = |input: &str| cmd.feed(&[cfg, "answer"], input);
    // An empty input is no answer, nor is a number that is no choice.
    let ran = choice("");
    assert_eq!((ran.status, ran.err.as_str()), (1, "No answer: standard input is empty.\n"));
    let ran = choice("7\n");
    assert_eq!((ran.status, error(&ran.err).map(|(code, _)| code)), (1, Some(-3)), "{ran:?}");
    // The default is to try again; the disk is still missing, so it asks again.
    let ran = cmd.feed(&["-q", cfg, "answer"], "\n");
    assert_eq!((ran.status, ran.out.as_str(), ran.err.as_str()), (0, "1\n", ""));
    let id = eventually("it asks again", || {
        let out = choice("").out;
        let id: u32 = out.strip_prefix("Question (id = ")?.split_once(')')?.0.parse().ok()?;
        (id > 1).then_some(id)
    });
    insert_floppy(path, owner);
    let ran = choice("0\n");
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with(&format!("Question (id = {id}) :")), "{}", ran.out);
    assert!(lines[0].contains("boot.img"), "{}", ran.out);
    assert_eq!(
        lines[1..],
        ["\t0) Retry", "\t1) Cancel", "Select choice. Press enter for default <0> : ", "selected 0 : Retry"]
    );
    eventually("the start goes on", || (cmd.ok(&["-q", cfg, "getstate"]) == "on\n").then_some(()));
}

/// A machine that is on, and goes through its states.
fn running(cmd: &Caller, cfg: &str) {
    let pid: u32 = cmd.ok(&["-q", cfg, "getpid"]).trim().parse().unwrap();
    assert!(process::runs(pid));
    assert_ne!(cmd.ok(&["-q", cfg, "getid"]), "0\n");
    cmd.ok(&["-q", cfg, "getuptime"]).trim().parse::<u64>().unwrap();
    assert_eq!(cmd.ok(&[cfg, "gettoolslastactive"]), "gettoolslastactive() = 0\n");
    assert_eq!(cmd.ok(&[cfg, "setguestinfo", "a.b", "c d"]), "setguestinfo(a.b c d) = 1\n");
    assert_eq!(cmd.ok(&[cfg, "getguestinfo", "a.b"]), "getguestinfo(a.b) = c d\n");
    assert_eq!(cmd.ok(&[cfg, "disconnectdevice", "floppy0"]), "disconnectdevice(floppy0) = 1\n");
    assert_eq!(cmd.ok(&[cfg, "connectdevice", "floppy0"]), "connectdevice(floppy0) = 1\n");
    assert_eq!(error(&cmd.fails(&[cfg, "connectdevice", "floppy7"])).map(|(code, _)| code), Some(-10));
    // What scripts count on.
    assert_eq!(cmd.fails(&[cfg, "start"]), conflict("start", "on"));
    for words in [&[cfg, "stop"][..], &[cfg, "stop", "soft"], &[cfg, "reset", "soft"]] {
        let tools = "VMControl error -8: Invalid operation for virtual machine's current state: Make sure the VMware \
                     Server Tools are running\n";
        assert_eq!(cmd.fails(words), tools, "{words:?}");
    }
    assert_eq!(cmd.ok(&[cfg, "reset", "trysoft"]), "reset(trysoft) = 1\n");
    assert_eq!(cmd.ok(&[cfg, "suspend"]), "suspend() = 1\n");
    assert_eq!(cmd.ok(&[cfg, "getstate"]), "getstate() = suspended\n");
    assert_eq!(cmd.fails(&[cfg, "stop", "hard"]), conflict("stop", "suspended"));
    assert_eq!(cmd.ok(&[cfg, "start"]), "start() = 1\n");
    assert_eq!(cmd.ok(&["-q", cfg, "stop", "hard"]), "1\n");
    assert_eq!(cmd.fails(&[cfg, "stop", "hard"]), conflict("stop", "off"));
}

/// The sequence of HTCondor's script, read as it reads.
fn condor(cmd: &Caller, cfg: &str) {
    assert!(is_one(&cmd.ok(&["-s", "unregister", cfg])));
    assert!(is_one(&cmd.ok(&["-s", "register", cfg])));
    let started = cmd.ok(&[cfg, "start", "trysoft"]);
    assert_eq!(started, "start(trysoft) = 1\n");
    assert!(is_one(&started));
    let pid: u32 = captured(&cmd.ok(&[cfg, "getpid"]), "getpid").expect("a pid").parse().unwrap();
    assert!(process::runs(pid));
    assert_eq!(captured(&cmd.ok(&[cfg, "getstate"]), "getstate"), Some("on"));
    let line = cmd.ok(&[cfg, "getconfig", "ethernet0.generatedAddress"]);
    assert_eq!(split(line.trim_end()).1, "00:0c:29:cb:40:bb");
    assert_eq!(split(cmd.ok(&[cfg, "getguestinfo", "ip"]).trim_end()).1, "172.16.123.143");
    let stopped = cmd.ok(&[cfg, "stop", "hard"]);
    assert_eq!(stopped, "stop(hard) = 1\n");
    assert!(process::ends_within(pid, Duration::from_secs(10)));
    assert!(is_one(&cmd.ok(&["-s", "unregister", cfg])));
    assert!(is_one(&cmd.ok(&["-s", "register", cfg])));
}

// ---------------------------------------------------------------------------------------------

#[test]
fn from_another_machine() {
    const WHAT: &str = "vmware-cmd with a password";
    if !need_root(WHAT) {
        return;
    }
    let account = Account::with_plain_password();
    let instance = Setup::new().tls().plain().hasty().start();
    let cmd = Caller::new(&instance, Some(&account));
    let path = machine(&instance, "far", (account.uid, account.gid), "");
    let cfg = path.to_str().unwrap();
    assert_eq!(cmd.ok(&["-s", "register", cfg]), format!("register({cfg}) = 1\n"));
    let [tls, plain] = [instance.tls, instance.plain].map(|port| port.to_string());
    let (user, password) = (account.name.as_str(), account.password.as_str());
    for port in [tls.as_str(), plain.as_str()] {
        let to = ["-H", "127.0.0.1", "-O", port, "-U", user];
        let with = |more: &[&'static str]| [&to[..], &["-P", password], more].concat();
        assert_eq!(cmd.ok(&with(&["-l"])), format!("{cfg}\n"));
        let mut words = with(&[]);
        words.extend([cfg, "getstate"]);
        assert_eq!(cmd.ok(&words), "getstate() = off\n");
        // A wrong password, in the two forms of a failed connect. PAM takes its time to say so.
        let name = cmd.program.display();
        let wrong = [&to[..], &["-P", "wrong"]].concat();
        let (words, what) = match port == tls {
            true => (&["-l"][..], "vmware-authd".to_owned()),
            false => (&[cfg, "getstate"][..], format!("VM {cfg}")),
        };
        let refused = "(VMControl error -4: Permission denied: Login incorrect.)\n";
        let said = cmd.fails(&[&wrong[..], words].concat());
        assert_eq!(said, format!("{name}: Could not connect to {what}\n  {refused}"));
    }
    // The password from elsewhere: a file, standard input, the environment, a terminal.
    let to = ["-H", "127.0.0.1", "-O", &tls, "-U", user];
    let file = account.home.join("password");
    fs::write(&file, format!("{password}\n")).unwrap();
    let list = format!("{cfg}\n");
    assert_eq!(cmd.ok(&[&to[..], &["--password-file", file.to_str().unwrap(), "-l"]].concat()), list);
    assert_eq!(cmd.feed(&[&to[..], &["--password-file", "-", "-l"]].concat(), password).out, list);
    let mut command = cmd.command(&[&to[..], &["-l"]].concat());
    command.env("VMWARE_CMD_PASSWORD", password);
    assert_eq!(feed(command, "").out, list);
    let said = cmd.fails(&[&to[..], &["-l"]].concat());
    assert!(said.contains("needs a password"), "{said}");
    let said = cmd.fails(&["-H", "127.0.0.1", "-O", &tls, "-l"]);
    assert!(said.contains("-H needs -U"), "{said}");
    asked_for_a_password(&cmd, &to.join(" "), password, cfg);
    let remote = cmd.ok(&[&to[..], &["-P", password, "doctor"]].concat());
    assert!(remote.starts_with("ok     connection    the server answers: VMware Server "), "{remote}");
}

/// On a terminal the password is asked for, and not shown.
fn asked_for_a_password(cmd: &Caller, to: &str, password: &str, cfg: &str) {
    let mut child = cmd.on_terminal(&format!("{to} -l"));
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut seen = read_until(&mut output, "127.0.0.1: ");
    writeln!(input, "{password}").unwrap();
    output.read_to_string(&mut seen).unwrap();
    assert!(seen.contains("Password of ") && seen.contains(cfg), "{seen}");
    assert!(!seen.contains(password), "the password is shown: {seen}");
    assert!(child.wait().unwrap().success());
}

/// Reads until a text has come; what was read.
fn read_until(output: &mut (impl Read + AsFd), text: &str) -> String {
    let (mut seen, mut buffer) = (String::new(), [0; 4096]);
    while !seen.contains(text) {
        let limit = Timespec::try_from(tests::wait::SOON).unwrap();
        let ready = poll(&mut [PollFd::new(&*output, PollFlags::IN)], Some(&limit)).unwrap();
        assert_ne!(ready, 0, "waited in vain for {text:?}: {seen:?}");
        let length = output.read(&mut buffer).unwrap();
        assert_ne!(length, 0, "ended without {text:?}: {seen:?}");
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    seen
}

#[test]
fn without_a_server() {
    let directory = tempfile::tempdir().unwrap();
    let program = programs::directory().join("vmware-cmd");
    let call = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).env_clear().env("VMSERVERD_ROOT", directory.path());
        feed(command, "")
    };
    fs::create_dir_all(directory.path().join("etc/vmware")).unwrap();
    let port = tests::instance::free_port();
    fs::write(directory.path().join("etc/vmware/config"), format!("authd.client.port = \"{port}\"\n"))
        .unwrap();
    let name = program.display();
    for (words, what) in [
        (&["-l"][..], "vmware-authd".to_owned()),
        (&["-s", "register", "/a.vmx"], "vmware-authd".to_owned()),
        (&["/a.vmx", "getstate"], "VM /a.vmx".to_owned()),
    ] {
        let ran = call(words);
        assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{ran:?}");
        let lines: Vec<&str> = ran.err.lines().collect();
        assert_eq!(lines.len(), 2, "{ran:?}");
        assert_eq!(lines[0], format!("{name}: Could not connect to {what}"));
        assert!(
            lines[1].starts_with("  (VMControl error -2: Network failure: ") && lines[1].ends_with(')'),
            "{ran:?}"
        );
        assert!(lines[1].contains(&port.to_string()), "it says where it looked: {ran:?}");
    }
    let ran = call(&["doctor"]);
    assert_eq!(ran.status, 1, "{ran:?}");
    for part in ["fail   socket", "fail   port", "fail   connection", "repair: cargo xtask up --root "] {
        assert!(ran.out.contains(part), "{part}: {}", ran.out);
    }
    // A gateway that says it cannot reach the server: the words of 2007.
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let gateway = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        stream.write_all(tests::client::PLAIN_BANNER.as_bytes()).unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "LOCAL");
        stream.write_all(b"230 User root logged in.\r\n").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "GLOBAL server");
        stream.write_all(b"511 Error connecting to /usr/sbin/vmware-serverd process.\r\n").unwrap();
    });
    let ran = call(&["-l"]);
    gateway.join().unwrap();
    assert_eq!(
        (ran.status, ran.err),
        (
            1,
            format!(
                "{name}: Could not connect to vmware-authd\n  (VMControl error -14: Unexpected response from \
                 vmware-authd: 511 Error connecting to /usr/sbin/vmware-serverd process.)\n"
            )
        )
    );
}

// ---------------------------------------------------------------------------------------------

#[test]
fn the_words_of_this_project() {
    let instance = Setup::new().start();
    let cmd = Caller::new(&instance, None);
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let path = machine(&instance, "new", me, "");
    let cfg = path.to_str().unwrap();
    assert_eq!(cmd.ok(&["-s", "register", cfg]), format!("register({cfg}) = 1\n"));
    json(&cmd, cfg);
    exec(&cmd, &instance);
    operations(&cmd);
    watch(&cmd, cfg);
    task(&cmd, &instance);
    completion(&cmd, cfg);
    doctor(&cmd, &instance);
    // A file of that name is a machine, as it always was.
    fs::write(path.with_file_name("watch"), "").unwrap();
    let mut command = cmd.command(&["watch", "getstate"]);
    command.current_dir(path.parent().unwrap());
    let said = feed(command, "").err;
    assert!(said.contains("Could not connect to VM watch\n"), "{said}");
    // A directory is none.
    fs::create_dir(path.with_file_name("ops")).unwrap();
    let mut command = cmd.command(&["ops", "inc"]);
    command.current_dir(path.parent().unwrap());
    assert!(feed(command, "").out.contains("main::increment"));
}

fn json(cmd: &Caller, cfg: &str) {
    use serde_json::json;
    let expected = json!({ "ok": true, "action": "getstate", "arguments": [], "value": "off" });
    assert_eq!(cmd.json(&["--json", cfg, "getstate"]), expected);
    assert_eq!(cmd.json(&[cfg, "getstate", "--json"]), expected);
    assert_eq!(cmd.json(&["--json", "-l"]), json!({ "ok": true, "vms": [cfg] }));
    let all = cmd.json(&["--json", "-l", "--long"]);
    let machine = &all["vms"][0];
    assert_eq!((&machine["config"], &machine["uptime"]), (&json!(cfg), &json!(0)), "{all}");
    assert_eq!((&machine["powerState"], &machine["paused"]), (&json!("off"), &json!(false)));
    let ran = cmd.run(&["--json", cfg, "stop", "hard"]);
    let document: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.status, &document["ok"], &document["error"]["code"]), (1, &json!(false), &json!(-8)));
    assert_eq!(ran.err, conflict("stop", "off"));
    // For people, in one round trip, which -v shows.
    let ran = cmd.run(&["-v", "-l", "--long"]);
    assert_eq!(ran.err.lines().filter(|line| line.contains("VM_List answered")).count(), 1, "{ran:?}");
    let lines: Vec<&str> = ran.out.lines().collect();
    assert!(lines[0].starts_with("STATE  NAME  UPTIME  CPU%"), "{ran:?}");
    assert!(lines[1].starts_with("off    new        -") && lines[1].ends_with(cfg), "{ran:?}");
}

fn exec(cmd: &Caller, instance: &Instance) {
    let ask = "<exec><op>inc</op><in><number>42</number></in></exec>";
    let reply = format!("{}1</returncode><out><number>43</number></out></exec>\n", tests::exec::PREFIX);
    for words in [&["exec"][..], &["exec", "-"]] {
        let ran = cmd.feed(words, ask);
        assert_eq!((ran.status, ran.out.as_str(), ran.err.as_str()), (0, reply.as_str(), ""));
    }
    assert_eq!(cmd.ok(&["exec", "inc", "number=42"]), reply);
    let file = instance.base.path().join("ask.xml");
    fs::write(&file, format!("{ask}\n{ask}\n")).unwrap();
    assert_eq!(cmd.ok(&["exec", file.to_str().unwrap()]), reply.repeat(2));
    // A reply that reports failure is a reply; the status tells.
    let ran = cmd.run(&["exec", "div", "dividend=1", "divisor=0"]);
    assert_eq!((ran.status, ran.err.as_str()), (1, ""));
    assert!(ran.out.contains("<error code=\"-999\">Illegal division by zero</error>"), "{ran:?}");
    let ran = cmd.feed(&["exec"], "<exec><op>inc</op>");
    assert_eq!((ran.status, ran.out.as_str()), (1, ""), "{ran:?}");
    assert!(ran.err.contains("not complete"), "{ran:?}");
    let ran = cmd.feed(&["exec"], "<!DOCTYPE a><exec/>");
    assert!(ran.status == 1 && ran.out.contains("malformed request"), "the server says it: {ran:?}");
    let made = instance.base.path().join("made");
    let wrapped = format!("directories/directory={}", made.display());
    cmd.ok(&["exec", "FileManager_MakeDir", &wrapped]);
    assert!(made.is_dir());
}

fn operations(cmd: &Caller) {
    let names = cmd.ok(&["ops", "--names"]);
    let expected: Vec<&str> = ops::TABLE.iter().map(|row| row.name).collect();
    assert_eq!(names.lines().collect::<Vec<_>>(), expected);
    let table = cmd.ok(&["ops"]);
    assert_eq!(table.lines().count(), ops::TABLE.len() + 1);
    assert!(table.lines().next().is_some_and(|line| line.starts_with("OPERATION")), "{table}");
    let page = cmd.ok(&["ops", "inc"]);
    for part in
        ["handler  main::increment", "access   authuser", "number (", "vmware-cmd exec inc number=..."]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    let some = cmd.ok(&["ops", "snapshot"]);
    assert!(some.contains("VM_CreateSnapshot") && !some.contains("VM_Start"), "{some}");
    assert_eq!(cmd.fails(&["ops", "fly"]), "There is no operation fly.\n");
    let row = &cmd.json(&["ops", "VM_Start", "--json"])["operations"][0];
    assert_eq!((&row["extension"], &row["parameters"][0]["name"]), (&true.into(), &"config".into()), "{row}");
}

/// Events as lines, as documents, and as a table on a terminal that Ctrl-C ends.
fn watch(cmd: &Caller, cfg: &str) {
    for json in [false, true] {
        let mut words = vec!["-v", "watch"];
        if json {
            words.push("--json");
        }
        let mut command = cmd.command(&words);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        // The first answer says where it is; from then on nothing is missed.
        let mut line = String::new();
        while !line.contains("VMServerd_WaitForEvents answered") {
            line.clear();
            assert_ne!(errors.read_line(&mut line).unwrap(), 0, "watch ended");
        }
        cmd.ok(&["-s", "unregister", cfg]);
        cmd.ok(&["-s", "register", cfg]);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        for event in ["vm.unregistered", "vm.registered"] {
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            if json {
                let document: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!((&document["type"], &document["config"]), (&event.into(), &cfg.into()), "{line}");
            } else {
                assert!(line.ends_with(&format!("Z {event} {cfg}\n")), "{line}");
            }
        }
        process::signal(child.id(), Signal::INT);
        assert!(process::ends_within(child.id(), Duration::from_secs(10)));
        child.wait().unwrap();
    }
    let mut child = cmd.on_terminal("watch");
    let (mut input, mut output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    // Its path is cut off where the terminal ends.
    let drawn = read_until(&mut output, "off    new ");
    assert!(drawn.contains("\x1b[HSTATE"), "{drawn:?}");
    cmd.ok(&["-s", "unregister", cfg]);
    read_until(&mut output, "vm.unregistered");
    input.write_all(b"\x03").unwrap();
    assert!(process::ends_within(child.id(), Duration::from_secs(10)), "Ctrl-C does not end it");
    child.wait().unwrap();
    cmd.ok(&["-s", "register", cfg]);
}

fn task(cmd: &Caller, instance: &Instance) {
    assert_eq!(cmd.ok(&["task"]).lines().count(), 1, "the heading");
    let [from, to] = ["from", "to"].map(|name| instance.base.path().join(name));
    fs::write(&from, vec![7; 32 << 20]).unwrap();
    let begin = |to: &Path| {
        let [file, to] = [format!("file={}", from.display()), format!("destination={}", to.display())];
        let reply = cmd.ok(&["exec", "FileManager_FileCopy", &file, &to]);
        let id = reply.split_once("<taskId>").unwrap().1.split_once('<').unwrap().0.to_owned();
        assert_ne!(id, "0", "a task");
        id
    };
    let id = begin(&to);
    let out = cmd.ok(&["task", &id]);
    let last = out.lines().last().unwrap();
    assert!(last.starts_with(&format!("task {id} done 100% 32.0 MiB of 32.0 MiB at ")), "{out}");
    assert_eq!(fs::metadata(&to).unwrap().len(), 32 << 20);
    let document = cmd.json(&["task", &id, "--json"]);
    assert_eq!((&document["task"]["state"], &document["task"]["percent"]), (&"done".into(), &100.into()));
    let list = cmd.ok(&["task"]);
    assert!(list.lines().nth(1).is_some_and(|line| line.contains("done   100%")), "{list}");
    // On a terminal there is a bar, and the same last line.
    let other = begin(&to.with_extension("2"));
    let mut child = cmd.on_terminal(&format!("task {other}"));
    let mut seen = String::new();
    child.stdout.take().unwrap().read_to_string(&mut seen).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(seen.contains(&format!("task {other} done 100%")), "{seen:?}");
    cmd.ok(&["task", &id, "--delete"]);
    assert_eq!(cmd.fails(&["task", &id]), format!("VMControl error -999: No such task: {id}\n"));
    assert!(cmd.fails(&["task", "x"]).contains("not a number"));
}

/// What bash offers: machines and operations of the server among them.
fn completion(cmd: &Caller, cfg: &str) {
    let script = programs::repository().join("packaging/completion/vmware-cmd.bash");
    let offered = |words: &str| {
        let text = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _vmware_cmd; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            script.display()
        );
        let mut command = Command::new("bash");
        command.args(["--norc", "-c", &text]).env("VMSERVERD_ROOT", &cmd.root);
        let path = format!("{}:/usr/bin:/bin", cmd.program.parent().unwrap().display());
        let ran = feed(
            {
                command.env("PATH", path);
                command
            },
            "",
        );
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{words}: {ran:?}");
        ran.out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    for (words, some) in [
        ("vmware-cmd ''", vec!["exec", "doctor", cfg]),
        ("vmware-cmd -q /", vec![cfg]),
        ("vmware-cmd /a.vmx st", vec!["start", "stop"]),
        ("vmware-cmd /a.vmx stop ''", vec!["hard", "soft", "trysoft"]),
        ("vmware-cmd -s un", vec!["unregister"]),
        ("vmware-cmd -s unregister ''", vec![cfg]),
        ("vmware-cmd ops VM_Sta", vec!["VM_Start"]),
        ("vmware-cmd exec in", vec!["inc"]),
        ("vmware-cmd task --st", vec!["--stop"]),
        ("vmware-cmd --js", vec!["--json"]),
    ] {
        let offered = offered(words);
        assert!(some.iter().all(|word| offered.iter().any(|one| one == word)), "{words}: {offered:?}");
    }
    assert_eq!(offered("vmware-cmd /a.vmx getst"), ["getstate"]);
    names_are_offered_and_not_expanded(&script);
    for (shell, file) in [("zsh", "_vmware-cmd"), ("fish", "vmware-cmd.fish")] {
        let what = format!("the completion of {shell} can be read");
        if skip::need_program(&what, shell) {
            let file = programs::repository().join("packaging/completion").join(file);
            assert!(Command::new(shell).arg("-n").arg(file).status().unwrap().success(), "{what}");
        }
    }
}

/// Whoever makes a machine chooses its path, and the shell of somebody else offers it.
fn names_are_offered_and_not_expanded(script: &Path) {
    let place = tempfile::tempdir().unwrap();
    let names =
        ["/m/a b.vmx", "/m/$(touch ran).vmx", "/m/`touch ran`.vmx", "/m/it's \"$HOME\".vmx", "/m/*.vmx", "*"];
    // A server with such machines.
    let program = place.path().join("vmware-cmd");
    fs::write(&program, format!("#!/bin/sh\ncat <<'X'\n{}\nX\n", names.join("\n"))).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let offered = |command: &str| {
        // What a shell makes of the line with what is offered behind the quote that was typed.
        let text = format!(
            "source {}; for current in '/m' \\\"/m \\'/m; do COMP_WORDS=(vmware-cmd {command} \"$current\"); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _vmware_cmd; quote=${{current%/m}}; \
             for word in \"${{COMPREPLY[@]}}\"; do eval \"printf '%s\\n' $quote$word$quote\"; done; done",
            script.display()
        );
        let mut command = Command::new("bash");
        command.args(["--norc", "-c", &text]).current_dir(place.path());
        command.env("PATH", format!("{}:/usr/bin:/bin", place.path().display()));
        let ran = feed(command, "");
        assert_eq!((ran.status, ran.err.as_str()), (0, ""), "{ran:?}");
        ran.out.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let expected: Vec<&str> = names.into_iter().filter(|name| name.starts_with("/m")).collect();
    for command in ["", "-s unregister", "watch"] {
        assert_eq!(offered(command), expected.repeat(3), "{command}");
    }
    assert!(!place.path().join("ran").exists(), "a name was run as a command");
}

/// What is wrong is found, and the command that is printed repairs it.
fn doctor(cmd: &Caller, instance: &Instance) {
    let verdict = |name: &str| {
        let ran = cmd.run(&["doctor", "--json"]);
        let document: serde_json::Value = serde_json::from_str(&ran.out).expect("a document");
        let checks = document["checks"].as_array().unwrap().clone();
        let failed = checks.iter().any(|check| check["verdict"] == "fail");
        assert_eq!((ran.status, document["ok"].as_bool()), (i32::from(failed), Some(!failed)), "{document}");
        let found = checks.into_iter().find(|check| check["check"] == name);
        found.unwrap_or_else(|| panic!("no check {name}: {document}"))
    };
    for name in ["config", "settings", "socket", "vmdir", "vm-list", "connection", "descriptors", "figures"] {
        let found = verdict(name);
        assert_ne!(found["verdict"], "fail", "{found}");
    }
    // What the server says of its host, whatever this one is.
    assert!(verdict("guests")["text"].as_str().unwrap().starts_with("host class "));
    let text = cmd.run(&["doctor"]).out;
    assert!(text.contains("ok     socket        ") && text.contains(" failed, "), "{text}");
    // Each is broken, seen, repaired by the command that was printed, and well again.
    let socket = instance.socket();
    let settings = instance.layout.settings();
    let config = instance.layout.product_config();
    let saved = fs::read_to_string(&config).unwrap();
    let broken: &[(&str, &dyn Fn())] = &[
        ("socket", &|| fs::set_permissions(&socket, fs::Permissions::from_mode(0o600)).unwrap()),
        ("config", &|| {
            let text: String =
                saved.lines().filter(|line| !line.contains("client")).flat_map(|line| [line, "\n"]).collect();
            fs::write(&config, format!("{text}authd.client.port = \"many\"\n")).unwrap();
        }),
    ];
    for (name, break_it) in broken {
        break_it();
        let found = verdict(name);
        assert_eq!(found["verdict"], "fail", "{found}");
        let repair = found["repair"].as_str().expect("a command");
        assert!(Command::new("sh").args(["-c", repair]).status().unwrap().success(), "{repair}");
        assert_eq!(verdict(name)["verdict"], "ok", "after {repair}");
    }
    let toml = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, format!("{toml}\n[authd.frob]\n")).unwrap();
    let found = verdict("settings");
    assert!(found["verdict"] == "fail" && found["text"].as_str().unwrap().contains("authd.frob"), "{found}");
    fs::write(&settings, toml).unwrap();
}
