//! The worker host of a round: the processes that a machine would run, and its sudden death.
//!
//! A process belongs to the host if its working directory is the host's or beneath it: each worker
//! is started there, and what it starts stays there. A machine that dies takes tasks and workers
//! with it, so a kill spares none of them.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::command::spawn;

/// How long what was killed may take to be gone.
const GONE: Duration = Duration::from_secs(20);
/// Between two looks for what is left.
const TICK: Duration = Duration::from_millis(2);
/// How long a worker that ended by itself stays away, as under a supervisor.
const PAUSE: Duration = Duration::from_secs(1);

/// The processes of a worker host; killed on drop.
pub(super) struct Host {
    folder: PathBuf,
    workers: Vec<Worker>,
}

/// One process of the host, which has a process group of its own.
struct Worker {
    command: Command,
    child: Option<Child>,
    ended: Option<Instant>,
}

impl Host {
    /// Takes the workers of a host, each of which is started in `folder`.
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

    /// Starts each worker again that has ended by itself, after a pause. Returns how many ended.
    pub(super) fn supervise(&mut self) -> Result<usize> {
        let mut ended = 0;
        for worker in &mut self.workers {
            if let Some(child) = &mut worker.child
                && child.try_wait().context("cannot ask for a worker")?.is_some()
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

    /// Kills every process of the host with SIGKILL, and waits until all are gone.
    pub(super) fn kill(&mut self) -> Result<()> {
        let start = Instant::now();
        // Looked for before the first dies: a task that outlives its worker for as long as a look
        // takes may end meanwhile, which no machine's death would let it.
        let mut left = self.processes()?;
        for child in self.workers.iter().filter_map(|worker| worker.child.as_ref()) {
            unless_gone(kill_process_group(Pid::from_child(child), Signal::KILL))?;
        }
        while !left.is_empty() {
            for process in left {
                unless_gone(kill_process(process, Signal::KILL))?;
            }
            ensure!(start.elapsed() < GONE, "a process does not end by SIGKILL");
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

    /// Returns the processes of the host. What has ended has no working directory any more.
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

/// It may have ended a moment before it was to be killed.
fn unless_gone(killed: Result<(), Errno>) -> Result<()> {
    match killed {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error).context("cannot kill a process of the host"),
    }
}
