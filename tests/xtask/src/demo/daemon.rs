//! The daemon of the demo. The demo starts, watches and stops it as an operator would.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use ureq::Agent;

use crate::command::{command, output, spawn, tail, terminate, wait};
use crate::repository;

/// The maximum number of listed runs. The demo has fewer runs, including all attempts.
const RUNS: &str = "1000";
/// The time limit for the daemon to finish its runs.
const GRACE: Duration = Duration::from_secs(45);
/// The time limit for an answer to a request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval between checks for the file that the daemon writes when it is ready.
const TICK: Duration = Duration::from_millis(50);

/// The settings of the daemon.
pub(crate) struct Setup {
    /// An empty folder for the state and the log of the daemon.
    pub(crate) folder: PathBuf,
    pub(crate) playbooks: PathBuf,
    /// The endpoint from which the daemon receives messages.
    pub(crate) endpoint: String,
    pub(crate) amqp_url: Option<String>,
    /// A `PATH` with `ansible-playbook`. `None` if Ansible is not installed.
    pub(crate) path: Option<OsString>,
}

/// A running daemon. It is stopped on drop.
pub(crate) struct Daemon {
    /// The process of the daemon. `None` once the daemon has ended.
    child: Option<Child>,
    folder: PathBuf,
    listen: String,
    agent: Agent,
}

/// The status that the daemon reports.
pub(crate) struct Status {
    pub(crate) waiting: u64,
    /// Number of claimed entries. `None` if the queue is in RabbitMQ.
    pub(crate) claimed: Option<u64>,
    pub(crate) dead: u64,
    pub(crate) accepted: u64,
    pub(crate) rejected: u64,
    pub(crate) unrouted: u64,
    pub(crate) succeeded: u64,
}

/// A line of `loopabull-host runs list --json`.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) message_id: String,
    pub(crate) task: String,
    pub(crate) kind: String,
    pub(crate) succeeded: bool,
}

/// The components that the demo runs. The other components are left out, because they call servers and need
/// tokens.
const PLAYED: [&str; 2] = ["block-retired", "greet"];

impl Daemon {
    /// Starts the daemon and waits until it is ready.
    pub(crate) fn start(setup: Setup, deadline: Instant) -> Result<Self> {
        let Setup { folder, playbooks, endpoint, amqp_url, path } = setup;
        let log = folder.join("daemon.log");
        let cannot = || format!("cannot write `{}`", log.display());
        let out = File::create(&log).with_context(cannot)?;
        let mut start = host();
        start.args(["--workers", "5", "--fedmsg", &endpoint, "--unsigned"]);
        start.arg("--state").arg(folder.join("state"));
        start.arg("--tasks").arg(copy_tasks(&folder)?).arg("--playbooks").arg(playbooks);
        start.args(["--listen", "127.0.0.1:0"]);
        if let Some(url) = amqp_url {
            start.args(["--amqp-url", &url]);
        }
        if let Some(path) = path {
            start.env("PATH", path);
        }
        start.stdin(Stdio::null()).stderr(out.try_clone().with_context(cannot)?).stdout(out);
        // Ctrl-C reaches only this program, which then stops the daemon.
        start.process_group(0);
        let child = spawn(&mut start)?;
        let config = Agent::config_builder().timeout_global(Some(REQUEST_TIMEOUT)).build();
        let mut daemon =
            Self { child: Some(child), folder, listen: String::new(), agent: config.into() };
        daemon.wait_until_ready(deadline)?;
        Ok(daemon)
    }

    /// Returns the address of the daemon's HTTP server.
    pub(crate) fn listen(&self) -> &str {
        &self.listen
    }

