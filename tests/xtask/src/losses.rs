//! `cargo xtask losses`: counts the messages that loopabull-host and other systems lose because of `kill -9`.
//!
//! All systems get the same load and faults. Messages are published with publisher confirms, and five workers
//! run a task of 20 ms for each message. The worker host (all worker processes together) or the broker is
//! killed at random moments and started again. loopabull-host also gets milder faults. Once the system is
//! idle, the oracle in `tests/testbed` compares the logs of the publisher and of the task. A message is lost
//! if it was confirmed, has no successful run and is no dead letter. It is duplicated if it has more than one
//! successful run.

mod chance;
mod host;
mod load;
mod log;
mod moments;
mod ours;
mod publisher;
mod round;
mod setup;
mod system;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use loopabull_testbed::Rabbit;

use crate::command::say;
use crate::install::{self, Need};
use crate::interrupt::Interrupt;
use crate::programs::{self, Profile};
use crate::repository;
use round::{Plan, Round};
use setup::{Programs, Setup};
use system::{Fault, System};

/// The explanation below the table.
const FOOTNOTES: &str = "\
Confirmed: the publisher received a confirmation for the message. Lost: the message was confirmed,
its task never exited with 0, and it is no dead letter, although the round waited until the system
was idle and restarted a stuck system at most twice. Dead-lettered: the message is in a dead-letter
queue with a reason, and an operator can requeue it. Duplicated: its task exited with 0 more than
once. Done: its task exited with 0 at least once.
A kill of the host kills all its processes at once, including running tasks. The publisher is not
part of the host and continues. Each system declares its own queue: loopabull-host a quorum queue,
the others a durable classic queue unless the row says otherwise. A classic queue loses
acknowledgements when the broker is killed.
`loopabull-host inject` confirms 20 messages together or none; the other publishers confirm each
message.
Kills: the number of faults. It includes faults that struck before the system had recovered from the
previous one, when there was little to lose. No new messages are published while the broker is down.
A message that is just being published may be hit by a kill, but hardly ever by a stop, which takes
a second to begin. Only loopabull-host gets faults other than kills.
loopabull-host tries a message 5 times, 100 ms apart, and its circuit breaker is off.
[1] With `durable: true, exclusive: false, auto_delete: false`. Its own defaults are the opposite
(`durable: false, exclusive: true, auto_delete: true`): such a queue is deleted with its process, so
five processes cannot share it.";

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// The number of faults in a round, except for `connections`, which strikes every second
    #[arg(long, default_value_t = 20)]
    kills: usize,

    /// The number of messages in a round
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,

    /// The seed of the random moments of the faults
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Use only 3 kills and 200 messages
    #[arg(long, conflicts_with_all = ["kills", "messages"])]
    quick: bool,

    /// Test only this system (repeatable)
    #[arg(long, value_enum)]
    system: Vec<System>,

    /// Test only this fault (repeatable)
    #[arg(long, value_enum)]
    fault: Vec<Fault>,

    /// Use `loopabull-host` and `loopabull-launch` from this directory, and do not build them
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// A line of the table.
struct Row {
    system: System,
    fault: Fault,
    round: Round,
}

/// Runs every system with every fault, and prints the table.
///
/// # Errors
///
/// If a program cannot be installed or started, or a round does not end. Lost messages are a
/// result, not an error.
pub(crate) fn run(options: &Options) -> Result<()> {
    install::prepare(&[Need::RabbitMq, Need::Python])?;
    let python = install::peers_python()?;
    let binaries = programs::ours(options.bin_dir.as_deref(), Profile::Release)?;
    let programs = Programs { binaries, python };
    let (kills, messages) =
        if options.quick { (3, 200) } else { (options.kills, options.messages) };
    let plan = Plan { kills, messages, seed: options.seed };
    let interrupt = Interrupt::listen()?;
    say("starting a broker");
    let rabbit = Rabbit::start();
    let mut rows = Vec::new();
    let mut play_all = || {
        for fault in chosen(&options.fault) {
            for system in chosen(&options.system).into_iter().filter(|s| s.can_meet(fault)) {
                say(&format!("{}, {}", system.name(), fault.name()));
                let name = format!("{}-{}", system.slug(), fault.slug());
                let folder = repository::target().join("losses").join(name);
                let setup = Setup::new(system, folder, &programs, &rabbit)?;
                let round = round::play(&setup, fault, &plan, &interrupt)?;
                let row = Row { system, fault, round };
                say(&row.line());
                rows.push(row);
            }
        }
        Ok(())
    };
    // The table is printed even after an error, because earlier results are valid.
    let played = play_all();
    print(&rows, &plan, &rabbit);
    played
}

impl Row {
    fn line(&self) -> String {
        let Round { verdict, kills, .. } = &self.round;
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {kills} |",
            self.system.name(),
            self.fault.name(),
            verdict.confirmed,
            verdict.lost.len(),
            verdict.dead,
            verdict.duplicated.len(),
            verdict.done,
        )
    }
}

fn print(rows: &[Row], plan: &Plan, rabbit: &Rabbit) {
    println!("| system | fault | confirmed | lost | dead-lettered | duplicated | done | kills |");
    println!("|---|---|--:|--:|--:|--:|--:|--:|");
    for row in rows {
        println!("{}", row.line());
    }
    let Plan { kills, messages, seed } = plan;
    let version = rabbit.ctl(&["version"]);
    println!("\n{kills} kills over {messages} messages, seed {seed}, RabbitMQ {}.", version.trim());
    println!("{FOOTNOTES}");
    for row in rows.iter().filter(|row| !row.round.notes.is_empty()) {
        let notes = row.round.notes.join("; ");
        println!("- {}, {}: {notes}.", row.system.name(), row.fault.name());
    }
}

fn chosen<T: ValueEnum + Clone>(named: &[T]) -> Vec<T> {
    if named.is_empty() { T::value_variants().to_vec() } else { named.to_vec() }
}
