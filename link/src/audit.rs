//! Who did what, from where, and how it ended: one JSON object per line, for programs and for people.
//!
//! ```text
//!   gateway: logins ──────┐                      ┌─ ration per user or address ─▶ counted, said later
//!                         ├─▶ record ─▶ queue ───┤
//!   core: everything else ┘   (never waits)      └─ thread ─▶ whole lines ─▶ audit.log
//! ```
//!
//! Both daemons append to one file; a `write(2)` has whole lines, so none is torn by the other. Who somebody
//! is, is filled in by the process that knows it from the kernel or PAM; what comes from a process of
//! lower rights is marked `"claimed":true` and stands under the name of that process's user, whatever it
//! says. A text cannot end a line or a value: it is JSON, with every control character and separator
//! escaped, and cut at [`MAX_TEXT`] bytes.
//!
//! Recording never holds up the work that it tells of: a queue takes the record, a thread writes it, the first
//! at once, those of the next milliseconds together, since waking the thread costs more than the line. What
//! is more than a user's ration is counted and said in one `suppressed` record; what could not be written,
//! because the disk is full or the queue is, in a `lost` record as soon as writing works again. Ids of
//! records that were lost are missing in the file.
//!
//! A file that was moved away is noticed before the next line and made anew, so rotation needs no signal.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::identity::{Identity, Proof};
use crate::settings::AuditLevel;

/// Longest text in a record, in bytes; longer ones are cut and end in `...`.
pub const MAX_TEXT: usize = 1024;

/// Most texts in a list in a record.
pub const MAX_LIST: usize = 4;

/// Records that may wait for the writer.
const WAITING: usize = 8192;

/// Records of one user or address that may come at once.
pub const BURST: u32 = 1000;

/// Records per second after that.
pub const PER_SECOND: u32 = 20;

/// Users and addresses that have a ration of their own; more share one.
const RATIONS: usize = 4096;

/// How often it is said what was suppressed or lost.
const SAY: Duration = Duration::from_secs(2);

/// How long records gather after others were written.
const GATHER: Duration = Duration::from_millis(5);

/// About how many bytes of lines are written at once.
const AT_ONCE: usize = 64 * 1024;

/// How long the end of the program waits for the last lines.
const LAST_LINES: Duration = Duration::from_secs(2);

/// What has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The daemon has started.
    #[default]
    Start,
    /// The daemon stops.
    Stop,
    /// Somebody tried to log in.
    Login,
    /// A session has begun.
    SessionBegin,
    /// A session has ended.
    SessionEnd,
    /// An operation was asked for and answered.
    Operation,
    /// A right was looked at by the core, and is not there.
    Permission,
    /// A machine was registered.
    Register,
    /// A machine was unregistered.
    Unregister,
    /// A machine has another state.
    Power,
    /// Something was asked of a running machine that changes it.
    Machine,
    /// A task was begun.
    TaskBegin,
    /// A task has ended.
    TaskEnd,
    /// Somebody wants a task to stop.
    TaskStop,
    /// Certificate or settings of the gateway.
    Settings,
    /// Records were left out: there were too many.
    Suppressed,
    /// Records could not be written.
    Lost,
}

/// How it ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// As wanted.
    #[default]
    Ok,
    /// It was not allowed, or the proof did not hold.
    Refused,
    /// It did not work.
    Failed,
}

/// How somebody is connected and has logged in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// `address:port` of the caller, or `unix:pid`.
    pub source: String,
    /// `tls`, `plain` or `unix`.
    pub channel: &'static str,
    /// `PASS` or `LOCAL`.
    pub login: &'static str,
}

impl Origin {
    /// The origin of a caller: `peer` is a numeric address or `unix`, `origin` the port or process.
    #[must_use]
    pub fn new(peer: &str, origin: u32, tls: bool, login: &'static str) -> Self {
        let channel = match (tls, peer) {
            (true, _) => "tls",
            (false, "unix") => "unix",
            (false, _) => "plain",
        };
        let source =
            if peer.contains(':') { format!("[{peer}]:{origin}") } else { format!("{peer}:{origin}") };
        Origin { source, channel, login }
    }

