//! The broker's acknowledgement timeout against the tasks': a task that may run longer must not
//! start, because the broker would deliver its message again while it runs.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use loopabull_model::{QueueName, Task, TaskName};
use loopabull_queue::{AckTimeout, Queues};

use crate::config::Config;
use crate::work::runner;

/// What a run takes beside its timeout: to be ended, recorded and settled.
const TO_SETTLE: Duration = Duration::from_secs(30);

/// A task that may run longer than the broker waits.
#[derive(Clone, Debug)]
pub(crate) struct TooLong {
    task: TaskName,
    queue: QueueName,
    timeout: Duration,
    /// With all that may be worked before it.
    needed: Duration,
    broker: AckTimeout,
}

/// Returns the tasks that may run longer than the broker waits for their deliveries.
pub(crate) async fn too_long<'a>(
    config: &Config,
    queues: &Queues,
    tasks: impl IntoIterator<Item = &'a Task>,
) -> Vec<TooLong> {
    let mut found = Vec::new();
    let mut known = BTreeMap::new();
    for task in tasks {
        let queue = &task.manifest.queue;
        if !known.contains_key(queue) {
            known.insert(queue.clone(), queues.ack_timeout(queue).await);
        }
        let Some(broker) = known[queue].clone() else { continue };
        let timeout = runner::timeout(task);
        // What was sent ahead waits for the runs before it, and the broker's clock runs.
        let needed = timeout.saturating_mul(u32::from(config.prefetch));
        if needed + TO_SETTLE >= broker.limit {
            let (task, queue) = (task.name.clone(), queue.clone());
            found.push(TooLong { task, queue, timeout, needed, broker });
        }
    }
    found
}

impl TooLong {
    /// Returns which task it is.
    pub(crate) fn task(&self) -> &TaskName {
        &self.task
    }

    /// Returns what the operator can do, with the exact line.
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
        format!(
            "put `consumer_timeout = {ms}` into rabbitmq.conf{policy}; where the broker has that \
             already, say so here: `consumer_timeout = \"{}\"`; or give the task a shorter \
             `timeout` under `[limits]`",
            humantime::format_duration(enough),
        )
    }
}

impl fmt::Display for TooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = humantime::format_duration;
        let Self { task, queue, timeout, broker, .. } = self;
        write!(f, "task `{task}` may run {}", time(*timeout))?;
        if self.needed > *timeout {
            write!(f, ", {} with what was sent ahead of it", time(self.needed))?;
        }
        write!(
            f,
            ", and RabbitMQ takes a delivery of queue `{queue}` for lost after {} ({})",
            time(broker.limit),
            broker.source,
        )
    }
}
