//! L1: exec round trips through the C library, beside the same over a socket by hand.
//!
//! Both are done by one program in C (`library.c`), in turns, each on one connection: what differs is
//! the library and nothing else.

use std::process::{Command, Stdio};

use crate::Result;
use crate::bench::Bench;
use crate::bench::report::{Against, Line, Outcome, Target};
use crate::workspace::{build_release, root};

/// Calls per second, one connection.
pub static L1: Target = Target {
    id: "L1",
    what: "inc through the C library, one connection",
    unit: "calls/s",
    digits: 0,
    more: true,
    lines: &[Line { against: Against::Bound, pass: Some(0.85), stretch: None }],
};

/// The library, and a bare socket.
///
/// # Errors
/// When a C compiler is missing or a side fails.
pub fn round_trips(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let library = bench.bin_dir().join("libvmcontrol.so");
    if !library.exists() {
        build_release(&["vmcontrol"])?;
    }
    let socket = bench.ours()?.socket.clone();
    let program = bench.scratch().join("library");
    let soname = bench.scratch().join("libvmcontrol.so.1");
    std::fs::copy(&library, &soname)
        .map_err(|error| format!("cannot copy {}: {error}", library.display()))?;
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-o"]).arg(&program).arg(root().join("xtask/src/bench/library.c"));
    compile.arg("-I").arg(root().join("vmcontrol/include")).arg(&soname);
    said(compile.arg(format!("-Wl,-rpath,{}", bench.scratch().display())))?;
    let rounds = bench.rounds;
    // The socket is ROOT/run/vmware/authd.sock.
    let instance = socket.ancestors().nth(3).ok_or("the socket has no instance around it")?;
    let (mut ours, mut bound) = (Vec::new(), Vec::new());
    let mut quiet = bench.quiet();
    for _ in 0..rounds {
        let line = quiet.phase(|| {
            let mut measure = Command::new(&program);
            measure.arg(&socket).args([bench.seconds.to_string()]).env("VMSERVERD_ROOT", instance);
            said(&mut measure)
        })?;
        let mut numbers = line.split_whitespace().map(str::parse::<f64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(library)), Some(Ok(socket))) => {
                ours.push(library);
                bound.push(socket);
            }
            _ => return Err(format!("the measuring program said {line:?}")),
        }
    }
    let notes = vec![quiet.describe()];
    Ok(vec![Outcome { target: &L1, ours, peer: None, bound: Some(Ok(bound)), notes }])
}

/// What a program that must succeed prints.
///
/// # Errors
/// When it cannot be started or fails; the text ends with what it said.
pub fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(format!("{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr)))
}
