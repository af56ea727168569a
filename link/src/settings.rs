//! This project's own settings: one TOML file, `etc/vmserverd.toml` below the root.
//!
//! Every key has a default, so an absent file is a complete one. A key we do not know is refused,
//! and the error names the nearest one we do: a misspelt limit must not be a limit that is off.
//! The dots of a key are tables: `authd.login.delay` is `delay` below `[authd.login]`.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml_edit::{DocumentMut, TableLike};

/// All settings.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// The gateway.
    pub authd: Authd,
    /// The server.
    pub serverd: Serverd,
    /// Figures for monitoring.
    pub metrics: Metrics,
    /// The record of who did what.
    pub audit: Audit,
}

/// `[metrics]`: where figures can be read, as OpenMetrics over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Whether there is a unix socket.
    pub unix: bool,
    /// Its path; empty is `run/vmware/metrics.sock` below the root.
    pub socket: String,
    /// A loopback address and port to listen on as well, such as `127.0.0.1:9910`; empty is none.
    pub listen: String,
}

impl Metrics {
    /// The address to listen on, if any.
    ///
    /// # Errors
    /// A sentence that names the key when it is no address with a port, or one that other machines reach.
    pub fn address(&self) -> Result<Option<SocketAddr>, String> {
        if self.listen.is_empty() {
            return Ok(None);
        }
        let key = format!("metrics.listen = \"{}\"", self.listen);
        let address: SocketAddr = self
            .listen
            .parse()
            .map_err(|_| format!("{key} is no address with a port, such as \"127.0.0.1:9910\""))?;
        if !address.ip().to_canonical().is_loopback() {
            return Err(format!(
                "{key} is no loopback address: figures are for this machine only; use 127.0.0.1 or [::1]"
            ));
        }
        Ok(Some(address))
    }
}

/// `[audit]`: what is recorded of who did what.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Audit {
    /// How much.
    pub level: AuditLevel,
}

/// `audit.level`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuditLevel {
    /// Nothing; there is no file.
    Off = 0,
    /// Logins, sessions, what changes something, and what was refused.
    #[default]
    Changes = 1,
    /// Reading operations as well.
    All = 2,
}

impl AuditLevel {
    /// The level of that number; a number that none has is [`AuditLevel::Off`].
    #[must_use]
    pub fn from_number(number: u8) -> Self {
        [AuditLevel::Changes, AuditLevel::All]
            .into_iter()
            .find(|level| *level as u8 == number)
            .unwrap_or(AuditLevel::Off)
    }
}

/// `[authd]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Authd {
    /// Addresses to listen on, separated by spaces; `*` is every address of the machine.
    pub listen: String,
    /// A second TCP port that speaks the plain form of the protocol; 0 is none.
    pub plain_port: u16,
    /// Where serverd connects; empty is `run/vmware/authd-link.sock` below the root.
    pub link: String,
    /// `[authd.ssl]`
    pub ssl: Ssl,
    /// `[authd.pam]`
    pub pam: Pam,
    /// `[authd.local]`
    pub local: Local,
    /// `[authd.login]`
    pub login: Login,
    /// `[authd.session]`
    pub session: AuthdSession,
    /// `[authd.line]`
    pub line: Line,
    /// `[authd.connections]`
    pub connections: Connections,
}

/// `[authd.ssl]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ssl {
    /// PEM file; empty is `etc/vmware/ssl/rui.crt` below the root.
    pub certificate: String,
    /// PEM file; empty is `etc/vmware/ssl/rui.key` below the root.
    pub key: String,
}

/// `[authd.pam]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pam {
    /// PAM service whose `auth` and `account` stacks decide about passwords.
    pub service: String,
    /// Most helper processes that check passwords at the same time.
    pub workers: u32,
}

/// `[authd.local]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Local {
    /// Path of the socket for local callers; empty is `run/vmware/authd.sock` below the root.
    pub socket: String,
    /// Whether there is a unix socket at all.
    pub unix: bool,
    /// Whether `LOCAL` is allowed over loopback TCP.
    pub tcp: bool,
}

