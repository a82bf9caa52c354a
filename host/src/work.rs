//! Takes entries from the queues and runs their tasks. Contains the workers, the runner of tasks,
//! the pauses, and the outbox for messages that tasks emit.

pub(crate) mod ack_timeout;
pub(crate) mod again;
pub(crate) mod audit;
mod breakers;
mod bus_publisher;
pub(crate) mod cancellations;
mod control;
mod crashes;
mod error;
mod external;
mod in_progress;
mod outbox;
mod pause_watcher;
pub(crate) mod pauses;
pub(crate) mod runner;
mod running;
pub(crate) mod shared;
pub(crate) mod starts;
mod task_locks;
pub(crate) mod unknown_tasks;
mod worker;
pub(crate) mod workers;
