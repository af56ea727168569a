//! P4: how long callers wait while others keep the machine busy.
//!
//! ```text
//!   quiet    64 connections ask inc                                           p99: the bound
//!   loaded   64 connections ask inc                                           p99: the figure
//!            a task copies 4 GiB, again when it is done
//!            16 callers give wrong passwords through TLS, each again and again       
//! ```
//!
//! Wrong passwords are looked at by `pam_unix`, as on most machines, and answered after the delays that an
//! instance has by default. The callers do not wait for that: they hang up after a moment and come again, so
//! that each attempt costs a handshake and a look at the password.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::client::{self, Exchange, Login};
use crate::bench::files::{MIB, Session, write_pieces};
use crate::bench::load::{self, Sample};
use crate::bench::ours::Ours;
use crate::bench::pam::{Service, own_name};
use crate::bench::report::{Against, Line, Outcome, Target};
use crate::bench::{Bench, calls};
use crate::skip::skipped;

/// Latency under load.
pub static P4: Target = Target {
    id: "P4",
    what: "p99 of inc on 64 connections, under load",
    unit: "ms",
    digits: 3,
    more: false,
    lines: &[Line { against: Against::Bound, pass: Some(2.0), stretch: Some(1.3) }],
};

/// Callers with wrong passwords.
const WRONG: usize = 16;
/// How long one waits for an answer. It does not come that soon: what waits is the delay of the instance.
const MOMENT: Duration = Duration::from_millis(250);
/// What is copied.
const SIZE: u64 = 4096 * MIB;
/// How long the load may take to be there.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the load did during one phase.
#[derive(Debug, Default)]
struct Done {
    /// Bytes.
    copied: AtomicUsize,
    /// Wrong passwords that were sent.
    asked: AtomicUsize,
    /// Callers who were not let in.
    turned_away: AtomicUsize,
    stop: AtomicBool,
}

impl Done {
    fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

/// P4.
///
/// # Errors
/// When a side fails.
pub fn local(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let service = match Service::new("unix", "pam_unix.so") {
        Ok(service) => service,
        Err(why) => {
            skipped("P4", &why);
            return Ok(Vec::new());
        }
    };
    let name = own_name()?;
    let ours = Ours::start_with(bench.scratch(), "loaded", bench.bin_dir(), &[&service.setting()])?;
    let from = bench.scratch().join("four-gib");
    write_pieces(&from, SIZE, MIB)?;
    let config = client::tls_config()?;
    let wrong = Login { port: ours.tls_port, config, name };
    let length = bench.length();
    let phase = || -> Result<Sample> {
        let callers = calls::connect(|| client::unix(&ours.socket))?;
        load::run(&mut callers.into_iter().map(Exchange::new).collect::<Vec<_>>(), length)
    };
    let mut quiet = bench.quiet();
    let (mut loaded, mut alone, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        eprintln!("xtask: P4, round {round} of {}", bench.rounds);
        let mut said = String::new();
        let calm = quiet.phase(phase)?;
        let busy = quiet.phase(|| {
            let (sample, text) = under_load(&ours, &from, &wrong, phase)?;
            said = text;
            Ok(sample)
        })?;
        notes.push(format!(
            "quiet {:.0}/s p50 {:.2} p99 {:.2} max {:.1} ms | loaded {:.0}/s p50 {:.2} p99 {:.2} max {:.1} ms; {said}",
            calm.rate, calm.p50, calm.p99, calm.slowest, busy.rate, busy.p50, busy.p99, busy.slowest
        ));
        alone.push(calm.p99);
        loaded.push(busy.p99);
    }
    let _ = fs::remove_file(&from);
    notes.push(quiet.describe());
    Ok(vec![Outcome { target: &P4, ours: loaded, peer: None, bound: Some(Ok(alone)), notes }])
}

/// Does something while the load runs; and what the load did meanwhile.
fn under_load<T>(
    ours: &Ours,
    from: &Path,
    wrong: &Login,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, String)> {
    let done = Done::default();
    let to = from.with_extension("copy");
    let _ = fs::remove_file(&to);
    let session = client::unix(&ours.socket).map_err(|error| format!("no session: {error}"))?;
    let mut session = Session::over(session);
    let mut task = copy(&mut session, from, &to)?;
    std::thread::scope(|scope| {
        for _ in 0..WRONG {
            scope.spawn(|| refused(wrong, &done));
        }
        let copier = scope.spawn(|| {
            let mut earlier = 0;
            while !done.stopping() {
                std::thread::sleep(Duration::from_millis(50));
                let (runs, copied) = state(&mut session, &task)?;
                done.copied.store(earlier + copied, Ordering::Relaxed);
                if !runs {
                    earlier += copied;
                    fs::remove_file(&to).map_err(|error| format!("removing the copy: {error}"))?;
                    task = copy(&mut session, from, &to)?;
                }
            }
            session.ask("TaskManager_StopTask", &format!("<taskId>{task}</taskId>"))?;
            while state(&mut session, &task)?.0 {
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        });
        let limit = Instant::now() + PATIENCE;
        let came = || {
            let (asked, turned) = (&done.asked, &done.turned_away);
            (asked.load(Ordering::Relaxed), turned.load(Ordering::Relaxed))
        };
        while came().0 < WRONG && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(5));
        }
        let before = came();
        let result = work();
        let after = came();
        let (asked, turned) = (after.0 - before.0, after.1 - before.1);
        done.stop.store(true, Ordering::Release);
        let copier: Result<()> = copier.join().unwrap_or_else(|_| Err("the copier failed".to_owned()));
        let _ = fs::remove_file(&to);
        copier?;
        if asked + turned == 0 {
            return Err("P4: nobody came with a wrong password".to_owned());
        }
        let copied = done.copied.load(Ordering::Relaxed) as f64 / MIB as f64;
        Ok((
            result?,
            format!("{copied:.0} MiB copied, {asked} wrong passwords, {turned} callers turned away"),
        ))
    })
}

