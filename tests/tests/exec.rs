//! The server behind the gateway: who the caller is, on each way in, and what that user may do.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use tests::exec::{Exec, make_dir, request};
use tests::{Account, Caller, Instance, Setup, need_root};

const CALLER: &str = env!("CARGO_BIN_EXE_caller");

/// The first exec of the API page, byte for byte.
#[test]
fn the_first_exec_is_answered_exactly() {
    let instance = Setup::new().tls().plain().start();
    for client in [instance.unix(), instance.tcp(), instance.secure()] {
        let mut exec = client.local().server();
        let reply = exec.ask("<exec><op>inc</op><in><number>42</number></in></exec>");
        assert_eq!(
            reply.text,
            "<exec><product id=\"GSX\"><title>VMware Server</title><version>1.0.3 build-44356</version>\
             <build>44356</build></product><returncode>1</returncode><out><number>43</number></out></exec>"
        );
    }
}

#[test]
fn every_way_in_and_every_proof_gives_the_same_session() {
    if !need_root("exec by password and as local caller, on every way in") {
        return;
    }
    let account = Account::new();
    let instance = Setup::new().tls().plain().start();
    let caller = Caller::new(CALLER, &instance, &account);
    let sessions: [(&str, Exec); 6] = [
        ("unix, PASS", instance.unix().login(&account).server()),
        ("tcp, PASS", instance.tcp().login(&account).server()),
        ("tls, PASS", instance.secure().login(&account).server()),
        ("unix, LOCAL", caller.unix().local().server()),
        ("tcp, LOCAL", caller.tcp().local().server()),
        ("tls, LOCAL is root here", instance.secure().local().server()),
    ];
    for (way, mut exec) in sessions {
        let expected = if way.contains("root") { "root" } else { &account.name };
        assert_eq!(exec.user(), expected, "{way}");
        let admin = exec.op("VMServerd_IsAdminUser", "").out("isAdmin");
        assert_eq!(admin, if expected == "root" { "1" } else { "0" }, "{way}");
        for number in [0, -1, 41, i64::MAX - 1] {
            assert_eq!(exec.inc(number), number + 1, "{way}");
        }
    }
    instance.authd_logs(&format!("local login as {} (unix, pid ", account.name));
    instance.authd_logs(&format!("local login as {} (tcp, port ", account.name));
    // One session process serves them all, and runs as the user in every respect.
    let session = instance.session_of(account.uid);
    assert_eq!(instance.sessions().iter().filter(|(_, uid)| *uid == account.uid).count(), 1);
    assert_eq!(tests::process::uids(session), [account.uid; 4]);
    let groups = tests::process::status(session, "Groups").unwrap();
    assert_eq!(groups.split_whitespace().collect::<Vec<_>>(), [account.gid.to_string()]);
}

#[test]
fn two_users_are_two_identities() {
    if !need_root("two local users see two identities") {
        return;
    }
    let accounts = [Account::new(), Account::new()];
    let instance = Setup::new().plain().start();
    let shared = instance.public_directory("shared");
    for (own, other) in [(&accounts[0], &accounts[1]), (&accounts[1], &accounts[0])] {
        let caller = Caller::new(CALLER, &instance, own);
        for (way, client) in [("unix", caller.unix()), ("tcp", caller.tcp())] {
            let mut exec = client.local().server();
            assert_eq!(exec.user(), own.name);
            assert_eq!(exec.op("FileManager_GetHomeDir", "").out("directory"), own.home.to_str().unwrap());
            // What it makes belongs to it, with the modes it asked for.
            let made = shared.join(format!("{}-{way}", own.name));
            let modes = "<owner_mode>rwx</owner_mode><group_mode>r</group_mode><other_mode></other_mode>";
            let reply = exec.op("FileManager_MakeDir", &(make_dir(&made) + modes));
            assert_eq!(reply.code(), 0, "{}", reply.text);
            let metadata = made.metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (own.uid, own.gid));
            assert_eq!(metadata.permissions().mode() & 0o7777, 0o740);
            // Where the user may not, the server may not either: nothing falls back to root.
            for forbidden in [other.home.join("x"), Path::new("/etc/x").into(), Path::new("/root/x/y").into()]
            {
                let reply = exec.op("FileManager_MakeDir", &make_dir(&forbidden));
                assert_eq!(reply.code(), -4, "{forbidden:?}: {}", reply.text);
                assert!(reply.error().unwrap().1.starts_with("Permission denied: "), "{}", reply.text);
                assert!(!forbidden.exists());
            }
            let listed = exec.op("FileManager_ListDir", "<directory>/root</directory>");
            assert_eq!(listed.code(), -4, "{}", listed.text);
        }
    }
}

#[test]
fn supplementary_groups_count() {
    if !need_root("a user's groups decide") {
        return;
    }
    let (member, owner) = (Account::new(), Account::new());
    let mut command = std::process::Command::new("usermod");
    let _ = tests::account::output(command.args(["--append", "--groups", &owner.name, &member.name]));
    let instance = Setup::new().plain().start();
    let place = instance.public_directory("for-the-group");
    std::os::unix::fs::chown(&place, Some(0), Some(owner.gid)).unwrap();
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o770)).unwrap();
    let made = place.join("x");
    let mut exec = Caller::new(CALLER, &instance, &member).unix().local().server();
    let reply = exec.op("FileManager_MakeDir", &make_dir(&made));
    assert_eq!(reply.code(), 0, "{}", reply.text);
    assert!(member.owns(&made));
}

