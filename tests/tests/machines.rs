//! Machines over the wire: registering, seeing, describing, making and deleting them, by users with
//! different rights.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use tests::exec::{Exec, Reply};
use tests::{Account, Instance, Mounted, Setup, need_root};

const VMX: &str = "config.version = \"8\"\nvirtualHW.version = \"4\"\ndisplayName = \"Web & mail\"\n\
    guestOS = \"linux\"\nmemsize = \"64\"\nnumvcpus = \"2\"\nannotation = \"two|0Alines\"\n\
    uuid.bios = \"56 4d 01 02 03 04 05 06-07 08 09 0a 0b 15 ff 78\"\n\
    ethernet0.present = \"TRUE\"\nguestinfo.ip = \"10.0.0.7\"\n";

/// A .vmx of a user in a directory of its own.
fn machine(instance: &Instance, name: &str, owner: (u32, u32), mode: u32) -> PathBuf {
    let directory = instance.base.path().join("vms").join(name);
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join(format!("{name}.vmx"));
    std::fs::write(&path, VMX).unwrap();
    for path in [&directory, &path] {
        chown(path, Some(owner.0), Some(owner.1)).unwrap();
    }
    set_mode(&path, mode);
    path
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn cfg(path: &Path) -> String {
    format!("<config>{}</config>", path.display())
}

fn ask(exec: &mut Exec, op: &str, path: &Path) -> Reply {
    exec.op(op, &cfg(path))
}

fn list(exec: &mut Exec) -> Vec<String> {
    exec.op("VM_List", "<details>0</details>").all("config")
}

fn not_registered(path: &Path) -> (i32, String) {
    let config = path.display();
    let text = format!(
        "No such virtual machine: The config file {config} is not registered.\n\
         Please register the config file on the server.  For example:\n\
         vmware-cmd -s register \"{config}\""
    );
    (-11, text)
}

fn no_such() -> (i32, String) {
    (-11, "No such virtual machine".into())
}

#[test]
fn a_machine_from_registering_to_unregistering() {
    let instance = Setup::new().start();
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let path = machine(&instance, "web", me, 0o755);
    let mut exec = instance.exec();
    assert_eq!(ask(&mut exec, "VM_INFO", &path).error(), Some(not_registered(&path)));
    assert_eq!(ask(&mut exec, "VMUnRegister", &path).error(), Some(no_such()));
    assert_eq!(ask(&mut exec, "VMRegister", &path).out("displayName"), "Web & mail");
    assert_eq!(
        ask(&mut exec, "VMRegister", &path).error(),
        Some((-20, "Virtual machine already exists".into()))
    );
    let vm_list = std::fs::read_to_string(instance.layout.path("/etc/vmware/vm-list")).unwrap();
    assert_eq!(vm_list, format!("config \"{}\"\n", path.display()));

    let info = ask(&mut exec, "VM_INFO", &path);
    for (name, value) in [
        ("displayName", "Web & mail"),
        ("guestOS", "linux"),
        ("powerState", "off"),
        ("paused", "0"),
        ("pid", "0"),
        ("memoryMb", "64"),
        ("cpus", "2"),
        ("hardwareVersion", "4"),
        ("ip", "10.0.0.7"),
        ("macAddress", "00:0c:29:15:ff:78"),
        ("permissions", "rwx"),
        ("hasSnapshot", "0"),
    ] {
        assert_eq!(info.all(name), [value], "{name}");
    }
    let listed = exec.op("VM_List", "");
    assert_eq!(
        (listed.all("displayName"), listed.all("memoryMb")),
        (vec!["Web & mail".into()], vec!["64".into()])
    );
    assert_eq!(exec.op("GSXHostInfo_Query", "").out("vmCount"), "1");

    // What was done to it is in its event log, in the product's form.
    let events = exec.op("VM_GetLastNEvents", &cfg(&path));
    assert_eq!(events.all("subject"), ["Virtual machine registered."]);
    let encoded = path.display().to_string().replace('/', "%2F");
    let log = instance.layout.log_directory().join(format!("event-{encoded}.log"));
    let line = std::fs::read_to_string(&log).unwrap();
    assert!(line.starts_with("<event type=\"info\"><time>"), "{line}");

    // A change of the file is seen at once.
    std::fs::write(&path, VMX.replace("Web & mail", "Mail")).unwrap();
    assert_eq!(ask(&mut exec, "VM_INFO", &path).all("displayName"), ["Mail"]);
    assert_eq!(exec.op("VM_List", "").all("displayName"), ["Mail"]);

    assert!(ask(&mut exec, "VMUnRegister", &path).ok());
    assert!(list(&mut exec).is_empty());
    assert!(path.exists());
    assert_eq!(std::fs::read_to_string(instance.layout.path("/etc/vmware/vm-list")).unwrap(), "");
}

#[test]
fn a_list_made_by_somebody_else_is_served_as_it_is() {
    let setup = Setup::new();
    let base = tests::instance::Base::new();
    let etc = base.root().join("etc/vmware");
    std::fs::create_dir_all(&etc).unwrap();
    let vm = |name: &str| base.path().join(name);
    for name in ["a b.vmx", "c.vmx"] {
        std::fs::write(vm(name), VMX).unwrap();
    }
    let text = format!(
        "# VMs of this host\nconfig \"{}\"\nconfig \"/gone/away.vmx\"\nsomething else\nconfig {}\n",
        vm("a b.vmx").display(),
        vm("c.vmx").display()
    );
    std::fs::write(etc.join("vm-list"), &text).unwrap();
    let instance = setup.try_start(&base).unwrap();
    let mut exec = instance.exec();
    let names = |names: &[&str]| names.iter().map(|name| vm(name).display().to_string()).collect::<Vec<_>>();
    assert_eq!(list(&mut exec), names(&["a b.vmx", "c.vmx"]));
    // Its directory is gone as well; root may clean up.
    if rustix::process::getuid().is_root() {
        assert!(ask(&mut exec, "VMUnRegister", Path::new("/gone/away.vmx")).ok());
        let now = std::fs::read_to_string(etc.join("vm-list")).unwrap();
        assert_eq!(now, text.replace("config \"/gone/away.vmx\"\n", ""));
    }
}

/// Some editors put a byte order mark before the first key.
#[test]
fn a_byte_order_mark_hides_no_key() {
    let instance = Setup::new().start();
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let path = machine(&instance, "marked", me, 0o755);
    let text = "\u{feff}displayName = \"Web\"\r\nconfig.version = \"8\"\r\n";
    std::fs::write(&path, text).unwrap();
    let mut exec = instance.exec();
    assert_eq!(ask(&mut exec, "VMRegister", &path).out("displayName"), "Web");
    assert_eq!(ask(&mut exec, "VM_INFO", &path).all("displayName"), ["Web"]);
    let arguments = format!("{}<key>displayName</key><value>Mail</value>", cfg(&path));
    assert!(exec.op("VM_SetConfig", &arguments).ok());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), text.replace("Web", "Mail"));
}

