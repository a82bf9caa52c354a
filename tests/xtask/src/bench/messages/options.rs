//! The arguments of `cargo xtask bench messages`, and those that it shares with other measurements of messages.

use std::path::PathBuf;

use clap::Args;

use super::case::Case;

/// The arguments of the command line.
#[derive(Args)]
pub(crate) struct Options {
    /// The number of messages in each round; slow systems get fewer
    #[arg(long, value_name = "N", default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(10..))]
    pub(super) messages: u32,

    /// The number of rounds; the table has the median and the range
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rounds: u32,

    /// Measure only these
    #[arg(long, value_enum, value_name = "NAME", num_args = 1..)]
    pub(super) only: Vec<Case>,

    #[command(flatten)]
    pub(super) programs: Programs,

    /// Write the figures to this file as JSON, and a chart beside it as SVG
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

/// The programs that are measured.
#[derive(Args)]
pub(super) struct Programs {
    /// Use debug builds: only to try the command
    #[arg(long)]
    pub(super) debug: bool,

    /// Use `loopabull-host` from this directory, and do not build it
    #[arg(long, value_name = "DIR")]
    pub(super) bin_dir: Option<PathBuf>,

    /// Use this program `loopabull-bench`, and do not build it
    #[arg(long, value_name = "FILE")]
    pub(super) raw_limits: Option<PathBuf>,
}
