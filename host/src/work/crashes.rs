//! Pauses a task at the start of the daemon if several earlier daemons died while the task was
//! running.
//!
//! The journal counts the crashes. Other modules delay or refuse a single entry that was running
//! during several crashes.

use loopabull_model::{PausedBy, Target, chain};
use loopabull_queue::Backoff;
use tokio_util::sync::CancellationToken;

use crate::observe::health::{Health, Part};
use crate::work::pauses::Pauses;
use crate::work::starts::Starts;

/// Number of daemons that must die while a task is running before the task is paused. A successful
/// run of the task resets the count. A single entry is refused after fewer crashes.
const MAX_CRASHES: u32 = 5;

/// Counts the crash of the last daemon for the tasks that were running. Pauses a task whose count
/// is at least `MAX_CRASHES`. Retries until that has succeeded or the daemon drains: without the counts, an entry that
/// kills daemons would do so for ever.
pub(crate) async fn pause_crashing_tasks(
    starts: &Starts,
    pauses: &Pauses,
    health: &Health,
    drain: &CancellationToken,
) {
    let (condition, mut backoff) = (health.condition(Part::Crashes), Backoff::default());
    let crashed = loop {
        match starts.take_crashed().await {
            Ok(crashed) => break crashed,
            Err(error) => {
                let error = chain(error);
                tracing::error!("cannot count the crash of the last daemon: {error}; retrying");
                condition.report(error);
                backoff.pause(drain).await;
                if drain.is_cancelled() {
                    return;
                }
            }
        }
    };
    for crashed in crashed {
        tracing::warn!(
            task.name = %crashed.task,
            "task `{}` was running when the previous daemon died",
            crashed.task,
        );
        if crashed.count >= MAX_CRASHES {
            let reason = format!("{} daemons died while it was running", crashed.count);
            let target = Target::Task(crashed.task);
            pauses.pause_automatically(target, PausedBy::Daemon, &reason.into()).await;
        }
    }
}
