//! The worker host of a round: the processes that would run on one machine in practice.
//!
//! If a machine fails, all its workers and tasks end. So a kill of the host kills all its processes at once.
//! A process belongs to the host if its working directory is the folder of the host or below that folder.
//! Each worker is started in the folder, and its descendants stay there.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::command::spawn;

/// The time limit for killed processes to disappear.
const GONE: Duration = Duration::from_secs(20);
/// The interval between searches for remaining processes.
const TICK: Duration = Duration::from_millis(2);
/// The delay before a worker that ended by itself is started again, as under a supervisor.
const PAUSE: Duration = Duration::from_secs(1);

/// The processes of a worker host. They are killed on drop.
pub(super) struct Host {
    folder: PathBuf,
    workers: Vec<Worker>,
}

/// A worker process of the host, which leads a process group.
struct Worker {
    command: Command,
    child: Option<Child>,
    ended: Option<Instant>,
}

impl Host {
    /// Returns a host with these workers, each of which is started in `folder`.
    pub(super) fn new(folder: PathBuf, commands: Vec<Command>) -> Self {
        let worker = |command| Worker { command, child: None, ended: None };
        Self { folder, workers: commands.into_iter().map(worker).collect() }
    }

    /// Starts all workers.
    pub(super) fn start(&mut self) -> Result<()> {
        for worker in &mut self.workers {
            worker.ended = None;
            worker.child = Some(spawn(&mut worker.command)?);
        }
        Ok(())
    }

    /// Restarts workers that have ended by themselves, after a delay. Returns the number of workers that have
    /// ended since the last call.
    pub(super) fn supervise(&mut self) -> Result<usize> {
        let mut ended = 0;
        for worker in &mut self.workers {
            if let Some(child) = &mut worker.child
                && child.try_wait().context("cannot check a worker")?.is_some()
            {
                worker.child = None;
                worker.ended = Some(Instant::now());
                ended += 1;
            }
            if worker.ended.is_some_and(|when| when.elapsed() >= PAUSE) {
                worker.ended = None;
                worker.child = Some(spawn(&mut worker.command)?);
            }
        }
        Ok(ended)
    }

    /// Kills every process of the host with SIGKILL, and waits until all have ended.
    pub(super) fn kill(&mut self) -> Result<()> {
        let start = Instant::now();
        // All processes are found before the first kill. A search between the kills would give a task time to
        // finish after its worker was killed, which is impossible if a machine fails.
        let mut left = self.processes()?;
        for child in self.workers.iter().filter_map(|worker| worker.child.as_ref()) {
            unless_gone(kill_process_group(Pid::from_child(child), Signal::KILL))?;
        }
        while !left.is_empty() {
            for process in left {
                unless_gone(kill_process(process, Signal::KILL))?;
            }
            ensure!(start.elapsed() < GONE, "a process of the host did not end after SIGKILL");
            std::thread::sleep(TICK);
            left = self.processes()?;
        }
        for worker in &mut self.workers {
            worker.ended = None;
            if let Some(mut child) = worker.child.take() {
                child.wait().context("cannot wait for a worker")?;
            }
        }
        Ok(())
    }

    /// Returns the processes of the host. A process that has ended has no working directory.
    fn processes(&self) -> Result<Vec<Pid>> {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").context("cannot read `/proc`")? {
            let entry = entry.context("cannot read `/proc`")?;
            let id = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if let Some(process) = id.and_then(Pid::from_raw)
                && fs::read_link(entry.path().join("cwd"))
                    .is_ok_and(|folder| folder.starts_with(&self.folder))
            {
                found.push(process);
            }
        }
        Ok(found)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// Returns success if the process had ended before it was killed.
fn unless_gone(killed: Result<(), Errno>) -> Result<()> {
    match killed {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("cannot kill a process of the host"),
    }
}
