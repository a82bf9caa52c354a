//! Finds tasks that may run longer than the broker's acknowledgement timeout.
//!
//! The broker would redeliver the message of such a task while the task is still running. So the
//! daemon does not start with such a task, and a reload does not apply it, unless the configuration
//! sets `ignore_consumer_timeout`. This module only finds the tasks.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use loopabull_model::{QueueName, Task, TaskName};
use loopabull_queue::{AckTimeout, Queues};

use crate::config::StaffedQueue;

/// Time to end, record and settle a run after the timeout of its task.
const SETTLE_MARGIN: Duration = Duration::from_secs(30);

/// A task that may run longer than the broker's acknowledgement timeout.
#[derive(Clone, Debug)]
pub(crate) struct TimeoutTooLong {
    task: TaskName,
    queue: QueueName,
    timeout: Duration,
    /// Longest time from a delivery to its acknowledgement: the timeout, multiplied by the prefetch
    /// limit.
    needed: Duration,
    broker: AckTimeout,
}

/// Returns the tasks that may run longer than the acknowledgement timeout of their queue. `staffed` are the queues with the
/// prefetch of their consumers.
pub(crate) async fn too_long<'a>(
    staffed: &[StaffedQueue],
    queues: &Queues,
    tasks: impl IntoIterator<Item = &'a Task>,
) -> Vec<TimeoutTooLong> {
    let mut found = Vec::new();
    let mut known = BTreeMap::new();
    let prefetch = |queue: &QueueName| {
        let staffed = staffed.iter().find(|staffed| staffed.config.name == *queue);
        staffed.map_or(1, |staffed| staffed.config.prefetch)
    };
    for task in tasks {
        let queue = &task.manifest.queue;
        if !known.contains_key(queue) {
            known.insert(queue.clone(), queues.ack_timeout(queue).await);
        }
        let Some(broker) = known[queue].clone() else { continue };
        let timeout = task.timeout();
        // The acknowledgement timeout of a prefetched delivery already runs while the delivery
        // waits for the runs before it.
        let needed = timeout.saturating_mul(u32::from(prefetch(queue)));
        if needed + SETTLE_MARGIN >= broker.limit {
            let (task, queue) = (task.name.clone(), queue.clone());
            found.push(TimeoutTooLong { task, queue, timeout, needed, broker });
        }
    }
    found
}

impl TimeoutTooLong {
    /// Returns the name of the task.
    pub(crate) fn task(&self) -> &TaskName {
        &self.task
    }

    /// Returns a hint for the operator, with the settings to change.
    pub(crate) fn hint(&self) -> String {
        let enough = self.needed + Duration::from_mins(5);
        let (ms, queue) = (enough.as_millis(), &self.queue);
        let policy = if self.broker.has_policy {
            format!(
                ", or for this queue alone: rabbitmqctl set_policy {queue}-timeout '^{queue}$' \
                 '{{\"consumer-timeout\":{ms}}}' --apply-to queues"
            )
        } else {
            String::new()
        };
        let fewer = match self.needed > self.timeout {
            true => " and `prefetch = 1` for its queue",
            false => "",
        };
        format!(
            "put `consumer_timeout = {ms}` into rabbitmq.conf{policy}; if the broker already has that \
             timeout, set `consumer_timeout = \"{}\"` in the configuration of loopabull-host; or give \
             the task a shorter `timeout` under `[limits]`{fewer}",
            humantime::format_duration(enough),
        )
    }
}

impl fmt::Display for TimeoutTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration;
        let Self { task, queue, timeout, broker, .. } = self;
        write!(f, "task `{task}` may run for {}", time(*timeout))?;
        if self.needed > *timeout {
            write!(f, ", or {} with the prefetched deliveries before it", time(self.needed))?;
        }
        write!(
            f,
            ", but RabbitMQ redelivers messages of queue `{queue}` after {} ({})",
            time(broker.limit),
            broker.source,
        )
    }
}
