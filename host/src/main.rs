//! Parses the command line, runs the command and returns its exit code.

use std::process::ExitCode;

use clap::Parser;
use loopabull_host::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().run()
}
