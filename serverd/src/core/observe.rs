//! What the core publishes about itself, and the process that tells it.
//!
//! ```text
//!   after an event, at most every 20 ms, and every 10 s:  state ─▶ page
//!   session process starts or ends, gateway connects:     descriptor ─▶ metrics process
//! ```
//!
//! Publishing is one write to memory, whether or not anybody reads. A metrics process that ends is
//! started again, later each time.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use ::link::channel::Outbox;
use ::link::{Channel, Layout, Settings, page};
use handlers::running::{Metrics, ServerState};
use hypervisor::control::State;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use super::Event;
use super::counter::Counter;
use super::processes::ProcessId;
use super::supervisor::Supervisor;
use super::tasks::unix_now;
use crate::metrics::{FromMetrics, ToMetrics};

/// How soon after an event the state is published; more events until then share it.
pub const SOON: Duration = Duration::from_millis(20);

/// How often it is published when nothing happens, so that everybody sees that the core lives.
pub const HEARTBEAT: Duration = Duration::from_secs(10);

/// Messages that may wait for the metrics process: one per session process, and a few.
const WAITING: usize = 64 * 1024;

/// Pause before a metrics process that ended is started again: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Where figures are to be read, and by whom told.
#[derive(Debug, Clone)]
struct Orders {
    socket: String,
    address: String,
    user: (u32, u32),
}

/// What the core publishes, and counts for that.
#[derive(Debug, Default)]
pub struct Observe {
    orders: Option<Orders>,
    page: Option<page::Page>,
    outbox: Option<Outbox<ToMetrics>>,
    pause: Duration,
    gateway: Option<[OwnedFd; 2]>,
    linked: bool,
    started: u64,
    waiting_events: u64,
    /// Sessions taken since start.
    pub sessions_begun: u64,
    /// Sessions refused since start.
    pub sessions_refused: u64,
    /// Machines powered on or resumed since start.
    pub machine_starts: u64,
    /// Machines whose process ended by itself.
    pub machine_crashes: u64,
}

/// What happened to the metrics process.
#[derive(Debug)]
pub enum MetricsEvent {
    /// It has said something.
    Said(FromMetrics),
    /// It has ended.
    Ended,
    /// Time to start it again.
    Start,
}

fn now() -> u64 {
    u64::try_from(unix_now()).unwrap_or_default()
}

impl Observe {
    /// Publishes, and tells figures where the settings say, if anywhere.
    ///
    /// # Errors
    /// When there is no memory for the page, or a setting is wrong.
    pub fn new(layout: &Layout, settings: &Settings) -> io::Result<Self> {
        let metrics = &settings.metrics;
        let path = Settings::path_or(&metrics.socket, layout.metrics_socket());
        let socket = if metrics.unix { path.to_string_lossy().into_owned() } else { String::new() };
        let address = metrics.address().map_err(io::Error::other)?;
        let address = address.map_or_else(String::new, |address| address.to_string());
        let anywhere = !socket.is_empty() || !address.is_empty();
        let orders = anywhere.then(|| Orders { socket, address, user: layout.service_user() });
        let page = Some(page::Page::new("vmserverd-state")?);
        Ok(Observe { orders, page, pause: PAUSE.0, started: now(), ..Observe::default() })
    }

    /// A session process was started.
    pub fn process(&self, id: ProcessId, counter: &Counter) {
        if let Some(outbox) = &self.outbox
            && let Ok(page) = counter.reader()
        {
            // A process that takes no messages has ended, which is another event.
            let _ = outbox.push(ToMetrics::Process { id }, vec![page]);
        }
    }

    /// A session process has ended.
    pub fn ended(&self, id: ProcessId) {
        if let Some(outbox) = &self.outbox {
            let _ = outbox.push(ToMetrics::Ended { id }, Vec::new());
        }
    }

    /// The gateway is connected, and these are its pages.
    pub fn gateway(&mut self, pages: Vec<OwnedFd>) {
        self.gateway = <[OwnedFd; 2]>::try_from(pages).ok();
        self.tell_gateway();
    }

    fn tell_gateway(&self) {
        if let (Some(outbox), Some([logins, front])) = (&self.outbox, &self.gateway)
            && let (Ok(logins), Ok(front)) = (logins.try_clone(), front.try_clone())
        {
            let _ = outbox.push(ToMetrics::Gateway {}, vec![logins, front]);
        }
    }

    /// The link to the gateway stands, or does not.
    pub fn linked(&mut self, linked: bool) {
        self.linked = linked;
    }

    /// Removes the socket, so that whoever comes now sees that nobody is there.
    pub fn stop(&self) {
        if let Some(orders) = &self.orders
            && !orders.socket.is_empty()
        {
            // What is no socket was there before, and is not ours.
            let _ = crate::metrics::remove_socket(std::path::Path::new(&orders.socket));
        }
    }
}

impl Supervisor {
    /// Starts the metrics process, if there is to be one.
    pub fn start_metrics(&mut self) {
        let Some(orders) = self.observe.orders.clone() else { return };
        self.publish(0);
        if let Err(error) = self.try_start_metrics(orders) {
            tracing::error!("the metrics process cannot be started: {error}");
            self.start_metrics_later();
        }
    }