    /// The origin of a proven caller.
    #[must_use]
    pub fn of(identity: &Identity) -> Self {
        let login = if identity.proof == Proof::Pam { "PASS" } else { "LOCAL" };
        Self::new(&identity.peer, identity.origin, identity.tls, login)
    }
}

/// One record. What is absent is not in the line.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Record {
    /// What has happened.
    pub event: Kind,
    /// How it ended.
    pub outcome: Outcome,
    /// Login name, proven; in a login that was refused, the name that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// User id, proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// From where, and how.
    #[serde(flatten)]
    pub origin: Option<Origin>,
    /// The server's number of the session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// What follows was said by the session process of this user.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub claimed: bool,
    /// Number of the request in the log: process and count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// Name of the operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<String>,
    /// Path of the .vmx.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Other paths that it was about.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Number of the error; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// Number of the task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<u64>,
    /// State of the machine before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<&'static str>,
    /// State of the machine now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<&'static str>,
    /// How many records, or sessions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Record {
    /// A record of what has happened, to be completed.
    #[must_use]
    pub fn new(event: Kind, outcome: Outcome) -> Self {
        Record { event, outcome, ..Record::default() }
    }
}

/// A record as it stands in the file.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    id: &'a str,
    daemon: &'static str,
    pid: u32,
    #[serde(flatten)]
    record: &'a Record,
}

/// How many records there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Written.
    pub written: u64,
    /// Left out because one user or address caused too many.
    pub suppressed: u64,
    /// Not written: the disk or the queue was full.
    pub lost: u64,
}

#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    suppressed: AtomicU64,
    lost: AtomicU64,
    rations: Mutex<Rations>,
}

/// The recording end. Cheap to ask whether it wants something.
#[derive(Debug)]
pub struct Audit {
    level: AuditLevel,
    prefix: String,
    next: AtomicU64,
    shared: Arc<Shared>,
    queue: Option<SyncSender<(String, jiff::Timestamp, Record)>>,
    writer: Option<JoinHandle<()>>,
}

impl Default for Audit {
    fn default() -> Self {
        Self::off()
    }
}

impl Audit {
    /// Records nothing.
    #[must_use]
    pub fn off() -> Self {
        Audit {
            level: AuditLevel::Off,
            prefix: String::new(),
            next: AtomicU64::new(1),
            shared: Arc::default(),
            queue: None,
            writer: None,
        }
    }

    /// Records to a file, as `daemon`. With level off there is no file and no thread.
    ///
    /// # Errors
    /// When the file cannot be opened, or there can be no further thread.
    pub fn start(path: &Path, level: AuditLevel, daemon: &'static str) -> io::Result<Self> {
        if level == AuditLevel::Off {
            return Ok(Self::off());
        }
        let file = Target::open(path)?;
        let shared: Arc<Shared> = Arc::default();
        let (queue, records) = sync_channel(WAITING);
        // Different for each run of each daemon, and in the order of time.
        let begun = jiff::Timestamp::now().as_microsecond();
        let prefix = format!("{begun:x}-{}", std::process::id());
        let writer = Writer { file, daemon, prefix: prefix.clone(), said: 0, shared: Arc::clone(&shared) };
        let thread = std::thread::Builder::new().name("audit".into()).spawn(move || writer.run(&records))?;
        let next = AtomicU64::new(1);
        Ok(Audit { level, prefix, next, shared, queue: Some(queue), writer: Some(thread) })
    }

    /// Whether records of this level are wanted.
    #[must_use]
    pub fn wants(&self, level: AuditLevel) -> bool {
        self.level >= level && self.level != AuditLevel::Off
    }

    /// The level that is in force.
    #[must_use]
    pub fn level(&self) -> AuditLevel {
        self.level
    }

