//! The outbox: messages that tasks send, on their way from the journal into the queues, and to a bus.
//!
//! A message stands in the journal from the moment that its run is recorded until every task that
//! wants it has it in its queue, so none is lost and none comes of a run that failed. Whoever dies in
//! between sends again: the same message under the same ids, which is worked once here; on a bus it is
//! for those who listen to know a message by its id. The bus is served apart: one that is away keeps
//! no worker waiting.
//!
//! Before it on the path of a message: [`Journal::record`](crate::journal::Journal::record). After
//! it: [`Queues::publish`](loopabull_queue::Queues::publish), [`Exchange::publish`].

use std::sync::Arc;
use std::time::Duration;

use loopabull_fedora_messaging::Exchange;
use loopabull_model::{Entry, EntryId, Message};
use loopabull_queue::Backoff;

use crate::config::Publish;
use crate::error::chain;
use crate::journal::AfterQueues;
use crate::observe::metrics::ByTask;
use crate::work::shared::Workplace;

/// How often it is looked for messages that the bus does not have.
const LOOK: Duration = Duration::from_millis(300);

impl Workplace {
    /// Sends what is still to be sent because of an entry. May be called again after an error.
    pub(crate) async fn send(&self, entry: &EntryId) -> Result<(), String> {
        let messages = self.journal.outbox(entry).await.map_err(chain)?;
        for message in &messages {
            self.put_into_queues(message).await?;
        }
        if !messages.is_empty() {
            self.journal.set_queued(entry, self.after_queues).await.map_err(chain)?;
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

    async fn put_into_queues(&self, message: &Message) -> Result<(), String> {
        let tasks = self.runner.catalog.get().routes.resolve(&message.topic);
        self.metrics.emitted.inc();
        if tasks.is_empty() && self.after_queues == AfterQueues::Done {
            self.metrics.unrouted.inc();
            self.board.count(|counts| counts.unrouted += 1);
            tracing::warn!(message.id = %message.id, "no task wants topic `{}`, which a task sent", message.topic);
        }
        for task in tasks {
            let entry = Entry::new(EntryId::derived(message, &task.name), &task, message);
            self.queues.publish(&entry).await.map_err(chain)?;
            self.metrics.entries.get_or_create(&ByTask { task: task.name.to_string() }).inc();
        }
        Ok(())
    }

    /// Publishes what the bus does not have. Returns how many messages that were.
    async fn publish_on(&self, exchange: &Exchange) -> Result<usize, String> {
        let waiting = self.journal.for_bus().await.map_err(chain)?;
        for (entry, place, message) in &waiting {
            exchange.publish(message).await.map_err(chain)?;
            self.journal.forget_published(entry, *place).await.map_err(chain)?;
        }
        Ok(waiting.len())
    }
}

/// Serves the bus until the daemon drains; what it does not have then is published by the next one.
pub(crate) async fn serve_bus(place: Arc<Workplace>, publish: Publish) {
    const TROUBLE: &str = "publish";
    let drain = place.shutdown.drain.clone();
    let mut backoff = Backoff::default();
    let mut connected = None;
    while !drain.is_cancelled() {
        let served = async {
            let exchange = match connected.take() {
                Some(exchange) => exchange,
                None => {
                    let connect = Exchange::connect(&publish.amqp_url, &publish.exchange);
                    connect.await.map_err(chain)?
                }
            };
            let count = place.publish_on(&exchange).await?;
            Ok::<_, String>((exchange, count))
        };
        // What is on its way when the daemon drains is published again, under the same id.
        let served = tokio::select! {
            served = served => served,
            () = drain.cancelled() => return,
        };
        match served {
            Ok((exchange, count)) => {
                match exchange.problem() {
                    Some(trouble) => place.board.set_trouble(TROUBLE, &trouble),
                    None => place.board.clear_trouble(TROUBLE),
                }
                connected = Some(exchange);
                backoff.reset();
                if count == 0 {
                    tokio::select! {
                        () = tokio::time::sleep(LOOK) => (),
                        () = drain.cancelled() => return,
                    }
                }
            }
            Err(error) => {
                place.board.set_trouble(TROUBLE, &error);
                tracing::error!("{TROUBLE}: {error}, trying again");
                backoff.pause(&drain).await;
            }
        }
    }
}
