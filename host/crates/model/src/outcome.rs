//! What an attempt came to. A task that fails is an outcome, never an error of ours.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Reason;

/// What an attempt came to.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The task dealt with the message.
    Success,
    /// The task says that it may work later.
    Retry {
        reason: Reason,
        /// How long it wants to be left alone, if it said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<Duration>,
    },
    /// The task says that it never will.
    Reject { reason: Reason },
    /// The component trapped.
    Trap { reason: Reason },
    /// The playbook ended with an exit status other than 0, or by a signal; or the component ended
    /// itself by `exit`, with whatever status, before it had answered.
    Exit { status: Reason },
    /// Ansible cannot read the playbook, or what it names. It will not for the next attempt either.
    Unreadable { reason: Reason },
    /// The task asked for more than it may use.
    Limit { exceeded: Exceeded },
    /// The task could not be started. Our trouble or the machine's, not the message's.
    NotStarted { reason: Reason },
    /// The task was not started and never will be for this entry.
    Refused { reason: Reason },
    /// The run was cut short because the daemon stops.
    Cancelled,
    /// Another run of the task changed what this one had read of its state. Nothing of it counts.
    Conflict { key: Reason },
}

/// Which limit a run ran into.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(tag = "limit", rename_all = "kebab-case")]
pub enum Exceeded {
    /// The wall-clock time.
    Deadline { allowed: Duration },
    /// The memory, in bytes.
    Memory { allowed: u64, wanted: u64 },
    /// Something that is counted.
    Count { what: Counted, allowed: u64, wanted: u64 },
}

/// What a run may have or do only so much of.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Messages that it sends.
    Emitted,
    /// Bytes of the messages that it sends.
    EmittedBytes,
    /// Bytes that its task remembers.
    StateBytes,
    /// Keys of what its task remembers that it reads or writes.
    StateKeys,
    /// Bytes that it hands to one call of the host.
    CallBytes,
    /// Things of the host that it holds at once: streams, timers, files.
    Handles,
    /// HTTP requests.
    Requests,
    /// Random bytes that it asks for at once.
    RandomBytes,
}

impl Counted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Emitted => "messages sent",
            Self::EmittedBytes => "bytes of messages sent",
            Self::StateBytes => "bytes of state",
            Self::StateKeys => "keys of state",
            Self::CallBytes => "bytes in one call of the host",
            Self::Handles => "handles",
            Self::Requests => "HTTP requests",
            Self::RandomBytes => "random bytes at once",
        }
    }
}

impl Outcome {
    /// Every name that [`Outcome::name`] returns.
    pub const NAMES: [&'static str; 13] = [
        "success",
        "retry",
        "reject",
        "trap",
        "exit",
        "unreadable",
        "deadline",
        "memory",
        "limit",
        "not-started",
        "refused",
        "cancelled",
        "conflict",
    ];

    /// Returns the short name for tables, labels and filters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Retry { .. } => "retry",
            Self::Reject { .. } => "reject",
            Self::Trap { .. } => "trap",
            Self::Exit { .. } => "exit",
            Self::Unreadable { .. } => "unreadable",
            Self::Limit { exceeded: Exceeded::Deadline { .. } } => "deadline",
            Self::Limit { exceeded: Exceeded::Memory { .. } } => "memory",
            Self::Limit { exceeded: Exceeded::Count { .. } } => "limit",
            Self::NotStarted { .. } => "not-started",
            Self::Refused { .. } => "refused",
            Self::Cancelled => "cancelled",
            Self::Conflict { .. } => "conflict",
        }
    }

    /// Tells whether the message has been dealt with.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }

    /// Tells whether the task failed. One that rejects a message has done its work, and one that
    /// was refused, cancelled or overtaken has not had the chance.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Self::Success | Self::Reject { .. } | Self::Refused { .. })
            && self.is_attempt()
    }

    /// Tells whether the run counts as an attempt.
    pub fn is_attempt(&self) -> bool {
        !matches!(self, Self::Cancelled | Self::Conflict { .. })
    }
}

impl fmt::Display for Outcome {
    /// Tells the outcome with its reason, for a person.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success | Self::Cancelled => f.write_str(self.name()),
            Self::Retry { reason, .. }
            | Self::Reject { reason }
            | Self::Trap { reason }
            | Self::NotStarted { reason }
            | Self::Unreadable { reason }
            | Self::Refused { reason } => write!(f, "{}: {reason}", self.name()),
            Self::Exit { status } => write!(f, "{}: {status}", self.name()),
            Self::Limit { exceeded: Exceeded::Deadline { allowed } } => {
                write!(f, "deadline: still running after {}", humantime::format_duration(*allowed))
            }
            Self::Limit { exceeded: Exceeded::Memory { allowed, wanted } } => {
                write!(f, "memory: wanted {wanted} bytes of {allowed} allowed")
            }
            Self::Limit { exceeded: Exceeded::Count { what, allowed, wanted } } => {
                write!(f, "limit: wanted {wanted} {} of {allowed} allowed", what.as_str())
            }
            Self::Conflict { key } => {
                write!(f, "conflict: another run changed the state `{key}` meanwhile")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_its_json_form() {
        let outcomes = [
            Outcome::Success,
            Outcome::Reject { reason: "no".into() },
            Outcome::Unreadable { reason: "no".into() },
            Outcome::Retry { reason: "no".into(), after: Some(Duration::from_millis(5)) },
            Outcome::Limit {
                exceeded: Exceeded::Deadline { allowed: Duration::from_millis(1500) },
            },
            Outcome::Limit { exceeded: Exceeded::Memory { allowed: 1, wanted: 2 } },
            Outcome::Limit {
                exceeded: Exceeded::Count { what: Counted::Emitted, allowed: 1, wanted: 2 },
            },
            Outcome::Conflict { key: "k".into() },
        ];
        for outcome in outcomes {
            let json = serde_json::to_string(&outcome).unwrap();
            assert_eq!(serde_json::from_str::<Outcome>(&json).unwrap(), outcome, "{json}");
            assert!(Outcome::NAMES.contains(&outcome.name()));
        }
    }
}
