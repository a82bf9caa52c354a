//! Routes external messages. An external message is a message that another program published
//! directly to a work queue.
//!
//! The router replaces an external message by one entry for each task that subscribes to its topic,
//! as ingest does for a message from a bus. Unlike ingest, it dead-letters a message if no task
//! subscribes to the topic. The worker receives the message and calls the router. The entries go to
//! the queues of their tasks.

use std::sync::Arc;

use loopabull_fedmsg::Rejection;
use loopabull_fedmsg::trusted::{self, Properties};
use loopabull_model::{Entry, EntryId, Message, QueueName, Reason, Task};
use loopabull_queue::{External, QueueError};

use crate::observe::activity::Activity;
use crate::observe::metrics::{ByRejection, BySource, ByTask, Metrics};
use crate::tasks::catalog::CurrentCatalog;

/// Routes external messages to the tasks that subscribe to their topics.
pub(crate) struct ExternalRouter {
    pub catalog: Arc<CurrentCatalog>,
    pub metrics: Arc<Metrics>,
    pub activity: Arc<Activity>,
}

impl ExternalRouter {
    /// Replaces an external message by one entry for each task that subscribes to its topic.
    /// Dead-letters the message if it cannot be parsed, or if no task subscribes to its topic.
    pub(crate) async fn route(
        &self,
        queue: &QueueName,
        external: &External,
    ) -> Result<(), QueueError> {
        let count_envelope =
            || self.metrics.envelopes.get_or_create(&BySource { source: "queue" }).inc();
        let message = match parse(queue, external) {
            Ok(message) => message,
            Err(rejection) => {
                external.refuse(&Reason::from(format!("undecodable: {rejection}"))).await?;
                count_envelope();
                let reason = rejection.reason();
                self.metrics.rejections.get_or_create(&ByRejection { reason }).inc();
                self.activity.count(|counts| counts.rejected += 1);
                return Ok(());
            }
        };
        let entries = self.entries_of(&message);
        // An external message is already durable. If no task subscribes to its topic, it is
        // therefore dead-lettered and not dropped.
        if entries.is_empty() {
            let reason = Reason::from(format!("no task subscribes to topic `{}`", message.topic));
            external.refuse(&reason).await?;
            self.metrics.unrouted.inc();
            self.activity.count(|counts| counts.unrouted += 1);
        } else {
            external.replace(&entries).await?;
        }
        // The caller retries this function until it succeeds, so the message is counted only at the
        // end.
        count_envelope();
        self.metrics.messages.inc();
        self.activity.count(|counts| counts.accepted += 1);
        for entry in &entries {
            self.metrics.entries.get_or_create(&ByTask { task: entry.task.to_string() }).inc();
        }
        Ok(())
    }

    /// Makes the entries of a message. If the daemon dies before the entries replace the message,
    /// the message is redelivered and must result in entries with the same ids. A message without
    /// an id may have been published twice on purpose. Its entries get random ids, so that each
    /// copy is processed.
    fn entries_of(&self, message: &Message) -> Vec<Entry> {
        let has_own_id = !message.id.as_str().starts_with("sha256:");
        let id = |task: &Task| {
            if has_own_id {
                EntryId::derived(message, &task.name)
            } else {
                EntryId::new(uuid::Uuid::new_v4().simple().to_string())
            }
        };
        let tasks = self.catalog.get().routes.resolve(&message.topic);
        tasks.iter().map(|task| Entry::new(id(task), task, message)).collect()
    }
}

fn parse(queue: &QueueName, external: &External) -> Result<Message, Rejection> {
    let properties = Properties {
        // If a message comes from the default exchange, its routing key is the name of the queue
        // and not a topic.
        topic: Some(external.routing_key.as_str()).filter(|key| *key != queue.as_str()),
        message_id: external.message_id.as_deref(),
        headers: &external.headers,
    };
    trusted::from_work_queue(&external.body, properties)
}
