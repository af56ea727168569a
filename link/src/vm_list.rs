//! `vm-list` and `vm-list-private`: the registered machines, in the product's own text form.
//!
//! ```text
//! # comments and blank lines stay where they are
//! config "/var/lib/vmware/Virtual Machines/web/web.vmx"
//! ```
//!
//! The first word `config` and the form of the line are VMware Server's; the rest is this project's
//! choice: quotes may be missing, lines that mean nothing to us are kept, a `"` in a path is written
//! `|22` and a `|` as `|7C` (as in a .vmx). A last line without its end is a line if it names a machine
//! from the first quote to the last, or can only be somebody else's: editors leave such lines. Any other
//! is what a power cut leaves of a registration that nobody was told of, and is no line.

use std::borrow::Cow;
use std::collections::HashSet;

/// Longest file that is read; beyond it something else lies there.
pub const MAX_BYTES: u64 = 64 << 20;

/// The text of a list, line by line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VmList {
    lines: Vec<Line>,
    torn: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    raw: Vec<u8>,
    config: Option<String>,
}

impl VmList {
    /// Reads a list. Any bytes are a list; what is no `config` line is kept as it is.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
        let (lines, torn) = match bytes.split_at_checked(end) {
            Some((lines, last)) if !is_unended_line(last) => (lines, last),
            _ => (bytes, &[][..]),
        };
        let line = |raw: &[u8]| {
            let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
            Line { raw: raw.to_vec(), config: config_of(raw).map(Cow::into_owned) }
        };
        VmList { lines: lines.split_inclusive(|&byte| byte == b'\n').map(line).collect(), torn: torn.len() }
    }

    /// Paths of the machines, in the order of the file, doubles included.
    pub fn configs(&self) -> impl Iterator<Item = &str> {
        self.lines.iter().filter_map(|line| line.config.as_deref())
    }

    /// Bytes behind the last line, which were ignored.
    #[must_use]
    pub fn torn(&self) -> usize {
        self.torn
    }

    /// Adds a machine at the end.
    pub fn add(&mut self, config: &str) {
        let mut raw = line_of(config);
        raw.pop();
        self.lines.push(Line { raw, config: Some(config.to_owned()) });
    }

    /// Removes every line of the machines for which `gone` is true.
    pub fn remove(&mut self, gone: impl Fn(&str) -> bool) {
        self.lines.retain(|line| !line.config.as_deref().is_some_and(&gone));
    }

    /// The text of the file, every line ended.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for line in &self.lines {
            bytes.extend_from_slice(&line.raw);
            bytes.push(b'\n');
        }
        bytes
    }
}

/// The text of a list without some machines, every line ended; `None` when it has none of them. As
/// [`VmList::remove`], in one pass over the bytes.
#[must_use]
pub fn without(bytes: &[u8], gone: &HashSet<&str>) -> Option<Vec<u8>> {
    let lines: HashSet<Vec<u8>> = gone.iter().map(|config| line_of(config)).collect();
    // A line as we write it, without anything escaped, stands for no other path.
    let plain =
        |line: &[u8]| line.starts_with(b"config \"/") && line.ends_with(b"\"\n") && !line.contains(&b'|');
    let mut kept = Vec::with_capacity(bytes.len());
    let mut found = false;
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let raw = match line.strip_suffix(b"\n") {
            Some(raw) => raw,
            None if is_unended_line(line) => line,
            None => break,
        };
        let named = || !plain(line) && config_of(raw).is_some_and(|config| gone.contains(&*config));
        if lines.contains(line) || named() {
            found = true;
        } else {
            kept.extend_from_slice(raw);
            kept.push(b'\n');
        }
    }
    found.then_some(kept)
}

/// Whether what is behind the last line end is a line all the same: a machine, complete, or a comment. What is
/// left of a line that we began to write is neither.
#[must_use]
pub fn is_unended_line(last: &[u8]) -> bool {
    config_of(last).is_some() || last.trim_ascii_start().starts_with(b"#")
}

/// The line that registers a machine, with its end.
#[must_use]
pub fn line_of(config: &str) -> Vec<u8> {
    let escaped = config.replace('|', "|7C").replace('"', "|22");
    format!("config \"{escaped}\"\n").into_bytes()
}

/// Whether a path can stand in a list: absolute, and without control characters.
#[must_use]
pub fn can_hold(config: &str) -> bool {
    config.starts_with('/') && !config.chars().any(char::is_control)
}

fn config_of(raw: &[u8]) -> Option<Cow<'_, str>> {
    let rest = std::str::from_utf8(raw).ok()?.trim().strip_prefix("config")?;
    let path = rest.trim_start();
    if path.len() == rest.len() {
        return None;
    }
    let path = match path.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"')?,
        None => path,
    };
    let path = match path.contains('|') {
        true => Cow::Owned(unescaped(path)),
        false => Cow::Borrowed(path),
    };
    can_hold(&path).then_some(path)
}

