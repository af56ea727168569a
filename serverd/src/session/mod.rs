//! The session process: one per user, with the user's rights, serving all of the user's sessions.
//!
//! ```text
//!   core ── Start ──▶ become_user ──▶ one thread:  channel ─ connections ─ connections ...
//!        ── Session + socket ───────────────────▶  a task each
//!                                                   │ requests that wait for the disk
//!                                                   ▼
//!                                                  blocking pool: threads, the same user
//! ```
//!
//! * [`become_user`] gives up everything that the caller does not have.
//! * [`connection`] is one session; [`socket`] its socket; [`server`] carries out a request.
//! * [`core_link`] asks the core; [`inventory`] is its copy of the list of machines.
//! * [`audit`] tells the core what was done.
//! * [`tasks`] runs what outlives its request.
//!
//! The process ends when the core says so, when the core is gone, or on SIGTERM: each connection then
//! finishes the request it works on, and what a client sent ahead is dropped. After an idle time
//! without sessions it offers the core to leave.

pub mod audit;
pub mod become_user;
pub mod connection;
pub mod core_link;
pub mod inventory;
pub mod server;
pub mod socket;
pub mod tasks;

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use handlers::tasks::Partial;
use handlers::{Caller, Ctx, User};
use link::settings::AuditLevel;
use link::{Channel, Layout, Outbox};
use ops::Product;
use rustix::net::{AddressFamily, SocketType, sockopt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use self::audit::Audit;
use self::core_link::CoreLink;
use self::server::Server;
use crate::channel::{ToCore, ToSession};
use crate::figures::Figures;

/// Threads for requests that wait for the file system. More wait their turn.
const BLOCKING_THREADS: usize = 32;

/// Stack of such a thread, in bytes.
const BLOCKING_STACK: usize = 512 * 1024;

/// How long a caller who has just come may take to ask something when the process is to end: he was told that he
/// is connected.
const FRESH: Duration = Duration::from_secs(1);

/// How long requests in flight may take when the process is to end. The core waits about as long.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// Questions that may wait for the core, which normally reads at once: more than there can be
/// connections.
const WAITING_QUESTIONS: usize = 1024 * 1024;

/// An offer to leave is repeated after this, or after the idle time where that is longer.
const OFFER_AGAIN: Duration = Duration::from_secs(60);

/// Log lines that may wait for the core; more are lost.
const WAITING_LINES: usize = 256;

/// Numbers of ended sessions in one message.
const CLOSED_PER_MESSAGE: usize = 4096;

/// Turns given to connections that were just about to start on a request when the end came.
const LAST_TURNS: usize = 3;

/// Runs a session process; its channel to the core is standard input.
///
/// # Errors
/// When it was not started by the core, or cannot become the user.
pub fn main() -> Result<(), Box<dyn Error>> {
    crate::sys::close_from(3)?;
    let channel = take_channel()?;
    rustix::thread::set_name(c"vmserverd")?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_stack_size(BLOCKING_STACK)
        .build_local(tokio::runtime::LocalOptions::default())?;
    let result = link::reactor::run(&runtime, run(channel));
    // Idle connections are closed by the end of the process; requests that are stuck in the file
    // system end with it.
    runtime.shutdown_background();
    result
}

/// Standard input as the channel to the core; `/dev/null` takes its place.
pub(crate) fn take_channel() -> Result<OwnedFd, Box<dyn Error>> {
    let stdin = io::stdin();
    let wrong = "this command is started by vmserverd itself";
    let kind = sockopt::socket_type(&stdin).map_err(|_| wrong)?;
    if kind != SocketType::SEQPACKET || sockopt::socket_domain(&stdin)? != AddressFamily::UNIX {
        return Err(wrong.into());
    }
    let channel = stdin.as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(channel)
}

async fn run(channel: OwnedFd) -> Result<(), Box<dyn Error>> {
    let channel = Arc::new(Channel::<ToCore, ToSession>::from_fd(channel)?);
    let Some((
        ToSession::Start {
            uid,
            gid,
            groups,
            admin,
            title,
            version,
            build,
            product_number,
            idle,
            historic_bugs,
            level,
            root,
            event_logs,
            audit,
        },
        fds,
    )) = channel.recv().await?
    else {
        return Err("the core did not say whom to serve".into());
    };
    if let Err(error) = become_user::become_user(uid, gid, &groups) {
        let text = format!("cannot become uid {uid}: {error}");
        channel.send(&ToCore::Log { level: 0, text: text.clone() }, &[]).await?;
        return Err(text.into());
    }
    let [page, news] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| "the core sent no pages")?;
    let figures = Figures::new(crate::sys::map_counter(&page, crate::figures::WORDS)?);
    let news = crate::sys::map_published(&news)?;

    // Two queues for one channel: a flood of log lines must not keep a question from being asked.
    let outbox = Outbox::new(WAITING_QUESTIONS);
    tokio::task::spawn_local(outbox.clone().run(Arc::clone(&channel)));
    let log = Outbox::new(WAITING_LINES);
    tokio::task::spawn_local(log.clone().run(Arc::clone(&channel)));
    crate::log::install(crate::log::level_of(level), move |level, text| {
        let text = crate::log::cut(text).to_owned();
        // A full queue means that there are more lines than anybody will read.
        let _ = log.push(ToCore::Log { level: crate::log::level_number(level), text }, Vec::new());
    });
    std::panic::set_hook(Box::new(|info| tracing::error!("{info}")));

    let core = Arc::new(CoreLink::new(outbox, news));
    let audit = Audit::new(AuditLevel::from_number(audit), Arc::clone(&core));
    let mut session = Session {
        server: Server::new(handlers::link()?, figures, audit),
        core,
        callers: HashMap::new(),
        product: Product::new("GSX", &title, &version, &build),
        product_number,
        historic_bugs,
        layout: Layout::new(Some(Path::new(&root)))?,
        event_logs: event_logs.into(),
        user: User { name: String::new(), uid, gid, groups, home: String::new(), admin },
        received: 0,
        fresh: Instant::now(),
    };
    session.serve(&channel, Duration::from_secs(u64::from(idle))).await
}

