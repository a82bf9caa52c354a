//! Crashes: a task that was running each time a daemon died is paused at the next start.

use loopabull_model::Target;

use crate::error::chain;
use crate::journal::Journal;
use crate::work::pauses::Pauses;

/// How many daemons in a row may die with a task before it is paused. A single entry is refused
/// after fewer.
const MAX_CRASHES: u32 = 5;

/// Pauses the tasks that were running when each of the last daemons died.
pub(crate) async fn pause_crashing_tasks(journal: &Journal, pauses: &Pauses) {
    let crashed = match journal.take_crashed().await {
        Ok(crashed) => crashed,
        Err(error) => {
            return tracing::error!("cannot read which tasks crashed: {}", chain(error));
        }
    };
    for crashed in crashed {
        tracing::warn!(
            task.name = %crashed.task,
            "task `{}` was running when the last daemon died",
            crashed.task,
        );
        if crashed.count >= MAX_CRASHES {
            let reason = format!("it was running when the last {} daemons died", crashed.count);
            pauses.pause_automatically(Target::Task(crashed.task), &reason.into()).await;
        }
    }
}
