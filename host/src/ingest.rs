//! Ingest: the common road of all sources.
//!
//! Owns what becomes of an envelope: rejected and counted, accepted and counted as unrouted, or put
//! into the queue once for each task that wants it. Does not know how a task is run.
//!
//! Before it on the path of a message: a source. After it: [`Queues::publish`].

pub mod fedmsg;

use std::sync::Arc;

use loopabull_fedmsg::{Envelope, Rejection, Verifier};
use loopabull_model::{Entry, EntryId, Message};
use loopabull_queue::{Backoff, Queues};
use tokio::sync::mpsc;

use crate::board::Board;
use crate::ingest::fedmsg::Received;
use crate::metrics::{ByTask, Metrics, Rejected, Source};
use crate::runner::Runner;
use crate::shutdown::Shutdown;

/// The common road of all sources.
pub struct Ingest {
    pub verifier: Verifier,
    pub runner: Arc<Runner>,
    pub queues: Arc<Queues>,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub shutdown: Shutdown,
}

impl Ingest {
    /// Takes what the fedmsg source receives until it is told to drain.
    pub async fn run(self, mut received: mpsc::Receiver<Received>) {
        loop {
            // `recv` loses nothing when it is dropped.
            let next = tokio::select! {
                next = received.recv() => next,
                () = self.shutdown.drain.cancelled(), if !received.is_closed() => {
                    // What the socket's thread has handed over is still taken.
                    received.close();
                    continue;
                }
            };
            let Some(received) = next else { return };
            self.board.receive(&received.endpoint);
            self.metrics.envelopes.get_or_create(&Source { source: "fedmsg" }).inc();
            match received.envelope {
                Ok(envelope) => self.take(envelope).await,
                Err(rejection) => self.reject(&rejection),
            }
        }
    }

    async fn take(&self, envelope: Envelope) {
        match self.verifier.verify(envelope, jiff::Timestamp::now().as_second()) {
            Ok(message) => self.accept(message).await,
            Err(rejection) => self.reject(&rejection),
        }
    }

    async fn accept(&self, message: Message) {
        self.metrics.messages.inc();
        self.board.count(|counts| counts.accepted += 1);
        let tasks = self.runner.catalog().routes.resolve(&message.topic);
        if tasks.is_empty() {
            self.metrics.unrouted.inc();
            self.board.count(|counts| counts.unrouted += 1);
        }
        for task in tasks {
            let id = EntryId::new(uuid::Uuid::new_v4().simple().to_string());
            let entry = Entry::new(id, &task, &message);
            self.publish(&entry).await;
        }
    }

    /// Publishes, and waits until it can. Meanwhile the socket's own queue fills up. What may have been
    /// taken already is published again under the same id.
    async fn publish(&self, entry: &Entry) {
        let message = &entry.message;
        const TROUBLE: &str = "ingest";
        let mut backoff = Backoff::default();
        loop {
            // Given up only when the daemon must end; the entry may or may not have been taken.
            let published = tokio::select! {
                published = self.queues.publish(entry) => published,
                () = self.shutdown.cancel.cancelled() => return self.lose(message),
            };
            let Err(error) = published else { break };
            let error = format!("{:#}", anyhow::Error::new(error));
            self.board.set_trouble(TROUBLE, &error);
            tracing::error!(message.id = %message.id, "cannot queue message {}: {error}", message.id);
            backoff.pause(&self.shutdown.cancel).await;
        }
        self.board.clear_trouble(TROUBLE);
        self.metrics.entries.get_or_create(&ByTask { task: entry.task.to_string() }).inc();
    }

    fn lose(&self, message: &Message) {
        self.metrics.lost.inc();
        tracing::error!(
            message.id = %message.id,
            "message {} is lost: the daemon ends and the queue has not taken it",
            message.id,
        );
    }

    fn reject(&self, rejection: &Rejection) {
        let reason = rejection.reason();
        self.metrics.rejections.get_or_create(&Rejected { reason }).inc();
        self.board.count(|counts| counts.rejected += 1);
        // Whoever floods the socket must not flood the log too; the counter has them all.
        tracing::debug!(reason, "rejected an envelope: {rejection}");
    }
}
