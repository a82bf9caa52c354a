//! What a run used, and what it did outside itself.

use serde::{Deserialize, Serialize};

use crate::{MessageId, Topic};

/// What a run used.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize)]
#[serde(default)]
pub struct Usage {
    /// The most bytes of linear memories and tables that it held at once.
    pub memory: u64,
    /// How many calls it made of its host, WASI's included.
    pub host_calls: u64,
    /// The HTTP exchanges, in their order, a line each.
    pub requests: Vec<String>,
}

/// A message that was sent because of a run.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
pub struct Emitted {
    pub id: MessageId,
    pub topic: Topic,
}
