//! The outcome of an attempt. A failed task is an outcome, never an error of the host.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{DurationForm, Reason};

/// The outcome of an attempt.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum Outcome {
    /// The task processed the message.
    Success,
    /// The task asks for another attempt.
    Retry {
        reason: Reason,
        /// Delay that the task asks for, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(value_type = Option<DurationForm>)]
        after: Option<Duration>,
    },
    /// The task rejects the message, because no attempt can succeed.
    Reject { reason: Reason },
    /// The component trapped.
    Trap { reason: Reason },
    /// The playbook ended with an exit status other than 0 or by a signal, or the component called `exit`
    /// before it returned a result.
    Exit { status: Reason },
    /// Ansible cannot read the playbook or a file that the playbook names. Another attempt would fail in the
    /// same way.
    Unreadable { reason: Reason },
    /// Ansible ended without an error, but no play matched a host, so nothing was done.
    NoHosts,
    /// The task exceeded a limit.
    Limit { exceeded: Exceeded },
    /// The task did not start, or the host could not answer one of its calls, because of a problem of the host
    /// or the machine.
    NotStarted { reason: Reason },
    /// The task did not start, because the machine is short of file descriptors, processes, memory or space on a
    /// disk. The run does not count as an attempt.
    Shortage { reason: Reason },
    /// The run did not start, because a file or a grant of its task cannot be used. The run does not count as an
    /// attempt.
    Unavailable { reason: Reason },
    /// The entry was refused without a run, because its attempts are used up or its runs killed the daemon.
    Refused { reason: Reason },
    /// The run was cancelled because the daemon stops.
    Cancelled,
    /// An operator cancelled the run. The reason names the operator.
    Aborted { reason: Reason },
    /// Another run of the task changed the state that this run had read. The attempt does not count.
    Conflict { key: Reason },
}

/// The limit that a run exceeded.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(tag = "limit", rename_all = "kebab-case")]
pub enum Exceeded {
    /// Wall-clock time of the run.
    Deadline {
        #[schema(value_type = DurationForm)]
        allowed: Duration,
    },
    /// Memory of the run, in bytes.
    Memory { allowed: u64, wanted: u64 },
    /// Number of things of one kind.
    Count { what: Counted, allowed: u64, wanted: u64 },
}

/// The things whose number is limited.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Counted {
    /// Messages that the run sends.
    Emitted,
    /// Bytes of the messages that the run sends.
    EmittedBytes,
    /// Bytes in the state of the task.
    StateBytes,
    /// Keys of the state that the run reads or writes.
    StateKeys,
    /// Bytes in one call to the host.
    CallBytes,
    /// Handles to host resources (streams, timers, files) that the run holds at the same time.
    Handles,
    /// HTTP requests of the run.
    Requests,
    /// Random bytes that the run requests in one call.
    RandomBytes,
}

impl Counted {
    fn as_str(self) -> &'static str {
        match self {
            Self::Emitted => "messages sent",
            Self::EmittedBytes => "bytes of messages sent",
            Self::StateBytes => "bytes of state",
            Self::StateKeys => "keys of state",
            Self::CallBytes => "bytes in one call to the host",
            Self::Handles => "handles",
            Self::Requests => "HTTP requests",
            Self::RandomBytes => "random bytes in one call",
        }
    }
}

impl Outcome {
    /// All names that [`Outcome::name`] returns.
    pub const NAMES: [&'static str; 17] = [
        "success",
        "retry",
        "reject",
        "trap",
        "exit",
        "unreadable",
        "no-hosts",
        "deadline",
        "memory",
        "limit",
        "not-started",
        "shortage",
        "unavailable",
        "refused",
        "cancelled",
        "aborted",
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
            Self::NoHosts => "no-hosts",
            Self::Limit { exceeded: Exceeded::Deadline { .. } } => "deadline",
            Self::Limit { exceeded: Exceeded::Memory { .. } } => "memory",
            Self::Limit { exceeded: Exceeded::Count { .. } } => "limit",
            Self::NotStarted { .. } => "not-started",
            Self::Shortage { .. } => "shortage",
            Self::Unavailable { .. } => "unavailable",
            Self::Refused { .. } => "refused",
            Self::Cancelled => "cancelled",
            Self::Aborted { .. } => "aborted",
            Self::Conflict { .. } => "conflict",
        }
    }

    /// Returns true if the message was processed.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Success)
    }

    /// Returns true if the task failed. The outcome is not a failure if the task rejected the message, if the run
    /// was refused, if an operator cancelled it, or if it does not count as an attempt.
    pub fn is_failure(&self) -> bool {
        let is_other = matches!(
            self,
            Self::Success | Self::Reject { .. } | Self::Refused { .. } | Self::Aborted { .. }
        );
        !is_other && self.is_attempt()
    }

    /// Returns true if the run counts as an attempt.
    pub fn is_attempt(&self) -> bool {
        !matches!(
            self,
            Self::Cancelled
                | Self::Conflict { .. }
                | Self::Shortage { .. }
                | Self::Unavailable { .. }
        )
    }
}

impl fmt::Display for Outcome {
    /// Writes the outcome and its reason for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Success | Self::Cancelled => f.write_str(self.name()),
            Self::NoHosts => f.write_str("no-hosts: no play matched a host, so nothing was done"),
            Self::Retry { reason, .. }
            | Self::Reject { reason }
            | Self::Trap { reason }
            | Self::NotStarted { reason }
            | Self::Shortage { reason }
            | Self::Unavailable { reason }
            | Self::Unreadable { reason }
            | Self::Refused { reason }
            | Self::Aborted { reason } => write!(f, "{}: {reason}", self.name()),
            Self::Exit { status } => write!(f, "{}: {status}", self.name()),
            Self::Limit { exceeded: Exceeded::Deadline { allowed } } => {
                write!(f, "deadline: still running after {}", humantime::format_duration(*allowed))
            }
            Self::Limit { exceeded: Exceeded::Memory { allowed, wanted } } => {
                write!(f, "memory: wanted {wanted} bytes, at most {allowed} allowed")
            }
            Self::Limit { exceeded: Exceeded::Count { what, allowed, wanted } } => {
                write!(f, "limit: {wanted} {}, at most {allowed} allowed", what.as_str())
            }
            Self::Conflict { key } => {
                write!(f, "conflict: another run changed the state key `{key}` during this run")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_survives_serialization() {
        let outcomes = [
            Outcome::Success,
            Outcome::Reject { reason: "no".into() },
            Outcome::Unreadable { reason: "no".into() },
            Outcome::NoHosts,
            Outcome::Aborted { reason: "by ann".into() },
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
