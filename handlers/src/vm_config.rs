//! `VM_GetConfig`, `VM_SetConfig`, `VM_GetResource`, `VM_SetResource`: what a .vmx says, read and written
//! as the caller.
//!
//! ```text
//!   checked against the .vmx ─▶ guest variables of a running machine: its process ─▶ the .vmx, in one go
//!                                        └─ a later failure: the old values again ◀──────┘
//! ```

use handlers_derive::handler;
use hypervisor::vmx_file::{self, DriveKind, VmxFile};
use ops::value::ConfigPath;
use ops::vm_config::{
    Change, GetConfig, GetConfigReply, GetResource, ResourceReply, SetConfig, SetResource, Setting,
};
use ops::vm_power::ConfigReply;
use ops::{Error, ErrorCode};

use crate::machine::{self, Facts, Machine};
use crate::{Ctx, Failure, vm_guest};

/// Longest key, in bytes. Ours.
const MAX_KEY: usize = 256;

/// One key, or all.
#[handler]
async fn get_config(ctx: &Ctx, req: GetConfig) -> Result<GetConfigReply, Failure> {
    let machine = machine::visible(ctx, &req.config).await?;
    let Some(key) = req.key else {
        let setting = |(key, value): (&str, &str)| Setting { key: key.to_owned(), value: value.to_owned() };
        let settings = Some(machine.vmx.settings().into_iter().map(setting).collect());
        return Ok(GetConfigReply { config: req.config, key: None, value: None, settings });
    };
    match machine.vmx.get(key.trim()) {
        Some(value) => {
            let value = Some(value.to_owned());
            Ok(GetConfigReply { config: req.config, key: Some(key), value, settings: None })
        }
        None => Err(Error::with(ErrorCode::NoProperty, key).into()),
    }
}

/// Changes keys: all of them or none.
#[handler]
async fn set_config(ctx: &Ctx, req: SetConfig) -> Result<ConfigReply, Failure> {
    let changes = changes(&req)?;
    let (machine, facts) = machine::seen(ctx, &req.config).await?;
    if !machine.rights.write {
        return Err(Error::no_access(&req.config).into());
    }
    // What can be refused is refused before anything is changed.
    apply(&mut machine.vmx.clone(), &changes, &facts)?;
    let mut undo = Vec::new();
    let done = async {
        if facts.running.is_some() {
            tell_machine(ctx, &machine, &changes, &mut undo).await?;
        }
        let keys = changes.iter().map(|change| change.key.clone()).collect();
        store(req.config.clone(), changes, facts).await?;
        announce(ctx, &req.config, keys).await;
        Ok(())
    };
    let done: Result<(), Failure> = done.await;
    if done.is_err() {
        for (name, value) in undo.into_iter().rev() {
            // The first failure is the one to tell; a machine that has ended has no variables left.
            let _ = vm_guest::write(ctx, &machine, &name, &value).await;
        }
    }
    done.map(|()| ConfigReply { config: req.config })
}

/// What the request wants, in order.
fn changes(req: &SetConfig) -> Result<Vec<Change>, Error> {
    let mut changes = Vec::new();
    match &req.key {
        Some(key) => {
            changes.push(Change { key: key.clone(), value: req.value.clone(), remove: req.remove });
        }
        None if req.settings.is_none() => return Err(Error::missing("key")),
        None => {}
    }
    changes.extend(req.settings.iter().flatten().cloned());
    for change in &mut changes {
        change.key = change.key.trim().to_owned();
        let good = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'=' | b'"' | b'#' | b'|');
        if change.key.is_empty() || change.key.len() > MAX_KEY || !change.key.bytes().all(good) {
            let why =
                format!("must have 1 to {MAX_KEY} printable ASCII characters, none of = \" # | or space");
            return Err(Error::invalid("key", why));
        }
        if change.value.is_none() && !change.remove {
            return Err(Error::missing("value"));
        }
    }
    Ok(changes)
}

/// Makes the changes in memory.
fn apply(vmx: &mut VmxFile, changes: &[Change], facts: &Facts) -> Result<(), Error> {
    let before = fixed(vmx);
    for change in changes {
        match &change.value {
            Some(value) if !change.remove => vmx.set(&change.key, value),
            _ => drop(vmx.remove(&change.key)),
        }
    }
    if vmx.to_bytes().len() as u64 > VmxFile::MAX_SIZE {
        let why = format!("the .vmx would be larger than {} bytes", VmxFile::MAX_SIZE);
        return Err(Error::invalid("value", why));
    }
    if facts.state.power != ops::machine::PowerState::Off {
        let after = fixed(vmx);
        let forbidden = |change: &Change| {
            let key = change.key.to_ascii_lowercase();
            let device = key.split('.').next().unwrap_or_default();
            key == "memsize"
                || key.starts_with("uuid.")
                || before.iter().chain(&after).any(|name| name == device)
        };
        if changes.iter().any(forbidden) {
            return Err(facts.conflict("setconfig"));
        }
    }
    Ok(())
}

