//! Where to connect, and as whom.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// Longest time that one call takes, unless something else is asked for.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_millis(120_000);

/// Where to connect, and as whom. The default is the server of this machine, as the owner of this
/// process.
#[derive(Clone)]
pub struct Params {
    /// Name or numeric address of the server's machine. None or empty: this machine, by the unix
    /// socket, else by TCP to the loopback address.
    pub host: Option<String>,
    /// TCP port. 0: `authd.client.port` of `/etc/vmware/config`, else 902. With no host and another
    /// port than that, the unix socket is not tried: it belongs to another instance.
    pub port: u16,
    /// Login name. None: the owner of this process, which works on this machine only.
    pub user: Option<String>,
    /// Password; wiped from memory when the value goes.
    pub password: Option<Zeroizing<String>>,
    /// Longest time that one call may take, opening included.
    pub timeout: Duration,
    /// Directory that the paths of the product (`/etc/vmware/config`, `/run/vmware/authd.sock`) are
    /// below. None: the environment variable `VMSERVERD_ROOT`, else `/`.
    pub root: Option<PathBuf>,
    /// File with the certificates that were seen before, one server a line. None: the environment
    /// variable `VMSERVERD_KNOWN_HOSTS`, else `.vmware/known_hosts` in the user's home directory.
    pub known_hosts: Option<PathBuf>,
}

impl Default for Params {
    fn default() -> Self {
        Self {
            host: None,
            port: 0,
            user: None,
            password: None,
            timeout: DEFAULT_TIMEOUT,
            root: None,
            known_hosts: None,
        }
    }
}

impl Params {
    /// The host, when one was named.
    pub(crate) fn host(&self) -> Option<&str> {
        self.host.as_deref().filter(|host| !host.is_empty())
    }

    /// The user, when one was named.
    pub(crate) fn user(&self) -> Option<&str> {
        self.user.as_deref().filter(|user| !user.is_empty())
    }
}

impl fmt::Debug for Params {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all = f.debug_struct("Params");
        all.field("host", &self.host).field("port", &self.port).field("user", &self.user);
        all.field("password", &self.password.as_ref().map(|_| "..."));
        all.field("timeout", &self.timeout).field("root", &self.root);
        all.field("known_hosts", &self.known_hosts).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_is_not_shown() {
        let password = Some(Zeroizing::new("secret".to_owned()));
        let shown = format!("{:?}", Params { password, ..Params::default() });
        assert!(!shown.contains("secret"), "{shown}");
    }
}
