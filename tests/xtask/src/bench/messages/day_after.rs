//! `cargo xtask bench day-after`: works a RabbitMQ queue that nobody looked at for days.
//!
//! The messages have the form of the Python loopabull's queue, whose Fedora deployment once let 489,989 of them wait. No task
//! wants most of them; the host moves those to the dead letters.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::host::{Daemon, QUEUE, Queue};
use super::options::Programs;
use super::raw;
use super::setup::Setup;
use crate::command::say;
use crate::install::Need;

/// How many of each hundred messages a task wants.
const WORKED: [u32; 2] = [10, 100];
/// The time limit for one backlog.
const LIMIT: Duration = Duration::from_mins(20);
/// The interval between two looks at `/api/v1/status`.
const TICK: Duration = Duration::from_millis(250);

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// The number of messages that wait
    #[arg(long, value_name = "N", default_value_t = 489_989, value_parser = clap::value_parser!(u32).range(100..))]
    messages: u32,

    #[command(flatten)]
    programs: Programs,

    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Works both backlogs, and prints a table.
///
/// # Errors
///
/// If a program cannot be installed or started, or a message is missing at the end.
pub(crate) fn run(options: &Options) -> Result<()> {
    let setup = Setup::prepare(&options.programs, &[Need::RabbitMq], options.messages)?;
    println!(
        "| of 100 messages a task wants | runs | dead letters | s | messages/s | MiB resident |"
    );
    println!("|--:|--:|--:|--:|--:|--:|");
    let mut all = Vec::new();
    for worked in WORKED {
        say(&format!("{} messages, of which a task wants {worked} %", options.messages));
        let row = measure(&setup, worked)?;
        let [runs, dead, memory] = ["runs", "dead_letters", "memory_mib"].map(|key| &row[key]);
        let [seconds, rate] = ["seconds", "messages_per_second"].map(|key| row[key].as_f64());
        let (seconds, rate) = (seconds.unwrap_or_default(), rate.unwrap_or_default());
        println!("| {worked} | {runs} | {dead} | {seconds:.0} | {rate:.0} | {memory} |");
        all.push(row);
    }
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", Value::from(all));
        fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

fn measure(setup: &Setup, worked: u32) -> Result<Value> {
    let folder = setup.folder("day-after")?;
    let queue = Queue::start(true);
    let url = queue.url().context("the queue is on a broker")?;
    raw::fill_backlog(setup, &url, QUEUE, worked)?;
    let start = Instant::now();
    let daemon = Daemon::start(setup, &folder, Some(&url), &[])?;
    let (runs, dead) = loop {
        let counts = daemon.status()?["counts"].clone();
        let count = |name: &str| counts[name].as_u64().unwrap_or_default();
        let (runs, unrouted) = (count("runs"), count("unrouted"));
        if runs + unrouted >= u64::from(setup.messages) {
            break (runs, unrouted);
        }
        ensure!(!setup.interrupt.is_set(), "interrupted");
        ensure!(start.elapsed() < LIMIT, "not finished: {counts}");
        std::thread::sleep(TICK);
    };
    let seconds = start.elapsed().as_secs_f64();
    let wanted = (0..setup.messages).filter(|number| number % 100 < worked).count() as u64;
    ensure!(runs == wanted, "{wanted} messages for a task, but {runs} runs");
    let status = daemon.status()?;
    let left = &status["queues"][0];
    ensure!(left["dead"] == dead, "{dead} messages without a task, but {left}");
    let memory = daemon.memory()?;
    daemon.stop()?;
    Ok(json!({
        "worked_of_100": worked, "runs": runs, "dead_letters": dead, "seconds": seconds,
        "messages_per_second": f64::from(setup.messages) / seconds, "memory_mib": memory,
    }))
}
