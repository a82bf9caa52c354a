//! `cargo xtask bench playbooks`: measures how many trivial playbooks per second this machine runs, five at a
//! time, and the processor time of each.
//!
//! All systems run the same playbook, which prints a message of about 1 KB with `debug`. All messages exist
//! before a system is started: in its queue, or in a file for ansible-rulebook. The time is measured from the
//! start of the system until the last playbook is done. The systems are measured in turns, so that other load
//! on the machine affects all systems alike.

mod ansible_rulebook;
mod bare;
mod case;
mod launcher;
mod loopabull;
mod ours;
mod rulebook;
mod setup;
mod table;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use crate::bench::cpu::Cpu;
use crate::command::say;
use crate::install::{self, Need};
use crate::interrupt::Interrupt;
use crate::programs::{self, Profile};
use ansible_rulebook::AnsibleRulebook;
use case::Case;
use setup::{Sample, Setup};
use table::Table;

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// The number of playbooks in each round
    #[arg(long, value_name = "N", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    messages: u32,

    /// The number of rounds; the table has the median and the range
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Measure only these systems
    #[arg(long, value_enum, value_name = "NAME", num_args = 1..)]
    only: Vec<Case>,

    /// Build and use `target/release` instead of `target/debug`
    #[arg(long)]
    release: bool,

    /// Use `loopabull-host` and `loopabull-launch` from this directory, and do not build them
    #[arg(long, value_name = "DIR", conflicts_with = "release")]
    bin_dir: Option<PathBuf>,
}

/// Measures all systems in turns, and prints the table.
///
/// # Errors
///
/// If a program cannot be installed or started, or a playbook did not succeed exactly once.
pub(crate) fn run(options: &Options) -> Result<()> {
    let mut cases = Case::value_variants().to_vec();
    cases.retain(|case| options.only.is_empty() || options.only.contains(case));
    let setup = prepare(options, &cases)?;
    let mut table = Table::new(&cases);
    let mut measure_all = || {
        for round in 1..=options.rounds {
            for &case in &cases {
                say(&format!("round {round} of {}: {}", options.rounds, case.name()));
                let sample = measure(&setup, case).with_context(|| case.name().to_owned())?;
                table.add(case, sample);
            }
        }
        Ok(())
    };
    // The table is printed even after an error, because earlier results are valid.
    let measured = measure_all();
    let printed = table.print(&setup, &programs_text(options));
    measured.and(printed)
}

fn prepare(options: &Options, cases: &[Case]) -> Result<Setup> {
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
    Ok(Setup {
        messages: options.messages,
        ansible_playbook,
        binaries,
        python,
        rulebook,
        interrupt,
        cpu,
    })
}

fn measure(setup: &Setup, case: Case) -> Result<Sample> {
    match case {
        Case::Bare => bare::measure(setup),
        Case::Cold | Case::Warm => ours::measure(setup, case),
        Case::Loopabull => loopabull::measure(setup),
        Case::Rulebook => rulebook::measure(setup),
        Case::Launcher => launcher::measure(setup),
    }
}

/// Returns the origin of our programs, for the text below the table.
fn programs_text(options: &Options) -> String {
    match &options.bin_dir {
        Some(folder) => format!("our programs from `{}`", folder.display()),
        None if options.release => "release build".to_owned(),
        None => "debug build".to_owned(),
    }
}
