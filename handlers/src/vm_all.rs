//! `VM_List`: every machine that exists for the caller, from one view of the list.

use std::collections::BTreeMap;

use handlers_derive::handler;
use ops::machine::{List, ListReply, ListedVm, VmDetails};
use ops::value::ConfigPath;

use crate::machine::{self, Facts, Machine};
use crate::registered::{Listed, Registered};
use crate::running::Running;
use crate::{Ctx, Failure, User};

/// The machines of the list that the caller can read, in its order.
#[handler]
async fn list(ctx: &Ctx, req: List) -> Result<ListReply, Failure> {
    let registered = ctx.core.registered().await?;
    let running = ctx.core.running().await?;
    let user = ctx.user.clone();
    let look = move || ListReply { vms: look(&user, &registered, &running, &req) };
    tokio::task::spawn_blocking(look).await.map_err(|error| Failure::internal("looking at machines", error))
}

fn look(
    user: &User,
    registered: &Registered,
    running: &BTreeMap<String, Running>,
    req: &List,
) -> Vec<ListedVm> {
    let wanted = |listed: &Listed| {
        let config = ConfigPath::try_from(listed.config.to_string()).ok()?;
        if !req.details {
            let details = VmDetails::default();
            return machine::exists(user, listed).then_some(ListedVm { config, details });
        }
        let machine = Machine::open(user, &config).ok()?;
        if machine::hidden(user, listed, &machine.metadata) {
            return None;
        }
        let details = Facts::of(&machine, running.get(config.as_str()).cloned()).details(&machine);
        Some(ListedVm { config, details })
    };
    match &req.configs {
        None => registered.iter().filter_map(wanted).collect(),
        Some(configs) => {
            let mut places: Vec<_> =
                configs.iter().filter_map(|config| registered.place(config.as_str())).collect();
            places.sort_unstable();
            places.dedup();
            places.into_iter().filter_map(|place| registered.at(place)).filter_map(wanted).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{FixedCore, ctx_with};
    use ops::machine::PowerState;

    #[tokio::test]
    async fn what_can_be_read_is_listed_in_the_order_of_the_list() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(path("b.vmx"), "config.version = \"8\"\ndisplayName = \"B\"\nmemsize = \"64\"\n")
            .unwrap();
        std::fs::write(path("a.vmx"), "checkpoint.vmState = \"a.vmss\"\n").unwrap();
        let vms = vec![path("b.vmx"), path("gone.vmx"), path("a.vmx")];
        let ctx = ctx_with(FixedCore { count: 0, vms, ..FixedCore::default() });
        let ask = async |details, configs: Option<&[&str]>| {
            let config = |name: &&str| ConfigPath::try_from(path(name)).unwrap();
            let configs = configs.map(|names| names.iter().map(config).collect());
            list(&ctx, List { details, configs }).await.unwrap().vms
        };
        let all = ask(true, None).await;
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].details.display_name.as_deref(), Some("B"));
        assert_eq!((all[0].details.power, all[0].details.memory_mb), (Some(PowerState::Off), Some(64)));
        assert_eq!(
            (all[1].details.power, all[1].details.display_name.as_deref()),
            (Some(PowerState::Suspended), Some("a"))
        );
        let some = ask(false, Some(&["a.vmx", "b.vmx", "a.vmx", "gone.vmx", "never.vmx"])).await;
        let names: Vec<_> = some.iter().map(|vm| vm.config.as_str().to_owned()).collect();
        assert_eq!(names, [path("b.vmx"), path("a.vmx")]);
        assert_eq!(some[0].details, VmDetails::default());
    }
}
