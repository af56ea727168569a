//! Which virtual networks there are: from the product's files, else from the host's bridges.
//!
//! ```text
//!   etc/vmware/netmap.conf   network0.name = "Bridged"   network0.device = "vmnet0"
//!   etc/vmware/config        vmnet1.hostonlyaddress, vmnet1.hostonlynetmask
//!   etc/vmware/locations     answer VNET_1_HOSTONLY_HOSTADDR 192.168.1.1     the last answer counts
//!   etc/vmware/vmnetN/       dhcpd/dhcpd.conf: gives out addresses; nat/nat.conf: `ip` is the way out
//! ```
//!
//! What the files leave open is what the product ships: `vmnet0` bridged, `vmnet1` host-only, `vmnet8`
//! NAT. A bridged network without an interface is on the one with the default route. Addresses that
//! the files do not tell are those of an interface of the network's name.
//!
//! A bridge of the host counts as bridged when it has a physical interface, as NAT when the host
//! forwards what comes from it (whether it also translates addresses only root could tell), and as
//! host-only otherwise.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use link::product_config::ProductConfig;
use ops::host::{Network, NetworkType};

/// Most bytes of `locations` that are read: it names every installed file.
const MAX_LOCATIONS: u64 = 16 << 20;

/// The host's own view of its interfaces.
#[derive(Debug)]
pub(crate) struct Interfaces {
    /// `/sys/class/net`.
    sys: PathBuf,
    /// `/proc/sys/net/ipv4/conf`.
    settings: PathBuf,
    /// The first IPv4 address of each, and its mask.
    addresses: HashMap<String, (Ipv4Addr, Ipv4Addr)>,
    /// The one with the default route.
    default: Option<String>,
}

impl Interfaces {
    /// Asks the kernel.
    ///
    /// # Errors
    /// As the system calls.
    pub(crate) fn look() -> io::Result<Self> {
        let mut addresses = HashMap::new();
        for interface in if_addrs::get_if_addrs()? {
            if let if_addrs::IfAddr::V4(v4) = interface.addr {
                addresses.entry(interface.name).or_insert((v4.ip, v4.netmask));
            }
        }
        // A host without IPv4 has no such table.
        let routes = std::fs::read_to_string("/proc/net/route").unwrap_or_default();
        Ok(Interfaces {
            sys: "/sys/class/net".into(),
            settings: "/proc/sys/net/ipv4/conf".into(),
            addresses,
            default: default_route(&routes),
        })
    }

    /// The bridges, by name.
    fn bridges(&self) -> Vec<Network> {
        let names = |path: &Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            // The kernel allows bytes that are no UTF-8; nobody uses them.
            let mut names: Vec<String> =
                entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            names.sort_unstable();
            names
        };
        let mut networks = Vec::new();
        for name in names(&self.sys) {
            if !self.sys.join(&name).join("bridge").is_dir() {
                continue;
            }
            let ports = names(&self.sys.join(&name).join("brif"));
            let physical = ports.into_iter().find(|port| self.sys.join(port).join("device").exists());
            let forwards = std::fs::read(self.settings.join(&name).join("forwarding"))
                .is_ok_and(|text| text.trim_ascii() == b"1");
            let kind = match physical {
                Some(_) => NetworkType::Bridged,
                None if forwards => NetworkType::Nat,
                None => NetworkType::HostOnly,
            };
            let address = self.addresses.get(&name).filter(|_| kind != NetworkType::Bridged);
            networks.push(Network {
                device: name.clone(),
                name,
                kind,
                interface: physical,
                address: address.map(|(address, _)| address.to_string()),
                netmask: address.map(|(_, mask)| mask.to_string()),
                dhcp: None,
                gateway: address.filter(|_| kind == NetworkType::Nat).map(|(address, _)| address.to_string()),
            });
        }
        networks
    }
}

