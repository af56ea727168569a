//! The clients of the field, unmodified, against a live gateway and a real account.
//!
//! What each of them needs is in the table of clients of the specification; here they run with the
//! settings that everybody gets, delays after wrong passwords included.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use tests::skip::need_program;
use tests::{Account, Instance, Setup, need_root};

/// A gateway on both kinds of port, an account, and files with names and passwords to try.
struct Field {
    instance: Instance,
    account: Account,
    users: PathBuf,
    /// A wrong password and the right one.
    passwords: PathBuf,
    /// Wrong passwords only.
    wrong: PathBuf,
}

const WRONG: &str = "Wrong-horse-1";

impl Field {
    /// `None`, said loudly, where the client is missing or this is not root.
    fn open(client: &str) -> Option<Self> {
        let what = format!("{client} against a live gateway");
        if !need_root(&what) || !need_program(&what, client) {
            return None;
        }
        let account = Account::with_plain_password();
        let instance = Setup::new().tls().plain().start();
        let file = |name: &str, text: String| {
            let path = instance.base.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let users = file("users.txt", format!("{}\n", account.name));
        let passwords = file("pw.txt", format!("{WRONG}\n{}\n", account.password));
        let wrong = file("wrong.txt", format!("{WRONG}\n"));
        Some(Field { users, passwords, wrong, instance, account })
    }

    /// Runs a client in the directory of the instance, for what it leaves in its working directory.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.instance.base.path()).stdin(Stdio::null());
        command.env("HOME", self.instance.base.path());
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        format!("$ {program} {}\n{}", arguments.join(" "), String::from_utf8_lossy(&text))
    }

    fn ports(&self) -> [u16; 2] {
        [self.instance.tls, self.instance.plain]
    }
}

