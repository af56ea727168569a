//! Asking the core on behalf of handlers.
//!
//! A question gets a number; whoever asked waits for the answer with that number. When the core is
//! gone, everybody who waits is told.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use handlers::tasks::{NewTask, Work};
use handlers::{Answer, Core, Failure};
use link::Outbox;
use tokio::sync::oneshot;

use crate::channel::{ToCore, ToSession};

/// What a handler's log has when the core did not answer.
#[derive(Debug, thiserror::Error)]
#[error("the core has gone")]
struct Gone;

/// The session process's way to the core.
#[derive(Debug)]
pub struct CoreLink {
    outbox: Outbox<ToCore>,
    waiting: Mutex<Waiting>,
}

/// Who waits for what.
#[derive(Debug, Default)]
struct Waiting {
    gone: bool,
    next: u64,
    counts: HashMap<u64, oneshot::Sender<u64>>,
    /// With the part of the list that has arrived.
    vms: HashMap<u64, (Vec<String>, oneshot::Sender<Vec<String>>)>,
}

impl CoreLink {
    /// Asks through `outbox`; answers must be given to [`CoreLink::answer`].
    #[must_use]
    pub fn new(outbox: Outbox<ToCore>) -> Self {
        CoreLink { outbox, waiting: Mutex::new(Waiting::default()) }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives an answer to whoever waits for it; other messages are not looked at.
    pub fn answer(&self, message: ToSession) {
        let mut waiting = self.lock();
        // Somebody who no longer waits has closed the connection; the answer is then for nobody.
        match message {
            ToSession::RequestCount { question, count } => {
                if let Some(asker) = waiting.counts.remove(&question) {
                    let _ = asker.send(count);
                }
            }
            ToSession::ConnectedVms { question, vms, more } => {
                if let Some((list, _)) = waiting.vms.get_mut(&question) {
                    list.extend(vms);
                }
                if !more && let Some((list, asker)) = waiting.vms.remove(&question) {
                    let _ = asker.send(list);
                }
            }
            _ => {}
        }
    }

    /// The core is gone: nobody will be answered any more.
    pub fn gone(&self) {
        let mut waiting = self.lock();
        waiting.gone = true;
        waiting.counts.clear();
        waiting.vms.clear();
    }

    /// Registers a question and sends it.
    fn ask<T>(
        &self,
        register: impl FnOnce(&mut Waiting, u64, oneshot::Sender<T>),
        message: impl FnOnce(u64) -> ToCore,
    ) -> Result<oneshot::Receiver<T>, Failure> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.lock();
        if waiting.gone {
            return Err(Failure::internal("asking the core", Gone));
        }
        waiting.next += 1;
        let question = waiting.next;
        register(&mut waiting, question, sender);
        let sent = self.outbox.push(message(question), Vec::new());
        sent.map_err(|error| Failure::internal("asking the core", error))?;
        Ok(receiver)
    }
}

impl Core for CoreLink {
    fn request_count(&self) -> Answer<'_, u64> {
        let asked = self.ask(
            |waiting, question, asker| {
                waiting.counts.insert(question, asker);
            },
            |question| ToCore::RequestCount { question },
        );
        Box::pin(async { asked?.await.map_err(|_| Failure::internal("asking the core", Gone)) })
    }

    fn connected_vms(&self) -> Answer<'_, Vec<String>> {
        let asked = self.ask(
            |waiting, question, asker| {
                waiting.vms.insert(question, (Vec::new(), asker));
            },
            |question| ToCore::ConnectedVms { question },
        );
        Box::pin(async { asked?.await.map_err(|_| Failure::internal("asking the core", Gone)) })
    }

    fn start_task(&self, _task: NewTask, _work: Work) -> Answer<'_, u64> {
        Box::pin(async { Err(Failure::internal("starting a task", Gone)) })
    }

    fn registered(&self, _only: Option<Vec<String>>) -> Answer<'_, Vec<String>> {
        Box::pin(async { Err(Failure::internal("asking the core", Gone)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_question_gets_its_own_answer() {
        let link = CoreLink::new(Outbox::new(8));
        let (first, second, list) = (link.request_count(), link.request_count(), link.connected_vms());
        link.answer(ToSession::RequestCount { question: 2, count: 22 });
        link.answer(ToSession::RequestCount { question: 1, count: 11 });
        link.answer(ToSession::RequestCount { question: 9, count: 99 });
        link.answer(ToSession::ConnectedVms { question: 3, vms: vec!["/a".into()], more: true });
        link.answer(ToSession::ConnectedVms { question: 3, vms: vec!["/b".into()], more: false });
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (11, 22));
        assert_eq!(list.await.unwrap(), ["/a", "/b"]);
    }

    #[tokio::test]
    async fn without_a_core_every_question_fails() {
        let link = CoreLink::new(Outbox::new(8));
        let before = link.request_count();
        link.gone();
        assert_eq!(before.await.unwrap_err().to_string(), "asking the core: the core has gone");
        assert!(link.connected_vms().await.is_err());
    }
}
