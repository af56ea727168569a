//! P8 to P11: copies and listings, each beside the program that people would use instead.
//!
//! ```text
//!   ours    one request on an open connection, from its first byte to the last of the reply
//!   peer    a process from its start to its end: cp, find
//!   bound   the bare calls in this process
//! ```
//!
//! Before each phase everything is on the disk and the last target is gone, so that no side pays for
//! what another has written.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::fs::{AtFlags, CWD, Dir, StatxFlags, ioctl_ficlone, statx, sync};

use crate::Result;
use crate::bench::report::{Against, Line, Outcome, Rounds, Target};
use crate::bench::{Bench, client};
use crate::skip::skipped;

/// A copy of data.
pub static P8: Target = Target {
    id: "P8",
    what: "File_Copy of 512 MiB",
    unit: "ms",
    digits: 1,
    more: false,
    lines: &[Line { against: Against::Peer, pass: Some(1.15), stretch: Some(1.03) }],
};

/// A copy of holes.
pub static P9: Target = Target {
    id: "P9",
    what: "File_Copy of a sparse 4 GiB file with 64 MiB of data",
    unit: "ms",
    digits: 1,
    more: false,
    lines: &[Line { against: Against::Peer, pass: Some(1.5), stretch: Some(1.1) }],
};

/// A copy that shares its blocks.
pub static P10: Target = Target {
    id: "P10",
    what: "File_Copy of 512 MiB on XFS with reflink",
    unit: "ms",
    digits: 2,
    more: false,
    lines: &[Line { against: Against::Fixed, pass: Some(10.0), stretch: Some(2.0) }],
};

/// A large listing.
pub static P11: Target = Target {
    id: "P11",
    what: "Directory_List of 10 000 entries",
    unit: "ms",
    digits: 1,
    more: false,
    lines: &[Line { against: Against::Peer, pass: Some(2.0), stretch: Some(1.2) }],
};

