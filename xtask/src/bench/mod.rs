//! `xtask bench`: the figures of docs/performance/, each beside a peer and a bound in one run.
//!
//! ```text
//!   round 1   ours ─▶ peer ─▶ bound
//!   round 2   ours ─▶ peer ─▶ bound       ratio of the medians, range of the rounds
//!   round 3   ours ─▶ peer ─▶ bound
//!
//!   P1 P2 P3   calls     many connections            P4   loaded   the same while others work
//!   P5         logins    TLS and a password          P6   connects one local visit after another
//!   P7         memory    idle connections            P8-P11  files  copies and listings, beside cp and find
//!   P12-P14    power     machines that are powered on, beside QEMU and bare KVM
//!   P15 P16 P18 P19  machines  ten thousand registered machines
//!   P17        command   vmware-cmd -l with as many  L1   library  the C library
//!   P20        parse     in this process             P21  instructions  under callgrind
//!   SUSPEND RESUME DISKR DISKW  storage  what running machines store, beside QEMU
//!
//!   each outcome ─▶ report: a line ─▶ store: figures.json ─▶ page, plots: docs/performance/README.md
//! ```
//!
//! A figure of one run is never compared with one of another: machines differ, and so do days. The
//! peer is libvirtd ([`libvirt`]), the bounds are small programs of ours ([`bounds`]), our side is an
//! instance as `xtask up` starts it ([`ours`]). All run on this machine, below one scratch directory,
//! and end with the bench.

mod bounds;
mod calls;
mod child;
mod client;
mod command;
mod connects;
mod facts;
mod files;
mod gate;
mod guest;
mod instructions;
mod library;
mod libvirt;
mod load;
mod loaded;
mod logins;
mod machines;
mod memory;
mod ours;
mod page;
mod pam;
mod parse;
mod plots;
mod power;
mod process;
mod qemu;
mod quiet;
mod report;
mod rig;
mod storage;
mod store;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::json;
use tempfile::TempDir;

use crate::Result;
use crate::bench::client::Exchange;
use crate::bench::libvirt::Libvirt;
use crate::bench::load::Sample;
use crate::bench::ours::Ours;
use crate::bench::process::{ByProcess, Tree, growth};
use crate::bench::quiet::Quiet;
use crate::bench::report::{Outcome, Rounds, Target};
use crate::bench::store::Store;
use crate::skip::skipped;
use crate::workspace::Binaries;

/// Arguments of `xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Which figures: P1 to P21, P7s P18u P19m, L1, SUSPEND RESUME DISKR DISKW [default: all]
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// Length of each phase of load
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Alternations of ours, peer and bound
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Idle plain connections of P7; of TLS half as many
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    idle: usize,
    /// Leave the peer out, for a quick look; nothing is written into docs/performance, as is no figure that lacks a side
    #[arg(long)]
    without_peer: bool,
    /// Longest wait for others to be quiet, before each phase
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    patience: f64,
    /// Leave docs/performance as it is
    #[arg(long)]
    no_write: bool,
    /// Write what was measured here as well, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Use the daemons in this directory as they are, instead of building them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Measure nothing; write the page and its plots from docs/performance/figures.json again
    #[arg(long)]
    page: bool,
    /// Hold P20 and P21 to the recorded instructions, P1, P3 and P8 to relaxed lines; fails when one is missed
    #[arg(long)]
    gate: bool,
    /// Count instructions and make them the recorded ones; the reason goes into the record
    #[arg(long, value_name = "REASON")]
    record: Option<String>,
    /// Be one of the bounds; only the bench itself asks for that
    #[arg(long, hide = true, num_args = 1..)]
    serve: Vec<String>,
}

/// Figures that are measured together, and how.
type Group = (&'static [&'static str], fn(&mut Bench) -> Result<Vec<Outcome>>);

const GROUPS: [Group; 22] = [
    (&["P1", "P3"], calls::local),
    (&["P2"], calls::remote),
    (&["P4"], loaded::local),
    (&["P5"], logins::remote),
    (&["P6"], connects::local),
    (&["P7", "P7s"], memory::idle),
    (&["P8"], files::dense),
    (&["P9"], files::sparse),
    (&["P10"], files::reflink),
    (&["P11"], files::listing),
    (&["P12"], power::on),
    (&["P13"], power::memory),
    (&["P14"], power::many),
    (&["P15", "P16"], machines::looking),
    (&["P17"], command::list),
    (&["P18", "P18u"], machines::changing),
    (&["P19", "P19m"], machines::starting),
    (&["P20"], |bench| parse::request(&mut bench.quiet())),
    (&["P21"], instructions::requests),
    (&["SUSPEND", "RESUME"], storage::suspended),
    (&["DISKR", "DISKW"], storage::disks),
    (&["L1"], library::round_trips),
];

