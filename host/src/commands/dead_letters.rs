//! The command `dead-letters` lists, requeues and drops dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use loopabull_model::{EntryId, QueueName, TaskName, TopicPattern};
use loopabull_queue::{DeadLetter, DeadLetterFilter, DeathRecord, QueueConfig, Verdict};

use crate::commands::failure::{BAD_USAGE, DONE, Failure};
use crate::commands::table::Table;
use crate::commands::{audit, block_on, print, print_plain, queues, time};
use crate::config::Config;
use crate::tasks::discovery::Discovery;

/// List, show, requeue or drop dead letters
///
/// A dead letter is a message that its task rejected, or that failed in every attempt. Without a
/// subcommand, all dead letters are listed.
///
/// Example: `loopabull-host dead-letters requeue --task flag-build --older-than 2d`
#[derive(Debug, Args)]
pub(crate) struct DeadLettersArgs {
    #[command(subcommand)]
    command: Option<DeadLettersCommand>,
}

#[derive(Debug, Subcommand)]
enum DeadLettersCommand {
    /// List dead letters, oldest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// Print a JSON object for each dead letter, with its message and output
        #[arg(long)]
        json: bool,
    },
    /// Show a dead letter with its message, its earlier deaths and the end of the task's output
    Show {
        /// Id of the dead letter, from `dead-letters list`
        id: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Return dead letters to their queue and reset their attempts
    Requeue(Choice),
    /// Delete dead letters permanently
    Drop(Choice),
}

#[derive(Debug, Args)]
struct Choice {
    /// Ids of dead letters, from `dead-letters list`
    id: Vec<String>,
    #[command(flatten)]
    filter: Filter,
    /// Select all dead letters
    #[arg(long, conflicts_with_all = ["id", "queue", "task", "topic", "reason", "like", "older_than"])]
    all: bool,
}

/// A filter for dead letters. A dead letter must match every condition.
#[derive(Debug, Default, Args)]
struct Filter {
    /// Only dead letters of this queue
    #[arg(long, value_name = "NAME")]
    queue: Option<QueueName>,
    /// Only dead letters of this task
    #[arg(long, value_name = "NAME", value_parser = |text: &str| TaskName::try_from(text))]
    task: Option<TaskName>,
    /// Only dead letters whose topic matches this pattern: `*` is one word, `#` any number of words
    #[arg(long, value_name = "PATTERN", value_parser = |text: &str| TopicPattern::try_from(text))]
    topic: Option<TopicPattern>,
    /// Only dead letters whose reason contains this text
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    /// Only dead letters whose reason is this one, except for numbers, ids, paths and quoted names: `exit: build … failed`
    #[arg(long, value_name = "REASON")]
    like: Option<String>,
    /// Only dead letters that are older than this, for example `2d`
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
}

pub(crate) fn run(config: &Config, args: &DeadLettersArgs) -> Result<u8, Failure> {
    match &args.command {
        None => list(config, &Filter::default(), false),
        Some(DeadLettersCommand::List { filter, json }) => list(config, filter, *json),
        Some(DeadLettersCommand::Show { id, json }) => show(config, id, *json),
        Some(DeadLettersCommand::Requeue(choice)) => judge(config, choice, Verdict::Requeue),
        Some(DeadLettersCommand::Drop(choice)) => judge(config, choice, Verdict::Drop),
    }
}

fn list(config: &Config, filter: &Filter, json: bool) -> Result<u8, Failure> {
    let headings = ["DIED", "QUEUE", "TASK", "MESSAGE", "ATTEMPTS", "REASON", "ID"];
    let mut table = Table::new(&headings);
    let mut lines = String::new();
    let matching = filter.with_ids(&[]);
    visit(config, filter.queue.as_ref(), |letter| {
        if matching.matches(letter) && json {
            lines.push_str(&to_json(letter));
        } else if matching.matches(letter) {
            let message = letter.message.as_ref();
            table.push(vec![
                time(letter.death.died_at_ms),
                letter.queue.to_string(),
                letter.task.as_ref().map_or("-".to_owned(), ToString::to_string),
                message.map_or("-".to_owned(), |message| message.id.to_string()),
                letter.death.attempts.to_string(),
                shortened(&letter.death.reason),
                letter.id.to_string(),
            ]);
        }
        Verdict::Keep
    })?;
    print(if json { lines } else { table.render() }.as_str())?;
    Ok(DONE)
}

