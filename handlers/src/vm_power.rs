//! `VM_Start`, `VM_Stop`, `VM_Reset`, `VM_Suspend`, `VM_Pause`, `VM_Resume`: asked of the core, which
//! asks the machine's process. Whether the state allows it is decided there, by the one who knows.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use handlers_derive::handler;
use hypervisor::control::{self, ToVmx};
use ops::machine::{PowerState, State};
use ops::value::ConfigPath;
use ops::vm_power::{
    Pause, PowerMode, PowerReply, PowerRequest, Reset, Resume, Start, StateReply, Stop, Suspend,
};
use ops::{Error, Fault};

use crate::machine::Machine;
use crate::tasks::{NewTask, Work};
use crate::{Core, Ctx, Failure, machine};

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Power {
    Start,
    Stop,
    Reset,
    Suspend,
}

impl Power {
    /// Name of the operation.
    fn op(self) -> &'static str {
        match self {
            Power::Start => "VM_Start",
            Power::Stop => "VM_Stop",
            Power::Reset => "VM_Reset",
            Power::Suspend => "VM_Suspend",
        }
    }
}

/// Powers on, or goes on from the suspended state.
#[handler]
async fn start(ctx: &Ctx, req: Start) -> Result<PowerReply, Failure> {
    power(ctx, req.request, Power::Start).await
}

/// Powers off.
#[handler]
async fn stop(ctx: &Ctx, req: Stop) -> Result<PowerReply, Failure> {
    power(ctx, req.request, Power::Stop).await
}

/// Resets.
#[handler]
async fn reset(ctx: &Ctx, req: Reset) -> Result<PowerReply, Failure> {
    power(ctx, req.request, Power::Reset).await
}

/// Suspends to a file.
#[handler]
async fn suspend(ctx: &Ctx, req: Suspend) -> Result<PowerReply, Failure> {
    power(ctx, req.request, Power::Suspend).await
}

/// Lets the machine stand still.
#[handler]
async fn pause(ctx: &Ctx, req: Pause) -> Result<StateReply, Failure> {
    let machine = machine::operable(ctx, &req.config).await?;
    not_suspended(ctx, &machine, "pause").await?;
    ctx.core.ask_machine(req.config.as_str(), machine.descriptor()?, ToVmx::Pause { request: 0 }).await?;
    Ok(StateReply { config: req.config, state: State { power: PowerState::On, paused: true } })
}

/// Lets it go on.
#[handler]
async fn resume(ctx: &Ctx, req: Resume) -> Result<StateReply, Failure> {
    let machine = machine::operable(ctx, &req.config).await?;
    not_suspended(ctx, &machine, "resume").await?;
    ctx.core.ask_machine(req.config.as_str(), machine.descriptor()?, ToVmx::Resume { request: 0 }).await?;
    Ok(StateReply { config: req.config, state: State { power: PowerState::On, paused: false } })
}

async fn power(ctx: &Ctx, req: PowerRequest, power: Power) -> Result<PowerReply, Failure> {
    let PowerRequest { config, mode, background } = req;
    let machine = machine::operable(ctx, &config).await?;
    match power {
        Power::Start => {}
        Power::Stop => not_suspended(ctx, &machine, "stop").await?,
        Power::Reset => not_suspended(ctx, &machine, "reset").await?,
        Power::Suspend => not_suspended(ctx, &machine, "suspend").await?,
    }
    let (core, vmx) = (Arc::clone(&ctx.core), machine.descriptor()?);
    drop(machine);
    let path = config.clone();
    let work = async move { carry_out(&*core, &path, vmx, power, mode).await };
    if background {
        let task_id = in_background(ctx, power.op(), async { work.await.map(drop) }).await?;
        return Ok(PowerReply { config, power: None, paused: None, task_id: Some(task_id) });
    }
    let state = work.await?;
    Ok(PowerReply { config, power: Some(state.power), paused: Some(state.paused), task_id: None })
}

/// Refuses what a suspended machine cannot do. The core, which reads no .vmx, would call it off.
async fn not_suspended(ctx: &Ctx, machine: &Machine, verb: &str) -> Result<(), Failure> {
    let suspended = machine::facts(ctx, machine).await?.state.power == PowerState::Suspended;
    if suspended { Err(Error::state_conflict(verb, "suspended").into()) } else { Ok(()) }
}

/// Returns the state that was reached.
async fn carry_out(
    core: &dyn Core,
    config: &ConfigPath,
    vmx: OwnedFd,
    power: Power,
    mode: PowerMode,
) -> Result<State, Failure> {
    let mode = match mode {
        PowerMode::Hard => control::PowerMode::Hard,
        PowerMode::Soft => control::PowerMode::Soft,
        PowerMode::TrySoft => control::PowerMode::TrySoft,
    };
    let (ask, power) = match power {
        Power::Start => {
            let state = core.start_machine(config.as_str(), vmx).await?;
            return Ok(State { power: machine::power_state(state), paused: false });
        }
        Power::Stop => (ToVmx::Stop { request: 0, mode }, PowerState::Off),
        Power::Reset => (ToVmx::Reset { request: 0, mode }, PowerState::On),
        Power::Suspend => (ToVmx::Suspend { request: 0, mode }, PowerState::Suspended),
    };
    core.ask_machine(config.as_str(), vmx, ask).await?;
    Ok(State { power, paused: false })
}

