//! Pauses a task at start if it was running each time that several consecutive daemons died.

use loopabull_model::Target;

use crate::error::chain;
use crate::journal::Journal;
use crate::work::pauses::Pauses;

/// Number of consecutive daemons that must die while a task is running before the task is paused. A
/// single entry is refused after fewer crashes.
const MAX_CRASHES: u32 = 5;

/// Pauses the tasks that were running when each of the last `MAX_CRASHES` daemons died.
pub(crate) async fn pause_crashing_tasks(journal: &Journal, pauses: &Pauses) {
    let crashed = match journal.take_crashed().await {
        Ok(crashed) => crashed,
        Err(error) => {
            return tracing::error!("cannot read the crashed tasks: {}", chain(error));
        }
    };
    for crashed in crashed {
        tracing::warn!(
            task.name = %crashed.task,
            "task `{}` was running when the last daemon died",
            crashed.task,
        );
        if crashed.count >= MAX_CRASHES {
            let reason = format!("the last {} daemons died while it was running", crashed.count);
            pauses.pause_automatically(Target::Task(crashed.task), &reason.into()).await;
        }
    }
}