/// Of many who make the same machine at once one succeeds, and the others are told why they do not.
#[test]
fn a_machine_is_made_once() {
    let instance = Setup::new().start();
    for directory in ["new", "there"] {
        for round in 0..10 {
            let place = instance.base.path().join(format!("{directory}{round}"));
            if directory == "there" {
                std::fs::create_dir(&place).unwrap();
            }
            let path = place.join("a.vmx");
            let arguments = format!("{}<displayName>a</displayName><diskSize>65536</diskSize>", cfg(&path));
            let make = || instance.exec().op("VM_Create", &arguments).error();
            let mut answers: Vec<_> = std::thread::scope(|scope| {
                let callers: Vec<_> = (0..6).map(|_| scope.spawn(make)).collect();
                callers.into_iter().map(|caller| caller.join().unwrap()).collect()
            });
            answers.sort();
            assert_eq!(answers.remove(0), None, "{directory}{round}");
            let exists = (-20, "Virtual machine already exists".to_owned());
            assert!(answers.iter().all(|error| error.as_ref() == Some(&exists)), "{answers:?}");
        }
    }
}

/// The list of snapshots is the owner's file; others are told the same all the same.
#[test]
fn a_reader_is_told_of_snapshots() {
    if !need_root("snapshots of a machine, told to somebody who may only read it") {
        return;
    }
    let (owner, other) = (Account::new(), Account::new());
    let instance = Setup::new().start();
    let of = |account: &Account| instance.unix().login(account).server();
    let (mut own, mut others) = (of(&owner), of(&other));
    let path = machine(&instance, "web", (owner.uid, owner.gid), 0o755);
    assert!(ask(&mut own, "VMRegister", &path).ok());
    let mut told = |expected: &str| {
        for exec in [&mut own, &mut others] {
            for op in ["VM_INFO", "VM_HasSnapshot", "VM_INFO"] {
                assert_eq!(ask(exec, op, &path).all("hasSnapshot"), [expected], "{op}");
            }
        }
        own.op("VM_CreateSnapshot", &cfg(&path));
    };
    told("0");
    assert_eq!(std::fs::metadata(path.with_extension("vmsd")).unwrap().permissions().mode() & 0o777, 0o600);
    told("1");
    assert!(ask(&mut own, "VM_RemoveAllSnapshots", &path).ok());
    for exec in [&mut own, &mut others] {
        assert_eq!(ask(exec, "VM_INFO", &path).all("hasSnapshot"), ["0"]);
    }
}

