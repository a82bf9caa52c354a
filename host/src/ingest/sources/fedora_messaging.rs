//! The source of a fedora-messaging bus: AMQP, the topic exchange of another broker.
//!
//! Decides when a delivery is acknowledged: when its entries are stored here, or when it is quarantined
//! because it is not a message. Until then its broker keeps it. Signatures are not checked: the
//! broker's TLS, users and topic permissions are trusted. Before it on the path of a message: [`Bus`];
//! after it: the ingest path.

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

/// The metrics label of this source.
const SOURCE: &str = "fedora-messaging";

/// A fedora-messaging bus as a source.
pub(super) struct BusSource {
    /// The names of its broker and its queue, as the status shows them.
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
            // Beside it, so that the state is reported also while a message waits for the queue.
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
        // An unacknowledged delivery is redelivered when our connection ends with the daemon.
        let Ok(()) = accepted else { return };
        match delivery.ack().await {
            // A delivery whose acknowledgement is lost is redelivered and deduplicated.
            Settled::Sent | Settled::ChannelGone => (),
        }
    }

    /// Quarantines a delivery that is not a message.
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
        self.path.reject_delivery(reason, &unusable).await
    }

    /// Reports the state of the connection for as long as it is polled.
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
        // The bus has ended; the other branch still accepts the deliveries that it has received.
        std::future::pending().await
    }
}

/// Makes a message of a delivery. An error has the metrics label and a sentence.
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
