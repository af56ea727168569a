//! Directory entries as replies show them.

use ops::Error;
use ops::file_manager::{Entry, EntryType, Modes};
use ops::value::{HostPath, Size, Time};
use rustix::fs::{CWD, FileType, Statx};
use rustix::io::Errno;

use crate::names::Names;
use crate::{place, tree};

/// The entries of a directory, in the order of their names' bytes.
pub(crate) fn list(directory: &HostPath, hidden: bool) -> Result<Vec<Entry>, Error> {
    let found = tree::read(directory.as_str(), hidden).map_err(place::at(directory))?;
    let mut names = Names::default();
    let mut path = directory.as_str().trim_end_matches('/').as_bytes().to_vec();
    path.push(b'/');
    let above = path.len();
    let entry = |one: &tree::Found| {
        path.truncate(above);
        path.extend_from_slice(one.name.as_bytes());
        entry(one.name.as_bytes(), &path, &one.facts, &mut names)
    };
    Ok(found.iter().map(entry).collect())
}

/// One entry. A name that XML cannot carry is given in base64, with its whole path.
pub(crate) fn entry(name: &[u8], path: &[u8], facts: &Statx, names: &mut Names) -> Entry {
    let (name_encoding, name, path) = Entry::names(name, path);
    Entry {
        name_encoding,
        name,
        path,
        kind: kind(facts),
        size: Size(facts.stx_size),
        mtime: Time(facts.stx_mtime.tv_sec),
        owner: names.user(facts.stx_uid).to_owned(),
        group: names.group(facts.stx_gid).to_owned(),
        modes: Modes::from_mode(u32::from(facts.stx_mode)),
    }
}

/// What these facts are of.
pub(crate) fn kind(facts: &Statx) -> EntryType {
    match place::kind(facts) {
        FileType::RegularFile => EntryType::File,
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Link,
        _ => EntryType::Other,
    }
}

/// What has this path, if anything. That the caller may not look is an error and not a no.
pub(crate) fn existing(path: &HostPath) -> Result<Option<EntryType>, Error> {
    match place::facts(CWD, path.as_str()) {
        Ok(facts) => Ok(Some(kind(&facts))),
        Err(error) => match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            _ => Err(Error::file(path, &error)),
        },
    }
}
