//! The durable work queues. A queue has one entry for each message and task.
//!
//! Two backends implement the queues: a SQLite file for one machine, and RabbitMQ for several machines. The
//! same conformance suite, `tests/queues/conformance.rs`, tests both backends.
//!
//! Both backends guarantee:
//! - An entry is on disk when `publish` returns.
//! - An entry leaves its queue only when a worker settles its delivery, or when an operator requeues or drops
//!   its dead letter.
//! - A delivery that was not settled when the process died is redelivered.
//!
//! Ingest publishes entries to the queues, and workers receive the entries.
//!
//! The modules in order, each using only earlier ones: `clock`, `config`, `depth`, `whereabouts`, `dead_letter`,
//! `delivered`, `error`, the backends `embedded` and `rabbitmq`, `delivery`, `queues`.

mod clock;
mod config;
mod dead_letter;
mod dead_letter_filter;
mod delivered;
mod delivery;
mod depth;
mod embedded;
mod error;
mod queues;
mod rabbitmq;
mod whereabouts;

pub use config::{Backend, Config, QueueConfig, RabbitMqConfig};
pub use dead_letter::{DeadLetter, DeathRecord, MAX_OUTPUT, Verdict};
pub use dead_letter_filter::DeadLetterFilter;
pub use delivered::DeliveredEntry;
pub use delivery::{Delivery, Received};
pub use depth::{Bound, Depth, Held, HeldTask, Oldest, Release};
pub use embedded::{FileSettlement, HasRuns, TABLES, earlier_file, insert};
pub use error::QueueError;
pub use loopabull_amqp::AmqpError;
pub use loopabull_backoff::Backoff;
pub use queues::{Consumer, Queues};
pub use rabbitmq::{
    AckTimeout, AckTimeoutSource, Change, Declaration, Disposition, External, Plan,
};
pub use whereabouts::{EntryState, Whereabouts};
