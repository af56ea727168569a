//! Encryption on an administrator's word, while others go on working.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::exec::Exec;
use tests::{Account, Instance, Setup, need_root};

/// What the gateway answers about its certificate on a new connection.
fn thumbprint(instance: &Instance) -> String {
    let answer = instance.secure().local().ask("THUMBPRINT x");
    answer.strip_prefix("200 ").unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// The certificate that a new TLS connection is shown, as the reference implementation reads the file.
fn openssl(file: &Path, arguments: &[&str]) -> String {
    let mut command = std::process::Command::new("openssl");
    command.args(["x509", "-noout", "-in"]).arg(file).args(arguments);
    tests::account::output(&mut command).trim().to_owned()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_new_certificate_is_seen_by_the_next_caller_and_disturbs_nobody() {
    if !need_root("Security_CreateCertificate") {
        return;
    }
    let instance = Setup::new().tls().plain().start();
    let ssl = instance.layout.ssl_directory();
    let (crt, key) = (ssl.join("rui.crt"), ssl.join("rui.key"));
    let mut sessions: Vec<Exec> = (0..3).map(|_| instance.secure().local().server()).collect();
    let waiting = instance.secure();
    let mut root = instance.exec();

    let before = root.op("Security_GetConfig", "");
    assert_eq!((before.out("consoleSsl"), before.out("managementSsl")), ("1".into(), "1".into()));
    let old = thumbprint(&instance);
    assert_eq!(before.all("fingerprint"), [old.as_str()]);
    assert_eq!(before.all("file"), [crt.to_str().unwrap()]);
    let old_key = std::fs::read(&key).unwrap();

    let (code, text) = root.op("Security_CreateCertificate", "").error().unwrap();
    assert_eq!((code, text), (-999, format!("{}: File exists", crt.display())));
    assert_eq!(std::fs::read(&key).unwrap(), old_key);

    let made = root.op(
        "Security_CreateCertificate",
        "<commonName>lab.example</commonName><days>30</days><bits>3072</bits><overwrite>1</overwrite>",
    );
    let new = made.all("fingerprint").remove(0);
    assert_ne!(new, old);
    assert_eq!(made.all("subject"), ["CN=lab.example, O=vmserverd"]);
    let time = |name: &str| made.all(name)[0].parse::<i64>().unwrap();
    assert_eq!(time("notAfter") - time("notBefore"), 30 * 86_400);
    assert!(!made.text.contains("PRIVATE KEY"));
    // In force when the reply is there: on the wire, in the handshake, and on the disk.
    assert_eq!(thumbprint(&instance), new);
    let shown = instance.secure();
    let der = shown.tls().peer_certificates().unwrap()[0].to_vec();
    let pem = openssl(&crt, &["-fingerprint", "-sha1"]);
    assert_eq!(pem.rsplit('=').next(), Some(new.as_str()));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("shown.der");
    std::fs::write(&file, der).unwrap();
    assert_eq!(openssl(&file, &["-inform", "DER", "-fingerprint", "-sha1"]), pem);
    assert!(openssl(&crt, &["-text"]).contains("Public-Key: (3072 bit)"));
    assert_eq!((mode(&crt), mode(&key)), (0o444, 0o400));
    let names: Vec<_> = std::fs::read_dir(&ssl).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(root.op("Security_GetConfig", "").all("fingerprint"), [new.as_str()]);
    // Sessions, and somebody who had not logged in yet, go on.
    for (number, session) in sessions.iter_mut().enumerate() {
        assert_eq!(session.inc(number as i64), number as i64 + 1);
    }
    assert_eq!(waiting.local().server().inc(1), 2);
}

#[test]
fn encryption_can_be_switched_off_and_on_without_ending_a_session() {
    if !need_root("Security_ActivateConfig") {
        return;
    }
    let instance = Setup::new().tls().plain().start();
    let config = instance.layout.product_config();
    std::fs::write(&config, "# by hand\n".to_owned() + &std::fs::read_to_string(&config).unwrap()).unwrap();
    let mut secure = instance.secure().local().server();
    let mut root = instance.exec();

    let off = root.op("Security_ActivateConfig", "<consoleSsl>0</consoleSsl>");
    assert_eq!((off.out("consoleSsl"), off.out("managementSsl")), ("0".into(), "1".into()));
    assert_eq!(off.out("restartRequired"), "0");
    // The main port speaks plainly now.
    let mut plain = tests::Client::tcp(instance.tls).greeted().local().server();
    assert_eq!(plain.inc(1), 2);
    assert_eq!(secure.inc(2), 3);
    let text = std::fs::read_to_string(&config).unwrap();
    assert!(text.starts_with("# by hand\n") && text.contains("security.host.ruissl = \"FALSE\"\n"), "{text}");

    let on =
        root.op("Security_ActivateConfig", "<consoleSsl>yes</consoleSsl><managementSsl>0</managementSsl>");
    assert_eq!((on.out("consoleSsl"), on.out("managementSsl")), ("1".into(), "0".into()));
    assert_eq!(instance.secure().local().server().inc(3), 4);
    assert_eq!((secure.inc(4), plain.inc(5)), (5, 6));
    // Nothing to change is no error, and nothing is written.
    let written = std::fs::metadata(&config).unwrap().modified().unwrap();
    assert!(root.op("Security_ActivateConfig", "").ok());
    assert_eq!(std::fs::metadata(&config).unwrap().modified().unwrap(), written);
}

#[test]
fn settings_that_cannot_be_used_are_put_back() {
    if !need_root("Security_ActivateConfig with settings that are wrong") {
        return;
    }
    let instance = Setup::new().tls().plain().start();
    let mut root = instance.exec();
    let config = instance.layout.product_config();
    let broken = std::fs::read_to_string(&config).unwrap() + "authd.port = \"nonsense\"\n";
    std::fs::write(&config, &broken).unwrap();
    let (code, text) = root.op("Security_ActivateConfig", "<consoleSsl>0</consoleSsl>").error().unwrap();
    assert!(code == -999 && text.contains("authd.port = \"nonsense\" is no port"), "{text}");
    assert_eq!(std::fs::read_to_string(&config).unwrap(), broken);
    assert_eq!(root.op("Security_GetConfig", "").out("consoleSsl"), "1");
    assert_eq!(instance.secure().local().server().inc(1), 2);
}

#[test]
fn only_administrators_ask() {
    if !need_root("Security_* as an ordinary user") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().tls().start();
    let mut exec = instance.secure().login(&account).server();
    for name in ["Security_GetConfig", "Security_ActivateConfig", "Security_CreateCertificate"] {
        let (code, text) =
            exec.op(name, "<consoleSsl>0</consoleSsl><overwrite>1</overwrite>").error().unwrap();
        let expected = format!("Permission denied: operation {name} requires administrator privileges");
        assert_eq!((code, text), (-4, expected));
    }
    assert_eq!(instance.exec().op("Security_GetConfig", "").out("consoleSsl"), "1");
}
