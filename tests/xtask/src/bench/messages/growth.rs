//! `cargo xtask bench growth`: measures how the rate at which the host works a backlog changes with what is there already.
//!
//! Each curve has one cause and several sizes of it. At each size, the host works the same number of messages. A curve is
//! good if its rates are equal: then a message costs the same however much there is.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use serde_json::json;

use super::host::{Daemon, Queue, publish};
use super::options::Programs;
use super::setup::{LIMIT, Setup, WORKERS};
use crate::command::{command, output, say};
use crate::install::Need;

/// The interval between two looks at `/api/v1/status`. For each, the daemon counts its queue.
const TICK: Duration = Duration::from_millis(100);

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// The number of messages that are worked at each size
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(10..))]
    messages: u32,

    /// Measure only these
    #[arg(long, value_enum, value_name = "NAME", num_args = 1..)]
    only: Vec<Curve>,

    /// Measure only the sizes up to this one
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    up_to: u32,

    #[command(flatten)]
    programs: Programs,

    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The cause of a growing cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Curve {
    /// Messages that wait in the embedded queue
    Backlog,
    /// Workers
    Workers,
    /// Installed tasks
    Tasks,
    /// Patterns of topics, a thousand in each manifest
    Patterns,
    /// Runs in the journal
    Runs,
    /// Hosts on one RabbitMQ
    Hosts,
}

impl Curve {
    fn sizes(self) -> &'static [u32] {
        match self {
            Self::Backlog => &[20_000, 100_000, 1_000_000],
            Self::Workers => &[1, 2, 4, 8, 16],
            Self::Tasks => &[1, 10, 100, 1_000],
            Self::Patterns => &[1, 100, 1_000, 10_000],
            Self::Runs => &[0, 10_000, 100_000, 1_000_000, 5_000_000],
            Self::Hosts => &[1, 2, 3],
        }
    }

    fn name(self) -> String {
        self.to_possible_value().expect("each curve can be named").get_name().to_owned()
    }
}

/// The result at one size.
struct Point {
    size: u32,
    /// Messages worked per second.
    rate: f64,
    /// Messages published per second by `inject`, which routes them.
    published: f64,
    /// The longest time of a command that reads the journal meanwhile, if any was measured.
    command: Option<Duration>,
}

/// Measures the curves, and prints a table for each.
///
/// # Errors
///
/// If a program cannot be installed or started, or did not process each message.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut curves = Curve::value_variants().to_vec();
    curves.retain(|curve| options.only.is_empty() || options.only.contains(curve));
    let needs = if curves.contains(&Curve::Hosts) { &[Need::RabbitMq][..] } else { &[] };
    let setup = Setup::prepare(&options.programs, needs, options.messages)?;
    let mut all = serde_json::Map::new();
    for curve in curves {
        let mut points = Vec::new();
        for &size in curve.sizes().iter().filter(|size| **size <= options.up_to) {
            say(&format!("{}: {size}", curve.name()));
            points.push(measure(&setup, curve, size).with_context(|| curve.name())?);
        }
        println!("{}", table(curve, &points));
        let point = |point: &Point| {
            let command = point.command.map(|time| time.as_secs_f64() * 1e3);
            json!({"size": point.size, "messages_per_second": point.rate, "published_per_second": point.published, "command_ms": command})
        };
        all.insert(curve.name(), points.iter().map(point).collect());
    }
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", serde_json::Value::from(all));
        fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

fn table(curve: Curve, points: &[Point]) -> String {
    let mut text = format!(
        "| {} | worked/s | of the first | published/s | longest command |\n|--:|--:|--:|--:|--:|\n",
        curve.name()
    );
    let first = points.first().map_or(1.0, |point| point.rate);
    for Point { size, rate, published, command } in points {
        let command = command.map_or("-".to_owned(), |time| format!("{} ms", time.as_millis()));
        let part = rate / first;
        writeln!(text, "| {size} | {rate:.0} | {part:.2} | {published:.0} | {command} |")
            .expect("a string takes all text");
    }
    text
}

fn measure(setup: &Setup, curve: Curve, size: u32) -> Result<Point> {
    let name = format!("growth-{}", curve.name());
    let folder = setup.folder(&name)?;
    let (mut workers, mut messages) = (WORKERS.to_string(), setup.messages);
    match curve {
        Curve::Backlog => messages = messages.max(size),
        Curve::Workers => workers = size.to_string(),
        Curve::Tasks => add_tasks(&folder, size)?,
        Curve::Patterns => add_patterns(&folder, size)?,
        Curve::Runs => add_runs(setup, &folder, size)?,
        Curve::Hosts => return hosts(setup, &folder, size),
    }
    let published = publish(setup, &folder, None, 0..messages)?;
    let published = f64::from(messages) / published.as_secs_f64();
    set_paused(setup, &folder, None, true)?;
    let daemon = Daemon::start(setup, &folder, None, &["--workers", &workers])?;
    let resumed = Instant::now();
    set_paused(setup, &folder, None, false)?;
    let reads = match (curve, size) {
        (Curve::Runs, 0) => Some(&READS[..READS.len() - 1]),
        (Curve::Runs, _) => Some(&READS[..]),
        _ => None,
    };
    let (rate, command) = drain(setup, &folder, &[daemon], reads, resumed)?;
    Ok(Point { size, rate, published, command })
}

