//! Says which package was retired, of all the pushes to dist-git.
//!
//! Dist-git sends a `git.receive` for every commit that is pushed. Hardly one in a thousand
//! retires its package, by adding the file `dead.package`; a playbook takes seconds to find that
//! out, this task microseconds. For those it sends `org.fedoraproject.ENV.block.retired`, ENV as in
//! the topic that came, and the playbook `retire-package` does the rest.

use std::collections::BTreeMap;

use loopabull_task::{Context, Message, Result, info, reject, task};
use serde::{Deserialize, Serialize};

/// The file whose presence retires a package.
const DEAD: &str = "dead.package";

/// The body of a `git.receive`.
#[derive(Deserialize)]
pub(crate) struct Push {
    commit: Commit,
}

#[derive(Deserialize)]
struct Commit {
    /// `rpms`, or what else is in dist-git. None in messages of long ago.
    namespace: Option<String>,
    /// The package.
    repo: String,
    branch: String,
    /// The first line of the commit's message.
    summary: String,
    #[serde(default)]
    stats: Stats,
}

#[derive(Default, Deserialize)]
struct Stats {
    /// The files that the commit changes.
    #[serde(default)]
    files: BTreeMap<String, Lines>,
}

/// How many lines of a file were changed.
#[derive(Deserialize)]
struct Lines {
    additions: Option<u64>,
    #[serde(default)]
    deletions: u64,
}

/// The body of a `block.retired`.
#[derive(Serialize)]
struct Retired<'a> {
    package: &'a str,
    branch: &'a str,
    summary: &'a str,
}

/// Sends a message for a push that retires a package.
///
/// # Errors
///
/// Rejects a retirement whose topic is not one of `git.receive`.
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
    /// Whether a file may be there after the commit. One that only loses lines was deleted: so a
    /// package comes back.
    fn were_added(&self) -> bool {
        self.additions != Some(0) || self.deletions == 0
    }
}

#[cfg(test)]
#[path = "../tests/block_retired.rs"]
mod tests;
