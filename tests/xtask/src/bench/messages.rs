//! `cargo xtask bench messages`: measures how many messages per second the host publishes, takes in, and works with the
//! component `greet`, beside raw clients that do no more than they must, and beside other job queues.
//!
//! All messages exist before they are worked. The host's rate is that of recorded runs between two looks at `/api/v1/status`, that of
//! another system the progress between two looks at what its tasks leave. A raw client measures itself.

mod burst;
mod case;
pub(super) mod day_after;
pub(super) mod growth;
mod host;
pub(super) mod latency;
pub(super) mod memory;
mod options;
mod peers;
mod raw;
mod report;
mod setup;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::command::say;
use crate::install::{self, Need};
use case::Case;
pub(crate) use options::Options;
use report::Report;
use setup::{Sample, Setup};

/// Measures all cases in turns, and prints the table.
///
/// # Errors
///
/// If a program cannot be installed or started, or did not process each message once.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut cases = Case::value_variants().to_vec();
    cases.retain(|case| options.only.is_empty() || options.only.contains(case));
    let setup = prepare(options, &cases)?;
    let mut report = Report::new(&cases);
    let mut measure_all = || {
        for round in 1..=options.rounds {
            for &case in &cases {
                say(&format!("round {round} of {}: {}", options.rounds, case.name()));
                report.add(case, measure(&setup, case).with_context(|| case.name().to_owned())?);
            }
        }
        Ok(())
    };
    // The table is printed even after an error, because earlier results are valid.
    let measured = measure_all();
    let printed = report.print(&setup, options);
    measured.and(printed)
}

fn prepare(options: &Options, cases: &[Case]) -> Result<Setup> {
    let has_peers = cases.iter().any(|case| case.is_peer());
    let mut needs = Vec::new();
    if cases.iter().any(|case| case.uses_rabbitmq()) {
        needs.push(Need::RabbitMq);
    }
    if has_peers {
        needs.push(Need::Python);
    }
    let mut setup = Setup::prepare(&options.programs, &needs, options.messages)?;
    if has_peers {
        setup.python = install::peers_python()?;
    }
    if cases.iter().any(|case| case.signs()) {
        setup.fedmsg_python = install::fedmsg_python()?;
    }
    Ok(setup)
}

fn measure(setup: &Setup, case: Case) -> Result<Sample> {
    match case {
        Case::RawConsume | Case::RawConsumeClassic | Case::RawPublish => raw::amqp(setup, case),
        Case::RawSqlite => raw::sqlite(setup),
        Case::RawComponent => raw::component(setup),
        Case::RawVerify => raw::verify(setup),
        Case::DrainRabbitMq | Case::DrainClassic | Case::DrainEmbedded => host::drain(setup, case),
        Case::InjectRabbitMq | Case::InjectEmbedded => host::inject(setup, case),
        Case::RawReceive => burst::receive(setup),
        Case::BurstRabbitMq
        | Case::BurstEmbedded
        | Case::BurstSigned
        | Case::BurstWithoutBroker => burst::measure(setup, case),
        Case::Celery | Case::Dramatiq => peers::measure(setup, case),
        Case::Loopabull => peers::loopabull(setup),
    }
}
