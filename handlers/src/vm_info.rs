//! `VM_INFO`, `VM_Who`: one machine, and who is connected to it.

use std::sync::Arc;

use handlers_derive::handler;
use ops::Error;
use ops::value::{ConfigPath, Time};
use ops::vm_info::{ConnectedUser, ConnectionType, Info, InfoReply, Who, WhoReply};

use crate::known::{CACHE, Known};
use crate::machine::Seen;
use crate::{Ctx, Failure, machine, vm_snapshot};

/// Everything about a machine.
#[handler]
async fn info(ctx: &Ctx, req: Info) -> Result<InfoReply, Failure> {
    if !req.connect
        && let Some(known) = known(ctx, &req.config).await?
        && known.sure
    {
        if req.mks && !known.execute {
            return Err(Error::no_access(&req.config).into());
        }
        return Ok(InfoReply { vm: known.info.clone() });
    }
    let machine = machine::visible(ctx, &req.config).await?;
    if req.mks && !machine.rights.execute {
        return Err(Error::no_access(&req.config).into());
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
            Some(Ok(known)) => (Seen { info: known.info.clone(), sure: known.sure }, Some(known), machine),
            // Gone since it was opened: what was seen then was true then.
            _ => (facts.info(&machine), None, machine),
        }
    };
    let (Seen { info: mut vm, sure }, known, machine) = tokio::task::spawn_blocking(look)
        .await
        .map_err(|error| Failure::internal("looking at a machine", error))?;
    // As VM_HasSnapshot finds out. Should that fail, the rest is still worth telling.
    if !sure && let Ok(list) = vm_snapshot::ask(ctx, &machine).await {
        vm.has_snapshot = !list.is_empty();
        if let Some(known) = known {
            CACHE.learn(&known, vm.has_snapshot);
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::Stage;
    use hypervisor::control::{FromVmx, Snapshot, ToVmx};
    use std::path::Path;

    #[tokio::test]
    async fn a_list_of_snapshots_that_cannot_be_read_is_asked_for_once() {
        let stage = Stage::new("config.version = \"8\"\n");
        let info = async || {
            let req = Info { config: stage.config.clone(), mks: false, connect: false };
            info(&stage.ctx, req).await.unwrap().vm.has_snapshot
        };
        assert!(!info().await);
        assert!(stage.script.asked().is_empty());
        // Root reads every file, but no directory.
        let list = Path::new(stage.config.as_str()).with_extension("vmsd");
        std::fs::create_dir(&list).unwrap();
        let one = Snapshot { id: 1, name: "n".into(), description: String::new(), time: 9, memory: false };
        let one = FromVmx::OneSnapshot { request: 1, snapshot: one };
        for (answer, there) in [(vec![one], true), (Vec::new(), false)] {
            let done = FromVmx::Done { request: 1 };
            stage.script.answer(Ok(answer.into_iter().chain([done]).collect()));
            assert_eq!(info().await, there);
            assert_eq!(stage.script.asked(), [ToVmx::ListSnapshots { request: 0 }]);
            assert_eq!(info().await, there);
            assert!(stage.script.asked().is_empty());
            // Another list: it is asked for anew.
            std::fs::remove_dir(&list).unwrap();
            std::fs::create_dir(&list).unwrap();
        }
        stage.script.answer(Err(Error::no_such_vm()));
        assert!(info().await);
    }
}
