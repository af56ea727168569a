//! F6: no space, no right to write, no descriptors, no memory, a disk that fails: an error reply, nothing half
//! written, and the next request works.

use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use link::vm_list::VmList;
use rustix::process::{Resource, Rlimit, prlimit};
use tests::account::output;
use tests::exec::{Exec, request};
use tests::figures;
use tests::guest::{FLOPPY, need_kvm, writer};
use tests::skip::need_program;
use tests::tasks::{element, field};
use tests::trace::{Injected, need_strace};
use tests::{Account, Client, Guest, Instance, Mounted, Setup, Tap, eventually, need_root, process};

/// A small file system below the instance's directory.
fn small(instance: &Instance, what: &str, options: &str) -> Option<Mounted> {
    let place = instance.public_directory("small");
    Mounted::new(&place, what, &["-t", "tmpfs", "-o", options, "tmpfs"])
}

/// Waits for a task's end and returns its state and error.
fn ended(exec: &mut Exec, task: &str) -> (String, String) {
    let status = tests::tasks::wait(exec, task);
    (field(&status, "state"), status.text)
}

#[test]
fn a_full_disk_refuses_and_keeps_nothing() {
    let instance = Setup::new().start();
    let Some(small) = small(&instance, "a full disk", "size=4m") else { return };
    let mut exec = instance.exec();
    let big = instance.public_directory("big").join("file");
    let file = fs::File::create(&big).unwrap();
    file.write_all_at(&vec![1; 6 << 20], 0).unwrap();
    fs::write(small.path().join("old"), "old").unwrap();
    let to = element("destination", &small.path().join("new"));
    let old = element("destination", &small.path().join("old")) + "<overwrite>1</overwrite>";
    for destination in [&to, &old] {
        let reply = exec.op("File_Copy", &(element("source", &big) + destination));
        let (code, text) = reply.error().unwrap();
        assert!(code == -22 && text.ends_with("No space left on device"), "{}", reply.text);
        // Across file systems: a task, which ends the same way.
        let reply = exec.op("FileManager_FileCopy", &(element("file", &big) + destination));
        let (state, text) = ended(&mut exec, &reply.out("taskId"));
        assert!(state == "failed" && text.contains("No space left on device"), "{text}");
        assert_eq!(small.names(), ["old"]);
        assert_eq!(fs::read(small.path().join("old")).unwrap(), b"old");
    }
    // A tree that does not fit either.
    let tree = instance.public_directory("tree");
    for name in 0..8 {
        fs::write(tree.join(name.to_string()), vec![1; 1 << 20]).unwrap();
    }
    let arguments = element("file", &tree) + &to + "<recursive>1</recursive>";
    let task = exec.op("FileManager_FileCopy", &arguments).out("taskId");
    assert_eq!(ended(&mut exec, &task).0, "failed");
    assert_eq!(small.names(), ["old"]);
    // Moving keeps the source.
    let task = exec.op("FileManager_FileMove", &(element("file", &tree) + &to)).out("taskId");
    assert_eq!(ended(&mut exec, &task).0, "failed");
    assert_eq!((small.names(), fs::read_dir(&tree).unwrap().count()), (vec!["old".to_owned()], 8));
    // Contents of a new file, with the last block taken.
    let rest = "x".repeat(1 << 20);
    let mut made = 0;
    let refused = loop {
        let file = element("file", &small.path().join(format!("new{made}")));
        let reply = exec.ask(request("File_Create", &format!("{file}<contents>{rest}</contents>")));
        match reply.ok() {
            true => made += 1,
            false => break reply,
        }
    };
    assert!(made > 0 && refused.code() == -22, "{}", refused.text);
    assert_eq!(small.names().len(), made + 1);
    // And as soon as there is room again, it works.
    fs::remove_file(small.path().join("new0")).unwrap();
    let file = element("file", &small.path().join("again"));
    assert!(exec.op("File_Create", &format!("{file}<contents>x</contents>")).ok());
    drop(exec);
}

