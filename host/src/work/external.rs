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
use loopabull_model::{Entry, EntryId, Message, QueueName, Reason, Task, chain};
use loopabull_queue::{Disposition, External, QueueError};

use crate::observe::activity::Activity;
use crate::observe::metrics::{ByRejection, BySource, ByTask, Metrics};
use crate::tasks::catalog::CurrentCatalog;

/// Routes external messages to the tasks that subscribe to their topics.
pub(crate) struct ExternalRouter {
    pub catalog: Arc<CurrentCatalog>,
    pub metrics: Arc<Metrics>,
    pub activity: Arc<Activity>,
}

/// An external message for which it is decided what becomes of it.
pub(crate) struct Decided {
    external: External,
    disposition: Disposition,
    /// Name of the reason why the message cannot be read or routed.
    rejection: Option<&'static str>,
}

impl ExternalRouter {
    /// Decides what becomes of external messages of a queue. A message is replaced by one entry for each task that
    /// subscribes to its topic. It becomes a dead letter if it cannot be parsed, or if no task subscribes to its topic.
    pub(crate) fn decide(&self, queue: &QueueName, externals: Vec<External>) -> Vec<Decided> {
        let decide = |external| {
            let (disposition, rejection) = match parse(queue, &external) {
                Ok(message) => (self.disposition(&message), None),
                Err(rejection) => {
                    let reason = Reason::from(format!("undecodable: {rejection}"));
                    (Disposition::DeadLetter(reason), Some(rejection.reason()))
                }
            };
            Decided { external, disposition, rejection }
        };
        externals.into_iter().map(decide).collect()
    }

    fn disposition(&self, message: &Message) -> Disposition {
        let entries = self.entries_of(message);
        // An external message is already durable. If no task subscribes to its topic, it is
        // therefore dead-lettered and not dropped.
        if entries.is_empty() {
            let reason = format!("no task subscribes to topic `{}`", message.topic);
            return Disposition::DeadLetter(reason.into());
        }
        Disposition::Replace(entries)
    }

    /// Settles external messages, counts those that are settled, and removes them. Returns the first error if others
    /// remain; the caller calls this function again.
    pub(crate) async fn settle(&self, waiting: &mut Vec<Decided>) -> Result<(), QueueError> {
        let messages: Vec<_> =
            waiting.iter().map(|decided| (&decided.external, &decided.disposition)).collect();
        let settled = External::settle_all(&messages).await;
        let (mut remaining, mut first) = (Vec::new(), None);
        for (mut decided, settled) in waiting.drain(..).zip(settled) {
            match settled {
                Ok(()) => self.count(&decided),
                // It is redelivered, and counted then.
                Err(QueueError::LostClaim { .. }) => {
                    self.metrics.lost_claims.inc();
                }
                Err(error) => {
                    // The broker will never take the entries, for example because of their size.
                    if error.is_permanent()
                        && matches!(decided.disposition, Disposition::Replace(_))
                    {
                        let reason = format!("cannot be published: {}", chain(&error));
                        decided.disposition = Disposition::DeadLetter(reason.into());
                        decided.rejection = Some("too-large");
                    }
                    first = first.or(Some(error));
                    remaining.push(decided);
                }
            }
        }
        *waiting = remaining;
        first.map_or(Ok(()), Err)
    }

    fn count(&self, decided: &Decided) {
        self.metrics.envelopes.get_or_create(&BySource { source: "queue" }).inc();
        if let Some(reason) = decided.rejection {
            self.metrics.rejections.get_or_create(&ByRejection { reason }).inc();
            self.activity.count(|counts| counts.rejected += 1);
            return;
        }
        self.metrics.messages.inc();
        self.activity.count(|counts| counts.accepted += 1);
        match &decided.disposition {
            Disposition::Replace(entries) => {
                for entry in entries {
                    let task = ByTask { task: entry.task.to_string() };
                    self.metrics.entries.get_or_create(&task).inc();
                }
            }
            Disposition::DeadLetter(_) => {
                self.metrics.unrouted.inc();
                self.activity.count(|counts| counts.unrouted += 1);
            }
        }
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
