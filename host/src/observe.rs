//! The state of the daemon for operators: its current activity, its problems, and its metrics.

pub(crate) mod activity;
pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod status;
