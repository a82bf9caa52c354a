//! The dead letters on the broker. To read the dead letters, we receive all of them and requeue those that
//! stay.

use std::sync::Arc;

use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use loopabull_model::QueueName;

use super::claim::Claim;
use super::incoming;
use super::outgoing::Outgoing;
use super::shared::Shared;
use super::topology::QueueRole;
use crate::dead_letter::{DeadLetter, Verdict};
use crate::error::QueueError;

/// Receives every dead letter that exists now, and carries out the verdict of `judge`. A dead letter with the
/// verdict `Keep` is not acknowledged, so the broker requeues it when the channel closes.
pub(super) async fn judge(
    shared: &Arc<Shared>,
    queue: &QueueName,
    mut judge: impl FnMut(&DeadLetter) -> Verdict + Send,
) -> Result<u64, QueueError> {
    let session = shared.session().await?;
    // Dead letters that arrive after this count are left for the next call.
    let count = shared.count(&session, queue, &QueueRole::Dead).await?.unwrap_or(0);
    let mut changed = 0;
    let name = QueueRole::Dead.name(queue);
    let channel = session.open_channel().await?;
    for _ in 0..count {
        let name = ShortString::from(name.as_str());
        let get = channel.basic_get(name, BasicGetOptions { no_ack: false });
        let Some(got) = session.step("get a dead letter", get).await? else { break };
        let letter = incoming::read_dead_letter(queue, &got.delivery);
        let verdict = judge(&letter);
        if verdict == Verdict::Requeue {
            shared.publish(&Outgoing::requeued(&letter, &got.delivery)).await?;
        }
        if verdict != Verdict::Keep {
            let claim = Claim::new(shared, queue, session.generation(), got.delivery);
            // If this acknowledgement is lost, the dead letter stays although its entry was requeued. If the
            // dead letter is requeued again, the second entry has the same id and is deduplicated.
            changed += u64::from(claim.acknowledge().await?);
        }
    }
    let close = channel.close(200, ShortString::from("all dead letters were read"));
    session.step("close the channel", close).await?;
    Ok(changed)
}
