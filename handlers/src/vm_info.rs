//! `VM_INFO`, `VM_Who`: one machine, and who is connected to it.

use handlers_derive::handler;
use ops::Error;
use ops::value::Time;
use ops::vm_info::{ConnectedUser, ConnectionType, Info, InfoReply, Who, WhoReply};

use crate::{Ctx, Failure, machine};

/// Everything about a machine.
#[handler]
async fn info(ctx: &Ctx, req: Info) -> Result<InfoReply, Failure> {
    let machine = machine::visible(ctx, &req.config).await?;
    if req.mks && !machine.rights.execute {
        return Err(Error::no_access(&req.config).into());
    }
    if req.connect {
        let vmx = machine.descriptor()?;
        ctx.core.attach(ctx.session, req.config.as_str(), vmx).await?;
    }
    let facts = machine::facts(ctx, &machine).await?;
    let look = move || facts.info(&machine);
    let vm = tokio::task::spawn_blocking(look)
        .await
        .map_err(|error| Failure::internal("looking at a machine", error))?;
    Ok(InfoReply { vm })
}

/// Who is connected to a machine.
#[handler]
async fn who(ctx: &Ctx, req: Who) -> Result<WhoReply, Failure> {
    let machine = machine::visible(ctx, &req.config).await?;
    let users = ctx.core.connected_users(req.config.as_str(), machine.file.into()).await?;
    let user = |user: crate::ConnectedUser| ConnectedUser {
        name: user.name,
        time: Time(user.time),
        address: user.address,
        kind: ConnectionType::Api,
    };
    Ok(WhoReply { config: req.config, users: users.into_iter().map(user).collect() })
}