/// Bytes of a mebibyte.
pub const MIB: u64 = 1 << 20;

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// Milliseconds that some work takes.
fn timed(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// A session that asks for one operation after the other.
#[derive(Debug)]
pub struct Session(UnixStream);

impl Session {
    /// A session over a stream that is logged in.
    pub fn over(stream: UnixStream) -> Self {
        Session(stream)
    }

    fn open(bench: &mut Bench) -> Result<Self> {
        client::unix(&bench.ours()?.socket).map(Session).map_err(failed("no session"))
    }

    /// Sends a request and reads its reply, which must say success.
    ///
    /// # Errors
    /// When there is no reply, or it says no success.
    pub fn ask(&mut self, operation: &str, arguments: &str) -> Result<Vec<u8>> {
        let request = format!("<exec><op>{operation}</op><in>{arguments}</in></exec>\n");
        self.0.write_all(request.as_bytes()).map_err(failed("sending"))?;
        let (mut reply, mut buffer) = (Vec::new(), vec![0; 256 * 1024]);
        while !reply.ends_with(b"</exec>\n") {
            let length = self.0.read(&mut buffer).map_err(failed("reading the reply"))?;
            if length == 0 {
                return Err(format!("{operation}: the connection has ended"));
            }
            reply.extend_from_slice(buffer.get(..length).unwrap_or_default());
        }
        let start = reply.get(..reply.len().min(400)).unwrap_or_default();
        match start.windows(26).any(|part| part == b"<returncode>1</returncode>") {
            true => Ok(reply),
            false => Err(format!("{operation}: {}", String::from_utf8_lossy(start))),
        }
    }

    fn copy(&mut self, from: &Path, to: &Path) -> Result<()> {
        let (from, to) = (from.display(), to.display());
        let arguments = format!("<source>{from}</source><destination>{to}</destination>");
        self.ask("File_Copy", &arguments).map(|_| ())
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}

fn cp(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").arg("--reflink=auto").arg(from).arg(to))
}

/// Both sides of a copy in turn; also checks that the copies take the same space.
fn copies(bench: &mut Bench, target: &'static Target, from: &Path) -> Result<Outcome> {
    let mut session = Session::open(bench)?;
    let to = from.with_extension("copy");
    let blocks = || -> Result<u64> {
        File::open(&to).and_then(|copy| copy.sync_all()).map_err(failed("flushing a copy"))?;
        to.metadata().map(|facts| facts.blocks()).map_err(failed("looking at a copy"))
    };
    let mut quiet = bench.quiet();
    let (mut ours, mut peer, mut sizes) = (Vec::new(), Vec::new(), Vec::new());
    // One copy before the first round: then the source is in memory for everybody.
    cp(from, &to)?;
    for round in 1..=bench.rounds {
        eprintln!("xtask: {}, round {round} of {}", target.id, bench.rounds);
        let mut one = |copy: &mut dyn FnMut() -> Result<()>| {
            quiet.phase(|| {
                let _ = fs::remove_file(&to);
                sync();
                timed(&mut *copy)
            })
        };
        ours.push(one(&mut || session.copy(from, &to))?);
        let our_blocks = blocks()?;
        peer.push(one(&mut || cp(from, &to))?);
        sizes.push((our_blocks, blocks()?));
    }
    let _ = fs::remove_file(&to);
    if let Some((ours, peer)) = sizes.iter().find(|(ours, peer)| ours != peer) {
        return Err(format!("{}: our copy has {ours} blocks, that of cp {peer}", target.id));
    }
    let allocated = sizes.first().map_or(0, |(blocks, _)| blocks * 512 / MIB);
    let notes = vec![format!("both copies have {allocated} MiB allocated"), quiet.describe()];
    Ok(Outcome { target, ours, peer: Some(Ok(peer)), bound: None, notes })
}

/// A file of that size with a mebibyte of data at each multiple of `every`, flushed.
///
/// # Errors
/// When it cannot be written.
pub fn write_pieces(path: &Path, size: u64, every: u64) -> Result<()> {
    let file = File::create(path).map_err(failed("making a file to copy"))?;
    file.set_len(size).map_err(failed("making a file to copy"))?;
    // Not zeros, and not the same everywhere.
    let mut piece: Vec<u8> = (0..MIB).map(|at| (at % 251) as u8).collect();
    for (number, at) in (0..size).step_by(usize::try_from(every).unwrap_or(usize::MAX)).enumerate() {
        if let Some(first) = piece.first_mut() {
            *first = (number % 256) as u8;
        }
        file.write_all_at(&piece, at).map_err(failed("writing a file to copy"))?;
    }
    file.sync_all().map_err(failed("flushing a file to copy"))
}

/// P8.
///
/// # Errors
/// When a side fails.
pub fn dense(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let from = bench.scratch().join("dense");
    write_pieces(&from, 512 * MIB, MIB)?;
    let outcome = copies(bench, &P8, &from);
    let _ = fs::remove_file(&from);
    Ok(vec![outcome?])
}

/// P9.
///
/// # Errors
/// When a side fails, or the copies take different space.
pub fn sparse(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let from = bench.scratch().join("sparse");
    write_pieces(&from, 4096 * MIB, 64 * MIB)?;
    let outcome = copies(bench, &P9, &from);
    let _ = fs::remove_file(&from);
    Ok(vec![outcome?])
}

/// An XFS in a file; ends with the value.
struct Xfs {
    mounted: PathBuf,
    image: PathBuf,
}

impl Xfs {
    fn mount(scratch: &Path) -> Result<Self> {
        let (image, mounted) = (scratch.join("xfs.img"), scratch.join("xfs"));
        File::create(&image).and_then(|file| file.set_len(2048 * MIB)).map_err(failed("an image"))?;
        run(Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&image))?;
        fs::create_dir_all(&mounted).map_err(failed("a mount point"))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mounted))?;
        Ok(Xfs { mounted, image })
    }
}

impl Drop for Xfs {
    fn drop(&mut self) {
        let umount = |lazily: &[&str]| run(Command::new("umount").args(lazily).arg(&self.mounted));
        if umount(&[]).is_err() {
            let _ = umount(&["--lazy"]);
        }
        let _ = fs::remove_file(&self.image);
    }
}

