//! The settlement of a delivery.

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::Settlement;
use loopabull_queue::{Delivery, QueueError};
use tokio_util::sync::CancellationToken;

use crate::observe::health::Need;
use crate::observe::metrics::Metrics;
use crate::work::worker::retry::Retries;

/// How long a settlement may take once all runs are cancelled.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Settles deliveries.
pub(crate) struct Settler {
    pub metrics: Arc<Metrics>,
    pub cancel: CancellationToken,
}

impl Settler {
    /// Settles a delivery, with retries. A lost claim ends the retries: the queue redelivers the entry,
    /// and the journal recognises it.
    pub(super) async fn settle(
        &self,
        retries: &Retries,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        let mut retry = retries.start(Need::Queue);
        loop {
            // Dropped only when the daemon must end: an unsettled entry is redelivered, and the journal
            // recognises it.
            let settled = tokio::select! {
                settled = delivery.settle(settlement) => settled,
                () = self.timeout() => return Ok(()),
            };
            let Err(error) = settled else { return Ok(()) };
            if matches!(error, QueueError::LostClaim { .. }) {
                self.metrics.lost_claims.inc();
                let worker = retries.worker;
                tracing::warn!(worker.number = worker, "{error}; the journal recognises it");
                return Ok(());
            }
            retry.wait(error).await?;
        }
    }

    /// Returns some time after all runs were cancelled: a broker that answers at once still gets the
    /// settlement.
    async fn timeout(&self) {
        self.cancel.cancelled().await;
        tokio::time::sleep(SETTLE_TIMEOUT).await;
    }
}
