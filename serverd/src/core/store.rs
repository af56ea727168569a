//! Writing what must survive: the lists of machines and the journal of tasks.
//!
//! A flush takes milliseconds, and the core has one thread. So a thread of its own writes; the core
//! gives it jobs and is told later. Jobs that have come in during a flush share the next one:
//!
//! ```text
//!   core ── Job ──▶ queue ──▶ thread: take all ─▶ append, append, … ─▶ one flush ─▶ Stored ──▶ core
//!                                             └─▶ all removals: one new file, flush, rename
//! ```
//!
//! A job whose result has arrived is on the disk. One that failed has left nothing behind.

use std::borrow::Cow;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc as blocking;
use std::time::Duration;

use ::link::product_config::replace_file;
use ::link::vm_list;
use hypervisor::event_log::{self, LogRights};
use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;

use super::{Event, journal};

/// How long the core waits at its end for the writer, which a disk may hold up.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Jobs that share a flush at most.
const BATCH: usize = 4096;

/// Mode of the lists, as in the original.
const LIST_MODE: u32 = 0o644;

/// Length of the journal, in bytes, from which on what is forgotten is taken out.
const JOURNAL_TURN: u64 = 1 << 20;

/// Mode of the journal, which names paths of users.
const JOURNAL_MODE: u32 = 0o600;

/// Which list of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    /// `vm-list`
    Public,
    /// `vm-list-private`
    Private,
}

/// An event for the log of a machine.
#[derive(Debug, Clone)]
pub struct Note {
    /// Who may read the log.
    pub rights: LogRights,
    /// The event.
    pub event: event_log::Event,
}

/// What the writer is to do.
#[derive(Debug)]
pub enum Work {
    /// Add a machine to a list, and then say so in its event log.
    Add(List, String, Option<Note>),
    /// Remove a machine from both lists, and then say so in its event log.
    Remove(String, Option<Note>),
    /// Append a line, which has its end, to the journal of tasks.
    Journal(String),
    /// Nothing: its result says that everything before it is written.
    Nothing,
    /// Append an event to the log of a machine. Nobody waits for it.
    Event {
        /// Path of the .vmx.
        config: String,
        /// Who may read the log.
        rights: LogRights,
        /// The event.
        event: event_log::Event,
    },
}

/// A piece of work and the number under which its result is reported.
#[derive(Debug)]
struct Job {
    number: u64,
    work: Work,
}

/// Where the files are.
#[derive(Debug, Clone)]
pub struct Places {
    /// `vm-list`
    pub public: PathBuf,
    /// `vm-list-private`
    pub private: PathBuf,
    /// The journal of tasks.
    pub journal: PathBuf,
    /// The directory of event logs.
    pub event_logs: PathBuf,
}

/// The core's end of the writer. Dropping it waits for what is still to be written.
#[derive(Debug)]
pub struct Store {
    /// Gone only while it is dropped.
    jobs: Option<blocking::Sender<Job>>,
    next: u64,
    /// Ends with the writer.
    end: blocking::Receiver<()>,
}

impl Drop for Store {
    fn drop(&mut self) {
        self.jobs = None;
        // An answer is an error: the writer has gone, and its end of this with it.
        if self.end.recv_timeout(END_PATIENCE) == Err(blocking::RecvTimeoutError::Timeout) {
            tracing::error!(
                "the disk takes no more: the last lines of lists, journal and event logs may be lost"
            );
        }
    }
}

impl Store {
    /// Starts the writer; results arrive as [`Event::Stored`]. When `privileged` it keeps the rights
    /// that writing event logs takes, so it must be started before the core gives them up.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn start(places: Places, privileged: bool, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let (jobs, queue) = blocking::channel();
        let (running, end) = blocking::channel::<()>();
        let writer = move || {
            let _running = running;
            if privileged && let Err(error) = super::privileges::reduce_writer() {
                tracing::error!("the writer cannot give up capabilities: {error}");
                std::process::abort();
            }
            write_all(&places, &queue, &events);
        };
        std::thread::Builder::new().name("store".into()).spawn(writer)?;
        Ok(Store { jobs: Some(jobs), next: 1, end })
    }

    /// Hands work to the writer and returns the number of its result.
    pub fn push(&mut self, work: Work) -> u64 {
        let number = self.next;
        self.next += 1;
        // The writer ends only with the core; a writer that has panicked has taken the core along.
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(Job { number, work });
        }
        number
    }
}

