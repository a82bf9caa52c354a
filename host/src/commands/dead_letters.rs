//! The command `dead-letters` lists, requeues and drops dead letters.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::anyhow;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use loopabull_model::{EntryId, QueueName, TaskName, TopicPattern};
use loopabull_queue::{
    DeadLetter, DeadLetterFilter, DeathRecord, QueueConfig, QueueError, Verdict,
};

use crate::api::{DeadLetterList, JudgeRequest, Judged, Number, Text, VerdictName};
use crate::commands::client::{Client, Remote};
use crate::commands::failure::{BAD_USAGE, DONE, Failure};
use crate::commands::table::Table;
use crate::commands::{audit, block_on, print, print_plain, queues, time};
use crate::config::Config;
use crate::tasks::discovery::Discovery;

/// The number of ids in a request, which may have 64 KiB.
const BATCH: usize = 200;

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
    #[command(flatten)]
    remote: Remote,
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
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: Option<String>,
    /// Only dead letters whose reason is this one, except for numbers, ids, paths and quoted names: `exit: build … failed`
    #[arg(long, value_name = "REASON", value_parser = NonEmptyStringValueParser::new())]
    like: Option<String>,
    /// Only dead letters that are older than this, for example `2d`
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    older_than: Option<Duration>,
}

pub(crate) fn run(config: &Config, args: &DeadLettersArgs) -> Result<u8, Failure> {
    let remote = &args.remote;
    match &args.command {
        None => list(config, remote, &Filter::default(), false),
        Some(DeadLettersCommand::List { filter, json }) => list(config, remote, filter, *json),
        Some(DeadLettersCommand::Show { id, json }) => show(config, remote, id, *json),
        Some(DeadLettersCommand::Requeue(choice)) => {
            judge(config, remote, choice, VerdictName::Requeue)
        }
        Some(DeadLettersCommand::Drop(choice)) => judge(config, remote, choice, VerdictName::Drop),
    }
}

/// Returns the dead letters that match.
fn find(
    config: &Config,
    remote: &Remote,
    filter: &Filter,
    id: Option<&str>,
) -> Result<Vec<DeadLetter>, Failure> {
    let queue = filter.queue.as_ref().map(ToString::to_string);
    let task = filter.task.as_ref().map(ToString::to_string);
    let topic = filter.topic.as_ref().map(ToString::to_string);
    let older = filter.older_than.map(|age| age.as_millis().to_string());
    let ask = |daemon: &Client| {
        let mut dead_letters = Vec::new();
        let mut skip: Option<String> = None;
        loop {
            let parameters = [
                ("id", id),
                ("queue", queue.as_deref()),
                ("task", task.as_deref()),
                ("topic", topic.as_deref()),
                ("reason", filter.reason.as_deref()),
                ("like", filter.like.as_deref()),
                ("older_than_ms", older.as_deref()),
                ("skip", skip.as_deref()),
                ("limit", Some("100000")),
            ];
            let part: DeadLetterList = daemon.get("dead-letters", &parameters)?;
            dead_letters.extend(part.dead_letters);
            match part.next {
                Some(next) => skip = Some(next.to_string()),
                None => return Ok(dead_letters),
            }
        }
    };
    remote.look(config, ask, || {
        let ids: Vec<String> = id.map(str::to_owned).into_iter().collect();
        let (matching, mut dead_letters) = (filter.with_ids(&ids), Vec::new());
        visit(config, filter.queue.as_ref(), |letter| {
            if matching.matches(letter) {
                dead_letters.push(letter.clone());
            }
            Verdict::Keep
        })?;
        Ok(dead_letters)
    })
}

