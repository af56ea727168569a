//! Real accounts of this machine, made for a test and removed after it.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Names of all accounts made here start so; a number and a letter follow.
const PREFIX: &str = "vmsrvt";

/// An account with a password and a home directory below /tmp.
#[derive(Debug)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Password in clear.
    pub password: String,
    /// User id.
    pub uid: u32,
    /// Primary group id; a group of its own.
    pub gid: u32,
    /// Home directory, owned by the account, mode 0755.
    pub home: PathBuf,
}

impl Account {
    /// Makes an account. Needs root.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}x{number}", std::process::id());
        let password = format!("Right-{number} horse:staple%25");
        // The gateway reads `%25` as `%`, and so the account's real password has the bare `%`.
        let real = password.replace("%25", "%");
        let hash = output(Command::new("openssl").args(["passwd", "-6", &real]));
        let home = PathBuf::from(format!("/tmp/{name}"));
        let _lock = database_lock();
        sweep();
        let mut command = Command::new("useradd");
        command.args(["--user-group", "--create-home", "--shell", "/bin/sh", "--key", "HOME_MODE=0755"]);
        command.arg("--home-dir").arg(&home).args(["--password", hash.trim(), &name]);
        output(&mut command);
        let id =
            |which: &str| output(Command::new("id").args([which, &name])).trim().parse().expect("a number");
        Account { uid: id("-u"), gid: id("-g"), name, password, home }
    }

    /// The account as clients of today know it: with a password without anything to escape.
    #[must_use]
    pub fn with_plain_password() -> Self {
        let mut account = Self::new();
        account.password = "Right-horse-staple-7".to_owned();
        let hash = output(Command::new("openssl").args(["passwd", "-6", &account.password]));
        let _lock = database_lock();
        output(Command::new("usermod").args(["--password", hash.trim(), &account.name]));
        account
    }

    /// The number as the owner of a path.
    #[must_use]
    pub fn owns(&self, path: &Path) -> bool {
        use std::os::unix::fs::MetadataExt;
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.uid() == self.uid)
    }
}

impl Default for Account {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let _lock = database_lock();
        remove(&self.name);
    }
}

/// One at a time: useradd gives up at once when somebody else has the user database locked.
fn database_lock() -> File {
    let path = std::env::temp_dir().join("vmserverd-tests-accounts.lock");
    let file = File::options().create(true).append(true).open(path).expect("a lock in /tmp");
    file.lock().expect("the lock");
    file
}

/// Removes what a test program that was killed left behind.
fn sweep() {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    for name in passwd.lines().filter_map(|line| line.split(':').next()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('x').next()?.parse::<u32>().ok());
        if maker.is_some_and(|maker| !Path::new(&format!("/proc/{maker}")).exists()) {
            remove(name);
        }
    }
}

fn remove(name: &str) {
    // A session process of the account may still be leaving: --force removes it all the same.
    let mut command = Command::new("userdel");
    command.args(["--force", "--remove", name]).stdin(Stdio::null());
    let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
}

/// Runs a program that must succeed and returns what it printed.
pub fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}