/// The writer's thread.
fn write_all(places: &Places, queue: &blocking::Receiver<Job>, events: &mpsc::Sender<Event>) {
    let mut turn = JOURNAL_TURN;
    while let Ok(first) = queue.recv() {
        let mut batch = vec![first];
        batch.extend(queue.try_iter().take(BATCH));
        let results = carry_out(places, &batch);
        turn = shorten_journal(&places.journal, turn);
        // A core that takes no more results stops; what it has said before is written all the same.
        let _ = events.blocking_send(Event::Stored(results));
    }
}

/// Takes what is forgotten out of a journal that is longer than `turn`; returns the length that is too long
/// from then on. One that cannot be made shorter stays as it is.
fn shorten_journal(path: &Path, turn: u64) -> u64 {
    if !std::fs::metadata(path).is_ok_and(|facts| facts.len() > turn) {
        return turn;
    }
    let shorter = std::fs::read(path).and_then(|bytes| {
        let shorter = journal::compacted(&String::from_utf8_lossy(&bytes));
        replace_journal(path, &shorter).map(|()| shorter.len() as u64)
    });
    // All of it was in memory, twice; it will not be needed again soon.
    crate::sys::give_memory_back();
    match shorter {
        Ok(length) => length.saturating_mul(2).max(JOURNAL_TURN),
        Err(error) => {
            tracing::warn!("{} is not made shorter: {error}", path.display());
            turn.saturating_mul(2)
        }
    }
}

/// Result of each job of a batch, by its number.
pub type Results = Vec<(u64, Result<(), Failed>)>;

/// Why something is not on the disk: which file, and the system's number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The file.
    pub path: PathBuf,
    /// `errno`, or 0 where it is not known.
    pub errno: i32,
    /// The system's text.
    pub text: String,
}

impl Failed {
    fn new(path: &Path, error: &io::Error) -> Self {
        tracing::error!("cannot write {}: {error}", path.display());
        // An error that says more than the system did has kept the kind only.
        let errno = error.raw_os_error().unwrap_or_else(|| match error.kind() {
            io::ErrorKind::StorageFull => rustix::io::Errno::NOSPC.raw_os_error(),
            io::ErrorKind::QuotaExceeded => rustix::io::Errno::DQUOT.raw_os_error(),
            io::ErrorKind::ReadOnlyFilesystem => rustix::io::Errno::ROFS.raw_os_error(),
            _ => 0,
        });
        Failed { path: path.to_owned(), errno, text: error.to_string() }
    }
}

fn carry_out(places: &Places, batch: &[Job]) -> Results {
    let mut results = Vec::new();
    let mut lines: [(List, &Path, Vec<u8>, Vec<u64>); 2] = [
        (List::Public, &places.public, Vec::new(), Vec::new()),
        (List::Private, &places.private, Vec::new(), Vec::new()),
    ];
    let (mut journal, mut journal_jobs) = (Vec::new(), Vec::new());
    let (mut removed, mut removals) = (HashSet::new(), Vec::new());
    for Job { number, work } in batch {
        match work {
            Work::Add(list, config, _) => {
                if let Some((_, _, bytes, jobs)) = lines.iter_mut().find(|line| line.0 == *list) {
                    bytes.extend(vm_list::line_of(config));
                    jobs.push(*number);
                }
            }
            Work::Remove(config, _) => {
                removed.insert(config.as_str());
                removals.push((*number, config.as_str()));
            }
            Work::Nothing => results.push((*number, Ok(()))),
            Work::Event { config, rights, event } => {
                note(places, config, *rights, event);
                results.push((*number, Ok(())));
            }
            Work::Journal(line) => {
                journal.extend_from_slice(line.as_bytes());
                journal_jobs.push(*number);
            }
        }
    }
    let mut report = |jobs: Vec<u64>, result: Result<(), Failed>| {
        results.extend(jobs.into_iter().map(|number| (number, result.clone())));
    };
    for (_, path, bytes, jobs) in lines {
        if !jobs.is_empty() {
            report(jobs, append(path, &bytes, LIST_MODE).map_err(|error| Failed::new(path, &error)));
        }
    }
    if !removals.is_empty() {
        let remove = |path: &Path| without(path, &removed).map_err(|error| Failed::new(path, &error));
        let tried = [&places.public, &places.private].map(|path| (path, remove(path)));
        for (number, config) in removals {
            // One list can have failed, and the machine be in the other.
            let still_in = |path: &Path| lists(path, config);
            let failed =
                tried.iter().find_map(|(path, result)| result.as_ref().err().filter(|_| still_in(path)));
            report(vec![number], failed.map_or(Ok(()), |failed| Err(failed.clone())));
        }
    }
    if !journal_jobs.is_empty() {
        let path = &places.journal;
        report(journal_jobs, append(path, &journal, JOURNAL_MODE).map_err(|error| Failed::new(path, &error)));
    }
    // Whoever is told that it is done finds the event as well.
    for Job { number, work } in batch {
        if let Work::Add(_, config, Some(said)) | Work::Remove(config, Some(said)) = work
            && results.iter().any(|(done, result)| done == number && result.is_ok())
        {
            note(places, config, said.rights, &said.event);
        }
    }
    results
}