/// Begins the task; its number.
fn copy(session: &mut Session, from: &Path, to: &Path) -> Result<String> {
    let (from, to) = (from.display(), to.display());
    let arguments = format!("<files><file>{from}</file></files><destination>{to}</destination>");
    let reply = session.ask("FileManager_FileCopy", &arguments)?;
    match element(&reply, "taskId") {
        Some(task) if task != "0" => Ok(task),
        _ => Err("P4: the copy is no task".to_owned()),
    }
}

/// Whether the task still runs, and the bytes that it has copied; that it has failed is an error.
fn state(session: &mut Session, task: &str) -> Result<(bool, usize)> {
    let reply = session.ask("TaskManager_StatusOfTask", &format!("<taskId>{task}</taskId>"))?;
    let copied = element(&reply, "bytesDone").and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    match element(&reply, "state").as_deref() {
        Some("queued" | "running") => Ok((true, copied)),
        Some("done" | "stopped") => Ok((false, copied)),
        state => Err(format!("P4: the copy is {state:?}")),
    }
}

/// The text of the first element of that name.
fn element(reply: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(reply);
    let text = text.split_once(&format!("<{name}>"))?.1.split_once('<')?.0;
    Some(text.to_owned())
}

/// One caller: gives a wrong password, waits a moment for the answer, hangs up and comes again.
fn refused(wrong: &Login, done: &Done) {
    while !done.stopping() {
        let attempt = client::greet(wrong).and_then(|mut stream| {
            client::send_password(&mut stream, &wrong.name, "wrong")?;
            stream.sock.set_read_timeout(Some(MOMENT))?;
            done.asked.fetch_add(1, Ordering::Relaxed);
            client::no(&mut stream)
        });
        // The answer does not come in time; whoever is not even let in, because there are too many, is told so
        // at once, and comes again as late.
        match attempt {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            _ => {
                done.turned_away.fetch_add(usize::from(attempt.is_err()), Ordering::Relaxed);
                std::thread::sleep(MOMENT);
            }
        }
    }
}
