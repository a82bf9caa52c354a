//! The deserializer of durations in the form `1h 30m`.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

/// Reads a duration.
pub(super) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}
