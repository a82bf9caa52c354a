//! Opens the queues for commands, which may run beside a daemon.

use std::time::{Duration, Instant};

use loopabull_queue::{Config as QueuesConfig, QueueError, Queues};
use loopabull_store::StoreError;

use crate::commands::note;
use crate::config::Config;
use crate::daemon::state_dir;
use crate::tables;

/// Time in which a daemon that has just started upgrades its file.
const UPGRADE_LIMIT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// Opens the queues to publish, and creates missing ones. While a daemon runs, the file of embedded queues is left to it to
/// upgrade.
pub(crate) async fn open(config: &Config, queues: &QueuesConfig) -> Result<Queues, QueueError> {
    if config.amqp_url.is_some() || !state_dir::is_locked(&config.state) {
        return Queues::open(queues).await;
    }
    let start = Instant::now();
    loop {
        match Queues::inspect(queues).await {
            Err(QueueError::Store(StoreError::NotUpgraded { .. } | StoreError::Open { .. }))
                if start.elapsed() < UPGRADE_LIMIT =>
            {
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            opened => return opened,
        }
    }
}

/// Opens the queues to look at them, or to change what is there. `None` if there are no embedded queues yet.
pub(crate) async fn inspect(
    config: &Config,
    queues: &QueuesConfig,
) -> Result<Option<Queues>, QueueError> {
    if config.amqp_url.is_none() && !tables::path(&config.state).exists() {
        return Ok(None);
    }
    if let Some(file) = loopabull_queue::earlier_file(&tables::path(&config.state))
        && config.amqp_url.is_none()
    {
        let file = file.display();
        note(&format!(
            "messages of an earlier version wait in the file `{file}` until a daemon takes them over"
        ));
    }
    Queues::inspect(queues).await.map(Some)
}
