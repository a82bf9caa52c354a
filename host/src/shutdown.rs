//! The two steps of a shutdown. In the first step, the daemon drains: it receives no new messages,
//! and the runs in progress continue. In the second step, it cancels the runs that are still in
//! progress.

use tokio_util::sync::CancellationToken;

/// The cancellation tokens that stop every part of the daemon. Clones share the same tokens.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown {
    /// Token that starts the drain: no new messages are received, and runs in progress continue.
    pub drain: CancellationToken,
    /// Token that cancels the runs in progress. Their messages are requeued.
    pub cancel: CancellationToken,
}

impl Shutdown {
    /// Cancels both tokens.
    pub(crate) fn now(&self) {
        self.drain.cancel();
        self.cancel.cancel();
    }
}
