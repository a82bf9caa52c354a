//! Flags a dist-git commit with the state of its Koji build.
//!
//! Dist-git shows a flag on the commit from which a build is made. The flag is "pending" at first, and
//! "success" or "failure" at the end. Fedora's loopabull set the same flags. This task sends the flag to
//! Pagure, the forge of dist-git, and adds the note `flag` to its run. If a flag is sent twice, the second
//! flag replaces the first, because both have the same id.
//!
//! If a message needs no flag, the run succeeds, and its note `skipped` contains the reason.

mod source;

use loopabull_task::http::segment;
use loopabull_task::{Context, Message, Result, debug, info, reject, task};
use serde::Deserialize;
use serde_json::Value;

use crate::source::Source;

/// The body of a `buildsys.build.state.change` message.
#[derive(Deserialize)]
struct StateChange {
    /// The Koji instance: `primary`, or the name of an instance that builds for other architectures.
    instance: String,
    /// The id of the build.
    build_id: u64,
    /// The name of the package.
    name: String,
    version: String,
    release: String,
    /// The new state of the build, as a number from Koji's `BUILD_STATES`.
    new: i64,
    /// The id of the Koji task that made the build. `None` if the build was imported.
    task_id: Option<u64>,
    /// The build request: source, target and options. `None` if the build was imported.
    request: Option<Vec<Value>>,
}

/// Sets the flag of the commit from which a build is made.
///
/// # Errors
///
/// Rejects the message if its state is unknown, or if Pagure refuses the request. Asks for a retry if Pagure
/// cannot be reached or has a server error.
#[task]
fn flag_commit_build(message: Message<StateChange>, cx: &Context) -> Result {
    let change = message.body;
    if change.instance != "primary" {
        return skip(cx, &format!("koji instance `{}`", change.instance));
    }
    let (status, percent, verb) = match change.new {
        0 => ("pending", None, "started"),
        1 => ("success", Some("100"), "completed"),
        2 => return skip(cx, "the build was deleted"),
        3 => ("failure", Some("0"), "failed"),
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
    let username = setting(cx, "username", "Koji");
    let comment = format!("Build {nvr} {verb}");
    let url = format!("{koji}/taskinfo?taskID={task_id}");
    // All flags for one build have the same id, so that a later flag replaces an earlier flag.
    let uid = format!("koji-build-{}", change.build_id);
    let mut flag = vec![
        ("username", username.as_str()),
        ("comment", &comment),
        ("url", &url),
        ("uid", &uid),
        ("status", status),
    ];
    flag.extend(percent.map(|percent| ("percent", percent)));

    let token = cx.secret("pagure_token")?;
    cx.http()
        .post(format!("{dist_git}/api/0/rpms/{}/c/{commit}/flag", segment(package)?))
        .header("authorization", format!("token {token}"))
        .form(&flag)
        .send()?
        .error_for_status()?;

    info!(package, commit, status, url, uid, "build {nvr} {verb}");
    cx.note("flag", format!("{package}@{commit} {status}"));
    Ok(())
}

/// Skips a message that needs no flag: stores a note with the reason, and succeeds.
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
