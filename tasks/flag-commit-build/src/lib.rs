//! Turns the state of a Koji build into the flag of a dist-git commit.
//!
//! Fedora's loopabull did this for years: as a build starts and ends, the commit that it
//! is made from shows a flag, "pending" and then "success" or "failure". This task says
//! which flag it would set, in the log and as the note `flag`. It sends nothing: a task
//! has no network.
//!
//! A message that calls for no flag is settled too; the note `skipped` says why.

mod source;

use loopabull_task::{Context, Message, Result, debug, info, reject, task};
use serde::Deserialize;
use serde_json::Value;

use crate::source::Source;

/// The body of a `buildsys.build.state.change`.
#[derive(Deserialize)]
struct StateChange {
    /// Which Koji speaks. Secondary ones build for other architectures.
    instance: String,
    /// The build.
    build_id: u64,
    /// The package's name.
    name: String,
    /// Its version.
    version: String,
    /// Its release.
    release: String,
    /// The build's new state, a number of Koji's `BUILD_STATES`.
    new: i64,
    /// The task that builds it, or none if the build was imported.
    task_id: Option<u64>,
    /// What was asked for: the source, the target and options. None if imported.
    request: Option<Vec<Value>>,
}

/// Says which flag the commit of a build deserves.
///
/// # Errors
///
/// Rejects a state that Koji does not have.
#[task]
fn flag_commit_build(message: Message<StateChange>, cx: &Context) -> Result {
    let change = message.body;
    if change.instance != "primary" {
        return skip(cx, &format!("koji instance `{}`", change.instance));
    }
    let (status, percent, verb) = match change.new {
        0 => ("pending", None, "started"),
        1 => ("success", Some(100_u8), "completed"),
        2 => return skip(cx, "the build was deleted"),
        3 => ("failure", Some(0), "failed"),
        4 => ("canceled", None, "was canceled"),
        other => return reject(format!("koji has no build state {other}")),
    };
    let (Some(task_id), Some(request)) = (change.task_id, change.request) else {
        return skip(cx, "the build was imported");
    };

    let dist_git = setting(cx, "dist_git", "https://src.fedoraproject.org");
    let asked = request.first().and_then(Value::as_str).unwrap_or_default();
    let Some(Source { package, commit }) = Source::parse(asked, &dist_git) else {
        return skip(cx, "the build is not from a commit in dist-git");
    };

    let koji = setting(cx, "koji", "https://koji.fedoraproject.org/koji");
    let nvr = format!("{}-{}-{}", change.name, change.version, change.release);
    let url = format!("{koji}/taskinfo?taskID={task_id}");
    // The same for every state of one build: a later flag replaces the earlier one.
    let uid = format!("koji-build-{}", change.build_id);
    match percent {
        Some(percent) => {
            info!(package, commit, status, url, uid, percent, "build {nvr} {verb}");
        }
        None => info!(package, commit, status, url, uid, "build {nvr} {verb}"),
    }
    cx.note("flag", format!("{package}@{commit} {status}"));
    Ok(())
}

/// Settles a message that calls for no flag.
fn skip(cx: &Context, reason: &str) -> Result {
    debug!(reason, "no flag");
    cx.note("skipped", reason);
    Ok(())
}

fn setting(cx: &Context, key: &str, default: &str) -> String {
    cx.config(key).unwrap_or_else(|| default.to_owned())
}

#[cfg(test)]
#[path = "../tests/flag_commit_build.rs"]
mod tests;
