//! The bus, asked with a real RabbitMQ and the original fedora-messaging as its publisher.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod bed;
mod config;
mod healing;
mod messages;
mod node_faults;
mod tls;
