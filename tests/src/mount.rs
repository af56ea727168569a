//! File systems of a test's own, mounted below its directory and gone with the value.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skip;

/// A mounted file system; unmounted with the value.
#[derive(Debug)]
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts with arguments of `mount`, without the place; `None`, said loudly, where that is not possible.
    #[must_use]
    pub fn new(place: &Path, what: &str, arguments: &[&str]) -> Option<Self> {
        if !skip::need_root(what) {
            return None;
        }
        let output = Command::new("mount").args(arguments).arg(place).output().expect("mount starts");
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            skip::skipped(what, &format!("cannot mount: {why}"));
            return None;
        }
        Some(Mounted(place.to_owned()))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Changes an option, such as `ro`.
    ///
    /// # Panics
    /// When it cannot be changed.
    pub fn remount(&self, option: &str) {
        let mut command = Command::new("mount");
        let status = command.args(["-o", &format!("remount,{option}")]).arg(&self.0).status();
        assert!(status.expect("mount starts").success(), "remount,{option}");
    }

    /// The names in it, sorted.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let found = std::fs::read_dir(&self.0).expect("mounted").flatten();
        let mut names: Vec<_> = found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A process may still be closing the last file.
        for _ in 0..200 {
            let mut command = Command::new("umount");
            command.arg(&self.0).stderr(std::process::Stdio::null());
            if command.status().is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
