//! The publisher of a round. It is not part of the worker host, so it survives when the host is killed. It
//! records in a ledger which messages it tried to publish and which were confirmed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use loopabull_testbed::oracle::Ledger;

use super::load::TOPIC;
use crate::command::{spawn, wait};

/// The time limit for the publisher to end after the last message.
const LIMIT: Duration = Duration::from_secs(180);

/// The publisher of the messages of a round.
pub(super) enum Publisher {
    /// `loopabull-host inject -`, which is started for each batch. Its output confirms all messages of the
    /// batch or none.
    Inject { command: Command, ledger: Ledger },
    /// A script that reads ids and prints the ledger.
    Script(Script),
}

/// A running script. It is killed on drop.
pub(super) struct Script {
    child: Child,
    ids: Option<ChildStdin>,
}

impl Publisher {
    /// Returns a publisher that uses `loopabull-host inject -`.
    pub(super) fn inject(mut command: Command, log: &Path, errors: File) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        let ledger = Ledger::open(log).with_context(|| cannot_write(log))?;
        Ok(Self::Inject { command, ledger })
    }

    /// Returns a publisher that uses a script, which reads ids and prints the ledger.
    pub(super) fn script(mut command: Command, log: &Path, errors: File) -> Result<Self> {
        let log = File::create(log).with_context(|| cannot_write(log))?;
        command.stdin(Stdio::piped()).stdout(log).stderr(errors).process_group(0);
        let mut child = spawn(&mut command)?;
        let ids = child.stdin.take();
        Ok(Self::Script(Script { child, ids }))
    }

    /// Publishes a message for each id.
    pub(super) fn publish(&mut self, ids: &[String]) -> Result<()> {
        match self {
            Self::Inject { command, ledger } => {
                ids.iter().for_each(|id| ledger.attempted(id));
                if inject(command, ids)? {
                    ids.iter().for_each(|id| ledger.confirmed(id));
                }
                Ok(())
            }
            Self::Script(script) => {
                let pipe =
                    script.ids.as_mut().context("the input of the publisher is already closed")?;
                let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
                pipe.write_all(lines.as_bytes()).context("the publisher does not read its input")
            }
        }
    }

    /// Waits until all messages have been published.
    pub(super) fn finish(self) -> Result<()> {
        if let Self::Script(mut script) = self {
            script.ids = None;
            let status = wait(&mut script.child, LIMIT)?;
            ensure!(status.is_some_and(|status| status.success()), "the publisher failed");
        }
        Ok(())
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Publishes a batch, and returns whether all of it was confirmed.
fn inject(command: &mut Command, ids: &[String]) -> Result<bool> {
    let mut child = spawn(command)?;
    let bodies: String = ids
        .iter()
        .map(|id| {
            format!(
                r#"{{"topic":"{TOPIC}","msg_id":"{id}","timestamp":1,"i":1,"msg":{{"sleep_ms":20}}}}"#
            )
        })
        .collect();
    // A write error is ignored, because a process that ends early also has a bad exit status.
    if let Some(mut pipe) = child.stdin.take() {
        drop(pipe.write_all(bodies.as_bytes()));
    }
    let status = wait(&mut child, LIMIT)?;
    let mut said = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut said).context("cannot read the output of the publisher")?;
    }
    let count = ids.len();
    let expected = format!("{count} messages, {count} entries queued, 0 rejected\n");
    Ok(status.is_some_and(|status| status.success()) && said == expected)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}