/// The state of the process besides its connections.
struct Session {
    server: Rc<Server>,
    core: Arc<CoreLink>,
    /// Callers by login name: several names may share one uid.
    callers: HashMap<String, Arc<Caller>>,
    product: Product,
    product_number: u32,
    historic_bugs: bool,
    layout: Layout,
    event_logs: PathBuf,
    /// Template of the users among the callers.
    user: User,
    /// Sessions ever received.
    received: u64,
    /// Until then the latest of them is new.
    fresh: Instant,
}

impl Session {
    /// Serves until there is a reason to end, then until the requests in flight are answered.
    async fn serve(
        &mut self,
        channel: &Channel<ToCore, ToSession>,
        idle: Duration,
    ) -> Result<(), Box<dyn Error>> {
        let server = Rc::clone(&self.server);
        let tasks = self.core.tasks();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut connected = true;
        let mut deadline: Option<Instant> = None;
        // When to offer to leave; none while there are sessions, or after the offer.
        let mut leave = Some(Instant::now() + idle);
        loop {
            let fresh = server.silent() > 0 && Instant::now() < self.fresh;
            if deadline.is_some() && server.busy() == 0 && tasks.is_empty() && !fresh {
                break;
            }
            tokio::select! {
                message = channel.recv(), if connected => match message {
                    Ok(Some((ToSession::Connect { number, name, home, config, console }, _))) => {
                        self.look(number, name, home, config, console);
                    }
                    Ok(Some((ToSession::Session { number, name, home, early, machine }, fds))) => {
                        leave = None;
                        self.received += 1;
                        self.fresh = Instant::now() + FRESH;
                        // A core that has just died shows as the end of the channel.
                        let _ = channel.send(&ToCore::Accepted { number }, &[]).await;
                        self.begin(number, name, home, machine, &early, fds);
                    }
                    Ok(Some((ToSession::Finish {}, _))) => {
                        tasks.stop_all();
                        finish(&server, &mut deadline);
                    }
                    Ok(Some((ToSession::Start { .. }, _))) => return Err("a second start".into()),
                    Ok(Some((ToSession::Answer { question, answer, more }, _))) => {
                        self.core.answer(question, answer.0, more);
                    }
                    Ok(Some((ToSession::StopTask { task }, _))) => tasks.stop(task),
                    Ok(Some((ToSession::Uses { inquiry, configs, files }, _))) => {
                        self.look_for(inquiry, configs, files);
                    }
                    Ok(Some((ToSession::Clean { task, directory, prefix }, _))) => {
                        leave = None;
                        tasks.clean(task, Partial { directory, prefix });
                    }
                    Ok(None) | Err(_) => {
                        // The core has died. Whoever has a request in flight still gets the answer.
                        connected = false;
                        self.core.gone();
                        tasks.stop_all();
                        finish(&server, &mut deadline);
                    }
                },
                () = server.changed.notified() => {
                    for numbers in server.take_ended().chunks(CLOSED_PER_MESSAGE) {
                        // A core that has just died shows as the end of the channel.
                        let _ = channel.send(&ToCore::Closed { numbers: numbers.to_vec() }, &[]).await;
                    }
                    leave = (server.live() == 0 && tasks.is_empty()).then(|| Instant::now() + idle);
                },
                message = tasks.news() => {
                    let _ = channel.send(&message, &[]).await;
                    leave = (server.live() == 0 && tasks.is_empty()).then(|| Instant::now() + idle);
                },
                () = until(leave) => {
                    // The core may have had a reason to keep us that has gone since without a word.
                    leave = Some(Instant::now() + idle.max(OFFER_AGAIN));
                    let _ = channel.send(&ToCore::Idle { received: self.received }, &[]).await;
                },
                () = until(deadline) => break,
                () = sleep_until(self.fresh), if fresh && deadline.is_some() => {}
                _ = terminate.recv() => {
                    tasks.stop_all();
                    finish(&server, &mut deadline);
                }
            }
        }
        // Requests that had arrived when the end was announced are in flight as well.
        for _ in 0..LAST_TURNS {
            tokio::task::yield_now().await;
            while server.busy() > 0 && deadline.is_some_and(|deadline| Instant::now() < deadline) {
                tokio::select! {
                    () = server.changed.notified() => {}
                    () = until(deadline) => {}
                }
            }
        }
        Ok(())
    }

