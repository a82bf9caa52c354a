//! Dead letters on the broker: looked through by holding all of them for a moment.

use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use loopabull_model::QueueName;

use super::entry::{self, Outgoing};
use super::topology::Station;
use super::{Amqp, Claim};
use crate::delivery::Tag;
use crate::{DeadLetter, QueueError, Verdict};

impl Amqp {
    /// Takes every dead letter that is there now, without acknowledging it. Those that stay go back
    /// when the channel is closed.
    pub(crate) async fn judge_dead_letters(
        &self,
        queue: &QueueName,
        mut judge: impl FnMut(&DeadLetter) -> Verdict + Send,
    ) -> Result<u64, QueueError> {
        let session = self.supervisor.session().await?;
        // Those that come while we look are for the next time.
        let count = self.count(&session, queue, &Station::Dead).await?.unwrap_or(0);
        let mut done = 0;
        let name = Station::Dead.name(queue);
        let channel = session.channel().await?;
        for _ in 0..count {
            let get = channel
                .basic_get(ShortString::from(name.as_str()), BasicGetOptions { no_ack: false });
            let Some(got) = session.step("get a dead letter", get).await? else { break };
            let letter = entry::read_dead(queue, &got.delivery);
            let verdict = judge(&letter);
            if verdict == Verdict::Requeue {
                self.send(&Outgoing::requeued(&letter, &got.delivery)).await?;
            }
            if verdict != Verdict::Keep {
                let claim = Claim {
                    generation: session.generation,
                    held_on: None,
                    raw: Box::new(got.delivery),
                };
                // A requeued one of which the broker has not heard is there twice, under one id.
                done += u64::from(self.acknowledge(&Tag::Amqp(claim)).await?);
            }
        }
        let goodbye = channel.close(200, ShortString::from("looked through"));
        session.step("close the channel", goodbye).await?;
        Ok(done)
    }
}