/// The interface of the default route with the lowest metric, from `/proc/net/route`.
fn default_route(table: &str) -> Option<String> {
    let routes = table.lines().skip(1).filter_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let all = fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000");
        let metric: u32 = fields.get(6)?.parse().ok()?;
        all.then(|| Some((metric, (*fields.first()?).to_owned())))?
    });
    routes.min_by_key(|(metric, _)| *metric).map(|(_, name)| name)
}

/// What the product's files say of one network.
#[derive(Debug, Default)]
struct Said {
    name: Option<String>,
    interface: Option<String>,
    address: Option<String>,
    netmask: Option<String>,
    nat: Option<bool>,
    dhcp: Option<bool>,
}

/// All virtual networks: those of the product's files below `etc` (its `etc/vmware`), by number; if
/// there are none, the bridges of the host, by name.
///
/// # Errors
/// When a file of the product exists and cannot be read.
pub(crate) fn all(etc: &Path, interfaces: &Interfaces) -> io::Result<Vec<Network>> {
    let mut said = BTreeMap::new();
    read_config(&ProductConfig::load(&etc.join("config"))?, &mut said);
    read_locations(&read(&etc.join("locations"))?, &mut said);
    read_netmap(&ProductConfig::load(&etc.join("netmap.conf"))?, &mut said);
    if said.is_empty() {
        return Ok(interfaces.bridges());
    }
    Ok(said.into_iter().map(|(number, said)| network(number, said, etc, interfaces)).collect())
}