/// All ids, in the order of the page.
pub fn ids() -> Vec<&'static str> {
    let mut ids: Vec<&str> = GROUPS.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
    let number = |id: &str| -> u32 {
        let digits = id.strip_prefix('P').unwrap_or_default().trim_end_matches(char::is_alphabetic);
        digits.parse().unwrap_or(u32::MAX)
    };
    ids.sort_by_key(|id| number(id));
    ids
}

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    if !arguments.serve.is_empty() {
        return bounds::serve(&arguments.serve);
    }
    if arguments.page {
        return page::write(&Store::load()?);
    }
    let known = ids();
    for id in &arguments.ids {
        if !known.iter().any(|name| name.eq_ignore_ascii_case(id)) {
            return Err(format!("there is no figure {id}; there are {}", known.join(" ")));
        }
    }
    let mut bench = Bench::new(arguments)?;
    if let Some(reason) = &arguments.record {
        return gate::record(&bench, reason);
    }
    if arguments.gate {
        return gate::run(&mut bench, &arguments.ids);
    }
    let start = Instant::now();
    println!("{}", facts::line());
    let run = json!({"machine": facts::all(), "seconds": arguments.seconds, "rounds": arguments.rounds});
    let mut store = Store::load()?;
    let write = !arguments.no_write && !arguments.without_peer;
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    let wanted =
        |id: &str| arguments.ids.is_empty() || arguments.ids.iter().any(|name| name.eq_ignore_ascii_case(id));
    for (ids, measure) in GROUPS {
        if !ids.iter().any(|id| wanted(id)) {
            continue;
        }
        // One that fails does not cost the others their figures.
        let outcomes = measure(&mut bench).unwrap_or_else(|why| {
            println!("{:<4} FAILED: {why}", ids.join(" "));
            failed.push(ids.join(" "));
            Vec::new()
        });
        for outcome in outcomes.into_iter().filter(|outcome| wanted(outcome.target.id)) {
            println!("{}", outcome.text());
            match outcome.missing() {
                None => store.put(outcome.json(), &run),
                Some(why) => println!("       not kept: {why}"),
            }
            all.push(outcome.json());
        }
        if write {
            store.save()?;
        }
    }
    if write {
        page::write(&store)?;
    }
    if let Some(path) = &arguments.json {
        let all = json!({"run": run, "figures": all});
        std::fs::write(path, format!("{all:#}\n"))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    println!("{} figures in {:.1} minutes", all.len(), start.elapsed().as_secs_f64() / 60.0);
    if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(" "))) }
}

/// What several measurements share.
pub struct Bench {
    // Dropped in this order: processes first, then their files.
    ours: Option<Ours>,
    libvirt: Option<Libvirt>,
    missing: Option<String>,
    without_peer: bool,
    bin_dir: PathBuf,
    seconds: f64,
    rounds: usize,
    idle: usize,
    patience: Duration,
    scratch: TempDir,
}

/// The samples of the three sides, one for each round.
pub struct Sides {
    /// Ours.
    pub ours: Vec<Sample>,
    /// libvirt's, or why there are none.
    pub peer: Result<Vec<Sample>>,
    /// The bound's.
    pub bound: Vec<Sample>,
    /// For the reader: processor time of each of our processes for one call, and how quiet it was.
    pub notes: Vec<String>,
}

impl Bench {
    fn new(arguments: &Arguments) -> Result<Self> {
        let within = |seconds: f64, least: f64| (least..=600.0).contains(&seconds);
        if !within(arguments.seconds, 0.01) || !within(arguments.patience, 0.0) || arguments.rounds == 0 {
            return Err("--seconds is 0.01 to 600, --patience 0 to 600, --rounds at least 1".to_owned());
        }
        let bin_dir = match &arguments.bin_dir {
            Some(directory) => directory.clone(),
            None => Binaries::build()?.authd.parent().map(Path::to_path_buf).unwrap_or_default(),
        };
        let scratch = tempfile::Builder::new().prefix("vmserverd-bench-").tempdir();
        let scratch = scratch.map_err(|error| format!("no scratch directory: {error}"))?;
        let missing = match arguments.without_peer {
            true => Some("--without-peer".to_owned()),
            false => libvirt::missing(),
        };
        if let Some(why) = &missing {
            skipped("the peer", why);
        }
        let Arguments { seconds, rounds, idle, .. } = *arguments;
        let patience = Duration::from_secs_f64(arguments.patience);
        let without_peer = arguments.without_peer;
        Ok(Bench {
            ours: None,
            libvirt: None,
            missing,
            without_peer,
            bin_dir,
            seconds,
            rounds,
            idle,
            patience,
            scratch,
        })
    }

    /// The scratch directory.
    pub fn scratch(&self) -> &Path {
        self.scratch.path()
    }

    /// Where the daemons are.
    pub fn bin_dir(&self) -> &Path {
        &self.bin_dir
    }

    /// Idle plain connections that shall be measured.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// A watch for phases that others disturb.
    pub fn quiet(&self) -> Quiet {
        Quiet::new(self.patience)
    }

