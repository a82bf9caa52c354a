//! Emits a message for each push to dist-git that retires a package.
//!
//! Dist-git publishes a `git.receive` message for every pushed commit. A commit that adds the file
//! `dead.package` retires its package. Fewer than one commit in a thousand retires a package. A playbook
//! would need seconds to check a commit; this task needs microseconds. For a retirement the task emits a
//! message to `org.fedoraproject.ENV.block.retired`, where ENV is copied from the received topic. For this
//! message the host runs the playbook `retire-package`.

use std::collections::BTreeMap;

use loopabull_task::{Context, Message, Result, info, reject, task};
use serde::{Deserialize, Serialize};

/// The name of the file that retires a package.
const DEAD: &str = "dead.package";

/// The body of a `git.receive` message.
#[derive(Deserialize)]
pub(crate) struct Push {
    commit: Commit,
}

#[derive(Deserialize)]
struct Commit {
    /// The namespace, which is `rpms` for packages. Very old messages have no namespace.
    namespace: Option<String>,
    /// The name of the package.
    repo: String,
    branch: String,
    /// The first line of the commit's message.
    summary: String,
    #[serde(default)]
    stats: Stats,
}

#[derive(Default, Deserialize)]
struct Stats {
    /// The changed files, by path.
    #[serde(default)]
    files: BTreeMap<String, Lines>,
}

/// The number of changed lines in a file.
#[derive(Deserialize)]
struct Lines {
    additions: Option<u64>,
    #[serde(default)]
    deletions: u64,
}

/// The body of a `block.retired` message.
#[derive(Serialize)]
struct Retired<'a> {
    package: &'a str,
    branch: &'a str,
    summary: &'a str,
}

/// Emits a message for a push that retires a package.
///
/// # Errors
///
/// Rejects a retirement whose topic does not end in `git.receive`.
#[task]
pub(crate) fn block_retired(message: Message<Push>, cx: &Context) -> Result {
    let Commit { namespace, repo: package, branch, summary, stats } = message.body.commit;
    let is_package = namespace.is_none_or(|namespace| namespace == "rpms");
    if !is_package || !stats.files.get(DEAD).is_some_and(Lines::were_added) {
        return Ok(());
    }
    let Some(environment) = message.topic.strip_suffix(".git.receive") else {
        return reject(format!("`{}` is not a topic of dist-git", message.topic));
    };
    let topic = format!("{environment}.block.retired");
    cx.emit(&topic, &Retired { package: &package, branch: &branch, summary: &summary })?;
    info!(package, branch, "retired");
    cx.note("retired", format!("{package}@{branch}"));
    Ok(())
}

impl Lines {
    /// Returns whether the file may exist after the commit. If lines were only removed, the commit deleted
    /// the file, and the package is no longer retired.
    fn were_added(&self) -> bool {
        self.additions != Some(0) || self.deletions == 0
    }
}

#[cfg(test)]
#[path = "../tests/block_retired.rs"]
mod tests;
