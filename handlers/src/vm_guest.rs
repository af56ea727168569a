//! `VM_GetGuestInfo`, `VM_SetGuestInfo`: of a running machine its process knows them, otherwise the .vmx
//! has what is left.

use handlers_derive::handler;
use hypervisor::control::{FromVmx, ToVmx};
use ops::vm_guest::{GetGuestInfo, GetGuestInfoReply, SetGuestInfo};
use ops::vm_power::ConfigReply;
use ops::{Error, ErrorCode};

use crate::machine::{self, Machine};
use crate::{Ctx, Failure};

/// Longest name of a variable, in bytes. Ours.
const MAX_NAME: usize = 1024;

/// The variable's own name: without `guestinfo.`, if that is in front of it in any case.
pub(crate) fn variable(key: &str) -> &str {
    const PREFIX: &str = "guestinfo.";
    let has_prefix = key.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX));
    key.get(if has_prefix { PREFIX.len() } else { 0 }..).unwrap_or_default()
}

/// A variable of the running machine.
pub(crate) async fn read(ctx: &Ctx, machine: &Machine, name: &str) -> Result<Option<String>, Failure> {
    let ask = ToVmx::GetGuestInfo { request: 0, key: name.to_owned() };
    match ctx.core.ask_machine(machine.config.as_str(), machine.descriptor()?, ask).await?.pop() {
        Some(FromVmx::Value { value, .. }) => Ok(value),
        _ => Err(Failure::internal("asking a machine", "no value in its answer")),
    }
}

/// Sets a variable of the running machine.
pub(crate) async fn write(ctx: &Ctx, machine: &Machine, name: &str, value: &str) -> Result<(), Failure> {
    let ask = ToVmx::SetGuestInfo { request: 0, key: name.to_owned(), value: value.to_owned() };
    ctx.core.ask_machine(machine.config.as_str(), machine.descriptor()?, ask).await.map(drop)
}

/// One variable.
#[handler]
async fn get_guest_info(ctx: &Ctx, req: GetGuestInfo) -> Result<GetGuestInfoReply, Failure> {
    let (machine, facts) = machine::seen(ctx, &req.config).await?;
    let name = variable(&req.key);
    let value = match facts.running {
        Some(_) => read(ctx, &machine, name).await?,
        None => machine.vmx.guest_info(name).map(str::to_owned),
    };
    match value {
        Some(value) => Ok(GetGuestInfoReply { config: req.config, key: req.key, value }),
        None => Err(Error::with(ErrorCode::NoProperty, req.key).into()),
    }
}

/// Sets one until power off.
#[handler]
async fn set_guest_info(ctx: &Ctx, req: SetGuestInfo) -> Result<ConfigReply, Failure> {
    let machine = machine::operable(ctx, &req.config).await?;
    let name = variable(&req.key);
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Error::invalid("key", format_args!("must have 1 to {MAX_NAME} bytes")).into());
    }
    machine::facts(ctx, &machine).await?.process("setguestinfo")?;
    write(ctx, &machine, name, &req.value).await?;
    Ok(ConfigReply { config: req.config })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Stage, told};
    use hypervisor::control::State;

    #[test]
    fn names_with_and_without_their_prefix() {
        for (key, name) in [
            ("ip", "ip"),
            ("guestinfo.ip", "ip"),
            ("GuestInfo.a.b", "a.b"),
            ("guestinfo", "guestinfo"),
            ("é", "é"),
        ] {
            assert_eq!(variable(key), name);
        }
    }

    #[tokio::test]
    async fn the_process_is_asked_while_there_is_one() {
        let stage = Stage::new("config.version = \"8\"\nguestinfo.ip = \"10.0.0.9\"\n");
        let get = async |key: &str| {
            get_guest_info(&stage.ctx, GetGuestInfo { config: stage.config.clone(), key: key.into() }).await
        };
        let set =
            SetGuestInfo { config: stage.config.clone(), key: "guestinfo.a.b".into(), value: "x".into() };
        assert_eq!(get("GUESTINFO.IP").await.unwrap().value, "10.0.0.9");
        assert_eq!(told(get("name").await).text, "No such property: name");
        let error = told(set_guest_info(&stage.ctx, set.clone()).await);
        assert_eq!(error, Error::state_conflict("setguestinfo", "off"));
        assert!(stage.script.asked().is_empty());

        stage.script.run(stage.config.as_str(), State::On);
        stage.script.answer(Ok(vec![FromVmx::Value { request: 1, value: Some("10.0.0.1".into()) }]));
        assert_eq!(get("ip").await.unwrap().value, "10.0.0.1");
        stage.script.answer(Ok(vec![FromVmx::Value { request: 1, value: None }]));
        assert_eq!(told(get("ip").await).code, ErrorCode::NoProperty);
        set_guest_info(&stage.ctx, set.clone()).await.unwrap();
        let asked = stage.script.asked();
        assert_eq!(asked[2], ToVmx::SetGuestInfo { request: 0, key: "a.b".into(), value: "x".into() });
        let empty = SetGuestInfo { key: "guestinfo.".into(), ..set };
        assert_eq!(told(set_guest_info(&stage.ctx, empty).await).code, ErrorCode::InvalidArgs);
    }
}
