//! A directory that an instance lives in: who runs there, and with which settings.
//!
//! One file below the directory, locked for as long as the instance runs, tells a second one who is
//! there. The kernel drops the lock with the process, however it ends.

use std::fs::{File, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use link::Layout;
use link::product_config::{ProductConfig, replace_file};
use toml_edit::{DocumentMut, Item, Value};

use crate::Result;

/// The two TCP ports of an instance; 0 is off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// TLS form of the protocol.
    pub tls: u16,
    /// Plain form.
    pub plain: u16,
}

impl Ports {
    /// `tls=127.0.0.1:9902 plain=off`
    pub fn describe(self) -> String {
        let form = |port: u16| if port == 0 { "off".to_owned() } else { format!("127.0.0.1:{port}") };
        format!("tls={} plain={}", form(self.tls), form(self.plain))
    }
}

/// A directory that this process alone runs an instance in.
#[derive(Debug)]
pub struct Instance {
    /// Where its files are.
    pub layout: Layout,
    /// Its ports.
    pub ports: Ports,
    /// Held, not used: the lock goes with it.
    _lock: File,
}

impl Instance {
    /// Takes the directory, which is made if it is missing.
    ///
    /// # Errors
    /// When somebody runs there already (the text says who, where and how to stop it), or the
    /// directory cannot be used.
    pub fn claim(root: &Path, ports: Ports) -> Result<Self> {
        let layout = Layout::new(Some(root)).map_err(|error| error.to_string())?;
        link::layout::check_socket_path(&layout.authd_socket()).map_err(|error| error.to_string())?;
        layout.create_directories().map_err(|error| error.to_string())?;
        let path = layout.path("/run/xtask.lock");
        let said = |error: std::io::Error| format!("cannot use {}: {error}", path.display());
        let mut options = File::options();
        let mut file =
            options.read(true).write(true).create(true).truncate(false).open(&path).map_err(said)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::Error(error)) => return Err(said(error)),
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                file.read_to_string(&mut holder).map_err(said)?;
                return Err(taken(layout.root(), &holder));
            }
        }
        file.rewind().and_then(|()| file.set_len(0)).map_err(said)?;
        write!(file, "{}\n{}\n", std::process::id(), ports.describe()).map_err(said)?;
        Ok(Instance { layout, ports, _lock: file })
    }

    /// Writes the settings that decide about ports and keeps every other line of both files.
    ///
    /// `settings` are further keys of `vmserverd.toml`, such as `authd.login.delay`, with their
    /// values as TOML; a value that is no TOML is taken as text.
    ///
    /// # Errors
    /// When a file cannot be read, understood or written.
    pub fn configure(&self, settings: &[(String, String)]) -> Result<()> {
        self.write_product_config().map_err(|error| error.to_string())?;
        let path = self.layout.settings();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
        };
        let mut document: DocumentMut =
            text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
        if lookup(&document, "authd.listen").is_none() {
            set(&mut document, "authd.listen", Value::from("127.0.0.1"))?;
        }
        // The first port has the form that the product's settings say; with TLS on, plain callers
        // get a second one.
        let second = if self.ports.tls == 0 { 0 } else { self.ports.plain };
        set(&mut document, "authd.plainPort", Value::from(i64::from(second)))?;
        for (key, value) in settings {
            set(&mut document, key, value.parse().unwrap_or_else(|_| Value::from(value.as_str())))?;
        }
        replace_file(&path, document.to_string().as_bytes(), 0o644).map_err(|error| error.to_string())
    }

    fn write_product_config(&self) -> std::io::Result<()> {
        let path = self.layout.product_config();
        let mut config = ProductConfig::load(&path)?;
        let first = if self.ports.tls == 0 { self.ports.plain } else { self.ports.tls };
        config.set("authd.port", &first.to_string());
        if first != 0 {
            config.set("authd.client.port", &first.to_string());
        }
        config.set("security.host.ruissl", if self.ports.tls == 0 { "FALSE" } else { "TRUE" });
        config.store(&path, 0o644)
    }

    /// Where a daemon reports that it is ready.
    pub fn notify_socket(&self, daemon: &str) -> PathBuf {
        self.layout.path(&format!("/run/notify-{daemon}.sock"))
    }
}