/// `[authd.login]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Login {
    /// Seconds from the connection to the login, TLS included.
    pub deadline: u32,
    /// Seconds between a wrong password and its answer.
    pub delay: u32,
    /// Most seconds that delay grows to.
    pub delay_max: u32,
}

/// `[authd.session]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthdSession {
    /// Seconds of silence allowed between the login and the hand-over.
    pub idle: u32,
}

/// `[authd.line]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Line {
    /// Longest command line in bytes, its end excluded: 512 to 65536.
    pub max: u32,
}

/// `[authd.connections]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Connections {
    /// Most connections that have not logged in, from one address.
    pub per_address: u32,
    /// The same in all.
    pub max: u32,
}

/// `[serverd]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Serverd {
    /// `[serverd.admin]`
    pub admin: Admin,
    /// `[serverd.product]`
    pub product: Product,
    /// `[serverd.sessions]`
    pub sessions: Sessions,
    /// `[serverd.compat]`
    pub compat: Compat,
    /// `[serverd.tasks]`
    pub tasks: Tasks,
    /// `[serverd.eventlog]`
    pub eventlog: EventLog,
    /// `[serverd.machines]`
    pub machines: Machines,
}

/// `[serverd.machines]`: what runs machines.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machines {
    /// Path of the program; empty is `vmx` beside `vmserverd`.
    pub vmx: String,
    /// Directory of `bios.bin` and `vgabios-isavga.bin`; empty is `/usr/share/seabios`.
    pub firmware: String,
}

/// `[serverd.admin]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Admin {
    /// Members of this group are administrators besides uid 0; empty is nobody.
    pub group: String,
}

/// `[serverd.product]`: what replies say the product is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Product {
    /// `title` of the product element.
    pub title: String,
    /// `version` of the product element.
    pub version: String,
    /// `build` of the product element.
    pub build: String,
    /// What `VM_GetProductInfo` says: 4 VMware Server, or 2 GSX Server, for scripts of that era. Never 3,
    /// ESX: clients of the C library would then call its functions in another way.
    pub number: u32,
}

/// `[serverd.sessions]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Sessions {
    /// Most sessions in all.
    pub max: u32,
    /// Most sessions of one user.
    pub per_user: u32,
    /// Seconds after which a session process without sessions or tasks leaves.
    pub idle: u32,
}

/// `[serverd.tasks]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Tasks {
    /// Most unfinished tasks of one user.
    pub per_user: u32,
    /// Most unfinished tasks in all.
    pub max: u32,
    /// Seconds that a finished task can still be asked about.
    pub keep: u32,
}

/// `[serverd.eventlog]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventLog {
    /// Directory of the event logs of machines, below the root.
    pub dir: String,
}

/// `[serverd.compat]`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Compat {
    /// Show the two bugs of VMware Server 1.0.3 for Windows again; for comparison tests only.
    pub historic_bugs: bool,
}

impl Default for Metrics {
    fn default() -> Self {
        Metrics { unix: true, socket: String::new(), listen: String::new() }
    }
}

impl Default for Authd {
    fn default() -> Self {
        Authd {
            listen: "*".into(),
            plain_port: 0,
            link: String::new(),
            ssl: Ssl::default(),
            pam: Pam::default(),
            local: Local::default(),
            login: Login::default(),
            session: AuthdSession::default(),
            line: Line::default(),
            connections: Connections::default(),
        }
    }
}

impl Default for Pam {
    fn default() -> Self {
        Pam { service: "vmware-authd".into(), workers: 64 }
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Tasks { per_user: 16, max: 256, keep: 86400 }
    }
}

impl Default for EventLog {
    fn default() -> Self {
        EventLog { dir: "/var/log/vmware".into() }
    }
}

impl Default for Local {
    fn default() -> Self {
        Local { socket: String::new(), unix: true, tcp: true }
    }
}

impl Default for Login {
    fn default() -> Self {
        Login { deadline: 30, delay: 3, delay_max: 30 }
    }
}

impl Default for AuthdSession {
    fn default() -> Self {
        AuthdSession { idle: 300 }
    }
}

impl Default for Line {
    fn default() -> Self {
        Line { max: 4096 }
    }
}

