//! A task: a component or a playbook, with its manifest.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::topic::is_word_character;
use crate::{Limits, Manifest, TaskKind, Topic, TopicPattern};

/// A component or a playbook that runs for messages, with its manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub name: TaskName,
    pub kind: TaskKind,
    pub manifest: Manifest,
}

/// The name of a task: its file name without the extension.
///
/// The name has ASCII letters, digits and `-_+~:@.`, and does not start with a dot or a dash. So a topic can
/// be a task name, and a task name is never a path, a hidden file or a command-line option.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Deserialize, Serialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct TaskName(String);

/// The reason why a text is not the name of a task.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{name}` is not a task name")]
pub struct TaskNameError {
    name: String,
}

impl Task {
    /// Returns the topics that the task wants: the topics of its manifest or, by default, its own name.
    ///
    /// The result is empty if the manifest has no topics and the name is not a valid topic. Then the task
    /// never runs.
    pub fn patterns(&self) -> Vec<TopicPattern> {
        match &self.manifest.topics {
            Some(topics) => topics.clone(),
            None => {
                Topic::try_from(self.name.as_str()).map(TopicPattern::from).into_iter().collect()
            }
        }
    }

    /// Returns the timeout of one run.
    pub fn timeout(&self) -> Duration {
        self.manifest.limits.timeout.unwrap_or_else(|| Limits::default_timeout(self.kind))
    }

    /// Returns the memory limit of one run of a component, in bytes.
    pub fn memory(&self) -> u64 {
        self.manifest.limits.memory.unwrap_or(Limits::COMPONENT_MEMORY).as_u64()
    }
}

impl TaskName {
    /// The maximum length of a name, in bytes. With an extension, the name must still fit into a file name.
    pub const MAX_BYTES: usize = 200;

    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TaskName {
    type Error = TaskNameError;

    fn try_from(name: String) -> Result<Self, TaskNameError> {
        let fits = !name.is_empty()
            && name.len() <= Self::MAX_BYTES
            && !name.starts_with(['.', '-'])
            && name.chars().all(|c| c == '.' || is_word_character(c));
        if fits {
            Ok(Self(name))
        } else {
            Err(TaskNameError { name: name.escape_debug().to_string() })
        }
    }
}

impl TryFrom<&str> for TaskName {
    type Error = TaskNameError;

    fn try_from(name: &str) -> Result<Self, TaskNameError> {
        Self::try_from(name.to_owned())
    }
}

impl From<TaskName> for String {
    fn from(name: TaskName) -> String {
        name.0
    }
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_never_a_path_or_an_option() {
        for name in ["", ".", "..", ".hidden", "-e", "a/b", "a\0", "a b", "ä"] {
            assert!(TaskName::try_from(name).is_err(), "{name:?}");
        }
        assert!(TaskName::try_from("org.example.prod.thing-new").is_ok());
    }

    fn task(kind: TaskKind, manifest: &str) -> Task {
        let name = TaskName::try_from("org.example.thing").unwrap();
        Task { name, kind, manifest: Manifest::parse(manifest).unwrap() }
    }

    #[test]
    fn the_default_timeout_depends_on_the_kind() {
        let timeout = |kind, manifest| task(kind, manifest).timeout().as_secs();
        assert_eq!(timeout(TaskKind::Component, ""), 30);
        assert_eq!(timeout(TaskKind::Playbook, ""), 15 * 60);
        for kind in [TaskKind::Component, TaskKind::Playbook] {
            assert_eq!(timeout(kind, "limits.timeout = '2m'"), 120);
        }
    }

    #[test]
    fn a_component_has_64_mib_by_default() {
        assert_eq!(task(TaskKind::Component, "").memory(), 64 << 20);
        assert_eq!(task(TaskKind::Component, "limits.memory = '1KiB'").memory(), 1024);
    }

    #[test]
    fn without_topics_the_name_is_the_topic() {
        let task = task(TaskKind::Playbook, "");
        assert_eq!(task.patterns(), [TopicPattern::try_from("org.example.thing").unwrap()]);
    }
}
