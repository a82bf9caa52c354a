//! The measurement of loopabull-host: `inject`, and the drain of a queue.

use std::fs::{self, File};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use loopabull_testbed::{Rabbit, Vhost};
use serde_json::Value;
use ureq::Agent;

use super::case::Case;
use super::raw;
use super::setup::{LIMIT, Sample, Setup, WORKERS, write_messages};
use crate::bench::workers::Workers;
use crate::command::output;

/// The queue of tasks that name none.
pub(super) const QUEUE: &str = "workers";
/// The time limit for the daemon's answer to a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The interval between two looks at `/api/v1/status`. The daemon counts its queue for each.
const TICK: Duration = Duration::from_millis(100);

/// A broker of its own, if the case needs one. It is started only for its case, so that it does not slow down others.
pub(super) struct Queue {
    rabbit: Option<Rabbit>,
    vhost: Option<Vhost>,
}

/// A running daemon.
pub(super) struct Daemon {
    workers: Workers,
    pub(super) url: String,
    agent: Agent,
    pid: u64,
}

/// The number of runs and the processor time of a daemon at one moment.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    at: Instant,
    pub(super) runs: u64,
    cpu: Duration,
}

impl Queue {
    pub(super) fn start(uses_rabbitmq: bool) -> Self {
        let rabbit = uses_rabbitmq.then(Rabbit::start);
        let vhost = rabbit.as_ref().map(Rabbit::vhost);
        Self { rabbit, vhost }
    }

    pub(super) fn rabbit(&self) -> Option<&Rabbit> {
        self.rabbit.as_ref()
    }

    pub(super) fn url(&self) -> Option<String> {
        self.vhost.as_ref().map(Vhost::url)
    }
}

/// Measures `inject`.
pub(super) fn inject(setup: &Setup, case: Case) -> Result<Sample> {
    let (folder, queue) = (setup.folder(&case.slug())?, Queue::start(case.uses_rabbitmq()));
    let cpu_before = setup.cpu.children()?;
    let seconds = publish(setup, &folder, queue.url().as_deref(), 0..setup.messages)?.as_secs_f64();
    let cpu = setup.cpu.children()?.saturating_sub(cpu_before);
    let messages = f64::from(setup.messages);
    let cpu = Some(cpu.as_secs_f64() * 1e6 / messages);
    Ok(Sample { rate: messages / seconds, cpu, note: None })
}

/// Measures the drain of a queue that is full before.
pub(super) fn drain(setup: &Setup, case: Case) -> Result<Sample> {
    let (folder, queue) = (setup.folder(&case.slug())?, Queue::start(case.uses_rabbitmq()));
    if let Some(url) = queue.url().filter(|_| case == Case::DrainClassic) {
        raw::declare_classic(setup, &url, QUEUE)?;
    }
    publish(setup, &folder, queue.url().as_deref(), 0..setup.messages)?;
    let mut daemon = Daemon::start(setup, &folder, queue.url().as_deref(), &[])?;
    let messages = u64::from(setup.messages);
    let mut first = None;
    let last = daemon.wait(setup, |moment| {
        if moment.runs > 0 {
            first.get_or_insert(moment);
        }
        moment.runs >= messages
    })?;
    let memory = daemon.memory()?;
    let counts = daemon.stop()?;
    ensure!(
        counts["runs"] == messages && counts["succeeded"] == messages,
        "{messages} messages, but {counts}"
    );
    let note = format!("{memory} MiB resident");
    let first = first.context("the daemon reports no runs")?;
    Ok(Sample { note: Some(note), ..last.since(first) })
}

/// Publishes the messages with these numbers with `inject`, and returns the time.
pub(super) fn publish(
    setup: &Setup,
    folder: &Path,
    url: Option<&str>,
    numbers: Range<u32>,
) -> Result<Duration> {
    let count = numbers.len();
    let messages = write_messages(folder, numbers)?;
    let start = Instant::now();
    let queued = output(setup.host(folder, url).arg("inject").arg(messages))?;
    let took = start.elapsed();
    let expected = format!("{count} messages, {count} entries queued, 0 rejected");
    ensure!(queued == expected, "not all messages are queued: {queued}");
    Ok(took)
}

