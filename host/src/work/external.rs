//! The router of external messages: messages that others publish directly to a work queue.
//!
//! They are routed by the worker as ingest routes the messages of a bus, except that a message that no
//! task wants becomes a dead letter.
//!
//! Before it on the path of a message: the worker, which received it. After it: the queues of the
//! tasks that want it.

use std::sync::Arc;

use loopabull_fedmsg::Rejection;
use loopabull_fedmsg::trusted::{self, Properties};
use loopabull_model::{Entry, EntryId, Message, QueueName, Reason, Task};
use loopabull_queue::{External, QueueError};

use crate::observe::activity::Activity;
use crate::observe::metrics::{ByReason, BySource, ByTask, Metrics};
use crate::tasks::catalog::CurrentCatalog;

/// Routes external messages to the tasks that want them.
pub(crate) struct ExternalRouter {
    pub catalog: Arc<CurrentCatalog>,
    pub metrics: Arc<Metrics>,
    pub activity: Arc<Activity>,
}

impl ExternalRouter {
    /// Replaces an external message by one entry for each task that wants it. A message that cannot be
    /// parsed, or that no task wants, becomes a dead letter.
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
                self.metrics.rejections.get_or_create(&ByReason { reason }).inc();
                self.activity.count(|counts| counts.rejected += 1);
                return Ok(());
            }
        };
        let entries = self.entries_of(&message);
        // A message that no task wants is durable already, so it is not simply dropped like a
        // message of a bus.
        if entries.is_empty() {
            let reason = Reason::from(format!("no task wants topic `{}`", message.topic));
            external.refuse(&reason).await?;
            self.metrics.unrouted.inc();
            self.activity.count(|counts| counts.unrouted += 1);
        } else {
            external.replace(&entries).await?;
        }
        // This is retried until it succeeds, and counted once.
        count_envelope();
        self.metrics.messages.inc();
        self.activity.count(|counts| counts.accepted += 1);
        for entry in &entries {
            self.metrics.entries.get_or_create(&ByTask { task: entry.task.to_string() }).inc();
        }
        Ok(())
    }

    /// Makes the entries of a message. If we die before they replace it, the message is redelivered and
    /// must give the same entries. A message without an id of its own may have been published twice on
    /// purpose, so its entries get random ids and each is processed.
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
        // With the default exchange, the routing key is the name of the queue and no topic.
        topic: Some(external.routing_key.as_str()).filter(|key| *key != queue.as_str()),
        message_id: external.message_id.as_deref(),
        headers: &external.headers,
    };
    trusted::from_work_queue(&external.body, properties)
}