/// A line of a client's output with its white space made single.
fn lines(output: &str) -> Vec<String> {
    output.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn nmap_names_the_service_and_its_version() {
    let what = "nmap -sV against a live gateway";
    if !need_program(what, "nmap") {
        return;
    }
    let instance = Setup::new().tls().plain().start();
    let ports = format!("{},{}", instance.tls, instance.plain);
    let mut command = Command::new("nmap");
    command.args(["-sT", "-Pn", "-n", "-sV", "--script", "banner", "-p", &ports, "127.0.0.1"]);
    let output = tests::account::output(&mut command);
    let lines = lines(&output);
    for expected in [
        format!("{}/tcp open ssl/vmware-auth VMware Authentication Daemon 1.10 (Uses VNC)", instance.tls),
        format!("{}/tcp open vmware-auth VMware Authentication Daemon 1.00", instance.plain),
    ] {
        assert!(lines.contains(&expected), "{expected:?} is not in\n{output}");
    }
    assert!(output.contains("220 VMware Authentication Daemon Version 1.00"), "{output}");
}

#[test]
fn nmap_vmauthd_brute() {
    let Some(field) = Field::open("nmap") else { return };
    // Both ports at once: on ports other than 902 the version scan must first name the service.
    let ports = field.ports().map(|port| port.to_string()).join(",");
    let scan = |passwords: &PathBuf| {
        let arguments = format!("userdb={},passdb={}", field.users.display(), passwords.display());
        let script = ["--script", "vmauthd-brute", "--script-args", &arguments];
        field.run("nmap", &[&["-sT", "-Pn", "-n", "-sV", "-p", &ports], &script[..], &["127.0.0.1"]].concat())
    };
    let right = scan(&field.passwords);
    let found = format!("{}:{} - Valid credentials", field.account.name, field.account.password);
    assert_eq!(right.matches(&found).count(), 2, "{right}");
    assert!(!right.contains(&format!("{WRONG} - Valid")), "{right}");
    let wrong = scan(&field.wrong);
    assert!(!wrong.contains("Valid credentials"), "{wrong}");
    assert_eq!(wrong.matches("No valid accounts found").count(), 2, "{wrong}");
}

#[test]
fn hydra() {
    let Some(field) = Field::open("hydra") else { return };
    for port in field.ports() {
        let name = &field.account.name;
        let number = port.to_string();
        let attack = |passwords: &PathBuf| {
            let file = passwords.to_str().unwrap();
            field.run(
                "hydra",
                &["-I", "-t", "1", "-l", name, "-P", file, "-s", &number, "127.0.0.1", "vmauthd"],
            )
        };
        let right = attack(&field.passwords);
        let password = &field.account.password;
        let found = format!("[{port}][vmauthd] host: 127.0.0.1 login: {name} password: {password}");
        assert!(lines(&right).contains(&found), "{right}");
        let wrong = attack(&field.wrong);
        assert!(wrong.contains("0 valid password") && !wrong.contains("login: "), "{wrong}");
    }
}

#[test]
fn medusa() {
    let Some(field) = Field::open("medusa") else { return };
    for port in field.ports() {
        let name = &field.account.name;
        let number = port.to_string();
        let attack = |passwords: &PathBuf| {
            let file = passwords.to_str().unwrap();
            field.run("medusa", &["-h", "127.0.0.1", "-n", &number, "-u", name, "-P", file, "-M", "vmauthd"])
        };
        let right = attack(&field.passwords);
        let password = &field.account.password;
        let found =
            format!("ACCOUNT FOUND: [vmauthd] Host: 127.0.0.1 User: {name} Password: {password} [SUCCESS]");
        assert!(right.contains(&found), "{right}");
        let wrong = attack(&field.wrong);
        assert!(wrong.contains(WRONG) && !wrong.contains("ACCOUNT FOUND"), "{wrong}");
    }
}

#[test]
fn patator() {
    let Some(field) = Field::open("patator") else { return };
    for (port, tls) in [(field.instance.tls, "ssl=1"), (field.instance.plain, "ssl=0")] {
        let (port, user) = (format!("port={port}"), format!("user={}", field.account.name));
        let attack = |passwords: &PathBuf| {
            let file = format!("0={}", passwords.display());
            let what =
                ["vmauthd_login", "host=127.0.0.1", &port, tls, &user, "password=FILE0", &file, "-t", "1"];
            field.run("patator", &what)
        };
        let welcome = format!("User {} logged in.", field.account.name);
        let right = attack(&field.passwords);
        let row = right.lines().find(|line| line.contains(&welcome));
        let row = row.unwrap_or_else(|| panic!("{welcome:?} is not in\n{right}"));
        assert!(row.contains(" 230 ") && row.contains(&field.account.password), "{row}");
        let refused = right.lines().find(|line| line.contains("Login incorrect."));
        assert!(refused.is_some_and(|line| line.contains(" 530 ") && line.contains(WRONG)), "{right}");
        let wrong = attack(&field.wrong);
        assert!(wrong.contains("Login incorrect.") && !wrong.contains(&welcome), "{wrong}");
    }
}

/// The lines that `make run` shows a newcomer.
#[test]
fn by_hand_with_nc_and_openssl() {
    use std::io::{Read, Write};
    let instance = Setup::new().tls().plain().start();
    let socket = instance.socket();
    let (plain, tls) = (instance.plain.to_string(), format!("127.0.0.1:{}", instance.tls));
    for (program, arguments) in [
        ("nc", vec!["127.0.0.1", &plain]),
        ("nc", vec!["-U", socket.to_str().unwrap()]),
        ("openssl", vec!["s_client", "-quiet", "-starttls", "ftp", "-connect", &tls]),
    ] {
        if !need_program(&format!("{program} by hand"), program) {
            continue;
        }
        let mut command = Command::new(program);
        command.args(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let typed = "LOCAL\nGLOBAL server\n<exec><op>inc</op><in><number>42</number></in></exec>\n";
        input.write_all(typed.as_bytes()).unwrap();
        let mut shown = String::new();
        let mut output = child.stdout.take().unwrap();
        let mut buffer = [0; 4096];
        while !shown.contains("</exec>") {
            let length = output.read(&mut buffer).unwrap();
            assert!(length > 0, "{program} {arguments:?} showed only: {shown}");
            shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        assert!(shown.contains("<returncode>1</returncode><out><number>43</number></out></exec>"), "{shown}");
        assert!(shown.contains("200 Connected to vmware-serverd."), "{shown}");
        drop(input);
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
