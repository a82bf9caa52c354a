//! A manifest: `NAME.toml` beside `NAME.wasm` or `NAME.yml`.
//!
//! Owns the keys and their defaults. Reads text; opening the file is the catalog's.

use std::collections::BTreeMap;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Deserializer};

use crate::{AnsibleOptions, BreakerPolicy, Grants, QueueName, RetryPolicy, TopicPattern};

/// What an operator says of a task. Every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// The topics that the task wants; without it the name of the task is the topic.
    pub topics: Option<Vec<TopicPattern>>,
    /// The queue in which its messages wait. Default: `workers`.
    pub queue: QueueName,
    pub limits: Limits,
    pub retry: RetryPolicy,
    pub breaker: BreakerPolicy,
    /// Plain values that the task may ask for.
    pub config: BTreeMap<String, String>,
    /// What the task is given beyond its log, its configuration, a clock and random numbers.
    pub grants: Grants,
    /// How it is run, if it is a playbook.
    pub ansible: AnsibleOptions,
}

/// How much a run may use.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Wall-clock time of one run, for example `"90s"` or `"20m"`. Default: 30 s for a component,
    /// 15 min for a playbook.
    #[serde(deserialize_with = "some_duration")]
    pub timeout: Option<Duration>,
    /// Memory of one run. For a component the sum of its linear memories and tables, default
    /// 64 MiB; for a playbook the address space of each of its processes, default 1 GiB.
    pub memory: Option<ByteSize>,
    /// How many processes a playbook may have, default 512. They are counted for its user.
    pub processes: Option<u64>,
    /// How many descriptors each process of a playbook may have open, default 1024.
    pub open_files: Option<u64>,
    /// How large a file may grow that a playbook writes, default 1 GiB.
    pub file_size: Option<ByteSize>,
    /// How much of the output is kept with the run. Default 64 KiB.
    pub output: ByteSize,
}

/// Why a text is not a manifest. It tells the line and the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(String);

impl Manifest {
    /// Reads a manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        toml::from_str(text).map_err(|error| ManifestError(error.to_string().trim_end().to_owned()))
    }

    /// Makes out of a text that is not a manifest which messages its task wants and where they wait,
    /// as far as it can be read: they must not be lost over a mistake elsewhere in it.
    pub fn salvage(text: &str) -> Self {
        let table: toml::Table = toml::from_str(text).unwrap_or_default();
        let topics = table.get("topics").and_then(|topics| topics.clone().try_into().ok());
        let queue = table.get("queue").and_then(|queue| queue.clone().try_into().ok());
        Self { topics, queue: queue.unwrap_or_default(), ..Self::default() }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: None,
            memory: None,
            processes: None,
            open_files: None,
            file_size: None,
            output: ByteSize::kib(64),
        }
    }
}

pub(crate) fn some_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

/// Reads `"90s"` or `"20m"`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let duration = humantime::parse_duration(&text).map_err(serde::de::Error::custom)?;
    if duration.is_zero() {
        return Err(serde::de::Error::custom("it must be longer than nothing"));
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(text: &str, expected: &str) {
        let error = Manifest::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn every_key_is_read() {
        let manifest = Manifest::parse(
            r##"
            topics = ["org.fedoraproject.*.buildsys.build.state.change", "a.#"]
            queue = "slow"
            [limits]
            timeout = "5s"
            memory = "32MiB"
            output = "1KiB"
            [retry]
            on_failure = "retry"
            max_attempts = 2
            pauses = ["1s", "1h"]
            [breaker]
            failures = 3
            window = "1m"
            [config]
            greeting = "hello"
            [grants]
            emit = ["a.b"]
            "##,
        )
        .unwrap();
        assert_eq!(manifest.topics.unwrap()[1].to_string(), "a.#");
        assert_eq!(manifest.limits.timeout, Some(Duration::from_secs(5)));
        assert_eq!(manifest.limits.memory, Some(ByteSize::mib(32)));
        assert_eq!(manifest.limits.output, ByteSize::kib(1));
        assert_eq!(manifest.queue.as_str(), "slow");
        assert_eq!(manifest.retry.max_attempts(), 2);
        assert_eq!(manifest.breaker.failures, 3);
        assert_eq!(manifest.breaker.window, Duration::from_mins(1));
        assert_eq!(manifest.config["greeting"], "hello");
        assert_eq!(manifest.grants.lines(), ["send messages to a.b"]);
    }

    #[test]
    fn an_empty_manifest_is_the_default() {
        assert_eq!(Manifest::parse("").unwrap(), Manifest::default());
    }

    #[test]
    fn an_unknown_key_is_named() {
        check_error("topic = ['a']", "unknown field `topic`");
        check_error("[limits]\ntime = '5s'", "unknown field `time`");
    }

    #[test]
    fn a_bad_value_is_named_with_its_line() {
        check_error("\ntopics = ['a..b']", "line 2");
        check_error("topics = ['a..b']", "topic pattern `a..b` has an empty word");
        check_error("[limits]\ntimeout = 'soon'", "timeout");
        check_error("[limits]\ntimeout = '0s'", "longer than nothing");
        check_error("[retry]\nmax_attempts = 0", "max_attempts");
    }
}
