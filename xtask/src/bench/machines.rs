//! P15, P16, P18 and P19: ten thousand registered machines.
//!
//! ```text
//!   P15  the whole list with details        peer: virConnectListAllDomains    bound: copying the reply
//!   P16  one machine                        peer: virDomainGetInfo            bound: inc, and 5 us
//!   P18  registering and unregistering      bound: a flush; a file written anew, flushed, renamed
//!   P19  from exec to the first answer      peer: libvirt's own loading of as many
//! ```

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::Result;
use crate::bench::child::Child;
use crate::bench::files::Session;
use crate::bench::libvirt::Libvirt;
use crate::bench::ours::Ours;
use crate::bench::report::{Against, Line, Outcome, Rounds, Target};
use crate::bench::{Bench, client, round_of};

/// How many machines.
pub const MACHINES: usize = 10_000;

/// Machines that are registered and unregistered on top of those.
const CHANGES: usize = 40;

/// Registrations at the same time.
const AT_ONCE: usize = 64;

/// The list.
pub static P15: Target = Target {
    id: "P15",
    what: "VM_List of 10 000 machines, p50",
    unit: "ms",
    digits: 2,
    more: false,
    lines: &[
        Line { against: Against::Peer, pass: Some(0.3), stretch: None },
        Line { against: Against::Bound, pass: None, stretch: Some(2.0) },
    ],
};

/// One machine.
pub static P16: Target = Target {
    id: "P16",
    what: "VM_INFO of one of 10 000, p50",
    unit: "us",
    digits: 1,
    more: false,
    lines: &[
        Line { against: Against::Peer, pass: Some(0.3), stretch: None },
        Line { against: Against::Bound, pass: None, stretch: Some(1.0) },
    ],
};

/// Registering.
pub static P18: Target = Target {
    id: "P18",
    what: "durable VMRegister at 10 000 machines, p50",
    unit: "ms",
    digits: 2,
    more: false,
    lines: &[Line { against: Against::Bound, pass: Some(2.0), stretch: Some(1.3) }],
};

/// Unregistering.
pub static P18U: Target = Target {
    id: "P18u",
    what: "durable VMUnRegister at 10 000 machines, p50",
    unit: "ms",
    digits: 2,
    more: false,
    lines: &[Line { against: Against::Bound, pass: Some(1.5), stretch: Some(1.1) }],
};

/// Starting.
pub static P19: Target = Target {
    id: "P19",
    what: "vmserverd with 10 000 machines, exec to first answer",
    unit: "ms",
    digits: 0,
    more: false,
    lines: &[Line { against: Against::Fixed, pass: Some(200.0), stretch: Some(80.0) }],
};

/// What it occupies then.
pub static P19M: Target = Target {
    id: "P19m",
    what: "vmserverd with 10 000 machines, resident after the first list",
    unit: "MB",
    digits: 1,
    more: false,
    lines: &[Line { against: Against::Fixed, pass: Some(30.0), stretch: Some(20.0) }],
};

fn failed<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> String {
    move |error| format!("{what}: {error}")
}

/// A directory of machines, and the list of all of them below `root`.
pub fn machines(scratch: &Path, root: &Path, count: usize) -> Result<Vec<PathBuf>> {
    let directory = scratch.join("vms");
    let etc = root.join("etc/vmware");
    fs::create_dir_all(&etc).map_err(failed("making a directory"))?;
    let (mut paths, mut list) = (Vec::new(), String::new());
    for number in 0..count {
        let home = directory.join(format!("vm{number:05}"));
        let path = home.join(format!("vm{number:05}.vmx"));
        if !path.exists() {
            fs::create_dir_all(&home).map_err(failed("making a directory"))?;
            let text = format!(
                "config.version = \"8\"\nvirtualHW.version = \"4\"\ndisplayName = \"vm{number:05}\"\n\
                 guestOS = \"linux\"\nmemsize = \"64\"\nide0:0.present = \"TRUE\"\n\
                 ide0:0.fileName = \"vm{number:05}.vmdk\"\nethernet0.present = \"TRUE\"\n\
                 uuid.bios = \"56 4d 00 00 00 00 00 00-00 00 00 00 00 00 00 00\"\n"
            );
            fs::write(&path, text).map_err(failed("writing a .vmx"))?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).map_err(failed("a mode"))?;
        }
        list.push_str(&format!("config \"{}\"\n", path.display()));
        paths.push(path);
    }
    fs::write(etc.join("vm-list"), list).map_err(failed("writing vm-list"))?;
    Ok(paths)
}

