//! What the monitor reads from disk, at start and on SIGHUP.

use std::io;
use std::path::PathBuf;

use link::logfile::Sink;
use link::product_config::ProductConfig;
use link::{Layout, Settings, settings};

use crate::certificate::{self, Files};
use crate::messages::{FromMonitor, Kind};
use crate::monitor::listeners::{Listener, Place};
use crate::monitor::security::{CONSOLE, MANAGEMENT, State};

/// Everything read, checked.
pub struct Loaded {
    /// This project's settings.
    pub settings: Settings,
    /// Whether the main port speaks TLS.
    pub tls: bool,
    /// Where to listen when the service manager passed nothing.
    pub places: Vec<(Kind, Place)>,
    /// What is encrypted, and with which certificate.
    pub state: State,
    /// Value of `serverd.fullpath`.
    pub serverd_path: String,
    /// Where the server core connects.
    pub link: PathBuf,
}

/// Reads both settings files and the certificate, which is made if there is none.
///
/// # Errors
/// A text that names file, key and remedy.
pub fn load(layout: &Layout) -> io::Result<Loaded> {
    let settings = Settings::load(&layout.settings())?;
    let product = ProductConfig::load(&layout.product_config())?;
    let port = match product.get("authd.port") {
        None => layout.default_port(),
        Some(text) => text.trim().parse().map_err(|_| {
            let path = layout.product_config();
            let text = format!("{}: authd.port = \"{text}\" is no port: 0 to 65535", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?,
    };
    let tls = product.flag(CONSOLE, true);
    let authd = &settings.authd;
    let mut places = Vec::new();
    for address in authd.listen.split_whitespace() {
        if port != 0 {
            let kind = if tls { Kind::Tls } else { Kind::Plain };
            places.push((kind, Place::Tcp(address.to_owned(), port)));
        }
        if authd.plain_port != 0 && (tls || authd.plain_port != port) {
            places.push((Kind::Plain, Place::Tcp(address.to_owned(), authd.plain_port)));
        }
    }
    if authd.local.unix {
        let named = product.get("authd.local.socket").unwrap_or(&authd.local.socket);
        places.push((Kind::Unix, Place::Unix(Settings::path_or(named, layout.authd_socket()))));
    }
    let ssl = layout.ssl_directory();
    let files = Files {
        certificate: Settings::path_or(&authd.ssl.certificate, ssl.join("rui.crt")),
        key: Settings::path_or(&authd.ssl.key, ssl.join("rui.key")),
    };
    let pair = certificate::load_or_create(&files)?;
    let state = State { console: tls, management: product.flag(MANAGEMENT, true), files, pair };
    let serverd_path = product.get("serverd.fullpath").unwrap_or("/usr/sbin/vmware-serverd").to_owned();
    let link = Settings::path_or(&authd.link, layout.link_socket());
    Ok(Loaded { tls, places, state, serverd_path, link, settings })
}

/// The log: the system's, or a file below the root of an instance.
///
/// # Errors
/// When the file cannot be opened.
pub fn open_log(layout: &Layout) -> io::Result<Sink> {
    if layout.installed()
        && let Ok(sink) = Sink::syslog()
    {
        return Ok(sink);
    }
    Ok(Sink::File(link::logfile::open(&layout.log_directory().join("vmware-authd.log"))?))
}

/// The configuration message for the network child.
#[must_use]
pub fn message(loaded: &Loaded, listeners: &[Listener]) -> FromMonitor {
    let authd = &loaded.settings.authd;
    FromMonitor::Config {
        kinds: listeners.iter().map(|listener| listener.kind as u8).collect(),
        certificate: loaded.state.pair.certificate.clone(),
        key: loaded.state.pair.key.to_vec(),
        thumbprint: loaded.state.pair.thumbprint.clone(),
        serverd_path: loaded.serverd_path.clone(),
        line_max: authd.line.max,
        login_deadline: authd.login.deadline,
        idle: authd.session.idle,
        per_address: authd.connections.per_address,
        connections: authd.connections.max,
    }
}

/// The delays of the settings: base and limit.
#[must_use]
pub fn delays(settings: &Settings) -> (std::time::Duration, std::time::Duration) {
    let login = &settings.authd.login;
    (settings::seconds(login.delay), settings::seconds(login.delay_max))
}
