//! Snapshots of machines. Making and removing them is the machine's process's; the list of a machine
//! that is not on is read from its file, as the caller.

use std::sync::Arc;

use handlers_derive::handler;
use hypervisor::control::{self, FromVmx, ToVmx};
use ops::Error;
use ops::value::Time;
use ops::vm_snapshot::{
    CreateSnapshot, CreateSnapshotReply, HasSnapshot, HasSnapshotReply, RemoveAllSnapshots,
    RemoveAllSnapshotsReply, RevertReply, RevertToSnapshot, Snapshot,
};

use crate::machine::{self, Machine};
use crate::vm_power::in_background;
use crate::{Ctx, Failure};

/// Longest name and description, in bytes. Ours.
const MAX_TEXT: usize = 4096;

/// Makes one.
#[handler]
async fn create_snapshot(ctx: &Ctx, req: CreateSnapshot) -> Result<CreateSnapshotReply, Failure> {
    let CreateSnapshot { config, name, description, quiesce, memory, background } = req;
    for (what, text) in [("name", &name), ("description", &description)] {
        if text.len() > MAX_TEXT {
            return Err(Error::invalid(what, format_args!("longer than {MAX_TEXT} bytes")).into());
        }
    }
    let machine = machine::operable(ctx, &config).await?;
    let facts = machine::facts(ctx, &machine).await?;
    // A machine that is off has nothing in buffers.
    let quiet = facts.running.is_none_or(|running| running.status.tools_last_active == 1);
    let warning = "the guest was not asked to write its buffers out: there are no Tools in it";
    let warnings = (quiesce && !quiet).then(|| warning.to_owned()).into_iter().collect();
    let (core, vmx, path) = (Arc::clone(&ctx.core), machine.descriptor()?, config.clone());
    let ask = ToVmx::CreateSnapshot { request: 0, name, description, memory };
    let work = async move { core.ask_machine(path.as_str(), vmx, ask).await };
    if background {
        let task_id = in_background(ctx, "VM_CreateSnapshot", async { work.await.map(drop) }).await?;
        return Ok(CreateSnapshotReply { config, snapshot_id: None, task_id: Some(task_id), warnings });
    }
    match work.await?.pop() {
        Some(FromVmx::SnapshotMade { id, .. }) => {
            Ok(CreateSnapshotReply { config, snapshot_id: Some(id), task_id: None, warnings })
        }
        _ => Err(Failure::internal("asking a machine", "no snapshot in its answer")),
    }
}

/// Goes back to one.
#[handler]
async fn revert_to_snapshot(ctx: &Ctx, req: RevertToSnapshot) -> Result<RevertReply, Failure> {
    let RevertToSnapshot { config, snapshot_id, background } = req;
    let machine = machine::operable(ctx, &config).await?;
    let (core, vmx, path) = (Arc::clone(&ctx.core), machine.descriptor()?, config.clone());
    let ask = ToVmx::RevertToSnapshot { request: 0, id: snapshot_id };
    let work = async move { core.ask_machine(path.as_str(), vmx, ask).await };
    if background {
        let task_id = in_background(ctx, "VM_RevertToSnapshot", async { work.await.map(drop) }).await?;
        return Ok(RevertReply { config, power: None, paused: None, task_id: Some(task_id) });
    }
    work.await?;
    // The .vmx may be another one now.
    let (_, facts) = machine::seen(ctx, &config).await?;
    Ok(RevertReply {
        config,
        power: Some(facts.state.power),
        paused: Some(facts.state.paused),
        task_id: None,
    })
}

/// Removes all.
#[handler]
async fn remove_all_snapshots(
    ctx: &Ctx,
    req: RemoveAllSnapshots,
) -> Result<RemoveAllSnapshotsReply, Failure> {
    let RemoveAllSnapshots { config, background } = req;
    let machine = machine::operable(ctx, &config).await?;
    let (core, vmx, path) = (Arc::clone(&ctx.core), machine.descriptor()?, config.clone());
    let ask = ToVmx::RemoveAllSnapshots { request: 0 };
    let work = async move { core.ask_machine(path.as_str(), vmx, ask).await.map(drop) };
    if background {
        let task_id = Some(in_background(ctx, "VM_RemoveAllSnapshots", work).await?);
        return Ok(RemoveAllSnapshotsReply { config, task_id });
    }
    work.await?;
    Ok(RemoveAllSnapshotsReply { config, task_id: None })
}

/// Lists them.
#[handler]
async fn has_snapshot(ctx: &Ctx, req: HasSnapshot) -> Result<HasSnapshotReply, Failure> {
    let (machine, facts) = machine::seen(ctx, &req.config).await?;
    let listed = match facts.running {
        Some(_) => ask(ctx, &machine).await?,
        None => {
            let config = req.config.clone();
            let read = tokio::task::spawn_blocking(move || machine::snapshots(&config)).await;
            match read.map_err(|error| Failure::internal("reading a list of snapshots", error))? {
                Ok(list) => list,
                // The owner of the machine may read it.
                Err(_) => ask(ctx, &machine).await?,
            }
        }
    };
    let snapshots: Vec<Snapshot> = listed.into_iter().map(shown).collect();
    Ok(HasSnapshotReply { config: req.config, has_snapshot: !snapshots.is_empty(), snapshots })
}