/// No room where the machine is: said as that, with the path, and nothing is left behind.
#[test]
fn a_snapshot_on_a_full_disk_is_refused_with_the_reason() {
    let instance = Setup::new().start();
    let place = instance.public_directory("small");
    let Some(small) =
        Mounted::new(&place, "snapshots on a full disk", &["-t", "tmpfs", "-o", "size=512k", "tmpfs"])
    else {
        return;
    };
    let mut exec = instance.exec();
    let path = small.path().join("vm/a.vmx");
    let arguments = format!("{}<displayName>a</displayName><diskSize>65536</diskSize>", cfg(&path));
    assert!(exec.op("VM_Create", &arguments).ok());
    let filler = small.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 512]).is_ok() {}
    let disk = path.with_file_name("a-000001.vmdk");
    for _ in 0..2 {
        let text = format!("Insufficient resources: {}: No space left on device", disk.display());
        assert_eq!(ask(&mut exec, "VM_CreateSnapshot", &path).error(), Some((-22, text)));
        assert!(!disk.exists());
    }
    drop(file);
    std::fs::remove_file(&filler).unwrap();
    assert!(ask(&mut exec, "VM_CreateSnapshot", &path).ok());
    drop(exec);
}

/// The server has no room to write down where a machine is found again: the caller is told why it is not started,
/// and nobody is killed.
#[test]
fn a_start_on_a_full_disk_is_refused_with_the_reason() {
    let setup = Setup::new();
    let base = tests::instance::Base::new();
    let place = base.root().join("run/vmware/machines");
    std::fs::create_dir_all(&place).unwrap();
    let options = ["-t", "tmpfs", "-o", "size=4k", "tmpfs"];
    let Some(small) = Mounted::new(&place, "a start on a full disk", &options) else { return };
    let filler = small.path().join("filler");
    std::fs::write(&filler, [0; 4096]).unwrap();
    let instance = setup.try_start(&base).unwrap();
    let mut exec = instance.exec();
    let path = base.path().join("vm/a.vmx");
    let arguments = format!("{}<displayName>a</displayName><diskSize>65536</diskSize>", cfg(&path));
    assert!(exec.op("VM_Create", &arguments).ok());
    let text = format!("Insufficient resources: {}: No space left on device", place.display());
    for op in ["VM_Start", "VM_CreateSnapshot", "VM_Start"] {
        assert_eq!(ask(&mut exec, op, &path).error(), Some((-22, text.clone())), "{op}");
    }
    assert_eq!(ask(&mut exec, "VM_GetState", &path).all("powerState"), ["off"]);
    let log = instance.serverd_log();
    assert!(!log.contains("is killed"), "{log}");
    std::fs::remove_file(&filler).unwrap();
    assert!(ask(&mut exec, "VM_CreateSnapshot", &path).ok());
    drop((exec, instance));
}

