//! The commands that cargo does not have: `cargo xtask demo`, `cargo xtask test`, `cargo xtask setup`,
//! `cargo xtask losses`, `cargo xtask bench`, `cargo tasks`.
//!
//! Each command makes sure of what it needs, says in one line what it does, and keeps the output
//! of the programs it starts under `target/xtask`, to be shown when one fails.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

mod bench;
mod command;
mod demo;
mod install;
mod interrupt;
mod java;
mod losses;
mod nextest;
mod programs;
mod progress;
mod python_loopabull;
mod repository;
mod setup;
mod soak;
mod status;
mod tasks;
mod test;
mod wasm_target;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The command did not do what it was asked for.
const FAILED: u8 = 1;
/// The command line makes no sense.
const USAGE: u8 = 64;

/// What cargo cannot do.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures how many trivial playbooks a second this machine runs, by us and by others
    Bench(bench::Options),
    /// Builds everything, plays a few dozen messages and shows the runs
    Demo(demo::Options),
    /// Kills hosts and brokers, ours and other people's, and counts what each of them loses
    Losses(losses::Options),
    /// Installs the programs that the demo and the tests need, without running anything
    #[command(alias = "install")]
    Setup(setup::Options),
    /// Installs what the tests need and runs them all
    Test(test::Options),
    /// Runs the faults of the tests for minutes: kills, a cluster, everything at random
    Soak(soak::Options),
    /// Builds the example tasks into `tasks/`, and those that `tasks new` made there
    Tasks(tasks::Options),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(help) => {
            drop(help.print());
            return if help.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    if let Some(other) = repository::compiled_in() {
        command::say(&format!(
            "cargo took this program from `{}`, which shares the target directory, since it does not \
             tell two checkouts apart; if they differ, give this one a CARGO_TARGET_DIR of its own",
            other.display()
        ));
    }
    let done = match cli.command {
        Command::Bench(options) => bench::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Losses(options) => losses::run(&options),
        Command::Setup(options) => setup::run(&options),
        Command::Test(options) => test::run(&options),
        Command::Soak(options) => soak::run(&options),
        Command::Tasks(options) => tasks::run(&options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            FAILED.into()
        }
    }
}
