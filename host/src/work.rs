//! Processing of the entries in the queues: workers, the runner of tasks, pauses, and the outbox.

pub(crate) mod ack_timeout;
mod breakers;
mod bus_publisher;
mod crashes;
mod error;
mod external;
mod in_progress;
mod outbox;
mod pause_watcher;
pub(crate) mod pauses;
pub(crate) mod runner;
pub(crate) mod shared;
mod task_locks;
mod worker;
pub(crate) mod workers;
