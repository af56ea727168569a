//! PAM services of the bench's own, in /etc/pam.d, where libpam looks for them.

use std::path::PathBuf;

use crate::Result;

/// A service file, removed with the value.
#[derive(Debug)]
pub struct Service {
    /// What an instance is told to use.
    pub name: String,
}

impl Service {
    /// A service whose `auth` stack is this one module; every account may log in.
    ///
    /// # Errors
    /// When this is not root, or the file cannot be written.
    pub fn new(kind: &str, module: &str) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err("PAM services and passwords need root".to_owned());
        }
        let service = Service { name: format!("vmserverd-bench-{}-{kind}", std::process::id()) };
        let text = format!("auth required {module}\naccount required pam_permit.so\n");
        let path = service.path();
        std::fs::write(&path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        Ok(service)
    }

    /// The setting that makes an instance use it.
    pub fn setting(&self) -> String {
        format!("authd.pam.service={:?}", self.name)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/etc/pam.d").join(&self.name)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

/// Login name of whoever runs the bench.
///
/// # Errors
/// When the user database does not know him.
pub fn own_name() -> Result<String> {
    let uid = rustix::process::geteuid().as_raw();
    let account = link::identity::Account::by_uid(uid);
    account.map(|account| account.name).ok_or_else(|| format!("uid {uid} has no name"))
}
