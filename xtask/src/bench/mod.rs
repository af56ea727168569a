//! `xtask bench`: the figures of docs/performance.md, each beside a peer and a bound in one run.
//!
//! ```text
//!   round 1   ours ─▶ peer ─▶ bound
//!   round 2   ours ─▶ peer ─▶ bound       ratio of the medians, range of the rounds
//!   round 3   ours ─▶ peer ─▶ bound
//!
//!   P1 P2 P3  calls      many connections          P7   memory   idle connections
//!   P6        connects   one visit after another   P20  parse    in this process
//!   P8-P11    files      copies and listings, beside cp and find
//!   P15 P16 P18 P19  machines  ten thousand registered machines    L1   library  the C library
//!   P17       command    vmware-cmd -l with as many
//!   P12-P14   power      machines that are powered on, beside QEMU and bare KVM
//!   SUSPEND RESUME DISKR DISKW  storage  what running machines store, beside QEMU
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
mod files;
mod guest;
mod library;
mod libvirt;
mod load;
mod machines;
mod memory;
mod ours;
mod parse;
mod power;
mod process;
mod qemu;
mod quiet;
mod report;
mod rig;
mod storage;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::Result;
use crate::bench::client::Exchange;
use crate::bench::libvirt::Libvirt;
use crate::bench::load::Sample;
use crate::bench::ours::Ours;
use crate::bench::process::{ByProcess, Tree, growth};
use crate::bench::quiet::Quiet;
use crate::bench::report::{Outcome, Rounds, Target};
use crate::skip::skipped;
use crate::workspace::Binaries;

/// Arguments of `xtask bench`.
#[derive(clap::Args)]
pub struct Arguments {
    /// Which figures: P1 P2 P3 P6 P7 P8 P9 P10 P11 P12 P13 P14 P15 P16 P17 P18 P18u P19 P19m P20 L1 SUSPEND RESUME DISKR DISKW [default: all]
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
    /// Leave the peer out, for a quick look
    #[arg(long)]
    without_peer: bool,
    /// Longest wait for others to be quiet, before each phase
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0)]
    patience: f64,
    /// Write the figures of every round here as well, as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Use the daemons in this directory as they are, instead of building them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Be one of the bounds; only the bench itself asks for that
    #[arg(long, hide = true, num_args = 1..)]
    serve: Vec<String>,
}

/// Figures that are measured together, and how.
type Group = (&'static [&'static str], fn(&mut Bench) -> Result<Vec<Outcome>>);

const GROUPS: [Group; 19] = [
    (&["P1", "P3"], calls::local),
    (&["P2"], calls::remote),
    (&["P6"], connects::local),
    (&["P7"], memory::idle),
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
    (&["SUSPEND", "RESUME"], storage::suspended),
    (&["DISKR", "DISKW"], storage::disks),
    (&["L1"], library::round_trips),
    (&["P20"], |bench| parse::request(&mut bench.quiet())),
];

/// Runs the command.
pub fn main(arguments: &Arguments) -> Result<()> {
    if !arguments.serve.is_empty() {
        return bounds::serve(&arguments.serve);
    }
    let wanted =
        |id: &str| arguments.ids.is_empty() || arguments.ids.iter().any(|name| name.eq_ignore_ascii_case(id));
    let known: Vec<&str> = GROUPS.iter().flat_map(|(ids, _)| ids.iter().copied()).collect();
    for id in &arguments.ids {
        if !known.iter().any(|name| name.eq_ignore_ascii_case(id)) {
            return Err(format!("there is no figure {id}; there are {}", known.join(" ")));
        }
    }
    let mut bench = Bench::new(arguments)?;
    println!("{}", machine());
    let mut outcomes = Vec::new();
    for (ids, measure) in GROUPS {
        if !ids.iter().any(|id| wanted(id)) {
            continue;
        }
        for outcome in measure(&mut bench)?.into_iter().filter(|outcome| wanted(outcome.target.id)) {
            println!("{}", outcome.text());
            outcomes.push(outcome.json());
        }
    }
    if let Some(path) = &arguments.json {
        let all = serde_json::json!({
            "machine": machine(), "seconds": arguments.seconds, "rounds": arguments.rounds, "figures": outcomes,
        });
        std::fs::write(path, format!("{all:#}\n"))
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    Ok(())
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

    /// A peer that has done nothing yet.
    ///
    /// # Errors
    /// Why there is none.
    pub fn fresh_peer(&mut self) -> Result<Libvirt> {
        self.peer()?;
        // Two libvirtds cannot run on one machine.
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
        if self.missing.is_none() && self.libvirt.is_none() {
            match Libvirt::start(self.scratch.path(), "libvirt") {
                Ok(libvirt) => self.libvirt = Some(libvirt),
                Err(why) => {
                    skipped("the peer", &why);
                    self.missing = Some("it did not start".to_owned());
                }
            }
        }
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
            if let (Some(libvirt), Ok(samples)) = (&self.libvirt, &mut sides.peer) {
                samples.push(quiet.phase(|| peer(libvirt))?);
            }
            sides.bound.push(quiet.phase(&mut bound)?);
        }
        sides.notes = vec![spent, quiet.describe()];
        Ok(sides)
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

/// One line about where the figures were measured, and how busy it was before.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = read("/proc/cpuinfo");
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
    let load = read("/proc/loadavg").split_whitespace().next().unwrap_or("?").to_owned();
    let kernel = read("/proc/sys/kernel/osrelease");
    format!(
        "{cpus} CPUs ({}), Linux {}, load before the run {load}",
        model.unwrap_or("unknown"),
        kernel.trim()
    )
}
