//! Collects build results and emits one message, a digest, for many of them.
//!
//! The collected results are in the state of the task. The emitted messages and the state of a run take
//! effect together or not at all, and a redelivered message is recognised by its id, so each result is
//! in exactly one digest. The task remembers the last [`REMEMBERED`] ids; a message that is redelivered
//! after that many others counts again.

use std::collections::VecDeque;

use loopabull_task::{Context, Message, OrReject, Result, info, reject, task};
use serde::{Deserialize, Serialize};

/// The number of message ids that the task remembers, about 20 KiB.
const REMEMBERED: usize = 500;
/// The maximum number of results in a digest.
const MAX_BUILDS: usize = 1000;
const TOPIC: &str = "org.example.digest";
const KEY: &str = "collected";

/// The body of a `buildsys.build.state.change`.
#[derive(Deserialize)]
struct StateChange {
    name: String,
    version: String,
    release: String,
    /// The build's new state, a number of Koji's `BUILD_STATES`.
    new: i64,
}

/// The state of the task.
#[derive(Default, Serialize, Deserialize)]
struct Collected {
    /// The ids of the last counted messages, the oldest first.
    ids: VecDeque<String>,
    /// The results for the next digest.
    builds: Vec<Built>,
}

/// The result of a build.
#[derive(Serialize, Deserialize)]
struct Built {
    nvr: String,
    succeeded: bool,
}

/// The body of a digest.
#[derive(Serialize)]
struct Digest<'a> {
    succeeded: usize,
    failed: usize,
    builds: &'a [Built],
}

/// Adds a result to the state, and emits a digest if there are enough results.
///
/// # Errors
///
/// Rejects the message if `builds` in the manifest is not a number or is out of range.
#[task]
fn digest(message: Message<StateChange>, cx: &Context) -> Result {
    let StateChange { name, version, release, new } = message.body;
    let succeeded = match new {
        1 => true,
        3 => false,
        _ => return Ok(()),
    };
    let enough: usize = cx.config("builds").as_deref().unwrap_or("25").parse().or_reject()?;
    if !(1..=MAX_BUILDS).contains(&enough) {
        return reject(format!("`builds` is {enough}, but must be 1 to {MAX_BUILDS}"));
    }

    let mut collected: Collected = cx.state().get(KEY)?.unwrap_or_default();
    if collected.ids.contains(&message.id) {
        cx.note("skipped", "the message was counted before");
        return Ok(());
    }
    collected.ids.push_back(message.id);
    while collected.ids.len() > REMEMBERED {
        collected.ids.pop_front();
    }
    collected.builds.push(Built { nvr: format!("{name}-{version}-{release}"), succeeded });
    if collected.builds.len() >= enough {
        let succeeded = collected.builds.iter().filter(|build| build.succeeded).count();
        let failed = collected.builds.len() - succeeded;
        cx.emit(TOPIC, &Digest { succeeded, failed, builds: &collected.builds })?;
        info!(succeeded, failed, "emitting a digest");
        collected.builds.clear();
    }
    cx.note("collected", collected.builds.len());
    cx.state().set(KEY, &collected)
}

#[cfg(test)]
#[path = "../tests/digest.rs"]
mod tests;
