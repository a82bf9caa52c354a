//! What is held: entries of paused tasks, in queues of their own, and how they go on.
//!
//! Once a task is resumed its held entries are taken from there, before those that came later: these
//! are put behind them as they come up, until nothing is held any more.

use std::sync::Arc;

use lapin::Channel;
use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use loopabull_model::{QueueName, Settlement, TaskName};

use super::session::Session;
use super::standing::is_missing;
use super::topology::Station;
use super::{Amqp, Raw, lock};
use crate::{Delivery, QueueError};

impl Amqp {
    pub(crate) async fn release(
        &self,
        is_awake: impl Fn(&TaskName) -> bool,
    ) -> Result<(), QueueError> {
        let held = lock(&self.held).clone();
        let awake: Vec<_> = held.into_iter().filter(|(_, task)| is_awake(task)).collect();
        for key in &awake {
            if lock(&self.releasing).contains_key(key) {
                continue;
            }
            let session = self.supervisor.session().await?;
            let count = self.count(&session, &key.0, &Station::Held(key.1.clone())).await?;
            if count.is_some_and(|count| count > 0) {
                lock(&self.releasing).insert(key.clone(), Arc::default());
                self.released.notify_waiters();
            } else {
                // Noted again by whoever holds one.
                lock(&self.held).remove(key);
            }
        }
        Ok(())
    }

    /// Puts an entry behind those of its task that were held, if they are being worked now.
    pub(super) async fn hold_back(&self, delivery: &Delivery) -> Result<bool, QueueError> {
        let key = (delivery.entry.queue.clone(), delivery.entry.task.clone());
        let Some(turn) = lock(&self.releasing).get(&key).cloned() else { return Ok(false) };
        let _turn = turn.lock().await;
        // The last one may have been taken meanwhile.
        if !lock(&self.releasing).contains_key(&key) {
            return Ok(false);
        }
        self.settle(delivery, &Settlement::Hold).await?;
        Ok(true)
    }

    /// Takes the next entry of a task that was resumed, if there is one. Does not wait for a task of
    /// which somebody else takes or adds one.
    ///
    /// It comes with a channel of its own: on the worker's the broker may have sent another one ahead,
    /// and would take both for lost if that had to wait too long.
    pub(super) async fn next_released(
        &self,
        session: &Session,
        queue: &QueueName,
    ) -> Result<Option<(Raw, Channel)>, QueueError> {
        let releasing = lock(&self.releasing).clone();
        for (key, turn) in releasing.into_iter().filter(|((of, _), _)| of == queue) {
            let Ok(_turn) = turn.try_lock() else { continue };
            let name = Station::Held(key.1.clone()).name(queue);
            let channel = session.channel().await?;
            let get = channel.basic_get(ShortString::from(name), BasicGetOptions { no_ack: false });
            match session.step("get what was held", get).await {
                Ok(Some(got)) => return Ok(Some((got.delivery, channel))),
                Ok(None) => drop(lock(&self.releasing).remove(&key)),
                Err(error) => {
                    if is_missing(&error) {
                        lock(&self.releasing).remove(&key);
                        lock(&self.held).remove(&key);
                    }
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    pub(super) fn note_held(&self, queue: &QueueName, task: &TaskName) {
        lock(&self.held).insert((queue.clone(), task.clone()));
    }
}
