//! A serial port: a 16550 (that of `vm-superio`) between the guest and two buffers.
//!
//! ```text
//!   guest ──▶ 16550 ──▶ Kept: the last 256 KiB, numbered from power on ──▶ SerialRead
//!   guest ◀── 16550 ◀── queue of input                                 ◀── SerialWrite
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hypervisor::control::SERIAL_KEPT;
use serde::{Deserialize, Serialize};
use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial, Trigger};

/// Input that waits for the guest at most, in bytes.
const INPUT: usize = 4096;

/// First port and interrupt of COM1 to COM4.
pub const PORTS: [(u16, u32); 4] = [(0x3f8, 4), (0x2f8, 3), (0x3e8, 4), (0x2e8, 3)];

/// Notes that the chip wants an interrupt.
#[derive(Debug, Clone, Default)]
struct Wish(Arc<AtomicBool>);

impl Trigger for Wish {
    type E = Infallible;
    fn trigger(&self) -> Result<(), Infallible> {
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

/// What the guest sent: the end of it, and how much there was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    bytes: VecDeque<u8>,
    /// Bytes since power on.
    end: u64,
    /// Bytes that nobody has taken for a file or the like yet.
    #[serde(skip)]
    fresh: Vec<u8>,
}

/// A part of what the guest sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Number of the first byte.
    pub offset: u64,
    /// Bytes that were asked for and are gone.
    pub lost: u64,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Kept {
    /// At most `max` bytes from `offset` on; an offset that is gone moves forward, one beyond the end
    /// moves back to it.
    #[must_use]
    pub fn part(&self, offset: u64, max: usize) -> Part {
        let start = self.start();
        let from = offset.clamp(start, self.end);
        let skip = usize::try_from(from - start).unwrap_or(usize::MAX);
        let bytes = self.bytes.iter().skip(skip).take(max).copied().collect();
        Part { offset: from, lost: start.saturating_sub(offset), bytes }
    }

    /// Number of the oldest byte that is kept.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.end - (self.bytes.len() as u64).min(self.end)
    }

    /// Number of the next byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }
}

impl io::Write for Kept {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        for &byte in data {
            if self.bytes.len() >= SERIAL_KEPT {
                self.bytes.pop_front();
            }
            self.bytes.push_back(byte);
        }
        self.end += data.len() as u64;
        self.fresh.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One port.
pub struct SerialPort {
    chip: Serial<Wish, NoEvents, Kept>,
    wish: Wish,
    input: VecDeque<u8>,
}

impl std::fmt::Debug for SerialPort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SerialPort").finish_non_exhaustive()
    }
}

/// A port as it is saved.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Saved {
    registers: [u8; 9],
    received: Vec<u8>,
    kept: Kept,
    input: VecDeque<u8>,
}

impl Default for SerialPort {
    fn default() -> Self {
        let wish = Wish::default();
        let chip = Serial::new(wish.clone(), Kept::default());
        SerialPort { chip, wish, input: VecDeque::new() }
    }
}

impl SerialPort {
    /// Reads the register at `offset` (0 to 7) from the first port.
    pub fn read(&mut self, offset: u8) -> u8 {
        let value = self.chip.read(offset);
        self.feed();
        value
    }

    /// Writes a register.
    pub fn write(&mut self, offset: u8, value: u8) {
        // Output goes to memory: nothing can fail but that the guest reads too slowly in loopback.
        let _ = self.chip.write(offset, value);
        self.feed();
    }

