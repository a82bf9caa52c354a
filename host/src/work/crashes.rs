//! Pauses a task at the start of the daemon if several earlier daemons died while the task was
//! running.
//!
//! The journal counts the crashes. Other modules delay or refuse a single entry that was running
//! during several crashes.

use loopabull_model::{PausedBy, Target, chain};

use crate::work::pauses::Pauses;
use crate::work::starts::Starts;

/// Number of daemons that must die while a task is running before the task is paused. A successful
/// run of the task resets the count. A single entry is refused after fewer crashes.
const MAX_CRASHES: u32 = 5;

/// Counts the crash of the last daemon for the tasks that were running. Pauses a task whose count
/// is at least `MAX_CRASHES`.
pub(crate) async fn pause_crashing_tasks(starts: &Starts, pauses: &Pauses) {
    let crashed = match starts.take_crashed().await {
        Ok(crashed) => crashed,
        Err(error) => {
            return tracing::error!("cannot read the crashed tasks: {}", chain(error));
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