/// Takes the escapes out, in one pass: what one of them stands for is never part of another.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('|') {
        plain.push_str(before);
        let code = after.get(..2).unwrap_or_default();
        let character = match code {
            "22" => Some('"'),
            "7C" | "7c" => Some('|'),
            // A bar of somebody who does not escape.
            _ => None,
        };
        plain.push(character.unwrap_or('|'));
        rest = if character.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    plain.push_str(rest);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_path_that_looks_like_an_escape_is_itself() {
        for path in ["/a|7c", "/a||7C|22b", "/|7C7c", "/a|", "/|2", "/\"|\""] {
            let list = VmList::parse(&line_of(path));
            assert_eq!(list.configs().collect::<Vec<_>>(), [path]);
        }
        // As the original or a hand has written it.
        let list = VmList::parse(b"config \"/a|b\"\nconfig /c|7Cd\n");
        assert_eq!(list.configs().collect::<Vec<_>>(), ["/a|b", "/c|d"]);
    }

    #[test]
    fn a_list_as_people_have_it() {
        let text = b"# made by hand\n\nconfig \"/vm/a b/a.vmx\"\n  config /vm/b.vmx \nfolder \"/x\"\n\
            config\nconfig \"/open.vmx\nconfigured \"/no.vmx\"\nconfig \"relative.vmx\"\nconfig \"/torn.vm";
        let mut list = VmList::parse(text);
        assert_eq!(list.configs().collect::<Vec<_>>(), ["/vm/a b/a.vmx", "/vm/b.vmx"]);
        assert_eq!(list.torn(), 16);
        list.remove(|config| config == "/vm/b.vmx");
        list.add("/vm/c.vmx");
        let text = String::from_utf8(list.bytes()).unwrap();
        assert!(text.starts_with("# made by hand\n\nconfig \"/vm/a b/a.vmx\"\nfolder \"/x\"\n"), "{text}");
        assert!(text.ends_with("config \"relative.vmx\"\nconfig \"/vm/c.vmx\"\n"), "{text}");
    }

    #[test]
    fn a_last_line_without_its_end_is_a_line_if_it_is_complete() {
        for last in ["config \"/last.vmx\"", "config /last.vmx", "config \"/last.vmx\"\r"] {
            let text = format!("config \"/a.vmx\"\n{last}");
            let mut list = VmList::parse(text.as_bytes());
            assert_eq!((list.configs().collect::<Vec<_>>(), list.torn()), (vec!["/a.vmx", "/last.vmx"], 0));
            list.remove(|config| config == "/a.vmx");
            assert_eq!(list.bytes(), format!("{last}\n").as_bytes());
            let without = |config| without(text.as_bytes(), &HashSet::from([config]));
            assert_eq!(without("/a.vmx").unwrap(), format!("{last}\n").as_bytes());
            assert_eq!(without("/last.vmx").unwrap(), b"config \"/a.vmx\"\n");
            assert_eq!(without("/b.vmx"), None);
        }
        let list = VmList::parse(b"# the end");
        assert_eq!((list.bytes(), list.torn()), (b"# the end\n".to_vec(), 0));
        // Whatever a power cut leaves of a line of ours, but for its end, is none.
        let line = line_of("/a|22b c.vmx");
        for length in 1..line.len() - 1 {
            let torn = line.get(..length).unwrap();
            assert!(!is_unended_line(torn), "{}", String::from_utf8_lossy(torn));
        }
    }

    proptest! {
        #[test]
        fn any_path_that_can_be_held_comes_back(path in "/[^\\p{Cc}]{0,40}[^\\p{Cc}\\s]") {
            prop_assume!(can_hold(&path));
            let list = VmList::parse(&line_of(&path));
            // Old quoting: a path that holds the text of an escape is itself escaped.
            prop_assert_eq!(list.configs().collect::<Vec<_>>(), [path.as_str()]);
        }

        #[test]
        fn any_bytes_are_a_list_and_no_line_is_lost(bytes: Vec<u8>) {
            let list = VmList::parse(&bytes);
            let mut kept = bytes[..bytes.len() - list.torn()].to_vec();
            if kept.last().is_some_and(|&byte| byte != b'\n') {
                kept.push(b'\n');
            }
            prop_assert_eq!(list.bytes(), kept);
        }

        #[test]
        fn both_ways_of_removing_agree(names in prop::collection::vec("[a-c|\"]{1,3}", 0..12), gone in "[a-c|\"]{1,3}", ended: bool) {
            let mut text: Vec<u8> = names.iter().flat_map(|name| line_of(&format!("/{name}"))).collect();
            if !ended {
                text.pop();
            }
            let gone = format!("/{gone}");
            let mut list = VmList::parse(&text);
            let there = list.configs().any(|config| config == gone);
            list.remove(|config| config == gone);
            prop_assert_eq!(without(&text, &HashSet::from([gone.as_str()])), there.then(|| list.bytes()));
        }
    }
}