/// libvirt's side: the same number of domains.
pub fn domains(scratch: &Path) -> Result<PathBuf> {
    let path = scratch.join("t10k.xml");
    let mut text = String::from("<node>\n");
    for number in 0..MACHINES {
        text.push_str(&format!(
            "<domain type='test'><name>vm{number:05}</name><memory>65536</memory><os><type>hvm</type></os></domain>\n"
        ));
    }
    text.push_str("</node>\n");
    fs::write(&path, text).map_err(failed("writing domains"))?;
    Ok(path)
}

pub fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// Asks the same again and again for a while; the median in milliseconds.
fn repeated(length: Duration, mut ask: impl FnMut() -> Result<()>) -> Result<f64> {
    let (start, mut took) = (Instant::now(), Vec::new());
    ask()?;
    while took.len() < 5 || start.elapsed() < length {
        let start = Instant::now();
        ask()?;
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    Ok(median(took))
}

fn session(ours: &Ours) -> Result<Session> {
    client::unix(&ours.socket).map(Session::over).map_err(failed("no session"))
}

/// P15 and P16.
///
/// # Errors
/// When a side fails.
pub fn looking(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let paths = machines(bench.scratch(), &bench.scratch().join("ten-thousand"), MACHINES)?;
    let ours = Ours::start(bench.scratch(), "ten-thousand", bench.bin_dir())?;
    let mut session = session(&ours)?;
    let libvirt = bench.fresh_peer();
    let uri = match &libvirt {
        Ok(libvirt) => Some(libvirt.unix_with(&domains(bench.scratch())?)),
        Err(_) => None,
    };
    let length = bench.length();
    let reply = session.ask("VM_List", "")?;
    let listed = reply.windows(4).filter(|four| four == b"<vm>").count();
    if listed != MACHINES {
        return Err(format!("P15: {listed} machines are listed"));
    }
    let config = paths.get(MACHINES / 2).map(|path| path.display().to_string()).unwrap_or_default();
    let info = format!("<config>{config}</config>");
    let mut quiet = bench.quiet();
    let none: Rounds = libvirt.as_ref().map(|_| Vec::new()).map_err(Clone::clone);
    let (mut list_peer, mut info_peer) = (none.clone(), none);
    let (mut list_ours, mut list_bound) = (Vec::new(), Vec::new());
    let (mut info_ours, mut info_bound) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        eprintln!("xtask: P15 P16, round {round} of {}", bench.rounds);
        list_ours.push(quiet.phase(|| repeated(length, || session.ask("VM_List", "").map(drop)))?);
        info_ours
            .push(quiet.phase(|| Ok(repeated(length, || session.ask("VM_INFO", &info).map(drop))? * 1e3))?);
        info_bound.push(quiet.phase(|| {
            Ok(repeated(length, || session.ask("inc", "<number>1</number>").map(drop))? * 1e3 + 5.0)
        })?);
        if let (Ok(libvirt), Some(uri)) = (&libvirt, &uri) {
            round_of(&mut list_peer, || quiet.phase(|| Ok(libvirt.lists(uri, length)?.p50)));
            round_of(&mut info_peer, || quiet.phase(|| Ok(libvirt.infos(uri, "vm05000", length)?.p50 * 1e3)));
        }
        let mut copy = vec![0u8; reply.len()];
        list_bound.push(quiet.phase(|| {
            repeated(length.min(Duration::from_millis(500)), || {
                copy.copy_from_slice(std::hint::black_box(&reply));
                std::hint::black_box(&copy);
                Ok(())
            })
        })?);
    }
    let notes = vec![format!("the reply has {:.1} MB", reply.len() as f64 / 1e6), quiet.describe()];
    Ok(vec![
        Outcome { target: &P15, ours: list_ours, peer: Some(list_peer), bound: Some(Ok(list_bound)), notes },
        Outcome {
            target: &P16,
            ours: info_ours,
            peer: Some(info_peer),
            bound: Some(Ok(info_bound)),
            notes: Vec::new(),
        },
    ])
}

