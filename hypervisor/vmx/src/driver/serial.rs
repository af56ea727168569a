//! Reading and writing serial ports, with waiting.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypervisor::control::{FromVmx, MAX_CHUNK};

use super::Driver;
use crate::queue::code;

/// How long serial input waits for room.
const WRITE_WAIT: Duration = Duration::from_secs(5);
/// The longest wait for serial output.
const READ_WAIT: Duration = Duration::from_secs(30);

impl Driver {
    pub(super) fn serial_read(&self, request: u32, port: u32, offset: u64, max: u32, wait: u32) {
        let Some(machine) = &self.machine else {
            return self.speaker.fail(request, code::BAD_STATE, "");
        };
        let max = (max as usize).min(MAX_CHUNK);
        let deadline = Instant::now() + Duration::from_millis(wait.into()).min(READ_WAIT);
        let (machine, wake, speaker) =
            (Arc::downgrade(machine), Arc::clone(&self.wake), self.speaker.clone());
        tokio::spawn(async move {
            loop {
                let woken = wake.notified();
                // Not kept while waiting: the machine must be able to end.
                let part = {
                    let Some(machine) = machine.upgrade() else {
                        return speaker.fail(request, code::BAD_STATE, "");
                    };
                    let mut board = machine.board();
                    board.serial(port).map(|chip| chip.kept().part(offset, max))
                };
                let Some(part) = part else {
                    return speaker.fail(request, code::NO_PROPERTY, format!("serial{port}"));
                };
                if !part.bytes.is_empty() || max == 0 || Instant::now() >= deadline {
                    let crate::chips::serial::Part { offset, lost, bytes } = part;
                    return speaker.say(FromVmx::Output { request, port, offset, lost, bytes });
                }
                // The guest may send between looking and waiting: look again soon in any case.
                let next = deadline.min(Instant::now() + Duration::from_millis(100));
                let _ = tokio::time::timeout_at(next.into(), woken).await;
            }
        });
    }

    pub(super) fn serial_write(&self, request: u32, port: u32, bytes: Vec<u8>) {
        let Some(machine) = &self.machine else {
            return self.speaker.fail(request, code::BAD_STATE, "");
        };
        let deadline = Instant::now() + WRITE_WAIT;
        let (machine, speaker) = (Arc::downgrade(machine), self.speaker.clone());
        tokio::spawn(async move {
            let mut sent = 0;
            loop {
                let rest = bytes.get(sent..).unwrap_or_default();
                let Some(machine) = machine.upgrade() else { break };
                let Some(count) = machine.board().send(port, rest) else {
                    return speaker.fail(request, code::NO_PROPERTY, format!("serial{port}"));
                };
                drop(machine);
                sent += count;
                if sent >= bytes.len() || Instant::now() >= deadline {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            speaker.say(FromVmx::Written { request, count: u32::try_from(sent).unwrap_or(u32::MAX) });
        });
    }
}
