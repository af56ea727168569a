//! Questions of machines, and devices that are plugged in and out.

use handlers_derive::handler;
use hypervisor::control::ToVmx;
use hypervisor::vmx_file::{DriveKind, VmxFile};
use ops::value::ConfigPath;
use ops::vm_power::StateReply;
use ops::vm_question::{
    AnswerQuestion, DeviceConnect, DeviceDisconnect, DeviceIsConnected, DeviceReply, GetQuestion,
    GetQuestionReply,
};
use ops::{Error, ErrorCode};

use crate::{Ctx, Failure, machine};

/// What the machine waits for.
#[handler]
async fn get_question(ctx: &Ctx, req: GetQuestion) -> Result<GetQuestionReply, Failure> {
    let (_, facts) = machine::seen(ctx, &req.config).await?;
    let question = facts.running.and_then(|running| running.status.question);
    Ok(GetQuestionReply { config: req.config, question: question.as_ref().map(machine::question) })
}

/// Answers it. The state of the reply is that of the moment: the machine goes on by itself.
#[handler]
async fn answer_question(ctx: &Ctx, req: AnswerQuestion) -> Result<StateReply, Failure> {
    let machine = machine::operable(ctx, &req.config).await?;
    let facts = machine::facts(ctx, &machine).await?;
    facts.process("answer")?;
    let ask = ToVmx::Answer { request: 0, id: req.id, choice: req.choice };
    ctx.core.ask_machine(req.config.as_str(), machine.descriptor()?, ask).await?;
    let state = machine::facts(ctx, &machine).await?.state;
    Ok(StateReply { config: req.config, state })
}

/// A device of the .vmx.
#[derive(Debug, PartialEq, Eq)]
struct Device {
    /// As the .vmx calls it.
    name: String,
    /// It cannot be plugged out.
    fixed: bool,
}

/// The device of that name, case ignored, among those that the machine has.
fn device(vmx: &VmxFile, name: &str) -> Result<Device, Error> {
    let drives = vmx.drives().into_iter().map(|drive| (drive.name(), drive.kind == DriveKind::HardDisk));
    let floppies = vmx.floppies().into_iter().map(|floppy| (format!("floppy{}", floppy.number), false));
    let adapters = vmx.network_adapters().into_iter().map(|card| (format!("ethernet{}", card.number), false));
    let ports = vmx.serial_ports().into_iter().map(|port| (format!("serial{}", port.number), false));
    drives
        .chain(floppies)
        .chain(adapters)
        .chain(ports)
        .find(|(known, _)| known.eq_ignore_ascii_case(name.trim()))
        .map(|(name, fixed)| Device { name, fixed })
        .ok_or_else(|| Error::with(ErrorCode::NoProperty, name))
}

/// Plugs in.
#[handler]
async fn device_connect(ctx: &Ctx, req: DeviceConnect) -> Result<DeviceReply, Failure> {
    plug(ctx, req.config, &req.device, true).await
}

/// Plugs out.
#[handler]
async fn device_disconnect(ctx: &Ctx, req: DeviceDisconnect) -> Result<DeviceReply, Failure> {
    plug(ctx, req.config, &req.device, false).await
}

async fn plug(ctx: &Ctx, config: ConfigPath, name: &str, connected: bool) -> Result<DeviceReply, Failure> {
    let machine = machine::operable(ctx, &config).await?;
    let device = device(&machine.vmx, name)?;
    if device.fixed {
        let why = format!("{} is a fixed disk", device.name);
        return Err(Error::with(ErrorCode::NotSupported, why).into());
    }
    let facts = machine::facts(ctx, &machine).await?;
    facts.process(if connected { "connectdevice" } else { "disconnectdevice" })?;
    let ask = ToVmx::Connect { request: 0, device: device.name.clone(), connected };
    ctx.core.ask_machine(config.as_str(), machine.descriptor()?, ask).await?;
    Ok(DeviceReply { config, device: device.name, connected })
}

