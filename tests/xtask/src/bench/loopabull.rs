//! The Python loopabull with a real RabbitMQ, whose own processor time is not counted.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};
use loopabull_testbed::Rabbit;

use super::bed::{Bed, Sample, TOPIC, WORKERS, message};
use super::case::Case;
use super::workers::Workers;
use crate::command::{command, spawn, tail};
use crate::python_loopabull::PythonLoopabull;

const BROKER: &str = include_str!("broker.py");
const QUEUE: &str = "loopabull";

/// A process that publishes and asks for the length of the queue; killed on drop.
struct Broker {
    child: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Runs the playbook for each message.
pub(super) fn measure(bed: &Bed) -> Result<Sample> {
    let folder = bed.folder(Case::Loopabull)?;
    // It must not be a load for the others.
    let rabbit = Rabbit::start();
    let vhost = rabbit.vhost();
    let loopabull = PythonLoopabull {
        python: &bed.python,
        folder: &folder,
        ansible_playbook: &bed.ansible_playbook,
        port: rabbit.address().port(),
        vhost: &vhost.name,
        topic: TOPIC,
        queue: QUEUE,
    };
    let cannot = || format!("cannot write `{}`", folder.display());
    loopabull.write_files().with_context(cannot)?;
    let errors = folder.join("broker.log");
    let mut broker = command(&bed.python);
    broker.args(["-c", BROKER, &vhost.url(), QUEUE, "amq.topic", TOPIC]);
    let log = File::create(&errors).with_context(cannot)?;
    let mut broker = Broker::start(broker.stderr(log))?;
    let published = broker.publish(bed.messages).with_context(|| tail(&errors))?;
    ensure!(published == u64::from(bed.messages), "only {published} messages are queued");

    let mut watch = bed.watch()?;
    let mut workers = Workers::default();
    for number in 0..WORKERS {
        let log = folder.join(format!("worker-{number}.log"));
        workers.start(&loopabull.worker(), Stdio::null(), log)?;
    }
    workers.work_until(bed.limit(), &bed.interrupt, |workers| {
        // A message that is being worked does not wait, nor does one whose playbook has not been
        // started yet; so what was played is counted as well.
        Ok(broker.count()? == 0
            && workers.logs().map(successes).sum::<u32>() >= bed.messages
            && workers.count_children() == 0)
    })?;
    watch.is_done();
    workers.stop()?;
    let sample = watch.read(bed.messages)?;
    let version = rabbit.ctl(&["version"]);
    Ok(Sample { note: Some(format!("RabbitMQ {}", version.trim())), ..sample })
}

/// Counts the playbooks that ended well, as a worker's log has it.
fn successes(log: &Path) -> u32 {
    successes_in(&String::from_utf8_lossy(&fs::read(log).unwrap_or_default()))
}

/// Counts Ansible's own last lines, of those that ended well.
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

    /// Publishes messages, and returns how many are in the queue then.
    fn publish(&mut self, messages: u32) -> Result<u64> {
        for number in 0..messages {
            writeln!(self.requests, "{}", message(number))
                .context("the publisher does not read")?;
        }
        self.count()
    }

    /// Returns how many messages wait in the queue.
    fn count(&mut self) -> Result<u64> {
        writeln!(self.requests).context("the publisher does not read")?;
        let mut line = String::new();
        self.answers.read_line(&mut line).context("the publisher does not answer")?;
        line.trim().parse().with_context(|| format!("the publisher says `{}`", line.trim()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Both fail only if it has ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ended_well_is_counted() {
        let end = "localhost   : ok=1    changed=0    unreachable=0    failed=0    skipped=0";
        let failed = end.replace("failed=0", "failed=1");
        let log = format!("INFO:loopabull:x\nok: [localhost] => {{\n{end}\n{failed}\n{end}\n");
        assert_eq!(successes_in(&log), 2);
    }
}
