//! `VMServerd_*`: what the server is, what it can do, who is asking.

use handlers_derive::handler;
use ops::Error;
use ops::value::HostPath;
use ops::vmserverd::{
    GetConnectedVmList, GetConnectedVmListReply, GetOperationTable, GetOperationTableReply, GetProductInfo,
    GetProductInfoReply, GetRequestCount, GetRequestCountReply, IsAdminUser, IsAdminUserReply,
};

use crate::{Ctx, Failure, machine};

/// Machines with a process, as far as they exist for the caller.
#[handler]
async fn get_connected_vm_list(ctx: &Ctx, _: GetConnectedVmList) -> Result<GetConnectedVmListReply, Failure> {
    let connected = ctx.core.connected_vms().await?;
    // The core tells of every machine; the file system, asked as the caller, which of them exist for
    // the caller. That may wait for a disk, so it happens off the thread that serves everybody.
    let readable = move || connected.into_iter().filter(|path| machine::readable(path)).collect::<Vec<_>>();
    let vms = tokio::task::spawn_blocking(readable)
        .await
        .map_err(|error| Failure::internal("looking at the files of machines", error))?;
    let vms = vms.into_iter().filter_map(|path| HostPath::try_from(path).ok()).collect();
    Ok(GetConnectedVmListReply { vms })
}

/// A walk over the table; with details, the reference of this server.
#[handler(quick)]
fn get_operation_table(_: &Ctx, req: GetOperationTable) -> Result<GetOperationTableReply, Error> {
    Ok(GetOperationTableReply::of_table(req.details))
}

/// What the server presents itself as, and what it is.
#[handler(quick)]
fn get_product_info(ctx: &Ctx, _: GetProductInfo) -> Result<GetProductInfoReply, Error> {
    Ok(GetProductInfoReply::new(&ctx.product, "vmserverd", env!("CARGO_PKG_VERSION")))
}

/// Requests of all users since start.
#[handler]
async fn get_request_count(ctx: &Ctx, _: GetRequestCount) -> Result<GetRequestCountReply, Failure> {
    // This request is counted when its reply leaves, which is after the core has added up.
    let others = ctx.core.request_count().await?;
    Ok(GetRequestCountReply { count: others.saturating_add(1) })
}

/// Who the caller was proven to be. The core has decided what an administrator is.
#[handler(quick)]
fn is_admin_user(ctx: &Ctx, _: IsAdminUser) -> Result<IsAdminUserReply, Error> {
    Ok(IsAdminUserReply { user: ctx.user.name.clone(), is_admin: ctx.user.admin })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{FixedCore, ctx, ctx_with};

    #[tokio::test]
    async fn the_count_includes_the_question() {
        assert_eq!(get_request_count(&ctx(), GetRequestCount {}).await.unwrap().count, 42);
    }

    #[tokio::test]
    async fn machines_that_the_caller_cannot_read_do_not_exist() {
        let directory = tempfile::tempdir().unwrap();
        let there = directory.path().join("a.vmx").to_str().unwrap().to_owned();
        std::fs::write(&there, "").unwrap();
        let gone = directory.path().join("b.vmx").to_str().unwrap().to_owned();
        let ctx = ctx_with(FixedCore { count: 0, vms: vec![there.clone(), gone], ..FixedCore::default() });
        let reply = get_connected_vm_list(&ctx, GetConnectedVmList {}).await.unwrap();
        assert_eq!(reply.vms.iter().map(HostPath::as_str).collect::<Vec<_>>(), [there]);
    }

    #[test]
    fn the_caller_and_the_product_are_those_of_the_context() {
        let reply = is_admin_user(&ctx(), IsAdminUser {}).unwrap();
        assert_eq!((reply.user.as_str(), reply.is_admin), ("alice", false));
        let reply = get_product_info(&ctx(), GetProductInfo {}).unwrap();
        assert_eq!(reply.product.title, "VMware Server");
        assert_eq!(reply.implementation.name, "vmserverd");
        let reply = get_operation_table(&ctx(), GetOperationTable { details: false }).unwrap();
        assert_eq!(reply.operations.len(), ops::TABLE.len());
    }
}
