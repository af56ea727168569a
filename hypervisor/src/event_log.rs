//! The event log of a machine: what happened to it, in the product's own format.
//!
//! ```text
//! /var/log/vmware/event-%2Fvm%2Fa.vmx.log          the newest, .log-0 ... .log-9 older and older
//! <event type="info"><time>1141000000</time><subject>Powered on.</subject><body/><user>marco</user></event>
//! ```
//!
//! One event per line, the newest last. Logs of the original are read too, with what they have: an `&`
//! that begins no entity, characters in the code page of the host, lines that are no events. A damaged line is skipped, never an error; nor is
//! a log that is missing.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

/// A log that has reached this many bytes is rotated before the next event.
pub const ROTATE_AT: u64 = 1 << 20;

/// How many old logs are kept: `.log-0` (the newest) to `.log-9`.
pub const ROTATIONS: usize = 10;

/// Longest line that is written or looked at, in bytes.
pub const MAX_LINE: usize = 64 * 1024;

/// Longest single text of an event that is written, in bytes; longer ones are cut.
pub const MAX_TEXT: usize = 4096;

/// Most bytes that one reading looks at, over all files of a machine.
const MAX_SCAN: u64 = 16 << 20;

/// What declares a namespace: a line with it is no event.
const NAMESPACE: &str = "xmlns";

/// Most elements of a line that is looked at.
const MAX_NODES: u32 = 1000;

/// What an event is. The words are those of the product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// Something happened.
    Info,
    /// Something should be looked at.
    Warning,
    /// Something failed.
    Error,
    /// For developers.
    Debug,
    /// The machine asks somebody, and waits. Ranks as info.
    Question,
    /// Somebody answered. Ranks as info.
    Answer,
}

impl EventKind {
    /// All of them.
    pub const ALL: [EventKind; 6] =
        [Self::Info, Self::Warning, Self::Error, Self::Debug, Self::Question, Self::Answer];

    /// The value of the attribute `type`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            EventKind::Info => "info",
            EventKind::Warning => "warning",
            EventKind::Error => "error",
            EventKind::Debug => "debug",
            EventKind::Question => "question",
            EventKind::Answer => "answer",
        }
    }

    /// The kind of a word, in any case; a word that is not known counts as info.
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name().eq_ignore_ascii_case(name)).unwrap_or(Self::Info)
    }
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// What it is.
    pub kind: EventKind,
    /// When it happened: Unix seconds, UTC.
    pub time: i64,
    /// One line about it.
    pub subject: String,
    /// More about it, in paragraphs.
    pub body: Vec<String>,
    /// The answers that a question offers.
    pub choices: Vec<String>,
    /// Who answered or acted.
    pub users: Vec<String>,
}

impl Event {
    /// An event with a subject and nothing else. Texts of this project have no `&`: a known reader
    /// shows it as `&amp;`.
    #[must_use]
    pub fn new(kind: EventKind, time: i64, subject: impl Into<String>) -> Self {
        let (body, choices, users) = Default::default();
        Event { kind, time, subject: subject.into(), body, choices, users }
    }

    /// The event as a line, its end included: well-formed, at most [`MAX_LINE`] bytes. Long texts are
    /// cut, paragraphs and choices that do not fit are left out from the end.
    #[must_use]
    pub fn to_line(&self) -> String {
        let mut whole = self.clone();
        loop {
            let line = whole.render();
            if line.len() <= MAX_LINE {
                return line;
            }
            if whole.body.pop().is_none() && whole.choices.pop().is_none() && whole.users.pop().is_none() {
                whole.subject.clear();
            }
        }
    }

    fn render(&self) -> String {
        let mut line = format!("<event type=\"{}\"><time>{}</time><subject>", self.kind.name(), self.time);
        escape(&mut line, &self.subject);
        line.push_str("</subject><body>");
        let mut list = |name: &str, texts: &[String], end: &str| {
            for text in texts {
                line.push_str(&format!("<{name}>"));
                escape(&mut line, text);
                line.push_str(&format!("</{name}>"));
            }
            line.push_str(end);
        };
        list("p", &self.body, "</body>");
        list("choice", &self.choices, "");
        list("user", &self.users, "</event>\n");
        line
    }