/// Waits until the daemons, which were resumed after `resumed`, have worked the messages, and returns the rate. Meanwhile runs commands that read the journal, and returns the longest
/// time of one.
fn drain(
    setup: &Setup,
    folder: &Path,
    daemons: &[Daemon],
    reads: Option<&[&[&str]]>,
    resumed: Instant,
) -> Result<(f64, Option<Duration>)> {
    let runs = || {
        daemons
            .iter()
            .map(|daemon| daemon.look(setup).map(|moment| moment.runs))
            .sum::<Result<u64>>()
    };
    let limit = Instant::now();
    let (mut start, mut longest) = (resumed, None);
    loop {
        let (now, count) = (Instant::now(), runs()?);
        ensure!(!setup.interrupt.is_set(), "interrupted");
        ensure!(limit.elapsed() < LIMIT, "not finished: {count} runs");
        match count {
            0 => start = now,
            count if count >= u64::from(setup.messages) => {
                return Ok((count as f64 / (now - start).as_secs_f64(), longest));
            }
            _ => {
                if let Some(commands) = reads {
                    longest = longest.max(Some(read_journal(setup, folder, commands)?));
                }
            }
        }
        std::thread::sleep(TICK);
    }
}

/// Commands that list, filter and show runs. The last one shows a copy that `loopabull-bench fill` made; no run has the outcome `exit`.
const READS: [&[&str]; 4] = [
    &["runs", "list"],
    &["runs", "list", "--task", "task-7"],
    &["runs", "list", "--outcome", "exit"],
    &["runs", "show", "00000000000000000000000000000001"],
];

/// Returns the longest time of the commands.
fn read_journal(setup: &Setup, folder: &Path, commands: &[&[&str]]) -> Result<Duration> {
    let mut longest = Duration::ZERO;
    for arguments in commands {
        let start = Instant::now();
        output(setup.host(folder, None).args(*arguments))?;
        longest = longest.max(start.elapsed());
    }
    Ok(longest)
}

/// Several hosts work one queue.
fn hosts(setup: &Setup, folder: &Path, count: u32) -> Result<Point> {
    let queue = Queue::start(true);
    let url = queue.url();
    let published = publish(setup, folder, url.as_deref(), 0..setup.messages)?;
    let published = f64::from(setup.messages) / published.as_secs_f64();
    let (mut daemons, mut folders) = (Vec::new(), Vec::new());
    for number in 1..=count {
        let folder = setup.folder(&format!("growth-host-{number}"))?;
        set_paused(setup, &folder, url.as_deref(), true)?;
        daemons.push(Daemon::start(setup, &folder, url.as_deref(), &[])?);
        folders.push(folder);
    }
    let resumed = Instant::now();
    folders.iter().try_for_each(|folder| set_paused(setup, folder, url.as_deref(), false))?;
    let (rate, command) = drain(setup, folder, &daemons, None, resumed)?;
    Ok(Point { size: count, rate, published, command })
}

/// Pauses the queue of a host or resumes it, so that nothing is worked before all is ready.
fn set_paused(setup: &Setup, folder: &Path, url: Option<&str>, is_paused: bool) -> Result<()> {
    let command = if is_paused { "pause" } else { "resume" };
    output(setup.host(folder, url).args([command, "--queue", "workers"])).map(drop)
}

/// Adds tasks until there are `count`.
fn add_tasks(folder: &Path, count: u32) -> Result<()> {
    (1..count).try_for_each(|number| add_task(folder, number, [number]))
}

/// Adds tasks with a thousand patterns each until there are `count` patterns. More do not fit into a manifest.
fn add_patterns(folder: &Path, count: u32) -> Result<()> {
    let firsts = (1..count).step_by(1_000);
    firsts
        .into_iter()
        .try_for_each(|first| add_task(folder, first, first..(first + 1_000).min(count)))
}

/// Adds a task that wants other topics.
fn add_task(folder: &Path, number: u32, topics: impl IntoIterator<Item = u32>) -> Result<()> {
    let tasks = folder.join("tasks");
    fs::copy(tasks.join("greet.wasm"), tasks.join(format!("other-{number}.wasm")))
        .context("cannot copy a task")?;
    let topics: Vec<_> = topics.into_iter().map(|topic| format!("'org.other.{topic}.#'")).collect();
    let manifest = format!("topics = [{}]\n", topics.join(", "));
    fs::write(tasks.join(format!("other-{number}.toml")), manifest)
        .context("cannot write a manifest")
}

/// Fills the journal with copies of one run.
fn add_runs(setup: &Setup, folder: &Path, count: u32) -> Result<()> {
    if count == 0 {
        return Ok(());
    }
    publish(setup, folder, None, 0..2)?;
    let mut daemon = Daemon::start(setup, folder, None, &[])?;
    daemon.wait(setup, |moment| moment.runs > 1)?;
    daemon.stop()?;
    let mut fill = command(&setup.raw);
    output(fill.arg("fill").arg(folder.join("state/journal.db")).arg(count.to_string()))?;
    Ok(())
}
