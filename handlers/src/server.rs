//! `VMServerd_GetResource`, `VMServerd_WaitForEvents`, `VMServerd_GetMetrics`: the server as a whole.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use handlers_derive::handler;
use ops::server::{
    Event, GetMetrics, GetMetricsReply, GetResource, GetResourceReply, WaitForEvents, WaitForEventsReply,
};
use ops::task_manager::TaskState;
use ops::value::{ConfigPath, Time};
use ops::{Error, ErrorCode};

use crate::registered::Registered;
use crate::running::{Happened, ServerEvent};
use crate::{Ctx, Failure, User, machine, metrics, watching};

/// A figure of the host, from `/proc`.
#[handler]
fn get_resource(_: &Ctx, req: GetResource) -> Result<GetResourceReply, Failure> {
    let read = |name: &str| {
        let bytes = std::fs::read(name).map_err(|error| Failure::internal("looking at the host", error))?;
        Ok::<_, Failure>(String::from_utf8_lossy(&bytes).into_owned())
    };
    let name = req.name.trim();
    let value = if name.starts_with("system.cpu.") {
        cpu(&read("/proc/stat")?, rustix::param::clock_ticks_per_second(), name)
    } else if name.starts_with("system.mem.") {
        memory(&read("/proc/meminfo")?, name)
    } else {
        None
    };
    match value {
        Some(value) => Ok(GetResourceReply { name: req.name, value: value.to_string() }),
        None => Err(Error::with(ErrorCode::NoProperty, req.name).into()),
    }
}

/// `system.cpu.number`, or the seconds that a processor was idle or in use, from `/proc/stat`, whose
/// times are in `ticks` per second.
fn cpu(stat: &str, ticks: u64, name: &str) -> Option<u64> {
    // "cpu" alone is the sum of all.
    let lines = stat.lines().filter_map(|line| line.strip_prefix("cpu")?.split_once(' '));
    let mut processors = lines.filter(|(number, _)| !number.is_empty());
    if name == "system.cpu.number" {
        return Some(processors.count() as u64);
    }
    let (number, what) = name.strip_prefix("system.cpu.")?.split_once('.')?;
    let (_, times) = processors.find(|(known, _)| *known == number)?;
    // user nice system idle iowait irq softirq steal guest guest_nice; the guests are in user and nice.
    let times: Vec<u64> =
        times.split_ascii_whitespace().take(8).filter_map(|time| time.parse().ok()).collect();
    let idle = times.iter().skip(3).take(2).fold(0_u64, |sum, time| sum.saturating_add(*time));
    let all = times.iter().fold(0_u64, |sum, time| sum.saturating_add(*time));
    match what {
        "idlesec" => Some(idle / ticks.max(1)),
        "usedsec" => Some(all.saturating_sub(idle) / ticks.max(1)),
        _ => None,
    }
}

/// `system.mem.*` in KiB, from `/proc/meminfo`.
fn memory(meminfo: &str, name: &str) -> Option<u64> {
    let line = match name {
        "system.mem.size" => "MemTotal",
        "system.mem.avail" => "MemAvailable",
        "system.mem.active" => "Active",
        _ => return None,
    };
    let (_, value) = meminfo.lines().filter_map(|text| text.split_once(':')).find(|(key, _)| *key == line)?;
    value.trim().trim_end_matches("kB").trim_end().parse().ok()
}

/// Waits until something happens that the caller may know of.
#[handler]
async fn wait_for_events(ctx: &Ctx, req: WaitForEvents) -> Result<WaitForEventsReply, Failure> {
    let end = Instant::now() + Duration::from_secs(req.timeout.into());
    let only = req.configs.map(|configs| configs.into_iter().collect::<HashSet<_>>());
    if let Some(only) = &only {
        watching::watch(ctx, only.iter().cloned().collect()).await;
    }
    let only = Arc::new(only);
    let mut wanted = req.epoch.zip(req.since);
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let batch = tokio::select! {
            batch = ctx.core.wait_for_events(wanted, left, req.max) => batch?,
            never = watching::report(ctx) => match never {},
        };
        let found_any = !batch.events.is_empty();
        let events = visible(ctx, batch.events, Arc::clone(&only)).await?;
        // Events of which the caller may not know are passed over, and the wait goes on.
        if wanted.is_none() || batch.lost || !events.is_empty() || !found_any || end <= Instant::now() {
            let (epoch, next, lost) = (batch.epoch, batch.next, batch.lost);
            return Ok(WaitForEventsReply { epoch, next, lost, events });
        }
        wanted = Some((batch.epoch, batch.next));
    }
}

