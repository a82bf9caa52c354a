//! The processes that are measured, and the wait until their work is done.
//!
//! Each process is started in a session of its own, for a fair comparison. The kernel may divide processor
//! time among sessions (`kernel.sched_autogroup_enabled`), and `loopabull-launch` creates a session for each
//! playbook. If the machine has other load, a system with five sessions gets more processor time than a
//! system with one session.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::command::{command, spawn, tail, terminate, wait};
use crate::interrupt::Interrupt;

/// The command that runs a program in a new session.
pub(super) const SETSID: &str = "setsid";
/// The interval between checks whether the work is done.
const TICK: Duration = Duration::from_millis(100);
/// The time limit for a worker to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(45);

/// The processes that are measured. They and their descendants are killed on drop.
#[derive(Default)]
pub(super) struct Workers {
    children: Vec<(Child, PathBuf)>,
}

impl Workers {
    /// Starts a worker process with this input. Its output is written to `log`.
    pub(super) fn start(&mut self, worker: &Command, input: Stdio, log: PathBuf) -> Result<()> {
        let cannot = || format!("cannot write `{}`", log.display());
        let out = File::create(&log).with_context(cannot)?;
        let mut worker = in_session(worker);
        worker.stdin(input).stderr(out.try_clone().with_context(cannot)?).stdout(out);
        self.children.push((spawn(&mut worker)?, log));
        Ok(())
    }

    /// Counts the child processes of the workers, including zombies.
    pub(super) fn count_children(&self) -> usize {
        let of = |child: &Child| {
            let path = format!("/proc/{0}/task/{0}/children", child.id());
            std::fs::read_to_string(path).unwrap_or_default().split_whitespace().count()
        };
        self.children.iter().map(|(child, _)| of(child)).sum()
    }

    /// Returns the paths of the workers' logs.
    pub(super) fn logs(&self) -> impl Iterator<Item = &Path> {
        self.children.iter().map(|(_, log)| log.as_path())
    }

    /// Waits until a condition is true. Returns an error if a worker ends earlier.
    pub(super) fn work_until(
        &mut self,
        limit: Duration,
        interrupt: &Interrupt,
        mut is_done: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let mut check = || {
            for (child, log) in &mut self.children {
                if let Some(status) = child.try_wait().context("cannot check a worker")? {
                    bail!("a worker ended with {status}:\n{}", tail(log).trim_end());
                }
            }
            is_done(self)
        };
        until(limit, interrupt, &mut check)
    }

    /// Waits until all workers have ended by themselves, and returns their statuses.
    pub(super) fn end(
        &mut self,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Vec<ExitStatus>> {
        let mut ended = Vec::new();
        while let Some((child, _)) = self.children.last_mut() {
            let mut status = None;
            until(limit, interrupt, &mut || {
                status = child.try_wait().context("cannot check a worker")?;
                Ok(status.is_some())
            })?;
            ended.extend(status);
            self.children.pop();
        }
        Ok(ended)
    }

    /// Stops all workers with SIGTERM, waits until they have ended, and returns their statuses.
    pub(super) fn stop(&mut self) -> Result<Vec<ExitStatus>> {
        self.children.iter().try_for_each(|(child, _)| terminate(child))?;
        let mut ended = Vec::new();
        while let Some((child, _)) = self.children.last_mut() {
            let status = wait(child, GRACE)?;
            ended.push(status.context("a worker does not end after SIGTERM")?);
            self.children.pop();
        }
        Ok(ended)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            // These calls fail only if the worker has already ended or has no session yet.
            kill_process_group(Pid::from_child(child), Signal::KILL).unwrap_or_default();
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Returns the same command in a new session. `setsid` replaces itself by the program, so the process id
/// stays the same.
fn in_session(worker: &Command) -> Command {
    let mut session = command(SETSID);
    session.arg(worker.get_program()).args(worker.get_args());
    for (name, value) in worker.get_envs() {
        match value {
            Some(value) => session.env(name, value),
            None => session.env_remove(name),
        };
    }
    session
}

fn until(
    limit: Duration,
    interrupt: &Interrupt,
    is_done: &mut dyn FnMut() -> Result<bool>,
) -> Result<()> {
    let start = Instant::now();
    while !is_done()? {
        ensure!(!interrupt.is_set(), "interrupted");
        ensure!(start.elapsed() < limit, "not finished after {} s", limit.as_secs());
        std::thread::sleep(TICK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::output;

    #[test]
    fn a_worker_leads_its_own_session() {
        let ids =
            "read -r pid _ _ _ group session _ </proc/$$/stat; echo $pid $group $session $A$B";
        let mut worker = command("sh");
        worker.args(["-c", ids]).env("A", "a").env_remove("PWD");
        let said = output(&mut in_session(&worker)).unwrap();
        let words: Vec<&str> = said.split(' ').collect();
        assert_eq!([words[0], words[0], "a"], [words[1], words[2], words[3]], "{said}");
    }
}