/// Appends an event to the log of a machine. That it cannot be is no reason to undo what it tells of.
fn note(places: &Places, config: &str, rights: LogRights, event: &event_log::Event) {
    if let Err(error) = event_log::append(&places.event_logs, Path::new(config), rights, event) {
        tracing::warn!("no event in the log of {config}: {error}");
    }
}

/// Appends whole lines durably, in the place of a torn one; on failure the file is as it was. A last line that is
/// complete but for its end is given one ([`vm_list::is_unended_line`]); the journal has none that looks like it.
fn append(path: &Path, lines: &[u8], mode: u32) -> io::Result<()> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let (file, made) = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(file) => (File::from(file), false),
        Err(rustix::io::Errno::NOENT) => {
            let flags = flags | OFlags::CREATE | OFlags::EXCL;
            (File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(mode))?), true)
        }
        Err(error) => return Err(error.into()),
    };
    if made {
        // Whatever the umask is.
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
    }
    let (size, end) = whole_lines(&file)?;
    let (end, lines) = if unended_line(&file, size, end)? {
        (size, Cow::Owned([b"\n", lines].concat()))
    } else {
        (end, Cow::Borrowed(lines))
    };
    if size != end {
        file.set_len(end)?;
    }
    let result = file.write_all_at(&lines, end).and_then(|()| file.sync_data());
    if result.is_err() {
        // Nobody may find half of it, nor a whole line that was called a failure.
        file.set_len(end)?;
        file.sync_data()?;
    }
    result?;
    if made {
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()?;
    }
    Ok(())
}

/// The size of a file, and where its last whole line ends.
fn whole_lines(file: &File) -> io::Result<(u64, u64)> {
    const BLOCK: usize = 4096;
    let size = file.metadata()?.size();
    let mut end = size;
    let mut block = [0; BLOCK];
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let length = usize::try_from(end - start).unwrap_or(BLOCK);
        let Some(bytes) = block.get_mut(..length) else { break };
        file.read_exact_at(bytes, start)?;
        if let Some(at) = bytes.iter().rposition(|&byte| byte == b'\n') {
            return Ok((size, start + at as u64 + 1));
        }
        end = start;
    }
    Ok((size, 0))
}

/// Whether what is behind the last line end is a line.
fn unended_line(file: &File, size: u64, end: u64) -> io::Result<bool> {
    // Far more than a path, with everything escaped, can have.
    const LONGEST: u64 = 16 << 10;
    if !(1..=LONGEST).contains(&(size - end)) {
        return Ok(false);
    }
    let mut last = vec![0; usize::try_from(size - end).unwrap_or_default()];
    file.read_exact_at(&mut last, end)?;
    Ok(vm_list::is_unended_line(&last))
}