/// The events that the caller may know of and wants, as replies have them. The core has left out the
/// tasks of others.
async fn visible(
    ctx: &Ctx,
    events: Vec<ServerEvent>,
    only: Arc<Option<HashSet<ConfigPath>>>,
) -> Result<Vec<Event>, Failure> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let registered = ctx.core.registered().await?;
    let user = ctx.user.clone();
    let look = move || {
        let mut known = HashMap::new();
        let mut shown = Vec::new();
        for event in events {
            let config = ConfigPath::try_from(event.config.clone()).ok();
            let wanted = match (&*only, &config) {
                (Some(only), Some(config)) => only.contains(config),
                (Some(_), None) => matches!(event.what, Happened::Stopping {}),
                (None, _) => true,
            };
            if !wanted {
                continue;
            }
            let may = match &config {
                None => event.config.is_empty(),
                Some(config) => {
                    was_his(&user, &event)
                        || *known
                            .entry(event.config.clone())
                            .or_insert_with(|| may_know(&user, &registered, config.as_str()))
                }
            };
            if may {
                shown.push(reply_event(event, config));
            }
        }
        shown
    };
    tokio::task::spawn_blocking(look).await.map_err(|error| Failure::internal("looking at machines", error))
}

/// Whether the caller may know of a machine, which may have been unregistered since. May wait for the
/// file system.
fn may_know(user: &User, registered: &Registered, config: &str) -> bool {
    match registered.get(config) {
        Some(listed) => machine::exists(user, listed),
        // Nobody knows any more whether it was private: only its owner is told.
        None => user.admin || std::fs::metadata(config).is_ok_and(|file| file.uid() == user.uid),
    }
}

/// Whether a machine that was unregistered was the caller's, or he did it: then he is told, though there
/// may be no .vmx any more that he could read.
fn was_his(user: &User, event: &ServerEvent) -> bool {
    match event.what {
        Happened::Unregistered { by, owner, private } => {
            by == user.uid
                || owner == Some(user.uid)
                || (!private && owner.is_some() && machine::readable(&event.config))
        }
        _ => false,
    }
}

fn reply_event(event: ServerEvent, config: Option<ConfigPath>) -> Event {
    let ServerEvent { sequence, time, what, .. } = event;
    let kind = what.type_name().to_owned();
    let mut reply = Event { kind, sequence, time: Time(time), config, ..Event::default() };
    match what {
        Happened::Registered {}
        | Happened::Unregistered { .. }
        | Happened::Snapshot {}
        | Happened::Stopping {} => {}
        Happened::State { from, to } => {
            reply.from = Some(machine::power_state(from));
            reply.to = Some(machine::power_state(to));
        }
        Happened::Paused { paused } => reply.paused = Some(paused),
        Happened::Question { id } => reply.id = Some(id),
        Happened::GuestInfo { key } => reply.key = Some(key),
        Happened::Config { key } => reply.key = key,
        Happened::Device { device, connected } => {
            reply.device = Some(device);
            reply.connected = Some(connected);
        }
        Happened::Task { task, state, percent } => {
            reply.task_id = Some(task);
            reply.state = task_state(&state);
            reply.percent = Some(percent);
        }
    }
    reply
}

/// The state of a task by its word.
fn task_state(word: &str) -> Option<TaskState> {
    use TaskState::{Done, Failed, Queued, Running, Stopped};
    [Queued, Running, Done, Failed, Stopped].into_iter().find(|state| state.word() == word)
}

