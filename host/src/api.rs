//! The requests and answers of the API for which no other module has a type. The operator's port serves them, and commands
//! send and read them.

mod bounds;

use std::collections::BTreeMap;

use loopabull_model::{QueueName, RunId, TaskName, TopicPattern};
use loopabull_queue::{DeadLetter, Verdict};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub(crate) use self::bounds::{Number, Text};
use crate::observe::arrivals::Noted;
use crate::work::audit::Action;

/// The answer to an action.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Done {
    /// How many things the action changed.
    pub count: u64,
    /// A sentence that says what was done.
    pub said: String,
}

/// The answer to a request that was refused, or that could not be carried out.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Refusal {
    /// A sentence that says why.
    pub error: String,
}

/// A task or a queue to pause.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PauseRequest {
    pub kind: PausableKind,
    pub name: String,
    /// The reason, which the pages and `status` show. If it is empty, they show `by hand`.
    #[schema(inline)]
    pub reason: Text<4096>,
}

/// The kinds of things that an operator can pause.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum PausableKind {
    Task,
    Queue,
}

/// A task, a queue or a worker to resume.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ResumeRequest {
    pub kind: ResumableKind,
    /// The name, or the number of a worker.
    pub name: String,
}

/// The kinds of things that an operator can resume.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum ResumableKind {
    Task,
    Queue,
    Worker,
}

/// A queue whose delayed messages are to be due now.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryRequest {
    pub queue: QueueName,
}

/// Says how many delayed messages of a queue are due now.
pub(crate) fn due(queue: &QueueName, count: u64) -> String {
    let messages = if count == 1 { "message is" } else { "messages are" };
    format!("queue `{queue}`: {count} delayed {messages} due now")
}

/// A run in progress to cancel.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CancelRequest {
    /// Its id, from the status.
    pub run: RunId,
}

/// A run to repeat.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AgainRequest {
    pub run: RunId,
    /// Another body for the message: a JSON text.
    pub body: Option<String>,
}

/// A verdict on the dead letters that match all conditions. The request must have at least one
/// condition, or else `all`.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct JudgeRequest {
    pub verdict: VerdictName,
    pub queue: Option<QueueName>,
    /// One of these ids.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(inline)]
    pub ids: Vec<Text<256>>,
    pub task: Option<TaskName>,
    pub topic: Option<TopicPattern>,
    /// A text that the reason contains.
    #[schema(inline)]
    pub reason: Option<Text<1000>>,
    /// The reason, with `…` for numbers, ids, paths and quoted names, as the groups of failures have it.
    #[schema(inline)]
    pub like: Option<Text<1000>>,
    /// Only dead letters that are at least this old, in milliseconds.
    #[schema(inline)]
    pub older_than_ms: Option<Age>,
    /// All dead letters, without any condition.
    #[serde(default)]
    pub all: bool,
}

impl VerdictName {
    /// Returns the verdict on each dead letter that matches.
    pub(crate) fn verdict(self) -> Verdict {
        match self {
            Self::Count => Verdict::Keep,
            Self::Requeue => Verdict::Requeue,
            Self::Drop => Verdict::Drop,
        }
    }

    /// Returns the name of the action in the audit log, if it changes anything.
    pub(crate) fn action(self) -> Option<&'static str> {
        match self {
            Self::Count => None,
            Self::Requeue => Some("requeue"),
            Self::Drop => Some("drop"),
        }
    }

    /// Says to how many dead letters the verdict applied.
    pub(crate) fn say(self, count: u64) -> String {
        let (dead_letters, are) =
            if count == 1 { ("dead letter", "is") } else { ("dead letters", "are") };
        match self {
            Self::Count if count == 1 => format!("{count} {dead_letters} matches"),
            Self::Count => format!("{count} {dead_letters} match"),
            Self::Requeue => format!("{count} {dead_letters} {are} requeued"),
            Self::Drop => format!("{count} {dead_letters} {are} dropped"),
        }
    }
}

/// The answer to a verdict on dead letters.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct Judged {
    /// How many dead letters were changed, or match.
    pub count: u64,
    /// A sentence that says what was done.
    pub said: String,
    /// Ids of the request that no dead letter has.
    pub unknown_ids: Vec<String>,
}

/// A time in milliseconds, at most 100 years.
pub(crate) type Age = Number<0, 3_155_760_000_000>;

/// The verdict of an operator on dead letters.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum VerdictName {
    /// They stay. The answer says how many match.
    Count,
    /// They return to their queue, and their attempts are counted from 1 again.
    Requeue,
    /// They are deleted.
    Drop,
}

/// The number of runs in the journal for each outcome.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct RunCounts {
    pub counts: BTreeMap<String, u64>,
}

/// Arrivals, newest first.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct ArrivalList {
    pub arrivals: Vec<Noted>,
    /// The value of `before` for the next part, if there may be more.
    pub next: Option<i64>,
}

/// Lines of the audit log, newest first.
#[derive(Debug, Deserialize, Serialize, ToSchema)]
pub(crate) struct ActionList {
    pub actions: Vec<Action>,
    /// The value of `before` for the next part, if there may be more.
    pub next: Option<i64>,
}

/// Dead letters, those of each queue oldest first.
#[derive(Debug, Default, Deserialize, Serialize, ToSchema)]
pub(crate) struct DeadLetterList {
    pub dead_letters: Vec<DeadLetter>,
    /// How many match, listed or not.
    pub matching: u64,
    /// The value of `skip` for the next part, if there are more.
    pub next: Option<u64>,
}