/// The rights table of the product's manuals, by mode bits, for the owner, a member of the group and
/// everybody else.
#[test]
fn rights_are_the_rights_on_the_file() {
    if !need_root("rights on machines, by users of three classes") {
        return;
    }
    let (owner, other) = (Account::new(), Account::new());
    let instance = Setup::new().start();
    let mut root = instance.exec();
    let of = |account: &Account| instance.unix().login(account).server();
    let (mut own, mut others) = (of(&owner), of(&other));
    let path = machine(&instance, "web", (owner.uid, owner.gid), 0o700);

    // Registering takes all three rights.
    for mode in [0o600, 0o500, 0o300, 0o100] {
        set_mode(&path, mode);
        let code = if mode & 0o400 == 0 { -11 } else { -4 };
        assert_eq!(ask(&mut own, "VMRegister", &path).code(), code, "{mode:o}");
    }
    set_mode(&path, 0o700);
    assert_eq!(ask(&mut others, "VMRegister", &path).error(), Some(no_such()));
    assert!(ask(&mut own, "VMRegister", &path).ok());

    // To somebody who cannot read it, it is not registered.
    assert_eq!(ask(&mut others, "VM_INFO", &path).error(), Some(not_registered(&path)));
    for op in ["VM_Who", "VM_GetLastNEvents", "VMDeleteEdit_DeleteVM", "VMDeleteInfo_DeleteVMInfo"] {
        assert_eq!(ask(&mut others, op, &path).error(), Some(not_registered(&path)), "{op}");
    }
    assert_eq!(ask(&mut others, "VMUnRegister", &path).error(), Some(no_such()));
    assert!(list(&mut others).is_empty());
    assert_eq!(others.op("GSXHostInfo_Query", "").out("vmCount"), "0");
    assert_eq!(list(&mut own).len(), 1);
    assert_eq!(list(&mut root).len(), 1);

    // Reading is enough to look, and nothing else.
    set_mode(&path, 0o704);
    assert_eq!(ask(&mut others, "VM_INFO", &path).all("permissions"), ["r--"]);
    assert_eq!(list(&mut others).len(), 1);
    // The whole text, which programs compare: nothing is behind the path.
    let denied = || Some((-4, format!("Permission denied: {}", path.display())));
    for op in ["VMUnRegister", "VMDeleteEdit_DeleteVM"] {
        assert_eq!(ask(&mut others, op, &path).error(), denied(), "{op}");
    }
    let mks = format!("{}<mks>1</mks>", cfg(&path));
    assert_eq!(others.op("VM_INFO", &mks).error(), denied());
    set_mode(&path, 0o705);
    assert!(others.op("VM_INFO", &mks).ok());
    assert_eq!(ask(&mut others, "VMUnRegister", &path).error(), denied());

    // A directory that may not be entered hides what is in it.
    set_mode(path.parent().unwrap(), 0o700);
    assert_eq!(ask(&mut others, "VM_INFO", &path).error(), Some(not_registered(&path)));
    set_mode(path.parent().unwrap(), 0o755);

    // All three rights, of whoever has them.
    set_mode(&path, 0o707);
    assert!(ask(&mut others, "VMUnRegister", &path).ok());
    // Root needs none for this.
    set_mode(&path, 0o000);
    assert!(ask(&mut root, "VMRegister", &path).ok());
    assert_eq!(ask(&mut root, "VM_INFO", &path).all("permissions"), ["rw-"]);
    assert!(ask(&mut root, "VMUnRegister", &path).ok());
}