#[test]
fn a_read_only_file_system_refuses_everything_that_changes_it() {
    let instance = Setup::new().start();
    let Some(small) = small(&instance, "a read-only file system", "size=1m") else { return };
    fs::create_dir(small.path().join("d")).unwrap();
    fs::write(small.path().join("d/f"), "x").unwrap();
    small.remount("ro");
    let mut exec = instance.exec();
    let (file, directory, new) = (small.path().join("d/f"), small.path().join("d"), small.path().join("new"));
    let to = element("destination", &new);
    for (operation, arguments) in [
        ("File_Create", element("file", &new)),
        ("File_Delete", element("file", &file)),
        ("File_Copy", element("source", &file) + &to),
        ("FileManager_FileCopy", element("file", &file) + &to),
        ("FileManager_FileMove", element("file", &file) + &to),
        ("FileManager_FileRemove", element("file", &file)),
        ("FileManager_FileMakeLink", element("source", &file) + &element("link", &new)),
        ("FileManager_ChangeMode", element("file", &file) + "<other_mode>rwx</other_mode>"),
        ("FileManager_ChangeOwner", element("file", &file) + "<owner>1</owner><recursive>1</recursive>"),
        ("FileManager_MakeDir", element("directory", &new)),
        ("FileManager_RemoveDir", element("directory", &directory) + "<recursive>1</recursive>"),
        ("Directory_Make", element("directory", &new)),
        ("Directory_Remove", element("directory", &directory) + "<recursive>1</recursive>"),
    ] {
        let reply = exec.op(operation, &arguments);
        assert_eq!(reply.code(), -4, "{operation}: {}", reply.text);
    }
    assert_eq!(exec.op("File_Read", &element("file", &file)).out("contents"), "x");
    drop(exec);
}

#[test]
fn without_descriptors_requests_fail_and_later_ones_do_not() {
    let instance = Setup::new().start();
    let place = instance.public_directory("files");
    for number in 0..200 {
        fs::write(place.join(format!("f{number}")), "x").unwrap();
    }
    fs::create_dir(place.join("to")).unwrap();
    fs::create_dir_all(place.join("deep").join("d/".repeat(300))).unwrap();
    let mut exec = instance.exec();
    assert_eq!(exec.inc(1), 2);
    let session = instance.session_of(rustix::process::getuid().as_raw());
    let few = Rlimit { current: Some(64), maximum: Some(64) };
    prlimit(Some(process::pid(session)), Resource::Nofile, few).expect("a process of ours");
    // Each source of a copy is held open.
    let files: String = (0..200).map(|number| element("file", &place.join(format!("f{number}")))).collect();
    let copy = |files: &str| format!("<files>{files}</files>{}", element("destination", &place.join("to")));
    let reply = exec.op("FileManager_FileCopy", &copy(&files));
    let (code, text) = reply.error().unwrap();
    assert!(code == -22 && text.ends_with("Too many open files"), "{}", reply.text);
    assert_eq!(fs::read_dir(place.join("to")).unwrap().count(), 0);
    // A deep tree needs few, and nothing is short afterwards.
    let deep = element("file", &place.join("deep")) + &element("destination", &place.join("copy"));
    let reply = exec.op("FileManager_FileCopy", &(deep + "<recursive>1</recursive>"));
    assert_eq!(reply.code(), 0, "{}", reply.text);
    let reply = exec.op("FileManager_FileCopy", &copy(&element("file", &place.join("f1"))));
    assert_eq!(reply.code(), 0, "{}", reply.text);
    let usage = exec.op("Directory_GetSpaceUsage", &element("directory", &place.join("copy")));
    assert_eq!(usage.out("directories"), "300");
}

