//! The product's `key = "value"` files: `/etc/vmware/config`, and the syntax of `.vmx`.
//!
//! Tolerant in reading (white space, unquoted values, comments, lines that mean nothing to us),
//! careful in writing: the order of lines, comments and unknown lines are kept, and the file is
//! replaced in one rename. Keys are compared without regard to case. Where a key stands twice the
//! last line wins. In a value `"` is written `|22` and `|` is written `|7C`.

use std::io::{self, Write};
use std::path::Path;

/// Largest file that is read, in bytes.
pub const MAX_FILE: u64 = 1024 * 1024;

/// A file of `key = "value"` lines, with everything else it held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProductConfig {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    /// The line as it was read or will be written, without its end.
    raw: String,
    /// Key and decoded value, if the line holds a setting.
    setting: Option<(String, String)>,
}

impl ProductConfig {
    /// Reads the text of a file. Never fails: a line that is no setting is kept as it is.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        // However many carriage returns: what is written must be read as the same lines again.
        let lines = text.lines().map(|line| line.trim_end_matches('\r'));
        let lines = lines.map(|raw| Line { raw: raw.to_owned(), setting: parse_line(raw) }).collect();
        ProductConfig { lines }
    }

    /// Reads a file; a missing one is an empty one. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// When the file cannot be read or is larger than [`MAX_FILE`]; the text names the path.
    pub fn load(path: &Path) -> io::Result<Self> {
        let describe = |error: io::Error| crate::layout::describe(&error, "cannot read", path);
        match std::fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(describe(error)),
            Ok(metadata) if metadata.len() > MAX_FILE => {
                let text = format!("{} is larger than {MAX_FILE} bytes", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            }
            Ok(_) => {}
        }
        let bytes = std::fs::read(path).map_err(describe)?;
        Ok(Self::parse(&String::from_utf8_lossy(&bytes)))
    }

    /// The value of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let settings = self.lines.iter().rev().filter_map(|line| line.setting.as_ref());
        settings.filter(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value.as_str()).next()
    }

    /// A boolean: `TRUE`, `FALSE`, `yes`, `no`, `1`, `0` in any case; anything else is `default`.
    #[must_use]
    pub fn flag(&self, key: &str, default: bool) -> bool {
        match self.get(key).map(str::to_ascii_lowercase).as_deref() {
            Some("true" | "yes" | "1") => true,
            Some("false" | "no" | "0") => false,
            _ => default,
        }
    }

    /// Sets a key: the last line that holds it is replaced, or a line is added at the end.
    pub fn set(&mut self, key: &str, value: &str) {
        let line = Line {
            raw: format!("{key} = \"{}\"", encode(value)),
            setting: Some((key.to_owned(), value.to_owned())),
        };
        let holds =
            |line: &Line| line.setting.as_ref().is_some_and(|(name, _)| name.eq_ignore_ascii_case(key));
        match self.lines.iter_mut().rev().find(|line| holds(line)) {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
    }

    /// Removes a key: every line that holds it. Whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        let before = self.lines.len();
        self.lines
            .retain(|line| !line.setting.as_ref().is_some_and(|(name, _)| name.eq_ignore_ascii_case(key)));
        self.lines.len() != before
    }

    /// All settings in the order of the file. A key that is there twice comes twice; the last counts.
    pub fn settings(&self) -> impl Iterator<Item = (&str, &str)> {
        self.lines.iter().filter_map(|line| line.setting.as_ref()).map(|(key, value)| (&**key, &**value))
    }

    /// The text of the file, every line ended.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.iter().flat_map(|line| [line.raw.as_str(), "\n"]).collect()
    }

    /// Replaces the file: written beside it, flushed, renamed, the directory flushed.
    ///
    /// # Errors
    /// As the system calls; the text names the path. The old file is then untouched.
    pub fn store(&self, path: &Path, mode: u32) -> io::Result<()> {
        replace_file(path, self.text().as_bytes(), mode)
    }
}

