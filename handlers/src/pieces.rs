//! Pieces of files for replies: a range that ends between characters, and the last lines.

use std::io;
use std::os::fd::AsFd;

use ops::value::{Encoding, as_xml_text, to_base64};
use rustix::io::{Errno, pread};

/// Most bytes at the end of a file that are looked at for its last lines.
const LOOK: u64 = ops::file::MAX_PIECE as u64;
/// How much of it is read at a time.
const BLOCK: u64 = 64 * 1024;

/// Reads up to `length` bytes from `offset`; fewer only at the end of the file.
pub(crate) fn read(file: impl AsFd, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while let Some(room) = bytes.get_mut(filled..).filter(|room| !room.is_empty()) {
        match pread(&file, room, offset.saturating_add(filled as u64)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// How bytes travel, and how many of them: text that ends inside a character is cut before it when
/// more of the file follows.
pub(crate) fn encode(bytes: &[u8], more_follows: bool) -> (Encoding, String, usize) {
    if let Some(text) = as_xml_text(bytes) {
        return (Encoding::Text, text.to_owned(), bytes.len());
    }
    if more_follows
        && let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
        && error.valid_up_to() > 0
        && let Some(text) = bytes.get(..error.valid_up_to()).and_then(as_xml_text)
    {
        return (Encoding::Text, text.to_owned(), text.len());
    }
    (Encoding::Base64, to_base64(bytes), bytes.len())
}

/// The last lines of a file.
pub(crate) struct Tail {
    /// Without their line feeds, oldest first.
    pub(crate) lines: Vec<Vec<u8>>,
    /// Whether there are more lines than were looked at, although fewer than asked for were found.
    pub(crate) short: bool,
}

/// Finds the last `n` lines of the first `size` bytes of a file, from the end on.
pub(crate) fn last_lines(file: impl AsFd, size: u64, n: usize) -> io::Result<Tail> {
    let stop = size.saturating_sub(LOOK);
    let mut start = size;
    // Blocks from the last one on; together the bytes from `start` to the end.
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut feeds = 0;
    // A line feed at the very end begins no line, so n lines are found behind n + 1 of them.
    while start > stop && feeds <= n {
        let from = start.saturating_sub(BLOCK).max(stop);
        let block = read(&file, from, usize::try_from(start - from).unwrap_or(0))?;
        feeds += block.iter().filter(|byte| **byte == b'\n').count();
        start = from;
        blocks.push(block);
    }
    blocks.reverse();
    let bytes = blocks.concat();
    let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Ok(Tail { lines: Vec::new(), short: false });
    }
    let mut lines: Vec<Vec<u8>> =
        text.rsplit(|byte| *byte == b'\n').take(n + 1).map(<[u8]>::to_vec).collect();
    let mut short = false;
    if lines.len() > n {
        lines.truncate(n);
    } else if start > 0 {
        // The oldest of them begins before what was looked at. It is shown only when there is no other,
        // and then from a character on.
        short = true;
        if lines.len() > 1 {
            lines.pop();
        } else if let Some(line) = lines.first_mut() {
            let inside = line.iter().take(3).take_while(|byte| **byte & 0xC0 == 0x80).count();
            line.drain(..inside);
        }
    }
    lines.reverse();
    Ok(Tail { lines, short })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt;

    fn file(bytes: &[u8]) -> std::fs::File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file
    }

    fn tail(bytes: &[u8], n: usize) -> (Vec<String>, bool) {
        let tail = last_lines(file(bytes), bytes.len() as u64, n).unwrap();
        (tail.lines.into_iter().map(|line| String::from_utf8(line).unwrap()).collect(), tail.short)
    }

    #[test]
    fn characters_are_not_split() {
        let text = "aä€𝄞".as_bytes();
        for (length, covered) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3), (6, 6), (9, 6), (10, 10)] {
            let (encoding, shown, count) = encode(&text[..length], true);
            assert_eq!((encoding, shown.as_bytes(), count), (Encoding::Text, &text[..covered], covered));
        }
        // At the end of the file, at the beginning of a character, and within one: no text.
        assert_eq!(encode(&text[..2], false).0, Encoding::Base64);
        assert_eq!(encode(&text[1..2], true), (Encoding::Base64, "ww==".into(), 1));
        assert_eq!(encode(&text[2..], true).0, Encoding::Base64);
        assert_eq!(encode(b"a\0\xC3", true).0, Encoding::Base64);
    }

    #[test]
    fn last_lines_of_small_and_large_files() {
        assert_eq!(tail(b"", 3), (vec![], false));
        assert_eq!(tail(b"\n", 3), (vec![String::new()], false));
        assert_eq!(tail(b"a\nb\n\nc", 3), (vec!["b".into(), "".into(), "c".into()], false));
        assert_eq!(tail(b"a\nb\n", 3), (vec!["a".into(), "b".into()], false));
        assert_eq!(tail(b"a\nb\n", 2), (vec!["a".into(), "b".into()], false));
        let mut large = vec![b'x'; 3 << 20];
        assert_eq!(tail(&large, 2), (vec!["x".repeat(1 << 20)], true));
        large.extend_from_slice(b"\nlast\n");
        assert_eq!(tail(&large, 1), (vec!["last".into()], false));
        assert_eq!(tail(&large, 2), (vec!["last".into()], true));
        let wide = "ä".repeat(1 << 20) + "y";
        let (lines, short) = tail(wide.as_bytes(), 2);
        assert!(short && lines[0].ends_with("äy"));
    }

    #[test]
    fn a_huge_file_is_not_read() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 40).unwrap();
        file.write_all_at(b"\nthe end\n", (1 << 40) - 9).unwrap();
        let tail = last_lines(&file, 1 << 40, 1).unwrap();
        assert_eq!(tail.lines, [b"the end".to_vec()]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn last_lines_are_those_of_the_whole_text(text in "([a-zä]{0,9}\n?){0,40}", n in 1usize..12, pad in 0usize..3) {
            // Long lines put the line feeds into different blocks.
            let text = text.replace('z', &"long".repeat(pad * 9000));
            let all: Vec<&str> = text.lines().collect();
            let expected: Vec<String> = all[all.len().saturating_sub(n)..].iter().map(|l| (*l).to_owned()).collect();
            if text.len() <= 1 << 20 {
                prop_assert_eq!(tail(text.as_bytes(), n), (expected, false));
            }
        }

        #[test]
        fn pieces_put_together_are_the_file(text in "\\PC{0,60}", length in 1usize..9) {
            let bytes = text.as_bytes();
            let file = file(bytes);
            let (mut offset, mut all) = (0, Vec::new());
            while offset < bytes.len() {
                let piece = read(&file, offset as u64, length).unwrap();
                let more = offset + piece.len() < bytes.len();
                let (encoding, shown, count) = encode(&piece, more);
                prop_assert!(count > 0 && count + 3 >= piece.len());
                all.extend(encoding.decode(shown).unwrap());
                offset += count;
            }
            prop_assert_eq!(all, bytes);
        }
    }
}