/// Every process has 300 descriptors, and more callers come than that is enough for. (The server keeps
/// 256 for itself and promises the rest to sessions.)
#[test]
fn descriptors_run_out_and_come_back() {
    let setup = Setup::new().tls().plain().set("authd.connections.perAddress", 1000).descriptors(300);
    let instance = setup.start();
    let mut witness = instance.exec();
    assert_eq!(witness.inc(1), 2);
    let uid = rustix::process::getuid().as_raw();
    let all = [instance.net(), instance.monitor(), instance.core(), instance.session_of(uid)];
    for round in 0..3 {
        // Before login on both ports, logged in, handed over: each kind fills another process.
        let waiting: Vec<_> = (0..if round == 0 { 400 } else { 0 })
            .filter_map(|number| {
                let port = if number % 2 == 0 { instance.plain } else { instance.tls };
                tests::client::connect_from([127, 8, 0, 1].into(), port).ok()
            })
            .collect();
        let mut callers: Vec<Client> = (0..if round == 0 { 20 } else { 350 })
            .filter_map(|_| {
                let stream = std::os::unix::net::UnixStream::connect(instance.socket()).ok()?;
                let mut client = Client::new(Tap::Unix(stream))
                    .patience(Duration::from_millis(if round == 0 { 20 } else { 5 }));
                client.try_send(if round == 1 { "LOCAL\r\n" } else { "LOCAL\r\nGLOBAL server\r\n" }).ok()?;
                Some(client)
            })
            .collect();
        for client in &mut callers {
            // Served, refused with a line, closed, or waiting for its turn; never a wrong word.
            while let Ok(line) = client.try_line() {
                let known = ["220 ", "230 ", "200 ", "421 ", "511 ", "512 ", "530 "];
                assert!(known.iter().any(|start| line.starts_with(start)), "round {round}: {line}");
            }
        }
        assert_eq!(witness.inc(1), 2, "round {round}: a session that was there before");
        // To be out of descriptors is no reason to turn in circles.
        let spent = all.map(process::processor_time);
        let pause = Instant::now();
        while pause.elapsed() < Duration::from_secs(1) {
            assert_eq!(witness.inc(1), 2, "round {round}");
            std::thread::sleep(Duration::from_millis(50));
        }
        for (process, before) in all.into_iter().zip(spent) {
            let spent = process::processor_time(process) - before;
            let words = process::words(process);
            assert!(
                spent < Duration::from_millis(400),
                "round {round}: {words:?} used {spent:?} of a second"
            );
        }
        drop((waiting, callers));
        drop(instance.serves());
        let mut secure = eventually("TLS callers are served again", || {
            let stream = tests::client::connect_from([127, 0, 0, 1].into(), instance.tls).ok()?;
            let mut client = Client::new(Tap::Tcp(stream));
            client.try_line().ok().filter(|line| line.starts_with("220 "))?;
            Some(client.secure().local().server())
        });
        assert_eq!(secure.inc(1), 2, "round {round}");
        assert!(all.iter().all(|process| process::runs(*process)), "round {round}: recovered by dying");
    }
}

/// A registered machine without anything in it.
fn machine(instance: &Instance, name: &str) -> String {
    let path = instance.base.path().join(name);
    fs::write(&path, "config.version = \"8\"\n").unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    path.display().to_string()
}

fn registered(instance: &Instance) -> Vec<String> {
    let bytes = fs::read(instance.layout.path("/etc/vmware/vm-list")).unwrap_or_default();
    assert!(bytes.is_empty() || bytes.ends_with(b"\n"), "a torn line");
    VmList::parse(&bytes).configs().map(str::to_owned).collect()
}

