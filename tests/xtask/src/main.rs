//! The commands of this repository that cargo does not have: `cargo xtask demo`,
//! `cargo xtask test`, `cargo xtask setup`, `cargo xtask losses`, `cargo xtask bench`,
//! `cargo xtask soak`, `cargo tasks`.
//!
//! Each command installs the programs that it needs and prints one line for each step. The output of the
//! programs that it starts is written to logs under `target/xtask`. If a program fails, the end of its log is
//! printed.
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

/// The exit code of a command that failed.
const FAILED: u8 = 1;
/// The exit code after wrong usage.
const USAGE: u8 = 64;

/// The commands of this repository that cargo does not have.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures loopabull-host beside other systems and raw limits
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Builds everything, publishes a few dozen messages and prints the runs
    Demo(demo::Options),
    /// Kills worker hosts and brokers, and counts the messages that loopabull-host and others lose
    Losses(losses::Options),
    /// Installs the programs that the demo and the tests need, without running anything
    #[command(alias = "install")]
    Setup(setup::Options),
    /// Installs the programs that the tests need, and runs all tests
    Test(test::Options),
    /// Runs the long tests: repeated kills, a cluster, random faults
    Soak(soak::Options),
    /// Builds the example tasks, and tasks made by `tasks new`, into `tasks/`
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
            "this program was compiled in `{}`, because cargo does not distinguish two checkouts \
             that share a target directory; if they differ, set another CARGO_TARGET_DIR here",
            other.display()
        ));
    }
    let done = match cli.command {
        Command::Bench(bench) => bench::run(&bench),
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
