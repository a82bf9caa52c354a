//! The measurement of the time that `loopabull-launch` adds to a program.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::case::Case;
use super::setup::{Sample, Setup};
use crate::command::command;

/// The number of runs from which the mean is computed.
const RUNS: u32 = 100;
const PROGRAM: &str = "/bin/true";

/// Runs the program with and without the launcher in turns, and returns the mean difference.
pub(super) fn measure(setup: &Setup) -> Result<Sample> {
    let folder = setup.folder(Case::Launcher)?;
    let mut bare = command(PROGRAM);
    let mut launch = command(setup.binaries.join("loopabull-launch"));
    launch.arg("--directory").arg(&folder).arg("--system").arg("--write").arg(&folder);
    launch.args(["--", PROGRAM]);
    let (mut with, mut without) = (Took::default(), Took::default());
    for _ in 0..RUNS {
        ensure!(!setup.interrupt.is_set(), "interrupted");
        without.add(setup, &mut bare)?;
        with.add(setup, &mut launch)?;
    }
    let mean = |with: Duration, without: Duration| {
        (with.as_secs_f64() - without.as_secs_f64()) / f64::from(RUNS)
    };
    let (seconds, cpu_seconds) = (mean(with.wall, without.wall), mean(with.cpu, without.cpu));
    Ok(Sample { seconds, cpu_seconds, note: None })
}

/// The total time of several runs.
#[derive(Default)]
struct Took {
    wall: Duration,
    cpu: Duration,
}

impl Took {
    fn add(&mut self, setup: &Setup, program: &mut Command) -> Result<()> {
        let cpu_before = setup.cpu.children()?;
        let start = Instant::now();
        program.stdin(Stdio::null()).stdout(Stdio::null());
        let status = program.status().with_context(|| format!("cannot start {program:?}"))?;
        self.wall += start.elapsed();
        ensure!(status.success(), "{program:?} ended with {status}");
        self.cpu += setup.cpu.children()?.saturating_sub(cpu_before);
        Ok(())
    }
}