    /// Sends to the guest; returns how many bytes were taken.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(INPUT.saturating_sub(self.input.len()));
        self.input.extend(bytes.iter().take(count));
        self.feed();
        count
    }

    /// Moves input into the chip, as far as that has room.
    fn feed(&mut self) {
        let room = self.chip.fifo_capacity().min(self.input.len());
        if room == 0 {
            return;
        }
        let bytes: Vec<u8> = self.input.iter().take(room).copied().collect();
        // Refused while the guest has the chip in loopback: then it waits.
        if let Ok(count) = self.chip.enqueue_raw_bytes(&bytes) {
            self.input.drain(..count.min(self.input.len()));
        }
    }

    /// Whether the chip wanted an interrupt since the last call.
    pub fn take_interrupt(&mut self) -> bool {
        self.wish.0.swap(false, Ordering::Relaxed)
    }

    /// What the guest sent.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        self.chip.writer()
    }

    /// What the guest sent since the last call.
    pub fn take_fresh(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.chip.writer_mut().fresh)
    }

    /// The port as it is saved.
    #[must_use]
    pub fn save(&self) -> Saved {
        let state = self.chip.state();
        Saved {
            registers: [
                state.baud_divisor_low,
                state.baud_divisor_high,
                state.interrupt_enable,
                state.interrupt_identification,
                state.line_control,
                state.line_status,
                state.modem_control,
                state.modem_status,
                state.scratch,
            ],
            received: state.in_buffer,
            kept: self.kept().clone(),
            input: self.input.clone(),
        }
    }

    /// A port as it was saved; None when that is no state of such a chip.
    #[must_use]
    pub fn restore(saved: Saved) -> Option<Self> {
        let [low, high, enable, identification, line, status, modem, modem_status, scratch] = saved.registers;
        let state = SerialState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control: line,
            line_status: status,
            modem_control: modem,
            modem_status,
            scratch,
            in_buffer: saved.received,
        };
        let wish = Wish::default();
        let mut kept = saved.kept;
        if kept.bytes.len() > SERIAL_KEPT || kept.end < kept.bytes.len() as u64 || saved.input.len() > INPUT {
            return None;
        }
        kept.fresh.clear();
        let chip = Serial::from_state(&state, wish.clone(), NoEvents, kept).ok()?;
        Some(SerialPort { chip, wish, input: saved.input })
    }

    /// The chip is reset; what was sent and what waits stays.
    pub fn reset(&mut self) {
        let kept = std::mem::take(self.chip.writer_mut());
        self.chip = Serial::new(self.wish.clone(), kept);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_kept_and_numbered() {
        let mut port = SerialPort::default();
        for byte in b"hello" {
            port.write(0, *byte);
        }
        assert_eq!(port.kept().part(1, 3), Part { offset: 1, lost: 0, bytes: b"ell".to_vec() });
        assert_eq!(port.kept().part(99, 3), Part { offset: 5, lost: 0, bytes: vec![] });
        assert_eq!(port.take_fresh(), b"hello");
        for _ in 0..SERIAL_KEPT {
            port.write(0, b'x');
        }
        let part = port.kept().part(2, 1);
        assert_eq!((part.offset, part.lost), (5, 3));
        assert_eq!(port.kept().end(), 5 + SERIAL_KEPT as u64);
    }

    #[test]
    fn input_waits_for_the_guest_and_has_a_limit() {
        let mut port = SerialPort::default();
        assert_eq!(port.send(&[b'a'; 100]), 100);
        let mut count = 0;
        while port.read(5) & 1 != 0 {
            assert_eq!(port.read(0), b'a');
            count += 1;
        }
        assert_eq!(count, 100);
        assert_eq!(port.send(&[0; 5000]), INPUT);
        assert!(port.send(&[0; 5000]) <= 64);
    }

    #[test]
    fn saved_and_restored() {
        let mut port = SerialPort::default();
        port.write(1, 1);
        port.write(0, b'x');
        port.send(&[b'y'; 80]);
        assert!(port.take_interrupt());
        let mut again = SerialPort::restore(port.save()).unwrap();
        assert_eq!(again.kept().part(0, 9).bytes, b"x");
        assert_eq!(again.read(0), b'y');
        assert_eq!(again.read(1), 1);
        let mut bad = port.save();
        bad.received = vec![0; 65];
        assert!(SerialPort::restore(bad).is_none());
    }
}
