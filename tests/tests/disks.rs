//! New disks over the wire, as an ordinary user, read by qemu.

use std::process::Command;

use tests::{Account, Setup, need_root};

#[test]
fn disks_belong_to_the_caller_and_qemu_reads_them() {
    if !need_root("CreateCOWDisk as an ordinary user")
        || !tests::skip::need_program("CreateCOWDisk and qemu", "qemu-img")
    {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().start();
    let mut exec = instance.unix().login(&account).server();
    for kind in ["monolithicSparse", "twoGbMaxExtentSparse", "vmfsSparse"] {
        let disk = account.home.join(format!("{kind}.vmdk"));
        let arguments = |more: &str| format!("<file>{}</file><type>{kind}</type>{more}", disk.display());
        let made = exec.op("CreateCOWDisk", &arguments("<size>10485760</size>"));
        assert_eq!((made.out("size"), made.out("type")), ("10485760".into(), kind.into()));
        assert_eq!(made.out("cid").len(), 8);
        let files = made.all("file");
        assert_eq!(files[0], disk.to_str().unwrap());
        assert!(files.iter().all(|file| account.owns(file.as_ref())), "{files:?}");
        // The second element of that name is the first of the list.
        assert_eq!(files[1], files[0]);

        let again = exec.op("CreateCOWDisk", &arguments("")).error().unwrap();
        assert_eq!((again.0, again.1.ends_with(": File exists")), (-999, true), "{}", again.1);

        let child = account.home.join(format!("{kind}-child.vmdk"));
        let arguments =
            format!("<file>{}</file><type>{kind}</type><parent>{kind}.vmdk</parent>", child.display());
        assert_eq!(exec.op("CreateCOWDisk", &arguments).out("size"), "10485760");
        let raw = account.home.join("raw");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-f", "vmdk", "-O", "raw"]).args([&child, &raw]);
        tests::account::output(&mut convert);
        assert_eq!(std::fs::read(&raw).unwrap(), vec![0; 10 << 20], "{kind}");
    }
}

#[test]
fn what_the_user_may_not_do_the_server_does_not_do_either() {
    if !need_root("CreateCOWDisk where the user may not write") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().start();
    let mut exec = instance.unix().login(&account).server();
    let refused = exec.op("CreateCOWDisk", "<file>/root/a.vmdk</file>").error().unwrap();
    assert_eq!(refused.0, -4, "{}", refused.1);
    let secret = instance.public_directory("secret").join("p.vmdk");
    std::fs::write(&secret, "x").unwrap();
    let mut chmod = Command::new("chmod");
    tests::account::output(chmod.arg("600").arg(&secret));
    let arguments = format!(
        "<file>{}</file><parent>{}</parent>",
        account.home.join("c.vmdk").display(),
        secret.display()
    );
    let refused = exec.op("CreateCOWDisk", &arguments).error().unwrap();
    assert_eq!(refused, (-4, format!("Permission denied: {}", secret.display())));
    assert!(!account.home.join("c.vmdk").exists());
}
