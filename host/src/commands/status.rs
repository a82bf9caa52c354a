//! The command `status` shows the queues, workers, sources and runs.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use loopabull_model::{Pause, Target, TaskName};

use crate::api::RunCounts;
use crate::commands::client::{Client, ClientError, Daemon, Remote};
use crate::commands::failure::{DONE, FAILED, Failure};
use crate::commands::table::Table;
use crate::commands::{block_on, counted, pause, plain, print, print_plain, queues, time};
use crate::config::Config;
use crate::journal::Journal;
use crate::observe::history::Trend;
use crate::observe::status::{HeldStatus, PauseStatus, QueueStatus, SourceStatus, Status};
use crate::tables;
use crate::tasks::catalog::NOT_INSTALLED;
use crate::tasks::discovery::Discovery;

/// Show queues, workers, sources, pauses and run counts
///
/// Asks the daemon that uses the state directory, or the one at `--url`. If no local daemon is running or it does not answer,
/// reads the queue and the journal directly. The exit status is 0 only if a daemon is running and ready.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Print the daemon's status as a JSON object
    #[arg(long)]
    json: bool,
    /// Show the status repeatedly, until the command is interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Time between two updates
    #[arg(long, value_name = "TIME", default_value = "2s", requires = "watch", value_parser = interval)]
    interval: Duration,
    #[command(flatten)]
    remote: Remote,
}

/// The shortest time between two updates.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// Clears the terminal, and goes to its first line (ECMA-48, ED and CUP).
const CLEAR: &str = "\u{1b}[2J\u{1b}[H";

pub(crate) fn run(config: &Config, args: &StatusArgs) -> Result<u8, Failure> {
    if args.watch {
        return watch(config, args);
    }
    if args.json {
        let answer = ask(config, &args.remote)?;
        let status = match &answer {
            Answer::Running(_, answer) => Some(answer),
            Answer::NotRunning | Answer::Silent { .. } => None,
        };
        let text = serde_json::to_string(&status).expect("a status contains only JSON types");
        print(&(text + "\n"))?;
        return Ok(code(&answer));
    }
    let (text, code) = look(config, &args.remote)?;
    print_plain(&text)?;
    Ok(code)
}

/// Shows the status until the reader of the output goes away.
fn watch(config: &Config, args: &StatusArgs) -> Result<u8, Failure> {
    let is_terminal = std::io::stdout().is_terminal();
    loop {
        let text = match look(config, &args.remote) {
            Ok((text, _)) => plain(&text),
            // The state directory may be that of a daemon that is just starting.
            Err(failure) => failure.text(),
        };
        let now = Timestamp::now().strftime("%H:%M:%S UTC");
        let (before, after) = if is_terminal { (CLEAR, "") } else { ("", "\n") };
        let mut output = std::io::stdout().lock();
        let written = write!(output, "{before}{now}\n{text}{after}").and_then(|()| output.flush());
        match written {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(DONE),
            written => written?,
        }
        drop(output);
        std::thread::sleep(args.interval);
    }
}

/// Parses the time between two updates.
fn interval(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if time < MIN_INTERVAL {
        return Err(format!("the shortest time is {}", humantime::format_duration(MIN_INTERVAL)));
    }
    Ok(time)
}

/// The answer of the daemon.
enum Answer {
    Running(Client, Box<Status>),
    NotRunning,
    Silent { reason: String },
}

fn ask(config: &Config, remote: &Remote) -> Result<Answer, Failure> {
    Ok(match remote.find(config)? {
        Daemon::Running(daemon) => match daemon.get("status", &[]) {
            Ok(status) => Answer::Running(daemon, status),
            Err(ClientError::Silent(reason)) if !remote.is_elsewhere() => Answer::Silent { reason },
            Err(error) => return Err(error.into_failure()),
        },
        Daemon::NotRunning => Answer::NotRunning,
        Daemon::Silent => Answer::Silent { reason: "cannot be asked yet".to_owned() },
    })
}

/// Returns the status as text, and the exit code.
fn look(config: &Config, remote: &Remote) -> Result<(String, u8), Failure> {
    let answer = ask(config, remote)?;
    let mut text = match &answer {
        Answer::Running(_, answer) => daemon_text(answer),
        Answer::NotRunning if !config.state.exists() => format!(
            "daemon   not running with the state directory `{}`, which does not exist\n",
            config.state.display()
        ),
        Answer::NotRunning => "daemon   not running\n".to_owned(),
        Answer::Silent { reason } => format!("daemon   running, but {reason}\n"),
    };
    let code = code(&answer);
    let (queues, pauses, counts) = match answer {
        Answer::Running(daemon, answer) => {
            // They may take longer than the status.
            let counts = daemon.get("run-counts", &[]).ok();
            let counts = counts.map(|RunCounts { counts }| counts);
            (answer.queues, answer.pauses, counts)
        }
        Answer::NotRunning | Answer::Silent { .. } => {
            let pauses = pause::stored(config)?;
            let queues = read_queues(config, &pauses)?;
            let pauses = pauses.into_iter().map(|(target, pause)| PauseStatus { target, pause });
            let counts = match tables::path(&config.state).exists() {
                true => Some(block_on(Journal::open_to_read(&config.state)?.count())??),
                false => None,
            };
            (queues, pauses.collect(), counts)
        }
    };
    text.push_str(&queues_text(&queues));
    text.push_str(&held_text(&queues));
    for PauseStatus { target, pause } in &pauses {
        let Pause { reason, since_ms, by } = pause;
        let by = by.as_str();
        let since = time(*since_ms);
        text.push_str(&format!("paused   {target} by the {by} since {since}: {reason}\n"));
    }
    if let Some(counts) = counts {
        let counts: Vec<_> = counts.iter().map(|(name, n)| format!("{n} {name}")).collect();
        let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
        text.push_str(&format!("runs     {counts}\n"));
    }
    Ok((text, code))
}

