//! The fedora-messaging source consumes a bus over AMQP.
//!
//! The source acknowledges a delivery when its entries are stored, or when the delivery is
//! quarantined because it is not a valid message. Until then, the broker of the bus keeps the
//! delivery. The source does not check signatures: it trusts the TLS connection, the users and the
//! topic permissions of the broker. Deliveries come from [`Bus`], and the source passes the
//! messages to the ingest path.

use std::sync::Arc;

use loopabull_fedmsg::trusted::{self, Properties};
use loopabull_fedora_messaging::{Bus, BusDelivery, BusLink, BusState, Settled};
use loopabull_model::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::ingest::path::IngestPath;
use crate::ingest::quarantine::{Stopping, Unusable};
use crate::observe::activity::{Activity, Link};
use crate::observe::metrics::{BySource, Metrics};

/// Metrics label of this source.
const SOURCE: &str = "fedora-messaging";

/// A fedora-messaging bus as a source.
pub(super) struct BusSource {
    /// Name of the source in the status: the broker and the queue.
    pub name: String,
    pub path: Arc<IngestPath>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub drain: CancellationToken,
}

impl BusSource {
    /// Accepts deliveries until the daemon drains.
    pub(super) async fn run(self, mut bus: Bus) {
        let state = bus.state();
        let accept = async {
            while let Some(delivery) = bus.receive(&self.drain).await {
                self.accept(delivery).await;
            }
        };
        tokio::select! {
            () = accept => (),
            // The state is reported concurrently, so that it is current while a message waits for
            // its queue.
            () = self.report(state) => (),
        }
        bus.stop().await;
        bus.close().await;
    }

    async fn accept(&self, delivery: BusDelivery) {
        self.activity.receive(&self.name);
        self.metrics.envelopes.get_or_create(&BySource { source: SOURCE }).inc();
        let accepted = match message(&delivery) {
            Ok(message) => self.path.accept_kept(&self.name, &message).await,
            Err((reason, why)) => self.reject(&delivery, reason, &why).await,
        };
        // After an error, the daemon is stopping, and the delivery is not acknowledged. The broker
        // redelivers it after the connection ends.
        let Ok(()) = accepted else { return };
        match delivery.ack().await {
            // If the acknowledgement is lost, the delivery is redelivered and deduplicated.
            Settled::Sent | Settled::ChannelGone => (),
        }
    }

    /// Quarantines a delivery that is not a valid message.
    async fn reject(
        &self,
        delivery: &BusDelivery,
        reason: &'static str,
        why: &str,
    ) -> Result<(), Stopping> {
        let unusable = Unusable {
            reason: why,
            topic: &delivery.routing_key,
            id: delivery.message_id.as_deref(),
            headers: &delivery.headers,
            content_encoding: delivery.content_encoding.as_deref(),
            body: &delivery.body,
        };
        self.path.reject_delivery(&self.name, reason, &unusable).await
    }

    /// Reports the state of the connection. Never returns.
    async fn report(&self, mut state: watch::Receiver<BusState>) {
        while state.changed().await.is_ok() {
            let state = state.borrow_and_update().clone();
            let link = match (&state.link, state.problem()) {
                (BusLink::Consuming { .. }, None) => Link::Connected,
                (_, Some(problem)) => Link::Lost(problem),
                (_, None) => Link::Lost("not connected yet".to_owned()),
            };
            self.metrics.count_link(&self.name, &link);
            self.activity.set_link(&self.name, link);
        }
        // The bus has ended. The other branch of `select!` still accepts the deliveries that were
        // received before.
        std::future::pending().await
    }
}

/// Parses the message of a delivery. An error consists of a metrics label and a description.
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
