//! From characters to the codes of the keys of a US keyboard (set 1, as a PC's controller gives them).

/// A character that no key makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key makes the character U+{0:04X}")]
pub struct NoKey(pub u32);

const SHIFT: u8 = 0x2a;
const CONTROL: u8 = 0x1d;

/// The rows of the keyboard: plain and with shift, from the key with that code on.
const ROWS: [(u8, &str, &str); 5] = [
    (0x02, "1234567890-=", "!@#$%^&*()_+"),
    (0x10, "qwertyuiop[]", "QWERTYUIOP{}"),
    (0x1e, "asdfghjkl;'`", "ASDFGHJKL:\"~"),
    (0x2b, "\\zxcvbnm,./", "|ZXCVBNM<>?"),
    (0x39, " ", " "),
];

/// The codes that pressing and releasing the key of `character` sends.
///
/// Line feed and carriage return are Enter, 8 and 127 Backspace, 9 Tab, 27 Escape; other control
/// characters are the control key with a letter.
///
/// # Errors
/// [`NoKey`] for anything that is not ASCII.
pub fn codes(character: char) -> Result<Vec<u8>, NoKey> {
    let (modifier, key) = match character {
        '\n' | '\r' => (None, 0x1c),
        '\u{8}' | '\u{7f}' => (None, 0x0e),
        '\t' => (None, 0x0f),
        '\u{1b}' => (None, 0x01),
        '\u{1}'..='\u{1a}' => {
            let letter = char::from(b'a' + (u32::from(character) as u8) - 1);
            (Some(CONTROL), find(letter).ok_or(NoKey(character.into()))?.1)
        }
        _ => {
            let (shift, key) = find(character).ok_or(NoKey(character.into()))?;
            (shift.then_some(SHIFT), key)
        }
    };
    let mut codes = Vec::with_capacity(4);
    codes.extend(modifier);
    codes.extend([key, key | 0x80]);
    codes.extend(modifier.map(|modifier| modifier | 0x80));
    Ok(codes)
}

/// Whether shift is needed, and the code of the key.
fn find(character: char) -> Option<(bool, u8)> {
    ROWS.iter().find_map(|&(first, plain, shifted)| {
        let at = |row: &str| row.chars().position(|key| key == character);
        let (shift, place) =
            at(plain).map(|place| (false, place)).or(at(shifted).map(|place| (true, place)))?;
        Some((shift, first + u8::try_from(place).ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_usual_characters() {
        let cases: [(char, &[u8]); 10] = [
            ('a', &[0x1e, 0x9e]),
            ('A', &[0x2a, 0x1e, 0x9e, 0xaa]),
            ('1', &[0x02, 0x82]),
            ('=', &[0x0d, 0x8d]),
            ('/', &[0x35, 0xb5]),
            ('`', &[0x29, 0xa9]),
            (' ', &[0x39, 0xb9]),
            ('\n', &[0x1c, 0x9c]),
            ('\u{3}', &[0x1d, 0x2e, 0xae, 0x9d]),
            ('|', &[0x2a, 0x2b, 0xab, 0xaa]),
        ];
        for (character, expected) in cases {
            assert_eq!(codes(character).unwrap(), expected, "{character:?}");
        }
        assert_eq!(codes('é'), Err(NoKey(0xe9)));
        for character in ' '..='~' {
            codes(character).unwrap();
        }
    }
}
