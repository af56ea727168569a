//! The repository and its cargo.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// What an instance is made of: the two daemons, what runs a machine (the server looks for it beside
/// itself), and the command line. Package and binary.
pub const DAEMONS: [(&str, &str); 4] =
    [("authd", "vmware-authd"), ("serverd", "vmserverd"), ("vmx", "vmx"), ("vmware-cmd", "vmware-cmd")];

/// Where the daemons' binaries are.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `vmware-authd`
    pub authd: PathBuf,
    /// `vmserverd`
    pub serverd: PathBuf,
    /// `vmware-cmd`, which no instance needs: whoever uses one does.
    pub command: Option<PathBuf>,
}

impl Binaries {
    /// Takes the binaries from a directory, as they are.
    ///
    /// # Errors
    /// Names the one that is missing.
    pub fn in_directory(directory: &Path) -> Result<Self> {
        let find = |name: &str| {
            let path = directory.join(name);
            if path.is_file() { Ok(path) } else { Err(format!("there is no {}", path.display())) }
        };
        let (authd, serverd, command) = (find("vmware-authd")?, find("vmserverd")?, find("vmware-cmd").ok());
        Ok(Binaries { authd, serverd, command })
    }

    /// Builds the daemons and the command line in release; what cargo has to say goes to standard error.
    ///
    /// # Errors
    /// When the build fails.
    pub fn build() -> Result<Self> {
        let mut built = build_release(&DAEMONS.map(|(package, _)| package))?;
        let command = built.remove("vmware-cmd");
        let mut take = |name: &str| built.remove(name).ok_or_else(|| format!("cargo built no binary {name}"));
        Ok(Binaries { authd: take("vmware-authd")?, serverd: take("vmserverd")?, command })
    }

    /// What to type to use the command line on an instance.
    pub fn vmware_cmd(&self, root: &Path) -> Option<String> {
        let command = self.command.as_ref()?;
        Some(format!("{} --root {}", command.display(), root.display()))
    }
}

/// The directory of the workspace. Cargo names it when it starts us; a copy of this binary that was
/// started by hand falls back to where it was built.
pub fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    manifest.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// A cargo command in the workspace.
pub fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(arguments);
    // Facts about xtask itself, set by `cargo run`: build scripts would see them as changed inputs.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    command
}

/// Where commands run that only need a processor.
#[derive(Debug)]
pub struct Runner {
    /// What the commands said, when nobody should see it while it comes.
    said: Option<RefCell<String>>,
}

impl Runner {
    /// As they are called, and speaking for themselves.
    pub fn in_front() -> Self {
        Runner { said: None }
    }

    /// Beside something that is timed: at idle priority where there is `chrt`, and what they say is kept.
    pub fn in_shadow() -> Self {
        Runner { said: Some(RefCell::default()) }
    }

    /// What the commands in the shadow had to say.
    pub fn said(self) -> String {
        self.said.map(RefCell::into_inner).unwrap_or_default()
    }

    /// Runs a command; `what` names it.
    ///
    /// # Errors
    /// When it cannot be started or fails.
    pub fn run(&self, mut command: Command, what: &str) -> Result<()> {
        let Some(said) = &self.said else {
            eprintln!("xtask: {what}");
            return run(&mut command, what);
        };
        let mut command = if installed("chrt") { idle(&command) } else { command };
        let output = command.stdin(Stdio::null()).output();
        let output = output.map_err(|error| format!("cannot run {what}: {error}"))?;
        let mut said = said.borrow_mut();
        let _ = writeln!(said, "xtask: {what}");
        said.push_str(&String::from_utf8_lossy(&output.stdout));
        said.push_str(&String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(()) } else { Err(format!("{what} failed ({})", output.status)) }
    }
}

/// The same command, run only when nobody else wants the processor.
fn idle(command: &Command) -> Command {
    let mut idle = Command::new("chrt");
    idle.args(["--idle", "0"]).arg(command.get_program()).args(command.get_args());
    if let Some(directory) = command.get_current_dir() {
        idle.current_dir(directory);
    }
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => idle.env(name, value),
            None => idle.env_remove(name),
        };
    }
    idle
}

/// Runs a command that speaks for itself on standard error.
///
/// # Errors
/// When it cannot be started or fails; `what` names it.
pub fn run(command: &mut Command, what: &str) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().map_err(|error| format!("cannot run {what}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{what} failed ({status})")) }
}

/// Whether a program can be found in PATH.
pub fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// Builds packages in release and tells where their binaries are, by name.
///
/// # Errors
/// When the build fails; cargo has then said why on standard error.
pub fn build_release(packages: &[&str]) -> Result<BTreeMap<String, PathBuf>> {
    let mut command = cargo(&["build", "--release", "--quiet", "--message-format=json-render-diagnostics"]);
    for package in packages {
        command.args(["--package", package]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot run cargo: {error}"))?;
    let mut built = BTreeMap::new();
    for line in child.stdout.take().map(BufReader::new).into_iter().flat_map(BufRead::lines) {
        let line = line.map_err(|error| format!("cannot read from cargo: {error}"))?;
        if let Some((name, path)) = serde_json::from_str(&line).ok().as_ref().and_then(executable) {
            built.insert(name, path);
        }
    }
    let status = child.wait().map_err(|error| format!("cannot wait for cargo: {error}"))?;
    if status.success() { Ok(built) } else { Err(format!("cargo build failed ({status})")) }
}

/// Name and path of the binary that one of cargo's messages is about, if it is about one.
fn executable(message: &serde_json::Value) -> Option<(String, PathBuf)> {
    let path = message.get("executable")?.as_str()?;
    let name = message.get("target")?.get("name")?.as_str()?;
    Some((name.to_owned(), PathBuf::from(path)))
}
