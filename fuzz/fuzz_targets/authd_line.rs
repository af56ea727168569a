//! The grammar of one line: any bytes, in any pieces, give the same lines, within the limits, and an
//! escape is decoded exactly once.
#![no_main]

use authd_dialogue::line::{LineBuffer, Taken, split, unescape};
use libfuzzer_sys::fuzz_target;

/// Feeds `input` in pieces of `size` bytes; returns what was taken.
fn lines(input: &[u8], size: usize, max: usize) -> Vec<Taken> {
    let mut buffer = LineBuffer::new(max);
    let mut taken = Vec::new();
    for piece in input.chunks(size) {
        buffer.push(piece);
        loop {
            match buffer.take() {
                Taken::NeedMore => break,
                Taken::TooLong => {
                    taken.push(Taken::TooLong);
                    return taken;
                }
                other => taken.push(other),
            }
        }
    }
    taken
}

fuzz_target!(|input: &[u8]| {
    let Some((&size, input)) = input.split_first() else {
        return;
    };
    let max = 64;
    let whole = lines(input, input.len().max(1), max);
    assert_eq!(whole, lines(input, usize::from(size).max(1), max));
    for taken in &whole {
        let Taken::Line(line) = taken else {
            continue;
        };
        assert!(line.len() <= max);
        assert!(!line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
        let command = split(line);
        assert!(!command.word.contains(&b' '));
        if let Some(text) = unescape(command.argument) {
            assert!(text.len() <= command.argument.len());
            assert!(!text.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')));
            assert_eq!(unescape(&link::identity::escape(&text)), Some(text));
        }
    }
});