    /// Looks, on a thread, which files the machines of this user use, and tells the core.
    fn look_for(&self, inquiry: u64, configs: Vec<String>, files: Vec<u64>) {
        let (user, core) = (self.user.clone(), Arc::clone(&self.core));
        tokio::task::spawn_blocking(move || {
            let wanted = files.as_chunks::<2>().0.iter().map(|[device, inode]| (*device, *inode)).collect();
            let used = handlers::files_used_by(&user, &configs, &wanted);
            core.tell(ToCore::Used { inquiry, files: used.into_iter().flat_map(|(a, b)| [a, b]).collect() });
        });
    }

    /// Looks whether somebody may be connected to a machine, and tells the core.
    fn look(&mut self, number: u64, name: String, home: String, config: String, console: bool) {
        let ctx = Ctx::new(self.caller(name, home), 0);
        let core = Arc::clone(&self.core);
        let server = Rc::clone(&self.server);
        tokio::task::spawn_local(async move {
            let declined = handlers::connect::look(&ctx, &config, console).await.err();
            core.tell(ToCore::Connectable { number, declined });
            // Nobody may come of it: the time without sessions begins anew.
            server.changed.notify_one();
        });
    }

    /// Starts the task of a session.
    fn begin(
        &mut self,
        number: u64,
        name: String,
        home: String,
        machine: Option<String>,
        early: &[u8],
        fds: Vec<OwnedFd>,
    ) {
        let Some(socket) = fds.into_iter().next() else { return };
        let ctx = Ctx::new(self.caller(name, home), number);
        let Some(machine) = machine else {
            tokio::task::spawn_local(connection::serve(&self.server, ctx, socket, early));
            return;
        };
        let ctx = ctx.connected_to(&machine);
        // It is live from now on, and closed by not being served.
        let served = connection::serve(&self.server, ctx.clone(), socket, early);
        tokio::task::spawn_local(async move {
            match handlers::connect::attach(&ctx).await {
                Ok(()) => served.await,
                Err(error) => tracing::info!("a connection to {machine} is closed: {error}"),
            }
        });
    }

    /// What the sessions of one login name share.
    fn caller(&mut self, name: String, home: String) -> Arc<Caller> {
        match self.callers.get(&name) {
            Some(caller) if caller.user.home == home => Arc::clone(caller),
            _ => {
                let user = User { name: name.clone(), home, ..self.user.clone() };
                let caller = Arc::new(Caller {
                    user,
                    product: self.product.clone(),
                    product_number: self.product_number,
                    historic_bugs: self.historic_bugs,
                    layout: self.layout.clone(),
                    event_logs: self.event_logs.clone(),
                    core: Arc::clone(&self.core) as Arc<dyn handlers::Core>,
                });
                self.callers.insert(name, Arc::clone(&caller));
                caller
            }
        }
    }
}

/// Announces the end, once.
fn finish(server: &Server, deadline: &mut Option<Instant>) {
    if deadline.is_none() {
        server.begin_stop();
        *deadline = Some(Instant::now() + FINISH_WITHIN);
    }
}

/// Waits for a moment; without one for ever.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
