//! `CONNECT <config> control`: may this caller be connected to this machine?
//!
//! The gateway's root half asks the core, which opens nothing that a caller named; so the question ends
//! here, in the process that is the caller. The answer decides what the gateway says and nothing else:
//! the core believes in a connection only when it was given the .vmx as proof ([`attach`]).

use link::gateway::Declined;
use ops::value::ConfigPath;

use crate::{Ctx, Failure, machine};

/// Looks whether the caller may be connected, and whether there is something to connect to. `console`
/// asks for the screen, which no machine offers yet.
///
/// # Errors
/// Why not.
pub async fn look(ctx: &Ctx, config: &str, console: bool) -> Result<(), Declined> {
    // Whatever hides it hides it: a fault of ours is not told to somebody who may not know of it.
    let unknown = |_| Declined::NotRegistered;
    let config = ConfigPath::try_from(config.to_owned()).map_err(|_| Declined::NotRegistered)?;
    let (machine, facts) = machine::seen(ctx, &config).await.map_err(unknown)?;
    if !machine.rights.execute {
        return Err(Declined::Denied);
    }
    if console || facts.running.is_none() {
        return Err(Declined::NotRunning);
    }
    Ok(())
}

/// Has the session listed as connected to its machine; one without a machine is nothing to be listed.
///
/// # Errors
/// When the right is gone meanwhile, or there are too many connections.
pub async fn attach(ctx: &Ctx) -> Result<(), Failure> {
    let Some(config) = ctx.machine.as_deref() else { return Ok(()) };
    let config = ConfigPath::try_from(config.to_owned())
        .map_err(|why| Failure::internal("naming a machine", why.to_string()))?;
    let machine = machine::visible(ctx, &config).await?;
    ctx.core.attach(ctx.session, config.as_str(), true, machine.descriptor()?).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::Stage;
    use hypervisor::control::State;

    #[tokio::test]
    async fn registered_then_executable_then_running() {
        let stage = Stage::new("config.version = \"8\"\n");
        let config = stage.config.as_str();
        assert_eq!(look(&stage.ctx, "/nowhere.vmx", false).await, Err(Declined::NotRegistered));
        assert_eq!(look(&stage.ctx, config, false).await, Err(Declined::NotRunning));
        stage.script.run(config, State::On);
        assert_eq!(look(&stage.ctx, config, false).await, Ok(()));
        assert_eq!(look(&stage.ctx, config, true).await, Err(Declined::NotRunning));
        // Root executes what anybody may execute, and nobody may execute this.
        stage.mode(0o600);
        assert_eq!(look(&stage.ctx, config, false).await, Err(Declined::Denied));
    }

    #[tokio::test]
    async fn a_session_with_a_machine_is_listed() {
        let stage = Stage::new("config.version = \"8\"\n");
        attach(&stage.ctx).await.unwrap();
        attach(&stage.ctx.clone().connected_to(stage.config.as_str())).await.unwrap();
        let gone = stage.ctx.clone().connected_to("/nowhere.vmx");
        assert!(attach(&gone).await.is_err());
    }
}
