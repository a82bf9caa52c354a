//! The resources that a run used, and the messages that it sent.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{MessageId, Topic};

/// The resources that a run used.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(default)]
pub struct Usage {
    /// Maximum size of all linear memories and tables together, in bytes.
    pub memory: u64,
    /// Number of calls from the guest to the host, including WASI calls.
    pub host_calls: u64,
    /// HTTP exchanges in order, one line each.
    pub requests: Vec<String>,
}

/// A message that a run sent.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Emitted {
    pub id: MessageId,
    pub topic: Topic,
}