/// P18: each change alone, beside what the file system takes for the like; then many at once.
///
/// # Errors
/// When a side fails.
pub fn changing(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let root = bench.scratch().join("changes");
    let extra = CHANGES.max(AT_ONCE);
    let mut paths = machines(bench.scratch(), &root, MACHINES + extra)?;
    let spare = paths.split_off(MACHINES);
    let list: String = paths.iter().map(|path| format!("config \"{}\"\n", path.display())).collect();
    fs::write(root.join("etc/vmware/vm-list"), &list).map_err(failed("writing vm-list"))?;
    let ours = Ours::start(bench.scratch(), "changes", bench.bin_dir())?;
    let mut first = session(&ours)?;
    let directory = root.join("etc/vmware");
    let mut quiet = bench.quiet();
    let (mut register, mut unregister, mut flush, mut whole, mut at_once) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        eprintln!("xtask: P18, round {round} of {}", bench.rounds);
        // Both in one phase: a phase that was disturbed is repeated from its beginning.
        let (registered, unregistered) = quiet.phase(|| {
            let mut each = |op: &str| -> Result<f64> {
                let mut took = Vec::new();
                for path in spare.iter().take(CHANGES) {
                    let start = Instant::now();
                    first.ask(op, &format!("<config>{}</config>", path.display()))?;
                    took.push(start.elapsed().as_secs_f64() * 1e3);
                }
                Ok(median(took))
            };
            Ok((each("VMRegister")?, each("VMUnRegister")?))
        })?;
        register.push(registered);
        unregister.push(unregistered);
        flush.push(quiet.phase(|| appended(&directory))?);
        whole.push(quiet.phase(|| rewritten(&directory, list.as_bytes()))?);
        at_once.push(together(&ours, &spare)?);
        for path in spare.iter().take(AT_ONCE) {
            first.ask("VMUnRegister", &format!("<config>{}</config>", path.display()))?;
        }
    }
    let shared = format!("{AT_ONCE} at once took {:.1} ms together", median(at_once));
    Ok(vec![
        Outcome {
            target: &P18,
            ours: register,
            peer: None,
            bound: Some(Ok(flush)),
            notes: vec![shared, quiet.describe()],
        },
        Outcome { target: &P18U, ours: unregister, peer: None, bound: Some(Ok(whole)), notes: Vec::new() },
    ])
}