    /// Reads a line. None for one that is no event, or a damaged one.
    #[must_use]
    pub fn parse_line(line: &[u8]) -> Option<Self> {
        if line.len() > MAX_LINE || !line.starts_with(b"<event") {
            return None;
        }
        // A host of the original wrote in its code page, into the .vmx and here alike.
        let (text, _) = crate::vmx_file::decode(line);
        // Events have none of these. What a parser does with namespaces and declarations takes time.
        if text.contains("<!") || text.contains("<?") || text.contains(NAMESPACE) {
            return None;
        }
        let text = escape_lone_ampersands(text.trim_end());
        let options = roxmltree::ParsingOptions { nodes_limit: MAX_NODES, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(&text, options).ok()?;
        let root = document.root_element();
        if root.tag_name().name() != "event" {
            return None;
        }
        let texts = |parent: roxmltree::Node<'_, '_>, name: &str| {
            let named = parent.children().filter(|child| child.has_tag_name(name));
            named.map(all_text).collect::<Vec<_>>()
        };
        let body = root.children().find(|child| child.has_tag_name("body"));
        Some(Event {
            kind: EventKind::from_name(root.attribute("type").unwrap_or_default()),
            time: texts(root, "time").first()?.trim().parse().ok()?,
            subject: texts(root, "subject").into_iter().next().unwrap_or_default(),
            body: body.map(|body| texts(body, "p")).unwrap_or_default(),
            choices: texts(root, "choice"),
            users: texts(root, "user"),
        })
    }
}

/// The text inside an element, that of elements inside it included.
fn all_text(node: roxmltree::Node<'_, '_>) -> String {
    node.descendants().filter(roxmltree::Node::is_text).filter_map(|node| node.text()).collect()
}

/// Writes a text so that it stays on one line of XML; what XML cannot hold becomes U+FFFD.
fn escape(out: &mut String, text: &str) {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let text = text.get(..end).unwrap_or_default();
    // A line with this word is not read: where it is only text, it is written in another way.
    let names_spaces = text.contains(NAMESPACE);
    for character in text.chars() {
        match character {
            'x' if names_spaces => out.push_str("&#120;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\n' => out.push_str("&#10;"),
            '\r' => out.push_str("&#13;"),
            '\t' => out.push('\t'),
            '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
}

/// Escapes every `&` that begins none of the entities XML knows.
fn escape_lone_ampersands(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('&') {
        out.push_str(before);
        out.push_str(if begins_entity(after) { "&" } else { "&amp;" });
        rest = after;
    }
    out.push_str(rest);
    out
}

fn begins_entity(after: &str) -> bool {
    // The longest that means anything: &#x10ffff;
    let name = after.split_once(';').map(|(name, _)| name).filter(|name| name.len() <= 9);
    match name.map(|name| (name, name.strip_prefix('#'))) {
        None => false,
        Some((name, None)) => matches!(name, "amp" | "lt" | "gt" | "quot" | "apos"),
        Some((_, Some(number))) => match number.strip_prefix('x') {
            Some(hex) => !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit()),
            None => !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()),
        },
    }
}

/// The name of a machine's log: `event-`, the full path of its .vmx with everything but letters,
/// digits and `.-_*` as `%XX`, `.log`.
#[must_use]
pub fn file_name(config: &Path) -> OsString {
    let mut name = b"event-".to_vec();
    for &byte in config.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b".-_*".contains(&byte) {
            name.push(byte);
        } else {
            name.extend_from_slice(format!("%{byte:02X}").as_bytes());
        }
    }
    name.extend_from_slice(b".log");
    OsString::from_vec(name)
}

/// The .vmx whose log has this name; None when it is the name of something else.
#[must_use]
pub fn config_of(name: &OsStr) -> Option<PathBuf> {
    let mut rest = name.as_bytes().strip_prefix(b"event-")?.strip_suffix(b".log")?;
    let mut path = Vec::with_capacity(rest.len());
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            path.push(byte);
            continue;
        }
        let (digits, tail) = rest.split_at_checked(2)?;
        let upper = digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'A'..=b'F'));
        let digits = std::str::from_utf8(digits).ok().filter(|_| upper)?;
        path.push(u8::from_str_radix(digits, 16).ok()?);
        rest = tail;
    }
    let path = PathBuf::from(OsString::from_vec(path));
    (file_name(&path) == name).then_some(path)
}

/// Whose a log is and who reads it: whoever owns and reads the .vmx.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRights {
    /// Owner of the .vmx.
    pub uid: u32,
    /// Group of the .vmx.
    pub gid: u32,
    /// Permission bits of the log: 0600, and the right to read of those who read the .vmx.
    pub mode: u32,
}