fn read(path: &Path) -> io::Result<String> {
    let describe = |error: io::Error| link::layout::describe(&error, "cannot read", path);
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        result => result.map_err(describe)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_LOCATIONS).read_to_end(&mut bytes).map_err(describe)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The number of `vmnetN` or `/dev/vmnetN`.
fn number(device: &str) -> Option<u8> {
    let digits = device.strip_prefix("/dev/").unwrap_or(device).strip_prefix("vmnet")?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn read_config(config: &ProductConfig, said: &mut BTreeMap<u8, Said>) {
    for number in 0..=u8::MAX {
        let get = |key: &str| config.get(&format!("vmnet{number}.{key}")).and_then(filled);
        let (address, netmask) = (get("hostonlyaddress"), get("hostonlynetmask"));
        if address.is_some() || netmask.is_some() {
            let entry = said.entry(number).or_default();
            (entry.address, entry.netmask) = (address, netmask);
        }
    }
}

/// A list that is only ever appended to: `answer KEY VALUE`, `file PATH`, and so on.
fn read_locations(text: &str, said: &mut BTreeMap<u8, Said>) {
    for line in text.lines() {
        let mut words = line.splitn(3, ' ');
        let (Some("answer"), Some(key)) = (words.next(), words.next()) else {
            continue;
        };
        let value = words.next().unwrap_or_default();
        let Some((number, key)) = key.strip_prefix("VNET_").and_then(|key| key.split_once('_')) else {
            continue;
        };
        let Ok(number) = number.parse::<u8>() else {
            continue;
        };
        let flag = || filled(value).map(|text| text.eq_ignore_ascii_case("yes"));
        let mut entry = said.remove(&number).unwrap_or_default();
        match key {
            "INTERFACE" => entry.interface = filled(value),
            "HOSTONLY_HOSTADDR" => entry.address = filled(value).or(entry.address),
            "HOSTONLY_NETMASK" => entry.netmask = filled(value).or(entry.netmask),
            "NAT" => entry.nat = flag(),
            "DHCP" => entry.dhcp = flag(),
            _ => {}
        }
        // An answer that was taken back leaves no network behind.
        let tells = entry.interface.is_some()
            || entry.address.is_some()
            || entry.netmask.is_some()
            || entry.nat == Some(true);
        if tells {
            said.insert(number, entry);
        }
    }
}

fn read_netmap(config: &ProductConfig, said: &mut BTreeMap<u8, Said>) {
    // The numbers of the networks are not those of the devices, and there are as many.
    for index in 0..=u8::MAX {
        let device = config.get(&format!("network{index}.device")).and_then(number);
        if let Some(number) = device {
            let name = config.get(&format!("network{index}.name")).and_then(filled);
            said.entry(number).or_default().name = name;
        }
    }
}

fn filled(text: &str) -> Option<String> {
    Some(text.trim()).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// Settles what the files leave open.
fn network(number: u8, said: Said, etc: &Path, interfaces: &Interfaces) -> Network {
    let device = format!("vmnet{number}");
    let named = |word: &str| said.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(word));
    let kind = match (said.nat, number) {
        (Some(true), _) => NetworkType::Nat,
        _ if said.interface.is_some() || named("bridged") => NetworkType::Bridged,
        (None, 8) => NetworkType::Nat,
        (None, _) if named("nat") => NetworkType::Nat,
        (_, 0) if said.address.is_none() => NetworkType::Bridged,
        _ => NetworkType::HostOnly,
    };
    let name = said.name.unwrap_or_else(|| {
        match kind {
            NetworkType::Bridged => "Bridged",
            NetworkType::HostOnly => "HostOnly",
            NetworkType::Nat => "NAT",
        }
        .to_owned()
    });
    if kind == NetworkType::Bridged {
        let interface = said.interface.or_else(|| interfaces.default.clone());
        let (address, netmask, dhcp, gateway) = (None, None, None, None);
        return Network { name, device, kind, interface, address, netmask, dhcp, gateway };
    }
    let files = etc.join(&device);
    let own = interfaces.addresses.get(&device);
    let gateway = (kind == NetworkType::Nat).then(|| way_out(&files.join("nat/nat.conf"))).flatten();
    Network {
        name,
        kind,
        interface: None,
        address: said.address.or_else(|| own.map(|(address, _)| address.to_string())),
        netmask: said.netmask.or_else(|| own.map(|(_, mask)| mask.to_string())),
        dhcp: Some(said.dhcp.unwrap_or_else(|| files.join("dhcpd/dhcpd.conf").is_file())),
        gateway,
        device,
    }
}

/// The address behind `ip =` in the settings of the product's NAT service, without its prefix length.
fn way_out(path: &Path) -> Option<String> {
    let text = read(path).ok()?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    let ip = pairs.filter(|(key, _)| key.trim() == "ip").map(|(_, value)| value.trim()).next()?;
    let address: Ipv4Addr = ip.split('/').next()?.parse().ok()?;
    Some(address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(base: &Path) -> Interfaces {
        let address = |last| (Ipv4Addr::new(10, 0, 0, last), Ipv4Addr::new(255, 255, 255, 0));
        let addresses = [("vmnet8", 8), ("br0", 1), ("br1", 2), ("br2", 3)];
        Interfaces {
            sys: base.join("sys"),
            settings: base.join("conf"),
            addresses: addresses.map(|(name, last)| (name.to_owned(), address(last))).into(),
            default: Some("eth7".to_owned()),
        }
    }

    fn write(path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Device, type, interface, address, netmask, dhcp, gateway.
    fn shown(networks: &[Network]) -> Vec<String> {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let line = |one: &Network| {
            format!(
                "{} {} {} {} {} {} {} {}",
                one.name,
                one.device,
                one.kind.word(),
                text(&one.interface),
                text(&one.address),
                text(&one.netmask),
                one.dhcp.map_or("-", |dhcp| if dhcp { "1" } else { "0" }),
                text(&one.gateway)
            )
        };
        networks.iter().map(line).collect()
    }

    #[test]
    fn networks_of_the_products_files() {
        let base = tempfile::tempdir().unwrap();
        let etc = base.path();
        write(
            &etc.join("netmap.conf"),
            "# note\nnetwork0.name = \"Bridged\"\nnetwork0.device = \"vmnet0\"\nnetwork1.name = \"HostOnly\"\n\
             network1.device = \"vmnet1\"\nnetwork2.name = \"NAT\"\nnetwork2.device = \"vmnet8\"\n\
             network3.name = \"Lab\"\nnetwork3.device = \"/dev/vmnet2\"\nnetwork4.device = \"eth0\"\n",
        );
        write(
            &etc.join("config"),
            "vmnet1.hostonlyaddress = \"192.168.1.1\"\nvmnet1.hostonlynetmask = \"255.255.255.0\"\n",
        );
        write(
            &etc.join("locations"),
            "file /etc/vmware/config 1150000000\nanswer VNET_0_INTERFACE eth0\nanswer VNET_0_INTERFACE eth1\n\
             answer VNET_1_HOSTONLY_HOSTADDR 192.168.2.1\nanswer VNET_1_DHCP yes\nanswer VNET_300_NAT yes\n\
             answer VNET_2_INTERFACE eth5\nanswer VNET_2_INTERFACE\nanswer VNET_x_NAT yes\nanswer VNET_3_NAT no\n\
             answer\nanswer VNET_5_INTERFACE \n",
        );
        write(&etc.join("vmnet8/nat/nat.conf"), "[host]\n# the way out\nip = 192.168.8.2/24\nmask = x\n");
        write(&etc.join("vmnet8/dhcpd/dhcpd.conf"), "subnet\n");
        assert_eq!(
            shown(&all(etc, &interfaces(base.path())).unwrap()),
            [
                "Bridged vmnet0 bridged eth1 - - - -",
                "HostOnly vmnet1 hostonly - 192.168.2.1 255.255.255.0 1 -",
                "Lab vmnet2 hostonly - - - 0 -",
                "NAT vmnet8 nat - 10.0.0.8 255.255.255.0 1 192.168.8.2",
            ]
        );
    }

    #[test]
    fn what_a_file_leaves_open_is_what_the_product_ships() {
        let base = tempfile::tempdir().unwrap();
        let netmap: String = [0, 1, 8].map(|n| format!("network{n}.device = \"vmnet{n}\"\n")).concat();
        write(&base.path().join("netmap.conf"), &netmap);
        assert_eq!(
            shown(&all(base.path(), &interfaces(base.path())).unwrap()),
            [
                "Bridged vmnet0 bridged eth7 - - - -",
                "HostOnly vmnet1 hostonly - - - 0 -",
                "NAT vmnet8 nat - 10.0.0.8 255.255.255.0 0 -",
            ]
        );
    }

    #[test]
    fn bridges_of_the_host_where_the_product_says_nothing() {
        let base = tempfile::tempdir().unwrap();
        let sys = base.path().join("sys");
        for directory in
            ["br0/bridge", "br0/brif/eth0", "br0/brif/tap0", "br1/bridge", "br2/bridge", "eth0/device"]
        {
            std::fs::create_dir_all(sys.join(directory)).unwrap();
        }
        write(&base.path().join("conf/br1/forwarding"), "1\n");
        write(&base.path().join("conf/br2/forwarding"), "0\n");
        assert_eq!(
            shown(&all(base.path(), &interfaces(base.path())).unwrap()),
            [
                "br0 br0 bridged eth0 - - - -",
                "br1 br1 nat - 10.0.0.2 255.255.255.0 - 10.0.0.2",
                "br2 br2 hostonly - 10.0.0.3 255.255.255.0 - -",
            ]
        );
    }

    #[test]
    fn the_default_route_with_the_lowest_metric() {
        let table = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n\
                     eth0 00000000 010200C0 0003 0 0 100 00000000 0 0 0\neth1 00000000 0 3 0 0 20 00000000 0 0 0\n\
                     eth2 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0\nbroken\n";
        assert_eq!(default_route(table).as_deref(), Some("eth1"));
        assert_eq!(default_route(""), None);
    }

    #[test]
    fn the_real_host_is_read() {
        let interfaces = Interfaces::look().unwrap();
        let loopback = (Ipv4Addr::new(127, 0, 0, 1), Ipv4Addr::new(255, 0, 0, 0));
        assert_eq!(interfaces.addresses.get("lo"), Some(&loopback));
        for bridge in interfaces.bridges() {
            assert!(Path::new("/sys/class/net").join(&bridge.device).exists());
        }
    }
}