    /// Returns the path of the daemon's log.
    pub(crate) fn log(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    /// Requests the daemon's status.
    pub(crate) fn status(&mut self) -> Result<Status> {
        self.check_alive()?;
        let url = format!("http://{}/api/v1/status", self.listen);
        let asked =
            self.agent.get(&url).call().and_then(|answer| answer.into_body().read_to_string());
        let text = asked.with_context(|| format!("cannot read `{url}`"))?;
        let status: Value =
            serde_json::from_str(&text).with_context(|| format!("`{url}` is not JSON"))?;
        let number = |table: &str, key: &str| {
            let number = status[table][key].as_u64();
            number.with_context(|| format!("`{url}` has no number `{table}.{key}`"))
        };
        let queue = &status["queues"][0];
        let in_queue = |key: &str| {
            queue[key].as_u64().with_context(|| format!("`{url}` has no number `queues.0.{key}`"))
        };
        Ok(Status {
            waiting: in_queue("waiting")? + in_queue("delayed")?,
            claimed: queue["claimed"].as_u64(),
            dead: in_queue("dead")?,
            accepted: number("counts", "accepted")?,
            rejected: number("counts", "rejected")?,
            unrouted: number("counts", "unrouted")?,
            succeeded: number("counts", "succeeded")?,
        })
    }

    /// Returns all runs in the journal.
    pub(crate) fn runs(&self) -> Result<Vec<Run>> {
        let text = output(self.list_runs().arg("--json"))?;
        text.lines().map(Run::parse).collect()
    }

    /// Prints the table of runs.
    pub(crate) fn print_runs(&self) -> Result<()> {
        let status = spawn(&mut self.list_runs())?
            .wait()
            .context("cannot wait for `loopabull-host runs list`")?;
        ensure!(status.success(), "cannot list the runs: {status}");
        Ok(())
    }

    /// Returns the command line that prints the table of runs.
    pub(crate) fn runs_command_line(&self) -> String {
        let relative = |path: &Path| {
            path.strip_prefix(repository::root()).unwrap_or(path).display().to_string()
        };
        let program = relative(&repository::binaries().join("loopabull-host"));
        format!("{program} runs list --state {}", relative(&self.state()))
    }

    /// Returns an error if the daemon has ended by itself. The error contains the end of the log.
    pub(crate) fn check_alive(&mut self) -> Result<()> {
        let child = self.child.as_mut().context("the daemon has been stopped")?;
        if let Some(status) = child.try_wait().context("cannot check the daemon")? {
            self.child = None;
            bail!("the daemon ended with {status}:\n{}", tail(&self.log()).trim_end());
        }
        Ok(())
    }

    /// Stops the daemon, and waits until it has finished its runs and ended.
    pub(crate) fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        terminate(&child)?;
        match wait(&mut child, GRACE)? {
            Some(status) if status.success() => Ok(()),
            Some(status) => bail!("the daemon ended with {status}"),
            None => bail!("the daemon did not end within {} s", GRACE.as_secs()),
        }
    }

    /// Waits for `daemon.json`, which the daemon writes once it is ready.
    fn wait_until_ready(&mut self, deadline: Instant) -> Result<()> {
        let path = self.state().join("daemon.json");
        loop {
            self.check_alive()?;
            // A file that is not complete yet is read again.
            let written = fs::read(&path).ok().and_then(|text| serde_json::from_slice(&text).ok());
            let written: Value = written.unwrap_or_default();
            if let Some(listen) = written["listen"].as_str() {
                listen.clone_into(&mut self.listen);
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the daemon did not write `{}`", path.display());
            std::thread::sleep(TICK);
        }
    }

    fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    fn list_runs(&self) -> Command {
        let mut list = host();
        list.args(["runs", "list", "--limit", RUNS, "--state"]).arg(self.state());
        list
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("{error:#}");
        }
    }
}

impl Run {
    fn parse(line: &str) -> Result<Self> {
        let run: Value =
            serde_json::from_str(line).with_context(|| format!("a run is not JSON: `{line}`"))?;
        let text = |key: &str| {
            let text = run[key].as_str().map(str::to_owned);
            text.with_context(|| format!("a run without `{key}`: `{line}`"))
        };
        Ok(Self {
            message_id: text("message_id")?,
            task: text("task")?,
            kind: text("kind")?,
            succeeded: run["outcome"]["outcome"] == "success",
        })
    }
}

fn host() -> Command {
    let mut host = command(repository::binaries().join("loopabull-host"));
    // Only the options of the demo select the queue, not this environment variable.
    host.env_remove("LOOPABULL_AMQP_URL");
    host
}

/// Copies the components of the demo into a separate folder, and returns this folder.
fn copy_tasks(folder: &Path) -> Result<PathBuf> {
    let tasks = folder.join("tasks");
    fs::create_dir(&tasks).with_context(|| format!("cannot make `{}`", tasks.display()))?;
    for name in PLAYED {
        for file in [format!("{name}.wasm"), format!("{name}.toml")] {
            fs::copy(repository::tasks().join(&file), tasks.join(&file))
                .with_context(|| format!("cannot copy `{file}`"))?;
        }
    }
    Ok(tasks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_parsed_from_its_json_line() {
        let line = r#"{"id":"r1","message_id":"m1","topic":"a.b","task":"greet",
            "kind":"component","attempt":1,"outcome":{"outcome":"success"}}"#;
        let run = Run::parse(line).unwrap();
        assert_eq!((run.message_id.as_str(), run.task.as_str()), ("m1", "greet"));
        assert!(run.succeeded);
        let failed = line.replace("success", "failure");
        assert!(!Run::parse(&failed).unwrap().succeeded);
    }
}
