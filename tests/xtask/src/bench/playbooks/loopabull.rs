//! The measurement of the Python loopabull with a real RabbitMQ. The processor time of RabbitMQ is
//! not counted.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use loopabull_testbed::Rabbit;

use super::case::Case;
use super::setup::{Sample, Setup, TOPIC, WORKERS, message};
use crate::bench::workers::Workers;
use crate::command::{command, spawn, tail};
use crate::python_loopabull::PythonLoopabull;

const BROKER: &str = include_str!("broker.py");
const QUEUE: &str = "loopabull";

/// A process that publishes messages and reports the length of the queue. It is killed on drop.
struct Broker {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Runs the playbook for each message.
pub(super) fn measure(setup: &Setup) -> Result<Sample> {
    let folder = setup.folder(Case::Loopabull)?;
    // The broker is started only for this case, so that it does not slow down the other cases.
    let rabbit = Rabbit::start();
    let vhost = rabbit.vhost();
    let loopabull = PythonLoopabull {
        python: &setup.python,
        folder: &folder,
        ansible_playbook: &setup.ansible_playbook,
        port: rabbit.address().port(),
        vhost: &vhost.name,
        topic: TOPIC,
        queue: QUEUE,
    };
    let cannot = || format!("cannot write `{}`", folder.display());
    loopabull.write_files().with_context(cannot)?;
    let errors = folder.join("broker.log");
    let mut broker = command(&setup.python);
    broker.args(["-c", BROKER, &vhost.url(), QUEUE, "amq.topic", TOPIC]);
    let log = File::create(&errors).with_context(cannot)?;
    let mut broker = Broker::start(broker.stderr(log))?;
    let published = broker.publish(setup.messages).with_context(|| tail(&errors))?;
    ensure!(published == u64::from(setup.messages), "only {published} messages are queued");

    let mut watch = setup.watch()?;
    let mut workers = Workers::default();
    for number in 0..WORKERS {
        let log = folder.join(format!("worker-{number}.log"));
        workers.start(&loopabull.worker(), Stdio::null(), log)?;
    }
    workers.work_until(setup.limit(), &setup.interrupt, |workers| {
        // The length of the queue does not include unacknowledged messages. Some of these may not have
        // started a playbook yet, so successful playbooks are counted as well.
        Ok(broker.count()? == 0
            && workers.logs().map(successes).sum::<u32>() >= setup.messages
            && workers.count_children() == 0)
    })?;
    watch.is_done();
    workers.stop()?;
    let sample = watch.read(setup.messages)?;
    let version = rabbit.ctl(&["version"]);
    Ok(Sample { note: Some(format!("RabbitMQ {}", version.trim())), ..sample })
}

/// Counts the successful playbooks in a worker's log.
fn successes(log: &Path) -> u32 {
    successes_in(&String::from_utf8_lossy(&fs::read(log).unwrap_or_default()))
}

/// Counts the recap lines of Ansible that report success.
fn successes_in(log: &str) -> u32 {
    let is_success = |line: &str| {
        [" ok=1 ", " unreachable=0 ", " failed=0 "].iter().all(|part| line.contains(part))
    };
    log.lines().map(|line| u32::from(is_success(line))).sum()
}

impl Broker {
    fn start(script: &mut Command) -> Result<Self> {
        let mut child = spawn(script.stdin(Stdio::piped()).stdout(Stdio::piped()))?;
        let requests = child.stdin.take().expect("standard input is piped");
        let answers = BufReader::new(child.stdout.take().expect("standard output is piped"));
        Ok(Self { child, requests, answers })
    }

    /// Publishes messages, and returns the number of messages in the queue afterwards.
    fn publish(&mut self, messages: u32) -> Result<u64> {
        for number in 0..messages {
            writeln!(self.requests, "{}", message(number))
                .context("the publisher does not read its input")?;
        }
        self.count()
    }

    /// Returns the number of messages that wait in the queue.
    fn count(&mut self) -> Result<u64> {
        writeln!(self.requests).context("the publisher does not read its input")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the publisher does not answer")?;
        line.trim().parse().with_context(|| {
            format!("the publisher answered `{}` instead of a number", line.trim())
        })
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both calls fail only if the process has already ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_successful_playbooks_are_counted() {
        let end = "localhost   : ok=1    changed=0    unreachable=0    failed=0    skipped=0";
        let failed = end.replace("failed=0", "failed=1");
        let log = format!("INFO:loopabull:x\nok: [localhost] => {{\n{end}\n{failed}\n{end}\n");
        assert_eq!(successes_in(&log), 2);
    }
}