fn code(answer: &Answer) -> u8 {
    match answer {
        Answer::Running(_, answer) if answer.problems.is_empty() => DONE,
        _ => FAILED,
    }
}

fn read_queues(
    config: &Config,
    pauses: &BTreeMap<Target, Pause>,
) -> Result<Vec<QueueStatus>, Failure> {
    let discovery = Discovery::read(config, None);
    let queues = config.queues(&discovery.tasks);
    let is_installed = |name: &TaskName| discovery.tasks.iter().any(|task| task.name == *name);
    let why_held = |name: &TaskName| match (is_installed(name), discovery.unknown_dir()) {
        (true, _) => {
            "the last daemon held them; the next one releases them if the task can run".to_owned()
        }
        (false, None) => format!("refused: {NOT_INSTALLED}"),
        (false, Some((folder, reason))) => {
            format!("unknown, because of `{}`: {reason}", folder.display())
        }
    };
    let depths = block_on(async {
        let mut depths = Vec::new();
        let Some(open) = queues::inspect(config, &queues).await? else { return Ok(depths) };
        for queue in &queues.queues {
            let depth = open.depth(&queue.name).await?;
            depths.push(QueueStatus::new(queue.name.clone(), depth, pauses, why_held));
        }
        Ok::<_, loopabull_queue::QueueError>(depths)
    })??;
    Ok(depths)
}

/// Returns one line for each task that has held messages.
fn held_text(queues: &[QueueStatus]) -> String {
    let line = |queue: &QueueStatus, held: &HeldStatus| {
        let HeldStatus { task, count, oldest_seconds, reason } = held;
        let messages = counted(*count, "message", "messages");
        let oldest = oldest_seconds.map(|seconds| {
            let time = humantime::format_duration(Duration::from_secs(seconds));
            format!(", the oldest for {time}")
        });
        let oldest = oldest.unwrap_or_default();
        let queue = &queue.name;
        format!("held     {messages} of task `{task}` in queue `{queue}`{oldest}: {reason}\n")
    };
    let lines =
        queues.iter().flat_map(|queue| queue.held_tasks.iter().map(move |held| line(queue, held)));
    lines.collect()
}

fn queues_text(queues: &[QueueStatus]) -> String {
    let headings =
        ["QUEUE", "WAITING", "OLDEST", "EMPTY IN", "DELAYED", "HELD", "RUNNING", "DEAD LETTERS"];
    let mut table = Table::new(&headings);
    for queue in queues {
        let text = |seconds| humantime::format_duration(Duration::from_secs(seconds)).to_string();
        let oldest = queue.oldest_seconds.filter(|_| queue.waiting > 0).map(text);
        let oldest = oldest.map(|time| format!("{}{time}", queue.oldest_bound.sign()));
        let longest = queue.longest_delay_seconds.filter(|_| queue.delayed > 0).map(text);
        table.push(vec![
            queue.name.to_string(),
            queue.waiting.to_string(),
            oldest.unwrap_or_else(|| "-".to_owned()),
            match queue.trend.filter(|_| queue.waiting > 0) {
                Some(Trend::Drains { drained_in_seconds }) => text(drained_in_seconds),
                Some(Trend::Grows) => "grows".to_owned(),
                Some(Trend::Steady) => "steady".to_owned(),
                None if queue.waiting > 0 => "unknown".to_owned(),
                None => "-".to_owned(),
            },
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
        let state = if status.draining { "draining" } else { "not ready" };
        text.push_str(&format!("daemon   {state}\n"));
        for problem in &status.problems {
            text.push_str(&format!("         {problem}\n"));
        }
    }
    for warning in &status.warnings {
        text.push_str(&format!("warning  {warning}\n"));
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
        let SourceStatus { name, received, per_minute, .. } = source;
        text.push_str(&format!(
            "source   {name}: {link}; {received} received, {per_minute:.1} a minute on average, {last}\n"
        ));
    }
    let mut table =
        Table::new(&["WORKER", "QUEUE", "TASK", "MESSAGE", "ATTEMPT", "SECONDS", "RUN"]);
    for worker in &status.workers {
        let mut row = vec![worker.number.to_string(), worker.queue.to_string()];
        match &worker.work {
            Some(work) => row.extend([
                work.task.clone(),
                work.message_id.clone(),
                work.attempt.to_string(),
                worker.seconds.unwrap_or_default().to_string(),
                work.run.as_ref().map_or("-".to_owned(), ToString::to_string),
            ]),
            None => row.push("idle".to_owned()),
        }
        table.push(row);
    }
    text.push_str(&table.render());
    text
}
