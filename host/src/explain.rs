//! Says in sentences why something ran, or why nothing did: for the id of a message, or for a topic.
//!
//! The sentences come from what is known now: the notes of arrivals, the routes, the journal, the queues and the pauses.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use loopabull_model::{EntryId, NearMiss, Pause, Routes, Run, Target, TaskName, Topic, chain};
use loopabull_queue::{EntryState, QueueError, Queues, Whereabouts};
use loopabull_store::StoreError;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::journal::{Journal, Search};
use crate::observe::arrivals::{Arrival, Arrivals, Stored, Verdict, Which};

/// The number of arrivals of a message, or of its runs, that are read.
const LIMIT: usize = 200;
/// The number of arrivals that are told.
const TOLD: usize = 20;
/// The number of patterns that are told because they nearly match.
const NEAR: usize = 3;
/// How often a dead letter can be requeued and still be found.
const MAX_LIVES: usize = 10;

/// Explains messages and topics by what the host knows about them.
pub(crate) struct Explainer<'a, R> {
    pub routes: &'a Routes,
    /// Returns why a task must not run.
    pub refused: R,
    pub pauses: &'a BTreeMap<Target, Pause>,
    pub journal: &'a Journal,
    /// `None` if there are no notes.
    pub arrivals: Option<&'a Arrivals>,
    pub queues: Option<&'a Queues>,
}

/// The answer, in the order in which things happened.
#[derive(Clone, Debug, Default, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub(crate) struct Explanation {
    pub sentences: Vec<Sentence>,
}

/// A sentence, and the run of which it tells.
#[derive(Clone, Debug, Eq, PartialEq, Deserialize, Serialize, ToSchema)]
pub(crate) struct Sentence {
    pub text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

impl Explanation {
    fn say(&mut self, text: impl Into<String>) {
        self.sentences.push(Sentence { text: text.into(), run: None });
    }
}

impl<R: Fn(&TaskName) -> Option<String>> Explainer<'_, R> {
    /// Explains a message by its id, or else a topic.
    pub(crate) async fn explain(&self, about: &str) -> Result<Explanation, StoreError> {
        let mut explanation = Explanation::default();
        let which = Which::OfMessage(about.to_owned());
        let arrivals = self.arrivals(which).await?;
        let runs = self.runs_of(about).await?;
        if !arrivals.is_empty() || !runs.is_empty() {
            self.tell_message(&mut explanation, &arrivals, &runs).await;
            return Ok(explanation);
        }
        // An id of a message can look like a topic of one word.
        let of_topic = self.arrivals(Which::OfTopic(about.to_owned())).await?;
        let is_topic = |topic: &Topic| {
            about.contains('.') || !of_topic.is_empty() || !self.routes.resolve(topic).is_empty()
        };
        match Topic::try_from(about).ok().filter(is_topic) {
            Some(topic) => self.tell_topic(&mut explanation, &topic, &of_topic).await?,
            None => {
                explanation.say(format!("Nothing is known of a message with the id `{about}`."));
                self.tell_record(&mut explanation).await?;
            }
        }
        Ok(explanation)
    }

    async fn arrivals(&self, which: Which) -> Result<Vec<Arrival>, StoreError> {
        let Some(arrivals) = self.arrivals else { return Ok(Vec::new()) };
        let list = arrivals.list(which, None, LIMIT as u32).await?;
        Ok(list.into_iter().rev().map(|noted| noted.arrival).collect())
    }

    /// Returns the runs of a message, oldest first.
    async fn runs_of(&self, id: &str) -> Result<Vec<Run>, StoreError> {
        let search = Search::of_message(id);
        let mut runs = self.journal.search(search, None, LIMIT, Duration::MAX).await?.runs;
        runs.reverse();
        Ok(runs)
    }

    /// Tells since when arrivals are known.
    async fn tell_record(&self, explanation: &mut Explanation) -> Result<(), StoreError> {
        let since = match self.arrivals {
            Some(arrivals) => arrivals.since().await?,
            None => None,
        };
        explanation.say(match since {
            Some(since) => format!(
                "Arrivals are noted since {}. Older messages, those from `inject`, `send` and tasks, and external messages are known only by their runs.",
                time(since)
            ),
            None => "No arrival is noted: nothing came from a source yet, or `keep` under `[arrivals]` is 0.".to_owned(),
        });
        Ok(())
    }

