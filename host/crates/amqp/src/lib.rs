//! The connection to RabbitMQ over AMQP 0-9-1: address, version, TLS, sessions that reconnect, and publishing
//! with confirms.
//!
//! This crate does not know entries, tasks or messages. Two crates use it: the work queues
//! (`loopabull-queue`) and the client of fedora-messaging (`loopabull-fedora-messaging`). Its interface
//! contains lapin's types for channels, properties and tables, so those two crates also depend on lapin. No
//! other crate does.
//!
//! The modules in order, each using only earlier ones: `error_chain`, `tls`, `table`, `error`, `broker`,
//! `publishers`, `session`, `supervisor`.

mod broker;
mod error;
mod error_chain;
mod publishers;
mod session;
mod supervisor;
mod table;
mod tls;

pub use broker::{Broker, STEP_TIMEOUT, Version};
pub use error::AmqpError;
pub use publishers::{Publication, Published};
pub use session::Session;
pub use supervisor::Supervisor;
pub use table::{Argument, integer, table_from_arguments, table_size, text};
pub use tls::{TlsError, TlsFiles};