#[test]
fn who_is_connected() {
    if !need_root("sessions of several users at one machine") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().start();
    let path = machine(&instance, "web", (0, 0), 0o755);
    let mut root = instance.exec();
    assert!(ask(&mut root, "VMRegister", &path).ok());
    let mut user = instance.tcp().login(&account).server();
    let connect = format!("{}<connect>1</connect>", cfg(&path));
    assert!(user.op("VM_INFO", &connect).ok());
    let who = |exec: &mut Exec| {
        let reply = ask(exec, "VM_Who", &path);
        (reply.all("name"), reply.all("address"), reply.all("type"))
    };
    let expected = (vec![account.name.clone()], vec!["127.0.0.1".to_owned()], vec!["api".to_owned()]);
    assert_eq!(who(&mut root), expected);
    assert!(user.op("VM_INFO", &connect).ok());
    assert_eq!(who(&mut user), expected, "once is enough");
    assert!(root.op("VM_INFO", &connect).ok());
    assert_eq!(who(&mut root).0.len(), 2);
    drop(user);
    tests::eventually("the session's end is seen", || (who(&mut root).0 == ["root"]).then_some(()));
}

#[test]
fn making_and_deleting() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let made = exec.op("VM_Create", "<displayName>Web server</displayName><diskSize>1048576</diskSize>");
    let config = PathBuf::from(made.out("config"));
    let directory = instance.layout.path("/var/lib/vmware/Virtual Machines/Web server");
    assert_eq!(config, directory.join("Web server.vmx"));
    assert_eq!(list(&mut exec), [config.display().to_string()]);
    let private = std::fs::read_to_string(instance.layout.path("/etc/vmware/vm-list-private")).unwrap();
    assert_eq!(private, format!("config \"{}\"\n", config.display()));
    let again = exec.op("VM_Create", "<displayName>Web server</displayName>");
    assert_eq!(again.error(), Some((-20, "Virtual machine already exists".into())));

    // A second machine uses the first one's disk.
    let disk = directory.join("Web server.vmdk");
    let other = exec.op(
        "VM_Create",
        &format!("<displayName>Clone</displayName><existingDisk>{}</existingDisk>", disk.display()),
    );
    let clone = PathBuf::from(other.out("config"));
    std::fs::write(directory.join("vmware.log"), "log").unwrap();
    std::fs::write(directory.join("mine.txt"), "not the machine's").unwrap();
    let info = ask(&mut exec, "VMDeleteInfo_DeleteVMInfo", &config);
    assert_eq!((info.out("registered"), info.out("canDelete")), ("1".into(), "1".into()));
    let files: Vec<_> = info.all("path").into_iter().zip(info.all("type")).zip(info.all("shared")).collect();
    let path = |name: &str| directory.join(name).display().to_string();
    let file = |name: &str, kind: &str, shared: &str| ((path(name), kind.to_owned()), shared.to_owned());
    assert_eq!(
        files,
        [
            file("Web server.vmx", "config", "0"),
            file("Web server.vmdk", "disk", "1"),
            file("vmware.log", "log", "0")
        ]
    );
    // A file that is not the machine's cannot be named.
    let foreign = format!("{}<files><file>/etc/passwd</file></files>", cfg(&config));
    assert_eq!(exec.op("VMDeleteEdit_DeleteVM", &foreign).code(), -3);

    let deleted = ask(&mut exec, "VMDeleteEdit_DeleteVM", &config);
    assert_eq!(deleted.all("file"), [path("vmware.log"), path("Web server.vmx")]);
    assert_eq!(
        deleted.all("warning"),
        [format!("{} is kept: another registered machine uses it", disk.display())]
    );
    assert!(disk.exists() && directory.join("mine.txt").exists());
    assert_eq!(list(&mut exec), [clone.display().to_string()]);

    // Suspended: only by force.
    let suspended = std::fs::read_to_string(&clone)
        .unwrap()
        .replace("checkpoint.vmState = \"\"", "checkpoint.vmState = \"x\"");
    std::fs::write(&clone, suspended).unwrap();
    assert_eq!(ask(&mut exec, "VM_INFO", &clone).all("powerState"), ["suspended"]);
    let (code, text) = ask(&mut exec, "VMDeleteEdit_DeleteVM", &clone).error().unwrap();
    assert!(code == -8 && text.contains("(\"suspended\")"), "{text}");
    let force = format!("{}<force>1</force><deleteDisks>0</deleteDisks>", cfg(&clone));
    assert!(exec.op("VMDeleteEdit_DeleteVM", &force).ok());
    assert!(!clone.parent().unwrap().exists());
    assert!(disk.exists());
    assert!(list(&mut exec).is_empty());
}

