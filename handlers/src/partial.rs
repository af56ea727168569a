//! Names for what is not finished yet.
//!
//! Whatever cannot be made nameless bears a name that nobody else uses until it is complete: a prefix
//! with 128 random bits, and a number. By the prefix the leftovers of a process that died are found.

use std::ffi::CString;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::tasks::Partial;
use crate::{remove, walk};

/// A source of names with one prefix.
#[derive(Debug)]
pub(crate) struct Hidden {
    prefix: String,
    next: AtomicU32,
}

impl Hidden {
    /// With a prefix of its own.
    pub(crate) fn new() -> io::Result<Self> {
        let mut random = [0u8; 16];
        let mut filled = 0;
        while filled < random.len() {
            let rest = random.get_mut(filled..).unwrap_or_default();
            match getrandom(rest, GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let random = u128::from_ne_bytes(random);
        Ok(Hidden { prefix: format!(".vmserverd-{random:032x}-"), next: AtomicU32::new(0) })
    }

    /// What all names begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The next name.
    pub(crate) fn name(&self) -> String {
        format!("{}{}", self.prefix, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

/// Removes what a process that died has left of a task; see [`Partial::remove`].
pub(crate) fn remove(partial: &Partial) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = match openat(CWD, partial.directory.as_str(), flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let mut result = Ok(());
    for found in walk::names(&directory)? {
        let name: CString = found.name;
        if name.as_bytes().starts_with(partial.prefix.as_bytes())
            && let Err(error) = remove::leftover(&directory, &name, None)
        {
            result = Err(io::Error::other(error));
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hidden_and_nobody_elses() {
        let (a, b) = (Hidden::new().unwrap(), Hidden::new().unwrap());
        assert_ne!(a.prefix(), b.prefix());
        assert_eq!(a.prefix().len(), 44);
        let names = [a.name(), a.name()];
        assert!(names[0] != names[1] && names.iter().all(|name| name.starts_with(a.prefix())));
    }

    #[test]
    fn only_what_has_the_prefix_is_removed() {
        let base = tempfile::tempdir().unwrap();
        let hidden = Hidden::new().unwrap();
        let directory = base.path().to_str().unwrap().to_owned();
        std::fs::create_dir(base.path().join(hidden.name())).unwrap();
        std::fs::write(base.path().join(hidden.name()), "x").unwrap();
        std::fs::write(base.path().join(".vmserverd-other"), "x").unwrap();
        let partial = Partial { directory, prefix: hidden.prefix().to_owned() };
        partial.remove().unwrap();
        let left: Vec<_> = std::fs::read_dir(base.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, [".vmserverd-other"]);
        let gone = Partial { directory: "/no/such/place".into(), prefix: hidden.prefix().to_owned() };
        remove(&gone).unwrap();
    }
}
