//! Ingest: the common road of all sources.
//!
//! Owns what becomes of an envelope: rejected and counted, accepted and counted as unrouted, or put
//! into the queue once for each task that wants it and was not given the same message before. Does not
//! know how a task is run.
//!
//! Before it on the path of a message: a source. After it: [`Queues::publish`], or the spool while the
//! queue cannot take anything.

pub(crate) mod dedup;
pub(crate) mod quarantine;
pub(crate) mod signers;
pub(crate) mod sources;
pub(crate) mod spool;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use loopabull_fedmsg::{Envelope, Rejection, Verifier};
use loopabull_model::{Entry, EntryId, Message};
use loopabull_queue::{Backoff, QueueError, Queues};
use tokio::sync::{mpsc, watch};

use crate::ingest::dedup::{Found, Keeper, Seen};
use crate::ingest::quarantine::{Parked, Parking};
use crate::ingest::sources::fedmsg::Received;
use crate::ingest::spool::{Spool, Spooled, Watcher};
use crate::observe::metrics::{ByTask, Metrics, Rejected, Source};
use crate::observe::status::Board;
use crate::shutdown::Shutdown;
use crate::tasks::catalog::CurrentCatalog;

/// How long the queue may take for an entry before the spool has it.
const PROMPT: Duration = Duration::from_secs(2);
/// How often the log tells of messages that were dropped.
const QUIET: Duration = Duration::from_mins(1);
/// Who has the trouble of a queue that takes nothing.
const TROUBLE: &str = "ingest";

/// The common road of all sources.
pub(crate) struct Ingest {
    /// The verifier of now: another takes its place when the trust in signers is read anew.
    pub verifier: watch::Receiver<Arc<Verifier>>,
    pub catalog: Arc<CurrentCatalog>,
    pub queues: Arc<Queues>,
    pub seen: Seen,
    pub spool: Spool,
    pub parked: Arc<Parked>,
    pub board: Arc<Board>,
    pub metrics: Arc<Metrics>,
    pub shutdown: Shutdown,
    pub overflow: Overflow,
}

/// When the log last told that the spool is full.
#[derive(Debug, Default)]
pub(crate) struct Overflow(Mutex<Option<Instant>>);