impl Default for Connections {
    fn default() -> Self {
        Connections { per_address: 64, max: 1024 }
    }
}

impl Default for Product {
    fn default() -> Self {
        // The values captured from VMware Server 1.0.3.
        Product {
            title: "VMware Server".into(),
            version: "1.0.3 build-44356".into(),
            build: "44356".into(),
            number: 4,
        }
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Sessions { max: 16_000, per_user: 12_000, idle: 60 }
    }
}

impl Settings {
    /// Reads the file; a missing one means every default.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, has an unknown key or a value out of range; the
    /// text names path, key and remedy.
    pub fn load(path: &Path) -> io::Result<Self> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|why| {
                io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(crate::layout::describe(&error, "cannot read", path)),
        }
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
        let known = toml_edit::ser::to_document(&Self::default()).map_err(|error| error.to_string())?;
        check_keys(document.as_table(), known.as_table(), "")?;
        let settings: Settings = toml_edit::de::from_document(document).map_err(|error| error.to_string())?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<(), String> {
        let within = |key: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("{key} = {value} is out of range: {least} to {most}"))
            }
        };
        let authd = &self.authd;
        within("authd.line.max", authd.line.max, 512, 65536)?;
        within("authd.login.deadline", authd.login.deadline, 1, 3600)?;
        within("authd.login.delay", authd.login.delay, 0, 60)?;
        within("authd.login.delayMax", authd.login.delay_max, authd.login.delay, 600)?;
        within("authd.session.idle", authd.session.idle, 1, 86_400)?;
        within("authd.connections.perAddress", authd.connections.per_address, 1, 65_536)?;
        within("authd.connections.max", authd.connections.max, 1, 65_536)?;
        within("authd.pam.workers", authd.pam.workers, 1, 1024)?;
        within("serverd.sessions.max", self.serverd.sessions.max, 1, 1_000_000)?;
        within("serverd.sessions.perUser", self.serverd.sessions.per_user, 1, 1_000_000)?;
        within("serverd.sessions.idle", self.serverd.sessions.idle, 1, 86_400)?;
        self.metrics.address()?;
        match self.serverd.product.number {
            2 | 4 => Ok(()),
            other => Err(format!("serverd.product.number = {other} is neither 4 (Server) nor 2 (GSX)")),
        }
    }

    /// The path a setting names, or `default` when it is empty.
    #[must_use]
    pub fn path_or(setting: &str, default: PathBuf) -> PathBuf {
        if setting.is_empty() { default } else { PathBuf::from(setting) }
    }
}

/// Seconds of a setting as a duration.
#[must_use]
pub fn seconds(value: u32) -> Duration {
    Duration::from_secs(u64::from(value))
}