/// Figures for monitoring.
#[handler]
async fn get_metrics(ctx: &Ctx, req: GetMetrics) -> Result<GetMetricsReply, Failure> {
    let metrics = ctx.core.metrics().await?;
    let machines = if req.per_vm {
        let running = ctx.core.running().await?;
        let registered = ctx.core.registered().await?;
        let user = ctx.user.clone();
        let look = move || {
            let mine = running.iter().filter(|(config, _)| may_know(&user, &registered, config));
            mine.map(|(config, running)| (config.clone(), running.clone())).collect::<BTreeMap<_, _>>()
        };
        let mine = tokio::task::spawn_blocking(look).await;
        Some(mine.map_err(|error| Failure::internal("looking at machines", error))?)
    } else {
        None
    };
    let contents = metrics::render(metrics, machines);
    Ok(GetMetricsReply { format: "openmetrics".to_owned(), contents })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::tests::{Stage, ctx, told};
    use crate::running::EventBatch;
    use hypervisor::control::State;
    use ops::machine::PowerState;

    #[test]
    fn figures_of_the_host() {
        let stat = "cpu  30 0 30 500 20 0 0 0 0 0\ncpu0 100 20 300 4000 1000 1 2 3 50 0\ncpu10 1 1 1 900 1 1 1 1\nintr 5\n";
        for (name, value) in [
            ("system.cpu.number", Some(2)),
            ("system.cpu.0.idlesec", Some(50)),
            ("system.cpu.0.usedsec", Some(4)),
            ("system.cpu.10.idlesec", Some(9)),
            ("system.cpu.1.idlesec", None),
            ("system.cpu..idlesec", None),
            ("system.cpu.0.temperature", None),
            ("system.cpu.0", None),
        ] {
            assert_eq!(cpu(stat, 100, name), value, "{name}");
        }
        let meminfo = "MemTotal:  2000 kB\nMemAvailable: 1500 kB\nActive(anon): 9 kB\nActive:  700 kB\n";
        for (name, value) in
            [("size", Some(2000)), ("avail", Some(1500)), ("active", Some(700)), ("free", None)]
        {
            assert_eq!(memory(meminfo, &format!("system.mem.{name}")), value, "{name}");
        }
        let get = |name: &str| get_resource(&ctx(), GetResource { name: name.into() });
        let count: usize = get("system.cpu.number").unwrap().value.parse().unwrap();
        assert!(count >= std::thread::available_parallelism().unwrap().get());
        assert!(get("system.mem.size").unwrap().value.parse::<u64>().unwrap() > 0);
        assert_eq!(told(get("system.disk.size")).text, "No such property: system.disk.size");
    }

    fn event(sequence: u64, config: &str, what: Happened) -> ServerEvent {
        ServerEvent { sequence, time: 5, config: config.into(), what }
    }

    #[tokio::test]
    async fn only_events_that_the_caller_may_see_end_the_wait() {
        let stage = Stage::new("config.version = \"8\"\n");
        let config = stage.config.as_str();
        let wait = |since, configs| WaitForEvents { epoch: Some(1), since, timeout: 60, max: 10, configs };
        let batch = |next, events| EventBatch { epoch: 1, next, lost: false, events };
        let push = |batch| stage.script.batches.lock().unwrap().push_back(batch);

        push(batch(9, Vec::new()));
        let now = wait_for_events(&stage.ctx, wait(None, None)).await.unwrap();
        assert_eq!((now.epoch, now.next, now.events.len()), (1, 9, 0));

        let changed = Happened::State { from: State::Off, to: State::On };
        push(batch(10, vec![event(9, "/somebody/else.vmx", changed.clone())]));
        push(batch(12, vec![event(10, config, changed.clone()), event(11, "", Happened::Stopping {})]));
        let reply = wait_for_events(&stage.ctx, wait(Some(9), None)).await.unwrap();
        assert_eq!((reply.next, reply.lost), (12, false));
        let first = &reply.events[0];
        assert_eq!(
            (first.kind.as_str(), first.from, first.to),
            ("vm.state", Some(PowerState::Off), Some(PowerState::On))
        );
        assert_eq!(
            (reply.events[1].kind.as_str(), reply.events[1].config.as_ref()),
            ("server.stopping", None)
        );
        assert_eq!(*stage.script.wanted.lock().unwrap(), [None, Some((1, 9)), Some((1, 10))]);

        // Others than the machine that was asked for are passed over too; a time-out ends it.
        let task = Happened::Task { task: 3, state: "done".into(), percent: 100 };
        push(batch(13, vec![event(12, "", task.clone())]));
        push(batch(13, Vec::new()));
        let reply =
            wait_for_events(&stage.ctx, wait(Some(12), Some(vec![stage.config.clone()]))).await.unwrap();
        assert_eq!((reply.next, reply.events.len()), (13, 0));
        push(EventBatch { lost: true, ..batch(14, vec![event(13, "", task)]) });
        let reply = wait_for_events(&stage.ctx, wait(Some(0), None)).await.unwrap();
        let task = &reply.events[0];
        assert_eq!(
            (reply.lost, task.task_id, task.state, task.percent),
            (true, Some(3), Some(TaskState::Done), Some(100))
        );
    }

    #[tokio::test]
    async fn figures_are_open_metrics() {
        let stage = Stage::new("config.version = \"8\"\n");
        stage.script.run(stage.config.as_str(), State::On);
        stage.script.run("/somebody/else.vmx", State::On);
        let text = get_metrics(&stage.ctx, GetMetrics { per_vm: true }).await.unwrap().contents;
        assert!(text.starts_with("# HELP vmserverd_requests ") && text.ends_with("\n# EOF\n"), "{text}");
        for line in [
            "vmserverd_requests_total{op=\"CreateCOWDisk\",result=\"ok\"} 3",
            "vmserverd_requests_total{op=\"CreateCOWDisk\",result=\"failed\"} 1",
            "vmserverd_requests_total{op=\"none\",result=\"failed\"} 4",
            "vmserverd_request_duration_seconds_bucket{le=\"0.00001\",op=\"CreateCOWDisk\"} 2",
            "vmserverd_request_duration_seconds_bucket{le=\"0.00003\",op=\"CreateCOWDisk\"} 3",
            "vmserverd_request_duration_seconds_bucket{le=\"1.0\",op=\"CreateCOWDisk\"} 4",
            "vmserverd_request_duration_seconds_bucket{le=\"+Inf\",op=\"CreateCOWDisk\"} 4",
            "vmserverd_request_duration_seconds_sum{op=\"CreateCOWDisk\"} 3.0",
            "vmserverd_request_duration_seconds_count{op=\"CreateCOWDisk\"} 4",
        ] {
            assert!(text.contains(&format!("{line}\n")), "{line} in\n{text}");
        }
        assert!(text.contains("vmserverd_tasks{state=\"running\"} 0\n"), "{text}");
        let line = format!("vmserverd_machine_uptime_seconds{{config=\"{}\"}} 12\n", stage.config);
        assert!(text.contains(&line) && !text.contains("else.vmx"), "{text}");
        let general = get_metrics(&stage.ctx, GetMetrics { per_vm: false }).await.unwrap().contents;
        assert!(!general.contains("config="), "{general}");
    }
}
