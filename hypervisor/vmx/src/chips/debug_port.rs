//! The firmware's debug console: port 0x402, into the machine's log line by line.

use serde::{Deserialize, Serialize};

/// The port.
pub const PORT: u16 = 0x402;

/// What reading it gives: "here I am".
pub const PRESENT: u8 = 0xe9;

/// Longest line that is kept, in bytes; a longer one is cut in two.
const LINE: usize = 512;

/// The console.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct DebugPort {
    line: Vec<u8>,
}

impl DebugPort {
    /// Takes a byte; returns a line when one is complete.
    pub fn write(&mut self, byte: u8) -> Option<String> {
        if byte != b'\n' {
            self.line.push(byte);
            if self.line.len() < LINE {
                return None;
            }
        }
        let text: String = self.line.iter().map(|&byte| printable(byte)).collect();
        self.line.clear();
        Some(text.trim_end().to_owned())
    }
}

fn printable(byte: u8) -> char {
    if byte == b'\t' || (0x20..0x7f).contains(&byte) { char::from(byte) } else { ' ' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_and_never_endless() {
        let mut port = DebugPort::default();
        let lines: Vec<String> =
            b"SeaBIOS\x1b[m\r\n\nrest".iter().filter_map(|&byte| port.write(byte)).collect();
        assert_eq!(lines, ["SeaBIOS [m", ""]);
        let long: Vec<String> = (0..1000).filter_map(|_| port.write(b'x')).collect();
        assert_eq!(long.len(), 1);
        assert_eq!(long[0].len(), LINE);
    }
}
