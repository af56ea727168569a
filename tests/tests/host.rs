//! What the server tells of its host, and the defaults of new machines.

use tests::{Account, Setup, need_root};

#[test]
fn figures_are_those_of_the_kernel() {
    let instance = Setup::new().start();
    let mut exec = instance.exec();
    let host = exec.op("GSXHostInfo_Query", "");
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total: u64 = meminfo.split_ascii_whitespace().nth(1).unwrap().parse().unwrap();
    assert_eq!(host.out("memoryMb"), (total / 1024).to_string());
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    assert_eq!((host.out("os"), host.out("osVersion")), ("linux".into(), release.trim().to_owned()));
    assert_eq!((host.out("vmCount"), host.out("runningVmCount")), ("0".into(), "0".into()));
    assert!(host.out("uptime").parse::<u64>().unwrap() > 0);

    std::fs::create_dir_all(instance.layout.path("/var/lib/vmware/Virtual Machines")).unwrap();
    for arguments in ["", "<directory>/</directory>", "<directories><directory>/</directory></directories>"] {
        let disks = exec.op("GSXHostInfo_GetDiskSpace", arguments);
        let (total, free, available) = (disks.all("total"), disks.all("free"), disks.all("available"));
        let number = |list: &[String]| list[0].parse::<u64>().unwrap();
        assert!(number(&total) >= number(&free) && number(&free) >= number(&available), "{}", disks.text);
        assert_eq!(disks.all("disk").len(), 1);
    }
    let (code, text) =
        exec.op("GSXHostInfo_GetDiskSpace", "<directory>/no/such</directory>").error().unwrap();
    assert_eq!((code, text.as_str()), (-999, "/no/such: No such file or directory"));
}

#[test]
fn networks_are_those_of_the_products_files() {
    let instance = Setup::new().config("vmnet1.hostonlyaddress", "192.168.77.1").start();
    let etc = instance.layout.path("/etc/vmware");
    let netmap: String = [("Bridged", 0), ("HostOnly", 1), ("NAT", 8)]
        .into_iter()
        .map(|(name, n)| format!("network{n}.name = \"{name}\"\nnetwork{n}.device = \"vmnet{n}\"\n"))
        .collect();
    std::fs::write(etc.join("netmap.conf"), netmap).unwrap();
    std::fs::write(etc.join("locations"), "answer VNET_0_INTERFACE eth0\nanswer VNET_0_INTERFACE eth1\n")
        .unwrap();
    let mut exec = instance.exec();
    assert!(exec.op("Host_GetBridgedNet", "").text.contains(
        "<networks><network><name>Bridged</name><device>vmnet0</device><type>bridged</type>\
         <interface>eth1</interface></network></networks>"
    ));
    assert!(exec.op("Host_GetHostOnlyNet", "").text.contains(
        "<networks><network><name>HostOnly</name><device>vmnet1</device><type>hostonly</type>\
         <address>192.168.77.1</address><dhcp>0</dhcp></network></networks>"
    ));
    assert_eq!(exec.op("Host_GetVirtualNet", "").all("device"), ["vmnet0", "vmnet1", "vmnet8"]);
}

#[test]
fn defaults_follow_the_product_settings() {
    let instance = Setup::new().config("vmdir", "/srv/vm").start();
    let mut exec = instance.exec();
    let all = exec.op("VMConfigDefaults_GetAll", "");
    assert_eq!((all.out("vmDirectory"), all.out("configVersion")), ("/srv/vm".into(), "8".into()));
    assert!(all.all("key").contains(&"winNetStandard".to_owned()));
    assert_eq!(exec.op("VMConfigDefaults_GetConfigVersion", "").out("hardwareVersion"), "4");
}

#[test]
fn events_of_a_machine_that_is_not_the_callers() {
    if !need_root("events as two users") {
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let account = Account::new();
    let instance = Setup::new().start();
    let directory = instance.public_directory("machines");
    let config = directory.join("a.vmx");
    std::fs::write(&config, "config.version = \"8\"\ndisplayName = \"A\"\n").unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o700)).unwrap();
    let arguments = format!("<config>{}</config>", config.display());
    let mut root = instance.exec();
    let registered = root.op("VMRegister", &arguments);
    assert!(registered.ok(), "{}", registered.text);
    assert!(root.op("VM_GetLastNEvents", &arguments).ok());
    assert_eq!(root.op("GSXHostInfo_Query", "").out("vmCount"), "1");

    let mut exec = instance.unix().login(&account).server();
    assert_eq!(exec.op("GSXHostInfo_Query", "").out("vmCount"), "0");
    let unreadable = exec.op("VM_GetLastNEvents", &arguments).error().unwrap();
    let never = config.with_file_name("b.vmx").display().to_string();
    let unknown = exec.op("VM_GetLastNEvents", &format!("<config>{never}</config>")).error().unwrap();
    assert_eq!(unreadable.0, -11);
    assert_eq!(unknown, (-11, unreadable.1.replace(config.to_str().unwrap(), &never)));
    assert_eq!(unreadable.1.lines().count(), 3);
}
