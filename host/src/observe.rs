//! Records the state of the daemon for operators: its current activity, its problems and its
//! metrics.
//!
//! Other parts of the daemon report to these modules. `web` and the command `status` show the
//! results.

pub(crate) mod activity;
pub(crate) mod arrivals;
pub(crate) mod failing;
pub(crate) mod health;
pub(crate) mod history;
pub(crate) mod log;
pub(crate) mod metrics;
pub(crate) mod observation;
pub(crate) mod status;
pub(crate) mod warnings;
