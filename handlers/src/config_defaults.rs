//! `VMConfigDefaults_*`: the constants that new machines are made from, as they are.

use handlers_derive::handler;
use hypervisor::vmx_file::{self, GUESTS, Network, defaults};
use ops::Error;
use ops::config_defaults::{Family, GetAll, GetAllReply, GetConfigVersion, GetConfigVersionReply, Guest};

use crate::{Ctx, Failure, product};

/// All defaults and the guest systems.
#[handler]
fn get_all(ctx: &Ctx, _: GetAll) -> Result<GetAllReply, Failure> {
    Ok(GetAllReply {
        config_version: defaults::CONFIG_VERSION,
        hardware_version: defaults::HARDWARE_VERSION,
        vm_directory: product::vm_directory(&ctx.layout)?.to_string_lossy().into_owned(),
        memory_mb: defaults::MEMORY_MB,
        disk_size_mb: defaults::DISK_SIZE_MB,
        guest_os: defaults::GUEST_OS.to_owned(),
        disk_adapter: defaults::DISK_ADAPTER.name().to_owned(),
        scsi_adapter: defaults::SCSI_ADAPTER.name().to_owned(),
        nic_type: defaults::NIC_TYPE.to_owned(),
        network: network(&defaults::NETWORK).to_owned(),
        guests: GUESTS.iter().map(guest).collect(),
    })
}

/// The word for a network, as `ethernet0.connectionType` has it.
fn network(network: &Network) -> &'static str {
    match network {
        Network::None => "none",
        Network::Bridged => "bridged",
        Network::Nat => "nat",
        Network::HostOnly => "hostonly",
        Network::Custom(_) => "custom",
    }
}

fn guest(guest: &vmx_file::Guest) -> Guest {
    Guest {
        key: guest.key.to_owned(),
        name: guest.name.to_owned(),
        family: match guest.family {
            vmx_file::Family::Windows => Family::Windows,
            vmx_file::Family::Linux => Family::Linux,
            vmx_file::Family::Other => Family::Other,
        },
        memory_mb: guest.memory_mb,
    }
}

/// The versions of a new machine's configuration.
#[handler(quick)]
fn get_config_version(_: &Ctx, _: GetConfigVersion) -> Result<GetConfigVersionReply, Error> {
    Ok(GetConfigVersionReply {
        config_version: defaults::CONFIG_VERSION,
        hardware_version: defaults::HARDWARE_VERSION,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::ctx;
    use hypervisor::vmx_file::NewMachine;

    #[test]
    fn the_defaults_are_those_of_a_new_machine() {
        let reply = get_all(&ctx(), GetAll {}).unwrap();
        let vmx = NewMachine::new("a", &reply.guest_os).unwrap().build();
        assert_eq!(vmx.config_version(), Some(reply.config_version));
        assert_eq!(vmx.hardware_version(), Some(reply.hardware_version));
        assert_eq!(vmx.memory_mb(), reply.memory_mb);
        assert_eq!(vmx.get("ethernet0.virtualDev"), Some(reply.nic_type.as_str()));
        assert_eq!(vmx.get("ethernet0.connectionType"), Some(reply.network.as_str()));
        for guest in &reply.guests {
            let vmx = NewMachine::new("a", &guest.key).unwrap().build();
            assert_eq!((vmx.memory_mb(), vmx.guest_os()), (guest.memory_mb, Some(guest.key.as_str())));
        }
        let version = get_config_version(&ctx(), GetConfigVersion {}).unwrap();
        assert_eq!((version.config_version, version.hardware_version), (8, 4));
        assert!(reply.vm_directory.ends_with("/var/lib/vmware/Virtual Machines"));
    }
}
