//! Parses the command line, runs the command, tells the exit code.

use std::process::ExitCode;

use clap::Parser;
use loopabull_host::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