/// Names of the disks and of the controllers that disks hang on.
fn fixed(vmx: &VmxFile) -> Vec<String> {
    let disks = vmx.drives().into_iter().filter(|drive| drive.kind == DriveKind::HardDisk);
    let controllers =
        vmx.scsi_controllers().into_iter().map(|controller| format!("scsi{}", controller.number));
    disks.map(|drive| drive.name()).chain(controllers).collect()
}

/// Guest variables act at once. What they were before goes to `undo`.
async fn tell_machine(
    ctx: &Ctx,
    machine: &Machine,
    changes: &[Change],
    undo: &mut Vec<(String, String)>,
) -> Result<(), Failure> {
    for change in changes {
        let name = vm_guest::variable(&change.key);
        if name.len() == change.key.len() || name.is_empty() {
            continue;
        }
        let old = vm_guest::read(ctx, machine, name).await?.unwrap_or_default();
        let value = change.value.as_deref().filter(|_| !change.remove).unwrap_or_default();
        vm_guest::write(ctx, machine, name, value).await?;
        undo.push((name.to_owned(), old));
    }
    Ok(())
}

/// Why a file was not changed.
enum Refusal {
    Told(Error),
    Io(std::io::Error),
}

impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Refusal::Io(error)
    }
}

/// Makes the changes in the file as it is now.
async fn store(config: ConfigPath, changes: Vec<Change>, facts: Facts) -> Result<(), Failure> {
    let write = move || {
        let change = |vmx: &mut VmxFile| apply(vmx, &changes, &facts).map_err(Refusal::Told);
        vmx_file::update(config.as_ref(), change).map(drop).map_err(|refusal| match refusal {
            Refusal::Told(error) => error,
            Refusal::Io(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                Error::with(ErrorCode::VmBusy, format_args!("{config} is being changed"))
            }
            Refusal::Io(error) => Error::file(&config, &error),
        })
    };
    let written = tokio::task::spawn_blocking(write).await;
    Ok(written.map_err(|error| Failure::internal("changing a .vmx", error))??)
}

/// Says which keys were changed. The change is made, whoever hears of it.
async fn announce(ctx: &Ctx, config: &ConfigPath, keys: Vec<String>) {
    let (user, path) = (ctx.user.clone(), config.clone());
    let opened = tokio::task::spawn_blocking(move || Machine::open(&user, &path)).await;
    if let Ok(Ok(machine)) = opened {
        let _ = ctx.core.config_changed(config.as_str(), keys, machine.file.into()).await;
    }
}

/// Why there are no resources of machines.
fn no_resources() -> Error {
    Error::with(ErrorCode::NotSupported, "a machine has no resource settings of its own")
}

/// Refused.
#[handler]
async fn get_resource(ctx: &Ctx, req: GetResource) -> Result<ResourceReply, Failure> {
    machine::visible(ctx, &req.config).await?;
    Err(no_resources().into())
}