impl Moment {
    /// Returns the processor time since an earlier moment, in seconds.
    pub(super) fn cpu_since(self, first: Self) -> f64 {
        self.cpu.saturating_sub(first.cpu).as_secs_f64()
    }

    /// Returns the rate and the processor time since an earlier moment.
    pub(super) fn since(self, first: Self) -> Sample {
        let runs = self.runs.saturating_sub(first.runs).max(1) as f64;
        let cpu = self.cpu_since(first) * 1e6 / runs;
        let rate = runs / (self.at - first.at).max(TICK).as_secs_f64();
        Sample { rate, cpu: Some(cpu), note: None }
    }
}

impl Daemon {
    /// Starts a daemon in a folder.
    pub(super) fn start(
        setup: &Setup,
        folder: &Path,
        url: Option<&str>,
        arguments: &[&str],
    ) -> Result<Self> {
        let mut host = setup.host(folder, url);
        host.args(["--listen", "127.0.0.1:0"]).args(arguments);
        if !arguments.contains(&"--workers") {
            host.args(["--workers", &WORKERS.to_string()]);
        }
        let notice: PathBuf = folder.join("state/daemon.json");
        let mut workers = Workers::default();
        workers.start(&host, Stdio::null(), folder.join("daemon.log"))?;
        let agent = Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT)).build().into();
        let mut found = None;
        workers.work_until(LIMIT, &setup.interrupt, |_| {
            let file = File::open(&notice).ok();
            found = file.and_then(|file| serde_json::from_reader::<_, Value>(file).ok());
            Ok(found.is_some())
        })?;
        let found = found.unwrap_or_default();
        let listen = found["listen"].as_str().context("the daemon names no address")?;
        let pid = found["pid"].as_u64().context("the daemon names no process")?;
        Ok(Self { workers, url: format!("http://{listen}"), agent, pid })
    }

    /// Looks until a moment is the last one, and returns it.
    pub(super) fn wait(
        &mut self,
        setup: &Setup,
        mut is_last: impl FnMut(Moment) -> bool,
    ) -> Result<Moment> {
        let start = Instant::now();
        loop {
            let moment = self.look(setup)?;
            if is_last(moment) {
                return Ok(moment);
            }
            ensure!(!setup.interrupt.is_set(), "interrupted");
            ensure!(start.elapsed() < LIMIT, "not finished: {} runs", moment.runs);
            std::thread::sleep(TICK);
        }
    }

    pub(super) fn look(&self, setup: &Setup) -> Result<Moment> {
        let runs = self.status()?["counts"]["runs"].as_u64();
        let cpu = setup.cpu.process(self.pid)?;
        Ok(Moment { at: Instant::now(), runs: runs.context("`/api/v1/status` has no runs")?, cpu })
    }

    pub(super) fn status(&self) -> Result<Value> {
        let text = self.get("/api/v1/status")?;
        serde_json::from_str(&text).context("`/api/v1/status` is not JSON")
    }

    pub(super) fn get(&self, path: &str) -> Result<String> {
        let response = self.agent.get(format!("{}{path}", self.url)).call();
        let response = response.with_context(|| format!("cannot get `{path}`"))?;
        response.into_body().read_to_string().with_context(|| format!("cannot read `{path}`"))
    }

    /// Returns the resident memory of the daemon, in MiB.
    pub(super) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kib.context("the daemon has no memory")? / 1024)
    }

    /// Stops the daemon, and returns its counts.
    pub(super) fn stop(mut self) -> Result<Value> {
        let counts = self.status()?["counts"].clone();
        let ended = self.workers.stop()?;
        ensure!(ended.iter().all(ExitStatus::success), "the daemon failed to stop cleanly");
        Ok(counts)
    }
}