/// Refuses keys that the defaults do not have, and names the nearest that they do.
fn check_keys(given: &dyn TableLike, known: &dyn TableLike, prefix: &str) -> Result<(), String> {
    for (key, value) in given.iter() {
        let full = format!("{prefix}{key}");
        match known.get(key) {
            Some(known) => {
                if let (Some(known), Some(given)) = (known.as_table_like(), value.as_table_like()) {
                    check_keys(given, known, &format!("{full}."))?;
                }
            }
            None => {
                let nearest = known
                    .iter()
                    .map(|(name, _)| name)
                    .max_by(|a, b| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key)));
                let hint = nearest.map(|name| format!("; did you mean {prefix}{name}?")).unwrap_or_default();
                return Err(format!("unknown key {full}{hint}"));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_every_default() {
        assert_eq!(Settings::parse(""), Ok(Settings::default()));
        assert_eq!(Settings::load(Path::new("/nonexistent/settings")).unwrap(), Settings::default());
    }

    #[test]
    fn dots_are_tables() {
        let settings = Settings::parse("authd.login.delayMax = 5\n[serverd.product]\nbuild = \"1\"").unwrap();
        assert_eq!(settings.authd.login.delay_max, 5);
        assert_eq!(settings.serverd.product.build, "1");
        assert_eq!(settings.authd.login.delay, 3);
    }

    /// Whoever takes the comment away from a line of the file that is installed has settings that are right, and
    /// the manual page has every key there is.
    #[test]
    fn what_is_installed_names_keys_that_exist() {
        let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
        let text = std::fs::read_to_string(packaging.join("config/vmserverd.toml")).unwrap();
        let setting = |line: &str| {
            let line = line.strip_prefix("# ")?;
            let key = line.split_once(" = ").map_or("", |(key, _)| key);
            let is_key = !key.is_empty() && key.chars().all(|one| one.is_alphanumeric() || one == '_');
            (line.starts_with('[') || is_key).then(|| line.to_owned())
        };
        let lines: Vec<String> = text.lines().filter_map(setting).collect();
        let settings = Settings::parse(&lines.join("\n")).unwrap();
        assert_eq!((settings.serverd.admin.group.as_str(), settings.authd.plain_port), ("vmadmins", 903));
        let page = std::fs::read_to_string(packaging.join("man/vmserverd.toml.5")).unwrap();
        let known = toml_edit::ser::to_document(&Settings::default()).unwrap();
        let mut missing = Vec::new();
        missing_in(&page, known.as_table(), "", &mut missing);
        assert_eq!(missing, Vec::<String>::new());
    }

    /// The keys that the part of a page below the name of their table does not have.
    fn missing_in(page: &str, table: &dyn TableLike, name: &str, missing: &mut Vec<String>) {
        let part = page.split_once(&format!(".SS [{name}]\n")).map_or("", |(_, rest)| rest);
        let part = part.split("\n.S").next().unwrap_or_default();
        let words: Vec<&str> = part.lines().filter_map(|line| line.strip_prefix(".BR ")).collect();
        let words = words.join(" ").replace(['"', ',', '(', ')'], " ");
        for (key, value) in table.iter() {
            let full = if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
            if let Some(table) = value.as_table_like() {
                missing_in(page, table, &full, missing);
            } else if !words.split_whitespace().any(|word| word == key) {
                missing.push(full);
            }
        }
    }

    #[test]
    fn a_misspelt_key_names_its_neighbour() {
        let error = Settings::parse("[authd.login]\ndelaymax = 5").unwrap_err();
        assert_eq!(error, "unknown key authd.login.delaymax; did you mean authd.login.delayMax?");
        let error = Settings::parse("[authd.logins]").unwrap_err();
        assert!(error.contains("authd.login?"), "{error}");
    }

    #[test]
    fn figures_are_for_this_machine_only() {
        for wrong in
            ["0.0.0.0:9902", "192.168.1.1:9902", "[::]:1", "[2001:db8::1]:1", "127.0.0.1", "localhost:1"]
        {
            let error = Settings::parse(&format!("metrics.listen = \"{wrong}\"")).unwrap_err();
            assert!(error.starts_with(&format!("metrics.listen = \"{wrong}\" is no ")), "{error}");
        }
        for right in ["127.0.0.1:9902", "127.9.9.9:1", "[::1]:9902"] {
            let settings = Settings::parse(&format!("metrics.listen = \"{right}\"")).unwrap();
            assert_eq!(settings.metrics.address(), Ok(Some(right.parse().unwrap())));
        }
        assert_eq!(Settings::default().metrics.address(), Ok(None));
    }

    #[test]
    fn the_audit_has_three_levels() {
        for level in [AuditLevel::Off, AuditLevel::Changes, AuditLevel::All] {
            assert_eq!(AuditLevel::from_number(level as u8), level);
        }
        assert_eq!(Settings::parse("audit.level = \"all\"").unwrap().audit.level, AuditLevel::All);
        let error = Settings::parse("audit.level = \"some\"").unwrap_err();
        assert!(error.contains("`off`, `changes`, `all`"), "{error}");
    }

    #[test]
    fn values_out_of_range_and_of_the_wrong_type_are_refused() {
        let error = Settings::parse("authd.line.max = 100").unwrap_err();
        assert_eq!(error, "authd.line.max = 100 is out of range: 512 to 65536");
        assert!(Settings::parse("authd.line.max = \"many\"").is_err());
        assert!(Settings::parse("authd.line.max = -1").is_err());
        assert!(Settings::parse("authd = 1").is_err());
        assert!(Settings::parse("[authd").is_err());
    }
}
