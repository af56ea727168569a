//! PAM modules stay in memory between the logins of a helper.
//!
//! libpam loads the modules of a service, and those of the service `other`, with all that they need, for each
//! transaction, and lets go of them at its end: two thirds of the time of a login that asks no hash. So the first
//! transaction marks what is loaded as staying. A file that was replaced since, by an update, must count at the next
//! login: a helper looks before each one, and leaves when anything is not what it has loaded.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The directory that modules are in, whatever is above it.
const DIRECTORY: &str = "security";

/// What was loaded when modules were kept; empty before.
#[derive(Debug, Default)]
pub struct Modules {
    files: Vec<(PathBuf, Option<Identity>)>,
}

impl Modules {
    /// Keeps the modules of a transaction that has begun, once. Those of it that cannot be kept are loaded each
    /// time, as libpam does.
    pub fn keep(&mut self) {
        if !self.files.is_empty() {
            return;
        }
        let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
        self.files = loaded(&maps).into_iter().map(|path| (path.to_owned(), identity(path))).collect();
        for (path, _) in &self.files {
            let module = path.parent().is_some_and(|parent| parent.ends_with(DIRECTORY));
            if let Some(path) = CString::new(path.as_os_str().as_bytes()).ok().filter(|_| module) {
                crate::sys::keep_loaded(&path);
            }
        }
    }

    /// Whether each file is still the one that was loaded.
    #[must_use]
    pub fn fresh(&self) -> bool {
        self.files.iter().all(|(path, then)| identity(path) == *then)
    }
}

/// Device, inode, and the time of its last change: a file that was written over is another one too.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> Option<Identity> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

/// The libraries in the text of `/proc/self/maps`, each once.
fn loaded(maps: &str) -> Vec<&Path> {
    let paths = maps.lines().filter_map(|line| Some(Path::new(line.get(line.find('/')?..)?)));
    let library =
        |path: &&Path| path.file_name().is_some_and(|name| name.as_bytes().windows(3).any(|w| w == b".so"));
    let mut paths: Vec<&Path> = paths.filter(library).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_the_map_of_memory() {
        let maps = "55d0-55d1 r-xp 00000000 fe:00 11 /usr/sbin/vmware-authd\n\
                    7f00-7f01 r--p 00000000 fe:00 12 /usr/lib/security/pam_permit.so\n\
                    7f01-7f02 r-xp 00001000 fe:00 12 /usr/lib/security/pam_permit.so\n\
                    7f03-7f04 r-xp 00000000 fe:00 13 /usr/lib/libc.so.6\n\
                    7f05-7f06 rw-p 00000000 00:00 0 [heap]\n";
        assert_eq!(
            loaded(maps),
            [Path::new("/usr/lib/libc.so.6"), Path::new("/usr/lib/security/pam_permit.so")]
        );
    }

    #[test]
    fn what_is_not_loaded_cannot_be_kept() {
        assert!(crate::sys::keep_loaded(c"libpam.so.0"), "this program is linked with it");
        assert!(!crate::sys::keep_loaded(c"/lib/no/such/security/pam_permit.so"));
    }

    #[test]
    fn a_replaced_file_is_noticed() {
        let mut modules = Modules::default();
        assert!(modules.fresh());
        modules.keep();
        assert!(!modules.files.is_empty() && modules.fresh());
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pam_x.so");
        std::fs::write(&path, "old").unwrap();
        modules.files.push((path.clone(), identity(&path)));
        assert!(modules.fresh());
        std::fs::write(directory.path().join("new"), "new").unwrap();
        std::fs::rename(directory.path().join("new"), &path).unwrap();
        assert!(!modules.fresh());
        std::fs::remove_file(&path).unwrap();
        assert!(!modules.fresh());
    }
}
