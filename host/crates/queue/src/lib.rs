//! The durable work queues: one entry for each message and task.
//!
//! There are two backends behind one interface, held to the same behaviour by one conformance suite
//! (`tests/queues/conformance.rs`): a SQLite file for one machine, and RabbitMQ for several.
//!
//! Both backends guarantee: an entry for which `publish` returned is on disk. It leaves its queue only
//! when its delivery is settled, or by an operator's verdict on a dead letter. An entry that was received
//! and not settled, because this process died, is redelivered.
//!
//! Before it on the path of a message: ingest. After it: the worker.
//!
//! Modules, each using only those before it: `clock`, `config`, `depth`, `dead_letter`, `delivered`,
//! `error`, the backends `embedded` and `rabbitmq`, `delivery`, `queues`.

mod clock;
mod config;
mod dead_letter;
mod delivered;
mod delivery;
mod depth;
mod embedded;
mod error;
mod queues;
mod rabbitmq;

pub use config::{Backend, Config, QueueConfig, RabbitMqConfig};
pub use dead_letter::{DeadLetter, DeathRecord, MAX_OUTPUT, Verdict};
pub use delivered::DeliveredEntry;
pub use delivery::{Delivery, Received};
pub use depth::Depth;
pub use error::QueueError;
pub use loopabull_amqp::AmqpError;
pub use loopabull_backoff::Backoff;
pub use queues::{Consumer, Queues};
pub use rabbitmq::{AckTimeout, AckTimeoutSource, Change, Declaration, External, Plan};
