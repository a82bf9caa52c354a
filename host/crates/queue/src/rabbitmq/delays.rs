//! Ending the delays of a queue early.
//!
//! The entries of the delay queues are moved to the queue that their expiration would lead to.

use std::sync::Arc;

use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use loopabull_model::QueueName;

use super::claim::Claim;
use super::incoming::{self, Incoming};
use super::outgoing::Outgoing;
use super::shared::Shared;
use super::topology::{DelayStep, QueueRole};
use crate::error::QueueError;

/// Moves every entry that is delayed now. Returns their number.
pub(super) async fn end(shared: &Arc<Shared>, queue: &QueueName) -> Result<u64, QueueError> {
    let session = shared.session().await?;
    let mut ended = 0;
    for role in DelayStep::ALL.map(QueueRole::Delay) {
        // Entries that are delayed after this count keep their delay.
        let count = shared.count(&session, queue, &role).await?.unwrap_or(0);
        if count == 0 {
            continue;
        }
        let name = role.name(queue);
        let channel = session.open_channel().await?;
        for _ in 0..count {
            let name = ShortString::from(name.as_str());
            let get = channel.basic_get(name, BasicGetOptions { no_ack: false });
            let Some(got) = session.step("get a delayed entry", get).await? else { break };
            let copy = match incoming::read(queue, &got.delivery) {
                Incoming::Entry(delivered, _) => {
                    let attempts = delivered.attempt.saturating_sub(1);
                    Outgoing::copy(&delivered, QueueRole::due(&shared.config(queue)), attempts)
                }
                // The worker that receives the message finds out what it is.
                Incoming::External | Incoming::Unreadable(_) => {
                    Outgoing::unread(queue, QueueRole::Work, &got.delivery)
                }
            };
            shared.publish(&copy).await?;
            let claim = Claim::new(shared, queue, session.generation(), got.delivery);
            ended += u64::from(claim.acknowledge().await?);
        }
        let close = channel.close(200, ShortString::from("the delays have ended"));
        session.step("close the channel", close).await?;
    }
    shared.retries.mark(queue);
    Ok(ended)
}
