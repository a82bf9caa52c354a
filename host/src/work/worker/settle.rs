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
    /// Settles deliveries in this order, with retries. If the claim on an entry is lost, its delivery cannot be
    /// settled, and is not tried again. The queue then redelivers the entry, and the journal
    /// recognizes it.
    pub(super) async fn settle(
        &self,
        retries: &Retries,
        mut deliveries: Vec<(&Delivery, Settlement)>,
    ) -> Result<(), QueueError> {
        let is_ack = |(_, settlement): &(&Delivery, Settlement)| *settlement == Settlement::Ack;
        let (mut retry, mut result) = (retries.start(Need::Queue), Ok(()));
        while let Some(first) = deliveries.first() {
            // Acknowledgements need not wait for each other. Other settlements do: held entries must stay in
            // their order.
            let count = match is_ack(first) {
                true => deliveries.iter().take_while(|delivery| is_ack(delivery)).count(),
                false => 1,
            };
            let group = &deliveries[..count];
            let settle = async {
                match group {
                    [(delivery, settlement)] => vec![delivery.settle(settlement).await],
                    all => {
                        let all: Vec<_> = all.iter().map(|(delivery, _)| *delivery).collect();
                        Delivery::acknowledge(&all).await
                    }
                }
            };
            // A settlement is dropped only when the daemon must stop. The entry is then
            // redelivered, and the journal recognizes it.
            let settled = tokio::select! {
                settled = settle => settled,
                () = self.timeout() => return Ok(()),
            };
            let (mut failed, mut error) = (Vec::new(), None);
            for (delivery, settled) in deliveries.drain(..count).zip(settled) {
                match settled {
                    Ok(()) => (),
                    Err(lost @ QueueError::LostClaim { .. }) => self.report(&lost, retries.worker),
                    Err(other) => {
                        failed.push(delivery);
                        error = Some(other);
                    }
                }
            }
            let failures = failed.len();
            deliveries.splice(..0, failed);
            match error {
                None => retry.resolve(),
                // While the daemon drains, each of the others has one try.
                Some(error) => {
                    if let Err(error) = retry.wait(error).await {
                        deliveries.drain(..failures);
                        result = Err(error);
                    }
                }
            }
        }
        result
    }

    fn report(&self, lost: &QueueError, worker: u32) {
        self.metrics.lost_claims.inc();
        tracing::warn!(
            worker.number = worker,
            "{lost}; the journal will recognize the redelivered entry"
        );
    }

    /// Waits until all runs are cancelled, and then for [`SETTLE_TIMEOUT`]. In that time, a
    /// responsive broker still receives the settlement.
    pub(super) async fn timeout(&self) {
        self.cancel.cancelled().await;
        tokio::time::sleep(SETTLE_TIMEOUT).await;
    }
}
