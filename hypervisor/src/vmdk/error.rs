//! What can go wrong with a disk.

use std::io;
use std::path::{Path, PathBuf};

/// Why a disk could not be opened, read, written or made. Every text names the file concerned.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The answer of the system.
        source: io::Error,
    },
    /// The file is no VMDK, or a damaged one.
    #[error("{}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        reason: String,
    },
    /// A VMDK that this code does not handle, or not for writing.
    #[error("{}: not supported: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it has.
        what: String,
    },
    /// The parent was written after the child was made: what the child holds no longer fits.
    #[error(
        "{}: its parent {} has changed since (CID {found:08x}, expected {expected:08x})",
        path.display(), parent.display()
    )]
    ParentChanged {
        /// The child.
        path: PathBuf,
        /// Its parent.
        parent: PathBuf,
        /// The parent's CID when the child was made.
        expected: u32,
        /// The parent's CID now.
        found: u32,
    },
    /// The file is open for writing elsewhere, or is the parent of a disk that is.
    #[error("{}: in use by another process", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
    },
    /// A file that was to be made exists.
    #[error("{}: the file exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The parent of a disk that was to be made cannot be used.
    #[error("{0}")]
    Parent(Box<Error>),
    /// A disk cannot be made like that.
    #[error("{0}")]
    BadOption(String),
    /// The disk was opened for reading only.
    #[error("{}: open for reading only", path.display())]
    ReadOnly {
        /// The disk.
        path: PathBuf,
    },
    /// A transfer that is no whole number of sectors, or leaves the disk.
    #[error("{}: sectors {sector} to {end} of a disk of {capacity}", path.display())]
    OutOfRange {
        /// The disk.
        path: PathBuf,
        /// First sector asked for.
        sector: u64,
        /// The sector after the last one.
        end: u64,
        /// Sectors of the disk.
        capacity: u64,
    },
    /// A flush failed before: nobody knows what is on the disk, so nothing more is written to it.
    #[error("{}: an earlier flush failed; the disk must be closed", path.display())]
    FlushFailed {
        /// The disk.
        path: PathBuf,
    },
}

impl Error {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Error::Io { action, path: path.to_owned(), source }
    }

    pub(crate) fn malformed(path: &Path, reason: impl Into<String>) -> Self {
        Error::Malformed { path: path.to_owned(), reason: reason.into() }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Error::Unsupported { path: path.to_owned(), what: what.into() }
    }

    /// The answer of the system, where one is the cause.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        match self {
            Error::Io { source, .. } => Some(source),
            Error::Parent(error) => error.io_error(),
            _ => None,
        }
    }
}
