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
use loopabull_model::{QueueName, TaskName, chain};

use super::declaration::{is_missing, is_refused};
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
        others.insert((queue, task));
    }
    for key in shared.held.all() {
        if shared.held.is_releasing(&key) {
            continue;
        }
        // From time to time, the queue is counted although this host changed nothing: another host may have done
        // so, or the broker may have requeued an entry.
        if shared.held.take_change(&key) || is_time {
            let session = shared.session().await?;
            let role = QueueRole::Held(key.1.clone());
            match shared.count(&session, &key.0, &role).await? {
                Some(count) => shared.held.set_empty(&key, count == 0),
                None => shared.held.forget(&key),
            }
        }
        if shared.held.is_empty(&key) {
            continue;
        }
        match release(&key.1) {
            Release::Nothing => drop(others.insert(key)),
            Release::One => shared.held.start_release(key, true),
            Release::All => shared.held.start_release(key, false),
        }
    }
    Ok(others)
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
            Ok(None) => {
                shared.held.set_empty(&key, true);
                shared.held.end_release(&key);
            }
            Err(error) if is_missing(&error) => {
                shared.held.end_release(&key);
                shared.held.forget(&key);
            }
            Err(error) if is_refused(&error) => {
                shared.held.end_release(&key);
                shared.held.forget(&key);
                shared.report_missing(&key.0, &key.1, chain(&error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
