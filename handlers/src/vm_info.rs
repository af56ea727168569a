//! `VM_INFO`, `VM_Who`: one machine, and who is connected to it.

use std::os::fd::OwnedFd;

use handlers_derive::handler;
use ops::Error;
use ops::value::Time;
use ops::vm_info::{ConnectedUser, ConnectionType, Info, InfoReply, Who, WhoReply};

use crate::machine::{self, Facts};
use crate::{Ctx, Failure};

/// Everything about a machine.
#[handler]
async fn info(ctx: &Ctx, req: Info) -> Result<InfoReply, Failure> {
    let machine = machine::visible(ctx, &req.config).await?;
    if req.mks && !machine.rights.execute {
        return Err(Error::no_access(&req.config).into());
    }
    if req.connect {
        let vmx = OwnedFd::from(machine.file.try_clone().map_err(|error| Error::file(&req.config, &error))?);
        ctx.core.attach(ctx.session, req.config.as_str(), vmx).await?;
    }
    let look = move || {
        let facts = Facts::of(&machine);
        facts.info(&machine)
    };
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
