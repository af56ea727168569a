//! Figures of the server as OpenMetrics text: one place for the operation and for the endpoint.
//!
//! ```text
//!   core ──Metrics──▶ session process ─▶ VMServerd_GetMetrics ─┐
//!   pages ─────────▶ metrics process ──▶ GET /metrics ─────────┴─▶ text
//! ```
//!
//! Nothing here names a user. Numbers of requests were written by session processes, each of which can
//! only lie about its own user's requests; none can do more than be wrong: every number is clamped before
//! it is added.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::time::{SystemTime, UNIX_EPOCH};

use link::figures::{PAM_LIMITS_MS, Tries};
use ops::machine::PowerState;
use ops::task_manager::TaskState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use crate::running::{LIMITS_US, Metrics, OpFigures, Running, ServerState};

/// What the text is, for an HTTP reply.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Largest number that is shown: more than can be counted, and no sum of them overflows.
const MOST: u64 = 1 << 50;

/// The labels of one line.
type Labels<'a> = &'a [(&'static str, &'a str)];

/// The whole text, with the figures of these machines where any are given.
#[must_use]
pub fn render(metrics: Metrics, machines: Option<BTreeMap<String, Running>>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { metrics, machines: machines.unwrap_or_default() }));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, &registry);
    text
}

/// What is told at one moment.
#[derive(Debug)]
struct Scrape {
    metrics: Metrics,
    machines: BTreeMap<String, Running>,
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut out = Out(encoder);
        let Metrics { state, resident, ops, logins, front } = &self.metrics;
        requests(ops, &mut out)?;
        sessions_and_tasks(state, &mut out)?;
        machine_states(state, &mut out)?;
        core(state, resident, &mut out)?;
        if let Some(logins) = logins {
            gateway_logins(logins, &mut out)?;
        }
        if let Some(front) = front {
            connections(front, &mut out)?;
        }
        machines(&self.machines, &mut out)
    }
}

