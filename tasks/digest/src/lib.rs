//! Collects the results of builds and sends one message for many.
//!
//! What was collected is in the state, from message to message. A run's emissions and its state
//! count together or not at all, so that a result is in one digest, and in no more than one: a
//! message that comes again is known by its id. The ids of the last [`REMEMBERED`] are kept; one
//! that comes again after so many others counts again.

use std::collections::VecDeque;

use loopabull_task::{Context, Message, OrReject, Result, info, reject, task};
use serde::{Deserialize, Serialize};

/// How many ids are kept, some 20 KiB of them.
const REMEMBERED: usize = 500;
/// The most results in a digest.
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

/// What is known when a message comes.
#[derive(Default, Serialize, Deserialize)]
struct Collected {
    /// The ids that were counted last, the oldest first.
    ids: VecDeque<String>,
    /// What the next digest will say.
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

/// Adds a result to what was collected, and sends it all if it is enough.
///
/// # Errors
///
/// Rejects a number of builds in the manifest that is none, or too large.
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
        return reject(format!("`builds` is {enough}, it may be 1 to {MAX_BUILDS}"));
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
        info!(succeeded, failed, "a digest is sent");
        collected.builds.clear();
    }
    cx.note("collected", collected.builds.len());
    cx.state().set(KEY, &collected)
}

#[cfg(test)]
#[path = "../tests/digest.rs"]
mod tests;
