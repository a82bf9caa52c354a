//! The outbox: messages that tasks send, on their way from the journal into the queues.
//!
//! A message stands in the journal from the moment that its run is recorded until every task that
//! wants it has it in its queue, so none is lost and none comes of a run that failed. Whoever dies in
//! between sends again: the same message under the same ids, which is worked once here; on a bus it is
//! for those who listen to know a message by its id.
//!
//! Before it on the path of a message: [`Journal::record`](crate::journal::Journal::record). After
//! it: [`Queues::publish`](loopabull_queue::Queues::publish).

use loopabull_model::{Entry, EntryId, Message};

use crate::metrics::ByTask;
use crate::worker::chain;
use crate::workplace::Workplace;

impl Workplace {
    /// Sends what is still to be sent because of an entry. May be called again after an error.
    pub(crate) async fn send(&self, entry: &EntryId) -> Result<(), String> {
        let messages = self.journal.outbox(entry).await.map_err(chain)?;
        for message in &messages {
            self.publish(message).await?;
        }
        if !messages.is_empty() {
            self.journal.forget_sent(entry).await.map_err(chain)?;
        }
        Ok(())
    }

    /// Sends what earlier daemons recorded and did not come to send.
    pub(crate) async fn send_left(&self) -> Result<(), String> {
        for entry in self.journal.unsent().await.map_err(chain)? {
            self.send(&entry).await?;
        }
        Ok(())
    }

    async fn publish(&self, message: &Message) -> Result<(), String> {
        let tasks = self.runner.catalog().routes.resolve(&message.topic);
        self.metrics.emitted.inc();
        if let Some(exchange) = &self.exchange {
            exchange.publish(message).await.map_err(chain)?;
        } else if tasks.is_empty() {
            self.metrics.unrouted.inc();
            self.board.count(|counts| counts.unrouted += 1);
        }
        for task in tasks {
            let entry = Entry::new(EntryId::derived(message, &task.name), &task, message);
            self.queues.publish(&entry).await.map_err(chain)?;
            self.metrics.entries.get_or_create(&ByTask { task: task.name.to_string() }).inc();
        }
        Ok(())
    }
}