impl LogRights {
    /// The rights for the log of a machine whose .vmx is like this.
    #[must_use]
    pub fn like(config: &std::fs::Metadata) -> Self {
        Self::of(config.uid(), config.gid(), config.mode())
    }

    /// The rights for the log of a machine whose .vmx has this owner, group and mode.
    #[must_use]
    pub fn of(uid: u32, gid: u32, mode: u32) -> Self {
        LogRights { uid, gid, mode: 0o600 | (mode & 0o044) }
    }
}

/// Appends an event to the log of a machine in `directory`, and rotates the log before if it is full.
///
/// The line is written in one call behind the end of the last one; a line that a crash left unfinished
/// is ended first. Nothing is flushed: an event is not a promise.
///
/// # Errors
/// As the system calls; `ENAMETOOLONG` for a .vmx with a very long path.
pub fn append(directory: &Path, config: &Path, rights: LogRights, event: &Event) -> io::Result<()> {
    let path = directory.join(file_name(config));
    // Another writer may rotate in between; nobody does that ten times.
    for _ in 0..10 {
        let mut file = open_or_create(&path, rights)?;
        // The owner of the machine owns the log too and may hold a lock for ever: then there is no
        // rotation, but the event is written.
        let locked = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        let metadata = file.metadata()?;
        let still_there = std::fs::symlink_metadata(&path).is_ok_and(|now| now.ino() == metadata.ino());
        if locked && (!still_there || metadata.len() >= ROTATE_AT) {
            if still_there {
                rotate(&path);
            }
            continue;
        }
        let mut line = event.to_line();
        if !ends_with_line(&mut file, metadata.len())? {
            line.insert(0, '\n');
        }
        return file.write_all(line.as_bytes());
    }
    Err(io::Error::other(format!("{}: rotated again and again", path.display())))
}

fn open_or_create(path: &Path, rights: LogRights) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    loop {
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT) => {
                // It appears with all its rights: nobody may find a log that he will be able to read, and
                // be refused.
                match create(path, rights) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                    Ok(()) => {}
                }
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} is no file", path.display()),
            ));
        }
        // The .vmx may have got another owner or mode since. Who is not root cannot follow everywhere;
        // the mode comes first, because what was given away cannot be changed any more.
        if metadata.mode() & 0o777 != rights.mode {
            let _ = rustix::fs::fchmod(&file, Mode::from_raw_mode(rights.mode));
        }
        if (metadata.uid(), metadata.gid()) != (rights.uid, rights.gid) {
            let (uid, gid) = (Uid::from_raw(rights.uid), Gid::from_raw(rights.gid));
            let _ = rustix::fs::fchown(&file, Some(uid), Some(gid));
        }
        return Ok(file);
    }
}

/// Makes an empty log, with its rights before it has its name.
fn create(path: &Path, rights: LogRights) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".event.{}.{number}.new", std::process::id()));
    let make = || -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&temporary, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(rights.mode))?;
        let (uid, gid) = (Uid::from_raw(rights.uid), Gid::from_raw(rights.gid));
        // Who is not root cannot give it away.
        let _ = rustix::fs::fchown(&file, Some(uid), Some(gid));
        Ok(rustix::fs::linkat(
            rustix::fs::CWD,
            &temporary,
            rustix::fs::CWD,
            path,
            rustix::fs::AtFlags::empty(),
        )?)
    };
    // One of a process that died in between.
    let _ = std::fs::remove_file(&temporary);
    let made = make();
    let _ = std::fs::remove_file(&temporary);
    made
}

/// Whether the last byte ends a line; an empty file counts.
fn ends_with_line(file: &mut File, size: u64) -> io::Result<bool> {
    if size == 0 {
        return Ok(true);
    }
    let mut last = [0];
    file.seek(SeekFrom::Start(size - 1))?;
    Ok(file.read(&mut last)? == 0 || last == *b"\n")
}

/// `.log` becomes `.log-0`, `.log-0` becomes `.log-1`, and so on; the oldest is dropped.
fn rotate(path: &Path) {
    for number in (0..ROTATIONS).rev() {
        let from = if number == 0 { path.to_owned() } else { rotated(path, number - 1) };
        // One that cannot be moved is overwritten by the next or goes on growing: no reason to stop.
        let _ = std::fs::rename(from, rotated(path, number));
    }
}

