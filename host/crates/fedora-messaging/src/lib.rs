//! A client of fedora-messaging: consumes a bus, which is a topic exchange of another broker, and
//! publishes messages to one.
//!
//! Knows the form of fedora-messaging's queues, bindings, configuration file and message properties.
//! Knows nothing of topics, schemas and JSON bodies.
//!
//! Before [`Bus`] on the path of a message: the publishers on the bus. After it: the host's ingest.
//! Before [`Exchange`]: the outbox. After it: the consumers on the bus.
//!
//! Modules, each using only those before it: `config`, `python_config`, `state`, `delivery`,
//! `connection`, `bus`; and `exchange`, which uses none of them.

mod bus;
mod config;
mod connection;
mod delivery;
mod exchange;
mod python_config;
mod state;

pub use bus::Bus;
pub use config::{Binding, BusConfig, BusQueue};
pub use delivery::{BusBodyError, BusDelivery, Settled};
pub use exchange::Exchange;
pub use loopabull_amqp::{AmqpError, Argument, TlsFiles};
pub use python_config::PythonConfigError;
pub use state::{BusLink, BusState};
