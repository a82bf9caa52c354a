//! The fedmsg source. It consists of a thread, which receives and parses envelopes from ZeroMQ, and
//! of a tokio task, which verifies the envelopes.
//!
//! This file contains the tokio task. It takes envelopes from the thread, verifies them with the
//! current verifier, and passes the messages to the ingest path. It does not use sockets.

mod endpoint;
mod thread;

use std::sync::Arc;

use loopabull_fedmsg::{Envelope, Rejection, Verifier};
use loopabull_model::Message;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::ingest::path::IngestPath;
use crate::observe::activity::Activity;
use crate::observe::metrics::{BySource, Metrics};

pub(super) use thread::{Connections, FedmsgError, Received, start};

/// The part of the source that verifies envelopes.
pub(super) struct FedmsgSource {
    /// Current verifier. It is replaced when the CA and CRL files are reread.
    pub verifier: watch::Receiver<Arc<Verifier>>,
    pub path: Arc<IngestPath>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub drain: CancellationToken,
}

impl FedmsgSource {
    /// Accepts the envelopes that the thread receives, until the daemon drains.
    pub(super) async fn run(self, mut receiver: mpsc::Receiver<Received>) {
        loop {
            // `recv` loses no envelope when it is dropped.
            let received = tokio::select! {
                received = receiver.recv() => received,
                () = self.drain.cancelled(), if !receiver.is_closed() => {
                    // Envelopes that are already in the channel are still accepted.
                    receiver.close();
                    continue;
                }
            };
            let Some(Received { endpoint, envelope, permit: _permit }) = received else { return };
            self.activity.receive(&endpoint);
            self.metrics.envelopes.get_or_create(&BySource { source: "fedmsg" }).inc();
            match envelope.and_then(|envelope| self.verify(envelope)) {
                Ok(message) => self.path.accept(&message).await,
                Err(rejection) => self.path.reject(&rejection),
            }
        }
    }

    fn verify(&self, envelope: Envelope) -> Result<Message, Rejection> {
        let verifier = Arc::clone(&self.verifier.borrow());
        verifier.verify(envelope, clock::now_seconds())
    }
}
