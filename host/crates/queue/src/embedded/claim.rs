//! A claim: the row of an entry that was delivered and is not settled yet.
//!
//! To settle the delivery, the claim changes or deletes the row. The change survives the end of the process. If the
//! machine loses power, the entry may be delivered again, as by a broker that did not get the acknowledgement. The host
//! has recorded the run before it settles, or in the same transaction, so it recognises the entry.

use std::sync::Arc;

use futures_util::future::join_all;
use loopabull_model::Settlement;
use rusqlite::Connection;

use super::rows;
use super::shared::Shared;
use crate::delivered::DeliveredEntry;
use crate::error::QueueError;

/// The claim on a delivered entry.
#[derive(Debug)]
pub(crate) struct Claim {
    row: i64,
    shared: Arc<Shared>,
}

/// The settlement of a delivery of the embedded queue, which another transaction on the same file carries out.
#[derive(Clone, Debug)]
pub struct FileSettlement {
    row: i64,
    /// The entry's new count of attempts.
    attempts: u32,
    settlement: Settlement,
}

impl FileSettlement {
    /// Settles the delivery in the transaction of the connection. After the commit, call
    /// [`Delivery::end`](crate::Delivery::end).
    pub fn carry_out(&self, connection: &Connection) -> rusqlite::Result<()> {
        rows::settle(connection, self.row, self.attempts, &self.settlement).map(drop)
    }
}

impl Claim {
    pub(super) fn new(row: i64, shared: &Arc<Shared>) -> Self {
        Self { row, shared: Arc::clone(shared) }
    }

    pub(crate) fn file_settlement(
        &self,
        delivered: &DeliveredEntry,
        settlement: &Settlement,
    ) -> FileSettlement {
        let (attempts, settlement) = (delivered.attempts_after(settlement), settlement.clone());
        FileSettlement { row: self.row, attempts, settlement }
    }

    pub(crate) async fn settle(
        &self,
        delivered: &DeliveredEntry,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        if !self.is_held(delivered) {
            return Err(lost(delivered));
        }
        let change = self.file_settlement(delivered, settlement);
        let settle = move |connection: &Connection| change.carry_out(connection);
        self.shared.store.change_unsynced(settle).await?;
        self.end(delivered, settlement);
        Ok(())
    }

    /// Acknowledges deliveries in one change.
    pub(crate) async fn acknowledge(
        claims: &[(&Self, &DeliveredEntry)],
    ) -> Vec<Result<(), QueueError>> {
        let held = claims.iter().filter(|(claim, delivered)| claim.is_held(delivered));
        let settlements: Vec<_> = held
            .map(|(claim, delivered)| claim.file_settlement(delivered, &Settlement::Ack))
            .collect();
        let Some((first, _)) = claims.first() else { return Vec::new() };
        let settle = move |connection: &Connection| {
            settlements.iter().try_for_each(|settlement| settlement.carry_out(connection))
        };
        match first.shared.store.change_unsynced(settle).await {
            Ok(()) => {
                let results = claims.iter().map(|(claim, delivered)| {
                    let was_held = claim.end(delivered, &Settlement::Ack);
                    if was_held { Ok(()) } else { Err(lost(delivered)) }
                });
                results.collect()
            }
            // Each alone has its own error, and its own chance.
            Err(_) => {
                let each = claims
                    .iter()
                    .map(|(claim, delivered)| claim.settle(delivered, &Settlement::Ack));
                join_all(each).await
            }
        }
    }

    /// Ends the claim, after the settlement is committed. Returns whether it was held.
    pub(crate) fn end(&self, delivered: &DeliveredEntry, settlement: &Settlement) -> bool {
        let was_held = self.shared.claims.remove(&delivered.entry.queue, [self.row]) > 0;
        if matches!(settlement, Settlement::Requeue { .. }) {
            self.shared.published.notify_one();
        }
        was_held
    }

    fn is_held(&self, delivered: &DeliveredEntry) -> bool {
        self.shared.claims.contains(&delivered.entry.queue, self.row)
    }
}

fn lost(delivered: &DeliveredEntry) -> QueueError {
    QueueError::LostClaim { message: delivered.entry.message.id.to_string() }
}