/// Every call by which the core writes its lists fails once: a refusal that says why, the list as it was, and
/// the same request works as soon as the disk does.
#[test]
fn a_disk_that_fails_the_core_refuses_and_loses_nothing() {
    const WHAT: &str = "EIO while the core writes";
    if !need_strace(WHAT) {
        return;
    }
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let (first, second) = (machine(&instance, "first.vmx"), machine(&instance, "second.vmx"));
    let config = |path: &str| format!("<config>{path}</config>");
    assert!(exec.op("VMRegister", &config(&first)).ok());
    let core = instance.core();
    let mut refused = 0;
    for (op, path, inject) in [
        ("VMRegister", &second, "pwrite64:error=EIO"),
        ("VMRegister", &second, "fsync,fdatasync:error=EIO"),
        ("VMRegister", &second, "fsync,fdatasync:when=1:error=EIO"),
        ("VMUnRegister", &first, "fsync,fdatasync:error=EIO"),
        ("VMUnRegister", &first, "fsync,fdatasync:error=ENOSPC"),
        ("VMUnRegister", &first, "rename,renameat,renameat2:error=EIO"),
    ] {
        let before = registered(&instance);
        let injected = Injected::new(core, inject);
        let reply = exec.op(op, &config(path));
        assert!(injected.count() > 0, "{op}, {inject}: nothing was injected");
        drop(injected);
        let (code, text) = reply.error().unwrap_or_else(|| panic!("{op} worked, {inject}"));
        let said =
            if inject.ends_with("EIO") { (-999, "Input/output error") } else { (-22, "No space left") };
        assert!(code == said.0 && text.contains(said.1), "{op}, {inject}: {}", reply.text);
        refused += 1;
        assert_eq!(registered(&instance), before, "{op}, {inject}");
        assert_eq!(exec.op("VM_List", "").all("config"), before, "{op}, {inject}");
        let (back, there) = if op == "VMRegister" { ("VMUnRegister", true) } else { ("VMRegister", false) };
        assert!(exec.op(op, &config(path)).ok(), "{op} after {inject}");
        assert_eq!(registered(&instance).contains(path), there, "{op} after {inject}");
        assert!(exec.op(back, &config(path)).ok(), "{back} after {inject}");
    }
    assert_eq!(instance.core(), core, "recovered by dying");
    figures::fact("F6", "failing writes of the core, each refused and then done", f64::from(refused), "");
}

/// The same for files of a user: whichever call fails, the target is as it was.
#[test]
fn a_disk_that_fails_a_copy_leaves_nothing() {
    const WHAT: &str = "EIO while files are copied";
    if !need_strace(WHAT) {
        return;
    }
    let instance = Setup::new().start();
    let place = instance.public_directory("files");
    let (from, new, old) = (place.join("from"), place.join("new"), place.join("old"));
    fs::write(&from, vec![5; 300_000]).unwrap();
    fs::write(&old, "old").unwrap();
    let mut exec = instance.exec();
    assert_eq!(exec.inc(1), 2);
    let session = instance.session_of(0);
    let copy = |to: &std::path::Path| {
        element("source", &from) + &element("destination", to) + "<overwrite>1</overwrite>"
    };
    for (to, inject) in [
        (&new, "copy_file_range,pwrite64,sendfile:error=EIO"),
        (&old, "copy_file_range,pwrite64,sendfile:error=EIO"),
        (&new, "linkat,rename,renameat,renameat2:error=EIO"),
        (&old, "linkat,rename,renameat,renameat2:error=EIO"),
        (&new, "fchown,fchownat,fchmod,utimensat:error=EIO"),
    ] {
        let injected = Injected::new(session, inject);
        let reply = exec.op("File_Copy", &copy(to));
        let count = injected.count();
        drop(injected);
        assert!(count > 0, "{inject}: nothing was injected");
        let (code, text) = reply.error().unwrap_or_else(|| panic!("the copy worked, {inject}"));
        assert!(code < 0 && text.contains("Input/output error"), "{inject}: {}", reply.text);
        let mut names: Vec<_> =
            fs::read_dir(&place).unwrap().flatten().map(|entry| entry.file_name()).collect();
        names.sort();
        assert_eq!(names, ["from", "old"], "{inject}");
        assert_eq!(fs::read(&old).unwrap(), b"old", "{inject}");
    }
    assert!(exec.op("File_Copy", &copy(&new)).ok());
    assert_eq!(fs::read(&new).unwrap(), fs::read(&from).unwrap());
    assert_eq!(instance.session_of(0), session, "recovered by dying");
}

