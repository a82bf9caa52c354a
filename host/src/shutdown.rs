//! The two steps of stopping.

use tokio_util::sync::CancellationToken;

/// What tells every part to stop. Clones hear the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shutdown {
    /// Nothing new is taken from here on; what runs goes on.
    pub drain: CancellationToken,
    /// What runs is ended too, and given back.
    pub cancel: CancellationToken,
}

impl Shutdown {
    /// Ends everything at once.
    pub(crate) fn now(&self) {
        self.drain.cancel();
        self.cancel.cancel();
    }
}
