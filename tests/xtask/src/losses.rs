//! `cargo xtask losses`: what is lost by a kill -9, by us and by others.
//!
//! The same loop for every system: messages are published with the broker's confirms, five workers run
//! a task of 20 ms for each, and the worker host or the broker is killed at random moments and started
//! again, or, to ours alone, something milder is done. Then everything is waited for, and the oracle of the testbed judges: lost is what was
//! confirmed, never worked to its end and not set aside either; duplicated is what was worked to its
//! end more than once.

mod bed;
mod chance;
mod host;
mod load;
mod log;
mod moments;
mod ours;
mod publisher;
mod round;
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
use bed::{Bed, Programs};
use round::{Plan, Round};
use system::{Fault, System};

/// What the reader must know of every run.
const FOOTNOTES: &str = "\
Confirmed: the publisher was told that the message is safe. Lost: confirmed, its task never ended with
0, although everything was waited for and what was stuck was started again, twice at most, and it is no
dead letter. Set aside: it is a dead letter, with a reason; an operator can requeue it. Duplicated: its
task ended with 0 more than once. Done: messages whose task ended with 0 at least once.
A kill of the host takes all its processes at once, running tasks included; the publisher is elsewhere
and goes on. The queue is the one that each system declares: a quorum queue for loopabull-host, a
durable classic queue for the others unless the row says otherwise, which forgets acknowledgements when
the broker is killed.
`loopabull-host inject` confirms 20 messages at once or none, the other publishers each by itself.
Kills: how often the fault came, also if the system was not back from the one before and had little to
lose. Nothing new is published while the broker is killed or stopped; what is being published meets a
kill, and hardly ever a stop, which takes a second to begin. Faults other than kills are played to
loopabull-host only.
loopabull-host tries a message 5 times, 100 ms apart, and its circuit breaker is off.
[1] With `durable: true, exclusive: false, auto_delete: false`. Its own defaults are the opposite
(`durable: false, exclusive: true, auto_delete: true`): that queue goes with its process, and five
processes cannot share it.";

/// What the command line says.
#[derive(Args)]
pub(crate) struct Options {
    /// How often the fault comes, but for the one that comes every second
    #[arg(long, default_value_t = 20)]
    kills: usize,

    /// How many messages are published
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,

    /// Where the random moments come from
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Only 3 kills over 200 messages
    #[arg(long, conflicts_with_all = ["kills", "messages"])]
    quick: bool,

    /// Only this system; may be given again
    #[arg(long, value_enum)]
    system: Vec<System>,

    /// Only this fault; may be given again
    #[arg(long, value_enum)]
    fault: Vec<Fault>,

    /// Take `loopabull-host` and `loopabull-launch` from here and build nothing
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// A line of the table.
struct Row {
    system: System,
    fault: Fault,
    round: Round,
}

/// Plays every system under every fault and prints the table.
///
/// # Errors
///
/// If something cannot be installed or started, or a round does not come to its end. That messages
/// are lost is no error: it is what is measured.
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
                let bed = Bed::new(system, folder, &programs, &rabbit)?;
                let round = round::play(&bed, fault, &plan, &interrupt)?;
                let row = Row { system, fault, round };
                say(&row.line());
                rows.push(row);
            }
        }
        Ok(())
    };
    // What was measured until something went wrong is worth reading, too.
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
    println!("| system | fault | confirmed | lost | set aside | duplicated | done | kills |");
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