/// Refused.
#[handler]
async fn set_resource(ctx: &Ctx, req: SetResource) -> Result<ResourceReply, Failure> {
    let machine = machine::visible(ctx, &req.config).await?;
    if !machine.rights.write {
        return Err(Error::no_access(&req.config).into());
    }
    Err(no_resources().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Stage, told};
    use hypervisor::control::{FromVmx, State, ToVmx};

    const VMX: &str = "# note\nconfig.version = \"8\"\nmemsize = \"64\"\nide0:0.present = \"TRUE\"\n\
                       ide0:0.fileName = \"a.vmdk\"\nide1:0.present = \"TRUE\"\n\
                       ide1:0.deviceType = \"cdrom-image\"\n";

    fn one(stage: &Stage, key: &str, value: &str) -> SetConfig {
        SetConfig {
            config: stage.config.clone(),
            key: Some(key.into()),
            value: Some(value.into()),
            remove: false,
            settings: None,
        }
    }

    fn change(key: &str, value: Option<&str>) -> Change {
        Change { key: key.into(), value: value.map(str::to_owned), remove: value.is_none() }
    }

    #[tokio::test]
    async fn one_key_or_all_are_read() {
        let stage = Stage::new(VMX);
        let get = async |key: Option<&str>| {
            let req = GetConfig { config: stage.config.clone(), key: key.map(str::to_owned) };
            get_config(&stage.ctx, req).await
        };
        let reply = get(Some("MemSize")).await.unwrap();
        assert_eq!((reply.key.as_deref(), reply.value.as_deref()), (Some("MemSize"), Some("64")));
        assert_eq!(told(get(Some("numvcpus")).await).text, "No such property: numvcpus");
        let all = get(None).await.unwrap().settings.unwrap();
        assert_eq!(all.len(), 6);
        assert_eq!(all[1], Setting { key: "memsize".into(), value: "64".into() });
    }

    #[tokio::test]
    async fn several_keys_are_changed_or_none() {
        let stage = Stage::new(VMX);
        let settings =
            vec![change("memsize", Some("128")), change("IDE1:0.present", None), change("a", Some("\"|"))];
        let many = SetConfig { key: None, value: None, settings: Some(settings), ..one(&stage, "", "") };
        set_config(&stage.ctx, many.clone()).await.unwrap();
        let text = stage.text();
        assert!(text.starts_with("# note\nconfig.version = \"8\"\nmemsize = \"128\"\n"), "{text}");
        assert!(!text.contains("ide1:0.present") && text.ends_with("a = \"|22|7C\"\n"), "{text}");

        let settings = vec![change("b", Some("1")), change("a b", Some("2"))];
        let error =
            told(set_config(&stage.ctx, SetConfig { settings: Some(settings), ..many.clone() }).await);
        assert!(error.text.starts_with("Invalid argument: key: must have 1 to 256"), "{}", error.text);
        let settings = vec![Change { remove: false, ..change("b", None) }];
        let error =
            told(set_config(&stage.ctx, SetConfig { settings: Some(settings), ..many.clone() }).await);
        assert_eq!(error, Error::missing("value"));
        let error = told(set_config(&stage.ctx, SetConfig { settings: None, ..many }).await);
        assert_eq!(error, Error::missing("key"));
        let error = told(set_config(&stage.ctx, one(&stage, "b", &"x".repeat(2 << 20))).await);
        assert_eq!(error.code, ErrorCode::InvalidArgs);
        assert_eq!(stage.text(), text);
    }

    #[tokio::test]
    async fn what_a_machine_holds_is_not_changed_under_it() {
        let suspended = Stage::new(&format!("{VMX}checkpoint.vmState = \"a.vmss\"\n"));
        let error = told(set_config(&suspended.ctx, one(&suspended, "memsize", "128")).await);
        assert_eq!(error, Error::state_conflict("setconfig", "suspended"));

        let stage = Stage::new(VMX);
        stage.script.run(stage.config.as_str(), State::On);
        for key in ["MemSize", "uuid.bios", "ide0:0.fileName", "IDE0:0.mode", "ide1:0.deviceType"] {
            let error = told(set_config(&stage.ctx, one(&stage, key, "disk")).await);
            assert_eq!(error, Error::state_conflict("setconfig", "on"), "{key}");
        }
        let added = vec![change("scsi0.present", Some("TRUE")), change("numvcpus", Some("2"))];
        let added = SetConfig { settings: Some(added), ..one(&stage, "annotation", "x") };
        assert_eq!(told(set_config(&stage.ctx, added).await).code, ErrorCode::BadState);
        assert_eq!(stage.text(), VMX);
        for (key, value) in [("displayName", "New"), ("ide1:0.fileName", "b.iso"), ("numvcpus", "2")] {
            set_config(&stage.ctx, one(&stage, key, value)).await.unwrap();
            assert!(stage.text().contains(&format!("{key} = \"{value}\"\n")));
        }
        assert!(stage.script.asked().is_empty());
    }

    #[tokio::test]
    async fn guest_variables_act_at_once() {
        let stage = Stage::new(VMX);
        stage.script.run(stage.config.as_str(), State::On);
        let value = |text: &str| Ok(vec![FromVmx::Value { request: 1, value: Some(text.into()) }]);
        let set =
            |key: &str, value: &str| ToVmx::SetGuestInfo { request: 0, key: key.into(), value: value.into() };
        let get = |key: &str| ToVmx::GetGuestInfo { request: 0, key: key.into() };
        stage.script.answer(value("old"));
        set_config(&stage.ctx, one(&stage, "guestinfo.a", "new")).await.unwrap();
        assert_eq!(stage.script.asked(), [get("a"), set("a", "new")]);
        assert!(stage.text().ends_with("guestinfo.a = \"new\"\n"));
        let changed = stage.script.changed.lock().unwrap().pop().unwrap();
        assert_eq!(changed, (stage.config.as_str().to_owned(), vec!["guestinfo.a".to_owned()]));

        // The second does not fit any more: the first is what it was.
        let text = stage.text();
        let settings = vec![change("GuestInfo.a", Some("1")), change("guestinfo.b", Some("2"))];
        let two = SetConfig { key: None, value: None, settings: Some(settings), ..one(&stage, "", "") };
        stage.script.answer(value("new"));
        stage.script.answer(Ok(vec![FromVmx::Done { request: 1 }]));
        stage.script.answer(value("x"));
        stage.script.answer(Err(Error::new(ErrorCode::InsufficientResources)));
        assert_eq!(told(set_config(&stage.ctx, two).await).code, ErrorCode::InsufficientResources);
        assert_eq!(stage.script.asked(), [get("a"), set("a", "1"), get("b"), set("b", "2"), set("a", "new")]);
        assert_eq!(stage.text(), text);
    }

    #[tokio::test]
    async fn a_machine_has_no_resources() {
        let stage = Stage::new(VMX);
        let (config, name) = (stage.config.clone(), "cpu.shares".to_owned());
        let error =
            told(get_resource(&stage.ctx, GetResource { config: config.clone(), name: name.clone() }).await);
        assert_eq!(error.code, ErrorCode::NotSupported);
        let error = told(set_resource(&stage.ctx, SetResource { config, name, value: "1".into() }).await);
        assert_eq!(error.code, ErrorCode::NotSupported);
    }
}
