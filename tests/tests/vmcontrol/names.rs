//! What the file offers, and the header.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use tests::{account, programs};

use crate::c;

/// The public surface of VMware's library: 47 functions and two alias names.
const NAMES: &str = "
    ConnectParamsDestroy ConnectParamsNew Init MKSSaveScreenshot ServerConnectEx ServerDestroy
    ServerDisconnect ServerEnumerate ServerExec ServerGetLastError ServerGetResource ServerIsConnected
    ServerIsRegistered ServerNewEx VMConnectEx VMCreateSnapshot VMDeleteSnapshot VMDestroy VMDeviceConnect
    VMDeviceDisconnect VMDeviceIsConnected VMDisconnect VMGetCapabilities VMGetConfig VMGetConfigFileName
    VMGetExecutionState VMGetGuestInfo VMGetHeartbeat VMGetId VMGetLastError VMGetPid VMGetProductInfo
    VMGetRemoteConnections VMGetResource VMGetRunAsUser VMGetUptime VMHasSnapshot VMInit VMIsConnected
    VMNewEx VMRemoveAllSnapshots VMRevertSnapshot VMRevertToSnapshot VMSetConfig VMSetGuestInfo VMStart
    VMStopOrReset VMSuspendToDisk VMToolsLastActive";

/// Where the record of the interface is; `VMSERVERD_BLESS=1` writes it.
const RECORD: &str = "vmcontrol/abi.txt";

fn historical() -> BTreeSet<String> {
    let names: BTreeSet<String> = NAMES.split_whitespace().map(|name| format!("VMControl_{name}")).collect();
    assert_eq!(names.len(), 49);
    names
}

/// The functions that the file lets others see.
fn exported(library: &Path) -> BTreeSet<String> {
    let mut command = Command::new("nm");
    let listing = account::output(command.args(["--dynamic", "--defined-only"]).arg(library));
    listing.lines().map(|line| line.split_whitespace().last().unwrap().to_owned()).collect()
}

#[test]
fn the_names_and_no_others() {
    let directory = tempfile::tempdir().unwrap();
    let library = programs::library();
    let all = exported(&library);
    let (ours, others): (BTreeSet<_>, BTreeSet<_>) =
        all.iter().cloned().partition(|name| name.starts_with("VMControlExt_"));
    assert_eq!(others, historical());
    assert!(!ours.is_empty());
    // By explicit path, under any file name, as dynamic clients load it.
    let copy = directory.path().join("any name.so");
    std::fs::copy(&library, &copy).unwrap();
    let program =
        c::compile(directory.path(), &c::sources().join("names.c"), "names", &["-D_GNU_SOURCE", "-ldl"]);
    assert_eq!(account::output(Command::new(program).arg(&copy).args(&all)), "");
    let dynamic = account::output(Command::new("readelf").args(["--dynamic", "--wide"]).arg(&library));
    assert!(dynamic.contains("soname: [libvmcontrol.so.1]"), "{dynamic}");
    let needed =
        dynamic.lines().filter_map(|line| line.split_once("Shared library: [")).map(|(_, name)| name);
    for name in needed {
        assert!(name.starts_with("libc.so") || name.starts_with("ld-linux"), "needs {name}");
    }
    let versions = account::output(Command::new("readelf").args(["--version-info"]).arg(&library));
    assert!(!versions.contains("Version definition"), "{versions}");
}

#[test]
fn the_header_compiles_alone_in_three_languages() {
    let header = c::include().join("vmcontrol.h");
    for (compiler, standard, language) in
        [("cc", "-std=c89", "c"), ("cc", "-std=c11", "c"), ("c++", "-std=c++17", "c++")]
    {
        let mut command = Command::new(compiler);
        command.args([standard, "-x", language, "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]);
        account::output(command.arg(&header));
    }
}

/// Names and prototypes together are what programs are compiled against.
#[test]
fn the_interface_is_the_recorded_one() {
    let mut command = Command::new("cc");
    command.args(["-std=c11", "-E", "-P"]).arg(c::include().join("vmcontrol.h"));
    let text = account::output(&mut command);
    let flat: Vec<&str> = text.split_whitespace().collect();
    let flat = flat.join(" ");
    let mut lines: Vec<String> = flat.split(';').map(|line| line.trim().to_owned()).collect();
    lines.retain(|line| line.contains("VMControl_") || line.contains("VMControlExt_"));
    lines.sort();
    let name_of = |line: &String| {
        let at = line.find("VMControl_").or_else(|| line.find("VMControlExt_")).unwrap();
        line[at..].split('(').next().unwrap().to_owned()
    };
    let declared: BTreeSet<String> = lines.iter().map(name_of).collect();
    assert_eq!(declared, exported(&programs::library()), "the header and the file differ");
    let record = programs::repository().join(RECORD);
    let now = lines.join("\n") + "\n";
    if std::env::var_os("VMSERVERD_BLESS").is_some() {
        std::fs::write(&record, &now).unwrap();
    }
    let then = std::fs::read_to_string(&record).unwrap();
    assert_eq!(
        now, then,
        "the interface has changed; if that is meant, write {RECORD} with VMSERVERD_BLESS=1"
    );
}
