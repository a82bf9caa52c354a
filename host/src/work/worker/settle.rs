//! Settles deliveries. A settlement that fails is retried.

use std::sync::Arc;
use std::time::Duration;

use loopabull_model::Settlement;
use loopabull_queue::{Delivery, QueueError};
use tokio_util::sync::CancellationToken;

use crate::observe::health::Need;
use crate::observe::metrics::Metrics;
use crate::work::worker::retry::Retries;

/// Time limit for a settlement after all runs are cancelled.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Settles deliveries.
pub(crate) struct Settler {
    pub metrics: Arc<Metrics>,
    pub cancel: CancellationToken,
}

impl Settler {
    /// Settles a delivery, with retries. If the claim on the entry is lost, the delivery cannot be
    /// settled, and the retries end. The queue then redelivers the entry, and the journal
    /// recognizes it.
    pub(super) async fn settle(
        &self,
        retries: &Retries,
        delivery: &Delivery,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        let mut retry = retries.start(Need::Queue);
        loop {
            // A settlement is dropped only when the daemon must stop. The entry is then
            // redelivered, and the journal recognizes it.
            let settled = tokio::select! {
                settled = delivery.settle(settlement) => settled,
                () = self.timeout() => return Ok(()),
            };
            let Err(error) = settled else { return Ok(()) };
            if matches!(error, QueueError::LostClaim { .. }) {
                self.metrics.lost_claims.inc();
                let worker = retries.worker;
                tracing::warn!(
                    worker.number = worker,
                    "{error}; the journal will recognize the redelivered entry"
                );
                return Ok(());
            }
            retry.wait(error).await?;
        }
    }

    /// Waits until all runs are cancelled, and then for [`SETTLE_TIMEOUT`]. In that time, a
    /// responsive broker still receives the settlement.
    async fn timeout(&self) {
        self.cancel.cancelled().await;
        tokio::time::sleep(SETTLE_TIMEOUT).await;
    }
}
