//! The raw limits, which the program `loopabull-bench` measures.

use std::process::Command;

use anyhow::{Context, Result};
use loopabull_testbed::Rabbit;

use super::case::Case;
use super::setup::{Sample, Setup};
use crate::command::{command, output};
use crate::repository;

/// The number of messages that a raw client of RabbitMQ has in flight, and the size of a group of SQLite.
const WINDOW: &str = "100";
const QUEUE: &str = "raw";

/// Measures a lapin publisher or consumer.
pub(super) fn amqp(setup: &Setup, case: Case) -> Result<Sample> {
    let rabbit = Rabbit::start();
    let (url, count) = (rabbit.vhost().url(), setup.messages.to_string());
    let kind = if case == Case::RawConsumeClassic { "classic" } else { "quorum" };
    let run = |what: &str| {
        let mut raw = command(&setup.raw);
        raw.args([what, &url, QUEUE, &count, WINDOW, kind]);
        measure(setup, &mut raw)
    };
    let published = run("publish")?;
    if case == Case::RawPublish { Ok(published) } else { run("consume") }
}

/// Measures SQLite on the disk of the checkout.
pub(super) fn sqlite(setup: &Setup) -> Result<Sample> {
    let mut raw = command(&setup.raw);
    raw.args(["sqlite", &setup.messages.to_string(), WINDOW]);
    raw.current_dir(setup.folder(&Case::RawSqlite.slug())?);
    measure(setup, &mut raw)
}

/// Measures bare calls of a component.
pub(super) fn component(setup: &Setup) -> Result<Sample> {
    let mut raw = command(&setup.raw);
    raw.arg("component").arg(repository::tasks()).arg(setup.messages.to_string());
    measure(setup, &mut raw)
}

/// Measures the RSA operation that verifies a signature.
pub(super) fn verify(setup: &Setup) -> Result<Sample> {
    let mut raw = command(&setup.raw);
    let sample = measure(setup, raw.arg("verify").arg(setup.messages.to_string()))?;
    Ok(Sample { cpu: Some(1e6 / sample.rate), ..sample })
}

/// Publishes messages in the form of the Python loopabull's queue, of which a task wants `worked` of each hundred.
pub(super) fn fill_backlog(setup: &Setup, url: &str, queue: &str, worked: u32) -> Result<()> {
    let (count, worked) = (setup.messages.to_string(), worked.to_string());
    let mut raw = command(&setup.raw);
    output(raw.args(["backlog", url, queue, &count, WINDOW, "--worked", &worked])).map(drop)
}

/// Declares a durable classic queue.
pub(super) fn declare_classic(setup: &Setup, url: &str, queue: &str) -> Result<()> {
    let mut raw = command(&setup.raw);
    output(raw.args(["publish", url, queue, "0", WINDOW, "classic"])).map(drop)
}

/// Runs a command that prints how many seconds the messages took.
fn measure(setup: &Setup, raw: &mut Command) -> Result<Sample> {
    let said = output(raw)?;
    let seconds: f64 = said.parse().with_context(|| format!("`{said}` is no number"))?;
    Ok(Sample { rate: f64::from(setup.messages) / seconds, cpu: None, note: None })
}
