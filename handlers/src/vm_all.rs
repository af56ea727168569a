//! `VM_List`: every machine that exists for the caller, from one view of the list.
//!
//! What is known to be unchanged ([`crate::known`]) is neither looked at nor written anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use handlers_derive::handler;
use ops::machine::{List, ListItem, ListReply, ListedVm, VmDetails};
use ops::value::ConfigPath;

use crate::known::{CACHE, Known};
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
) -> Vec<ListItem> {
    let chosen: Vec<&Listed> = match &req.configs {
        None => registered.iter().collect(),
        Some(configs) => {
            let mut places: Vec<_> =
                configs.iter().filter_map(|config| registered.place(config.as_str())).collect();
            places.sort_unstable();
            places.dedup();
            places.into_iter().filter_map(|place| registered.at(place)).collect()
        }
    };
    let known = CACHE.get_all(chosen.iter().map(|listed| &*listed.config));
    let item = |(listed, known): (&Listed, Option<Arc<Known>>)| {
        let config = || ConfigPath::try_from(listed.config.to_string()).ok();
        if req.details
            && let Some(running) = running.get(&*listed.config)
        {
            let machine = Machine::open(user, &config()?).ok()?;
            let visible = !machine::hidden(user, listed, &machine.metadata);
            let details = Facts::of(&machine, Some(running.clone())).details(&machine);
            return visible.then(|| ListItem::Vm(Box::new(ListedVm { config: machine.config, details })));
        }
        let known = match known {
            Some(known) => known,
            // Nothing but the path is wanted: whether it can be read is soon seen.
            None if !req.details => {
                let vm = ListedVm { config: config()?, details: VmDetails::default() };
                return machine::exists(user, listed).then_some(ListItem::Vm(Box::new(vm)));
            }
            None => CACHE.look(user, &config()?).ok()?,
        };
        if machine::is_private_to_another(user, listed, known.owner) {
            return None;
        }
        if req.details {
            return Some(ListItem::Written(Arc::clone(&known.listed)));
        }
        Some(ListItem::Vm(Box::new(ListedVm { config: config()?, details: VmDetails::default() })))
    };
    chosen.into_iter().zip(known).filter_map(item).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{FixedCore, ctx_with};
    use ops::{Out, Reply};

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
            let vms = list(&ctx, List { details, configs }).await.unwrap();
            let mut bytes = Vec::new();
            vms.write(&mut Out::new(&mut bytes));
            String::from_utf8(bytes).unwrap()
        };
        // The second answer is written from memory.
        for _ in 0..2 {
            let all = ask(true, None).await;
            assert_eq!(all.matches("<vm>").count(), 2, "{all}");
            let (b, a) = (all.find("<displayName>B<").unwrap(), all.find("<displayName>a<").unwrap());
            assert!(b < a && all.contains("<powerState>off</powerState><paused>0</paused>"), "{all}");
            assert!(all.contains("<powerState>suspended<") && all.contains("<memoryMb>64<"), "{all}");
        }
        std::fs::write(path("b.vmx"), "config.version = \"8\"\ndisplayName = \"C\"\n").unwrap();
        assert!(ask(true, None).await.contains("<displayName>C<"));
        let some = ask(false, Some(&["a.vmx", "b.vmx", "a.vmx", "gone.vmx", "never.vmx"])).await;
        let vm = |name| format!("<vm><config>{}</config></vm>", path(name));
        assert_eq!(some, format!("<vms>{}{}</vms>", vm("b.vmx"), vm("a.vmx")));
    }
}
