//! The publisher of a round. It stands on a machine of its own, so that no kill meets it, and writes
//! a ledger of what it attempted and what was confirmed to it.

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

/// For the messages that were handed to it last.
const LIMIT: Duration = Duration::from_secs(180);

/// Where the messages of a round come from.
pub(super) enum Publisher {
    /// `loopabull-host inject -`, once for each batch. Its last line confirms all of it.
    Inject { command: Command, ledger: Ledger },
    /// A script that takes ids and writes the log itself.
    Script(Script),
}

/// A running script; killed on drop.
pub(super) struct Script {
    child: Child,
    ids: Option<ChildStdin>,
}

impl Publisher {
    /// Publishes by `loopabull-host inject -`.
    pub(super) fn inject(mut command: Command, log: &Path, errors: File) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors).process_group(0);
        let ledger = Ledger::open(log).with_context(|| cannot_write(log))?;
        Ok(Self::Inject { command, ledger })
    }

    /// Publishes by a script that reads ids and prints the log.
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
                let pipe = script.ids.as_mut().context("the publisher is finished")?;
                let lines: String = ids.iter().map(|id| format!("{id}\n")).collect();
                pipe.write_all(lines.as_bytes()).context("the publisher does not read")
            }
        }
    }

    /// Waits until everything has been published.
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

/// Returns whether all of a batch was confirmed.
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
    // If it ends before it has read all, its exit status says so.
    if let Some(mut pipe) = child.stdin.take() {
        drop(pipe.write_all(bodies.as_bytes()));
    }
    let status = wait(&mut child, LIMIT)?;
    let mut said = String::new();
    if let Some(mut pipe) = child.stdout.take() {
        pipe.read_to_string(&mut said).context("cannot read what the publisher says")?;
    }
    let count = ids.len();
    let expected = format!("{count} messages, {count} entries queued, 0 refused\n");
    Ok(status.is_some_and(|status| status.success()) && said == expected)
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write `{}`", path.display())
}
