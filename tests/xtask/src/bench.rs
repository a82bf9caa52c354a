//! `cargo xtask bench`: how many trivial playbooks a second this machine runs, and how much
//! processor time each takes, five at a time.
//!
//! The same playbook, one `debug` of a message of about 1 KB, is run by everything that is compared.
//! What has a queue finds all messages in it when it is started, ansible-rulebook in a file, and the
//! clock runs from there until all is done. What is measured is measured by turns, so that a load from
//! elsewhere meets all alike.

mod ansible_rulebook;
mod bare;
mod bed;
mod case;
mod cpu;
mod figures;
mod launcher;
mod loopabull;
mod ours;
mod rulebook;
mod table;
mod workers;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::command::say;
use crate::install::{self, Need};
use crate::interrupt::Interrupt;
use crate::programs::{self, Profile};
use ansible_rulebook::AnsibleRulebook;
use bed::{Bed, Sample};
use case::Case;
use cpu::Cpu;
use table::Table;

/// What the command line says.
#[derive(Args)]
pub(crate) struct Options {
    /// How many playbooks are run in each round
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,

    /// How often each is measured; the table has the median and the range
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Only these
    #[arg(long, value_enum, value_name = "NAME", num_args = 1..)]
    only: Vec<Case>,

    /// Build and use `target/release` instead of `target/debug`
    #[arg(long)]
    release: bool,

    /// Take `loopabull-host` and `loopabull-launch` from here and build nothing
    #[arg(long, value_name = "DIR", conflicts_with = "release")]
    bin_dir: Option<PathBuf>,
}

/// Measures everything by turns and prints the table.
///
/// # Errors
///
/// If something cannot be installed or started, or not every playbook has succeeded once.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut cases = Case::value_variants().to_vec();
    cases.retain(|case| options.only.is_empty() || options.only.contains(case));
    let bed = prepare(options, &cases)?;
    let mut table = Table::new(&cases);
    let mut measure_all = || {
        for round in 1..=options.rounds {
            for &case in &cases {
                say(&format!("round {round} of {}: {}", options.rounds, case.name()));
                let sample = measure(&bed, case).with_context(|| case.name().to_owned())?;
                table.add(case, sample);
            }
        }
        Ok(())
    };
    // What was measured until something went wrong is worth reading, too.
    let measured = measure_all();
    let printed = table.print(&bed, &programs_text(options));
    measured.and(printed)
}

fn prepare(options: &Options, cases: &[Case]) -> Result<Bed> {
    let mut needs = vec![Need::Ansible];
    if cases.contains(&Case::Loopabull) {
        needs.extend([Need::RabbitMq, Need::Python]);
    }
    if cases.contains(&Case::Rulebook) {
        needs.extend([Need::Java, Need::Python]);
    }
    install::prepare(&needs)?;
    let ansible_playbook = install::ansible_playbook()?;
    let python =
        if cases.contains(&Case::Loopabull) { install::peers_python()? } else { PathBuf::new() };
    let profile = if options.release { Profile::Release } else { Profile::Debug };
    let rulebook = cases.contains(&Case::Rulebook).then(AnsibleRulebook::install).transpose()?;
    let binaries = if cases.iter().any(|case| case.is_ours()) {
        programs::ours(options.bin_dir.as_deref(), profile)?
    } else {
        PathBuf::new()
    };
    let (interrupt, cpu) = (Interrupt::listen()?, Cpu::new()?);
    Ok(Bed {
        messages: options.messages,
        ansible_playbook,
        binaries,
        python,
        rulebook,
        interrupt,
        cpu,
    })
}

fn measure(bed: &Bed, case: Case) -> Result<Sample> {
    match case {
        Case::Bare => bare::measure(bed),
        Case::Cold | Case::Warm => ours::measure(bed, case),
        Case::Loopabull => loopabull::measure(bed),
        Case::Rulebook => rulebook::measure(bed),
        Case::Launcher => launcher::measure(bed),
    }
}

/// Says which programs of ours were measured.
fn programs_text(options: &Options) -> String {
    match &options.bin_dir {
        Some(folder) => format!("programs of ours from `{}`", folder.display()),
        None if options.release => "release build".to_owned(),
        None => "debug build".to_owned(),
    }
}