    /// Length of a phase of load.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// The instance that the measurements share, started when it is first needed.
    pub fn ours(&mut self) -> Result<&Ours> {
        if self.ours.is_none() {
            self.ours = Some(Ours::start(self.scratch.path(), "ours", &self.bin_dir)?);
        }
        self.ours.as_ref().ok_or_else(|| "no instance".to_owned())
    }

    /// What ours answers to the question of every call: the bounds answer the same.
    pub fn answer(&mut self) -> Result<String> {
        let socket = &self.ours()?.socket;
        let answer = client::unix(socket).and_then(|stream| {
            let mut exchange = Exchange::new(stream);
            Ok(String::from_utf8_lossy(exchange.first()?).into_owned())
        });
        answer.map_err(|error| format!("the instance does not answer: {error}"))
    }

    /// Whether the peer can run here.
    pub fn peer(&self) -> Result<()> {
        self.missing.clone().map_or(Ok(()), Err)
    }

    /// The peer that the measurements share, started when it is first needed.
    ///
    /// # Errors
    /// Why there is none.
    pub fn libvirt(&mut self) -> Result<&Libvirt> {
        self.peer()?;
        if self.libvirt.is_none() {
            match Libvirt::start(self.scratch.path(), "libvirt") {
                Ok(libvirt) => self.libvirt = Some(libvirt),
                Err(why) => {
                    skipped("the peer", &why);
                    self.missing = Some("it did not start".to_owned());
                }
            }
        }
        self.libvirt.as_ref().ok_or_else(|| "it did not start".to_owned())
    }

    /// A peer that has done nothing yet.
    ///
    /// # Errors
    /// Why there is none.
    pub fn fresh_peer(&mut self) -> Result<Libvirt> {
        self.peer()?;
        // Two of them would disturb each other.
        self.libvirt = None;
        Libvirt::start(self.scratch.path(), "libvirt-idle").map_err(|why| why.replace('\n', ";"))
    }

    /// Lets the three sides take turns, as many rounds as were asked for.
    ///
    /// # Errors
    /// When a side fails; that the peer is not installed is no failure.
    pub fn alternate(
        &mut self,
        what: &str,
        mut ours: impl FnMut() -> Result<Sample>,
        peer: impl Fn(&Libvirt) -> Result<Sample>,
        mut bound: impl FnMut() -> Result<Sample>,
    ) -> Result<Sides> {
        let _ = self.libvirt();
        let tree = Tree::below(self.ours()?.pid());
        let peers = self.peer().map(|()| Vec::new());
        let mut sides = Sides { ours: Vec::new(), peer: peers, bound: Vec::new(), notes: Vec::new() };
        let (mut quiet, mut spent) = (self.quiet(), String::new());
        for round in 1..=self.rounds {
            eprintln!("xtask: {what}, round {round} of {}", self.rounds);
            sides.ours.push(quiet.phase(|| {
                let before = tree.processor()?;
                let sample = ours()?;
                spent = processor(&before, &tree.processor()?, sample.calls);
                Ok(sample)
            })?);
            if let Some(libvirt) = &self.libvirt {
                round_of(&mut sides.peer, || quiet.phase(|| peer(libvirt)));
            }
            sides.bound.push(quiet.phase(&mut bound)?);
        }
        sides.notes = vec![spent, quiet.describe()];
        Ok(sides)
    }
}

/// Adds a round of the peer. One that fails is left out from then on: the peer is not what is measured.
pub fn round_of<T>(peer: &mut Result<Vec<T>>, measure: impl FnOnce() -> Result<T>) {
    let Ok(rounds) = peer else { return };
    match measure() {
        Ok(round) => rounds.push(round),
        Err(why) => {
            let why = why.replace('\n', ";");
            skipped("the peer", &why);
            *peer = Err(why);
        }
    }
}

impl Sides {
    /// One figure of all samples.
    pub fn outcome(
        &self,
        target: &'static Target,
        figure: impl Fn(&Sample) -> f64,
        notes: Vec<String>,
    ) -> Outcome {
        let all = |samples: &Vec<Sample>| -> Vec<f64> { samples.iter().map(&figure).collect() };
        let peer: Rounds = self.peer.as_ref().map(all).map_err(Clone::clone);
        Outcome { target, ours: all(&self.ours), peer: Some(peer), bound: Some(Ok(all(&self.bound))), notes }
    }
}

/// Microseconds per call of each of our processes that did something.
fn processor(before: &ByProcess, after: &ByProcess, calls: usize) -> String {
    let (sum, each) = growth(before, after, calls as f64 * 1e3);
    let shown = each.iter().filter(|(_, micros)| *micros >= 0.05);
    let shown: Vec<String> = shown.map(|(name, micros)| format!("{name} {micros:.1}")).collect();
    format!("processor time of a call in us, last round: {sum:.1} = {}", shown.join(" + "))
}