/// Makes a task that waits for the end of `work`; returns its number. Stopping the task stops only the
/// waiting: what a machine was asked for it does.
pub(crate) async fn in_background(
    ctx: &Ctx,
    op: &'static str,
    work: impl Future<Output = Result<(), Failure>> + Send + 'static,
) -> Result<u64, Failure> {
    let runtime = tokio::runtime::Handle::current();
    let work: Work = Box::new(move |_| {
        runtime.block_on(work).map_err(|failure| match failure {
            Failure::Told(Fault::Refused(error)) => error,
            Failure::Told(fault) => fault.into_error(),
            Failure::Internal { .. } => Error::unspecified("Internal error"),
        })
    });
    ctx.core.start_task(NewTask { op, total: 0, partial: None }, work).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Stage, told};
    use ops::ErrorCode;

    const VMX: &str = "config.version = \"8\"\n";

    fn request(stage: &Stage, mode: PowerMode, background: bool) -> PowerRequest {
        PowerRequest { config: stage.config.clone(), mode, background }
    }

    #[tokio::test]
    async fn the_new_state_is_told_when_it_was_reached() {
        let stage = Stage::new(VMX);
        let ask = |mode| request(&stage, mode, false);
        let reply = start(&stage.ctx, Start { request: ask(PowerMode::TrySoft) }).await.unwrap();
        assert_eq!((reply.power, reply.paused, reply.task_id), (Some(PowerState::On), Some(false), None));
        let error = told(start(&stage.ctx, Start { request: ask(PowerMode::TrySoft) }).await);
        assert_eq!(error, Error::state_conflict("start", "on"));

        let reply = suspend(&stage.ctx, Suspend { request: ask(PowerMode::Hard) }).await.unwrap();
        assert_eq!(reply.power, Some(PowerState::Suspended));
        let reply = reset(&stage.ctx, Reset { request: ask(PowerMode::TrySoft) }).await.unwrap();
        assert_eq!(reply.power, Some(PowerState::On));
        let reply = stop(&stage.ctx, Stop { request: ask(PowerMode::Soft) }).await.unwrap();
        assert_eq!(reply.power, Some(PowerState::Off));
        let paused = pause(&stage.ctx, Pause { config: stage.config.clone() }).await.unwrap().state;
        assert_eq!(paused, State { power: PowerState::On, paused: true });
        assert!(!resume(&stage.ctx, Resume { config: stage.config.clone() }).await.unwrap().state.paused);
        assert_eq!(
            stage.script.asked(),
            [
                ToVmx::Suspend { request: 0, mode: control::PowerMode::Hard },
                ToVmx::Reset { request: 0, mode: control::PowerMode::TrySoft },
                ToVmx::Stop { request: 0, mode: control::PowerMode::Soft },
                ToVmx::Pause { request: 0 },
                ToVmx::Resume { request: 0 },
            ]
        );
        stage.script.answer(Err(Error::tools_not_running()));
        let error = told(stop(&stage.ctx, Stop { request: ask(PowerMode::Soft) }).await);
        assert_eq!(error, Error::tools_not_running());
    }

    #[tokio::test]
    async fn nobody_operates_what_he_may_only_read() {
        let stage = Stage::new(VMX);
        stage.mode(0o600);
        let ask = request(&stage, PowerMode::Hard, false);
        let error = told(start(&stage.ctx, Start { request: ask.clone() }).await);
        assert_eq!(error, Error::no_access(&stage.config));
        assert_eq!(told(stop(&stage.ctx, Stop { request: ask }).await).code, ErrorCode::NoAccess);
        let error = told(pause(&stage.ctx, Pause { config: stage.config.clone() }).await);
        assert_eq!(error.code, ErrorCode::NoAccess);
        assert!(stage.script.asked().is_empty());
    }

    #[tokio::test]
    async fn in_the_background_a_task_does_it() {
        let stage = Stage::new(VMX);
        let ask = request(&stage, PowerMode::Soft, true);
        let reply = start(&stage.ctx, Start { request: ask.clone() }).await.unwrap();
        assert_eq!((reply.power, reply.task_id), (None, Some(7)));
        assert!(stage.script.machines.lock().unwrap().contains_key(stage.config.as_str()));
        // The core of these tests shows a task's failure as the failure to start it.
        stage.script.answer(Err(Error::new(ErrorCode::Timeout)));
        assert_eq!(told(stop(&stage.ctx, Stop { request: ask }).await).code, ErrorCode::Timeout);
    }
}