/// P10.
///
/// # Errors
/// When a side fails; that there is no such file system here is no failure.
pub fn reflink(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let xfs = match Xfs::mount(bench.scratch()) {
        Ok(xfs) => xfs,
        Err(why) => {
            skipped("P10", &why);
            return Ok(Vec::new());
        }
    };
    let (from, to) = (xfs.mounted.join("disk"), xfs.mounted.join("copy"));
    write_pieces(&from, 512 * MIB, MIB)?;
    let mut session = Session::open(bench)?;
    let mut quiet = bench.quiet();
    let (mut ours, mut peer, mut bound) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        eprintln!("xtask: P10, round {round} of {}", bench.rounds);
        let mut one = |copy: &mut dyn FnMut() -> Result<()>| {
            quiet.phase(|| {
                let _ = fs::remove_file(&to);
                sync();
                timed(&mut *copy)
            })
        };
        ours.push(one(&mut || session.copy(&from, &to))?);
        peer.push(one(&mut || cp(&from, &to))?);
        bound.push(one(&mut || {
            let from = File::open(&from).map_err(failed("the source"))?;
            let to = File::create(&to).map_err(failed("a target"))?;
            ioctl_ficlone(&to, &from).map_err(failed("FICLONE"))
        })?);
    }
    let notes = vec![quiet.describe()];
    Ok(vec![Outcome { target: &P10, ours, peer: Some(Ok(peer)), bound: Some(Ok(bound)), notes }])
}

/// The bare calls for a listing: names, and what is known of each. Returns how many there are.
fn bare_listing(directory: &Path) -> Result<usize> {
    let opened = File::open(directory).map_err(failed("the directory"))?;
    let names: Vec<CString> = Dir::read_from(&opened)
        .map_err(failed("the directory"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.file_name().to_owned()))
        .collect();
    for name in &names {
        statx(&opened, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS).map_err(failed("statx"))?;
    }
    Ok(names.len())
}

/// P11.
///
/// # Errors
/// When a side fails.
pub fn listing(bench: &mut Bench) -> Result<Vec<Outcome>> {
    const ENTRIES: usize = 10_000;
    /// A listing is short; a round is the fastest of so many.
    const REPEATS: usize = 5;
    let directory = bench.scratch().join("many");
    fs::create_dir(&directory).map_err(failed("a directory"))?;
    for number in 0..ENTRIES {
        let path = directory.join(format!("virtual machine {number:05}.vmdk"));
        fs::write(path, "x").map_err(failed("a file to list"))?;
    }
    statx(CWD, &directory, AtFlags::empty(), StatxFlags::BASIC_STATS).map_err(failed("the directory"))?;
    let mut session = Session::open(bench)?;
    let arguments = format!("<directory>{}</directory>", directory.display());
    let mut quiet = bench.quiet();
    let (mut ours, mut peer, mut bound, mut bytes) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let mut find = Command::new("find");
    find.arg(&directory).args(["-mindepth", "1", "-printf", "%f %p %y %s %T@ %u %g %m\\n"]);
    for round in 1..=bench.rounds {
        eprintln!("xtask: P11, round {round} of {}", bench.rounds);
        let mut one = |list: &mut dyn FnMut() -> Result<()>| {
            quiet.phase(|| {
                let all = (0..REPEATS).map(|_| timed(&mut *list)).collect::<Result<Vec<f64>>>()?;
                Ok(all.into_iter().fold(f64::INFINITY, f64::min))
            })
        };
        ours.push(one(&mut || {
            bytes = session.ask("Directory_List", &arguments)?.len();
            Ok(())
        })?);
        // Through a pipe, as a program would read it.
        peer.push(one(&mut || run(&mut find))?);
        bound.push(one(&mut || match bare_listing(&directory)? {
            found if found >= ENTRIES => Ok(()),
            found => Err(format!("only {found} entries")),
        })?);
    }
    let notes = vec![format!("a reply has {bytes} bytes"), quiet.describe()];
    let peer: Rounds = Ok(peer);
    Ok(vec![Outcome { target: &P11, ours, peer: Some(peer), bound: Some(Ok(bound)), notes }])
}
