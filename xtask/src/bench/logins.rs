//! P5: connect through TLS, log in with a password, ask once, close; one after another.
//!
//! ```text
//!   ours    TCP ─ banner ─ TLS handshake ─ USER, PASS ─ GLOBAL server ─ inc ─ close
//!   peer    virConnectOpen and close over mutual TLS
//!   bound   a TLS handshake in memory, both ends; and PAM from start to end
//! ```
//!
//! PAM says yes to any password (`pam_permit`), so that no hash is measured, on either side.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use crate::Result;
use crate::bench::client::Login;
use crate::bench::load::{self, Caller};
use crate::bench::ours::Ours;
use crate::bench::pam::{Service, own_name};
use crate::bench::report::{Against, Line, Outcome, Rounds, Target, median};
use crate::bench::{Bench, bounds, client, library, round_of};
use crate::skip::skipped;
use crate::workspace::root;

/// Logins per second.
pub static P5: Target = Target {
    id: "P5",
    what: "TLS connect, PASS, GLOBAL, inc, close",
    unit: "logins/s",
    digits: 0,
    more: true,
    lines: &[
        Line { against: Against::Peer, pass: Some(6.0), stretch: None },
        // At most 1.5 times as long as the floor.
        Line { against: Against::Bound, pass: None, stretch: Some(1.0 / 1.5) },
    ],
};

/// P5.
///
/// # Errors
/// When our side or the bound fails.
pub fn remote(bench: &mut Bench) -> Result<Vec<Outcome>> {
    let service = match Service::new("permit", "pam_permit.so") {
        Ok(service) => service,
        Err(why) => {
            skipped("P5", &why);
            return Ok(Vec::new());
        }
    };
    let name = own_name()?;
    let ours = Ours::start_with(bench.scratch(), "logins", bench.bin_dir(), &[&service.setting()])?;
    let pam = bench.scratch().join("pam_floor");
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-o"]).arg(&pam).arg(root().join("xtask/src/bench/pam_floor.c")).arg("-lpam");
    library::said(&mut compile)?;
    let server = Arc::new(bounds::server_config(&ours.certificate()).map_err(|error| error.to_string())?);
    let config = client::tls_config()?;
    let length = bench.length();
    let short = length.div_f64(3.0);
    let mut peer: Rounds = bench.libvirt().map(|_| Vec::new());
    let mut quiet = bench.quiet();
    let (mut rates, mut bound, mut p50, mut shakes, mut pams) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 1..=bench.rounds {
        eprintln!("xtask: P5, round {round} of {}", bench.rounds);
        let mut caller = [Login { port: ours.tls_port, config: Arc::clone(&config), name: name.clone() }];
        let sample = quiet.phase(|| load::run(&mut caller, length))?;
        rates.push(sample.rate);
        p50.push(sample.p50);
        if let Ok(libvirt) = bench.libvirt() {
            round_of(&mut peer, || quiet.phase(|| Ok(libvirt.opens(&libvirt.tls, length)?.rate)));
        }
        shakes.push(quiet.phase(|| handshakes(&config, &server, short))?);
        pams.push(quiet.phase(|| {
            let mut measure = Command::new(&pam);
            let text = library::said(measure.args([&service.name, &name, &short.as_secs_f64().to_string()]))?;
            text.trim().parse::<f64>().map_err(|_| format!("pam_floor said {text:?}"))
        })?);
        if let (Some(shake), Some(pam)) = (shakes.last(), pams.last()) {
            bound.push(1e3 / (shake + pam));
        }
    }
    let notes = vec![
        format!(
            "p50 of a login {:.2} ms; a handshake in memory {:.2} ms, PAM from start to end {:.2} ms",
            median(&p50),
            median(&shakes),
            median(&pams)
        ),
        quiet.describe(),
    ];
    Ok(vec![Outcome { target: &P5, ours: rates, peer: Some(peer), bound: Some(Ok(bound)), notes }])
}

/// Milliseconds of a full handshake, both ends in this thread.
fn handshakes(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>, length: Duration) -> Result<f64> {
    let (start, mut count) = (Instant::now(), 0u32);
    while start.elapsed() < length || count == 0 {
        handshake(client, server).map_err(|error| format!("a handshake in memory: {error}"))?;
        count += 1;
    }
    Ok(start.elapsed().as_secs_f64() * 1e3 / f64::from(count))
}

fn handshake(client: &Arc<ClientConfig>, server: &Arc<ServerConfig>) -> std::io::Result<()> {
    let name = ServerName::try_from("localhost").map_err(std::io::Error::other)?;
    let mut client = ClientConnection::new(Arc::clone(client), name).map_err(std::io::Error::other)?;
    let mut server = ServerConnection::new(Arc::clone(server)).map_err(std::io::Error::other)?;
    let mut bytes = Vec::new();
    while client.is_handshaking() || server.is_handshaking() {
        bytes.clear();
        while client.wants_write() {
            client.write_tls(&mut bytes)?;
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            server.read_tls(&mut rest)?;
            server.process_new_packets().map_err(std::io::Error::other)?;
        }
        bytes.clear();
        while server.wants_write() {
            server.write_tls(&mut bytes)?;
        }
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            client.read_tls(&mut rest)?;
            client.process_new_packets().map_err(std::io::Error::other)?;
        }
    }
    Ok(())
}

impl Caller for Login {
    fn call(&mut self) -> std::io::Result<()> {
        client::password(self, "password").and_then(client::once)
    }
}
