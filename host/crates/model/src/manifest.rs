//! A manifest: `NAME.toml` beside `NAME.wasm` or `NAME.yml`.
//!
//! A manifest has the settings of one task. This module defines the keys and their defaults, and parses the
//! text. The host reads the files.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::{
    AnsibleOptions, BreakerPolicy, Grants, Limits, QueueName, RetryPolicy, TopicPattern,
    escape_harmful,
};

/// The settings of a task. Every key is optional.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// Topics that the task wants. Default: the name of the task.
    pub topics: Option<Vec<TopicPattern>>,
    /// Queue in which the task's entries wait. Default: `workers`.
    pub queue: QueueName,
    pub limits: Limits,
    pub retry: RetryPolicy,
    pub breaker: BreakerPolicy,
    /// Configuration values that the task can read.
    pub config: BTreeMap<String, String>,
    /// Resources that the task may use in addition to its log, its configuration, a clock and random numbers.
    pub grants: Grants,
    /// Options of `ansible-playbook`. Only for playbooks.
    pub ansible: AnsibleOptions,
}

/// The reason why a text is not a manifest, with the line and the key.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ManifestError(String);

impl Manifest {
    /// Parses a manifest.
    pub fn parse(text: &str) -> Result<Self, ManifestError> {
        toml::from_str(text)
            .map_err(|error| ManifestError(escape_harmful(error.to_string().trim_end())))
    }

    /// Reads only the topics and the queue of a manifest that has an error. With them, messages for the task
    /// can still be queued, so no message is lost because of an error in another key.
    pub fn salvage(text: &str) -> Self {
        let table: toml::Table = toml::from_str(text).unwrap_or_default();
        let topics = table.get("topics").and_then(|topics| topics.clone().try_into().ok());
        let queue = table.get("queue").and_then(|queue| queue.clone().try_into().ok());
        Self { topics, queue: queue.unwrap_or_default(), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytesize::ByteSize;

    use super::*;

    fn check_error(text: &str, expected: &str) {
        let error = Manifest::parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    #[test]
    fn an_error_shows_its_line_without_the_escapes_in_it() {
        let error = Manifest::parse("nope = '\u{1b}[2J\u{202e}'").unwrap_err().to_string();
        assert!(error.contains("\\u{1b}[2J\\u{202e}"), "{error}");
        assert!(!error.contains(['\u{1b}', '\u{202e}']));
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
        check_error("[limits]\ntimeout = '0s'", "longer than zero");
        check_error("[retry]\nmax_attempts = 0", "max_attempts");
    }
}
