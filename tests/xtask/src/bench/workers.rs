//! The processes that are measured, and the wait for their work.
//!
//! Each is in a session of its own. The kernel may share the processors out among sessions
//! (`kernel.sched_autogroup_enabled`), and our launcher makes one for each playbook: on a machine with
//! other work, five sessions would win against one.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::command::{command, spawn, tail, terminate, wait};
use crate::interrupt::Interrupt;

/// Runs a program in a new session.
pub(super) const SETSID: &str = "setsid";
/// How often it is asked whether the work is done.
const TICK: Duration = Duration::from_millis(100);
/// How long a worker may take to end when it is told to.
const GRACE: Duration = Duration::from_secs(45);

/// The processes that are measured; killed with all they started on drop.
#[derive(Default)]
pub(super) struct Workers {
    children: Vec<(Child, PathBuf)>,
}

impl Workers {
    /// Starts another one with this input. Its output goes to this file.
    pub(super) fn start(&mut self, worker: &Command, input: Stdio, log: PathBuf) -> Result<()> {
        let cannot = || format!("cannot write `{}`", log.display());
        let out = File::create(&log).with_context(cannot)?;
        let mut worker = in_session(worker);
        worker.stdin(input).stderr(out.try_clone().with_context(cannot)?).stdout(out);
        self.children.push((spawn(&mut worker)?, log));
        Ok(())
    }

    /// Returns the processes that they have started and not waited for.
    pub(super) fn count_children(&self) -> usize {
        let of = |child: &Child| {
            let path = format!("/proc/{0}/task/{0}/children", child.id());
            std::fs::read_to_string(path).unwrap_or_default().split_whitespace().count()
        };
        self.children.iter().map(|(child, _)| of(child)).sum()
    }

    /// Returns where their output goes.
    pub(super) fn logs(&self) -> impl Iterator<Item = &Path> {
        self.children.iter().map(|(_, log)| log.as_path())
    }

    /// Waits until something is so. Fails if one of them ends before it.
    pub(super) fn work_until(
        &mut self,
        limit: Duration,
        interrupt: &Interrupt,
        mut is_done: impl FnMut(&Self) -> Result<bool>,
    ) -> Result<()> {
        let mut check = || {
            for (child, log) in &mut self.children {
                if let Some(status) = child.try_wait().context("cannot ask for a worker")? {
                    bail!("a worker ended with {status}:\n{}", tail(log).trim_end());
                }
            }
            is_done(self)
        };
        until(limit, interrupt, &mut check)
    }

    /// Waits until all have ended by themselves, and returns how.
    pub(super) fn end(
        &mut self,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Vec<ExitStatus>> {
        let mut ended = Vec::new();
        while let Some((child, _)) = self.children.last_mut() {
            let mut status = None;
            until(limit, interrupt, &mut || {
                status = child.try_wait().context("cannot ask for a worker")?;
                Ok(status.is_some())
            })?;
            ended.extend(status);
            self.children.pop();
        }
        Ok(ended)
    }

    /// Tells all to end, waits for them, and returns how they did.
    pub(super) fn stop(&mut self) -> Result<Vec<ExitStatus>> {
        self.children.iter().try_for_each(|(child, _)| terminate(child))?;
        let mut ended = Vec::new();
        while let Some((child, _)) = self.children.last_mut() {
            let status = wait(child, GRACE)?;
            ended.push(status.context("a worker does not end when it is told to")?);
            self.children.pop();
        }
        Ok(ended)
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for (child, _) in &mut self.children {
            // All fail only if it has ended by itself, or has no session yet.
            kill_process_group(Pid::from_child(child), Signal::KILL).unwrap_or_default();
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Returns the same command in a new session: `setsid` becomes the program, with the same process id.
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
        ensure!(start.elapsed() < limit, "not done after {} s", limit.as_secs());
        std::thread::sleep(TICK);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::output;

    #[test]
    fn worker_leads_its_session() {
        let ids =
            "read -r pid _ _ _ group session _ </proc/$$/stat; echo $pid $group $session $A$B";
        let mut worker = command("sh");
        worker.args(["-c", ids]).env("A", "a").env_remove("PWD");
        let said = output(&mut in_session(&worker)).unwrap();
        let words: Vec<&str> = said.split(' ').collect();
        assert_eq!([words[0], words[0], "a"], [words[1], words[2], words[3]], "{said}");
    }
}