/// What to tell somebody who finds the directory taken.
fn taken(root: &Path, holder: &str) -> String {
    let mut lines = holder.lines();
    let root = root.display();
    match (lines.next(), lines.next()) {
        (Some(pid), Some(ports)) => format!(
            "an instance runs in {root} already: process {pid}, {ports}\n\
             \x20      stop it with: kill {pid}\n\
             \x20      or run a second one in another directory and on other ports: \
             cargo xtask up --root DIR --tls-port N --plain-port M"
        ),
        _ => format!("an instance is being started in {root} by another process"),
    }
}

/// The value of a dotted key.
fn lookup<'a>(document: &'a DocumentMut, key: &str) -> Option<&'a Item> {
    key.split('.').try_fold(document.as_item(), |item, part| item.get(part))
}

/// Sets a dotted key; tables that are missing on the way are made.
fn set(document: &mut DocumentMut, key: &str, value: Value) -> Result<()> {
    let unusable = || format!("{key} cannot be set: a part of it is not a table");
    let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
    let mut table: &mut dyn toml_edit::TableLike = document.as_table_mut();
    for part in tables.split('.').filter(|part| !part.is_empty()) {
        let entry = table.entry(part).or_insert_with(|| {
            let mut made = toml_edit::Table::new();
            made.set_implicit(true);
            Item::Table(made)
        });
        table = entry.as_table_like_mut().ok_or_else(unusable)?;
    }
    table.insert(last, Item::Value(value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claimed(root: &Path, tls: u16, plain: u16) -> Instance {
        Instance::claim(root, Ports { tls, plain }).unwrap()
    }

    fn written(instance: &Instance) -> (ProductConfig, link::Settings) {
        let config = ProductConfig::load(&instance.layout.product_config()).unwrap();
        (config, link::Settings::load(&instance.layout.settings()).unwrap())
    }

    #[test]
    fn ports_become_settings() {
        let directory = tempfile::tempdir().unwrap();
        for (tls, plain, first, ruissl, second) in [
            (9902, 9903, "9902", true, 9903),
            (9902, 0, "9902", true, 0),
            (0, 9903, "9903", false, 0),
            (0, 0, "0", false, 0),
        ] {
            let instance = claimed(directory.path(), tls, plain);
            instance.configure(&[]).unwrap();
            let (config, settings) = written(&instance);
            assert_eq!(config.get("authd.port"), Some(first));
            assert_eq!(config.flag("security.host.ruissl", !ruissl), ruissl);
            assert_eq!(settings.authd.plain_port, second);
            assert_eq!(settings.authd.listen, "127.0.0.1");
        }
    }

    #[test]
    fn everything_else_in_the_files_stays() {
        let directory = tempfile::tempdir().unwrap();
        let instance = claimed(directory.path(), 0, 1);
        let toml = "# mine\n[authd]\nlisten = \"127.0.0.1 ::1\" # both\n\n[authd.login]\ndelay = 1\n";
        std::fs::write(instance.layout.settings(), toml).unwrap();
        std::fs::write(instance.layout.product_config(), "# mine\nvmdir = \"/vm\"\n").unwrap();
        let more = [("authd.login.delay", "0"), ("serverd.product.title", "My Server")];
        instance.configure(&more.map(|(key, value)| (key.into(), value.into()))).unwrap();
        let text = std::fs::read_to_string(instance.layout.settings()).unwrap();
        assert!(text.contains("# mine") && text.contains("::1\" # both"), "{text}");
        let (config, settings) = written(&instance);
        assert_eq!(config.get("vmdir"), Some("/vm"));
        assert_eq!(settings.authd.login.delay, 0);
        assert_eq!(settings.serverd.product.title, "My Server");
    }

    #[test]
    fn a_second_instance_in_the_same_directory_is_told_who_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let first = claimed(directory.path(), 9902, 0);
        let told = Instance::claim(directory.path(), Ports { tls: 1, plain: 2 }).unwrap_err();
        let pid = std::process::id();
        assert!(told.contains(&format!("process {pid}, tls=127.0.0.1:9902 plain=off")), "{told}");
        assert!(told.contains(&format!("kill {pid}")), "{told}");
        drop(first);
        claimed(directory.path(), 0, 0);
    }

    #[test]
    fn a_key_below_a_value_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let instance = claimed(directory.path(), 0, 0);
        let error = instance.configure(&[("authd.listen.x".into(), "1".into())]).unwrap_err();
        assert!(error.contains("not a table"), "{error}");
    }
}
