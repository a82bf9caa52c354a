//! The bus, tested with a real RabbitMQ and the original fedora-messaging as the publisher.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod config;
mod fixture;
mod healing;
mod messages;
mod node_faults;
mod tls;