/// What the machine's process lists.
///
/// # Errors
/// As [`Core::ask_machine`](crate::Core::ask_machine).
pub(crate) async fn ask(ctx: &Ctx, machine: &Machine) -> Result<Vec<control::Snapshot>, Failure> {
    let ask = ToVmx::ListSnapshots { request: 0 };
    let answer = ctx.core.ask_machine(machine.config.as_str(), machine.descriptor()?, ask).await?;
    let one = |message| match message {
        FromVmx::OneSnapshot { snapshot, .. } => Some(snapshot),
        _ => None,
    };
    Ok(answer.into_iter().filter_map(one).collect())
}

fn shown(snapshot: control::Snapshot) -> Snapshot {
    let control::Snapshot { id, name, description, time, memory } = snapshot;
    Snapshot { id, name, description, time: Time(time), memory }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Stage, told};
    use hypervisor::control::State;
    use ops::ErrorCode;
    use ops::machine::PowerState;
    use std::path::Path;

    const VMX: &str = "config.version = \"8\"\n";

    fn create(stage: &Stage, background: bool) -> CreateSnapshot {
        CreateSnapshot {
            config: stage.config.clone(),
            name: "a".into(),
            description: "b".into(),
            quiesce: true,
            memory: true,
            background,
        }
    }

    #[tokio::test]
    async fn snapshots_are_made_listed_and_removed() {
        let stage = Stage::new(VMX);
        stage.script.answer(Ok(vec![FromVmx::SnapshotMade { request: 1, id: 3 }]));
        let reply = create_snapshot(&stage.ctx, create(&stage, false)).await.unwrap();
        assert_eq!((reply.snapshot_id, reply.warnings.len()), (Some(3), 0));
        let made =
            ToVmx::CreateSnapshot { request: 0, name: "a".into(), description: "b".into(), memory: true };
        assert_eq!(stage.script.asked(), [made]);
        let reply = create_snapshot(&stage.ctx, create(&stage, true)).await.unwrap();
        assert_eq!((reply.snapshot_id, reply.task_id), (None, Some(7)));

        let config = || stage.config.clone();
        let revert = RevertToSnapshot { config: config(), snapshot_id: Some(3), background: false };
        let reply = revert_to_snapshot(&stage.ctx, revert.clone()).await.unwrap();
        assert_eq!((reply.power, reply.paused), (Some(PowerState::Off), Some(false)));
        stage.script.answer(Err(Error::unspecified("No snapshot")));
        assert_eq!(told(revert_to_snapshot(&stage.ctx, revert).await).text, "No snapshot");
        let remove = RemoveAllSnapshots { config: config(), background: false };
        assert_eq!(remove_all_snapshots(&stage.ctx, remove).await.unwrap().task_id, None);

        stage.script.run(stage.config.as_str(), State::On);
        stage
            .script
            .machines
            .lock()
            .unwrap()
            .get_mut(stage.config.as_str())
            .unwrap()
            .status
            .tools_last_active = 0;
        stage.script.answer(Ok(vec![FromVmx::SnapshotMade { request: 1, id: 4 }]));
        let reply = create_snapshot(&stage.ctx, create(&stage, false)).await.unwrap();
        assert_eq!(reply.warnings.len(), 1);
        let long = CreateSnapshot { name: "x".repeat(MAX_TEXT + 1), ..create(&stage, false) };
        assert_eq!(told(create_snapshot(&stage.ctx, long).await).code, ErrorCode::InvalidArgs);
        let one =
            control::Snapshot { id: 4, name: "n".into(), description: String::new(), time: 9, memory: true };
        let list = vec![FromVmx::OneSnapshot { request: 1, snapshot: one }, FromVmx::Done { request: 1 }];
        stage.script.answer(Ok(list));
        let reply = has_snapshot(&stage.ctx, HasSnapshot { config: config() }).await.unwrap();
        assert_eq!((reply.has_snapshot, reply.snapshots[0].id, reply.snapshots[0].time), (true, 4, Time(9)));
    }

    #[tokio::test]
    async fn the_list_of_a_machine_that_is_off_is_its_file() {
        let stage = Stage::new(VMX);
        let list =
            async || has_snapshot(&stage.ctx, HasSnapshot { config: stage.config.clone() }).await.unwrap();
        assert!(!list().await.has_snapshot);
        let text = "snapshot.numSnapshots = \"3\"\nsnapshot0.uid = \"1\"\nsnapshot0.displayName = \"first\"\n\
                    snapshot0.createTime = \"5\"\nsnapshot1.uid = \"x\"\nsnapshot2.uid = \"2\"\n\
                    snapshot2.filename = \"a-Snapshot2.vmsn\"\n";
        std::fs::write(Path::new(stage.config.as_str()).with_extension("vmsd"), text).unwrap();
        let snapshots = list().await.snapshots;
        let seen: Vec<_> =
            snapshots.iter().map(|one| (one.id, one.name.as_str(), one.time.0, one.memory)).collect();
        assert_eq!(seen, [(1, "first", 5, false), (2, "", 0, true)]);
        assert!(stage.script.asked().is_empty());
    }
}
