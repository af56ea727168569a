//! `VM_INFO`, `VM_Who`: one machine, and who is connected to it.

use std::sync::Arc;

use handlers_derive::handler;
use ops::Error;
use ops::value::{ConfigPath, Time};
use ops::vm_info::{ConnectedUser, ConnectionType, Info, InfoReply, Who, WhoReply};

use crate::known::{CACHE, Known};
use crate::{Ctx, Failure, machine};

/// Everything about a machine.
#[handler]
async fn info(ctx: &Ctx, req: Info) -> Result<InfoReply, Failure> {
    if !req.connect
        && let Some(known) = known(ctx, &req.config).await?
    {
        if req.mks && !known.execute {
            return Err(Error::lacks_right(&req.config, "rx").into());
        }
        return Ok(InfoReply { vm: known.info.clone() });
    }
    let machine = machine::visible(ctx, &req.config).await?;
    if req.mks && !machine.rights.execute {
        return Err(Error::lacks_right(&req.config, "rx").into());
    }
    if req.connect {
        let vmx = machine.descriptor()?;
        ctx.core.attach(ctx.session, req.config.as_str(), false, vmx).await?;
    }
    let facts = machine::facts(ctx, &machine).await?;
    let (user, config) = (ctx.user.clone(), req.config);
    let look = move || {
        // What is seen of a machine without a process is kept for the next question.
        let known = facts.running.is_none().then(|| CACHE.look(&user, &config));
        match known {
            Some(Ok(known)) => known.info.clone(),
            // Gone since it was opened: what was seen then was true then.
            _ => facts.info(&machine),
        }
    };
    let vm = tokio::task::spawn_blocking(look)
        .await
        .map_err(|error| Failure::internal("looking at a machine", error))?;
    Ok(InfoReply { vm })
}

/// A registered machine without a process, of which all is known, if the caller may know of it.
async fn known(ctx: &Ctx, config: &ConfigPath) -> Result<Option<Arc<Known>>, Failure> {
    let registered = ctx.core.registered().await?;
    let Some(listed) = registered.get(config.as_str()) else { return Ok(None) };
    if ctx.core.running().await?.contains_key(config.as_str()) {
        return Ok(None);
    }
    let known = CACHE.get(config.as_str());
    Ok(known.filter(|known| !machine::is_private_to_another(&ctx.user, listed, known.owner)))
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
        kind: if user.console { ConnectionType::Console } else { ConnectionType::Api },
    };
    Ok(WhoReply { config: req.config, users: users.into_iter().map(user).collect() })
}
