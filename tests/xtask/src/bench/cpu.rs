//! The processor time of processes: of the children of this program together, or of one process.
//!
//! The kernel adds the time of a child when the
//! child has ended and this program has waited for it. The time of a child includes that of its own children
//! for which it has waited.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{command, output};

/// Number of the field `utime` in proc_pid_stat(5), which `stime` follows.
const ITSELF: usize = 14;
/// Number of the field `cutime`, which `cstime` follows.
const CHILDREN: usize = 16;

/// Reads the processor time of processes.
pub(super) struct Cpu {
    ticks_per_second: u32,
}

impl Cpu {
    /// Reads the length of a clock tick.
    pub(super) fn new() -> Result<Self> {
        let ticks = output(command("getconf").arg("CLK_TCK"))?;
        let ticks_per_second = ticks.parse().context("`getconf CLK_TCK` prints no number")?;
        Ok(Self { ticks_per_second })
    }

    /// Returns the processor time of all children that have ended and been waited for.
    pub(super) fn children(&self) -> Result<Duration> {
        let stat =
            fs::read_to_string("/proc/self/stat").context("cannot read `/proc/self/stat`")?;
        let ticks = ticks(&stat, CHILDREN).context("`/proc/self/stat` has no times")?;
        Ok(Duration::from_secs(ticks) / self.ticks_per_second)
    }

    /// Returns the processor time of a process, without its children.
    pub(super) fn process(&self, pid: u64) -> Result<Duration> {
        let path = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read `{path}`"))?;
        let ticks = ticks(&stat, ITSELF).with_context(|| format!("`{path}` has no times"))?;
        Ok(Duration::from_secs(ticks) / self.ticks_per_second)
    }
}

/// Returns the sum of two times: the field with this number and the next one. The second field is the name of the
/// program in parentheses, and may itself contain spaces and parentheses.
fn ticks(stat: &str, field: usize) -> Option<u64> {
    let (_, third_on) = stat.rsplit_once(") ")?;
    let mut times = third_on.split_ascii_whitespace().skip(field - 3).map(str::parse::<u64>);
    Some(times.next()?.ok()? + times.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_times_are_found_after_a_name_with_spaces_and_parentheses() {
        let stat = "1 (a) b (c) S 2 3 4 5 6 7 8 9 10 11 12 13 140 15 20 0";
        assert_eq!((ticks(stat, CHILDREN), ticks(stat, ITSELF)), (Some(155), Some(25)));
        assert_eq!(ticks("1 (a) S 2", CHILDREN), None);
    }

    #[test]
    fn the_processor_time_of_a_child_is_measured() {
        let cpu = Cpu::new().unwrap();
        let before = cpu.children().unwrap();
        let count = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        output(command("sh").args(["-c", count])).unwrap();
        assert!(cpu.children().unwrap() > before);
    }
}
