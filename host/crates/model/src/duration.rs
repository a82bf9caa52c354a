//! Durations in TOML: a text such as `"90s"` or `"20m"`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;

/// How serde writes a [`Duration`]. This type only describes it.
#[derive(Debug, ToSchema)]
#[schema(as = Duration)]
pub struct DurationForm {
    /// Whole seconds.
    pub secs: u64,
    /// The rest, in nanoseconds.
    #[schema(maximum = 999_999_999)]
    pub nanos: u32,
}

/// Reads a duration. Zero is an error.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = humantime::parse_duration(&text).map_err(D::Error::custom)?;
    if duration.is_zero() {
        return Err(D::Error::custom("a duration must be longer than zero"));
    }
    Ok(duration)
}

/// Reads a duration for an optional key. Zero is an error.
pub(crate) fn some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}
