//! Numbers by which a machine is known: its UUID, and the addresses of its network adapters.

use std::fmt;
use std::str::FromStr;

/// `uuid.bios` and `uuid.location`: 16 bytes, written as hex pairs separated by spaces, with `-` after
/// the eighth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Uuid(pub [u8; 16]);

/// The address of a network adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

/// A text that is no UUID, or no address of an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a number of this form")]
pub struct Unreadable;

impl Uuid {
    /// A random one for a new machine. The first two bytes are `56 4d`, as in all that were seen.
    ///
    /// # Errors
    /// When the system has no random numbers.
    pub fn random() -> std::io::Result<Self> {
        let mut bytes = [0; 16];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
        }
        bytes[0] = 0x56;
        bytes[1] = 0x4d;
        Ok(Uuid(bytes))
    }
}

impl Mac {
    /// The address that the product generates for an adapter: `00:0c:29` and the last three bytes of
    /// `uuid.bios`, plus the adapter's `generatedAddressOffset` (ten times its number).
    ///
    /// A carry goes into the byte before, and none leaves the last three bytes. Ours: no sample shows
    /// one.
    #[must_use]
    pub fn generated(uuid: Uuid, offset: u32) -> Self {
        let [.., a, b, c] = uuid.0;
        let [_, a, b, c] = u32::from_be_bytes([0, a, b, c]).wrapping_add(offset).to_be_bytes();
        Mac([0x00, 0x0c, 0x29, a, b, c])
    }
}

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let separator = match index {
                0 => "",
                8 => "-",
                _ => " ",
            };
            write!(f, "{separator}{byte:02x}")?;
        }
        Ok(())
    }
}

impl FromStr for Uuid {
    type Err = Unreadable;

    /// Reads 32 hex digits with whatever separators between the pairs.
    fn from_str(text: &str) -> Result<Self, Unreadable> {
        pairs(text, &[' ', '-', ':']).map(Uuid)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        pairs(text, &[':', '-']).map(Mac)
    }
}

/// Reads `N` pairs of hex digits, separated by one or no character of `separators`.
fn pairs<const N: usize>(text: &str, separators: &[char]) -> Result<[u8; N], Unreadable> {
    let mut rest = text.trim();
    let mut bytes = [0; N];
    for (index, byte) in bytes.iter_mut().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix(separators).unwrap_or(rest);
        }
        let (pair, after) = rest.split_at_checked(2).ok_or(Unreadable)?;
        let digits = pair.bytes().all(|digit| digit.is_ascii_hexdigit());
        *byte = digits.then(|| u8::from_str_radix(pair, 16).ok()).flatten().ok_or(Unreadable)?;
        rest = after;
    }
    if rest.is_empty() { Ok(bytes) } else { Err(Unreadable) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_addresses_of_known_machines() {
        // The last three bytes of uuid.bios, the adapter's offset, its address, as found in files.
        let facts = [
            ("15 ff 78", 0, "00:0c:29:15:ff:78"),
            ("15 ff 78", 10, "00:0c:29:15:ff:82"),
            ("59 7e 49", 0, "00:0c:29:59:7e:49"),
            ("59 7e 49", 10, "00:0c:29:59:7e:53"),
            ("ef 24 3c", 0, "00:0c:29:ef:24:3c"),
            ("ef 24 3c", 10, "00:0c:29:ef:24:46"),
            ("ef 24 3c", 20, "00:0c:29:ef:24:50"),
            ("20 41 99", 10, "00:0c:29:20:41:a3"),
            ("20 41 99", 30, "00:0c:29:20:41:b7"),
            ("7c bf 81", 10, "00:0c:29:7c:bf:8b"),
            ("7c bf 81", 20, "00:0c:29:7c:bf:95"),
            ("2b 6c fc", 0, "00:0c:29:2b:6c:fc"),
        ];
        for (end, offset, expected) in facts {
            let uuid: Uuid = format!("56 4d a3 9c a6 17 38 ff-00 58 ff 30 26 {end}").parse().unwrap();
            assert_eq!(Mac::generated(uuid, offset).to_string(), expected);
        }
    }

    #[test]
    fn a_carry_stays_in_the_last_three_bytes() {
        let uuid =
            |end: &str| format!("56 4d 00 00 00 00 00 00-00 00 00 00 00 {end}").parse::<Uuid>().unwrap();
        assert_eq!(Mac::generated(uuid("2b 6c fc"), 10).to_string(), "00:0c:29:2b:6d:06");
        assert_eq!(Mac::generated(uuid("2b ff fc"), 10).to_string(), "00:0c:29:2c:00:06");
        assert_eq!(Mac::generated(uuid("ff ff fc"), 10).to_string(), "00:0c:29:00:00:06");
    }

    #[test]
    fn the_form_of_a_uuid() {
        let text = "56 4d a3 9c a6 17 38 ff-00 58 ff 30 26 15 ff 78";
        let uuid: Uuid = text.parse().unwrap();
        assert_eq!(uuid.to_string(), text);
        assert_eq!("564DA39C-A617-38FF-0058-FF302615FF78".parse(), Ok(uuid));
        for bad in [
            "",
            "56",
            "zz 4d",
            &text[1..],
            &format!("{text} 00"),
            "+6 4d a3 9c a6 17 38 ff-00 58 ff 30 26 15 ff 78",
        ] {
            assert_eq!(bad.parse::<Uuid>(), Err(Unreadable), "{bad}");
        }
        let (one, other) = (Uuid::random().unwrap(), Uuid::random().unwrap());
        assert_ne!(one, other);
        assert!(one.to_string().starts_with("56 4d "));
        assert_eq!("00:0C:29:15:ff:78".parse(), Ok(Mac([0, 12, 0x29, 0x15, 0xff, 0x78])));
        assert_eq!("00:0c:29:15:ff".parse::<Mac>(), Err(Unreadable));
        assert_eq!("00:0c:29:15:ff:7ß".parse::<Mac>(), Err(Unreadable));
    }
}
