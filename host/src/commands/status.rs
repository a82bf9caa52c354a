//! The command `status` shows the queues, workers, sources and runs.

use std::path::Path;
use std::time::Duration;

use clap::Args;
use loopabull_queue::Queues;

use loopabull_model::Pause;

use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::table::Table;
use crate::commands::{block_on, print, print_plain, time};
use crate::config::Config;
use crate::daemon::state_dir::DaemonFile;
use crate::journal::Journal;
use crate::observe::status::{PauseStatus, QueueStatus, SourceStatus, Status};
use crate::tasks::discovery::Discovery;
use crate::work::pauses::Pauses;

/// Timeout for the daemon's response.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

/// Show queues, workers, sources, pauses and run counts
///
/// Asks the daemon that uses the state directory. If no daemon is running, reads the queue and the
/// journal directly. The exit status is 0 only if a daemon is running and ready.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print the daemon's status as a JSON object
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(config: &Config, args: &StatusArgs) -> Result<u8, Failure> {
    let mut status = ask_daemon(&config.state);
    if args.json {
        let text = serde_json::to_string(&status).expect("a status contains only JSON types");
        print(&(text + "\n"))?;
        return Ok(code(status.as_ref()));
    }
    match &status {
        Some(status) => print_plain(&daemon_text(status))?,
        None => print("daemon   not running\n")?,
    }
    let (queues, pauses) = match status.as_mut() {
        Some(status) => (std::mem::take(&mut status.queues), std::mem::take(&mut status.pauses)),
        None => (read_queues(config)?, read_pauses(config)?),
    };
    print(&queues_text(&queues))?;
    for PauseStatus { target, pause } in &pauses {
        let Pause { reason, since_ms, .. } = pause;
        print_plain(&format!("paused   {target} since {}: {reason}\n", time(*since_ms)))?;
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
    if status.is_some_and(|status| status.problems.is_empty()) { DONE } else { FAILED }
}

fn ask_daemon(state: &Path) -> Option<Status> {
    let daemon = DaemonFile::read(state)?;
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(STATUS_TIMEOUT)).build().into();
    let mut response = agent.get(format!("http://{}/status", daemon.listen)).call().ok()?;
    serde_json::from_str(&response.body_mut().read_to_string().ok()?).ok()
}

fn read_queues(config: &Config) -> Result<Vec<QueueStatus>, Failure> {
    if config.amqp_url.is_none() && !config.state.join("queue.db").exists() {
        return Ok(Vec::new());
    }
    let queues = config.queues(&Discovery::read(config, None).tasks);
    let depths = block_on(async {
        let open = Queues::inspect(&queues).await?;
        let mut depths = Vec::new();
        for queue in &queues.queues {
            depths.push((queue.name.clone(), open.depth(&queue.name).await?).into());
        }
        Ok::<_, loopabull_queue::QueueError>(depths)
    })??;
    Ok(depths)
}

fn read_pauses(config: &Config) -> Result<Vec<PauseStatus>, Failure> {
    if !config.state.join("control.db").exists() {
        return Ok(Vec::new());
    }
    let pauses = block_on(Pauses::open(&config.state)?.list())??;
    Ok(pauses.into_iter().map(|(target, pause)| PauseStatus { target, pause }).collect())
}

fn queues_text(queues: &[QueueStatus]) -> String {
    let headings = ["QUEUE", "WAITING", "OLDEST", "DELAYED", "HELD", "RUNNING", "DEAD LETTERS"];
    let mut table = Table::new(&headings);
    for queue in queues {
        let text = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
        let oldest = queue.oldest_seconds.filter(|_| queue.waiting > 0).map(text);
        let longest = queue.longest_delay_seconds.filter(|_| queue.delayed > 0).map(text);
        table.push(vec![
            queue.name.to_string(),
            queue.waiting.to_string(),
            oldest.unwrap_or_else(|| "-".to_owned()),
            match longest {
                Some(longest) => format!("{} (last due in {longest})", queue.delayed),
                None => queue.delayed.to_string(),
            },
            queue.held.to_string(),
            queue.claimed.map_or("-".to_owned(), |count| count.to_string()),
            queue.dead.to_string(),
        ]);
    }
    if queues.is_empty() { String::new() } else { table.render() }
}

fn daemon_text(status: &Status) -> String {
    let mut text = String::new();
    if status.problems.is_empty() {
        text.push_str("daemon   ready\n");
    } else {
        text.push_str("daemon   not ready\n");
        for problem in &status.problems {
            text.push_str(&format!("         {problem}\n"));
        }
    }
    for source in &status.sources {
        let last = match source.seconds_since_last {
            Some(seconds) => {
                format!("last {} ago", humantime::format_duration(Duration::from_secs(seconds)))
            }
            None => "none yet".to_owned(),
        };
        let link = match (&source.problem, source.connected) {
            (Some(problem), _) => problem.as_str(),
            (None, true) => "connected",
            (None, false) => "not connected yet",
        };
        let SourceStatus { name, received, .. } = source;
        text.push_str(&format!("source   {name}: {link}; {received} received, {last}\n"));
    }
    let mut table = Table::new(&["WORKER", "QUEUE", "TASK", "MESSAGE", "ATTEMPT", "SECONDS"]);
    for worker in &status.workers {
        let mut row = vec![worker.number.to_string(), worker.queue.to_string()];
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
