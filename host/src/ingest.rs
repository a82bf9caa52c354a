//! Ingest: the common road of all sources.
//!
//! Owns what becomes of an envelope: rejected and counted, accepted and counted as unrouted, or put
//! into the queue once for each task that wants it. Does not know how a task is run.
//!
//! Before it on the path of a message: a source. After it: [`Queue::publish`].

pub mod fedmsg;

use std::sync::Arc;

use loopabull_fedmsg::{Envelope, Rejection, Verifier};
use loopabull_model::{Message, Routes, TaskName};
use loopabull_queue::Queue;
use tokio::sync::mpsc;

use crate::backoff::Backoff;
use crate::board::Board;
use crate::ingest::fedmsg::Received;
use crate::metrics::{ByTask, Metrics, Rejected, Source};
use crate::shutdown::Shutdown;

/// The common road of all sources.
pub struct Ingest {
    pub verifier: Verifier,
    pub routes: Arc<Routes>,
    pub queue: Arc<Queue>,
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
        match self.verifier.verify(envelope) {
            Ok(message) => self.accept(message).await,
            Err(rejection) => self.reject(&rejection),
        }
    }

    async fn accept(&self, message: Message) {
        self.metrics.messages.inc();
        self.board.count(|counts| counts.accepted += 1);
        let tasks = self.routes.resolve(&message.topic);
        if tasks.is_empty() {
            self.metrics.unrouted.inc();
            self.board.count(|counts| counts.unrouted += 1);
        }
        for task in tasks {
            self.publish(&message, &task.name).await;
        }
    }

    /// Publishes, and waits until it can. Meanwhile the socket's own queue fills up.
    async fn publish(&self, message: &Message, task: &TaskName) {
        const TROUBLE: &str = "ingest";
        let mut backoff = Backoff::default();
        loop {
            // Given up only when the daemon must end; the entry may or may not have been taken.
            let published = tokio::select! {
                published = self.queue.publish(message, task) => published,
                () = self.shutdown.cancel.cancelled() => return self.lose(message),
            };
            let Err(error) = published else { break };
            let error = format!("{:#}", anyhow::Error::new(error));
            self.board.set_trouble(TROUBLE, &error);
            tracing::error!(message.id = %message.id, "cannot queue message {}: {error}", message.id);
            backoff.pause(&self.shutdown.cancel).await;
        }
        self.board.clear_trouble(TROUBLE);
        self.metrics.entries.get_or_create(&ByTask { task: task.to_string() }).inc();
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
