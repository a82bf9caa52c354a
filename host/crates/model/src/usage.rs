//! The resources that a run used, and its exchanges with others.

use serde::{Deserialize, Serialize};

use crate::{MessageId, Topic};

/// The resources that a run used.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Usage {
    /// The peak size of its linear memories and tables together, in bytes.
    pub memory: u64,
    /// The number of its calls to the host, WASI included.
    pub host_calls: u64,
    /// The HTTP exchanges in their order, one line each.
    pub requests: Vec<String>,
}

/// A message that was sent because of a run.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Emitted {
    pub id: MessageId,
    pub topic: Topic,
}
