//! A .vmx file as text: from bytes and back without losing any.

use std::borrow::Cow;

use link::product_config::{MAX_FILE, ProductConfig};

/// The configuration of a machine. See [the module](super).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmxFile {
    config: ProductConfig,
    encoding: Encoding,
    /// It begins with [`MARK`].
    marked: bool,
    /// Lines end with CR LF.
    cr_lf: bool,
}

/// The byte order mark of UTF-8. Some editors put it before the first line; it belongs to no key.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// How the bytes of the file become characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Utf8,
    /// One byte, one character. Files of old products are in the code page of their host, mostly
    /// windows-1252; for what matters here this is near enough, and every byte comes back.
    Latin1,
}

/// Text of the product's files: UTF-8, or else one byte, one character.
pub(crate) fn decode(bytes: &[u8]) -> (Cow<'_, str>, Encoding) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Cow::Borrowed(text), Encoding::Utf8),
        Err(_) => (bytes.iter().map(|&byte| char::from(byte)).collect(), Encoding::Latin1),
    }
}

impl VmxFile {
    /// Largest file that is read, in bytes.
    pub const MAX_SIZE: u64 = MAX_FILE;

    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        VmxFile { config: ProductConfig::default(), encoding: Encoding::Utf8, marked: false, cr_lf: false }
    }

    /// Reads the contents of a file. Never fails: a line that is no setting is kept as it is.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let (marked, bytes) = match bytes.strip_prefix(MARK) {
            Some(rest) => (true, rest),
            None => (false, bytes),
        };
        let (text, encoding) = decode(bytes);
        // The first line decides; files with both kinds of line ends are given one.
        let cr_lf = text.split_once('\n').is_some_and(|(line, _)| line.ends_with('\r'));
        let plain: String = text.lines().flat_map(|line| [line.trim_end_matches('\r'), "\n"]).collect();
        VmxFile { config: ProductConfig::parse(&plain), encoding, marked, cr_lf }
    }

    /// The contents of the file, every line ended.
    ///
    /// Characters that the encoding of the file does not have are written as `?`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = self.config.text();
        let text = if self.cr_lf { text.replace('\n', "\r\n") } else { text };
        let mut bytes = if self.marked { MARK.to_vec() } else { Vec::new() };
        match self.encoding {
            Encoding::Utf8 => bytes.extend_from_slice(text.as_bytes()),
            Encoding::Latin1 => {
                bytes.extend(text.chars().map(|character| u8::try_from(character).unwrap_or(b'?')));
            }
        }
        bytes
    }

    /// The value of a key, without regard to case.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.config.get(key)
    }

    /// The value of a key, if it is not empty.
    #[must_use]
    pub fn get_filled(&self, key: &str) -> Option<&str> {
        self.get(key).map(str::trim).filter(|value| !value.is_empty())
    }

    /// A boolean: `TRUE` or `FALSE` in any case; anything else is `default`.
    #[must_use]
    pub fn flag(&self, key: &str, default: bool) -> bool {
        self.config.flag(key, default)
    }

    /// A whole number, if there is one.
    #[must_use]
    pub fn number(&self, key: &str) -> Option<u32> {
        self.get(key)?.trim().parse().ok()
    }

    /// Sets a key: its line is replaced, or one is added at the end. Quotes, `|` and control characters
    /// are escaped, so a value can never become a line of its own.
    pub fn set(&mut self, key: &str, value: &str) {
        self.config.set(key, value);
    }

    /// Removes a key. Whether there was one.
    pub fn remove(&mut self, key: &str) -> bool {
        self.config.remove(key)
    }

    /// Keys and values in the order of the file. Of a key that is there twice only the last, which
    /// counts, comes.
    #[must_use]
    pub fn settings(&self) -> Vec<(&str, &str)> {
        let mut last = std::collections::HashMap::new();
        let all: Vec<_> = self.config.settings().collect();
        for (place, (key, _)) in all.iter().enumerate() {
            last.insert(key.to_ascii_lowercase(), place);
        }
        let counts = |place: usize, key: &str| last.get(&key.to_ascii_lowercase()) == Some(&place);
        all.iter()
            .enumerate()
            .filter(|(place, (key, _))| counts(*place, key))
            .map(|(_, pair)| *pair)
            .collect()
    }

    /// Sets a boolean.
    pub fn set_flag(&mut self, key: &str, value: bool) {
        self.set(key, if value { "TRUE" } else { "FALSE" });
    }
}

