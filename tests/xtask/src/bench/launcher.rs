//! What `loopabull-launch` adds to a program that does nothing.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::bed::{Bed, Sample};
use super::case::Case;
use crate::command::command;

/// The mean is of so many.
const RUNS: u32 = 100;
const PROGRAM: &str = "/bin/true";

/// Runs the program through the launcher and without it, by turns, and returns the mean difference.
pub(super) fn measure(bed: &Bed) -> Result<Sample> {
    let folder = bed.folder(Case::Launcher)?;
    let mut bare = command(PROGRAM);
    let mut launch = command(bed.binaries.join("loopabull-launch"));
    launch.arg("--directory").arg(&folder).arg("--system").arg("--write").arg(&folder);
    launch.args(["--", PROGRAM]);
    let (mut with, mut without) = (Took::default(), Took::default());
    for _ in 0..RUNS {
        ensure!(!bed.interrupt.is_set(), "interrupted");
        without.add(bed, &mut bare)?;
        with.add(bed, &mut launch)?;
    }
    let mean = |with: Duration, without: Duration| {
        (with.as_secs_f64() - without.as_secs_f64()) / f64::from(RUNS)
    };
    let (seconds, cpu_seconds) = (mean(with.wall, without.wall), mean(with.cpu, without.cpu));
    Ok(Sample { seconds, cpu_seconds, note: None })
}

/// What several runs took.
#[derive(Default)]
struct Took {
    wall: Duration,
    cpu: Duration,
}

impl Took {
    fn add(&mut self, bed: &Bed, program: &mut Command) -> Result<()> {
        let cpu_before = bed.cpu.children()?;
        let start = Instant::now();
        program.stdin(Stdio::null()).stdout(Stdio::null());
        let status = program.status().with_context(|| format!("cannot start {program:?}"))?;
        self.wall += start.elapsed();
        ensure!(status.success(), "{program:?}: {status}");
        self.cpu += bed.cpu.children()?.saturating_sub(cpu_before);
        Ok(())
    }
}