fn rotated(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("-{number}"));
    PathBuf::from(name)
}

/// The last `count` events of a machine, the newest first, from as many of its logs as needed. Lines
/// that are no events are passed over. No log, no events.
///
/// # Errors
/// When a log exists and cannot be read.
pub fn last(directory: &Path, config: &Path, count: usize) -> io::Result<Vec<Event>> {
    let newest = directory.join(file_name(config));
    let mut events = Vec::new();
    let mut budget = MAX_SCAN;
    let older = (0..ROTATIONS).map(|number| rotated(&newest, number));
    for path in std::iter::once(newest.clone()).chain(older) {
        if events.len() >= count {
            break;
        }
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
        let file = match rustix::fs::open(&path, flags, Mode::empty()) {
            Ok(fd) => File::from(fd),
            Err(Errno::NOENT | Errno::NAMETOOLONG) => continue,
            Err(error) => return Err(error.into()),
        };
        if file.metadata()?.is_file() {
            read_backwards(&file, &mut budget, |line| {
                events.extend(Event::parse_line(line));
                events.len() < count
            })?;
        }
    }
    Ok(events)
}

/// Calls `take` for each line of a file, from the last one to the first, until it says no or the
/// budget (bytes) is used up. A line that is too long, or that the writer has not ended yet, is left
/// out, unless the file ends with it.
fn read_backwards(file: &File, budget: &mut u64, mut take: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    const PIECE: u64 = 64 * 1024;
    let mut end = file.metadata()?.len();
    // The beginning of the line whose end was in the piece before, that is, further down.
    let mut unfinished: Vec<u8> = Vec::new();
    let mut too_long = false;
    while end > 0 && *budget > 0 {
        let start = end.saturating_sub(PIECE.min(*budget));
        let mut piece = vec![0; usize::try_from(end - start).unwrap_or(0)];
        match file.read_exact_at(&mut piece, start) {
            // Cut in the meantime: what is left will be read the next time.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            result => result?,
        }
        *budget -= end - start;
        end = start;
        let mut lines = piece.rsplit(|&byte| byte == b'\n').peekable();
        while let Some(part) = lines.next() {
            let whole = lines.peek().is_some() || start == 0;
            if too_long || part.len() + unfinished.len() > MAX_LINE {
                too_long = !whole;
                unfinished.clear();
                continue;
            }
            let mut line = part.to_vec();
            line.append(&mut unfinished);
            if whole {
                if !take(&line) {
                    return Ok(());
                }
            } else {
                unfinished = line;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    const CONFIG: &str = "/var/lib/vmware/Virtual Machines/Test 1/a_b-c.d*e%.vmx";

    fn event(number: i64) -> Event {
        Event::new(EventKind::Info, number, format!("event {number}"))
    }

    fn rights(directory: &Path) -> LogRights {
        LogRights::like(&std::fs::metadata(directory).unwrap())
    }

    #[test]
    fn names_of_logs() {
        let name = file_name(Path::new(CONFIG));
        assert_eq!(
            name,
            "event-%2Fvar%2Flib%2Fvmware%2FVirtual%20Machines%2FTest%201%2Fa_b-c.d*e%25.vmx.log"
        );
        assert_eq!(config_of(&name).unwrap(), Path::new(CONFIG));
        for other in [
            "event-a",
            "vmware-serverd.log",
            "event-%2f.log",
            "event-%2.log",
            "event-a/b.log",
            "event-%41.log",
        ] {
            assert_eq!(config_of(other.as_ref()), None, "{other}");
        }
    }

    #[test]
    fn the_word_that_declares_namespaces_may_be_text() {
        let event = Event::new(EventKind::Info, 1, "the disk /vm/xmlns/x&xmlns.vmdk is missing");
        let line = event.to_line();
        assert!(!line.contains(NAMESPACE), "{line}");
        assert_eq!(Event::parse_line(line.trim_end().as_bytes()), Some(event));
    }

    #[test]
    fn a_line_has_the_shape_of_the_product() {
        let mut event = Event::new(EventKind::Question, 1_141_000_000, "Disk <full>");
        event.body = vec!["No space & no time.".into(), "Line\none".into()];
        event.choices = vec!["Retry".into(), "Abort".into()];
        event.users = vec!["marco".into()];
        assert_eq!(
            event.to_line(),
            "<event type=\"question\"><time>1141000000</time><subject>Disk &lt;full&gt;</subject>\
             <body><p>No space &amp; no time.</p><p>Line&#10;one</p></body>\
             <choice>Retry</choice><choice>Abort</choice><user>marco</user></event>\n"
        );
        assert_eq!(Event::parse_line(event.to_line().as_bytes()), Some(event));
    }

    #[test]
    fn what_others_write() {
        let parse = |line: &str| Event::parse_line(line.as_bytes());
        let raw = "<event type=\"WARNING\"><time> 5 </time><subject>a & b &amp; c &copy; &#38; &#x;</subject><body></body></event>\r";
        let event = parse(raw).unwrap();
        assert_eq!(
            (event.kind, event.time, event.subject.as_str()),
            (EventKind::Warning, 5, "a & b & c &copy; & &#x;")
        );
        assert_eq!(
            parse("<event type='odd'><time>5</time><body><p>x<b>y</b></p></body></event>").unwrap().body,
            ["xy"]
        );
        let damaged = [
            "",
            "Nov 21 10:00:00 something else",
            "<events/>",
            "<event type=\"info\"><time>5</time><subject>cut o",
            "<event type=\"info\"><subject>no time</subject></event>",
            "<event><time>soon</time></event>",
            "<event xmlns:a=\"b\"><time>5</time></event>",
            "<event><time>5</time><!-- c --></event>",
            "<event><time>5</time></event><event/>",
        ];
        for line in damaged {
            assert_eq!(parse(line), None, "{line}");
        }
        assert_eq!(parse(&format!("<event>{}<time>5</time></event>", "<a>".repeat(20_000))), None);
        // A host of the original that was not on UTF-8 yet; its .vmx is read the same way.
        let event = |text: &[u8]| {
            let line = [b"<event><time>5</time><subject>", text, b"</subject></event>"].concat();
            Event::parse_line(&line).unwrap().subject
        };
        assert_eq!(
            [event(b"R\xe9seau \xff"), event("R\u{e9}seau \u{20ac}".as_bytes())],
            ["R\u{e9}seau \u{ff}", "R\u{e9}seau \u{20ac}"]
        );
    }

    #[test]
    fn events_come_back_newest_first() {
        let directory = tempfile::tempdir().unwrap();
        let config = Path::new(CONFIG);
        assert_eq!(last(directory.path(), config, 25).unwrap(), []);
        for number in 0..30 {
            append(directory.path(), config, rights(directory.path()), &event(number)).unwrap();
        }
        let found = last(directory.path(), config, 25).unwrap();
        assert_eq!(found, (5..30).rev().map(event).collect::<Vec<_>>());
        assert_eq!(last(directory.path(), config, 1000).unwrap().len(), 30);
        assert_eq!(last(directory.path(), Path::new("/other.vmx"), 25).unwrap(), []);
        let long = PathBuf::from("/".repeat(300));
        assert_eq!(last(directory.path(), &long, 25).unwrap(), []);
        assert!(append(directory.path(), &long, rights(directory.path()), &event(0)).is_err());
    }

    #[test]
    fn damage_is_passed_over_and_an_unfinished_line_is_ended() {
        let directory = tempfile::tempdir().unwrap();
        let config = Path::new("/a.vmx");
        let path = directory.path().join(file_name(config));
        let long = "x".repeat(200_000);
        let log = format!(
            "{}\0\0\n{long}\n<event type=\"i{}garbage\n\n<event type=\"info\"><ti",
            event(1).to_line(),
            event(2).to_line()
        );
        std::fs::write(&path, log).unwrap();
        append(directory.path(), config, rights(directory.path()), &event(3)).unwrap();
        append(directory.path(), config, rights(directory.path()), &event(4)).unwrap();
        assert_eq!(last(directory.path(), config, 9).unwrap(), [event(4), event(3), event(1)]);
        // Not ended yet, and complete all the same.
        std::fs::write(&path, event(1).to_line().trim_end()).unwrap();
        assert_eq!(last(directory.path(), config, 9).unwrap(), [event(1)]);
    }

    #[test]
    fn lines_across_the_pieces_of_reading() {
        let directory = tempfile::tempdir().unwrap();
        let config = Path::new("/a.vmx");
        let path = directory.path().join(file_name(config));
        let mut expected = Vec::new();
        let mut log = String::new();
        for number in 0..700 {
            let mut event = event(number);
            event.body = vec!["b".repeat((number as usize * 37) % 900)];
            log.push_str(&event.to_line());
            expected.push(event);
        }
        assert!(log.len() > 4 * 65536);
        expected.reverse();
        std::fs::write(&path, &log).unwrap();
        assert_eq!(last(directory.path(), config, 1000).unwrap(), expected);
    }

    #[test]
    fn a_full_log_is_rotated() {
        let directory = tempfile::tempdir().unwrap();
        let config = Path::new("/a.vmx");
        let path = directory.path().join(file_name(config));
        let full = "x\n".repeat(ROTATE_AT as usize / 2);
        for number in 0..13 {
            append(directory.path(), config, rights(directory.path()), &event(number)).unwrap();
            std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(full.as_bytes()).unwrap();
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), ROTATIONS + 1);
        assert!(std::fs::read_to_string(rotated(&path, 0)).unwrap().starts_with(&event(11).to_line()));
        assert!(std::fs::read_to_string(rotated(&path, 9)).unwrap().starts_with(&event(2).to_line()));
        // Old logs are read too.
        append(directory.path(), config, rights(directory.path()), &event(13)).unwrap();
        let found = last(directory.path(), config, 4).unwrap();
        assert_eq!(found, [event(13), event(12), event(11), event(10)]);
    }

    #[test]
    fn a_held_lock_stops_the_rotation_and_not_the_event() {
        let directory = tempfile::tempdir().unwrap();
        let config = Path::new("/a.vmx");
        let path = directory.path().join(file_name(config));
        std::fs::write(&path, "x\n".repeat(ROTATE_AT as usize / 2)).unwrap();
        let holder = File::open(&path).unwrap();
        rustix::fs::flock(&holder, FlockOperation::LockShared).unwrap();
        append(directory.path(), config, rights(directory.path()), &event(1)).unwrap();
        assert_eq!(last(directory.path(), config, 9).unwrap(), [event(1)]);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn rights_follow_the_vmx() {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("a.vmx");
        let log = directory.path().join(file_name(&config));
        std::fs::write(&config, "").unwrap();
        for (vmx, expected) in [(0o755, 0o644), (0o750, 0o640), (0o700, 0o600), (0o077, 0o644)] {
            std::fs::set_permissions(&config, std::fs::Permissions::from_mode(vmx)).unwrap();
            let rights = LogRights::like(&std::fs::metadata(&config).unwrap());
            append(directory.path(), &config, rights, &event(1)).unwrap();
            assert_eq!(std::fs::metadata(&log).unwrap().mode() & 0o7777, expected, "{vmx:o}");
        }
        // A link in the place of the log is not followed.
        std::fs::remove_file(&log).unwrap();
        std::os::unix::fs::symlink("target", &log).unwrap();
        assert!(append(directory.path(), &config, rights(directory.path()), &event(1)).is_err());
        assert!(!directory.path().join("target").exists());
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![any::<String>(), "[a&;#x0-9<>\"' \n\r\t]{0,40}", Just("é".repeat(5000))]
    }

    proptest! {
        #[test]
        fn any_event_is_one_line_that_is_read_again(
            time in any::<i64>(), subject in text(), body in prop::collection::vec(text(), 0..20),
            choices in prop::collection::vec(text(), 0..20), kind in prop::sample::select(&EventKind::ALL[..])
        ) {
            let event = Event { kind, time, subject, body, choices, users: vec!["u".into()] };
            let line = event.to_line();
            prop_assert!(line.len() <= MAX_LINE && line.ends_with('\n'));
            prop_assert_eq!(line.matches('\n').count(), 1);
            let read = Event::parse_line(line.trim_end_matches('\n').as_bytes()).unwrap();
            prop_assert_eq!((read.kind, read.time), (kind, time));
            // Read and written again it no longer changes.
            prop_assert_eq!(read.to_line(), line);
        }

        #[test]
        fn any_bytes_are_an_event_or_not(line in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Event::parse_line(&[b"<event ", &line[..]].concat());
        }

        #[test]
        fn any_path_has_its_own_log(path in prop::collection::vec(1..=255_u8, 0..80)) {
            let path = PathBuf::from(OsString::from_vec(path));
            prop_assert_eq!(config_of(&file_name(&path)), Some(path));
        }
    }
}