    async fn tell_message(
        &self,
        explanation: &mut Explanation,
        arrivals: &[Arrival],
        runs: &[Run],
    ) {
        let mut entries: Vec<(TaskName, EntryId)> = Vec::new();
        let skipped = arrivals.len().saturating_sub(TOLD);
        for (number, Arrival { at_ms, source, topic, verdict, .. }) in arrivals.iter().enumerate() {
            if let Verdict::Accepted { tasks, .. } = verdict {
                let known =
                    tasks.iter().map(|Stored { task, entry }| (task.clone(), entry.clone()));
                entries.extend(known);
            }
            // Of many arrivals, the first and the last ones are told.
            if (TOLD / 2..TOLD / 2 + skipped).contains(&number) {
                if number == TOLD / 2 {
                    explanation.say(format!("It arrived {skipped} more times."));
                }
                continue;
            }
            let topic =
                topic.as_deref().map_or(String::new(), |topic| format!(" on topic `{topic}`"));
            let arrived = format!("It arrived from {source} at {}{topic}", time(*at_ms));
            explanation.say(match verdict {
                Verdict::Rejected { reason } => format!("{arrived} and was rejected: {reason}."),
                Verdict::Lost { task } => {
                    format!("It was lost for task `{task}`: neither its queue nor the spool could take it.")
                }
                Verdict::Unrouted => format!("{arrived}. No task wanted that topic, so nothing ran."),
                Verdict::Accepted { tasks, duplicate_for } => {
                    let stored = tasks.iter().map(|Stored { task, .. }| format!("`{task}`"));
                    let stored = stored.collect::<Vec<_>>().join(", ");
                    let again: Vec<_> = duplicate_for.iter().map(|task| format!("`{task}`")).collect();
                    match (stored.is_empty(), again.is_empty()) {
                        (false, true) => format!("{arrived} and was accepted for {stored}."),
                        (false, false) => {
                            format!("{arrived} and was accepted for {stored}. It is a duplicate for {}, which had it already.", again.join(", "))
                        }
                        (true, _) => {
                            format!("{arrived}. It is a duplicate for {}, which had it already.", again.join(", "))
                        }
                    }
                }
            });
        }
        let unrouted = arrivals.iter().find(|arrival| arrival.verdict == Verdict::Unrouted);
        if let Some(topic) =
            unrouted.and_then(|arrival| Topic::try_from(arrival.topic.as_deref()?).ok())
        {
            self.tell_routes(explanation, &topic);
        }
        for run in runs {
            explanation
                .sentences
                .push(Sentence { text: ran(run), run: Some(run.id.as_str().to_owned()) });
            if !entries.iter().any(|(_, entry)| is_life_of(&run.entry, entry)) {
                entries.push((run.task.clone(), run.entry.clone()));
            }
        }
        for (task, entry) in &entries {
            let last = runs.iter().rfind(|run| is_life_of(&run.entry, entry));
            self.tell_entry(explanation, task, entry, last).await;
        }
    }

    /// Tells where an entry is now. `last` is its last run.
    async fn tell_entry(
        &self,
        explanation: &mut Explanation,
        task: &TaskName,
        entry: &EntryId,
        last: Option<&Run>,
    ) {
        let is_done = last.is_some_and(|run| run.outcome.is_success());
        let found = match self.queues {
            Some(queues) if queues.knows_whereabouts() => match find(queues, entry).await {
                Ok(found) => found,
                Err(error) => {
                    return explanation
                        .say(format!("The queues cannot be read: {}.", chain(&error)));
                }
            },
            _ if is_done => return,
            // RabbitMQ does not tell where a message is.
            _ => {
                if last.is_none() {
                    explanation.say(format!(
                        "Task `{task}` did not run it on this host. RabbitMQ does not tell where it waits; another host may have run it."
                    ));
                }
                return self.tell_obstacles(explanation, task);
            }
        };
        let Some((entry, found)) = found else {
            let is_over = |run: &Run| run.outcome.is_attempt() && !run.outcome.is_success();
            if last.is_some_and(is_over) {
                explanation.say(format!(
                    "For task `{task}` it is in no queue of this host any more: its dead letter was dropped."
                ));
            } else if last.is_none() {
                explanation.say(format!(
                    "No run of task `{task}` for this message is in the journal, and the queue does not have it. It may wait in the spool because its queue is unavailable (`/readyz` says so), be in the quarantine, or have been dropped as a dead letter."
                ));
            }
            return;
        };
        let queue = &found.queue;
        match found.state {
            EntryState::Claimed => {
                explanation.say(format!("A worker has it for task `{task}` now."));
            }
            EntryState::Waiting { ahead } => {
                explanation.say(format!(
                    "For task `{task}` it waits in queue `{queue}`, {}.",
                    match ahead {
                        0 => "and is next".to_owned(),
                        1 => "behind 1 other".to_owned(),
                        EntryState::MAX_AHEAD => format!("behind {ahead} others or more"),
                        ahead => format!("behind {ahead} others"),
                    }
                ));
                self.tell_pause(explanation, "Queue", Target::Queue(queue.clone()));
                self.tell_obstacles(explanation, task);
            }
            EntryState::Due => {
                explanation.say(format!(
                    "For task `{task}` it waits in queue `{queue}` for another attempt, which is due."
                ));
                self.tell_pause(explanation, "Queue", Target::Queue(queue.clone()));
                self.tell_obstacles(explanation, task);
            }
            EntryState::Delayed { left } => {
                let left = humantime::format_duration(Duration::from_secs(left.as_secs()));
                explanation.say(format!("Task `{task}` gets it again in {left}."));
                self.tell_obstacles(explanation, task);
            }
            EntryState::Held => {
                explanation.say(format!("For task `{task}` it is held in queue `{queue}`."));
                self.tell_obstacles(explanation, task);
            }
            EntryState::Dead { reason } => {
                explanation.say(format!(
                    "For task `{task}` it is a dead letter of queue `{queue}`: {reason}. Run it again with `loopabull-host dead-letters requeue {}`.",
                    entry.as_str()
                ));
            }
        }
    }

