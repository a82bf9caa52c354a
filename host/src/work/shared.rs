//! Handles to the parts of the daemon that the workers use.

use std::sync::Arc;

use loopabull_queue::Queues;

use crate::journal::Journal;
use crate::observe::activity::Activity;
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::work::cancellations::Cancellations;
use crate::work::pauses::Pauses;
use crate::work::runner::Runner;
use crate::work::starts::Starts;

/// Handles that several parts share. Each part clones the handles that it uses.
pub(crate) struct Shared {
    pub queues: Arc<Queues>,
    pub runner: Arc<Runner>,
    pub journal: Arc<Journal>,
    pub starts: Arc<Starts>,
    pub cancellations: Arc<Cancellations>,
    pub pauses: Arc<Pauses>,
    pub health: Arc<Health>,
    pub activity: Arc<Activity>,
    pub metrics: Arc<Metrics>,
    pub shutdown: Shutdown,
}
