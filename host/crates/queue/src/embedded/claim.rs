//! A claim: the row of an entry that was delivered and is not settled yet.
//!
//! To settle the delivery, the claim changes or deletes the row. The change survives the end of the process. If the
//! machine loses power, the entry may be delivered again, as by a broker that did not get the acknowledgement. The host
//! has recorded the run before it settles, so it recognises the entry.

use std::sync::Arc;

use futures_util::future::join_all;
use loopabull_model::Settlement;
use loopabull_store::Store;
use rusqlite::Connection;
use tokio::sync::Notify;

use super::rows;
use crate::delivered::DeliveredEntry;
use crate::error::QueueError;

/// The claim on a delivered entry in the SQLite file.
#[derive(Debug)]
pub(crate) struct Claim {
    row: i64,
    store: Arc<Store>,
    published: Arc<Notify>,
}

impl Claim {
    pub(super) fn new(row: i64, store: &Arc<Store>, published: &Arc<Notify>) -> Self {
        Self { row, store: Arc::clone(store), published: Arc::clone(published) }
    }

    pub(crate) async fn settle(
        &self,
        delivered: &DeliveredEntry,
        settlement: &Settlement,
    ) -> Result<(), QueueError> {
        let (row, attempts) = (self.row, delivered.attempts_after(settlement));
        let settlement = settlement.clone();
        let settle =
            move |connection: &Connection| rows::settle(connection, row, attempts, &settlement);
        let changed = self.store.change_unsynced(settle).await?;
        self.published.notify_one();
        judge(changed, delivered)
    }

    /// Acknowledges deliveries in one change.
    pub(crate) async fn acknowledge(
        claims: &[(&Self, &DeliveredEntry)],
    ) -> Vec<Result<(), QueueError>> {
        let Some((first, _)) = claims.first() else { return Vec::new() };
        let rows: Vec<i64> = claims.iter().map(|(claim, _)| claim.row).collect();
        let settle = move |connection: &Connection| -> rusqlite::Result<Vec<usize>> {
            rows.iter().map(|row| rows::settle(connection, *row, 0, &Settlement::Ack)).collect()
        };
        match first.store.change_unsynced(settle).await {
            Ok(changed) => {
                let results = claims.iter().zip(changed);
                results.map(|((_, delivered), changed)| judge(changed, delivered)).collect()
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
}

/// Returns the result of a settlement from the number of changed rows.
fn judge(changed: usize, delivered: &DeliveredEntry) -> Result<(), QueueError> {
    match changed {
        1 => Ok(()),
        _ => Err(QueueError::LostClaim { message: delivered.entry.message.id.to_string() }),
    }
}
