//! A filter for dead letters.

use std::fmt;
use std::time::{Duration, SystemTime};

use loopabull_model::{EntryId, QueueName, TaskName, TopicPattern, normalised_reason};

use crate::dead_letter::DeadLetter;

/// A filter for dead letters. A dead letter must match every condition that is set.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeadLetterFilter {
    /// One of these ids. Empty: any.
    pub ids: Vec<EntryId>,
    pub task: Option<TaskName>,
    pub topic: Option<TopicPattern>,
    /// The queue, for people. The caller passes only the dead letters of this queue.
    pub queue: Option<QueueName>,
    /// A text that the reason contains.
    pub reason: Option<String>,
    /// The reason without what differs between failures of one kind: see [`normalised_reason`].
    pub like: Option<String>,
    pub older_than: Option<Duration>,
}

impl DeadLetterFilter {
    /// Returns whether a dead letter matches. An unknown time of death is very long ago.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let topic = letter.message.as_ref().ok().map(|message| &message.topic);
        let died = Duration::from_millis(letter.death.died_at_ms.try_into().unwrap_or(0));
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + died);
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && self.task.as_ref().is_none_or(|task| letter.task.as_ref() == Some(task))
            && self.topic.as_ref().is_none_or(|p| topic.is_some_and(|topic| p.matches(topic)))
            && self.reason.as_ref().is_none_or(|text| letter.death.reason.contains(text.as_str()))
            && self.like.as_ref().is_none_or(|like| {
                normalised_reason(without_attempt(&letter.death.reason)) == *like
            })
            && self.older_than.is_none_or(|oldest| age.is_ok_and(|age| age >= oldest))
    }
}

/// Returns the reason without the number of the attempt, which the retry policy adds to the outcome.
fn without_attempt(reason: &str) -> &str {
    reason.rsplit_once(" (attempt ").map_or(reason, |(outcome, _)| outcome)
}

impl fmt::Display for DeadLetterFilter {
    /// Writes the conditions for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue.iter().map(|queue| format!("queue `{queue}`"));
        let task = self.task.iter().map(|task| format!("task `{task}`"));
        let topic = self.topic.iter().map(|topic| format!("topic `{topic}`"));
        let reason = self.reason.iter().map(|reason| format!("reason with `{reason}`"));
        let like = self.like.iter().map(|like| format!("reason like `{like}`"));
        let age = self.older_than.iter();
        let age = age.map(|age| format!("older than {}", humantime::format_duration(*age)));
        // The ids come last, because they can be many.
        let ids = self.ids.iter().map(|id| format!("id {}", id.as_str()));
        let conditions =
            queue.chain(task).chain(topic).chain(reason).chain(like).chain(age).chain(ids);
        let conditions: Vec<_> = conditions.collect();
        if conditions.is_empty() {
            return f.write_str("all dead letters");
        }
        write!(f, "dead letters: {}", conditions.join(", "))
    }
}