/// Families of figures, one after the other.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    /// A family of numbers that go up and down.
    fn gauges(
        &mut self,
        name: &str,
        unit: Option<&Unit>,
        help: &str,
        lines: &[(Labels<'_>, u64)],
    ) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for (labels, value) in lines {
            one(&mut family, labels, |line| line.encode_gauge(&(*value).min(MOST)))?;
        }
        Ok(())
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.gauges(name, None, help, &[(&[], value)])
    }

    /// A family of numbers that only grow.
    fn counters(&mut self, name: &str, help: &str, lines: &[(Labels<'_>, u64)]) -> Result<(), Error> {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, value) in lines {
            one(&mut family, labels, |line| {
                line.encode_counter::<NoLabelSet, _, u64>(&(*value).min(MOST), None)
            })?;
        }
        Ok(())
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) -> Result<(), Error> {
        self.counters(name, help, &[(&[], value)])
    }
}

fn one(
    family: &mut MetricEncoder<'_>,
    labels: Labels<'_>,
    write: impl FnOnce(&mut MetricEncoder<'_>) -> Result<(), Error>,
) -> Result<(), Error> {
    if labels.is_empty() { write(family) } else { write(&mut family.encode_family(&labels)?) }
}

/// A distribution of times: the counts of buckets with these upper limits in seconds, and one beyond.
fn histogram(line: &mut MetricEncoder<'_>, limits: &[f64], counts: &[u64], micros: u64) -> Result<(), Error> {
    let limits = limits.iter().copied().chain([f64::INFINITY]);
    let buckets: Vec<(f64, u64)> = limits
        .zip(counts.iter().copied().chain(std::iter::repeat(0)))
        .map(|(le, n)| (le, n.min(MOST)))
        .collect();
    let count = buckets.iter().map(|(_, count)| count).sum();
    line.encode_histogram::<NoLabelSet>(seconds(micros), count, &buckets, None)
}

#[allow(clippy::cast_precision_loss, reason = "a sum of times, of which nobody reads the last digits")]
fn seconds(micros: u64) -> f64 {
    micros.min(MOST) as f64 / 1e6
}

/// Requests by operation and result, and how long they took.
fn requests(figures: &[OpFigures], out: &mut Out<'_>) -> Result<(), Error> {
    let name =
        |op: u32| usize::try_from(op).ok().and_then(|op| ops::TABLE.get(op)).map_or("none", |row| row.name);
    let help = "Requests answered since start, by operation and result; none is no operation of this server.";
    let labels: Vec<_> = figures
        .iter()
        .map(|figure| [("op", name(figure.op)), ("result", if figure.failed { "failed" } else { "ok" })])
        .collect();
    let lines: Vec<(Labels<'_>, u64)> =
        labels.iter().zip(figures).map(|(labels, figure)| (&labels[..], sum(&figure.buckets))).collect();
    out.counters("vmserverd_requests", help, &lines)?;
    let help = "Time from reading a request to its whole reply, by operation.";
    let unit = Unit::Seconds;
    let mut family =
        out.0.encode_descriptor("vmserverd_request_duration", help, Some(&unit), MetricType::Histogram)?;
    let limits = LIMITS_US.map(seconds);
    // Both results of an operation are neighbours.
    for both in figures.chunk_by(|one, next| one.op == next.op) {
        let op = both.first().map_or("none", |figure| name(figure.op));
        let (mut counts, mut micros) = (vec![0_u64; LIMITS_US.len() + 1], 0_u64);
        for figure in both {
            counts.iter_mut().zip(&figure.buckets).for_each(|(sum, more)| *sum += (*more).min(MOST));
            micros = micros.saturating_add(figure.micros);
        }
        one(&mut family, &[("op", op)], |line| histogram(line, &limits, &counts, micros))?;
    }
    Ok(())
}

/// The sum of numbers, of which a hostile process may have written some.
fn sum(numbers: &[u64]) -> u64 {
    numbers.iter().map(|number| (*number).min(MOST)).sum()
}

fn sessions_and_tasks(state: &ServerState, out: &mut Out<'_>) -> Result<(), Error> {
    out.gauge("vmserverd_sessions", "Open sessions.", state.sessions)?;
    out.gauge("vmserverd_session_processes", "Processes that serve sessions.", state.session_processes)?;
    out.counters(
        "vmserverd_sessions_begun",
        "Sessions that the server took or refused, since start.",
        &[(&[("result", "ok")], state.sessions_begun), (&[("result", "refused")], state.sessions_refused)],
    )?;
    out.gauges(
        "vmserverd_tasks",
        None,
        "Tasks that are not forgotten, by state.",
        &[
            (&[("state", TaskState::Running.word())], state.tasks_running),
            (&[("state", TaskState::Done.word())], state.tasks_done),
            (&[("state", TaskState::Failed.word())], state.tasks_failed),
            (&[("state", TaskState::Stopped.word())], state.tasks_stopped),
        ],
    )
}

fn machine_states(state: &ServerState, out: &mut Out<'_>) -> Result<(), Error> {
    let up = [state.on, state.paused, state.stuck, state.unknown];
    let off = state.registered.saturating_sub(sum(&up));
    out.gauge("vmserverd_machines_registered", "Registered machines.", state.registered)?;
    let help = "Registered machines by state; those that are suspended to a file are off here.";
    out.gauges(
        "vmserverd_machines",
        None,
        help,
        &[
            (&[("state", PowerState::On.word())], state.on),
            (&[("state", "paused")], state.paused),
            (&[("state", PowerState::Stuck.word())], state.stuck),
            (&[("state", PowerState::Unknown.word())], state.unknown),
            (&[("state", PowerState::Off.word())], off),
        ],
    )?;
    out.counter(
        "vmserverd_machine_starts",
        "Machines powered on or resumed, since start.",
        state.machine_starts,
    )?;
    out.counter("vmserverd_machine_crashes", "Machines whose process ended by itself.", state.machine_crashes)
}

/// The server as a program.
fn core(state: &ServerState, resident: &[(String, u64)], out: &mut Out<'_>) -> Result<(), Error> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let second = Some(&Unit::Seconds);
    let help =
        "What waits in the core: events not taken up, rights not looked at yet, writes not on the disk.";
    out.gauges(
        "vmserverd_queue_depth",
        None,
        help,
        &[
            (&[("queue", "events")], state.waiting_events),
            (&[("queue", "proofs")], state.waiting_proofs),
            (&[("queue", "writes")], state.waiting_writes),
        ],
    )?;
    out.gauge("vmserverd_gateway_connected", "1 while vmware-authd is connected.", state.linked.into())?;
    out.counters(
        "vmserverd_audit_records",
        "Records of the core's audit by what became of them.",
        &[
            (&[("result", "written")], state.audit_written),
            (&[("result", "suppressed")], state.audit_suppressed),
            (&[("result", "lost")], state.audit_lost),
        ],
    )?;
    out.gauges(
        "vmserverd_start_time",
        second,
        "When the core was started, Unix time.",
        &[(&[], state.started)],
    )?;
    let uptime = now.saturating_sub(state.started);
    out.gauges("vmserverd_uptime", second, "Time since the core was started.", &[(&[], uptime)])?;
    let help = "When the core published what it alone knows, Unix time: every 10 s if nothing changes.";
    out.gauges("vmserverd_state_time", second, help, &[(&[], state.published)])?;
    let labels: Vec<_> = resident.iter().map(|(name, _)| [("process", name.as_str())]).collect();
    let lines: Vec<(Labels<'_>, u64)> =
        labels.iter().zip(resident).map(|(labels, (_, bytes))| (&labels[..], *bytes)).collect();
    out.gauges("vmserverd_resident_memory", Some(&Unit::Bytes), "Resident memory of processes.", &lines)
}

fn gateway_logins(logins: &link::figures::Logins, out: &mut Out<'_>) -> Result<(), Error> {
    let ways: [(&str, &Tries); 3] =
        [("pass", &logins.pass), ("local_unix", &logins.unix), ("local_tcp", &logins.tcp)];
    let labels: Vec<_> = ways
        .iter()
        .flat_map(|(way, tries)| {
            [("ok", tries.ok), ("refused", tries.refused), ("failed", tries.failed)]
                .map(|(result, count)| ([("way", *way), ("result", result)], count))
        })
        .collect();
    let lines: Vec<(Labels<'_>, u64)> = labels.iter().map(|(labels, count)| (&labels[..], *count)).collect();
    out.counters("vmware_authd_logins", "Tries to log in by way and result.", &lines)?;
    let help =
        "Time from the arrival of a password to the answer of PAM, waiting for a free process included.";
    let unit = Unit::Seconds;
    let mut family =
        out.0.encode_descriptor("vmware_authd_pam_duration", help, Some(&unit), MetricType::Histogram)?;
    let limits = PAM_LIMITS_MS.map(|limit| seconds(limit * 1000));
    one(&mut family, &[], |line| histogram(line, &limits, &logins.pam, logins.pam_micros))?;
    out.gauge(
        "vmware_authd_password_checks",
        "Passwords that are being checked, or wait for that.",
        logins.checking,
    )?;
    out.counter("vmware_authd_sessions_handed_over", "Sessions handed to the server.", logins.handed_over)
}

fn connections(front: &link::figures::Front, out: &mut Out<'_>) -> Result<(), Error> {
    out.counters(
        "vmware_authd_connections",
        "Connections accepted, by channel.",
        &[
            (&[("channel", "tls")], front.accepted_tls),
            (&[("channel", "plain")], front.accepted_plain),
            (&[("channel", "unix")], front.accepted_unix),
        ],
    )?;
    out.counter("vmware_authd_connections_turned_away", "Connections refused: too many.", front.turned_away)?;
    out.gauge("vmware_authd_connections_waiting", "Connections that have no session.", front.waiting)?;
    out.gauge("vmware_authd_tls_relays", "TLS sessions that are relayed.", front.relays)
}

/// The figures of a machine, each a family with one line per machine.
type Figure = (&'static str, Option<Unit>, &'static str, fn(&Running) -> u64);

fn machines(machines: &BTreeMap<String, Running>, out: &mut Out<'_>) -> Result<(), Error> {
    if machines.is_empty() {
        return Ok(());
    }
    let figures: [Figure; 4] = [
        (
            "vmserverd_machine_cpu_percent",
            None,
            "Share of one processor of the host, in percent.",
            |machine| machine.cpu_percent.into(),
        ),
        ("vmserverd_machine_memory_mebibytes", None, "Memory of the machine.", |machine| {
            machine.status.memory_mb.into()
        }),
        ("vmserverd_machine_uptime", Some(Unit::Seconds), "Time since power on.", |machine| {
            machine.status.uptime
        }),
        (
            "vmserverd_machine_remote_connections",
            None,
            "Sessions that came through the gateway by CONNECT.",
            |machine| machine.remote_connections.into(),
        ),
    ];
    for (name, unit, help, figure) in figures {
        let labels: Vec<_> = machines.keys().map(|config| [("config", config.as_str())]).collect();
        let lines: Vec<(Labels<'_>, u64)> = labels
            .iter()
            .zip(machines.values())
            .map(|(labels, machine)| (&labels[..], figure(machine)))
            .collect();
        out.gauges(name, unit.as_ref(), help, &lines)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::running::BUCKETS;

    #[test]
    fn a_hostile_number_is_only_wrong() {
        let ops = [false, true].map(|failed| OpFigures {
            op: 1,
            failed,
            buckets: vec![u64::MAX; BUCKETS],
            micros: u64::MAX,
        });
        let text = render(Metrics { ops: ops.to_vec(), ..Metrics::default() }, None);
        let name = ops::TABLE[1].name;
        let total = MOST * BUCKETS as u64;
        assert!(
            text.contains(&format!(
                "vmserverd_requests_total{{op=\"{name}\",result=\"ok\"}} {}\n",
                total.min(MOST)
            )),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn a_path_stays_inside_its_label() {
        let mut machines = BTreeMap::new();
        let running = Running {
            config: String::new(),
            id: 1,
            pid: 1,
            started: 0,
            cpu_percent: 7,
            remote_connections: 0,
            ip: None,
            status: crate::context::tests::status(hypervisor::control::State::On),
        };
        machines.insert("/a\"b\\c\nd.vmx".to_owned(), running);
        let text = render(Metrics::default(), Some(machines));
        assert!(
            text.contains("vmserverd_machine_cpu_percent{config=\"/a\\\"b\\\\c\\nd.vmx\"} 7\n"),
            "{text}"
        );
    }

    #[test]
    fn what_the_gateway_has_not_published_is_absent() {
        let text = render(Metrics::default(), None);
        assert!(!text.contains("vmware_authd"), "{text}");
        let metrics = Metrics { logins: Some(link::figures::Logins::default()), ..Metrics::default() };
        let text = render(metrics, None);
        assert!(text.contains("# TYPE vmware_authd_pam_duration_seconds histogram\n"), "{text}");
        assert!(text.contains("vmware_authd_pam_duration_seconds_bucket{le=\"+Inf\"} 0\n"), "{text}");
        assert!(text.contains("# UNIT vmware_authd_pam_duration_seconds seconds\n"), "{text}");
    }
}