    /// Tells why a task does not run now, if there is a reason.
    fn tell_obstacles(&self, explanation: &mut Explanation, task: &TaskName) {
        if let Some(reason) = (self.refused)(task) {
            explanation.say(format!("Task `{task}` is refused: {reason}."));
        }
        self.tell_pause(explanation, "Task", Target::Task(task.clone()));
    }

    fn tell_pause(&self, explanation: &mut Explanation, what: &str, target: Target) {
        if let Some(Pause { reason, since_ms, by }) = self.pauses.get(&target) {
            let (name, by, since) = (target.name(), by.as_str(), time(*since_ms));
            explanation
                .say(format!("{what} `{name}` is paused by the {by} since {since}: {reason}."));
        }
    }

    async fn tell_topic(
        &self,
        explanation: &mut Explanation,
        topic: &Topic,
        arrivals: &[Arrival],
    ) -> Result<(), StoreError> {
        explanation.say(format!("No message has the id `{topic}`, so it is taken as a topic."));
        self.tell_routes(explanation, topic);
        match arrivals.last() {
            Some(last) => {
                let id = last.message.as_ref().map_or(String::new(), |id| format!(" (id `{id}`)"));
                let count = match arrivals.len() {
                    1 => "1 message".to_owned(),
                    LIMIT => format!("At least {LIMIT} messages"),
                    count => format!("{count} messages"),
                };
                explanation.say(format!(
                    "{count} on this topic arrived, the last one at {}{id}.",
                    time(last.at_ms)
                ));
            }
            None => {
                explanation.say("No arrival on this topic is noted.");
                self.tell_record(explanation).await?;
            }
        }
        Ok(())
    }

    /// Tells which tasks want a topic, or which nearly do.
    fn tell_routes(&self, explanation: &mut Explanation, topic: &Topic) {
        let tasks = self.routes.resolve(topic);
        for task in &tasks {
            let patterns = task.patterns();
            let pattern = patterns.iter().find(|pattern| pattern.matches(topic));
            let pattern =
                pattern.map_or(String::new(), |pattern| format!(", by its pattern `{pattern}`"));
            explanation.say(format!("Task `{}` wants topic `{topic}`{pattern}.", task.name));
            self.tell_obstacles(explanation, &task.name);
        }
        if !tasks.is_empty() {
            return;
        }
        explanation.say(format!("No task wants topic `{topic}` now."));
        let all = self.routes.tasks().into_iter();
        let near = all.flat_map(|task| {
            let near = move |pattern| Some((task, NearMiss::of(&pattern, topic)?, pattern));
            task.patterns().into_iter().filter_map(near)
        });
        for (task, miss, pattern) in near.take(NEAR) {
            explanation.say(format!(
                "The pattern `{pattern}` of task `{}` nearly matches: {miss}.",
                task.name
            ));
        }
    }
}

fn ran(run: &Run) -> String {
    let took = humantime::format_duration(Duration::from_millis(
        u64::try_from(run.duration.as_millis()).unwrap_or(u64::MAX),
    ));
    format!(
        "Task `{}` ran it at {} for {took}, attempt {}: {}.",
        run.task,
        time(run.started_at_ms),
        run.attempt,
        run.outcome
    )
}

/// Returns whether two ids are of the same entry, before and after it was requeued from the dead letters.
fn is_life_of(one: &EntryId, other: &EntryId) -> bool {
    one.as_str().split('~').next() == other.as_str().split('~').next()
}

/// Finds an entry, or the one as which its dead letter was requeued. Returns the id that it has now.
async fn find(
    queues: &Queues,
    entry: &EntryId,
) -> Result<Option<(EntryId, Whereabouts)>, QueueError> {
    let mut entry = entry.clone();
    for _ in 0..MAX_LIVES {
        if let Some(found) = queues.whereabouts(&entry).await? {
            return Ok(Some((entry, found)));
        }
        entry = entry.requeued();
    }
    Ok(None)
}

fn time(ms: i64) -> String {
    match Timestamp::from_millisecond(ms) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => "an unknown time".to_owned(),
    }
}
