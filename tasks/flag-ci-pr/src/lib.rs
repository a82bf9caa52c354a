//! Flags a dist-git pull request with the state of its CI run.
//!
//! The pull request shows one flag for each of its tests, with the current state of the test. Fedora's
//! loopabull set the same flags. The state is the last word of the topic: `queued`, `running`, `complete` or
//! `error`. The messages are the `dist-git-pr.test` messages of Fedora CI. [`CiRun`] contains the fields of
//! their body that the task reads.
//!
//! If a message needs no flag, the run succeeds, and its note `skipped` contains the reason.

mod flag;

use loopabull_task::http::segment;
use loopabull_task::{Context, Message, Result, debug, info, reject, task};
use serde::Deserialize;
use serde_json::Value;

use crate::flag::Flag;

/// The body of a `ci.dist-git-pr.test.*` message.
#[derive(Deserialize)]
struct CiRun {
    /// The tested pull request.
    artifact: Artifact,
    /// The kind of test. All runs of the same kind share one flag.
    #[serde(default)]
    test: Test,
    /// The CI run.
    run: Run,
    /// The reason why the tests could not run, if the state is `error`.
    error: Option<Error>,
}

#[derive(Deserialize)]
struct Artifact {
    /// The type, which is `dist-git-pr` for a pull request. CI also tests artifacts of other types.
    r#type: String,
    /// The number of the pull request, as a JSON number or string.
    id: Value,
    /// The URL of the package, for example `https://src.fedoraproject.org/rpms/bash`.
    repository: String,
    /// The hash of the last commit in the pull request.
    commit_hash: String,
}

#[derive(Default, Deserialize)]
struct Test {
    /// The namespace, for example `fedora-ci`.
    namespace: Option<String>,
    /// The type, for example `dist-git`.
    r#type: Option<String>,
    /// The category, for example `functional`.
    category: Option<String>,
    /// The result, if the state is `complete`: `passed`, `failed`, `info` or `needs_inspection`.
    result: Option<String>,
}

#[derive(Deserialize)]
struct Run {
    /// The URL of the web page of the run.
    url: String,
}

#[derive(Deserialize)]
struct Error {
    reason: Option<String>,
}

/// Sets the flag of a pull request.
///
/// # Errors
///
/// Rejects the message if its state, its result or the number of the pull request is invalid, or if Pagure
/// refuses the request. Asks for a retry if Pagure cannot be reached or has a server error.
#[task]
fn flag_ci_pr(message: Message<CiRun>, cx: &Context) -> Result {
    let CiRun { artifact, test, run, error } = message.body;
    if artifact.r#type != "dist-git-pr" {
        return skip(cx, &format!("artifact `{}`", artifact.r#type));
    }
    let dist_git = setting(cx, "dist_git", "https://src.fedoraproject.org");
    let Some(package) = package(&artifact.repository, &dist_git) else {
        return skip(cx, "the pull request is not in dist-git");
    };
    let Some(id) = number(&artifact.id) else {
        return reject(format!("`{}` is not the number of a pull request", artifact.id));
    };

    let name = test.name();
    let state = message.topic.rsplit('.').next().unwrap_or_default();
    let flag = match (state, test.result.as_deref()) {
        ("queued", _) => Flag::pending("queued"),
        ("running", _) => Flag::pending("running"),
        ("complete", Some("passed" | "info")) => Flag::success("passed"),
        ("complete", Some("failed")) => Flag::failure("failed"),
        ("complete", Some("needs_inspection")) => Flag::failure("needs inspection"),
        ("complete", Some(other)) => return reject(format!("ci has no result `{other}`")),
        ("complete", None) => return reject("a complete test without a result"),
        ("error", _) => Flag::error(error.and_then(|error| error.reason).as_deref()),
        (other, _) => return reject(format!("ci has no state `{other}`")),
    };
    let username = setting(cx, "username", "Fedora CI");
    let comment = format!("{name}: {}", flag.comment);
    let uid = flag::uid(&[&artifact.repository, &id.to_string(), &artifact.commit_hash, &name]);
    let mut form = vec![
        ("username", username.as_str()),
        ("comment", &comment),
        ("url", &run.url),
        ("uid", &uid),
        ("status", flag.status),
    ];
    form.extend(flag.percent.map(|percent| ("percent", percent)));

    let token = cx.secret("pagure_token")?;
    cx.http()
        .post(format!("{dist_git}/api/0/rpms/{}/pull-request/{id}/flag", segment(package)?))
        .header("authorization", format!("token {token}"))
        .form(&form)
        .send()?
        .error_for_status()?;

    info!(package, id, status = flag.status, url = run.url, uid, "{comment}");
    cx.note("flag", format!("{package}#{id} {}", flag.status));
    Ok(())
}

impl Test {
    /// Returns the name of the test, which is joined from the present parts: `fedora-ci.dist-git.functional`.
    fn name(&self) -> String {
        let parts = [&self.namespace, &self.r#type, &self.category].into_iter().flatten();
        let name = parts.map(String::as_str).collect::<Vec<_>>().join(".");
        if name.is_empty() { "tests".to_owned() } else { name }
    }
}

/// Returns the name of the package with this URL, or `None` for the URL of a fork or of another site.
fn package<'a>(repository: &'a str, dist_git: &str) -> Option<&'a str> {
    let path = repository.strip_prefix(dist_git)?.strip_prefix("/rpms/")?;
    let package = path.strip_suffix(".git").unwrap_or(path);
    let is_package = !package.is_empty() && !package.contains(['/', '?', '#', '%']);
    is_package.then_some(package)
}

/// Returns the value as a number. The value may be a JSON number or a string.
fn number(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
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
#[path = "../tests/flag_ci_pr.rs"]
mod tests;
