//! The two steps of stopping: draining, then cancelling.

use tokio_util::sync::CancellationToken;

/// The signals that tell every part to stop. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown {
    /// Cancelled when nothing new may be received. Runs in progress continue.
    pub drain: CancellationToken,
    /// Cancelled when runs in progress must end too. Their messages are requeued.
    pub cancel: CancellationToken,
}

impl Shutdown {
    /// Drains and cancels at once.
    pub(crate) fn now(&self) {
        self.drain.cancel();
        self.cancel.cancel();
    }
}