impl Ingest {
    /// Takes what the fedmsg source receives until it is told to drain.
    pub(crate) async fn run(self: Arc<Self>, mut received: mpsc::Receiver<Received>) {
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

    /// Puts what the spool has into the queue, for as long as the daemon runs.
    pub(crate) async fn forward(self: Arc<Self>) {
        self.metrics.set_spool(self.spool.depth());
        self.spool.forward(&self.queues, &self.shutdown.drain, &*self).await;
    }

    /// Takes a message of an archive, whose connection is trusted: it keeps no signatures. Tells whether
    /// it is settled, which it is when this is not told to stop before.
    pub(crate) async fn take_archived(
        &self,
        who: &str,
        message: Result<Message, Rejection>,
    ) -> bool {
        self.metrics.envelopes.get_or_create(&Source { source: "datagrepper" }).inc();
        match message {
            Ok(message) => self.accept_kept(who, message).await,
            Err(rejection) => {
                self.reject(&rejection);
                true
            }
        }
    }

    async fn take(&self, envelope: Envelope) {
        let verifier = Arc::clone(&self.verifier.borrow());
        match verifier.verify(envelope, now()) {
            Ok(message) => self.accept(message).await,
            Err(rejection) => self.reject(&rejection),
        }
    }

    /// Takes a message that its source `who` keeps until it is settled. Tells whether all its entries are
    /// in the queue, which they are when this is not told to stop before.
    pub(crate) async fn accept_kept(&self, who: &str, message: Message) -> bool {
        self.accept_from(Some(who), message).await
    }

    async fn accept(&self, message: Message) {
        self.accept_from(None, message).await;
    }

    async fn accept_from(&self, who: Option<&str>, message: Message) -> bool {
        let keeper = if who.is_some() { Keeper::Source } else { Keeper::Nobody };
        let mut is_safe = true;
        self.metrics.messages.inc();
        self.board.count(|counts| counts.accepted += 1);
        let tasks = self.catalog.get().routes.resolve(&message.topic);
        if tasks.is_empty() {
            self.metrics.unrouted.inc();
            self.board.count(|counts| counts.unrouted += 1);
        }
        for task in tasks {
            let claim = match self.seen.claim(&message.id, &task.name, keeper).await {
                Found::New(claim) => claim,
                Found::Twice => {
                    self.metrics.duplicates.inc();
                    tracing::debug!(message.id = %message.id, "`{}` came twice", message.id);
                    continue;
                }
            };
            let id = EntryId::new(uuid::Uuid::new_v4().simple().to_string());
            let entry = Entry::new(id, &task, &message);
            let is_published = match who {
                None => self.publish(&entry).await,
                Some(who) => self.publish_in_the_end(who, &entry).await,
            };
            if !is_published {
                is_safe = false;
                continue;
            }
            self.metrics.entries.get_or_create(&ByTask { task: entry.task.to_string() }).inc();
            if let Err(error) = claim.note().await {
                tracing::error!("message {} may be run twice: {error}", message.id);
            }
        }
        is_safe
    }

    /// Publishes, and waits until it can. What may have been taken already is published again under the
    /// same id. Tells whether it was taken before the daemon stops.
    async fn publish_in_the_end(&self, who: &str, entry: &Entry) -> bool {
        let mut backoff = Backoff::default();
        let drain = &self.shutdown.drain;
        while !drain.is_cancelled() {
            let publish = self.queues.publish(entry);
            tokio::pin!(publish);
            let published = tokio::select! {
                published = &mut publish => Some(published),
                // What is under way is brought to its end, or it would come again.
                () = drain.cancelled() => tokio::time::timeout(PROMPT, publish).await.ok(),
            };
            match published {
                Some(Ok(())) => {
                    self.board.clear_trouble(who);
                    return true;
                }
                // Its source would send it again for ever.
                Some(Err(error)) if error.is_final() => {
                    return self.set_aside(entry, &error).await;
                }
                Some(Err(error)) => {
                    let error = format!("{:#}", anyhow::Error::new(error));
                    self.board.set_trouble(who, &format!("messages wait there: {error}"));
                    backoff.pause(drain).await;
                }
                None => return false,
            }
        }
        false
    }

    /// Publishes an entry, or puts it into the spool: its bus will not send it again. Tells whether it is
    /// on disk somewhere.
    async fn publish(&self, entry: &Entry) -> bool {
        // What waits there came before this.
        if self.spool.is_empty(&entry.queue) {
            // What is dropped here may have been taken, and is published again under the same id.
            match tokio::time::timeout(PROMPT, self.queues.publish(entry)).await {
                Ok(Ok(())) => {
                    self.clear_trouble();
                    return true;
                }
                Ok(Err(error)) if error.is_final() => return self.set_aside(entry, &error).await,
                Ok(Err(error)) => self.trouble(&format!("{:#}", anyhow::Error::new(error))),
                Err(_) => self.trouble("the queue takes nothing"),
            }
        }
        let pushed = self.spool.push(entry).await;
        self.metrics.set_spool(self.spool.depth());
        match pushed {
            Ok(Spooled::Kept) => true,
            Ok(Spooled::Full) => self.lose(entry, "the spool is full"),
            Err(error) => self.lose(entry, &format!("{:#}", anyhow::Error::new(error))),
        }
    }

    /// Keeps an entry that its queue will never take, as a file for a person. Tells whether it is on disk.
    async fn set_aside(&self, entry: &Entry, why: &QueueError) -> bool {
        self.count_rejection(&Rejected { reason: "refused-by-queue" });
        let message = &entry.message;
        let parking = Parking {
            reason: &why.to_string(),
            topic: message.topic.as_str(),
            id: Some(message.id.as_str()),
            headers: &message.headers,
            content_encoding: None,
            body: message.body.as_str().as_bytes(),
        };
        self.parked.keep(&parking, &self.board, &self.shutdown.drain).await
    }

    /// Takes the trouble back, unless something waits still, for another queue.
    fn clear_trouble(&self) {
        if self.spool.depth() == (0, 0) {
            self.board.clear_trouble(TROUBLE);
        }
    }

    fn trouble(&self, error: &str) {
        let error = format!("messages wait in the spool: {error}");
        self.board.set_trouble(TROUBLE, &error);
        tracing::warn!("{error}");
    }

    fn lose(&self, entry: &Entry, why: &str) -> bool {
        self.metrics.lost.inc();
        self.board.set_trouble(TROUBLE, &format!("messages are lost: {why}"));
        let mut told = self.overflow.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever floods the spool must not flood the log too; the counter has them all.
        if told.is_none_or(|told| told.elapsed() >= QUIET) {
            *told = Some(Instant::now());
            let id = &entry.message.id;
            tracing::error!(message.id = %id, "messages are lost, {id} among them: {why}");
        }
        false
    }

    /// Counts what was not taken.
    pub(crate) fn count_rejection(&self, reason: &Rejected) {
        self.metrics.rejections.get_or_create(reason).inc();
        self.board.count(|counts| counts.rejected += 1);
    }

    fn reject(&self, rejection: &Rejection) {
        let reason = rejection.reason();
        self.count_rejection(&Rejected { reason });
        // Whoever floods the socket must not flood the log too; the counter has them all.
        tracing::debug!(reason, "rejected an envelope: {rejection}");
    }
}

impl Watcher for Ingest {
    fn taken(&self, count: u64) {
        self.metrics.set_spool(self.spool.depth());
        tracing::info!("the queue took {count} entries of the spool");
        self.clear_trouble();
    }

    fn failed(&self, error: &str) {
        self.trouble(error);
    }

    async fn refused(&self, entry: &Entry, why: &QueueError) -> bool {
        self.set_aside(entry, why).await
    }
}

/// Returns the time in seconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
