//! Single facts about a machine, one operation each, as the calls of the C library.

use std::os::unix::fs::MetadataExt;

use handlers_derive::handler;
use hypervisor::control;
use ops::Product;
use ops::machine::PowerState;
use ops::vm_facts::{
    GetCapabilities, GetCapabilitiesReply, GetHeartbeat, GetHeartbeatReply, GetProductInfo,
    GetProductInfoReply, GetRemoteConnections, GetRemoteConnectionsReply, GetRunAsUser, GetRunAsUserReply,
    GetState, GetStateReply, GetToolsLastActive, GetToolsLastActiveReply, GetUptime, GetUptimeReply,
};

use crate::names::Names;
use crate::{Ctx, Failure, machine};

/// GSX Server, as the C library numbers products.
const GSX: u32 = 2;
/// Linux, as it numbers platforms.
const LINUX: u32 = 2;

/// The state, in words and as a number.
#[handler]
async fn get_state(ctx: &Ctx, req: GetState) -> Result<GetStateReply, Failure> {
    let (_, facts) = machine::seen(ctx, &req.config).await?;
    let state = match facts.state.power {
        PowerState::On => control::State::On,
        PowerState::Off => control::State::Off,
        PowerState::Suspended => control::State::Suspended,
        PowerState::Stuck => control::State::Stuck,
        PowerState::Unknown => control::State::Unknown,
    };
    Ok(GetStateReply { config: req.config, power: facts.state, state: state.number().into() })
}

/// The product that the server presents itself as.
#[handler]
async fn get_product_info(ctx: &Ctx, req: GetProductInfo) -> Result<GetProductInfoReply, Failure> {
    machine::visible(ctx, &req.config).await?;
    let [major_version, minor_version, revision] = version(&ctx.product);
    Ok(GetProductInfoReply {
        config: req.config,
        product: ctx.product_number,
        product_name: if ctx.product_number == GSX { "gsx" } else { "server" }.to_owned(),
        platform: LINUX,
        platform_name: "linux".to_owned(),
        build: ctx.product.build().trim().parse().unwrap_or(0),
        major_version,
        minor_version,
        revision,
    })
}

/// The first three numbers of a version such as `1.0.3 build-44356`; 0 for what is missing.
fn version(product: &Product) -> [u64; 3] {
    let version = product.version().split_ascii_whitespace().next().unwrap_or_default();
    let mut numbers = version.split('.').map(|number| number.parse().unwrap_or(0));
    [(); 3].map(|()| numbers.next().unwrap_or(0))
}

/// What the caller may do.
#[handler]
async fn get_capabilities(ctx: &Ctx, req: GetCapabilities) -> Result<GetCapabilitiesReply, Failure> {
    let rights = machine::visible(ctx, &req.config).await?.rights;
    let bits = [(rights.read, 4), (rights.write, 2), (rights.execute, 1)];
    let capabilities = bits.iter().filter(|(has, _)| *has).map(|(_, bit)| bit).sum();
    Ok(GetCapabilitiesReply { config: req.config, capabilities, permissions: rights.to_string() })
}

/// Signs of life of the guest.
#[handler]
async fn get_heartbeat(ctx: &Ctx, req: GetHeartbeat) -> Result<GetHeartbeatReply, Failure> {
    let (_, facts) = machine::seen(ctx, &req.config).await?;
    let heartbeat = facts.process("getheartbeat")?.status.heartbeat;
    Ok(GetHeartbeatReply { config: req.config, heartbeat })
}

/// Seconds since power on.
#[handler]
async fn get_uptime(ctx: &Ctx, req: GetUptime) -> Result<GetUptimeReply, Failure> {
    let (_, facts) = machine::seen(ctx, &req.config).await?;
    let uptime = facts.process("getuptime")?.status.uptime;
    Ok(GetUptimeReply { config: req.config, uptime })
}

/// How the guest's Tools are.
#[handler]
async fn get_tools_last_active(
    ctx: &Ctx,
    req: GetToolsLastActive,
) -> Result<GetToolsLastActiveReply, Failure> {
    let (_, facts) = machine::seen(ctx, &req.config).await?;
    let tools_last_active = facts.process("gettoolslastactive")?.status.tools_last_active;
    Ok(GetToolsLastActiveReply { config: req.config, tools_last_active })
}

