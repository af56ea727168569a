//! Types keys no faster than the guest takes them.
//!
//! A keyboard that sends all at once fills the BIOS's buffer of 15 keys, and the rest is lost. So a key
//! is pressed when the guest has read all codes of the one before, and a short while has passed, in
//! which it may do something about that one.

use std::sync::{Arc, Weak};
use std::time::Duration;

use hypervisor::control::HostClass;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::machine::Machine;
use crate::windows;

/// Keys that wait at most: beyond that, keys are refused.
const QUEUE: usize = 4096;

/// The while between two keys.
fn pause(class: HostClass) -> Duration {
    match class {
        HostClass::Native => Duration::from_millis(20),
        // GRUB takes that long to show a character.
        HostClass::Emulated | HostClass::None => Duration::from_millis(100),
    }
}

/// A task that types on the keyboard of one machine. Dropping it drops the keys that wait.
#[derive(Debug)]
pub struct Typist {
    keys: mpsc::Sender<(Vec<u8>, HostClass)>,
    task: JoinHandle<()>,
}

impl Typist {
    /// Starts the task; to be called in a runtime.
    #[must_use]
    pub fn new(machine: &Arc<Machine>) -> Self {
        let (keys, waiting) = mpsc::channel(QUEUE);
        Typist { keys, task: tokio::spawn(run(Arc::downgrade(machine), waiting)) }
    }

    /// Types keys, each given by its codes, on a host of that class: all of them or, when there is no
    /// room, none.
    #[must_use]
    pub fn press(&self, keys: Vec<Vec<u8>>, class: HostClass) -> bool {
        // Nobody else sends: the room stays.
        let room = self.keys.capacity() >= keys.len();
        room && keys.into_iter().all(|codes| self.keys.try_send((codes, class)).is_ok())
    }
}

impl Drop for Typist {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(machine: Weak<Machine>, mut keys: mpsc::Receiver<(Vec<u8>, HostClass)>) {
    while let Some((codes, class)) = keys.recv().await {
        read(&machine, class).await;
        match machine.upgrade() {
            // There is room: the keyboard's own queue is empty.
            Some(machine) => {
                let _ = machine.press(&codes);
            }
            None => return,
        }
        read(&machine, class).await;
        tokio::time::sleep(pause(class)).await;
    }
}

/// Waits until the guest has read what its keyboard holds. The machine is not kept meanwhile: it must be
/// able to end.
async fn read(machine: &Weak<Machine>, class: HostClass) {
    let machine = Weak::clone(machine);
    let _ = tokio::task::spawn_blocking(move || windows::until_read(&machine, class)).await;
}
