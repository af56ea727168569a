//! `Host_Get*Net`: the virtual networks, all of them or those of one type.

use handlers_derive::handler;
use ops::host::{GetBridgedNet, GetHostOnlyNet, GetVirtualNet, NetworkType, NetworksReply};

use ops::Error;

use crate::networks::{self, Interfaces};
use crate::{Ctx, Failure};

/// The networks of a type, or all.
fn list(ctx: &Ctx, wanted: Option<NetworkType>) -> Result<NetworksReply, Failure> {
    let found = Interfaces::look().and_then(|host| networks::all(&ctx.layout.path("/etc/vmware"), &host));
    // The text names the file of the product that cannot be read, or what the kernel did not tell.
    let mut networks = found.map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Error::no_access(error),
        _ => Error::unspecified(error.to_string()),
    })?;
    networks.retain(|network| wanted.is_none_or(|wanted| wanted == network.kind));
    Ok(NetworksReply { networks })
}

/// Networks that reach the one of a host's interface.
#[handler]
fn get_bridged_net(ctx: &Ctx, _: GetBridgedNet) -> Result<NetworksReply, Failure> {
    list(ctx, Some(NetworkType::Bridged))
}

/// Networks that reach the host.
#[handler]
fn get_host_only_net(ctx: &Ctx, _: GetHostOnlyNet) -> Result<NetworksReply, Failure> {
    list(ctx, Some(NetworkType::HostOnly))
}

/// All networks.
#[handler]
fn get_virtual_net(ctx: &Ctx, _: GetVirtualNet) -> Result<NetworksReply, Failure> {
    list(ctx, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{FixedCore, ctx_below};

    #[test]
    fn each_operation_shows_its_own_type() {
        let root = tempfile::tempdir().unwrap();
        let ctx = ctx_below(root.path(), FixedCore { count: 0, vms: Vec::new(), ..FixedCore::default() });
        let etc = root.path().join("etc/vmware");
        std::fs::create_dir_all(&etc).unwrap();
        let netmap: String = [0, 1, 8].map(|n| format!("network{n}.device = \"vmnet{n}\"\n")).concat();
        std::fs::write(etc.join("netmap.conf"), netmap).unwrap();
        let devices = |reply: NetworksReply| {
            reply.networks.into_iter().map(|network| network.device).collect::<Vec<_>>()
        };
        assert_eq!(devices(get_bridged_net(&ctx, GetBridgedNet {}).unwrap()), ["vmnet0"]);
        assert_eq!(devices(get_host_only_net(&ctx, GetHostOnlyNet {}).unwrap()), ["vmnet1"]);
        assert_eq!(devices(get_virtual_net(&ctx, GetVirtualNet {}).unwrap()), ["vmnet0", "vmnet1", "vmnet8"]);
    }
}
