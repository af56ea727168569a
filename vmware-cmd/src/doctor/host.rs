//! What the checks look at: an instance below its root, and this machine.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use link::product_config::ProductConfig;
use link::{Layout, Settings};

use crate::failure::Failure;
use crate::grammar::Options;

/// An instance on this machine.
pub(super) struct Host {
    /// Where its files are.
    pub layout: Layout,
    /// `etc/vmware/config`; why it cannot be used.
    pub config: Result<ProductConfig, String>,
    /// `etc/vmserverd.toml`; why it cannot be used.
    pub settings: Result<Settings, String>,
    /// Whether the instance is run by root: if not, one user has it all to himself.
    pub privileged: bool,
    /// What belongs to the machine: `/proc`, `/dev`, `/etc/pam.d`, `/etc/group`, below this.
    pub system: PathBuf,
}

impl Host {
    /// The instance that the options mean.
    pub fn look(options: &Options) -> Result<Self, Failure> {
        let root = options.root.clone().or_else(|| std::env::var_os("VMSERVERD_ROOT").map(PathBuf::from));
        let root = root.unwrap_or_else(|| "/".into());
        let layout = Layout::new(Some(&root)).map_err(|error| Failure::Said(error.to_string()))?;
        Ok(Self::of(layout, "/".into()))
    }

    /// An instance, and what stands for `/`.
    pub fn of(layout: Layout, system: PathBuf) -> Self {
        let config = ProductConfig::load(&layout.product_config()).map_err(|error| error.to_string());
        let settings = Settings::load(&layout.settings()).map_err(|error| error.to_string());
        // Who runs it owns its directory; where there is none, it can only be an installed copy.
        let owner = fs::metadata(layout.path("/run/vmware")).map(|facts| facts.uid());
        let privileged = owner.map_or(layout.installed(), |uid| uid == 0);
        Host { layout, config, settings, privileged, system }
    }

    /// The settings, or the usual ones where there are none that can be used.
    pub fn usual(&self) -> Settings {
        self.settings.clone().unwrap_or_default()
    }

    /// A file of this machine.
    pub fn file(&self, absolute: &str) -> PathBuf {
        self.system.join(absolute.trim_start_matches('/'))
    }

    /// The port of the gateway; 0 is none.
    pub fn port(&self) -> u16 {
        let set = self.config.as_ref().ok().and_then(|config| config.get("authd.port")?.parse().ok());
        set.unwrap_or(if self.privileged { 902 } else { 9902 })
    }

    /// How the server is started.
    pub fn start(&self) -> String {
        if self.layout.installed() {
            "systemctl start vmware-authd vmserverd".to_owned()
        } else {
            format!("cargo xtask up --root {}", quoted(self.layout.root()))
        }
    }

    /// How this program is called for this instance.
    pub fn command(&self) -> String {
        if self.layout.installed() {
            "vmware-cmd".to_owned()
        } else {
            format!("vmware-cmd --root {}", quoted(self.layout.root()))
        }
    }

    /// Processes of this instance with that name: their directories below `/proc`.
    pub fn processes(&self, name: &str) -> Vec<PathBuf> {
        let all = fs::read_dir(self.file("/proc")).into_iter().flatten().flatten();
        let directories = all.map(|entry| entry.path());
        let ours = |directory: &PathBuf| {
            let named = fs::read_to_string(directory.join("comm")).is_ok_and(|comm| comm.trim_end() == name);
            named && self.belongs(directory)
        };
        directories.filter(ours).collect()
    }

    /// Whether a process works below our root: its command line names it, unless it is the installed
    /// copy, which is named nowhere.
    fn belongs(&self, process: &Path) -> bool {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        let root = words.windows(2).find_map(|pair| match pair {
            [option, value] if *option == b"--root" => Some(*value),
            _ => None,
        });
        match root {
            Some(root) => root == self.layout.root().as_os_str().as_encoded_bytes(),
            None => self.layout.installed(),
        }
    }
}

/// A path as a shell takes it.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|letter| letter.is_ascii_alphanumeric() || "/._-+:@".contains(letter));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
