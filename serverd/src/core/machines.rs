//! The machines that have a process.
//!
//! One entry per running machine, keyed by the path of its .vmx, as the original kept one connection
//! per running machine. Entries come from the supervision of machine processes; as long as the
//! server starts none, the list is empty and says so truthfully.

use std::collections::BTreeMap;

/// Process id of the process that runs a machine.
pub type MachinePid = u32;

/// Machines with a process, sorted by the bytes of their .vmx path.
#[derive(Debug, Default)]
pub struct Machines {
    connected: BTreeMap<String, MachinePid>,
}

impl Machines {
    /// The paths of their .vmx files, sorted by bytes.
    pub fn connected(&self) -> impl Iterator<Item = &str> {
        self.connected.keys().map(String::as_str)
    }
}
