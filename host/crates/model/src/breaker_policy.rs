//! The policy of a task's circuit breaker, which a manifest sets.

use std::time::Duration;

use serde::Deserialize;

use crate::duration::duration;

/// The policy of a circuit breaker: the failures that pause a task automatically.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerPolicy {
    /// Number of consecutive failures that pause the task. 0 switches the breaker off. Default: 10.
    pub failures: u32,
    /// Time window. The task is paused only if all these failures happen within the window. Default: 10 min.
    #[serde(deserialize_with = "duration")]
    pub window: Duration,
    /// Time after which one message is tried. It doubles after each trial that fails, up to an hour. Default:
    /// 1 min.
    #[serde(deserialize_with = "duration")]
    pub pause: Duration,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self { failures: 10, window: Duration::from_mins(10), pause: Duration::from_mins(1) }
    }
}
