//! Work on the messages of the queues: workers, the runner of tasks, pauses, and the outbox.

pub(crate) mod ack_timeout;
pub(crate) mod external;
pub(crate) mod outbox;
pub(crate) mod pauses;
pub(crate) mod runner;
pub(crate) mod shared;
pub(crate) mod task_locks;
pub(crate) mod worker;
