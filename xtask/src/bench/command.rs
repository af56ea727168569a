//! P17: `vmware-cmd -l` where ten thousand machines are registered, from its start to its exit.
//!
//! ```text
//!   ours   vmware-cmd -l                  connect, log in, one request, ten thousand lines
//!   peer   virsh list --all --name        the list alone, by virsh's own clock (--timing)
//! ```
//!
//! The line is a number of milliseconds. The peer stands beside it for the reader: starting and connecting
//! is left out there, because libvirt's test driver reads all machines from a file at each connect, and
//! counted here. How long all of it takes stands in a note.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::machines::{MACHINES, domains, machines, median};
use crate::bench::ours::Ours;
use crate::bench::report::{Against, Line, Outcome, Rounds, Target};
use crate::bench::{Bench, round_of};
use crate::workspace::installed;

/// The command.
pub static P17: Target = Target {
    id: "P17",
    what: "vmware-cmd -l with 10 000 machines, start to exit, p50",
    unit: "ms",
    digits: 1,
    more: false,
    lines: &[Line { against: Against::Fixed, pass: Some(100.0), stretch: Some(40.0) }],
};

/// Runs a command that must succeed; its output and the milliseconds it took.
fn timed(command: &mut Command) -> Result<(Vec<u8>, f64)> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    if output.status.success() {
        Ok((output.stdout, took))
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// The median of one command run again and again for a while.
fn repeated(length: Duration, mut command: impl FnMut() -> Command) -> Result<f64> {
    let (start, mut all) = (Instant::now(), Vec::new());
    while all.len() < 3 || start.elapsed() < length {
        all.push(timed(&mut command())?.1);
    }
    Ok(median(all))
}

/// The milliseconds that virsh says its last command took.
fn own_time(output: &[u8]) -> Result<f64> {
    let text = String::from_utf8_lossy(output);
    let words = text.rsplit_once("(Time: ").and_then(|(_, rest)| rest.split_once(" ms)"));
    let time = words.and_then(|(number, _)| number.trim().parse().ok());
    time.ok_or_else(|| "virsh --timing told no time".to_owned())
}

fn vmware_cmd(bin_dir: &Path, root: &Path) -> Command {
    let mut command = Command::new(bin_dir.join("vmware-cmd"));
    command.arg("-l").env("VMSERVERD_ROOT", root);
    command
}

/// P17.
///
/// # Errors
/// When a side fails.
pub fn list(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let root = bench.scratch().join("command");
    machines(bench.scratch(), &root, MACHINES)?;
    let _ours = Ours::start(bench.scratch(), "command", bench.bin_dir())?;
    let bin_dir = bench.bin_dir().to_owned();
    let (listed, _) = timed(&mut vmware_cmd(&bin_dir, &root))?;
    let lines = listed.iter().filter(|byte| **byte == b'\n').count();
    if lines != MACHINES {
        return Err(format!("P17: {lines} machines are listed"));
    }
    let libvirt = match installed("virsh") {
        true => bench.fresh_peer(),
        false => Err("virsh is not installed (apt-get install libvirt-clients)".to_owned()),
    };
    let uri = match &libvirt {
        Ok(libvirt) => libvirt.unix_with(&domains(bench.scratch())?),
        Err(_) => String::new(),
    };
    // It has hung before; a run that takes longer than this has.
    let virsh = |words: &[&str]| {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "60", "virsh", "--timing", "--connect", &uri]).args(words);
        command
    };
    let (length, mut quiet) = (bench.length(), bench.quiet());
    let (mut ours, mut wholes) = (Vec::new(), Vec::new());
    let mut peer: Rounds = libvirt.as_ref().map(|_| Vec::new()).map_err(Clone::clone);
    for round in 1..=bench.rounds {
        eprintln!("xtask: P17, round {round} of {}", bench.rounds);
        ours.push(quiet.phase(|| repeated(length, || vmware_cmd(&bin_dir, &root)))?);
        round_of(&mut peer, || {
            quiet.phase(|| {
                let mut lists = Vec::new();
                for _ in 0..3 {
                    let (output, whole) = timed(&mut virsh(&["list", "--all", "--name"]))?;
                    lists.push(own_time(&output)?);
                    wholes.push(whole);
                }
                Ok(median(lists))
            })
        });
    }
    let mut notes = Vec::new();
    if !wholes.is_empty() {
        let whole = median(wholes);
        notes.push(format!(
            "virsh takes {whole:.0} ms from its start to its exit, nearly all of it to connect"
        ));
    }
    notes.push(quiet.describe());
    Ok(vec![Outcome { target: &P17, ours, peer: Some(peer), bound: None, notes }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn virsh_says_how_long_its_list_took() {
        assert_eq!(own_time(b"one\ntwo\n\n(Time: 45.250 ms)\n\n"), Ok(45.25));
        assert!(own_time(b"one\ntwo\n").is_err());
    }
}
