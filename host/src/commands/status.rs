//! `status`: what waits, what runs, what comes in.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use loopabull_queue::Queue;

use crate::board::{QueueStatus, Status};
use crate::cli::{DONE, FAILED, Failure};
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain};
use crate::config::Config;
use crate::daemon::Notice;
use crate::journal::Journal;

/// How long the daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Show the queue, the workers and what they run, the sources, and the runs so far
///
/// Asks the daemon of the state directory; without one it looks at the queue and the journal
/// itself. Exit status 0 if a daemon runs and is ready.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print the daemon's status as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &StatusArgs) -> Result<u8, Failure> {
    let status = ask_daemon(&config.state);
    if args.json {
        let text = serde_json::to_string(&status).expect("a status is made of JSON types");
        print(&(text + "\n"))?;
        return Ok(code(status.as_ref()));
    }
    let queue = match &status {
        Some(status) => {
            print_plain(&daemon_text(status))?;
            None
        }
        None => {
            print("daemon   not running\n")?;
            look_at_queue(config)?
        }
    };
    if let Some(queue) = status.as_ref().and_then(|status| status.queue.as_ref()).or(queue.as_ref())
    {
        print(&queue_text(queue))?;
    }
    if config.state.join("journal.db").exists() {
        let journal = Journal::open(&config.state)?;
        let counts = block_on(journal.count())??;
        let text: Vec<String> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
        print(&format!(
            "runs     {}\n",
            if text.is_empty() { "none".into() } else { text.join(", ") }
        ))?;
    }
    Ok(code(status.as_ref()))
}

fn code(status: Option<&Status>) -> u8 {
    if status.is_some_and(|status| status.troubles.is_empty()) { DONE } else { FAILED }
}

fn ask_daemon(state: &Path) -> Option<Status> {
    let notice: Notice =
        serde_json::from_str(&std::fs::read_to_string(Notice::path(state)).ok()?).ok()?;
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let mut response = agent.get(format!("http://{}/status", notice.listen)).call().ok()?;
    serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()
}

fn look_at_queue(config: &Config) -> Result<Option<QueueStatus>, Failure> {
    if config.amqp_url.is_none() && !config.state.join("queue.db").exists() {
        return Ok(None);
    }
    let depth = block_on(async { Queue::open(&config.queue()).await?.depth().await })??;
    Ok(Some(depth.into()))
}

fn queue_text(queue: &QueueStatus) -> String {
    let claimed = queue.claimed.map(|count| format!(", {count} running")).unwrap_or_default();
    let oldest = match queue.oldest_seconds {
        Some(seconds) if queue.waiting > 0 => {
            format!(", oldest {}", humantime::format_duration(Duration::from_secs(seconds)))
        }
        _ => String::new(),
    };
    format!("queue    {} waiting{claimed}{oldest}; {} dead letters\n", queue.waiting, queue.dead)
}

fn daemon_text(status: &Status) -> String {
    let mut text = String::new();
    if status.troubles.is_empty() {
        text.push_str("daemon   ready\n");
    } else {
        text.push_str("daemon   not ready\n");
        for trouble in &status.troubles {
            text.push_str(&format!("         {trouble}\n"));
        }
    }
    for source in &status.sources {
        let last = match source.seconds_since_last {
            Some(seconds) => {
                format!("the last {} ago", humantime::format_duration(Duration::from_secs(seconds)))
            }
            None => "nothing yet".to_owned(),
        };
        text.push_str(&format!("source   {}: {} received, {last}\n", source.name, source.received));
    }
    let mut table = Table::new(&["WORKER", "TASK", "MESSAGE", "ATTEMPT", "SECONDS"]);
    for worker in &status.workers {
        let mut row = vec![worker.number.to_string()];
        match &worker.work {
            Some(work) => row.extend([
                work.task.clone(),
                work.message_id.clone(),
                work.attempt.to_string(),
                worker.seconds.unwrap_or_default().to_string(),
            ]),
            None => row.push("idle".to_owned()),
        }
        table.push(row);
    }
    text.push_str(&table.render());
    text
}
