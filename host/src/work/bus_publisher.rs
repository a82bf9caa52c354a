//! Publishes emitted messages on a bus, after they were published to the queues.
//!
//! [`Outbox::send`](super::outbox::Outbox::send) publishes the messages to the queues first, and
//! leaves them in the journal. This publisher reads them there, and calls [`Exchange::publish`].

use std::sync::Arc;
use std::time::Duration;

use loopabull_fedora_messaging::Exchange;
use loopabull_model::chain;
use loopabull_queue::Backoff;
use tokio_util::sync::CancellationToken;

use crate::config::Publish;
use crate::journal::Journal;
use crate::observe::health::{Health, Part};
use crate::work::error::WorkError;

/// Interval at which the journal is read for messages that are not on the bus yet.
const POLL_INTERVAL: Duration = Duration::from_millis(300);

/// Publishes emitted messages on a bus.
pub(crate) struct BusPublisher {
    pub journal: Arc<Journal>,
    pub settings: Publish,
    pub health: Arc<Health>,
    pub drain: CancellationToken,
}

impl BusPublisher {
    /// Publishes until the daemon drains. The next daemon publishes the remaining messages.
    pub(crate) async fn run(self) {
        let condition = self.health.condition(Part::Publish);
        let mut backoff = Backoff::default();
        let mut connected = None;
        while !self.drain.is_cancelled() {
            // Dropping a publish is safe: the next daemon publishes the message again with the same
            // id.
            let published = tokio::select! {
                published = self.publish(connected.take()) => published,
                () = self.drain.cancelled() => return,
            };
            match published {
                Ok((exchange, count)) => {
                    match exchange.problem() {
                        Some(problem) => condition.report(problem),
                        None => condition.resolve(),
                    }
                    connected = Some(exchange);
                    backoff.reset();
                    if count == 0 {
                        tokio::select! {
                            () = tokio::time::sleep(POLL_INTERVAL) => (),
                            () = self.drain.cancelled() => return,
                        }
                    }
                }
                Err(error) => {
                    let error = chain(error);
                    tracing::error!("cannot publish on the bus: {error}; retrying");
                    condition.report(error);
                    backoff.pause(&self.drain).await;
                }
            }
        }
    }

    /// Publishes up to 100 messages that are not on the bus yet. Connects first if there is no
    /// connection. Returns the connection and the number of published messages.
    async fn publish(&self, connected: Option<Exchange>) -> Result<(Exchange, usize), WorkError> {
        let Publish { amqp_url, exchange } = &self.settings;
        let exchange = match connected {
            Some(exchange) => exchange,
            None => Exchange::connect(amqp_url, exchange).await?,
        };
        let waiting = self.journal.awaiting_bus().await?;
        for (entry, place, message) in &waiting {
            exchange.publish(message).await?;
            self.journal.forget_published(entry, *place).await?;
        }
        Ok((exchange, waiting.len()))
    }
}