/// Whether it is plugged in.
#[handler]
async fn device_is_connected(ctx: &Ctx, req: DeviceIsConnected) -> Result<DeviceReply, Failure> {
    let (machine, facts) = machine::seen(ctx, &req.config).await?;
    let device = device(&machine.vmx, &req.device)?;
    let connected = facts.running.is_some_and(|running| {
        let names = &running.status.connected;
        device.fixed || names.iter().any(|name| name.eq_ignore_ascii_case(&device.name))
    });
    Ok(DeviceReply { config: req.config, device: device.name, connected })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Stage, told};
    use hypervisor::control::{Question, State};
    use ops::machine::PowerState;

    const VMX: &str = "config.version = \"8\"\nide0:0.present = \"TRUE\"\nide0:0.fileName = \"a.vmdk\"\n\
                       ide1:0.present = \"TRUE\"\nide1:0.deviceType = \"cdrom-image\"\n\
                       floppy0.fileName = \"f.img\"\nserial0.present = \"TRUE\"\nethernet0.present = \"TRUE\"\n";

    #[tokio::test]
    async fn a_question_is_shown_and_answered() {
        let stage = Stage::new(VMX);
        let config = || stage.config.clone();
        let none = get_question(&stage.ctx, GetQuestion { config: config() }).await.unwrap();
        assert_eq!(none.question, None);
        let answer = AnswerQuestion { config: config(), id: 4, choice: 1 };
        let error = told(answer_question(&stage.ctx, answer.clone()).await);
        assert_eq!(error.code, ErrorCode::BadState);

        stage.script.run(stage.config.as_str(), State::Stuck);
        let question =
            Question { id: 4, text: "Go on?".into(), choices: vec!["Yes".into(), "No".into()], default: 1 };
        stage.script.machines.lock().unwrap().get_mut(stage.config.as_str()).unwrap().status.question =
            Some(question);
        let shown =
            get_question(&stage.ctx, GetQuestion { config: config() }).await.unwrap().question.unwrap();
        assert_eq!(
            (shown.id, shown.text.as_str(), shown.choices.len(), shown.default_choice),
            (4, "Go on?", 2, 1)
        );
        let reply = answer_question(&stage.ctx, answer).await.unwrap();
        assert_eq!(reply.state.power, PowerState::Stuck);
        assert_eq!(stage.script.asked(), [ToVmx::Answer { request: 0, id: 4, choice: 1 }]);
    }

    #[tokio::test]
    async fn devices_are_those_of_the_vmx() {
        let stage = Stage::new(VMX);
        let connect = async |device: &str| {
            device_connect(&stage.ctx, DeviceConnect { config: stage.config.clone(), device: device.into() })
                .await
        };
        let is = async |device: &str| {
            let req = DeviceIsConnected { config: stage.config.clone(), device: device.into() };
            device_is_connected(&stage.ctx, req).await.map(|reply| reply.connected)
        };
        assert_eq!(told(connect("ide1:1").await).text, "No such property: ide1:1");
        assert_eq!(told(connect("ide0:0").await).text, "Not supported: ide0:0 is a fixed disk");
        assert_eq!(told(connect("IDE1:0").await), Error::state_conflict("connectdevice", "off"));
        assert!(!is("floppy0").await.unwrap() && !is("ide0:0").await.unwrap());
        assert_eq!(told(is("usb").await).code, ErrorCode::NoProperty);

        stage.script.run(stage.config.as_str(), State::On);
        let reply = connect("IDE1:0").await.unwrap();
        assert_eq!((reply.device.as_str(), reply.connected), ("ide1:0", true));
        let out = DeviceDisconnect { config: stage.config.clone(), device: "serial0".into() };
        assert!(!device_disconnect(&stage.ctx, out).await.unwrap().connected);
        let asked = |device: &str, connected| ToVmx::Connect { request: 0, device: device.into(), connected };
        assert_eq!(stage.script.asked(), [asked("ide1:0", true), asked("serial0", false)]);
        assert!(
            is("floppy0").await.unwrap() && is("ide0:0").await.unwrap() && !is("ethernet0").await.unwrap()
        );
    }
}
