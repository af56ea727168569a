//! The rooms may depend on each other in one direction only.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use tests::programs;

/// What each room may use among the others; what is not listed may be used by nobody.
const ALLOWED: &[(&str, &[&str])] = &[
    ("ops", &["ops-derive"]),
    ("ops-derive", &[]),
    ("link", &[]),
    ("authd", &["authd-dialogue", "link"]),
    ("authd-dialogue", &["link"]),
    ("handlers", &["ops", "handlers-derive", "hypervisor", "link"]),
    ("handlers-derive", &[]),
    ("hypervisor", &["link"]),
    ("vmx", &["hypervisor", "link"]),
    ("serverd", &["handlers", "hypervisor", "link", "ops"]),
    ("tests", &["link", "ops"]),
    ("vmcontrol", &["ops", "vmcontrol-client"]),
    ("vmcontrol-client", &["ops"]),
    ("vmware-cmd", &["link", "ops", "vmcontrol-client"]),
    ("xtask", &["link", "ops", "serverd"]),
];

fn metadata() -> serde_json::Value {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(programs::repository());
    command.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    serde_json::from_str(&tests::account::output(&mut command)).unwrap()
}

/// Package name to the dependencies of one kind that it declares.
fn dependencies(kinds: &[Option<&str>]) -> BTreeMap<String, BTreeSet<String>> {
    let metadata = metadata();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let declared = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|one| kinds.contains(&one["kind"].as_str())).map(|one| text(&one["name"])).collect()
    };
    packages.map(|package| (text(&package["name"]), declared(package))).collect()
}

#[test]
fn rooms_depend_in_one_direction() {
    let found = dependencies(&[None, Some("build")]);
    let rooms: BTreeSet<&String> = found.keys().collect();
    for (room, uses) in &found {
        let allowed = ALLOWED.iter().find(|(name, _)| name == room);
        let (_, allowed) =
            allowed.unwrap_or_else(|| panic!("{room} is new: add what it may use to this test"));
        let internal = uses.iter().filter(|name| rooms.contains(name));
        let forbidden: Vec<_> = internal.filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(forbidden.is_empty(), "{room} must not depend on {forbidden:?}");
    }
    for (room, _) in ALLOWED {
        assert!(found.contains_key(*room), "{room} is no package any more");
    }
}

#[test]
fn what_a_room_must_not_be_able_to_do_it_does_not_link() {
    let found = dependencies(&[None, Some("build")]);
    let uses = |room: &str, name: &str| found[room].contains(name);
    for xml in ["quick-xml", "roxmltree"] {
        assert!(!uses("authd", xml), "the gateway never reads XML");
    }
    for pam in ["nonstick", "pam-client", "libpam-sys"] {
        assert!(!uses("serverd", pam) && !uses("handlers", pam), "the server knows no PAM");
    }
    for tls in ["rustls", "tokio-rustls", "rcgen", "openssl"] {
        assert!(!uses("serverd", tls) && !uses("handlers", tls), "the server knows no TLS");
    }
    for network in ["rustls", "tokio", "tokio-rustls", "openssl", "quick-xml"] {
        assert!(!uses("vmware-cmd", network), "the command line talks through vmcontrol-client only");
    }
    for io in ["tokio", "rustix", "libc"] {
        assert!(!uses("ops", io), "the contract does no I/O");
    }
    for client in ["vmcontrol", "vmcontrol-client"] {
        for runtime in ["tokio", "tokio-rustls", "mio"] {
            assert!(!uses(client, runtime), "a client library brings no runtime into its host");
        }
        assert!(!uses(client, "roxmltree"), "a reply is from the network too");
    }
    assert!(!uses("ops", "roxmltree"), "no tree is built from the network");
}