/// Rewrites a list without some machines. A list that does not exist, or has none of them, stays.
fn without(path: &Path, removed: &HashSet<&str>) -> io::Result<()> {
    let bytes = match read_list(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(kept) = vm_list::without(&bytes, removed) else { return Ok(()) };
    let mode = std::fs::metadata(path).map_or(LIST_MODE, |facts| facts.mode() & 0o7777);
    replace_file(path, &kept, mode)
}

/// Whether a list has a machine; so it is taken to have one when it cannot be read.
fn lists(path: &Path, config: &str) -> bool {
    let has = |bytes: Vec<u8>| vm_list::without(&bytes, &HashSet::from([config])).is_some();
    match read_list(path) {
        Ok(bytes) => has(bytes),
        Err(error) => error.kind() != io::ErrorKind::NotFound,
    }
}

/// Reads a list of machines.
///
/// # Errors
/// As `open(2)` and `read(2)`, and for a file beyond [`vm_list::MAX_BYTES`].
pub fn read_list(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(path)?.take(vm_list::MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > vm_list::MAX_BYTES {
        let text = format!("{} is longer than {} bytes", path.display(), vm_list::MAX_BYTES);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

/// Replaces the journal by these lines, at start.
///
/// # Errors
/// As the system calls; the text names the path.
pub fn replace_journal(path: &Path, lines: &str) -> io::Result<()> {
    replace_file(path, lines.as_bytes(), JOURNAL_MODE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(directory: &Path) -> Places {
        Places {
            public: directory.join("vm-list"),
            private: directory.join("vm-list-private"),
            journal: directory.join("tasks"),
            event_logs: directory.to_owned(),
        }
    }

    fn jobs(work: Vec<Work>) -> Vec<Job> {
        (1..).zip(work).map(|(number, work)| Job { number, work }).collect()
    }

    #[test]
    fn a_batch_is_written_and_each_job_has_its_result() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        std::fs::write(&places.public, "# ours\nconfig \"/old.vmx\"\nconfig \"/torn").unwrap();
        let batch = jobs(vec![
            Work::Add(List::Public, "/a.vmx".into(), None),
            Work::Add(List::Private, "/p.vmx".into(), None),
            Work::Remove("/old.vmx".into(), None),
            Work::Journal("one\n".into()),
            Work::Journal("two\n".into()),
        ]);
        let mut results = carry_out(&places, &batch);
        results.sort_by_key(|result| result.0);
        assert_eq!(results, (1..=5).map(|number| (number, Ok(()))).collect::<Vec<_>>());
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert_eq!(read(&places.public), "# ours\nconfig \"/a.vmx\"\n");
        assert_eq!(read(&places.private), "config \"/p.vmx\"\n");
        assert_eq!(read(&places.journal), "one\ntwo\n");
        assert_eq!(std::fs::metadata(&places.private).unwrap().mode() & 0o777, 0o644);
        assert_eq!(std::fs::metadata(&places.journal).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_last_line_without_its_end_survives() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        let read = || std::fs::read_to_string(&places.public).unwrap();
        let before = "config \"/old.vmx\"\nconfig \"/last.vmx\"";
        std::fs::write(&places.public, before).unwrap();
        let done = carry_out(&places, &jobs(vec![Work::Add(List::Public, "/a.vmx".into(), None)]));
        assert_eq!(done, [(1, Ok(()))]);
        assert_eq!(read(), format!("{before}\nconfig \"/a.vmx\"\n"));
        std::fs::write(&places.public, before).unwrap();
        let done = carry_out(&places, &jobs(vec![Work::Remove("/old.vmx".into(), None)]));
        assert_eq!((done, read().as_str()), (vec![(1, Ok(()))], "config \"/last.vmx\"\n"));
    }

    #[test]
    fn a_failure_names_the_file_and_concerns_only_its_jobs() {
        let directory = tempfile::tempdir().unwrap();
        let places = Places { public: "/nowhere/at/all/vm-list".into(), ..places(directory.path()) };
        let batch = jobs(vec![
            Work::Add(List::Public, "/a.vmx".into(), None),
            Work::Add(List::Private, "/b.vmx".into(), None),
        ]);
        let results = carry_out(&places, &batch);
        assert!(results.iter().any(|(number, result)| *number == 2 && result.is_ok()));
        let (_, failed) = results.iter().find(|(number, _)| *number == 1).unwrap();
        assert_eq!(failed.as_ref().unwrap_err().errno, rustix::io::Errno::NOENT.raw_os_error());
    }

    #[test]
    fn a_long_journal_loses_what_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks");
        let read = || std::fs::read_to_string(&path).unwrap();
        let lines: String = (1..=100).map(journal::forget).collect::<String>() + &journal::last(100);
        std::fs::write(&path, &lines).unwrap();
        assert_eq!(shorten_journal(&path, lines.len() as u64), lines.len() as u64);
        assert_eq!(read(), lines);
        assert_eq!(shorten_journal(&path, 9), JOURNAL_TURN);
        assert_eq!(read(), journal::last(100));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, JOURNAL_MODE & 0o777);
    }

    #[test]
    fn removing_what_is_not_there_touches_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let places = places(directory.path());
        std::fs::write(&places.public, "config \"/a.vmx\"\n").unwrap();
        let before = std::fs::metadata(&places.public).unwrap().ino();
        let results = carry_out(&places, &jobs(vec![Work::Remove("/b.vmx".into(), None)]));
        assert_eq!(results, [(1, Ok(()))]);
        assert_eq!(std::fs::metadata(&places.public).unwrap().ino(), before);
        assert!(!places.private.exists());
    }

    #[test]
    fn the_end_of_the_last_whole_line() {
        let file = tempfile::tempfile().unwrap();
        let end = |contents: &[u8]| {
            file.set_len(0).unwrap();
            file.write_all_at(contents, 0).unwrap();
            whole_lines(&file).unwrap().1
        };
        assert_eq!(end(b""), 0);
        assert_eq!(end(b"torn"), 0);
        assert_eq!(end(b"a\n"), 2);
        let mut long = b"a\n".to_vec();
        long.resize(10_000, b'x');
        assert_eq!(end(&long), 2);
    }
}