/// Consoles.
#[handler]
async fn get_remote_connections(
    ctx: &Ctx,
    req: GetRemoteConnections,
) -> Result<GetRemoteConnectionsReply, Failure> {
    let (_, facts) = machine::seen(ctx, &req.config).await?;
    let remote_connections = facts.running.map_or(0, |running| running.remote_connections);
    Ok(GetRemoteConnectionsReply { config: req.config, remote_connections })
}

/// The owner of the .vmx.
#[handler]
async fn get_run_as_user(ctx: &Ctx, req: GetRunAsUser) -> Result<GetRunAsUserReply, Failure> {
    let owner = machine::visible(ctx, &req.config).await?.metadata.uid();
    // A name service may take its time.
    let name = tokio::task::spawn_blocking(move || Names::default().user(owner).to_owned());
    let user = name.await.map_err(|error| Failure::internal("looking up a user", error))?;
    Ok(GetRunAsUserReply { config: req.config, user })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Stage, told};
    use hypervisor::control::State;
    use ops::Error;

    #[test]
    fn versions_are_three_numbers() {
        for (text, numbers) in
            [("1.0.3 build-44356", [1, 0, 3]), ("2.5", [2, 5, 0]), ("x.1.2.3", [0, 1, 2]), ("", [0, 0, 0])]
        {
            assert_eq!(version(&Product::new("GSX", "t", text, "1")), numbers, "{text}");
        }
    }

    #[tokio::test]
    async fn a_machine_that_is_off_has_few_facts() {
        let stage = Stage::new("checkpoint.vmState = \"a.vmss\"\n");
        let config = || stage.config.clone();
        let ctx = &stage.ctx;
        let reply = get_state(ctx, GetState { config: config() }).await.unwrap();
        assert_eq!((reply.power.power, reply.state), (PowerState::Suspended, 3));
        let conflict = |operation| Error::state_conflict(operation, "suspended");
        assert_eq!(
            told(get_heartbeat(ctx, GetHeartbeat { config: config() }).await),
            conflict("getheartbeat")
        );
        assert_eq!(told(get_uptime(ctx, GetUptime { config: config() }).await), conflict("getuptime"));
        let error = told(get_tools_last_active(ctx, GetToolsLastActive { config: config() }).await);
        assert_eq!(error, conflict("gettoolslastactive"));
        let reply = get_remote_connections(ctx, GetRemoteConnections { config: config() }).await.unwrap();
        assert_eq!(reply.remote_connections, 0);
    }

    #[tokio::test]
    async fn a_running_machine_has_all() {
        let stage = Stage::new("config.version = \"8\"\n");
        stage.script.run(stage.config.as_str(), State::On);
        let config = || stage.config.clone();
        let ctx = &stage.ctx;
        assert_eq!(get_state(ctx, GetState { config: config() }).await.unwrap().state, 1);
        assert_eq!(get_heartbeat(ctx, GetHeartbeat { config: config() }).await.unwrap().heartbeat, 3);
        assert_eq!(get_uptime(ctx, GetUptime { config: config() }).await.unwrap().uptime, 12);
        let tools = get_tools_last_active(ctx, GetToolsLastActive { config: config() }).await.unwrap();
        assert_eq!(tools.tools_last_active, 1);
        let consoles = get_remote_connections(ctx, GetRemoteConnections { config: config() }).await.unwrap();
        assert_eq!(consoles.remote_connections, 1);
        let reply = get_capabilities(ctx, GetCapabilities { config: config() }).await.unwrap();
        assert_eq!((reply.capabilities, reply.permissions.as_str()), (7, "rwx"));
        let reply = get_product_info(ctx, GetProductInfo { config: config() }).await.unwrap();
        assert_eq!((reply.product, reply.platform, reply.build, reply.major_version), (4, 2, 44356, 1));
        let me = rustix::process::getuid().as_raw();
        let reply = get_run_as_user(ctx, GetRunAsUser { config: config() }).await.unwrap();
        assert_eq!(reply.user, Names::default().user(me));
    }
}
