//! What a client is told of an error: a code, and what the system said.
//!
//! A shortage (no space, no quota, no descriptors) has a code of its own wherever it is met: it says nothing
//! about the machine, and will pass.

use std::error::Error;
use std::io;
use std::path::Path;

use hypervisor::vmdk;

use crate::queue::code;

/// Code and detail.
pub type Failure = (i32, String);

/// What a client is told of `error`: a shortage anywhere below it, as `PATH: SYSTEM TEXT` where the path is
/// known; else the code `otherwise`, and the whole text.
pub fn told(error: &(dyn Error + 'static), otherwise: i32) -> Failure {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(vmdk::Error::Io { path, source, .. }) = cause.downcast_ref()
            && is_shortage(source)
        {
            return (code::NO_RESOURCES, format!("{}: {}", path.display(), text(source)));
        }
        if cause.downcast_ref().is_some_and(is_shortage) {
            return (code::NO_RESOURCES, text(error));
        }
        next = cause.source();
    }
    (otherwise, text(error))
}

/// The same of a call that failed for `path`.
pub fn told_of(path: &Path, error: &io::Error, otherwise: i32) -> Failure {
    let (code, text) = told(error, otherwise);
    (code, format!("{}: {text}", path.display()))
}

fn is_shortage(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE))
}

/// The text of an error without the number that the standard library puts behind the system's words.
fn text(error: &dyn Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(at) if text.ends_with(')') => text.get(..at).unwrap_or_default().to_owned(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{drives, snapshots};

    fn system(number: i32) -> io::Error {
        io::Error::from_raw_os_error(number)
    }

    #[test]
    fn a_shortage_is_told_as_one_wherever_it_is() {
        let path = || "/vm/a.vmdk".into();
        let disk = |number| vmdk::Error::Io { action: "create", path: path(), source: system(number) };
        let full = (code::NO_RESOURCES, "/vm/a.vmdk: No space left on device".to_owned());
        assert_eq!(told(&disk(libc::ENOSPC), code::UNSPECIFIED), full);
        assert_eq!(told(&snapshots::Error::Disk(disk(libc::ENOSPC)), code::UNSPECIFIED), full);
        let drive = drives::Error::Disk { name: "ide0:0".into(), source: disk(libc::ENOSPC) };
        assert_eq!(told(&drive, code::UNSPECIFIED), full);
        let list = snapshots::Error::File { path: path(), source: system(libc::EDQUOT) };
        let quota = "/vm/a.vmdk: Disk quota exceeded".to_owned();
        assert_eq!(told(&list, code::UNSPECIFIED), (code::NO_RESOURCES, quota));
        let files = told_of(Path::new("/vm/a.vmx.lck"), &system(libc::EMFILE), code::INIT_FAILED);
        assert_eq!(files, (code::NO_RESOURCES, "/vm/a.vmx.lck: Too many open files".to_owned()));
    }

    #[test]
    fn anything_else_keeps_its_code() {
        let other = told_of(Path::new("/a"), &system(libc::EIO), code::INIT_FAILED);
        assert_eq!(other, (code::INIT_FAILED, "/a: Input/output error".to_owned()));
        let none = told(&snapshots::Error::None, code::UNSPECIFIED);
        assert_eq!(none, (code::UNSPECIFIED, "No snapshot".to_owned()));
    }
}