    /// Hands a record to the writer. Never waits.
    pub fn record(&self, record: Record) {
        let Some(queue) = &self.queue else { return };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let id = format!("{}-{number}", self.prefix);
        // Cut before it waits: who sends long texts while the disk hangs takes no more memory than others.
        if queue.try_send((id, jiff::Timestamp::now(), bounded(record))).is_err() {
            self.shared.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// As [`Audit::record`], within the ration of somebody: a user, or an address. Whoever is
    /// rationed is named by the record.
    pub fn ration(&self, who: &str, record: Record) {
        if self.queue.is_none() {
            return;
        }
        if self.rations().allow(who, &record, Instant::now()) {
            self.record(record);
        } else {
            self.shared.suppressed.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn rations(&self) -> MutexGuard<'_, Rations> {
        self.shared.rations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many records there were.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Shared { written, suppressed, lost, .. } = &*self.shared;
        Counts { written: read(written), suppressed: read(suppressed), lost: read(lost) }
    }
}

impl Drop for Audit {
    /// Waits a moment for the last lines.
    fn drop(&mut self) {
        drop(self.queue.take());
        let end = Instant::now() + LAST_LINES;
        if let Some(writer) = self.writer.take() {
            while !writer.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }
}

/// Who may cause how many records.
#[derive(Debug, Default)]
struct Rations {
    of: HashMap<String, Ration>,
}

#[derive(Debug)]
struct Ration {
    left: u32,
    since: Instant,
    dropped: u64,
    /// Who it is, as the first record that was left out has it.
    first: Option<Record>,
}

impl Rations {
    fn allow(&mut self, who: &str, record: &Record, now: Instant) -> bool {
        if self.of.len() >= RATIONS && !self.of.contains_key(who) {
            self.of.retain(|_, ration| !ration.is_full(now) || ration.dropped > 0);
        }
        let who = if self.of.len() >= RATIONS && !self.of.contains_key(who) { "" } else { who };
        let new = || Ration { left: BURST, since: now, dropped: 0, first: None };
        let ration = self.of.entry(who.to_owned()).or_insert_with(new);
        ration.refill(now);
        if ration.left == 0 {
            ration.dropped += 1;
            ration.first.get_or_insert_with(|| Record {
                user: record.user.clone(),
                uid: record.uid,
                origin: record.origin.clone(),
                ..Record::new(Kind::Suppressed, Outcome::Ok)
            });
            return false;
        }
        ration.left -= 1;
        true
    }

    /// What was left out since the last call.
    fn take_dropped(&mut self) -> Vec<Record> {
        let dropped = self.of.values_mut().filter_map(|ration| {
            let first = ration.first.take()?;
            Some(Record { count: Some(std::mem::take(&mut ration.dropped)), ..first })
        });
        dropped.collect()
    }
}

impl Ration {
    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.since).as_secs();
        if seconds > 0 {
            let more = u32::try_from(seconds).unwrap_or(u32::MAX).saturating_mul(PER_SECOND);
            self.left = self.left.saturating_add(more).min(BURST);
            self.since = now;
        }
    }

    fn is_full(&mut self, now: Instant) -> bool {
        self.refill(now);
        self.left >= BURST
    }
}

/// The writer's thread.
struct Writer {
    file: Target,
    daemon: &'static str,
    prefix: String,
    /// Records of its own, which have ids of their own.
    said: u64,
    shared: Arc<Shared>,
}

impl Writer {
    fn run(mut self, records: &Receiver<(String, jiff::Timestamp, Record)>) {
        let mut say = Instant::now() + SAY;
        let mut lost_said = 0;
        loop {
            let next = records.recv_timeout(say.saturating_duration_since(Instant::now()));
            match next {
                Ok(first) => {
                    self.file.look();
                    self.write(std::iter::once(first).chain(records.try_iter().take(WAITING)));
                    // Who records something meanwhile finds nobody to wake.
                    std::thread::sleep(GATHER);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.say(&mut lost_said);
                    return;
                }
            }
            if Instant::now() >= say {
                self.say(&mut lost_said);
                say = Instant::now() + SAY;
            }
        }
    }

    /// Says what was left out, and what was lost if it can be said.
    fn say(&mut self, lost_said: &mut u64) {
        let dropped = self.shared.rations.lock().unwrap_or_else(PoisonError::into_inner).take_dropped();
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if dropped.is_empty() && lost == *lost_said {
            return;
        }
        self.file.look();
        for record in dropped {
            if !self.say_one(record) {
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
        let lost = self.shared.lost.load(Ordering::Relaxed);
        if lost > *lost_said {
            let why = self.file.why.clone().unwrap_or_else(|| "too many waited for the disk".into());
            let count = Some(lost - *lost_said);
            let record = Record { count, detail: Some(why), ..Record::new(Kind::Lost, Outcome::Failed) };
            if self.say_one(record) {
                *lost_said = lost;
                self.file.why = None;
            }
        }
    }

    /// A record of the writer's own; whether it is written.
    fn say_one(&mut self, record: Record) -> bool {
        self.said += 1;
        let id = format!("{}-w{}", self.prefix, self.said);
        let Some(line) = self.line(&id, jiff::Timestamp::now(), &bounded(record)) else { return false };
        let written = self.file.append(&line);
        self.shared.written.fetch_add(written, Ordering::Relaxed);
        written > 0
    }

    fn write(&mut self, records: impl Iterator<Item = (String, jiff::Timestamp, Record)>) {
        let (mut lines, mut count) = (Vec::new(), 0);
        for (id, time, record) in records {
            lines.extend(self.line(&id, time, &record).unwrap_or_default());
            count += 1;
            if lines.len() >= AT_ONCE {
                self.append(&lines, count);
                (lines, count) = (Vec::new(), 0);
            }
        }
        self.append(&lines, count);
    }

    /// Appends the lines of so many records.
    fn append(&mut self, lines: &[u8], count: u64) {
        let written = self.file.append(lines);
        self.shared.written.fetch_add(written, Ordering::Relaxed);
        self.shared.lost.fetch_add(count.saturating_sub(written), Ordering::Relaxed);
    }

    fn line(&self, id: &str, time: jiff::Timestamp, record: &Record) -> Option<Vec<u8>> {
        let time = time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string();
        let line = Line { time, id, daemon: self.daemon, pid: std::process::id(), record };
        let mut bytes = one_line(&serde_json::to_string(&line).ok()?).into_bytes();
        bytes.push(b'\n');
        Some(bytes)
    }
}

/// Escapes what serde leaves: characters that some reader takes for the end of a line, or that show a
/// text in another order than it has. They stand inside of strings, where an escape is the same text.
fn one_line(json: &str) -> String {
    let odd = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !json.contains(odd) {
        return json.to_owned();
    }
    let mut out = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if odd(c) {
            use std::fmt::Write as _;
            // Writing to a string cannot fail; each of these is one unit of UTF-16.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// A record whose texts are as long as texts may be.
fn bounded(mut record: Record) -> Record {
    let Record { user, request, operation, machine, detail, .. } = &mut record;
    for text in [user, request, operation, machine, detail].into_iter().flatten() {
        cut(text);
    }
    record.paths.truncate(MAX_LIST);
    record.paths.iter_mut().for_each(cut);
    record
}

fn cut(text: &mut String) {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
}

/// The file.
struct Target {
    path: PathBuf,
    file: File,
    /// The last line is not whole.
    torn: bool,
    /// Why the last line was not written.
    why: Option<String>,
}

impl Target {
    fn open(path: &Path) -> io::Result<Self> {
        let file = open(path)?;
        let torn = is_torn(&file);
        Ok(Target { path: path.to_owned(), file, torn, why: None })
    }

    /// Opens the file anew if it is not the one below that name any more.
    fn look(&mut self) {
        let same = |a: &std::fs::Metadata, b: &std::fs::Metadata| (a.dev(), a.ino()) == (b.dev(), b.ino());
        let there = std::fs::symlink_metadata(&self.path);
        let ours = self.file.metadata();
        if let (Ok(there), Ok(ours)) = (&there, &ours)
            && same(there, ours)
        {
            return;
        }
        match open(&self.path) {
            Ok(file) => {
                self.torn = is_torn(&file);
                self.file = file;
            }
            // Lines go on into the old file.
            Err(error) => self.why = Some(error.to_string()),
        }
    }

    /// Appends lines; how many of them are there afterwards.
    fn append(&mut self, lines: &[u8]) -> u64 {
        let mut whole = Vec::new();
        let mut rest = lines;
        if self.torn {
            // What is left of the broken line shall not swallow the next one.
            whole.push(b'\n');
            whole.extend_from_slice(lines);
            rest = &whole;
        }
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(0) => break,
                Ok(count) => {
                    self.torn = rest.get(count - 1) != Some(&b'\n');
                    rest = rest.get(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.why = Some(error.to_string());
                    break;
                }
            }
        }
        let ends = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        // An end that was put before them is among the first to be written.
        ends(lines).saturating_sub(ends(rest))
    }
}

/// Opens the log for appending. One that is made is for its owner alone, and for group `adm` where root
/// makes it and there is such a group.
fn open(path: &Path) -> io::Result<File> {
    let options = |new: bool| {
        let mut options = std::fs::OpenOptions::new();
        options.read(true).append(true).create_new(new).mode(0o600);
        options.custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed());
        options
    };
    let opened = match options(true).open(path) {
        Ok(file) => {
            share_with_adm(&file);
            Ok(file)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => options(false).open(path),
        Err(error) => Err(error),
    };
    opened.map_err(|error| crate::layout::describe(&error, "cannot open the audit log", path))
}

/// Whether the last line has no end: a writer before was cut short.
fn is_torn(file: &File) -> bool {
    use std::os::unix::fs::FileExt;
    let mut last = [b'\n'];
    let end = file.metadata().map_or(0, |facts| facts.len());
    end > 0 && file.read_exact_at(&mut last, end - 1).is_ok() && last != *b"\n"
}

fn share_with_adm(file: &File) {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    if let Some(group) = uzers::get_group_by_name("adm") {
        // Where this fails the file stays root's alone.
        if fchown(file, None, Some(group.gid())).is_ok() {
            let _ = rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(0o640));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    fn login(user: &str) -> Record {
        Record {
            user: Some(user.into()),
            origin: Some(Origin::new("::1", 7, true, "PASS")),
            ..Record::new(Kind::Login, Outcome::Refused)
        }
    }

    #[test]
    fn a_line_that_was_cut_short_swallows_none() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        std::fs::write(&path, "{\"event\":\"lo").unwrap();
        let audit = Audit::start(&path, AuditLevel::Changes, "test").unwrap();
        audit.record(Record::new(Kind::Start, Outcome::Ok));
        drop(audit);
        let text = std::fs::read_to_string(&path).unwrap();
        let [torn, whole] = text.lines().collect::<Vec<_>>()[..] else { panic!("{text}") };
        assert_eq!(torn, "{\"event\":\"lo");
        assert!(serde_json::from_str::<serde_json::Value>(whole).is_ok(), "{whole}");
    }

    #[test]
    fn nothing_in_a_text_leaves_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::start(&path, AuditLevel::Changes, "test").unwrap();
        let hostile = "x\",\"uid\":0}\n{\"event\":\"login\"}\r\u{85}\u{2028}\u{202e}\0\u{7f}\\\u{1F600}";
        audit.record(login(hostile));
        audit.record(login(&"\u{20ac}".repeat(5000)));
        drop(audit);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text.chars().filter(|c| c.is_control() || *c == '\u{2028}' || *c == '\u{202e}').count(),
            2
        );
        let lines = lines(&path);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["user"], hostile);
        assert_eq!(lines[0].get("uid"), None);
        assert_eq!(lines[0]["source"], "[::1]:7");
        assert_eq!((lines[0]["channel"].as_str(), lines[0]["login"].as_str()), (Some("tls"), Some("PASS")));
        assert_eq!(
            (lines[0]["event"].as_str(), lines[0]["outcome"].as_str()),
            (Some("login"), Some("refused"))
        );
        assert_eq!(lines[1]["user"].as_str().unwrap().len(), MAX_TEXT / 3 * 3 + 3);
        assert_ne!(lines[0]["id"], lines[1]["id"]);
        let time = lines[0]["time"].as_str().unwrap();
        assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert!(mode == 0o600 || mode == 0o640, "{mode:o}");
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::start(&path, AuditLevel::Changes, "test").unwrap();
        audit.record(login("before"));
        while audit.counts().written < 1 {
            std::thread::yield_now();
        }
        let old = directory.path().join("audit.log.1");
        std::fs::rename(&path, &old).unwrap();
        audit.record(login("after"));
        drop(audit);
        assert_eq!((lines(&old).len(), lines(&path).len()), (1, 1));
        assert_eq!(lines(&path)[0]["user"], "after");
    }

    #[test]
    fn one_who_causes_too_many_is_counted_and_others_are_not_touched() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::start(&path, AuditLevel::Changes, "test").unwrap();
        let many = u64::from(BURST) + 500;
        (0..many).for_each(|_| audit.ration("1000", login("loud")));
        audit.ration("1001", login("quiet"));
        let counts = audit.counts();
        drop(audit);
        let lines = lines(&path);
        let of = |user: &str, event: &str| {
            lines.iter().filter(|line| line["user"] == user && line["event"] == event).count() as u64
        };
        assert_eq!(of("quiet", "login"), 1);
        let suppressed: Vec<_> = lines.iter().filter(|line| line["event"] == "suppressed").collect();
        assert_eq!(suppressed.len(), 1, "{suppressed:?}");
        assert_eq!(suppressed[0]["user"], "loud");
        assert_eq!(suppressed[0]["count"], counts.suppressed);
        assert_eq!(of("loud", "login") + counts.suppressed, many);
        assert!(counts.suppressed >= 400, "{counts:?}");
    }

    #[test]
    fn more_users_than_there_are_rations_share_one() {
        let mut rations = Rations::default();
        let now = Instant::now();
        for who in 0..RATIONS + 10 {
            assert!(rations.allow(&who.to_string(), &login("x"), now));
        }
        assert_eq!(rations.of.len(), RATIONS + 1);
        // Later all are full again, and forgotten.
        assert!(rations.allow("new", &login("x"), now + Duration::from_secs(3600)));
        assert_eq!(rations.of.len(), 1);
    }

    #[test]
    fn what_the_disk_did_not_take_is_counted() {
        // A device that is always full.
        let file = std::fs::OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut target = Target { path: "/dev/full".into(), file, torn: false, why: None };
        assert_eq!(target.append(b"{}\n{}\n"), 0);
        assert!(target.why.as_deref().is_some_and(|why| why.contains("No space")), "{:?}", target.why);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        std::fs::write(&path, "{\"broken").unwrap();
        let mut target = Target { torn: true, ..Target::open(&path).unwrap() };
        assert_eq!((target.append(b"{}\n"), target.append(b"{}\n{}\n")), (1, 2));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"broken\n{}\n{}\n{}\n");
    }

    #[test]
    fn off_is_no_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.log");
        let audit = Audit::start(&path, AuditLevel::Off, "test").unwrap();
        audit.record(login("x"));
        assert!(!audit.wants(AuditLevel::Changes) && !audit.wants(AuditLevel::Off));
        drop(audit);
        assert!(!path.exists());
    }
}