/// The request of the API page, on this system's paths.
#[test]
fn make_dir_of_the_api_page() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let place = instance.public_directory("vms");
    let deep = place.join("My Directory/New Subdirectory/Third");
    let modes = "<owner_mode>rwx</owner_mode><group_mode>rwx</group_mode><other_mode>rwx</other_mode>";
    let arguments = |parents: u8| format!("{}{modes}<makeParents>{parents}</makeParents>", make_dir(&deep));
    let reply = exec.op("FileManager_MakeDir", &arguments(0));
    assert_eq!(reply.error().unwrap().0, -999, "{}", reply.text);
    assert!(reply.error().unwrap().1.ends_with("No such file or directory"), "{}", reply.text);
    let reply = exec.op("FileManager_MakeDir", &arguments(1));
    assert_eq!(reply.code(), 0, "{}", reply.text);
    assert_eq!(deep.metadata().unwrap().permissions().mode() & 0o777, 0o777, "modes do not pass the umask");
    let listed = exec.op("FileManager_ListDir", &format!("<directory>{}</directory>", place.display()));
    assert_eq!(listed.all("name"), ["My Directory"]);
    assert_eq!(listed.out("parent"), place.parent().unwrap().to_str().unwrap());
    let parent = exec.op("FileManager_GetParentDir", "<directory>/a/b//</directory>");
    assert_eq!(parent.out("directory"), "/a");
}

/// The whole table, as the caller is told it.
#[test]
fn the_operation_table_tells_every_row_with_its_fields() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let plain = exec.op("VMServerd_GetOperationTable", "");
    let names: Vec<String> = ops::TABLE.iter().map(|row| row.name.to_owned()).collect();
    assert_eq!(plain.all("name"), names);
    let handlers: Vec<String> = ops::TABLE.iter().map(|row| row.handler.to_owned()).collect();
    assert_eq!(plain.all("handler"), handlers);
    assert!(plain.all("access").iter().all(|word| word == "authuser" || word == "rootonly"));
    let details = exec.op("VMServerd_GetOperationTable", "<details>1</details>");
    assert_eq!(details.all("operation").len(), names.len());
    let document = roxmltree::Document::parse(&details.text).unwrap();
    for (operation, row) in
        document.descendants().filter(|node| node.has_tag_name("operation")).zip(ops::TABLE)
    {
        let child = |name: &str| operation.children().find(|node| node.has_tag_name(name));
        assert_eq!(child("summary").and_then(|node| node.text()), Some(row.summary), "{}", row.name);
        let parameters = child("parameters").unwrap_or_else(|| panic!("{} without parameters", row.name));
        let told = parameters.children().filter(|node| node.has_tag_name("parameter")).count();
        assert!(told >= row.request.len(), "{}: {told} parameters", row.name);
    }
    assert!(details.text.contains("<name>makeParents</name>"), "{}", details.text);
}

#[test]
fn errors_name_what_was_wrong_and_the_session_goes_on() {
    let instance = Setup::new().plain().start();
    let mut exec = instance.tcp().local().server();
    for (document, code, text) in [
        (request("Nonsense", ""), -17, "Not supported: unknown operation Nonsense"),
        (request("INC", "<number>1</number>"), -17, "Not supported: unknown operation INC"),
        (request("inc", ""), -3, "Invalid argument: missing parameter number"),
        ("<exec><op>inc</op></exec>".into(), -3, "Invalid argument: missing parameter number"),
        (request("div", "<dividend>1</dividend><divisor>0</divisor>"), -999, "Illegal division by zero"),
        (
            request("FileManager_ListDir", "<directory>/no/such</directory>"),
            -999,
            "/no/such: No such file or directory",
        ),
    ] {
        assert_eq!(exec.ask(&document).error(), Some((code, text.to_owned())), "{document}");
    }
    let twice = exec.op("inc", "<number>1</number><number>2</number>").error().unwrap();
    assert_eq!(twice.0, -3);
    assert!(twice.1.starts_with("Invalid argument: number: "), "{}", twice.1);
    assert_eq!(exec.inc(1), 2);
}

#[test]
fn product_information() {
    let setup = Setup::new().set("serverd.product.title", "Mine").set("serverd.product.version", "9 & more");
    let instance = setup.set("serverd.product.build", "\"77\"").start();
    let mut client = instance.unix().local();
    assert_eq!(client.ask("GLOBAL server"), "200 Connected to vmware-serverd.");
    client.send(request("VMServerd_GetProductInfo", ""));
    let reply = String::from_utf8(client.read_to(b"</exec>\n").unwrap()).unwrap();
    let product =
        "<product id=\"GSX\"><title>Mine</title><version>9 &amp; more</version><build>77</build></product>";
    assert_eq!(reply.matches(product).count(), 2, "in the envelope and in the answer: {reply}");
    assert!(reply.contains("<platform>linux</platform>"), "{reply}");
    let connected = Instance::exec(&Setup::new().start()).op("VMServerd_GetConnectedVMList", "");
    assert!(connected.ok() && connected.all("vm").is_empty(), "{}", connected.text);
}
