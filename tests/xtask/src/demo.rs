//! `cargo xtask demo`: runs the daemon on a fresh machine, without a bus or a broker.
//!
//! The demo builds the host and the example tasks, starts the daemon, publishes messages on a real ZeroMQ
//! socket, and checks that each message ran once.

mod daemon;
mod messages;
mod publisher;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::command::{cargo, path_with, say, show};
use crate::interrupt::Interrupt;
use crate::progress::Progress;
use crate::setup::Purpose;
use crate::{install, repository, tasks};
use daemon::{Daemon, Run, Setup, Status};
use messages::{Play, Script};
use publisher::Publisher;

/// The time limit for everything after the builds.
const LIMIT: Duration = Duration::from_secs(5 * 60);
/// The interval between requests for the daemon's status.
const TICK: Duration = Duration::from_millis(200);

/// The arguments of the command line.
#[derive(Args, Default)]
pub(crate) struct Options {
    /// Keep the daemon running after the demo, until Ctrl-C
    #[arg(long)]
    stay: bool,

    /// Use this RabbitMQ for the queue instead of the embedded one
    #[arg(long, value_name = "URL")]
    amqp_url: Option<String>,
}

/// Installs and builds everything that the demo needs, and plays the demo.
///
/// # Errors
///
/// If a program cannot be built or started, or a message was not run exactly once.
pub(crate) fn run(options: &Options) -> Result<()> {
    Purpose::Demo.prepare()?;
    let ansible = match install::ansible_playbook() {
        Ok(program) => Some(program),
        Err(error) => {
            say(&format!("{error:#}"));
            say("continuing with component tasks only");
            None
        }
    };
    tasks::build_rust()?;
    let mut build = cargo();
    build.args(["build", "--package", "loopabull-host", "--package", "loopabull-launcher"]);
    show("building the host", &mut build)?;
    play(options, ansible.as_deref())
}

/// Plays the demo with programs and tasks that are already built.
///
/// # Errors
///
/// If the daemon does not start, or a message was not run exactly once.
pub(crate) fn play(options: &Options, ansible: Option<&Path>) -> Result<()> {
    let script = messages::script(if ansible.is_some() { Play::All } else { Play::Components });
    let interrupt = Interrupt::listen()?;
    let publisher = Publisher::bind()?;
    let deadline = Instant::now() + LIMIT;
    let mut daemon = start(options, ansible, &publisher, deadline)?;

    publisher.wait_for_subscriber(&script, deadline, &interrupt)?;
    say(&format!("publishing {} messages", script.messages.len()));
    publisher.send(&script)?;
    let status = watch(&mut daemon, &script, deadline, &interrupt)?;
    if !options.stay {
        daemon.stop()?;
    }

    daemon.print_runs()?;
    let runs = daemon.runs()?;
    let result = judge(&script, &status, &runs);
    if let Err(error) = &result {
        say(&format!("unexpected result: {error:#}; see `{}`", daemon.log().display()));
    } else {
        println!(
            "\n{} messages: {} runs of components, {} of playbooks, {} unrouted, {} rejected.",
            script.messages.len(),
            runs.iter().filter(|run| run.kind == "component").count(),
            runs.iter().filter(|run| run.kind == "playbook").count(),
            status.unrouted,
            status.rejected,
        );
    }
    if options.stay {
        stay(&mut daemon, &publisher, &interrupt)?;
    }
    result
}

/// Starts the daemon in a fresh folder and waits until it is ready.
fn start(
    options: &Options,
    ansible: Option<&Path>,
    publisher: &Publisher,
    deadline: Instant,
) -> Result<Daemon> {
    let folder = fresh_folder()?;
    let playbooks = match ansible {
        Some(_) => repository::root().join("playbooks"),
        // Without Ansible the daemon would log a problem for each playbook. So the daemon gets an empty
        // folder of playbooks.
        None => {
            let empty = folder.join("playbooks");
            fs::create_dir(&empty).with_context(|| format!("cannot make `{}`", empty.display()))?;
            empty
        }
    };
    say("starting the daemon");
    let setup = Setup {
        folder,
        playbooks,
        endpoint: publisher.endpoint().to_owned(),
        amqp_url: options.amqp_url.clone(),
        path: ansible.map(path_with).transpose()?,
    };
    Daemon::start(setup, deadline)
}

