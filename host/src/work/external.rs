//! What others put into a work queue: routed at the worker, as ingest routes what comes from a bus,
//! but that what no task wants is set aside.
//!
//! Before it on the path of a message: the worker, which received it. After it: the queues of the
//! tasks that want it.

use loopabull_fedmsg::trusted::{self, Properties};
use loopabull_model::{Entry, EntryId, Message, QueueName, Reason, Task};
use loopabull_queue::{External, QueueError};

use crate::observe::metrics::{ByTask, Rejected, Source};
use crate::work::shared::Workplace;

impl Workplace {
    /// Replaces something foreign by an entry for each task that wants it; what cannot be read, or is
    /// wanted by none, is a dead letter.
    pub(crate) async fn route(
        &self,
        queue: &QueueName,
        external: &External,
    ) -> Result<(), QueueError> {
        self.metrics.envelopes.get_or_create(&Source { source: "queue" }).inc();
        let properties = Properties {
            // Through the default exchange the queue's own name is the key.
            topic: Some(external.routing_key.as_str()).filter(|key| *key != queue.as_str()),
            message_id: external.message_id.as_deref(),
            headers: &external.headers,
        };
        let message = match trusted::from_work_queue(&external.body, properties) {
            Ok(message) => message,
            Err(rejection) => {
                let reason = rejection.reason();
                self.metrics.rejections.get_or_create(&Rejected { reason }).inc();
                self.board.count(|counts| counts.rejected += 1);
                let reason = Reason::from(format!("undecodable: {rejection}"));
                return external.refuse(&reason).await;
            }
        };
        self.metrics.messages.inc();
        self.board.count(|counts| counts.accepted += 1);
        let entries = self.entries_of(&message);
        if entries.is_empty() {
            // It was in a queue already, so it is not simply dropped as on a bus.
            self.metrics.unrouted.inc();
            self.board.count(|counts| counts.unrouted += 1);
            let reason = Reason::from(format!("no task wants topic `{}`", message.topic));
            return external.refuse(&reason).await;
        }
        external.replace(&entries).await?;
        for entry in &entries {
            self.metrics.entries.get_or_create(&ByTask { task: entry.task.to_string() }).inc();
        }
        Ok(())
    }

    /// Makes the entries of a message. If we die before it is replaced it comes again, and must give
    /// the same entries; one without an id of its own may be meant twice, and is worked twice.
    fn entries_of(&self, message: &Message) -> Vec<Entry> {
        let has_own_id = !message.id.as_str().starts_with("sha256:");
        let id = |task: &Task| {
            if has_own_id {
                EntryId::derived(message, &task.name)
            } else {
                EntryId::new(uuid::Uuid::new_v4().simple().to_string())
            }
        };
        let tasks = self.runner.catalog.get().routes.resolve(&message.topic);
        tasks.iter().map(|task| Entry::new(id(task), task, message)).collect()
    }
}