/// A virtual disk whose file fails: the machine waits with a question, and goes on when the disk works.
#[test]
fn a_disk_that_fails_a_machine_is_a_question() {
    const WHAT: &str = "EIO while a guest writes";
    if !need_strace(WHAT) || !need_kvm(WHAT) || !need_program(WHAT, "qemu-img") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().plain().hasty().start();
    let base = instance.public_directory("vms");
    let mut exec = instance.tcp().login(&account).server();
    let disk = "ide0:0.present = \"TRUE\"\nide0:0.fileName = \"disk.vmdk\"\n";
    let mut guest = Guest::new(&base, "vm", &account, &format!("{FLOPPY}{disk}"));
    guest.put("boot.img", &writer());
    let path = guest.directory().join("disk.vmdk");
    let _ = output(Command::new("qemu-img").args(["create", "-q", "-f", "vmdk"]).arg(&path).arg("8M"));
    guest.give(&path);
    guest.must(&mut exec, "VMRegister", "");
    guest.must(&mut exec, "VM_Start", "");
    guest.expect(&mut exec, ">");
    guest.send(&mut exec, "x");
    guest.expect(&mut exec, "W");
    let injected = Injected::new(guest.state(&mut exec).1, "pwrite64:error=EIO");
    guest.send(&mut exec, "x");
    eventually("it asks what to do", || (guest.state(&mut exec).0 == "stuck").then_some(()));
    let question = guest.must(&mut exec, "VM_GetQuestion", "");
    let text = question.all("text").concat();
    assert!(text.contains("disk.vmdk") && text.contains("Input/output error"), "{text}");
    drop(injected);
    let id = question.all("id").concat();
    guest.must(&mut exec, "VM_AnswerQuestion", &format!("<id>{id}</id><choice>0</choice>"));
    guest.expect(&mut exec, "W");
    guest.must(&mut exec, "VM_Stop", "<mode>hard</mode>");
    let _ = output(Command::new("qemu-img").arg("check").arg(&path));
    let raw = guest.directory().join("raw");
    let _ = output(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&path).arg(&raw));
    let bytes = fs::read(raw).unwrap();
    assert!((0..2).all(|grain| bytes[grain * 65_536..][..256] == writer()[..256]), "a write is lost");
}

/// A process that gets no more memory refuses what needs it; it, or the one that follows it, goes on.
#[test]
fn without_memory_requests_fail_and_later_ones_do_not() {
    if !need_root("address space that ends") {
        return;
    }
    let instance = Setup::new().start();
    let place = instance.public_directory("files");
    let mut exec = instance.exec();
    assert_eq!(exec.inc(1), 2);
    let no_more = |process: u32, limit: Option<u64>| {
        let limit = Rlimit { current: limit, maximum: None };
        prlimit(Some(process::pid(process)), Resource::As, limit).expect("a process of ours");
    };
    let size = |process: u32| {
        let text = process::status(process, "VmSize").unwrap_or_default();
        text.split_whitespace().next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let core = instance.core();
    let mut ended = 0;
    for spare in [0, 64 << 10, 512 << 10] {
        let session = instance.session_of(0);
        no_more(session, Some(size(session) + spare));
        let file = place.join(format!("file{spare}"));
        let contents = "x".repeat(1_000_000);
        let request =
            request("File_Create", &(element("file", &file) + &format!("<contents>{contents}</contents>")));
        let answered = exec.client().try_send(&request).is_ok().then(|| exec.try_reply().ok()).flatten();
        if answered.is_none() {
            ended += 1;
        }
        // All of the file, or none.
        let there = fs::read(&file).map_or(0, |bytes| bytes.len());
        assert!([0, contents.len()].contains(&there), "{there} bytes");
        assert_eq!(there == contents.len(), answered.is_some_and(|reply| reply.ok()));
        if process::runs(session) {
            no_more(session, None);
        }
        exec = instance.serves();
        assert!(exec.ask(&request).ok() || there > 0, "with memory again");
    }
    figures::fact(
        "F6",
        "session processes of 3 that ended for want of memory, the next call served",
        f64::from(ended),
        "",
    );
    // The core: new sessions and registrations are refused or done, and nothing that was there is hurt.
    let config = format!("<config>{}</config>", machine(&instance, "vm.vmx"));
    no_more(core, Some(size(core)));
    let registered = exec.op("VMRegister", &config);
    // Whatever comes of it.
    let _ = instance.try_exec();
    assert_eq!(exec.inc(1), 2);
    no_more(core, None);
    assert_eq!(instance.core(), core, "recovered by dying");
    let mut exec = instance.serves();
    if !registered.ok() {
        assert!(exec.op("VMRegister", &config).ok());
    }
    assert_eq!(registered_count(&mut exec), 1);
}

fn registered_count(exec: &mut Exec) -> usize {
    exec.op("VM_List", "").all("config").len()
}