fn fresh_folder() -> Result<PathBuf> {
    let folder = repository::target().join("demo");
    let cannot = || format!("cannot create the empty folder `{}`", folder.display());
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(cannot)?;
    }
    fs::create_dir_all(&folder).with_context(cannot)?;
    Ok(folder)
}

/// Shows the progress until all messages have run, or until no more runs can be expected.
fn watch(
    daemon: &mut Daemon,
    script: &Script,
    deadline: Instant,
    interrupt: &Interrupt,
) -> Result<Status> {
    let expected = script.expected.len() as u64;
    let mut progress = Progress::default();
    loop {
        let status = daemon.status()?;
        progress
            .show(&format!("{} of {expected} runs, {} waiting", status.succeeded, status.waiting));
        // If the queue is on a broker, it may contain other messages. So the runs are checked in addition to
        // the counts.
        let done = status.succeeded >= expected
            && status.rejected + status.accepted >= script.messages.len() as u64
            && judge(script, &status, &daemon.runs()?).is_ok();
        let hopeless = status.dead > 0 && status.waiting == 0 && status.claimed == Some(0);
        if done || hopeless || Instant::now() >= deadline {
            return Ok(status);
        }
        ensure!(!interrupt.is_set(), "interrupted");
        std::thread::sleep(TICK);
    }
}

/// Returns an error if an expected run is missing or repeated, or if a count is too low.
fn judge(script: &Script, status: &Status, runs: &[Run]) -> Result<()> {
    let mut missing = Vec::new();
    for expected in &script.expected {
        let times = runs.iter().filter(|run| run.succeeded && expected.is(run)).count();
        if times != 1 {
            missing.push(format!("{}: {times} successful runs", expected));
        }
    }
    if status.unrouted < script.unrouted {
        missing.push(format!("{} of {} unrouted messages", status.unrouted, script.unrouted));
    }
    if status.rejected < script.rejected {
        missing.push(format!("{} of {} rejected messages", status.rejected, script.rejected));
    }
    if !missing.is_empty() {
        bail!("{}", missing.join("; "));
    }
    Ok(())
}

/// Keeps the daemon running for the user until Ctrl-C.
fn stay(daemon: &mut Daemon, publisher: &Publisher, interrupt: &Interrupt) -> Result<()> {
    println!(
        "\nThe daemon runs until Ctrl-C. It receives messages from {}. To inspect it:\n\
         \n    curl http://{listen}/api/v1/status\
         \n    curl http://{listen}/metrics\
         \n    {}\n",
        publisher.endpoint(),
        daemon.runs_command_line(),
        listen = daemon.listen(),
    );
    while !interrupt.is_set() {
        daemon.check_alive()?;
        std::thread::sleep(TICK);
    }
    say("stopping the daemon");
    daemon.stop()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a script, and the status and the runs after a demo without faults.
    fn played() -> (Script, Status, Vec<Run>) {
        let script = messages::script(Play::All);
        let runs: Vec<Run> = script.expected.iter().map(messages::Expected::succeed).collect();
        let status = Status {
            waiting: 0,
            claimed: Some(0),
            dead: 0,
            accepted: 35,
            rejected: script.rejected,
            unrouted: script.unrouted,
            succeeded: runs.len() as u64,
        };
        (script, status, runs)
    }

    #[test]
    fn one_successful_run_of_each_message_is_expected() {
        let (script, status, runs) = played();
        assert!(judge(&script, &status, &runs).is_ok());
    }

    #[test]
    fn a_failed_attempt_before_a_success_is_no_error() {
        let (script, status, mut runs) = played();
        runs.push(Run { succeeded: false, ..script.expected[0].succeed() });
        assert!(judge(&script, &status, &runs).is_ok());
    }

    #[test]
    fn missing_and_repeated_runs_are_named() {
        let (script, status, mut runs) = played();
        runs[0] = script.expected[1].succeed();
        let error = judge(&script, &status, &runs).unwrap_err().to_string();
        let expected = [
            format!("{}: 0 successful runs", script.expected[0]),
            format!("{}: 2 successful runs", script.expected[1]),
        ];
        assert_eq!(error, expected.join("; "));
    }

    #[test]
    fn the_counts_must_include_unrouted_and_rejected_messages() {
        let (script, status, runs) = played();
        let status = Status { rejected: 0, unrouted: 1, ..status };
        let error = judge(&script, &status, &runs).unwrap_err().to_string();
        assert_eq!(error, "1 of 2 unrouted messages; 0 of 1 rejected messages");
    }
}
