//! Where an instance keeps its files.
//!
//! Everything lives below one prefix, the *root*: `/` for an installed copy, any directory given
//! with `--root` for `make run` and the tests, and the user's own state directory when an ordinary
//! user starts the server without one.
//!
//! ```text
//! ROOT/etc/vmware/config            the product's settings       key = "value"
//! ROOT/etc/vmware/vm-list           registered machines
//! ROOT/etc/vmware/ssl/rui.{crt,key} certificate and key of the gateway
//! ROOT/etc/vmserverd.toml           this project's own settings
//! ROOT/run/vmware/authd.sock        local callers                mode 0666
//! ROOT/run/vmware/authd-link.sock   the server core              mode 0600
//! ROOT/run/vmware/metrics.sock      figures for monitoring     mode 0666
//! ROOT/var/log/vmware/*.log         logs
//! ROOT/var/log/vmware/audit.log     who did what               mode 0640 root:adm, or 0600
//! ROOT/var/lib/vmserverd/           state that must survive
//! ROOT/var/lib/vmware/Virtual Machines/  new machines           mode 1777
//! ```

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Longest path of a unix socket, the final NUL excluded (`sun_path`).
pub const SOCKET_PATH_MAX: usize = 107;

/// The layout of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    root: PathBuf,
    /// Whether the process runs as root. If not, the whole system runs as one ordinary user: no PAM,
    /// callers of the same uid only.
    pub privileged: bool,
}

impl Layout {
    /// The layout for `--root DIR`, or the default of the calling user.
    ///
    /// # Errors
    /// When an ordinary user has no home directory to put a default below, or DIR cannot be made
    /// absolute.
    pub fn new(root: Option<&Path>) -> io::Result<Self> {
        let privileged = rustix::process::geteuid().is_root();
        let root = match root {
            Some(dir) => std::path::absolute(dir)?,
            None if privileged => PathBuf::from("/"),
            None => user_state_directory()?,
        };
        Ok(Layout { root, privileged })
    }

    /// The prefix itself.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether this is an installed copy, as opposed to an instance below a directory.
    #[must_use]
    pub fn installed(&self) -> bool {
        self.root == Path::new("/")
    }

    /// A path of the product, such as `/etc/vmware/config`, below the root.
    #[must_use]
    pub fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    /// `etc/vmware/config`: the product's settings.
    #[must_use]
    pub fn product_config(&self) -> PathBuf {
        self.path("/etc/vmware/config")
    }

    /// `etc/vmserverd.toml`: this project's settings.
    #[must_use]
    pub fn settings(&self) -> PathBuf {
        self.path("/etc/vmserverd.toml")
    }

    /// `run/vmware/authd.sock`: where local callers connect.
    #[must_use]
    pub fn authd_socket(&self) -> PathBuf {
        self.path("/run/vmware/authd.sock")
    }

    /// `run/vmware/authd-link.sock`: where the server core connects.
    #[must_use]
    pub fn link_socket(&self) -> PathBuf {
        self.path("/run/vmware/authd-link.sock")
    }

    /// `run/vmware/authd-inetd.sock`: where a super-server's gateway hands its caller on.
    #[must_use]
    pub fn inetd_socket(&self) -> PathBuf {
        self.path("/run/vmware/authd-inetd.sock")
    }

    /// `run/vmware/metrics.sock`: where figures are read.
    #[must_use]
    pub fn metrics_socket(&self) -> PathBuf {
        self.path("/run/vmware/metrics.sock")
    }

