//! `cargo xtask bench latency`: measures the time from the bus to the start of a run, at a steady rate.
//!
//! A publisher sends one fedmsg message after the other and notes when. A raw subscriber notes when it has each message; the
//! journal has the start of each run, in milliseconds. So a time of the host is exact to half a millisecond.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::{Value, json};

use super::burst::{Publisher, SUBSCRIPTION, free_endpoint};
use super::host::{Daemon, Queue};
use super::options::Programs;
use super::setup::Setup;
use crate::command::{command, output, say, spawn};
use crate::install::Need;

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// The number of messages at each rate
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(10..))]
    messages: u32,

    /// The rates, in messages per second
    #[arg(long, value_name = "RATE", num_args = 1.., default_values_t = [20, 500], value_parser = clap::value_parser!(u32).range(1..))]
    rates: Vec<u32>,

    #[command(flatten)]
    programs: Programs,

    /// Write the figures to this file as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures all rates on both queues, and prints a table.
///
/// # Errors
///
/// If a program cannot be installed or started, or did not process each message.
pub(crate) fn run(options: &Options) -> Result<()> {
    let setup = Setup::prepare(&options.programs, &[Need::RabbitMq], options.messages)?;
    println!("| | messages/s | p50 ms | p99 ms | p99.9 ms |\n|---|--:|--:|--:|--:|");
    let mut all = Vec::new();
    for &rate in &options.rates {
        for (name, uses_rabbitmq) in [("embedded", false), ("rabbitmq", true)] {
            say(&format!("{rate} messages per second, {name}"));
            let (raw, host) = measure(&setup, rate, uses_rabbitmq)?;
            let raw_name = format!("raw: a ZeroMQ subscriber, beside {name}");
            for (name, times) in [(raw_name.as_str(), raw), (name, host)] {
                let [p50, p99, p999] = [0.5, 0.99, 0.999].map(|part| quantile(&times, part));
                println!("| {name} | {rate} | {p50:.2} | {p99:.2} | {p999:.2} |");
                all.push(
                    json!({"name": name, "rate": rate, "p50": p50, "p99": p99, "p99.9": p999}),
                );
            }
        }
    }
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", Value::from(all));
        std::fs::write(path, text).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

/// Returns the sorted times of a raw subscriber and of the host, in milliseconds.
fn measure(setup: &Setup, rate: u32, uses_rabbitmq: bool) -> Result<(Vec<f64>, Vec<f64>)> {
    let folder = setup.folder("latency")?;
    let queue = Queue::start(uses_rabbitmq);
    let url = queue.url();
    let endpoint = free_endpoint()?;
    let arguments = ["--unsigned", "--fedmsg", &endpoint];
    let daemon = Daemon::start(setup, &folder, url.as_deref(), &arguments)?;
    let mut pace = command(&setup.raw);
    pace.arg("pace").arg(&endpoint).arg(rate.to_string()).arg(setup.messages.to_string());
    let published = folder.join("published");
    let file = std::fs::File::create(&published).context("cannot create a file")?;
    let mut publisher = Publisher(spawn(pace.stdin(Stdio::null()).stdout(file))?);
    std::thread::sleep(SUBSCRIPTION);
    let time = Duration::from_secs(60 + u64::from(setup.messages / rate));
    let status = crate::command::wait(&mut publisher.0, time)?.context("the publisher hangs")?;
    ensure!(status.success(), "the publisher failed");
    let limit = setup.messages.to_string();
    let mut starts = HashMap::new();
    for _ in 0..100 {
        let runs =
            output(setup.host(&folder, None).args(["runs", "list", "--json", "--limit", &limit]))?;
        starts = runs.lines().map(start_of).collect::<Result<_>>()?;
        if starts.len() >= setup.messages as usize {
            break;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    daemon.stop()?;
    let published =
        std::fs::read_to_string(&published).context("cannot read what was published")?;
    let (mut raw, mut host) = (Vec::new(), Vec::new());
    for line in published.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [id, sent, received] = fields[..] else { continue };
        let (sent, received): (f64, f64) = (sent.parse()?, received.parse()?);
        let start = starts.get(id).with_context(|| format!("message {id} did not run"))?;
        raw.push(received - sent);
        host.push(start + 0.5 - sent);
    }
    ensure!(host.len() == setup.messages as usize, "{} messages were published", host.len());
    raw.sort_by(f64::total_cmp);
    host.sort_by(f64::total_cmp);
    Ok((raw, host))
}

/// Returns the id of a message and the start of its run, in milliseconds since 1970.
fn start_of(line: &str) -> Result<(String, f64)> {
    let run: Value = serde_json::from_str(line).context("a run is not JSON")?;
    let id = run["message_id"].as_str().context("a run has no message")?;
    let start = run["started_at_ms"].as_f64().context("a run has no start")?;
    Ok((id.to_owned(), start))
}

/// Returns the smallest value that at least this part of the sorted values does not exceed.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let number = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(number.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_a_value_that_was_measured() {
        let values: Vec<f64> = (1..=1000).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 0.999].map(|part| quantile(&values, part)), [500.0, 990.0, 999.0]);
        assert_eq!(quantile(&[7.0], 0.999), 7.0);
        assert!(quantile(&[], 0.5).is_nan());
    }
}