/// Replaces a file atomically and durably: a reader sees the old contents or the new, never a part,
/// and after success the new contents survive a power cut.
///
/// # Errors
/// As the system calls; the text names the path. The old file is then untouched.
pub fn replace_file(path: &Path, contents: &[u8], mode: u32) -> io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let describe = |error: io::Error| crate::layout::describe(&error, "cannot write", path);
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{} names no file", path.display())));
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory.join(temporary);
    let write = || -> io::Result<()> {
        let _ = std::fs::remove_file(&temporary);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::open(&temporary, flags, Mode::from_raw_mode(0o600))?;
        let mut file = std::fs::File::from(file);
        file.write_all(contents)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(directory)?.sync_all()
    };
    write().map_err(|error| {
        let _ = std::fs::remove_file(&temporary);
        describe(error)
    })
}

fn parse_line(raw: &str) -> Option<(String, String)> {
    let line = raw.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let (key, rest) = line.split_once('=')?;
    let key = key.trim();
    if key.is_empty() || key.contains(char::is_whitespace) {
        return None;
    }
    let rest = rest.trim();
    let value = match rest.strip_prefix('"') {
        // Up to the closing quote; what follows it (a comment, usually) is not part of the value.
        Some(quoted) => quoted.split_once('"').map_or(quoted, |(value, _)| value),
        None => rest,
    };
    Some((key.to_owned(), decode(value)))
}

/// Undoes the escapes of a value: `|` and two hex digits stand for that byte.
fn decode(value: &str) -> String {
    if !value.contains('|') {
        return value.to_owned();
    }
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail.first_chunk::<2>().filter(|_| byte == b'|').and_then(|digits| {
            let text = std::str::from_utf8(digits).ok()?;
            text.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u8::from_str_radix(text, 16).ok())?
        });
        match escaped {
            Some(decoded) => {
                out.push(decoded);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Writes a value so that it fits between quotes on one line.
fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for character in value.chars() {
        match character {
            '"' | '|' | '\0'..='\x1f' => out.push_str(&format!("|{:02X}", u32::from(character))),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: &str = "#!/usr/bin/vmware\n\n  authd.port = \"902\"  # the port\nlibdir=/usr/lib/vmware\nnonsense\nAuthd.Port = \"1902\"\n";

    #[test]
    fn reads_what_people_write() {
        let config = ProductConfig::parse(FILE);
        assert_eq!(config.get("AUTHD.port"), Some("1902"));
        assert_eq!(config.get("libdir"), Some("/usr/lib/vmware"));
        assert_eq!(config.get("nonsense"), None);
        assert_eq!(config.text(), FILE);
        assert!(ProductConfig::parse("a = \"TRUE\"").flag("a", false));
        assert!(ProductConfig::parse("a = \"perhaps\"").flag("a", true));
    }

    #[test]
    fn setting_a_key_keeps_everything_else() {
        let mut config = ProductConfig::parse(FILE);
        config.set("authd.port", "9");
        config.set("new.key", "say \"hi\" | bye");
        assert_eq!(
            config.text(),
            FILE.replace("Authd.Port = \"1902\"", "authd.port = \"9\"")
                + "new.key = \"say |22hi|22 |7C bye\"\n"
        );
        assert_eq!(ProductConfig::parse(&config.text()).get("new.key"), Some("say \"hi\" | bye"));
    }

    #[test]
    fn storing_replaces_the_file_and_leaves_no_other() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config");
        ProductConfig::parse("a = \"1\"").store(&path, 0o644).unwrap();
        ProductConfig::parse("a = \"2\"").store(&path, 0o644).unwrap();
        assert_eq!(ProductConfig::load(&path).unwrap().get("a"), Some("2"));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        assert_eq!(ProductConfig::load(&directory.path().join("absent")).unwrap(), ProductConfig::default());
    }

    proptest! {
        #[test]
        fn any_value_survives(value in "[^\u{0}-\u{1f}]{0,40}") {
            let mut config = ProductConfig::default();
            config.set("k", &value);
            let again = ProductConfig::parse(&config.text());
            prop_assert_eq!(again.get("k"), Some(value.as_str()));
        }

        #[test]
        fn any_text_is_kept(text in "[ -~\r\n|\"=#]{0,200}") {
            let parsed = ProductConfig::parse(&text);
            prop_assert_eq!(ProductConfig::parse(&parsed.text()), parsed);
        }
    }
}
