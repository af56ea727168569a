//! Writes a picture into a file of the caller.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use vmcontrol_client::Error;

/// Writes the whole image or nothing: beside the file first, then in its place. What is no file (a
/// pipe, a device) is written to as it is.
pub fn write(path: &Path, image: &[u8]) -> Result<(), Error> {
    replace(path, image).map_err(|error| ops::Error::file(path, &error).into())
}

fn replace(path: &Path, image: &[u8]) -> io::Result<()> {
    // A link is followed, as everybody expects of a file name.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    match fs::metadata(&path) {
        Ok(facts) if facts.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(facts) if !facts.is_file() => return File::options().write(true).open(&path)?.write_all(image),
        _ => {}
    }
    let beside = beside(&path).ok_or(io::ErrorKind::InvalidInput)?;
    let result = written(&beside, image).and_then(|()| fs::rename(&beside, &path));
    if result.is_err() {
        let _ = fs::remove_file(&beside);
    }
    result
}

fn written(path: &Path, image: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).open(path)?;
    file.write_all(image)?;
    file.sync_all()
}

/// A name that nobody else uses, in the same directory.
fn beside(path: &Path) -> Option<PathBuf> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name()?);
    name.push(format!(".{}-{number}", std::process::id()));
    Some(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_there_whole_or_as_before() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("shot.png");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        let link = directory.path().join("link.png");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        write(&link, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        write(Path::new("/dev/null"), b"x").unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "nothing is left beside");
        let error = write(&directory.path().join("no/shot.png"), b"x").unwrap_err();
        assert!(error.text.ends_with("no/shot.png: No such file or directory"), "{}", error.text);
        assert!(write(directory.path(), b"x").is_err());
    }
}
