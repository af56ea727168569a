//! Maintainer scripts without a Debian: below a directory, with stand-ins for the tools that they call.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tests::programs;

/// Runs a script with the first installation's words; it knows no other `/etc/vmware` than that of `root`.
fn run(root: &Path, script: &str, words: &[&str]) {
    let text = programs::repository().join("packaging/deb/vmserverd").join(script);
    let text = fs::read_to_string(text).unwrap();
    let here = |path: &str| root.join(path).display().to_string();
    let text = text.replace("/etc/vmware", &here("etc/vmware")).replace("/run/systemd", &here("no"));
    let tools = root.join("bin");
    fs::create_dir_all(&tools).unwrap();
    for tool in ["systemd-sysusers", "systemd-tmpfiles", "deb-systemd-helper", "deb-systemd-invoke"] {
        fs::write(tools.join(tool), "#!/bin/sh\n").unwrap();
        fs::set_permissions(tools.join(tool), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = Command::new("sh");
    command.args(["-c", &text, script]).args(words);
    let output = command.env("PATH", format!("{}:/usr/bin:/bin", tools.display())).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_last_setting_without_its_line_end_stays_a_setting() {
    const OLD: &str = "vmware.fullpath = \"/usr/bin/vmware\"";
    const NEW: &str = "# Added by the Debian package vmserverd:\nauthd.client.port = \"902\"\n";
    for (before, after) in [
        (OLD.to_owned(), format!("{OLD}\n{NEW}")),
        (format!("{OLD}\n"), format!("{OLD}\n{NEW}")),
        (String::new(), NEW.to_owned()),
        ("authd.client.port = \"904\"".to_owned(), "authd.client.port = \"904\"".to_owned()),
    ] {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("etc/vmware/config");
        fs::create_dir_all(config.parent().unwrap()).unwrap();
        fs::write(&config, &before).unwrap();
        run(root.path(), "postinst", &["configure", ""]);
        assert_eq!(fs::read_to_string(&config).unwrap(), after, "{before:?}");
    }
}
