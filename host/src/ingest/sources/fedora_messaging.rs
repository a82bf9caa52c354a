//! The source of a bus in the form of fedora-messaging: AMQP, another broker's topic exchange.
//!
//! Owns what becomes of a delivery: it is acknowledged once our own queue has it, or once what cannot be
//! used is parked with its reason; until then its broker keeps it. Trust is the broker's: TLS, users and
//! their permissions for topics. Before it on the path of a message: [`Bus`]; after it: [`Ingest`].

use std::sync::Arc;

use loopabull_fedmsg::trusted::{self, Properties};
use loopabull_fedora_messaging::{Bus, BusDelivery, BusLink, BusState, Settled};
use loopabull_model::Message;
use tokio::sync::watch;

use crate::ingest::Ingest;
use crate::ingest::quarantine::Parking;
use crate::observe::metrics::{Rejected, Source};
use crate::observe::status::Link;

/// The label of this source.
const SOURCE: &str = "fedora-messaging";

/// What is known of a bus, and the road behind it.
pub(super) struct BusSource {
    /// Under which it is known: its broker and its queue.
    pub name: String,
    pub ingest: Arc<Ingest>,
}

impl BusSource {
    /// Takes what the bus delivers until it is told to drain.
    pub(super) async fn run(self, mut bus: Bus) {
        let state = bus.state();
        let drain = self.ingest.shutdown.drain.clone();
        let take = async {
            while let Some(delivery) = bus.receive(&drain).await {
                self.take(delivery).await;
            }
        };
        tokio::select! {
            () = take => (),
            // Also while a message waits for our own queue.
            () = self.tell(state) => (),
        }
        bus.stop().await;
        bus.close().await;
    }

    async fn take(&self, delivery: BusDelivery) {
        self.ingest.board.receive(&self.name);
        self.ingest.metrics.envelopes.get_or_create(&Source { source: SOURCE }).inc();
        let is_safe = match message(&delivery) {
            Ok(message) => self.ingest.accept_kept(&self.name, message).await,
            Err((reason, why)) => self.park(&delivery, reason, &why).await,
        };
        // What is not safe stays where it is until its connection ends, which it does with us.
        if is_safe {
            match delivery.ack().await {
                // One that could not be told comes again, and is known.
                Settled::Sent | Settled::ChannelGone => (),
            }
        }
    }

    /// Keeps what cannot be used. Tells whether it is on disk, or there is no room for more.
    async fn park(&self, delivery: &BusDelivery, reason: &'static str, why: &str) -> bool {
        self.ingest.count_rejection(&Rejected { reason });
        let id = delivery.message_id.as_deref();
        let parking = Parking {
            reason: why,
            topic: &delivery.routing_key,
            id,
            headers: &delivery.headers,
            content_encoding: delivery.content_encoding.as_deref(),
            body: &delivery.body,
        };
        let shutdown = &self.ingest.shutdown;
        self.ingest.parked.keep(&parking, &self.ingest.board, &shutdown.drain).await
    }

    /// Tells what becomes of the connection, for as long as this runs.
    async fn tell(&self, mut state: watch::Receiver<BusState>) {
        while state.changed().await.is_ok() {
            let state = state.borrow_and_update().clone();
            let link = match (&state.link, state.problem()) {
                (BusLink::Consuming { .. }, None) => Link::Connected,
                (_, Some(trouble)) => Link::Lost(trouble),
                (_, None) => Link::Lost("not connected yet".to_owned()),
            };
            self.ingest.metrics.count_link(&self.name, &link);
            self.ingest.board.set_link(&self.name, link);
        }
        // It changes no more, and whoever takes what is left goes on.
        std::future::pending().await
    }
}

/// Makes a message of a delivery, or tells why not: a label, and a sentence.
fn message(delivery: &BusDelivery) -> Result<Message, (&'static str, String)> {
    let text = delivery.text().map_err(|error| ("bad-encoding", error.to_string()))?;
    let properties = Properties {
        topic: Some(&delivery.routing_key),
        message_id: delivery.message_id.as_deref(),
        headers: &delivery.headers,
    };
    let sent_at = delivery.header("sent-at").and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let sent_at = sent_at.map(jiff::Timestamp::as_second);
    trusted::from_bus(&text, properties, sent_at)
        .map_err(|rejection| (rejection.reason(), rejection.to_string()))
}