fn list(config: &Config, remote: &Remote, filter: &Filter, json: bool) -> Result<u8, Failure> {
    let headings = ["DIED", "QUEUE", "TASK", "MESSAGE", "ATTEMPTS", "REASON", "ID"];
    let mut table = Table::new(&headings);
    for letter in &find(config, remote, filter, None)? {
        if json {
            print(&to_json(letter))?;
            continue;
        }
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
    if !json {
        print(&table.render())?;
    }
    Ok(DONE)
}

fn show(config: &Config, remote: &Remote, id: &str, json: bool) -> Result<u8, Failure> {
    let found = find(config, remote, &Filter::default(), Some(id))?.pop();
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

fn judge(
    config: &Config,
    remote: &Remote,
    choice: &Choice,
    name: VerdictName,
) -> Result<u8, Failure> {
    if choice.id.is_empty() && choice.filter.is_empty() && !choice.all {
        let error = anyhow!("no dead letters are selected");
        let hint = "give ids, a filter such as `--task NAME`, or `--all`";
        return Err(Failure::with_hint(error, hint).with_code(BAD_USAGE));
    }
    if let Some(daemon) = remote.wait_for(config)? {
        return judge_at(&daemon, choice, name);
    }
    let filter = choice.filter.with_ids(&choice.id);
    // The log of actions is opened before anything is done, so that nothing is done that cannot be recorded.
    let audit = audit::open(config)?;
    let action = name.action().expect("the subcommands requeue and drop");
    let mut left: BTreeSet<&str> = choice.id.iter().map(String::as_str).collect();
    let count = audit::record_around(&audit, action, &filter.to_string(), || {
        let count = visit(config, choice.filter.queue.as_ref(), |letter| {
            // Two dead letters can have the same id, because an entry is published again if the
            // broker's confirm is lost. The verdict applies to both.
            if !filter.matches(letter) {
                return Verdict::Keep;
            }
            left.remove(letter.id.as_str());
            name.verdict()
        })?;
        Ok((count, count))
    })?;
    print(&(name.say(count) + "\n"))?;
    match left.first() {
        Some(id) => Err(unknown(id)),
        None => Ok(DONE),
    }
}

fn judge_at(daemon: &Client, choice: &Choice, verdict: VerdictName) -> Result<u8, Failure> {
    let Choice { id, filter, all } = choice;
    let Filter { queue, task, topic, reason, like, older_than } = filter;
    let age = older_than.map(|age| Number(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)));
    let request = |ids: &[String]| JudgeRequest {
        verdict,
        queue: queue.clone(),
        ids: ids.iter().cloned().map(Text).collect(),
        task: task.clone(),
        topic: topic.clone(),
        reason: reason.clone().map(Text),
        like: like.clone().map(Text),
        older_than_ms: age,
        all: *all,
    };
    let batches: Vec<&[String]> =
        if id.is_empty() { vec![&[]] } else { id.chunks(BATCH).collect() };
    let (mut count, mut unknown_ids, mut more) = (0, Vec::new(), String::new());
    for ids in batches {
        let judged: Judged = match daemon.post("dead-letters", &request(ids)) {
            Ok(judged) => judged,
            Err(error) if count > 0 => {
                print_plain(&(verdict.say(count) + &more + "\n"))?;
                return Err(error.into_failure());
            }
            Err(error) => return Err(error.into_failure()),
        };
        // The daemon may add that it cannot write the audit log.
        let said = judged.said.strip_prefix(&verdict.say(judged.count));
        more = said.unwrap_or_default().to_owned();
        count += judged.count;
        unknown_ids.extend(judged.unknown_ids);
    }
    print_plain(&(verdict.say(count) + &more + "\n"))?;
    match unknown_ids.first() {
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
    // `--queue` may name a queue that no manifest names any more. So only the queue of the option is read.
    let unknown = queue.filter(|queue| !queues.queues.iter().any(|known| known.name == **queue));
    if let Some(queue) = queue {
        queues.queues = vec![QueueConfig::new(queue.clone())];
    }
    let mut seen = 0_u64;
    let count = block_on(async {
        let Some(look) = queues::inspect(config, &queues).await? else { return Ok(0) };
        let mut count = 0;
        for queue in &queues.queues {
            let judge = |letter: &DeadLetter| {
                seen += 1;
                judge(letter)
            };
            count += look.judge_dead_letters(&queue.name, judge).await?;
        }
        Ok::<_, QueueError>(count)
    })??;
    match unknown.filter(|_| seen == 0) {
        Some(queue) => {
            let error = anyhow!("there is no queue `{queue}`");
            Err(Failure::with_hint(error, "list the queues with `loopabull-host status`"))
        }
        None => Ok(count),
    }
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
