//! `cargo xtask bench`: measures the host beside other systems and beside raw limits, in turns, so that other load on the
//! machine affects all of them alike.

mod cpu;
mod figures;
mod folder;
mod messages;
mod playbooks;
mod workers;

use anyhow::Result;
use clap::Subcommand;

/// The measurement to make.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// Measures how many messages per second loopabull-host, other systems and raw clients process
    Messages(messages::Options),
    /// Measures how the rate of messages changes with what is there already: a backlog, workers, tasks, runs, hosts
    Growth(messages::growth::Options),
    /// Measures how long a queue of 489,989 messages takes that nobody looked at for days
    DayAfter(messages::day_after::Options),
    /// Measures the host when it is idle, and its memory and its journal after 50,000 and after 500,000 messages
    Memory(messages::memory::Options),
    /// Measures the time from the bus to the start of a run
    Latency(messages::latency::Options),
    /// Measures how many trivial playbooks per second loopabull-host and other systems run
    Playbooks(playbooks::Options),
}

/// Measures, and prints a table.
///
/// # Errors
///
/// If a program cannot be installed or started, or did not do its work.
pub(crate) fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Messages(options) => messages::run(options),
        Bench::Growth(options) => messages::growth::run(options),
        Bench::DayAfter(options) => messages::day_after::run(options),
        Bench::Memory(options) => messages::memory::run(options),
        Bench::Latency(options) => messages::latency::run(options),
        Bench::Playbooks(options) => playbooks::run(options),
    }
}
