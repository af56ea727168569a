//! Says things to whichever core is connected.

use std::sync::{Arc, Mutex};

use hypervisor::control::{FromVmx, Severity};
use link::Outbox;

use crate::vcpu::lock;

/// Messages that wait for a core that does not read.
const OUTBOX: usize = 4096;

/// Says things to whichever core is connected.
#[derive(Clone)]
pub(super) struct Speaker(Arc<Mutex<Outbox<FromVmx>>>);

impl Speaker {
    pub(super) fn new() -> Self {
        Speaker(Arc::new(Mutex::new(Outbox::new(OUTBOX))))
    }

    /// Where messages wait now.
    pub(super) fn outbox(&self) -> Outbox<FromVmx> {
        lock(&self.0).clone()
    }

    /// From now on another core listens; what waits for the old one is dropped.
    pub(super) fn renew(&self) -> Outbox<FromVmx> {
        let outbox = Outbox::new(OUTBOX);
        let mut current = lock(&self.0);
        current.close();
        *current = outbox.clone();
        outbox
    }

    /// Nothing more will be said.
    pub(super) fn close(&self) {
        lock(&self.0).close();
    }

    pub(super) fn say(&self, message: FromVmx) {
        // Without a listener it is lost; a new core asks for the status.
        let _ = lock(&self.0).push(message, Vec::new());
    }

    pub(super) fn done(&self, request: u32) {
        self.say(FromVmx::Done { request });
    }

    pub(super) fn fail(&self, request: u32, code: i32, detail: impl Into<String>) {
        self.say(FromVmx::Failed { request, code, detail: detail.into() });
    }

    pub(super) fn notice(&self, severity: Severity, text: impl Into<String>) {
        self.say(FromVmx::Notice { severity, text: text.into() });
    }
}
