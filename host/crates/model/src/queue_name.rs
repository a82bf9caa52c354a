//! The name of a queue.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The name of a queue: 1 to 40 letters, digits, `-` and `_`.
///
/// Dots are not allowed, because the names of the host's auxiliary queues on the broker consist of the
/// queue's name, a dot and a suffix (`workers.dead`).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct QueueName(String);

/// The reason why a text is not the name of a queue.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{name}` is not a queue name: it needs 1 to 40 letters, digits, `-` and `_`")]
pub struct QueueNameError {
    name: String,
}

impl QueueName {
    /// The maximum length of a name, in bytes.
    pub const MAX_BYTES: usize = 40;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for QueueName {
    /// Returns `workers`, the queue of every task whose manifest names no queue.
    fn default() -> Self {
        Self("workers".to_owned())
    }
}

impl TryFrom<String> for QueueName {
    type Error = QueueNameError;

    fn try_from(name: String) -> Result<Self, QueueNameError> {
        let fits = (1..=Self::MAX_BYTES).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        if fits {
            Ok(Self(name))
        } else {
            Err(QueueNameError { name: name.escape_debug().to_string() })
        }
    }
}

impl TryFrom<&str> for QueueName {
    type Error = QueueNameError;

    fn try_from(name: &str) -> Result<Self, QueueNameError> {
        Self::try_from(name.to_owned())
    }
}

impl std::str::FromStr for QueueName {
    type Err = QueueNameError;

    fn from_str(name: &str) -> Result<Self, QueueNameError> {
        Self::try_from(name)
    }
}

impl From<QueueName> for String {
    fn from(name: QueueName) -> String {
        name.0
    }
}

impl fmt::Display for QueueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_no_dot() {
        for name in ["", "a.b", "a b", "ä", "a/b", &"a".repeat(41)] {
            assert!(QueueName::try_from(name).is_err(), "{name:?}");
        }
        assert_eq!(QueueName::try_from("slow-1").unwrap().as_str(), "slow-1");
        assert_eq!(QueueName::default().as_str(), "workers");
    }
}
