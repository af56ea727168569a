//! Log lines in the products' two forms, each line one write.
//!
//! ```text
//! vmware-serverd.log:  Nov 21 10:00:00: app| Op inc -> main::increment (authuser)
//! syslog (authpriv):   <86>Nov 21 10:00:00 vmware-authd[4680]: login from 192.168.1.100 as marco
//! ```
//!
//! Times are local time. A file is opened for appending, so several processes may share it and no
//! line is torn. A log that cannot be written never stops the work it tells of.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

/// How many old files are kept: `NAME-0` (the newest) to `NAME-9`.
pub const ROTATIONS: usize = 10;

/// Opens a log for appending and creates it with mode 0644 if it is missing.
///
/// # Errors
/// As `open(2)`; the text names the path.
pub fn open(path: &Path) -> io::Result<File> {
    let mut options = std::fs::OpenOptions::new();
    options.append(true).create(true).mode(0o644).custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32);
    options.open(path).map_err(|error| crate::layout::describe(&error, "cannot open the log", path))
}

/// A log that is opened anew when somebody has moved it away, as logrotate does.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    file: RwLock<File>,
}

impl Kept {
    /// Opens the log.
    ///
    /// # Errors
    /// As [`open`].
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let file = RwLock::new(open(&path)?);
        Ok(Kept { path, file })
    }

    /// Opens the path anew; every later line goes there.
    ///
    /// # Errors
    /// As [`open`]; lines then go on where they went.
    pub fn reopen(&self) -> io::Result<()> {
        let file = open(&self.path)?;
        *self.file.write().unwrap_or_else(PoisonError::into_inner) = file;
        Ok(())
    }

    /// Does something with the file as it is now.
    pub fn with<T>(&self, work: impl FnOnce(&File) -> T) -> T {
        work(&self.file.read().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Moves `NAME.log` to `NAME-0.log`, the older ones up by one, and drops the oldest.
///
/// Does nothing when the file is missing or empty. Errors are not reported: an old log that cannot
/// be moved is appended to.
pub fn rotate(path: &Path) {
    if std::fs::metadata(path).map_or(0, |metadata| metadata.len()) == 0 {
        return;
    }
    for number in (0..ROTATIONS).rev() {
        let from = if number == 0 { path.to_owned() } else { rotated(path, number - 1) };
        let _ = std::fs::rename(from, rotated(path, number));
    }
}

fn rotated(path: &Path, number: usize) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{number}.{extension}"))
}

/// The local time zone, read once: a sandboxed process cannot read it again.
///
/// Call it before the sandbox closes, and every later line has the right time.
pub fn zone() -> &'static jiff::tz::TimeZone {
    static ZONE: std::sync::OnceLock<jiff::tz::TimeZone> = std::sync::OnceLock::new();
    ZONE.get_or_init(jiff::tz::TimeZone::system)
}

/// `Nov 21 10:00:00`, local time.
#[must_use]
pub fn timestamp(time: std::time::SystemTime) -> String {
    let zoned = jiff::Timestamp::try_from(time).unwrap_or_default().to_zoned(zone().clone());
    zoned.strftime("%b %d %H:%M:%S").to_string()
}

/// Where the gateway's lines go: a file, or the system's log socket.
#[derive(Debug)]
pub enum Sink {
    /// Lines in syslog form, appended.
    File(File),
    /// Datagrams to `/dev/log`.
    Syslog(UnixDatagram),
}

impl Sink {
    /// Wraps a descriptor received from another process: a socket is taken for syslog.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        match rustix::net::sockopt::socket_type(&fd) {
            Ok(_) => Sink::Syslog(UnixDatagram::from(fd)),
            Err(_) => Sink::File(File::from(fd)),
        }
    }

    /// Connects to the system log.
    ///
    /// # Errors
    /// When there is no `/dev/log`.
    pub fn syslog() -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.connect("/dev/log")?;
        socket.set_nonblocking(true)?;
        Ok(Sink::Syslog(socket))
    }

    /// Writes one line for program `ident` with this process's id.
    pub fn line(&self, ident: &str, pid: u32, text: &str) {
        let stamp = timestamp(std::time::SystemTime::now());
        // A line that cannot be written is lost: the log must not hold up a login.
        let _ = match self {
            Sink::File(file) => {
                let mut file: &File = file;
                file.write_all(format!("{stamp} {ident}[{pid}]: {text}\n").as_bytes())
            }
            // Facility authpriv (10), severity info (6).
            Sink::Syslog(socket) => {
                socket.send(format!("<86>{stamp} {ident}[{pid}]: {text}").as_bytes()).map(|_| ())
            }
        };
    }
}

impl AsFd for Sink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Sink::File(file) => file.as_fd(),
            Sink::Syslog(socket) => socket.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_logs_move_up_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("vmware-serverd.log");
        rotate(&path);
        for round in 0..12 {
            open(&path).unwrap().write_all(format!("{round}").as_bytes()).unwrap();
            rotate(&path);
        }
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("vmware-serverd-0.log"), "11");
        assert_eq!(read("vmware-serverd-9.log"), "2");
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), ROTATIONS);
    }

    #[test]
    fn a_log_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("a.log"), directory.path().join("a.log.1"));
        let log = Kept::open(path.clone()).unwrap();
        let write = |text: &str| log.with(|mut file| file.write_all(text.as_bytes())).unwrap();
        write("one ");
        std::fs::rename(&path, &moved).unwrap();
        write("two");
        log.reopen().unwrap();
        write("three");
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one two");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three");
        // Where it cannot be opened, the old one stays in use.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(log.reopen().is_err());
        write("four");
    }

    #[test]
    fn a_line_has_time_program_and_pid() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        Sink::File(open(&path).unwrap()).line("vmware-authd", 4680, "login from 192.168.1.100 as marco ");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.ends_with(" vmware-authd[4680]: login from 192.168.1.100 as marco \n"), "{text}");
        assert_eq!(text.find(" vmware"), Some("Nov 21 10:00:00".len()));
    }
}