    fn try_start_metrics(&mut self, orders: Orders) -> io::Result<()> {
        let Orders { socket, address, user: (uid, gid) } = orders;
        let Some(page) = &self.observe.page else { return Ok(()) };
        let pages = vec![page.reader()?, self.tally().snapshot()?];
        let outbox = spawn(&self.events)?;
        let start = ToMetrics::Start { socket, address, uid, gid, core: std::process::id() };
        outbox.push(start, pages).map_err(io::Error::other)?;
        self.observe.outbox = Some(outbox);
        for (id, counter) in self.counters() {
            self.observe.process(id, counter);
        }
        self.observe.tell_gateway();
        Ok(())
    }

    fn start_metrics_later(&mut self) {
        self.observe.outbox = None;
        let (events, pause) = (self.events.clone(), self.observe.pause);
        self.observe.pause = (pause * 2).min(PAUSE.1);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = events.send(Event::Metrics(MetricsEvent::Start)).await;
        });
    }

    /// Takes in what happened to the metrics process.
    pub fn metrics_event(&mut self, event: MetricsEvent) {
        match event {
            MetricsEvent::Said(FromMetrics::Ready { places }) => {
                self.observe.pause = PAUSE.0;
                tracing::info!("figures can be read at {places}");
            }
            MetricsEvent::Said(FromMetrics::Failed { why }) => {
                tracing::error!("figures cannot be read: {}", crate::log::cut(&why));
            }
            MetricsEvent::Ended if self.stopping => self.observe.outbox = None,
            MetricsEvent::Ended => {
                tracing::warn!("the metrics process ended and is started again");
                self.start_metrics_later();
            }
            MetricsEvent::Start if self.stopping => {}
            MetricsEvent::Start => self.start_metrics(),
        }
    }

    /// Publishes the state; so many events wait.
    pub fn publish(&mut self, waiting_events: u64) {
        self.observe.waiting_events = waiting_events;
        let state = self.state();
        if let Some(page) = &mut self.observe.page {
            page.publish(&state);
        }
    }

    /// What the core alone knows, in numbers.
    fn state(&self) -> ServerState {
        let observe = &self.observe;
        let audit = self.audit.counts();
        let mut state = ServerState {
            started: observe.started,
            published: now(),
            sessions_begun: observe.sessions_begun,
            sessions_refused: observe.sessions_refused,
            registered: self.shared.inventory.len() as u64,
            machine_starts: observe.machine_starts,
            machine_crashes: observe.machine_crashes,
            waiting_events: observe.waiting_events,
            waiting_proofs: self.waiting_proofs(),
            waiting_writes: self.under_way.waiting_writes(),
            linked: observe.linked,
            audit_written: audit.written,
            audit_suppressed: audit.suppressed,
            audit_lost: audit.lost,
            ..ServerState::default()
        };
        (state.session_processes, state.sessions) = self.session_counts();
        [state.tasks_running, state.tasks_done, state.tasks_failed, state.tasks_stopped] =
            self.shared.tasks.counts();
        for (now, paused) in self.machines.states() {
            *match now {
                State::On if paused => &mut state.paused,
                State::On => &mut state.on,
                State::Stuck => &mut state.stuck,
                State::Unknown => &mut state.unknown,
                State::Off | State::Suspended => continue,
            } += 1;
        }
        state
    }

    /// All figures, for `VMServerd_GetMetrics`.
    pub(super) fn metrics(&self) -> Metrics {
        let statm = std::fs::File::open("/proc/self/statm").ok();
        let resident =
            statm.and_then(|file| crate::metrics::resident(&file, rustix::param::page_size() as u64));
        let (logins, front) = match &self.observe.gateway {
            Some([logins, front]) => (page::read(logins.as_fd()), page::read(front.as_fd())),
            None => (None, None),
        };
        Metrics {
            state: self.state(),
            resident: resident.map(|bytes| ("core".to_owned(), bytes)).into_iter().collect(),
            ops: crate::figures::read(&self.figures()),
            logins,
            front,
        }
    }
}

/// Starts the process, and the tasks that watch it.
fn spawn(events: &mpsc::Sender<Event>) -> io::Result<Outbox<ToMetrics>> {
    let (ours, theirs) = ::link::channel::pair()?;
    let channel = Arc::new(Channel::<ToMetrics, FromMetrics>::from_fd(ours)?);
    let child = Command::new("/proc/self/exe")
        .arg0("vmserverd")
        .arg("metrics")
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let outbox = Outbox::new(WAITING);
    tokio::spawn(outbox.clone().run(Arc::clone(&channel)));
    tokio::spawn(watch(child, channel, events.clone()));
    Ok(outbox)
}

/// Passes on what the process says, until it has ended.
async fn watch(mut child: Child, channel: Arc<Channel<ToMetrics, FromMetrics>>, events: mpsc::Sender<Event>) {
    // A broken message ends it like its end does.
    while let Ok(Some((message, _))) = channel.recv().await {
        if events.send(Event::Metrics(MetricsEvent::Said(message))).await.is_err() {
            break;
        }
    }
    let _ = child.start_kill();
    let _ = child.wait().await;
    let _ = events.send(Event::Metrics(MetricsEvent::Ended)).await;
}