impl Default for VmxFile {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn everything_comes_back() {
        let files: [&[u8]; 6] = [
            b"#!/usr/bin/vmware\n\n# note\n  memsize=64\nunknown.key = \"x\" # why\nno setting\n",
            b"displayName = \"a\"\r\nmemsize = \"64\"\r\n",
            b"displayName = \"caf\xe9 \x80\"\nmemsize = \"64\"\n",
            b"displayName = \"caf\xc3\xa9\"\n",
            b"a\n\n\n",
            b"",
        ];
        for file in files {
            assert_eq!(VmxFile::parse(file).to_bytes(), file, "{}", String::from_utf8_lossy(file));
        }
        let mut vmx = VmxFile::parse(files[2]);
        assert_eq!(vmx.get("displayname").unwrap().chars().next_back(), Some('\u{80}'));
        vmx.set("annotation", "né €");
        let written = vmx.to_bytes();
        assert!(written.starts_with(files[2]));
        assert!(written.ends_with(b"annotation = \"n\xe9 ?\"\n"));
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_key() {
        let files: [&[u8]; 4] = [
            b"\xef\xbb\xbfdisplayName = \"caf\xc3\xa9\"\r\nmemsize = \"64\"\r\n",
            b"\xef\xbb\xbfdisplayName = \"caf\xe9\"\n",
            b"\xef\xbb\xbf#!/usr/bin/vmware\ndisplayName = \"caf\xc3\xa9\"\n",
            b"\xef\xbb\xbf",
        ];
        for file in files {
            let mut vmx = VmxFile::parse(file);
            assert_eq!(vmx.to_bytes(), file);
            let there = file.len() > MARK.len();
            assert_eq!(vmx.get("displayName"), there.then_some("caf\u{e9}"));
            // The line is changed, no second one is added, and the mark stays where it was.
            vmx.set("displayName", "bar");
            assert_eq!(VmxFile::parse(&vmx.to_bytes()).settings().first(), Some(&("displayName", "bar")));
            assert_eq!(vmx.to_bytes().windows(3).filter(|part| *part == MARK).count(), 1);
        }
    }

    #[test]
    fn a_value_stays_a_value() {
        let mut vmx = VmxFile::parse(b"memsize = \"64\"\r\n");
        vmx.set("displayName", "x\"\r\nide0:0.fileName = \"/etc/shadow");
        let again = VmxFile::parse(&vmx.to_bytes());
        assert_eq!(again.get("ide0:0.fileName"), None);
        assert_eq!(again.get("displayName"), vmx.get("displayName"));
        assert_eq!(again.to_bytes().iter().filter(|&&byte| byte == b'\n').count(), 2);
    }

    #[test]
    fn keys_are_listed_once_and_removed_everywhere() {
        let mut vmx = VmxFile::parse(b"# note\nmemsize = \"64\"\nMemSize = \"128\"\n\na = \"b\"\n");
        assert_eq!(vmx.settings(), [("MemSize", "128"), ("a", "b")]);
        assert!(vmx.remove("MEMSIZE") && !vmx.remove("memsize"));
        assert_eq!(vmx.to_bytes(), b"# note\n\na = \"b\"\n");
    }

    proptest! {
        #[test]
        fn any_bytes_are_kept(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let vmx = VmxFile::parse(&bytes);
            let written = vmx.to_bytes();
            // Line ends may be made alike; after that nothing changes any more.
            prop_assert_eq!(VmxFile::parse(&written).to_bytes(), written.clone());
            let plain = |bytes: &[u8]| bytes.iter().copied().filter(|byte| !b"\r\n".contains(byte)).collect::<Vec<_>>();
            prop_assert_eq!(plain(&written), plain(&bytes));
            let ended = bytes.is_empty() || bytes == MARK || bytes.ends_with(b"\n");
            let lines = |bytes: &[u8]| bytes.iter().filter(|&&byte| byte == b'\n').count();
            prop_assert_eq!(lines(&written), lines(&bytes) + usize::from(!ended));
        }

        #[test]
        fn any_value_is_read_again(value in any::<String>(), file in "[ -~\n]{0,100}") {
            let mut vmx = VmxFile::parse(file.as_bytes());
            vmx.set("some.key", &value);
            let again = VmxFile::parse(&vmx.to_bytes());
            prop_assert_eq!(again.get("some.key"), Some(value.as_str()));
        }
    }
}