    /// `var/log/vmware/audit.log`: who did what.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.log_directory().join("audit.log")
    }

    /// `var/log/vmware`: logs.
    #[must_use]
    pub fn log_directory(&self) -> PathBuf {
        self.path("/var/log/vmware")
    }

    /// `etc/vmware/ssl`: certificate and key.
    #[must_use]
    pub fn ssl_directory(&self) -> PathBuf {
        self.path("/etc/vmware/ssl")
    }

    /// User and group of the processes that read what strangers send: `vmserverd` if the package made it,
    /// else `nobody`; the caller's own where there is nobody to switch to.
    #[must_use]
    pub fn service_user(&self) -> (u32, u32) {
        if !self.privileged {
            return (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        }
        let account = ["vmserverd", "nobody"].into_iter().find_map(uzers::get_user_by_name);
        account.map_or((65534, 65534), |user| (user.uid(), user.primary_group_id()))
    }

    /// The default port of the gateway: 902, or 9902 for an ordinary user, who may not bind 902.
    #[must_use]
    pub fn default_port(&self) -> u16 {
        if self.privileged { 902 } else { 9902 }
    }

    /// Makes the directory of new machines, where everybody may make one and nobody removes another's:
    /// mode 1777.
    fn create_machine_directory(&self) -> io::Result<()> {
        let path = self.path(VM_DIRECTORY);
        if path.is_dir() {
            return Ok(());
        }
        create_directory(&path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o1777))
            .map_err(|error| describe(&error, "cannot open to everybody", &path))
    }

    /// Makes the directories that do not exist yet, each with mode 0755, so that callers of every
    /// user can reach the socket.
    ///
    /// # Errors
    /// As `mkdir(2)`; the text names the directory.
    pub fn create_directories(&self) -> io::Result<()> {
        for directory in ["/etc/vmware/ssl", "/run/vmware", "/var/log/vmware", "/var/lib/vmserverd"] {
            create_directory(&self.path(directory))?;
        }
        self.create_machine_directory()
    }
}

/// Where new machines are made unless `vmdir` of the product's settings says otherwise.
pub const VM_DIRECTORY: &str = "/var/lib/vmware/Virtual Machines";

/// Makes a directory and its missing parents with mode 0755 whatever the umask says.
fn create_directory(path: &Path) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut next = Some(path);
    while let Some(directory) = next {
        if directory.is_dir() {
            break;
        }
        missing.push(directory);
        next = directory.parent();
    }
    for directory in missing.into_iter().rev() {
        let made = std::fs::DirBuilder::new().mode(0o755).create(directory);
        match made {
            Ok(()) => std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(|error| describe(&error, "cannot create", directory))?;
    }
    Ok(())
}

fn user_state_directory() -> io::Result<PathBuf> {
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    base.or_else(|| home.map(|home| home.join(".local/state"))).map(|base| base.join("vmserverd")).ok_or_else(
        || io::Error::new(io::ErrorKind::NotFound, "HOME is not set: name a directory with --root DIR"),
    )
}

/// An I/O error that says what was attempted on which path.
#[must_use]
pub fn describe(error: &io::Error, attempt: &str, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{attempt} {}: {error}", path.display()))
}

/// Checks that a unix socket can have this path at all.
///
/// # Errors
/// When it is longer than [`SOCKET_PATH_MAX`] bytes; the text says what to do.
pub fn check_socket_path(path: &Path) -> io::Result<()> {
    let length = path.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        let text = format!(
            "socket path {} has {length} bytes, the system's limit is {SOCKET_PATH_MAX}: choose a shorter --root",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_below_the_root() {
        let layout = Layout { root: "/tmp/x".into(), privileged: false };
        for path in [layout.product_config(), layout.authd_socket(), layout.link_socket(), layout.settings()]
        {
            assert!(path.starts_with("/tmp/x"), "{path:?}");
        }
        assert_eq!(layout.default_port(), 9902);
        assert!(!layout.installed());
    }

    #[test]
    fn directories_can_be_entered_by_every_user() {
        let base = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(&base.path().join("instance"))).unwrap();
        layout.create_directories().unwrap();
        layout.create_directories().unwrap();
        for directory in ["instance", "instance/run", "instance/run/vmware", "instance/etc/vmware/ssl"] {
            let mode = std::fs::metadata(base.path().join(directory)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o755, "{directory}");
        }
    }

    #[test]
    fn a_long_socket_path_is_refused_with_advice() {
        let error = check_socket_path(Path::new(&format!("/{}", "x".repeat(200)))).unwrap_err();
        assert!(error.to_string().contains("shorter --root"), "{error}");
    }
}