fn show(config: &Config, id: &str, json: bool) -> Result<u8, Failure> {
    let mut found = None;
    visit(config, None, |letter| {
        if letter.id.as_str() == id {
            found = Some(letter.clone());
        }
        Verdict::Keep
    })?;
    let Some(letter) = found else { return Err(unknown(id)) };
    if json {
        print(&to_json(&letter))?;
        return Ok(DONE);
    }
    let mut table = Table::new(&["id", letter.id.as_str()]);
    let mut line = |name: &str, value: String| table.push(vec![name.to_owned(), value]);
    line("queue", letter.queue.to_string());
    if let Some(task) = &letter.task {
        line("task", task.to_string());
    }
    match &letter.message {
        Ok(message) => {
            line("message", message.id.to_string());
            line("topic", message.topic.to_string());
        }
        Err(reason) => line("message", reason.clone()),
    }
    for death in letter.history.iter().chain([&letter.death]) {
        let DeathRecord { reason, attempts, queued_at_ms, died_at_ms } = death;
        line("queued", time(*queued_at_ms));
        line("died", format!("{} after {attempts} attempts: {reason}", time(*died_at_ms)));
    }
    print(&table.render())?;
    if !letter.output.is_empty() {
        print("\n")?;
        print_plain(&(letter.output.trim_end().to_owned() + "\n"))?;
    }
    let body = match &letter.message {
        Ok(message) => message.body.as_str().to_owned(),
        Err(_) => String::from_utf8_lossy(&letter.body).into_owned(),
    };
    print("\n")?;
    print_plain(&(body + "\n"))?;
    Ok(DONE)
}

fn judge(config: &Config, choice: &Choice, verdict: Verdict) -> Result<u8, Failure> {
    if choice.id.is_empty() && choice.filter.is_empty() && !choice.all {
        let error = anyhow!("no dead letters are selected");
        let hint = "give ids, a filter such as `--task NAME`, or `--all`";
        return Err(Failure::with_hint(error, hint).with_code(BAD_USAGE));
    }
    let filter = choice.filter.with_ids(&choice.id);
    // The log of actions is opened before anything is done, so that nothing is done that cannot be recorded.
    let audit = audit::open(config)?;
    let mut left: BTreeSet<&str> = choice.id.iter().map(String::as_str).collect();
    let count = visit(config, choice.filter.queue.as_ref(), |letter| {
        // Two dead letters can have the same id, because an entry is published again if the
        // broker's confirm is lost. The verdict applies to both.
        if !filter.matches(letter) {
            return Verdict::Keep;
        }
        left.remove(letter.id.as_str());
        verdict
    })?;
    let (action, done) = match verdict {
        Verdict::Requeue => ("requeue", "requeued"),
        Verdict::Drop | Verdict::Keep => ("drop", "dropped"),
    };
    audit::record(&audit, action, &filter.to_string(), count)?;
    print(&format!("{count} {done}\n"))?;
    match left.first() {
        Some(id) => Err(unknown(id)),
        None => Ok(DONE),
    }
}

/// Calls `judge` for each dead letter of one queue or of all queues. Returns the number of dead
/// letters that were requeued or dropped.
fn visit(
    config: &Config,
    queue: Option<&QueueName>,
    mut judge: impl FnMut(&DeadLetter) -> Verdict + Send,
) -> Result<u64, Failure> {
    let tasks = Discovery::read(config, None).tasks;
    let mut queues = config.queues(&tasks);
    if let Some(queue) = queue {
        // `--queue` may name a queue that no manifest names any more. So only the queue of the
        // option is read.
        queues.queues = vec![QueueConfig::new(queue.clone())];
    }
    block_on(async {
        let Some(look) = queues::inspect(config, &queues).await? else { return Ok(0) };
        let mut count = 0;
        for queue in &queues.queues {
            count += look.judge_dead_letters(&queue.name, &mut judge).await?;
        }
        Ok(count)
    })?
}

impl Filter {
    fn is_empty(&self) -> bool {
        let Self { queue, task, topic, reason, like, older_than } = self;
        queue.is_none()
            && task.is_none()
            && topic.is_none()
            && reason.is_none()
            && like.is_none()
            && older_than.is_none()
    }

    /// Returns the filter, with these ids. The queue is not compared, because the caller reads only the selected queue.
    fn with_ids(&self, ids: &[String]) -> DeadLetterFilter {
        DeadLetterFilter {
            ids: ids.iter().map(EntryId::new).collect(),
            queue: self.queue.clone(),
            task: self.task.clone(),
            topic: self.topic.clone(),
            reason: self.reason.clone(),
            like: self.like.clone(),
            older_than: self.older_than,
        }
    }
}

fn to_json(letter: &DeadLetter) -> String {
    serde_json::to_string(letter).expect("a dead letter contains only JSON types") + "\n"
}

fn shortened(reason: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut short: String = reason.chars().take(MAX_CHARS).collect();
    if short.len() < reason.len() {
        short.push('…');
    }
    short
}

fn unknown(id: &str) -> Failure {
    let error = anyhow!("no dead letter has the id `{id}`");
    Failure::with_hint(error, "list the ids with `loopabull-host dead-letters`")
}
