//! A pause: its target, its reason and its start time.
//!
//! A pause stops a task, a queue or a worker until it is resumed. This module also converts targets from and
//! to text. It keeps no list of pauses; the host does that.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{QueueName, TaskName};

/// A task, a queue or a worker that can be paused.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Deserialize, Serialize, ToSchema)]
#[serde(tag = "kind", content = "name", rename_all = "kebab-case")]
pub enum Target {
    Task(TaskName),
    Queue(QueueName),
    /// Worker of the running daemon, counted from 1.
    Worker(u32),
}

/// The reason and the start time of a pause.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub struct Pause {
    pub reason: String,
    /// Start time, in milliseconds since 1970.
    pub since_ms: i64,
    pub by: PausedBy,
}

/// The one who began a pause.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PausedBy {
    Operator,
    /// The circuit breaker of a task, which also ends the pause.
    Breaker,
    /// The daemon, for another reason. Only an operator ends the pause.
    Daemon,
}

impl Pause {
    /// Returns whether another pause of the same target replaces this one: a breaker would end it by itself.
    pub fn can_be_replaced(&self) -> bool {
        self.by == PausedBy::Breaker
    }
}

impl PausedBy {
    const ALL: [Self; 3] = [Self::Operator, Self::Breaker, Self::Daemon];

    /// Returns the name that is stored and shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::Breaker => "breaker",
            Self::Daemon => "daemon",
        }
    }

    /// Returns the value with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == name)
    }
}

impl Target {
    /// Returns the target with this kind and name, as [`Target::kind`] and [`Target::name`] return them.
    pub fn from_parts(kind: &str, name: String) -> Option<Self> {
        match kind {
            "task" => TaskName::try_from(name).ok().map(Self::Task),
            "queue" => QueueName::try_from(name).ok().map(Self::Queue),
            "worker" => name.parse().ok().map(Self::Worker),
            _ => None,
        }
    }

    /// Returns the word for the kind of the target.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Task(_) => "task",
            Self::Queue(_) => "queue",
            Self::Worker(_) => "worker",
        }
    }

    /// Returns the name of the task or the queue, or the number of the worker.
    pub fn name(&self) -> String {
        match self {
            Self::Task(name) => name.to_string(),
            Self::Queue(name) => name.to_string(),
            Self::Worker(number) => number.to_string(),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind(), self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(target: Target, json: &str, text: &str) {
        assert_eq!(serde_json::to_string(&target).unwrap(), json);
        assert_eq!(serde_json::from_str::<Target>(json).unwrap(), target);
        assert_eq!(target.to_string(), text);
        assert_eq!(Target::from_parts(target.kind(), target.name()), Some(target));
    }

    #[test]
    fn a_target_survives_each_of_its_forms() {
        let task = Target::Task("a.b".try_into().unwrap());
        check(task, r#"{"kind":"task","name":"a.b"}"#, "task `a.b`");
        let queue = Target::Queue("slow".try_into().unwrap());
        check(queue, r#"{"kind":"queue","name":"slow"}"#, "queue `slow`");
        check(Target::Worker(3), r#"{"kind":"worker","name":3}"#, "worker `3`");
    }

    #[test]
    fn a_name_that_does_not_fit_its_kind_is_not_a_target() {
        for (kind, name) in [("task", "-a"), ("queue", "a.b"), ("worker", "x"), ("host", "1")] {
            assert_eq!(Target::from_parts(kind, name.to_owned()), None, "{kind} {name}");
        }
    }

    #[test]
    fn a_pause_survives_serialization() {
        let json = r#"{"reason":"by hand","since_ms":1500,"by":"operator"}"#;
        let pause: Pause = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&pause).unwrap(), json);
    }
}
