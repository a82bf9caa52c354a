//! The fedmsg source. It consists of a thread, which receives and parses envelopes from ZeroMQ, and
//! of a tokio task, which verifies the envelopes.
//!
//! This file contains the tokio task. It takes envelopes from the thread, verifies them with the
//! current verifier, and passes the messages to the ingest path. It does not use sockets.

mod endpoint;
mod thread;

use std::num::NonZeroUsize;
use std::sync::Arc;

use loopabull_fedmsg::{Envelope, Rejection, Verifier};
use loopabull_model::Message;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::ingest::path::IngestPath;
use crate::observe::activity::Activity;
use crate::observe::metrics::{ByEndpoint, BySource, Metrics};

pub(super) use thread::{Connections, FedmsgError, Received, start};

/// Maximum number of envelopes that are accepted together.
const MAX_GROUP: usize = 256;
/// The name of all fedmsg endpoints together.
const SOURCE: &str = "fedmsg";
/// Number of envelopes from which they are verified in parallel.
const MIN_PARALLEL: usize = 16;

/// The part of the source that verifies envelopes.
pub(super) struct FedmsgSource {
    /// Current verifier. It is replaced when the CA and CRL files are reread.
    pub verifier: watch::Receiver<Arc<Verifier>>,
    pub path: Arc<IngestPath>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub drain: CancellationToken,
    /// Token that ends the draining.
    pub cancel: CancellationToken,
}

/// An envelope that was rejected, with its id and its topic if they could be read.
struct Rejected {
    id: Option<String>,
    topic: Option<String>,
    rejection: Rejection,
}

impl FedmsgSource {
    /// Accepts the envelopes that the thread receives, until the daemon drains. All that wait are accepted together.
    pub(super) async fn run(self, mut receiver: mpsc::Receiver<Received>) {
        let mut received = Vec::with_capacity(MAX_GROUP);
        loop {
            // `recv_many` loses no envelope when it is dropped.
            tokio::select! {
                count = receiver.recv_many(&mut received, MAX_GROUP) => {
                    if count == 0 {
                        return;
                    }
                }
                () = self.drain.cancelled(), if !receiver.is_closed() => {
                    // Envelopes that are already in the channel are still accepted.
                    receiver.close();
                    continue;
                }
            }
            if self.cancel.is_cancelled() {
                while let Ok(waiting) = receiver.try_recv() {
                    received.push(waiting);
                }
                let count = received.len();
                for Received { endpoint, .. } in received {
                    self.metrics.dropped.get_or_create(&ByEndpoint { endpoint }).inc();
                }
                return tracing::error!(
                    "dropped {count} messages: the daemon had to stop before it took them in"
                );
            }
            let (envelopes, _permits): (Vec<_>, Vec<_>) =
                received.drain(..).map(|received| self.count(received)).unzip();
            let mut messages = Vec::with_capacity(envelopes.len());
            for verified in self.verify(envelopes).await {
                match verified {
                    Ok(message) => messages.push(message),
                    Err(Rejected { id, topic, rejection }) => {
                        self.path.reject(SOURCE, id.as_deref(), topic.as_deref(), &rejection);
                    }
                }
            }
            self.path.accept(SOURCE, &messages).await;
        }
    }

    /// Counts an envelope. Returns it with the permit for its size.
    fn count(&self, received: Received) -> (Result<Envelope, Rejection>, OwnedSemaphorePermit) {
        self.activity.receive(&received.endpoint);
        self.metrics.envelopes.get_or_create(&BySource { source: SOURCE }).inc();
        (received.envelope, received.permit)
    }

    /// Verifies envelopes, many of them on all cores. Keeps their order.
    async fn verify(
        &self,
        envelopes: Vec<Result<Envelope, Rejection>>,
    ) -> Vec<Result<Message, Rejected>> {
        let verifier = Arc::clone(&self.verifier.borrow());
        let verify = move |envelopes: Vec<Result<Envelope, Rejection>>| {
            let verified = envelopes.into_iter().map(|envelope| verify_one(&verifier, envelope));
            verified.collect::<Vec<_>>()
        };
        if envelopes.len() < MIN_PARALLEL {
            return verify(envelopes);
        }
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let size = envelopes.len().div_ceil(cores);
        let mut envelopes = envelopes.into_iter();
        let parts = (0..cores).map(|_| {
            let (verify, part) = (verify.clone(), envelopes.by_ref().take(size).collect());
            tokio::task::spawn_blocking(move || verify(part))
        });
        let parts: Vec<_> = parts.collect();
        let mut verified = Vec::new();
        for part in parts {
            verified.extend(part.await.expect("the verification of an envelope does not panic"));
        }
        verified
    }
}

fn verify_one(
    verifier: &Verifier,
    envelope: Result<Envelope, Rejection>,
) -> Result<Message, Rejected> {
    let envelope = envelope.map_err(|rejection| Rejected { id: None, topic: None, rejection })?;
    let (id, topic) = (envelope.id().map(str::to_owned), envelope.topic().clone());
    verifier.verify(envelope, clock::now_seconds()).map_err(|rejection| Rejected {
        id,
        topic: Some(topic.to_string()),
        rejection,
    })
}