#[test]
fn a_private_machine_is_its_owners() {
    if !need_root("private machines of another user") {
        return;
    }
    let (owner, other) = (Account::new(), Account::new());
    let instance = Setup::new().start();
    let mut own = instance.unix().login(&owner).server();
    let mut others = instance.unix().login(&other).server();
    let made = own.op("VM_Create", "<displayName>mine</displayName><diskSize>0</diskSize>");
    let config = PathBuf::from(made.out("config"));
    assert!(owner.owns(&config) && owner.owns(config.parent().unwrap()));
    assert!(list(&mut others).is_empty());
    // Even if he could read it.
    set_mode(config.parent().unwrap(), 0o755);
    set_mode(&config, 0o755);
    assert!(list(&mut others).is_empty());
    assert_eq!(ask(&mut others, "VM_INFO", &config).error(), Some(not_registered(&config)));
    assert_eq!(list(&mut own).len(), 1);
    assert_eq!(list(&mut instance.exec()).len(), 1);
    let shared =
        own.op("VM_Create", "<displayName>ours</displayName><diskSize>0</diskSize><private>0</private>");
    assert_eq!(list(&mut others), [shared.out("config")]);
}

/// A disk is kept for a machine that whoever deletes cannot even see.
#[test]
fn a_disk_that_an_invisible_machine_uses_is_kept() {
    if !need_root("linked disks of two users") {
        return;
    }
    let (owner, other) = (Account::new(), Account::new());
    let instance = Setup::new().start();
    let mut own = instance.unix().login(&owner).server();
    let mut others = instance.unix().login(&other).server();
    let made = own.op(
        "VM_Create",
        "<displayName>template</displayName><diskSize>1048576</diskSize><private>0</private>",
    );
    let template = PathBuf::from(made.out("config"));
    let disk = template.with_file_name("template.vmdk");
    let child = other.home.join("child.vmdk");
    let request = format!("<file>{}</file><parent>{}</parent>", child.display(), disk.display());
    assert!(others.op("CreateCOWDisk", &request).ok());
    let clone = format!("<displayName>clone</displayName><existingDisk>{}</existingDisk>", child.display());
    assert!(others.op("VM_Create", &clone).ok());
    assert_eq!(list(&mut own), [template.display().to_string()]);

    let shared = |exec: &mut Exec| {
        let info = ask(exec, "VMDeleteInfo_DeleteVMInfo", &template);
        info.all("path")
            .into_iter()
            .zip(info.all("shared"))
            .find(|(path, _)| *path == disk.display().to_string())
    };
    assert_eq!(shared(&mut own).unwrap().1, "1");
    assert_eq!(shared(&mut instance.exec()).unwrap().1, "1", "root looks himself");
    let deleted = ask(&mut own, "VMDeleteEdit_DeleteVM", &template);
    let kept = format!("{} is kept: another registered machine uses it", disk.display());
    assert_eq!(deleted.all("warning"), [kept]);
    assert!(disk.exists() && !template.exists());
}
