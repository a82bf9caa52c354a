//! `cargo xtask bench memory`: measures the host when it is idle, and its memory and its journal as messages are worked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::host::{Daemon, Queue, publish};
use super::options::Programs;
use super::setup::Setup;
use crate::command::say;
use crate::install::Need;

/// The number of parts in which the messages are worked. The memory is compared after the first and the last.
const PARTS: u32 = 10;
/// The time after the start in which a daemon becomes idle.
const SETTLE: Duration = Duration::from_secs(5);
/// The time limit for the messages of one part.
const LIMIT: Duration = Duration::from_mins(10);
const TICK: Duration = Duration::from_millis(250);

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// The number of messages, which are worked in ten parts
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(100..))]
    messages: u32,

    /// The time for which the idle daemon is watched
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    idle: u32,

    #[command(flatten)]
    programs: Programs,

    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures both queues, and prints a table.
///
/// # Errors
///
/// If a program cannot be installed or started, or did not process each message.
pub(crate) fn run(options: &Options) -> Result<()> {
    let part = options.messages / PARTS;
    let setup = Setup::prepare(&options.programs, &[Need::RabbitMq], part)?;
    println!(
        "| queue | idle: % of a core | idle: MiB | after {part}: MiB | after {}: MiB | journal, of the messages' bytes |",
        part * PARTS
    );
    println!("|---|--:|--:|--:|--:|--:|");
    let mut all = Vec::new();
    for (name, uses_rabbitmq) in [("embedded", false), ("rabbitmq", true)] {
        let row = measure(&setup, name, uses_rabbitmq, options.idle)?;
        let [idle, first, last] = ["idle_mib", "first_mib", "last_mib"].map(|key| &row[key]);
        let [cpu, journal] = ["idle_cpu_percent", "journal_ratio"].map(|key| row[key].as_f64());
        let (cpu, journal) = (cpu.unwrap_or_default(), journal.unwrap_or_default());
        println!("| {name} | {cpu:.2} | {idle} | {first} | {last} | {journal:.2} |");
        all.push(row);
    }
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", Value::from(all));
        fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

fn measure(setup: &Setup, name: &str, uses_rabbitmq: bool, idle: u32) -> Result<Value> {
    let folder = setup.folder("memory")?;
    let queue = Queue::start(uses_rabbitmq);
    let url = queue.url();
    let daemon = Daemon::start(setup, &folder, url.as_deref(), &[])?;
    say(&format!("{name}: idle"));
    std::thread::sleep(SETTLE);
    let before = daemon.look(setup)?;
    std::thread::sleep(Duration::from_secs(u64::from(idle)));
    let idle_cpu_percent = daemon.look(setup)?.cpu_since(before) * 100.0 / f64::from(idle);
    let idle_mib = daemon.memory()?;
    let mut memory = Vec::new();
    for part in 0..PARTS {
        say(&format!("{name}: part {} of {PARTS}", part + 1));
        let numbers = part * setup.messages..(part + 1) * setup.messages;
        let runs = u64::from(numbers.end);
        publish(setup, &folder, url.as_deref(), numbers)?;
        wait(setup, &daemon, runs)?;
        memory.push(daemon.memory()?);
    }
    daemon.stop()?;
    let bytes = f64::from(PARTS) * size(&folder.join("messages.json"))?;
    let journal_ratio = size(&folder.join("state/journal.db"))? / bytes;
    Ok(json!({
        "queue": name, "idle_cpu_percent": idle_cpu_percent, "idle_mib": idle_mib,
        "first_mib": memory.first(), "last_mib": memory.last(), "memory_mib": memory,
        "journal_ratio": journal_ratio,
    }))
}

fn wait(setup: &Setup, daemon: &Daemon, runs: u64) -> Result<()> {
    let start = Instant::now();
    loop {
        let done = daemon.look(setup)?.runs;
        if done >= runs {
            return Ok(());
        }
        ensure!(!setup.interrupt.is_set(), "interrupted");
        ensure!(start.elapsed() < LIMIT, "not finished: {done} of {runs} runs");
        std::thread::sleep(TICK);
    }
}

/// Returns the size of a file in bytes.
fn size(path: &Path) -> Result<f64> {
    let found = fs::metadata(path).with_context(|| format!("cannot find `{}`", path.display()))?;
    Ok(found.len() as f64)
}
