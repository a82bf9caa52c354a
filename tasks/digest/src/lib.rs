//! Collects build results, and emits one message for many results. This message is called a digest.
//!
//! The collected results are stored in the state of the task. The host stores the state changes of a run and
//! sends its emitted messages together, or does neither. The task also recognises a redelivered message by
//! its id. Therefore each result is in exactly one digest. There is one exception: the task remembers only
//! the ids of the last [`REMEMBERED`] messages. If a message is redelivered after more than this number of
//! other messages, its result is counted again.

use std::collections::VecDeque;

use loopabull_task::{Context, Message, OrReject, Result, info, reject, task};
use serde::{Deserialize, Serialize};

/// The number of message ids that the task remembers. This number of ids takes about 20 KiB of the state.
const REMEMBERED: usize = 500;
/// The maximum number of results in a digest.
const MAX_BUILDS: usize = 1000;
const TOPIC: &str = "org.example.digest";
const KEY: &str = "collected";

/// The body of a `buildsys.build.state.change` message.
#[derive(Deserialize)]
struct StateChange {
    name: String,
    version: String,
    release: String,
    /// The new state of the build, as a number from Koji's `BUILD_STATES`.
    new: i64,
}

/// The state of the task.
#[derive(Default, Serialize, Deserialize)]
struct Collected {
    /// The ids of the last counted messages. The oldest id comes first.
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

/// Adds a result to the state. Emits a digest if the state contains enough results.
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
