//! The last serial output of machines, for readers who come after power off.

use std::collections::{BTreeMap, VecDeque};

use hypervisor::control::{FromVmx, MAX_CHUNK, SERIAL_KEPT};

/// Serial ports of a machine.
const MAX_PORTS: usize = 4;

/// Machines whose output is kept: those that were powered off last.
const MAX_MACHINES: usize = 256;

/// Output of the ports of one machine: number of the first byte, and the bytes.
#[derive(Debug, Default)]
pub struct Outputs(BTreeMap<u32, (u64, Vec<u8>)>);

impl Outputs {
    /// Takes in a piece that follows on the last one of that port.
    pub fn add(&mut self, port: u32, offset: u64, bytes: &[u8]) {
        if self.0.len() >= MAX_PORTS && !self.0.contains_key(&port) {
            return;
        }
        let (start, all) = self.0.entry(port).or_insert((offset, Vec::new()));
        if start.saturating_add(all.len() as u64) != offset {
            all.clear();
            *start = offset;
        }
        all.extend_from_slice(bytes);
        let over = all.len().saturating_sub(SERIAL_KEPT);
        all.drain(..over);
        *start = start.saturating_add(over as u64);
    }
}

/// The outputs of machines that are off.
#[derive(Debug, Default)]
pub struct Kept {
    machines: BTreeMap<String, Outputs>,
    order: VecDeque<String>,
}

impl Kept {
    /// Keeps what a machine said last, in place of what it said before.
    pub fn keep(&mut self, config: String, outputs: Outputs) {
        self.forget(&config);
        if self.order.len() >= MAX_MACHINES
            && let Some(oldest) = self.order.pop_front()
        {
            self.machines.remove(&oldest);
        }
        self.order.push_back(config.clone());
        self.machines.insert(config, outputs);
    }

    /// Forgets a machine.
    pub fn forget(&mut self, config: &str) {
        if self.machines.remove(config).is_some() {
            self.order.retain(|one| one != config);
        }
    }

    /// Output of a port, as the machine would have answered; `None` when no machine has such a port.
    /// One of which nothing is kept has said nothing.
    #[must_use]
    pub fn read(&self, config: &str, port: u32, offset: u64, max: u32) -> Option<FromVmx> {
        if usize::try_from(port).is_ok_and(|port| port >= MAX_PORTS) {
            return None;
        }
        let nothing = (0, Vec::new());
        let (start, all) =
            self.machines.get(config).and_then(|outputs| outputs.0.get(&port)).unwrap_or(&nothing);
        let end = start.saturating_add(all.len() as u64);
        let from = offset.clamp(*start, end);
        let skip = usize::try_from(from - start).unwrap_or(usize::MAX);
        let max = usize::try_from(max).unwrap_or(MAX_CHUNK).min(MAX_CHUNK);
        let bytes = all.iter().skip(skip).take(max).copied().collect();
        Some(FromVmx::Output { request: 0, port, offset: from, lost: start.saturating_sub(offset), bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kept: &Kept, offset: u64, max: u32) -> (u64, u64, Vec<u8>) {
        match kept.read("/a", 1, offset, max) {
            Some(FromVmx::Output { offset, lost, bytes, .. }) => (offset, lost, bytes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_end_of_the_output_is_kept() {
        let mut outputs = Outputs::default();
        outputs.add(1, 10, b"abc");
        outputs.add(1, 13, b"def");
        let mut kept = Kept::default();
        assert_eq!(read(&kept, 5, 9), (0, 0, Vec::new()));
        kept.keep("/a".into(), outputs);
        assert_eq!(read(&kept, 0, 4), (10, 10, b"abcd".to_vec()));
        assert_eq!(read(&kept, 14, 99), (14, 0, b"ef".to_vec()));
        assert_eq!(read(&kept, 99, 99), (16, 0, Vec::new()));
        assert!(kept.read("/a", 4, 0, 1).is_none());
        let mut much = Outputs::default();
        for number in 0..5 {
            much.add(1, number * 65_536, &[number as u8; 65_536]);
        }
        kept.keep("/a".into(), much);
        assert_eq!(read(&kept, 0, 1), (65_536, 65_536, vec![1]));
        for number in 0..MAX_MACHINES {
            kept.keep(format!("/{number}"), Outputs::default());
        }
        assert_eq!((kept.machines.len(), kept.order.len()), (MAX_MACHINES, MAX_MACHINES));
        assert_eq!(read(&kept, 0, 1).0, 0, "forgotten");
    }
}
