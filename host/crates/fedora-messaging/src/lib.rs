//! A client of fedora-messaging. It consumes messages from a bus and publishes messages to a bus. A bus is a
//! topic exchange on a broker of its own.
//!
//! This crate knows fedora-messaging's queues and bindings, its configuration file, and the AMQP properties
//! of its messages. It does not parse JSON bodies, and does not know message schemas.
//!
//! [`Bus`] receives messages from the publishers on the bus and passes them to the host's ingest.
//! [`Exchange`] receives messages from the outbox and publishes them for the consumers on the bus.
//!
//! The modules in order, each using only earlier ones: `config`, `python_config`, `state`, `delivery`,
//! `connection`, `bus`. The module `exchange` uses none of them.

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
