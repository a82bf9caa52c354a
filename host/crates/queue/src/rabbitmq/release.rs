//! Releasing the held entries of a task that was resumed.
//!
//! The held entries are delivered before later entries of the task. During a release, a consumer that
//! receives a later entry holds that entry as well. The release ends when no held entry is left.

use std::collections::BTreeSet;

use lapin::Channel;
use lapin::message::Delivery as RawDelivery;
use lapin::options::BasicGetOptions;
use lapin::types::ShortString;
use loopabull_amqp::Session;
use loopabull_model::{QueueName, TaskName};

use super::declaration::is_missing;
use super::shared::Shared;
use super::topology::QueueRole;
use crate::depth::{HeldTask, Release};
use crate::error::QueueError;

/// Starts to release held entries of all tasks, as `release` says. Returns the tasks of which nothing is
/// released.
pub(super) async fn release(
    shared: &Shared,
    release: impl Fn(&TaskName) -> Release,
) -> Result<BTreeSet<HeldTask>, QueueError> {
    let is_time = shared.held.is_time_to_look();
    let mut others = BTreeSet::new();
    for (queue, task) in shared.held.missing().into_keys() {
        if is_time {
            shared.look_for_held(&queue, std::slice::from_ref(&task)).await?;
        }
        if release(&task) == Release::Nothing {
            others.insert((queue, task));
        }
    }
    for key in shared.held.all() {
        if shared.held.is_releasing(&key) {
            continue;
        }
        let is_single = match release(&key.1) {
            // Another host may have released the entries, or an operator dropped them.
            Release::Nothing if is_time && is_empty(shared, &key).await? => {
                shared.held.forget(&key);
                continue;
            }
            Release::Nothing => {
                others.insert(key);
                continue;
            }
            Release::One => true,
            Release::All => false,
        };
        if is_empty(shared, &key).await? {
            // If a worker later holds an entry of the task, it adds the task to `held` again.
            shared.held.forget(&key);
        } else {
            shared.held.start_release(key, is_single);
        }
    }
    Ok(others)
}

/// Returns whether the queue of held entries of a task is empty or missing.
async fn is_empty(shared: &Shared, (queue, task): &HeldTask) -> Result<bool, QueueError> {
    let session = shared.session().await?;
    let count = shared.count(&session, queue, &QueueRole::Held(task.clone())).await?;
    Ok(count.unwrap_or(0) == 0)
}

/// Receives the next held entry of a task whose entries are being released. Returns the entry and its
/// channel. Skips a task while another worker has its lock.
///
/// The entry gets a channel of its own. The worker's channel may already have a prefetched entry, which waits
/// while the held entry is processed. If that wait exceeds the acknowledgement timeout, the broker closes the
/// worker's channel. On a shared channel, it would then redeliver both entries.
pub(super) async fn next_released(
    shared: &Shared,
    session: &Session,
    queue: &QueueName,
) -> Result<Option<(RawDelivery, Channel)>, QueueError> {
    for (key, releasing) in shared.held.releasing_of(queue) {
        let Ok(_guard) = releasing.lock.try_lock() else { continue };
        let name = QueueRole::Held(key.1.clone()).name(queue);
        let channel = session.open_channel().await?;
        let get = channel.basic_get(ShortString::from(name), BasicGetOptions { no_ack: false });
        match session.step("get a held entry", get).await {
            Ok(Some(got)) => {
                if releasing.is_single {
                    shared.held.end_release(&key);
                }
                return Ok(Some((got.delivery, channel)));
            }
            Ok(None) => shared.held.end_release(&key),
            Err(error) => {
                if is_missing(&error) {
                    shared.held.end_release(&key);
                    shared.held.forget(&key);
                }
                return Err(error.into());
            }
        }
    }
    Ok(None)
}
