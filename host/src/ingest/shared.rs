//! Handles to the parts of the daemon that ingest uses.

use std::sync::Arc;

use loopabull_queue::Queues;

use crate::observe::activity::Activity;
use crate::observe::arrivals::Arrivals;
use crate::observe::health::Health;
use crate::observe::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::tasks::catalog::CurrentCatalog;

/// The parts of the daemon that ingest uses.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) catalog: Arc<CurrentCatalog>,
    pub(crate) queues: Arc<Queues>,
    pub(crate) arrivals: Arc<Arrivals>,
    pub(crate) health: Arc<Health>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) shutdown: Shutdown,
}