/// What it takes to append a line durably.
fn appended(directory: &Path) -> Result<f64> {
    let path = directory.join("floor");
    let file = File::create(&path).map_err(failed("a file"))?;
    file.write_all_at(&vec![b'x'; 600_000], 0).and_then(|()| file.sync_all()).map_err(failed("a file"))?;
    let mut took = Vec::new();
    for number in 0..CHANGES as u64 {
        let start = Instant::now();
        file.write_all_at(&[b'y'; 60], 600_000 + 60 * number)
            .and_then(|()| file.sync_data())
            .map_err(failed("appending"))?;
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let _ = fs::remove_file(path);
    Ok(median(took))
}

/// What it takes to replace a whole file durably.
fn rewritten(directory: &Path, contents: &[u8]) -> Result<f64> {
    let (temporary, path) = (directory.join("floor.new"), directory.join("floor"));
    let mut took = Vec::new();
    for _ in 0..CHANGES {
        let start = Instant::now();
        let write = || -> std::io::Result<()> {
            let mut file = File::create(&temporary)?;
            file.write_all(contents)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(directory)?.sync_all()
        };
        write().map_err(failed("replacing a file"))?;
        took.push(start.elapsed().as_secs_f64() * 1e3);
    }
    let _ = fs::remove_file(path);
    Ok(median(took))
}

/// Milliseconds for registrations at the same time.
fn together(ours: &Ours, paths: &[PathBuf]) -> Result<f64> {
    let mut sessions = Vec::new();
    for path in paths.iter().take(AT_ONCE) {
        sessions.push((session(ours)?, format!("<config>{}</config>", path.display())));
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = sessions
            .iter_mut()
            .map(|(session, arguments)| scope.spawn(|| session.ask("VMRegister", arguments).map(drop)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a thread failed".to_owned())?)
    })?;
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

/// P19: the gateway stands, the server starts.
///
/// # Errors
/// When one of them does not start.
pub fn starting(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let root = bench.scratch().join("start");
    machines(bench.scratch(), &root, MACHINES)?;
    fs::write(root.join("etc/vmserverd.toml"), "[authd]\nlisten = \"127.0.0.1\"\n")
        .map_err(failed("settings"))?;
    let port = crate::bench::ours::free_port()?;
    fs::write(root.join("etc/vmware/config"), format!("authd.port = \"{port}\"\n"))
        .map_err(failed("settings"))?;
    let text = root.display().to_string();
    let arguments = ["--root", &text, "--die-with-parent"];
    let start =
        |name: &str| Child::start(&bench.bin_dir().join(name), Stdio::null(), &arguments, bench.scratch());
    let mut gateway = start("vmware-authd")?;
    let socket = root.join("run/vmware/authd.sock");
    gateway.until(|| UnixStream::connect(&socket))?;
    let mut quiet = bench.quiet();
    let (mut took, mut resident) = (Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        eprintln!("xtask: P19, round {round} of {}", bench.rounds);
        took.push(quiet.phase(|| {
            let began = Instant::now();
            let server = start("vmserverd")?;
            let stream = loop {
                match client::unix(&socket) {
                    Ok(stream) => break stream,
                    Err(_) if began.elapsed() < Duration::from_secs(20) => {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Err(error) => return Err(format!("no session: {error}")),
                }
            };
            let mut session = Session::over(stream);
            session.ask("inc", "<number>1</number>")?;
            let took = began.elapsed().as_secs_f64() * 1e3;
            session.ask("VM_List", "<details>0</details>")?;
            resident.push(resident_mb(server.pid())?);
            drop(session);
            drop(server);
            Ok(took)
        })?);
    }
    let loaded = bench.fresh_peer().and_then(|libvirt: Libvirt| {
        let uri = libvirt.unix_with(&domains(bench.scratch())?);
        libvirt.lists(&uri, Duration::from_millis(10)).map(drop)?;
        let start = Instant::now();
        libvirt.lists(&uri, Duration::from_millis(10)).map(drop)?;
        Ok((start.elapsed().as_secs_f64() * 1e3, resident_mb(libvirt.pid())?))
    });
    let peer = match loaded {
        Ok((ms, mb)) => {
            format!("libvirtd takes {ms:.0} ms to read as many at a connect, and then {mb:.0} MB")
        }
        Err(why) => format!("libvirt: SKIPPED ({why})"),
    };
    Ok(vec![
        Outcome { target: &P19, ours: took, peer: None, bound: None, notes: vec![peer, quiet.describe()] },
        Outcome {
            target: &P19M,
            ours: resident,
            peer: None,
            bound: None,
            notes: vec!["the core; a session process has a copy of the list of its own".to_owned()],
        },
    ])
}

/// Resident megabytes of a process.
fn resident_mb(pid: u32) -> Result<f64> {
    let mut status = String::new();
    File::open(format!("/proc/{pid}/status"))
        .and_then(|mut file| file.read_to_string(&mut status))
        .map_err(failed("reading /proc"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb: Option<f64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kb.map(|kb| kb / 1000.0).ok_or_else(|| "no VmRSS".to_owned())
}
